//! Bulk loads large enough for several runs, each of several segments, that threads of their own encode.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use omendb::engine::fs::fault::{Fault, FaultFs, Repeat};
use omendb::engine::{Engine, ErrorKind, KeySpec, OnConflict, Options, SystemClock};

use crate::{open, pairs, rows, schema};

fn options() -> Options {
    Options {
        load_buffer_bytes: 6 << 20,
        segment_rows: 50_000,
        row_group_rows: 8192,
        background: false,
        ..Options::default()
    }
}

/// All keys below `n`, in an order that no run can stream, and then some of them again.
fn shuffled(n: i64, again: impl IntoIterator<Item = i64>) -> Vec<(i64, i64)> {
    let scattered = (0..n).map(|i| i * 7919 % n);
    scattered.chain(again).enumerate().map(|(i, key)| (key, i as i64)).collect()
}

fn load(engine: &Engine, all: &[(i64, i64)], policy: OnConflict) -> omendb::engine::Result<u64> {
    let table = engine.table("t")?;
    let mut transaction = engine.begin()?;
    let mut write = transaction.write(table.id(), policy)?;
    for part in all.chunks(10_000) {
        write.insert(&rows(part))?;
    }
    let result = transaction.apply(write)?;
    transaction.commit()?;
    Ok(result.inserted_count)
}

fn read(engine: &Engine) -> BTreeMap<i64, i64> {
    engine.table("t").unwrap().scan().unwrap().flat_map(|b| pairs(&b.unwrap())).collect()
}

#[test]
fn keys_that_several_runs_share_are_settled_by_the_policy() {
    const N: i64 = 300_000;
    let all = shuffled(N, [17, 150_000, N - 1, 17]);
    let (_dir, engine) = open(options());
    engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    let e = load(&engine, &all, OnConflict::Error).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::DuplicateKey, "{e}");
    assert!(read(&engine).is_empty());

    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    let mut first = BTreeMap::new();
    for (key, value) in &all {
        last.insert(*key, *value);
        first.entry(*key).or_insert(*value);
    }
    assert_eq!(load(&engine, &all, OnConflict::Replace).unwrap(), N as u64);
    assert_eq!(read(&engine), last);
    engine.write(|txn| txn.truncate(engine.table("t")?.id())).unwrap();
    assert_eq!(load(&engine, &all, OnConflict::Ignore).unwrap(), N as u64);
    assert_eq!(read(&engine), first);
}

#[test]
fn a_disk_that_fills_while_a_load_is_encoded_leaves_nothing_of_it() {
    let all = shuffled(200_000, []);
    let ascending: Vec<(i64, i64)> = (0..200_000).map(|key| (key, key)).collect();
    for (what, all) in [("shuffled", all), ("ascending", ascending)] {
        let mut went_on = 0;
        for at in [0, 3, 7, 20] {
            let fs = FaultFs::new();
            let open = || {
                let (fs, clock) = (Arc::new(fs.clone()), Arc::new(SystemClock));
                Engine::open_with(Path::new("/data"), options(), fs, clock).unwrap()
            };
            let engine = open();
            engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
            fs.inject(fs.operation_count() + at, Fault::NoSpace, Repeat::Forever);
            let e = load(&engine, &all, OnConflict::Error).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::ResourceExhausted, "{what} at {at}: {e:?}");
            fs.clear_faults();
            // A directory whose sync failed ends all writes; a file that could not be written does not.
            if engine.read_only().is_none() {
                assert_eq!(load(&engine, &all, OnConflict::Error).unwrap(), 200_000);
                engine.write(|txn| txn.truncate(engine.table("t")?.id())).unwrap();
                went_on += 1;
            }
            drop(engine);
            assert!(read(&open()).is_empty());
            let left = fs.files().into_iter().filter(|f| f.starts_with("/data/tables")).count();
            assert_eq!(left, 0, "{what} at {at}: {:?}", fs.files());
        }
        assert!(went_on > 1, "{what}");
    }
}
