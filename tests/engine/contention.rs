//! Changes of the same rows at once: those that are transactions of their own come to their end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::UInt64Array;
use omendb::engine::{
    Engine, Error, ErrorKind, KeyRange, KeySpec, OnConflict, Options, RowAddress, ScanRequest,
    TableId, TableSnapshot, Transaction,
};

use crate::{open, pairs, rows, schema, small};

fn all(table: &TableSnapshot) -> Vec<(i64, i64)> {
    let scan = table.scan(&ScanRequest::new(KeyRange::all())).unwrap();
    scan.flat_map(|batch| pairs(&batch.unwrap())).collect()
}

fn with_addresses(table: &TableSnapshot) -> Vec<(RowAddress, i64, i64)> {
    let mut request = ScanRequest::new(KeyRange::all());
    request.row_address = true;
    let mut found = Vec::new();
    for batch in table.scan(&request).unwrap() {
        let batch = batch.unwrap();
        let column = batch.column(3).as_any().downcast_ref::<UInt64Array>().unwrap();
        let rows = pairs(&batch.project(&[0, 1, 2]).unwrap()).into_iter().enumerate();
        found.extend(rows.map(|(i, (key, value))| (RowAddress(column.value(i)), key, value)));
    }
    found
}

/// Adds 1 to the values of some keys.
fn increment(
    transaction: &mut Transaction,
    table: TableId,
    of: impl Fn(i64) -> bool,
) -> omendb::engine::Result<usize> {
    let snapshot = transaction.snapshot().table_by_id(table).unwrap();
    let chosen: Vec<_> = with_addresses(&snapshot).into_iter().filter(|r| of(r.1)).collect();
    let mut write = transaction.write(table, OnConflict::Error)?;
    write.delete(&chosen.iter().map(|r| r.0).collect::<Vec<_>>())?;
    write.insert(&rows(&chosen.iter().map(|r| (r.1, r.2 + 1)).collect::<Vec<_>>()))?;
    transaction.apply(write)?;
    Ok(chosen.len())
}

fn tally(engine: &Engine, key: &KeySpec, count: i64) -> TableId {
    let table = engine.create_table("t", &schema(), key).unwrap();
    table.insert(&rows(&(0..count).map(|k| (k, 0)).collect::<Vec<_>>())).unwrap();
    table.id()
}

/// Eight threads change one row, fifty times each: none fails, and all are counted.
fn every_increment_counts(key: &KeySpec) {
    let (_dir, engine) = open(Options { background: true, ..small() });
    let table = tally(&engine, key, 3);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let changed = engine.write(|t| increment(t, table, |k| k == 1)).unwrap();
                    assert_eq!(changed, 1);
                }
            });
        }
    });
    let mut rows = all(&engine.snapshot().table_by_id(table).unwrap());
    rows.sort_unstable();
    assert_eq!(rows, [(0, 0), (1, 400), (2, 0)]);
}

#[test]
fn changes_of_one_key_at_once_all_count() {
    every_increment_counts(&KeySpec::primary(["key"]));
}

#[test]
fn changes_of_one_row_without_a_key_all_count() {
    every_increment_counts(&KeySpec::row_id());
}

/// A change that takes longer than those who are always first comes to its end.
#[test]
fn a_long_change_is_not_starved_by_short_ones() {
    let (_dir, engine) = open(small());
    let table = tally(&engine, &KeySpec::primary(["key"]), 40);
    let (done, short) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (engine, done, short) = (&engine, &done, &short);
            scope.spawn(move || {
                let mut key = thread;
                while !done.load(Ordering::Relaxed) {
                    key = (key + 7) % 40;
                    engine.write(|t| increment(t, table, |k| k == key)).unwrap();
                    short.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while short.load(Ordering::Relaxed) < 20 {
            std::thread::yield_now();
        }
        let begun = Instant::now();
        for _ in 0..5 {
            let slow = |t: &mut Transaction| {
                let changed = increment(t, table, |_| true)?;
                std::thread::sleep(Duration::from_millis(30));
                Ok(changed)
            };
            assert_eq!(engine.write(slow).unwrap(), 40);
        }
        done.store(true, Ordering::Relaxed);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    });
    let sum: i64 = all(&engine.snapshot().table_by_id(table).unwrap()).iter().map(|r| r.1).sum();
    assert_eq!(sum, 5 * 40 + short.load(Ordering::Relaxed) as i64);
}

/// Whoever waits for his turn can be told to stop; others go on.
#[test]
fn a_change_that_waits_can_be_stopped() {
    let (_dir, engine) = open(small());
    let table = tally(&engine, &KeySpec::primary(["key"]), 3);
    let stopped = || Err(Error::new(ErrorKind::InvalidArgument, "stopped"));
    let mut tries = 0;
    let result = engine.write_while(&stopped, |transaction| {
        tries += 1;
        // Another one is first, always.
        engine.write(|t| increment(t, table, |k| k == 1))?;
        increment(transaction, table, |k| k == 1)
    });
    assert_eq!((result.unwrap_err().message(), tries), ("stopped", 1));
    engine.write(|t| increment(t, table, |k| k == 1)).unwrap();
}

/// Transactions that a client began are told to retry, and do not disturb the queue.
#[test]
fn transactions_of_clients_are_told_to_retry() {
    let (_dir, engine) = open(small());
    let table = tally(&engine, &KeySpec::primary(["key"]), 3);
    let (conflicts, committed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (engine, conflicts, committed) = (&engine, &conflicts, &committed);
            scope.spawn(move || {
                for _ in 0..40 {
                    if thread % 2 == 0 {
                        engine.write(|t| increment(t, table, |k| k == 1)).unwrap();
                        committed.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let mut transaction = engine.begin().unwrap();
                    increment(&mut transaction, table, |k| k == 1).unwrap();
                    match transaction.commit() {
                        Ok(_) => committed.fetch_add(1, Ordering::Relaxed),
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::Conflict);
                            conflicts.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
    });
    assert_eq!(conflicts.into_inner() + committed.load(Ordering::Relaxed), 240);
    let rows = all(&engine.snapshot().table_by_id(table).unwrap());
    assert_eq!(rows[1].1, committed.into_inner() as i64);
}

/// What is remembered of one table has no part in the conflicts of another.
#[test]
fn conflicts_are_decided_by_table() {
    let (_dir, engine) = open(Options { write_set_bytes: 1000, ..small() });
    let big = engine.create_table("big", &schema(), &KeySpec::primary(["key"])).unwrap();
    let keyed = engine.create_table("keyed", &schema(), &KeySpec::primary(["key"])).unwrap();
    let plain = engine.create_table("plain", &schema(), &KeySpec::row_id()).unwrap();
    keyed.insert(&rows(&[(1, 1), (2, 2)])).unwrap();
    plain.insert(&rows(&[(1, 1), (2, 2)])).unwrap();
    let mut transactions: Vec<Transaction> = (0..3).map(|_| engine.begin().unwrap()).collect();
    for transaction in &mut transactions[..2] {
        increment(transaction, plain.id(), |k| k == 1).unwrap();
        increment(transaction, keyed.id(), |k| k == 1).unwrap();
    }
    increment(&mut transactions[2], keyed.id(), |k| k == 2).unwrap();
    for i in 0..40 {
        big.insert(&rows(&(0..50).map(|k| (i * 50 + k, 0)).collect::<Vec<_>>())).unwrap();
    }
    transactions.remove(0).commit().unwrap();
    let lost = transactions.remove(0).commit().unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    assert!(lost.message().contains("same rows"), "{lost}");
    transactions.remove(0).commit().unwrap();
}
