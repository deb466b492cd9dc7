//! Transactions: forks, conflicts, savepoints, definitions.

use arrow::array::UInt64Array;
use arrow::datatypes::{DataType, Field};
use omendb::engine::{
    Column, Engine, ErrorKind, KeyRange, KeySpec, OnConflict, RowAddress, ScanRequest, TableName,
};

use crate::{keys, open, pairs, rows, schema, small};

fn all(engine: &Engine, table: &str) -> Vec<(i64, i64)> {
    let scan = engine.table(table).unwrap().scan().unwrap();
    scan.flat_map(|b| pairs(&b.unwrap())).collect()
}

fn addresses(table: &omendb::engine::TableSnapshot, of: impl Fn(i64) -> bool) -> Vec<RowAddress> {
    let mut request = ScanRequest::new(KeyRange::all());
    request.row_address = true;
    let mut found = Vec::new();
    for batch in table.scan(&request).unwrap() {
        let batch = batch.unwrap();
        let column = batch.column(3).as_any().downcast_ref::<UInt64Array>().unwrap();
        for (i, (key, _)) in pairs(&batch.project(&[0, 1, 2]).unwrap()).into_iter().enumerate() {
            if of(key) {
                found.push(RowAddress(column.value(i)));
            }
        }
    }
    found
}

#[test]
fn snapshots_stay_while_writes_go_on() {
    let (_dir, engine) = open(small());
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    table.insert(&rows(&[(1, 1), (2, 2)])).unwrap();
    let before = table.snapshot().unwrap();
    table.upsert(&rows(&[(2, 20), (3, 3)])).unwrap();
    table.delete(&keys(&[1])).unwrap();
    engine.compact(table.id()).unwrap();
    let old: Vec<_> = before
        .scan(&ScanRequest::new(KeyRange::all()))
        .unwrap()
        .flat_map(|b| pairs(&b.unwrap()))
        .collect();
    assert_eq!(old, [(1, 1), (2, 2)]);
    assert_eq!(all(&engine, "t"), [(2, 20), (3, 3)]);
}

#[test]
fn the_first_committer_wins() {
    let (_dir, engine) = open(small());
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    table.insert(&rows(&[(1, 1)])).unwrap();
    let mut first = engine.begin().unwrap();
    let mut second = engine.begin().unwrap();
    first.insert(table.id(), &rows(&[(1, 10)]), OnConflict::Replace).unwrap();
    second.insert(table.id(), &rows(&[(1, 20)]), OnConflict::Replace).unwrap();
    first.commit().unwrap();
    assert_eq!(second.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(all(&engine, "t"), [(1, 10)]);
    // Also where a flush or a merge moved the rows in between.
    let mut late = engine.begin().unwrap();
    late.insert(table.id(), &rows(&[(1, 30)]), OnConflict::Replace).unwrap();
    table.upsert(&rows(&[(1, 40)])).unwrap();
    engine.compact(table.id()).unwrap();
    assert_eq!(late.commit().unwrap_err().kind(), ErrorKind::Conflict);
    // Other rows do not conflict, wherever they have moved.
    let mut other = engine.begin().unwrap();
    other.insert(table.id(), &rows(&[(1, 50), (5, 5)]), OnConflict::Replace).unwrap();
    table.insert(&rows(&[(2, 2)])).unwrap();
    engine.compact(table.id()).unwrap();
    other.commit().unwrap();
    assert_eq!(all(&engine, "t"), [(1, 50), (2, 2), (5, 5)]);
}

#[test]
fn two_inserts_of_one_key_conflict() {
    let (_dir, engine) = open(small());
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    let many: Vec<(i64, i64)> = (0..500).map(|k| (k, k)).collect();
    let mut bulk = engine.begin().unwrap();
    let done = bulk.insert(table.id(), &rows(&many), OnConflict::Error).unwrap();
    assert!(done.segment_count > 0);
    table.insert(&rows(&[(400, 1)])).unwrap();
    assert_eq!(bulk.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(all(&engine, "t"), [(400, 1)]);
    let error = table.insert(&rows(&[(400, 2)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DuplicateKey);
    assert!(error.message().contains("(\"key\") = (400)"), "{error}");
}

#[test]
fn deletes_of_one_row_conflict_where_keys_repeat() {
    let (_dir, engine) = open(small());
    let table = engine.create_table("t", &schema(), &KeySpec::cluster(["key"])).unwrap();
    table.insert(&rows(&[(1, 1), (1, 2), (2, 3)])).unwrap();
    let delete = |move_rows: bool| {
        let mut first = engine.begin().unwrap();
        let mut write = first.write(table.id(), OnConflict::Error).unwrap();
        let gone = addresses(write.table(), |k| k == 1);
        write.delete(&gone[..1]).unwrap();
        first.apply(write).unwrap();
        if move_rows {
            table.insert(&rows(&[(3, 3)])).unwrap();
            engine.compact(table.id()).unwrap();
        } else {
            table.delete(&keys(&[1])).unwrap();
        }
        first.commit().map_err(|e| e.kind())
    };
    delete(true).unwrap();
    assert_eq!(all(&engine, "t"), [(1, 2), (2, 3), (3, 3)]);
    assert_eq!(delete(false), Err(ErrorKind::Conflict));
    assert_eq!(all(&engine, "t"), [(2, 3), (3, 3)]);
}

#[test]
fn savepoints_and_own_writes() {
    let (_dir, engine) = open(small());
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    let mut txn = engine.begin().unwrap();
    txn.insert(table.id(), &rows(&[(1, 1)]), OnConflict::Error).unwrap();
    let savepoint = txn.savepoint();
    txn.insert(table.id(), &rows(&[(2, 2)]), OnConflict::Error).unwrap();
    let mut write = txn.write(table.id(), OnConflict::Error).unwrap();
    let own = addresses(write.table(), |k| k == 1);
    write.delete(&own).unwrap();
    write.insert(&rows(&[(1, 100)])).unwrap();
    txn.apply(write).unwrap();
    assert_eq!(txn.snapshot().table_by_id(table.id()).unwrap().row_count(), 2);
    assert_eq!(table.snapshot().unwrap().row_count(), 0);
    txn.rollback_to(&savepoint);
    txn.insert(table.id(), &rows(&[(3, 3)]), OnConflict::Error).unwrap();
    txn.commit().unwrap();
    assert_eq!(all(&engine, "t"), [(1, 1), (3, 3)]);
}

#[test]
fn definitions_are_transactional_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small()).unwrap();
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    table.insert(&rows(&[(1, 1)])).unwrap();
    let mut txn = engine.begin().unwrap();
    txn.create_schema("s").unwrap();
    let name = TableName::new("s", "u");
    let other = txn.create_table(&name, &schema(), &KeySpec::row_id()).unwrap();
    txn.insert(other, &rows(&[(7, 7), (5, 5)]), OnConflict::Error).unwrap();
    txn.put_view(&TableName::from("v"), "SELECT 1").unwrap();
    txn.alter_table(table.id(), |meta| {
        meta.name = TableName::from("renamed");
        let id = meta.next_field_id;
        meta.next_field_id = id.next();
        meta.columns.push(Column {
            id,
            field: std::sync::Arc::new(Field::new("extra", DataType::Int64, true)),
            default_sql: Some("9".to_owned()),
            initial: Some(keys(&[9]).remove(0)),
        });
        Ok(())
    })
    .unwrap();
    txn.commit().unwrap();
    // Rows logged before the column was added are still in the memtable.
    for checkpoint in [false, true] {
        if checkpoint {
            engine.checkpoint().unwrap();
        }
        assert!(engine.table("t").is_err());
        let table = engine.table("renamed").unwrap();
        let batch = table.scan().unwrap().next().unwrap().unwrap();
        assert_eq!(batch.num_columns(), 4);
        let extra = batch.column(3).as_any().downcast_ref::<arrow::array::Int64Array>().unwrap();
        assert_eq!(extra.value(0), 9);
    }
    drop((table, engine));
    let engine = Engine::open(dir.path(), small()).unwrap();
    let other = engine.table(name).unwrap();
    let read: Vec<_> = other.scan().unwrap().flat_map(|b| pairs(&b.unwrap())).collect();
    assert_eq!(read, [(7, 7), (5, 5)]);
    assert_eq!(&*engine.snapshot().view(&TableName::from("v")).unwrap(), "SELECT 1");
    assert_eq!(engine.table("renamed").unwrap().snapshot().unwrap().meta().columns.len(), 4);
    engine.drop_table("renamed").unwrap();
    assert!(engine.table("renamed").is_err());
}

#[test]
fn an_abandoned_transaction_leaves_no_files() {
    let (dir, engine) = open(small());
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    let many: Vec<(i64, i64)> = (0..500).map(|k| (k, k)).collect();
    let mut txn = engine.begin().unwrap();
    txn.insert(table.id(), &rows(&many), OnConflict::Error).unwrap();
    drop(txn);
    engine.compact(table.id()).unwrap();
    let files = |dir: &std::path::Path| std::fs::read_dir(dir).map_or(0, Iterator::count);
    assert_eq!(files(&dir.path().join("tables").join(table.id().to_string())), 0);
}

#[test]
fn null_and_wrong_types_are_named() {
    let (_dir, engine) = open(small());
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    let wrong = arrow::array::RecordBatch::try_from_iter([("key", keys(&[1]).remove(0))]).unwrap();
    assert!(table.insert(&wrong).unwrap_err().message().contains("public.t has 3 columns"));
    let error = engine.create_table("t", &schema(), &KeySpec::row_id()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let error = engine.create_table("u", &schema(), &KeySpec::primary(["nope"])).unwrap_err();
    assert!(error.message().contains("\"nope\""), "{error}");
}
