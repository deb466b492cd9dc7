//! Faults at every file operation of a run: power cuts, then again inside the recovery from them; and
//! single errors of the device. What was acknowledged is there, what was not is there whole or not at all.
//!
//! `OMENDB_TEST_SCALE=full` visits every operation; else every few.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use omendb::engine::fs::fault::{Fault, FaultFs, Repeat};
use omendb::engine::{Engine, Error, ErrorKind, KeySpec, OnConflict, Options, Result, SystemClock};

use crate::{keys, pairs, rows, schema, small};

type Rows = BTreeMap<i64, i64>;

#[derive(Debug, Clone)]
enum Step {
    Upsert(Vec<(i64, i64)>),
    Delete(Vec<i64>),
    Truncate,
    Flush,
    Compact,
    Checkpoint,
}

/// A run that goes through log, memtables, bulk loads, flush, compaction and checkpoints.
fn script() -> Vec<Step> {
    let bulk = |from: i64, step: i64| (0..150).map(|i| (from + i * step, i)).collect::<Vec<_>>();
    vec![
        Step::Upsert(vec![(1, 1), (2, 2)]),
        Step::Upsert(vec![(2, 20), (3, 3)]),
        Step::Upsert(bulk(100, 1)),
        Step::Delete(vec![1, 105, 120]),
        Step::Flush,
        Step::Upsert(bulk(50, 2)),
        Step::Upsert(vec![(3, 30), (110, 7)]),
        Step::Checkpoint,
        Step::Delete(vec![2, 111, 112]),
        Step::Compact,
        Step::Upsert(vec![(4, 4)]),
        Step::Checkpoint,
        Step::Truncate,
        Step::Upsert(vec![(9, 9), (8, 8)]),
        Step::Delete(vec![9]),
        Step::Upsert(bulk(0, 1)),
    ]
}

fn change(model: &mut Rows, step: &Step) {
    match step {
        Step::Upsert(new) => model.extend(new.iter().copied()),
        Step::Delete(gone) => model.retain(|k, _| !gone.contains(k)),
        Step::Truncate => model.clear(),
        _ => {}
    }
}

fn apply(engine: &Engine, step: &Step) -> Result<()> {
    let table = engine.table("t")?;
    match step {
        Step::Upsert(new) => {
            engine.write(|txn| txn.insert(table.id(), &rows(new), OnConflict::Replace)).map(|_| ())
        }
        Step::Delete(gone) => table.delete(&keys(gone)).map(|_| ()),
        Step::Truncate => engine.write(|txn| txn.truncate(table.id())).map(|_| ()),
        Step::Flush => engine.flush(None),
        Step::Compact => engine.compact(table.id()).map(|_| ()),
        Step::Checkpoint => engine.checkpoint(),
    }
}

fn open(fs: &FaultFs) -> Result<Engine> {
    let options = Options { wal_bytes: 1 << 30, ..small() };
    Engine::open_with(Path::new("/data"), options, Arc::new(fs.clone()), Arc::new(SystemClock))
}

/// What the database may hold: a table or none yet, with these rows.
type State = Option<Rows>;

/// Runs the script until the first error. Returns the states that a recovery may find.
fn run(fs: &FaultFs, go_on: bool) -> (Vec<State>, Option<Error>) {
    let mut known: State = None;
    let mut may: Vec<State> = Vec::new();
    let mut first = None;
    let mut steps = || -> Result<()> {
        let engine = open(fs)?;
        let created = engine.create_table("t", &schema(), &KeySpec::primary(["key"]));
        if let Err(e) = created {
            if e.kind() == ErrorKind::OutcomeUnknown {
                may.push(Some(Rows::new()));
            }
            return Err(e);
        }
        known = Some(Rows::new());
        for step in script() {
            let mut next = known.clone().unwrap_or_default();
            change(&mut next, &step);
            match apply(&engine, &step) {
                Ok(()) => known = Some(next),
                Err(e) => {
                    if e.kind() == ErrorKind::OutcomeUnknown {
                        may.push(Some(next));
                        return Err(e);
                    }
                    if !go_on || engine.read_only().is_some() {
                        return Err(e);
                    }
                    // One error must not take the database down.
                    first.get_or_insert(e);
                    assert_eq!(Some(read(&engine)), known);
                }
            }
        }
        Ok(())
    };
    let error = steps().err().or(first);
    may.push(known);
    (may, error)
}

fn read(engine: &Engine) -> Rows {
    let scan = engine.table("t").unwrap().scan().unwrap();
    scan.flat_map(|b| pairs(&b.unwrap())).collect()
}

/// Opens what a crash left, and checks it: the state, that no file is left over, and that it takes writes.
fn check(fs: &FaultFs, may: &[State], what: &str) {
    let engine = open(fs).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    let found = engine.table("t").is_ok().then(|| read(&engine));
    assert!(may.contains(&found), "{what}: found {found:?}, expected one of {may:?}");
    if let Some(mut rows_now) = found {
        apply(&engine, &Step::Upsert(vec![(77, 77)])).unwrap();
        rows_now.insert(77, 77);
        assert_eq!(read(&engine), rows_now, "{what}");
        let table = engine.table("t").unwrap().id();
        let live = engine.snapshot().table_by_id(table).unwrap().segments().len();
        let dir = Path::new("/data/tables");
        let files = fs.files().iter().filter(|f| f.starts_with(dir)).count();
        assert_eq!(files, 2 * live, "{what}: {:?}", fs.files());
    }
}

fn scale(quick: u64) -> u64 {
    if std::env::var("OMENDB_TEST_SCALE").is_ok_and(|s| s == "full") { 1 } else { quick }
}

fn operations() -> u64 {
    let fs = FaultFs::new();
    let (states, error) = run(&fs, false);
    assert!(error.is_none(), "{error:?}");
    check(&fs.crash(1), &states, "no fault");
    fs.operation_count()
}

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    let count = operations();
    assert!(count > 200, "{count}");
    let mut at = 0;
    while at < count {
        let fs = FaultFs::new();
        fs.inject(at, Fault::PowerCut, Repeat::Forever);
        let (may, _) = run(&fs, false);
        for seed in 0..2 {
            let found = fs.crash(at * 7 + seed);
            // Again inside the recovery.
            let recovery = found.duplicate();
            let before = recovery.operation_count();
            drop(open(&recovery).unwrap_or_else(|e| panic!("operation {at}: {e:?}")));
            let in_recovery = recovery.operation_count() - before;
            let mut again = (at + seed) % scale(9);
            while again < in_recovery {
                let twice = found.duplicate();
                twice.inject(twice.operation_count() + again, Fault::PowerCut, Repeat::Forever);
                drop(open(&twice));
                check(&twice.crash(again), &may, &format!("operation {at}, then {again}"));
                again += scale(9);
            }
            check(&found, &may, &format!("operation {at}, seed {seed}"));
        }
        at += scale(3);
    }
}

#[test]
fn single_errors_are_reported_and_survived() {
    let count = operations();
    for (fault, offset) in [(Fault::Device, 0), (Fault::NoSpace, 1), (Fault::Sync, 2)] {
        for repeat in [Repeat::Once, Repeat::Forever] {
            let mut at = offset % scale(5);
            while at < count {
                let fs = FaultFs::new();
                fs.inject(at, fault, repeat);
                let (may, _) = run(&fs, repeat == Repeat::Once);
                fs.clear_faults();
                check(
                    &fs.crash(at),
                    &may,
                    &format!(
                        "{fault:?} {repeat:?} at operation {at}, {:?}",
                        fs.trace().get(at as usize)
                    ),
                );
                at += scale(5);
            }
        }
    }
}

#[test]
fn commits_go_on_once_a_full_disk_has_space_again() {
    let fs = FaultFs::new();
    let engine = open(&fs).unwrap();
    engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    apply(&engine, &Step::Upsert(vec![(1, 1)])).unwrap();
    for round in 0..3 {
        fs.inject(fs.operation_count(), Fault::NoSpace, Repeat::Forever);
        // Several at once, so that some are validated on top of a commit that is lost.
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let engine = &engine;
                scope.spawn(move || {
                    let e = apply(engine, &Step::Upsert(vec![(100 + writer, 0)])).unwrap_err();
                    assert_eq!(e.kind(), ErrorKind::ResourceExhausted, "{e:?}");
                });
            }
        });
        assert_eq!(engine.read_only(), None);
        assert_eq!(read(&engine).len(), 1 + round);
        fs.clear_faults();
        // The numbers of the lost commits, and their keys, are free again.
        apply(&engine, &Step::Upsert(vec![(100 + round as i64, 7)])).unwrap();
    }
    let expected = BTreeMap::from([(1, 1), (100, 7), (101, 7), (102, 7)]);
    assert_eq!(read(&engine), expected);
    drop(engine);
    check(&fs.crash(1), &[Some(expected)], "a full disk");
}
