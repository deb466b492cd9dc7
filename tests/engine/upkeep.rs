//! Maintenance that fails, and defects: what fails is told, keeps no others from their turn, and leaves nobody waiting.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampSecondArray};
use omendb::engine::fs::fault::{Fault, FaultFs, Repeat};
use omendb::engine::{Engine, ErrorKind, KeySpec, Options, SystemClock, Task};

use crate::{open, pairs, rows, schema, small};

fn open_in(fs: &FaultFs, options: Options) -> Engine {
    Engine::open_with("/data", options, Arc::new(fs.clone()), Arc::new(SystemClock)).unwrap()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn busy() -> Options {
    Options { background: true, background_interval: Duration::from_millis(5), ..small() }
}

fn some(from: i64) -> RecordBatch {
    rows(&(from..from + 40).map(|k| (k, k)).collect::<Vec<_>>())
}

#[test]
fn a_table_that_cannot_be_flushed_keeps_no_other_from_it() {
    let fs = FaultFs::new();
    let engine = open_in(&fs, Options { wal_bytes: 64 << 10, ..busy() });
    let key = KeySpec::primary(["key"]);
    let bad = engine.create_table("bad", &schema(), &key).unwrap();
    let good = engine.create_table("good", &schema(), &key).unwrap();
    fs.inject_within(&format!("/tables/{}/", bad.id()), Fault::Device, Repeat::Forever);
    for i in 0..8 {
        bad.insert(&some(i * 40)).unwrap();
    }
    eventually("the flush of one table fails", || {
        let failing = engine.failing_tasks();
        failing.iter().any(|f| f.table == Some(bad.id()) && f.task == Task::Flush)
    });
    for i in 0..200 {
        good.insert(&some(i * 40)).unwrap();
    }
    eventually("the other table is flushed", || {
        good.snapshot().unwrap().memtable_size().1 < 64 << 10
    });
    assert!(good.snapshot().unwrap().segments().len() > 1);
    let failing = engine.failing_tasks();
    assert!(failing.iter().all(|f| f.table != Some(good.id())), "{failing:?}");
    assert!(failing[0].error.contains("injected"), "{failing:?}");
    assert!(engine.read_only().is_none());
    // The disk is well again: what failed is done, and told no more.
    fs.clear_faults();
    eventually("the flush succeeds", || engine.failing_tasks().is_empty());
    assert_eq!(bad.snapshot().unwrap().row_count(), 320);
    engine.close().unwrap();
    drop((bad, good, engine));
    let engine = open_in(&fs, small());
    assert_eq!(engine.table("bad").unwrap().snapshot().unwrap().row_count(), 320);
    assert_eq!(engine.table("good").unwrap().snapshot().unwrap().row_count(), 8000);
}

#[test]
fn a_defect_in_the_log_makes_the_database_read_only() {
    let fs = FaultFs::new();
    let engine = open_in(&fs, small());
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    table.insert(&rows(&[(1, 1)])).unwrap();
    fs.inject_within("/wal/", Fault::Panic, Repeat::Once);
    let lost = table.insert(&rows(&[(2, 2)])).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::OutcomeUnknown, "{lost}");
    let refused = table.insert(&rows(&[(3, 3)])).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly, "{refused}");
    assert!(engine.read_only().unwrap().contains("defect"), "{:?}", engine.read_only());
    let scan = table.scan().unwrap().flat_map(|b| pairs(&b.unwrap())).collect::<Vec<_>>();
    assert_eq!(scan, [(1, 1)]);
    engine.close().unwrap();
}

#[test]
fn a_defect_in_a_flush_makes_the_database_read_only() {
    for background in [false, true] {
        let fs = FaultFs::new();
        let engine = open_in(&fs, Options { background, ..busy() });
        let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
        fs.inject_within("/tables/", Fault::Panic, Repeat::Once);
        let mut count = 0;
        while engine.read_only().is_none() && count < 8 {
            // In the background the flush may meet the defect any time.
            match table.insert(&some(count * 40)) {
                Ok(_) => count += 1,
                Err(e) => assert_eq!(e.kind(), ErrorKind::ReadOnly, "{e}"),
            }
        }
        if !background {
            assert_eq!(engine.flush(None).unwrap_err().kind(), ErrorKind::Internal);
        }
        eventually("the flush meets the defect", || engine.read_only().is_some());
        assert!(engine.read_only().unwrap().contains("defect"), "{:?}", engine.read_only());
        assert_eq!(table.insert(&some(4000)).unwrap_err().kind(), ErrorKind::ReadOnly);
        let rows = count as u64 * 40;
        assert_eq!(table.snapshot().unwrap().row_count(), rows);
        engine.close().unwrap();
        drop((table, engine));
        let engine = open_in(&fs, small());
        assert_eq!(engine.table("t").unwrap().snapshot().unwrap().row_count(), rows);
        engine.flush(None).unwrap();
    }
}

/// The newest group of the log has nothing behind it that vouches for it, but for the mark that says it was synced, and what a
/// clean stop leaves.
#[test]
fn damage_to_the_last_commit_is_found() {
    for stopped in [false, true] {
        let fs = FaultFs::new();
        let engine = open_in(&fs, small());
        let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
        table.insert(&rows(&[(1, 1)])).unwrap();
        table.insert(&rows(&[(2, 2)])).unwrap();
        // As a process that is killed leaves its files: its end runs on another copy.
        let killed = fs.duplicate();
        if stopped {
            engine.close().unwrap();
        }
        let found = if stopped { fs.duplicate() } else { killed };
        let logs: Vec<_> = found.files().into_iter().filter(|p| is_log(p)).collect();
        assert_eq!(logs.len(), 1 + usize::from(stopped));
        let content = found.contents(&logs[0]).unwrap();
        let used = content.iter().rposition(|b| *b != 0).unwrap();
        // The last group ends before its mark of 64 bytes, where the file is not cut to its end.
        let at = if stopped { used - 40 } else { used - 64 - 40 };
        let mut flipped = content.clone();
        flipped[at] ^= 4;
        found.set_contents(&logs[0], &flipped);
        let options = small();
        let vfs = Arc::new(found.clone());
        let error = Engine::open_with("/data", options, vfs, Arc::new(SystemClock)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert!(error.message().contains("offset"), "{error}");
        found.set_contents(&logs[0], &content);
        let engine = open_in(&found, small());
        assert_eq!(engine.table("t").unwrap().snapshot().unwrap().row_count(), 2);
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "wal")
}

/// A second that no segment can hold is refused when it is written, and not when it is flushed.
#[test]
fn values_that_a_segment_cannot_hold_are_refused_when_written() {
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    let (_dir, engine) = open(small());
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("t", DataType::Timestamp(TimeUnit::Second, None), true),
    ]));
    let table = engine.create_table("t", &schema, &KeySpec::primary(["k"])).unwrap();
    let write = |key: i64, seconds: Option<i64>| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![key, key + 1])),
            Arc::new(TimestampSecondArray::from(vec![None, seconds])),
        ];
        table.insert(&RecordBatch::try_new(schema.clone(), columns).unwrap())
    };
    for seconds in [1 << 60, i64::MIN, i64::MAX / 1000 + 1] {
        let error = write(10, Some(seconds)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Constraint, "{error}");
        assert!(error.message().contains("\"t\", row 2"), "{error}");
    }
    write(20, Some(i64::MAX / 1000)).unwrap();
    write(30, Some(i64::MIN / 1000)).unwrap();
    write(40, None).unwrap();
    engine.flush(None).unwrap();
    engine.compact(table.id()).unwrap();
    assert_eq!(table.snapshot().unwrap().row_count(), 6);
}

/// A NULL of a type of a fixed size takes as much as a value.
#[test]
fn types_of_a_large_fixed_size_are_refused() {
    use arrow::datatypes::{DataType, Field, Schema};
    let (_dir, engine) = open(small());
    let item = |size| Arc::new(Field::new_list_field(DataType::FixedSizeBinary(size), true));
    for (i, data_type) in [
        DataType::FixedSizeBinary(i32::MAX),
        DataType::FixedSizeList(item(1 << 20), i32::MAX),
        DataType::FixedSizeList(item(1000), 100),
    ]
    .into_iter()
    .enumerate()
    {
        let schema = Schema::new(vec![Field::new("a", data_type, true)]);
        let error = engine.create_table(format!("t{i}").as_str(), &schema, &KeySpec::row_id());
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.message().contains("fixed size"), "{error}");
    }
    let schema = Schema::new(vec![Field::new("a", DataType::FixedSizeBinary(16), true)]);
    engine.create_table("fine", &schema, &KeySpec::row_id()).unwrap();
}

/// Row groups are cut by what their rows take, and segments too; compaction comes to an end over them.
#[test]
fn rows_that_take_much_room_are_flushed_and_compacted() {
    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    let options = Options { row_group_bytes: 2048, ..busy() };
    let (_dir, engine) = open(options);
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("t", DataType::Utf8, true),
    ]));
    let table = engine.create_table("t", &schema, &KeySpec::primary(["k"])).unwrap();
    // Small rows first, and among them some that are much larger.
    let text = |key: i64| match key % 70 {
        60.. => "x".repeat(3000),
        50.. => "x".repeat(300),
        few => "x".repeat(few as usize),
    };
    for round in 0..30 {
        let keys: Vec<i64> = (0..40).map(|i| i * 30 + round).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(keys.clone())),
            Arc::new(StringArray::from_iter_values(keys.iter().map(|k| text(*k)))),
        ];
        table.insert(&RecordBatch::try_new(schema.clone(), columns).unwrap()).unwrap();
    }
    engine.flush(None).unwrap();
    let segments = || {
        let infos = table.snapshot().unwrap().segments();
        infos.iter().map(|s| s.meta.id).collect::<Vec<_>>()
    };
    let mut before = segments();
    eventually("compaction comes to an end", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = segments();
        now == std::mem::replace(&mut before, now.clone())
    });
    assert_eq!(engine.failing_tasks(), []);
    engine.compact(table.id()).unwrap();
    let infos = table.snapshot().unwrap().segments();
    assert!(infos.iter().any(|s| s.meta.row_group_rows < 32), "groups are smaller than wanted");
    let mut expected = 0;
    for batch in table.scan().unwrap() {
        let batch = batch.unwrap();
        let keys = batch.column(0).as_primitive::<Int64Type>();
        let texts = batch.column(1).as_string::<i32>();
        for i in 0..batch.num_rows() {
            assert_eq!((keys.value(i), texts.value(i)), (expected, text(expected).as_str()));
            expected += 1;
        }
    }
    assert_eq!(expected, 1200);
    engine.verify().unwrap();
}

/// Errors name files of the database, and not where the server keeps them.
#[test]
fn errors_do_not_tell_where_the_data_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("secret place");
    let options = small();
    let engine = Engine::open(&root, options.clone()).unwrap();
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    table.insert(&some(0)).unwrap();
    engine.flush(None).unwrap();
    engine.close().unwrap();
    let tables = root.join("tables").join(table.id().to_string());
    drop((table, engine));
    for file in std::fs::read_dir(&tables).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let engine = Engine::open(&root, options).unwrap();
    let error = engine.table("t").unwrap().scan().unwrap().find_map(Result::err).unwrap();
    assert!(error.message().contains("tables"), "{error}");
    assert!(!error.message().contains("secret"), "{error}");
}
