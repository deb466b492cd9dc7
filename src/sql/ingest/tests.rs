use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;

use super::*;
use crate::engine::ErrorKind as EngineKind;
use crate::sql::ErrorKind;
use crate::sql::testing::TestDatabase;

#[test]
fn column_lists_with_and_without_quotes() {
    assert_eq!(column_list("primary_key", "a, B").unwrap(), ["a", "B"]);
    assert_eq!(column_list("primary_key", "\"a,b\", c").unwrap(), ["a,b", "c"]);
    assert!(column_list("primary_key", "a,,b").is_err());
    assert!(column_list("primary_key", "").is_err());
    assert!(column_list("primary_key", "\"a").is_err());
}

fn batch(ids: &[i64], names: &[Option<&str>], key: Option<(&str, &str)>) -> RecordBatch {
    let metadata: HashMap<String, String> =
        key.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let schema = Schema::new_with_metadata(
        vec![Field::new("id", DataType::Int64, true), Field::new("Name", DataType::Utf8View, true)],
        metadata,
    );
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.to_vec())),
        Arc::new(StringViewArray::from(names.to_vec())),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn load(
    db: &TestDatabase,
    mode: IngestMode,
    on_conflict: OnConflict,
    batches: &[RecordBatch],
) -> Result<WriteResult> {
    let schema = batches[0].schema();
    let mut ingest = db.ingest(IngestRequest { table: "t".into(), mode, on_conflict, schema })?;
    for batch in batches {
        ingest.push(batch)?;
    }
    ingest.finish()
}

const NAMES: [Option<&str>; 3] = [Some("a"), None, Some("c")];

#[test]
fn modes_of_a_load() {
    use IngestMode::*;
    let db = TestDatabase::new(TestDatabase::options());
    let rows = |ids: &[i64]| batch(ids, &NAMES[..ids.len()], Some(("primary_key", "id")));
    let e = load(&db, Append, OnConflict::Error, &[rows(&[1])]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Engine(EngineKind::NotFound));
    let result = load(&db, Create, OnConflict::Error, &[rows(&[3, 1]), rows(&[2])]).unwrap();
    assert_eq!(result.inserted_count, 3);
    assert_eq!(db.rows("SELECT id, \"Name\" FROM t ORDER BY id"), ["1", "2 a", "3 a"]);
    let e = load(&db, Create, OnConflict::Error, &[rows(&[9])]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Engine(EngineKind::AlreadyExists));
    load(&db, CreateAppend, OnConflict::Error, &[rows(&[4])]).unwrap();
    load(&db, Append, OnConflict::Error, &[rows(&[5])]).unwrap();
    assert_eq!(db.rows("SELECT count(*) FROM t"), ["5"]);
    load(&db, Replace, OnConflict::Error, &[rows(&[7])]).unwrap();
    assert_eq!(db.rows("SELECT id FROM t"), ["7"]);
    // The key that was given is that of the table.
    let e = db.execute("INSERT INTO t VALUES (7, 'x')").err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Engine(EngineKind::DuplicateKey));
    let other = batch(&[8], &[None], Some(("cluster_by", "id")));
    let e = load(&db, Append, OnConflict::Error, &[other]).unwrap_err();
    assert!(e.to_string().contains("primary key (id)"), "{e}");
}

#[test]
fn conflict_policies_hold_across_batches() {
    let db = TestDatabase::new(TestDatabase::options());
    let rows = |ids: &[i64], names: &[Option<&str>]| batch(ids, names, Some(("primary_key", "id")));
    load(&db, IngestMode::Create, OnConflict::Error, &[rows(&[1], &[Some("old")])]).unwrap();
    let new = [rows(&[1, 2], &[Some("x"), Some("y")]), rows(&[2, 3], &[Some("z"), Some("z")])];
    let e = load(&db, IngestMode::Append, OnConflict::Error, &new).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Engine(EngineKind::DuplicateKey));
    assert_eq!(db.rows("SELECT * FROM t"), ["1 old"]);
    let result = load(&db, IngestMode::Append, OnConflict::Ignore, &new).unwrap();
    assert_eq!((result.inserted_count, result.ignored_count), (2, 2));
    assert_eq!(db.rows("SELECT * FROM t ORDER BY id"), ["1 old", "2 y", "3 z"]);
    load(&db, IngestMode::Append, OnConflict::Replace, &new).unwrap();
    assert_eq!(db.rows("SELECT * FROM t ORDER BY id"), ["1 x", "2 z", "3 z"]);
}

#[test]
fn a_failed_or_dropped_load_leaves_nothing() {
    let db = TestDatabase::new(TestDatabase::options());
    let good = batch(&[1], &[None], Some(("primary_key", "id")));
    let schema = good.schema();
    let request = IngestRequest {
        table: "t".into(),
        mode: IngestMode::Create,
        on_conflict: OnConflict::Error,
        schema,
    };
    let mut ingest = db.ingest(request).unwrap();
    ingest.push(&good).unwrap();
    drop(ingest);
    assert!(db.query("SELECT * FROM t").is_err());

    db.execute("CREATE TABLE t (id SMALLINT NOT NULL, \"Name\" TEXT DEFAULT 'none')").unwrap();
    let e =
        load(&db, IngestMode::Append, OnConflict::Error, &[batch(&[1, 2, 70_000], &NAMES, None)])
            .unwrap_err();
    for part in ["\"id\"", "row 3", "70000", "SMALLINT"] {
        assert!(e.to_string().contains(part), "{e} lacks {part}");
    }
    assert_eq!(db.rows("SELECT count(*) FROM t"), ["0"]);

    // Columns that are missing take their default; unknown ones are an error.
    let ids = RecordBatch::try_from_iter([("id", Arc::new(Int8Array::from(vec![5])) as ArrayRef)]);
    load(&db, IngestMode::Append, OnConflict::Error, &[ids.unwrap()]).unwrap();
    assert_eq!(db.rows("SELECT * FROM t"), ["5 none"]);
    let other =
        RecordBatch::try_from_iter([("ID", Arc::new(Int8Array::from(vec![5])) as ArrayRef)]);
    let e = load(&db, IngestMode::Append, OnConflict::Error, &[other.unwrap()]).unwrap_err();
    assert!(e.to_string().contains("\"ID\"") && e.to_string().contains("\"id\""), "{e}");
}

#[test]
fn nullability_becomes_not_null_and_encodings_plain_types() {
    let db = TestDatabase::new(TestDatabase::options());
    let dictionary: DictionaryArray<Int32Type> = vec![Some("b"), Some("a")].into_iter().collect();
    let data_type = dictionary.data_type().clone();
    let schema = Schema::new_with_metadata(
        vec![
            Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
            Field::new("tag", data_type, false),
            Field::new("v", DataType::Float16, true),
        ],
        HashMap::from([("cluster_by".to_owned(), "tag, at".to_owned())]),
    );
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(vec![2, 1])),
        Arc::new(dictionary),
        new_null_array(&DataType::Float16, 2),
    ];
    let rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    load(&db, IngestMode::Create, OnConflict::Error, &[rows]).unwrap();
    let snapshot = db.database.engine().snapshot();
    let table = snapshot.table(&"t".into()).unwrap();
    let fields: Vec<_> =
        table.schema().fields().iter().map(|f| (f.data_type().clone(), f.is_nullable())).collect();
    let wanted = [
        (DataType::Timestamp(TimeUnit::Nanosecond, None), false),
        (DataType::Utf8, false),
        (DataType::Float32, true),
    ];
    assert_eq!(fields, wanted);
    assert_eq!(db.rows("SELECT tag FROM t"), ["a", "b"]);
    let e = db.execute("INSERT INTO t (tag) VALUES ('x')").err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Engine(EngineKind::Constraint));
}

#[test]
fn types_that_cannot_be_stored_are_named() {
    let db = TestDatabase::new(TestDatabase::options());
    let interval = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)]);
    let rows = RecordBatch::try_from_iter([("lasted", Arc::new(interval) as ArrayRef)]).unwrap();
    let e = load(&db, IngestMode::Create, OnConflict::Error, &[rows]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("\"lasted\""), "{e}");
}

#[test]
fn a_load_that_lost_to_another_transaction_says_so() {
    let db = TestDatabase::new(TestDatabase::options());
    db.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, \"Name\" TEXT)").unwrap();
    let rows = batch(&[1], &[None], None);
    let schema = rows.schema();
    let request = IngestRequest {
        table: "t".into(),
        mode: IngestMode::Append,
        on_conflict: OnConflict::Error,
        schema,
    };
    let mut ingest = db.ingest(request).unwrap();
    ingest.push(&rows).unwrap();
    db.execute("INSERT INTO t VALUES (1, 'first')").unwrap();
    let e = ingest.finish().unwrap_err();
    let kind = e.kind();
    let lost = [EngineKind::Conflict, EngineKind::DuplicateKey].map(ErrorKind::Engine);
    assert!(lost.contains(&kind), "{e}");
    assert_eq!(db.rows("SELECT * FROM t"), ["1 first"]);
}
