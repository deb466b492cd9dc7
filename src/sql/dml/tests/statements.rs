//! Parameters, descriptions, and statements that meet.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::DataType;

use crate::sql::Within;
use crate::sql::testing::{TestDatabase, lines};

fn database() -> TestDatabase {
    let db = TestDatabase::new(TestDatabase::options());
    db.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, n INT DEFAULT 5, at TIMESTAMP, d NUMERIC)")
        .unwrap();
    db
}

fn bound(columns: Vec<ArrayRef>) -> RecordBatch {
    let names = (0..columns.len()).map(|i| i.to_string());
    RecordBatch::try_from_iter_with_nullable(names.zip(columns).map(|(n, c)| (n, c, true))).unwrap()
}

fn types(db: &TestDatabase, sql: &str) -> Vec<DataType> {
    let parameters = db.prepare(sql).unwrap().parameters();
    parameters.fields().iter().map(|f| f.data_type().clone()).collect()
}

#[test]
fn parameters_have_the_types_of_their_columns() {
    use DataType::*;
    let db = database();
    let time = Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
    let decimal = Decimal128(38, 10);
    let all = [Int64, Int32, time.clone(), decimal.clone()];
    assert_eq!(types(&db, "INSERT INTO t VALUES (?, ?, ?, ?)"), all);
    assert_eq!(types(&db, "INSERT INTO t (at, id) VALUES ($2, $1)"), [Int64, time.clone()]);
    assert_eq!(types(&db, "INSERT INTO t (id, d) VALUES (?, ? + 1)").len(), 2);
    assert_eq!(types(&db, "UPDATE t SET d = ?, n = n + ? WHERE id = ?"), [decimal, Int32, Int64]);
    assert_eq!(types(&db, "DELETE FROM t WHERE at < ? RETURNING id"), [time]);
    assert_eq!(
        types(
            &db,
            "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET n = ? WHERE t.id > ?"
        ),
        [Int32, Int64]
    );
}

#[test]
fn what_is_returned_is_described() {
    let db = database();
    let p = db.prepare("INSERT INTO t (id) VALUES (1) RETURNING id, n + 1 AS next").unwrap();
    let fields: Vec<_> = p.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(fields, ["id", "next"]);
    assert!(db.prepare("DELETE FROM t").unwrap().schema().fields().is_empty());
    // A description executes nothing.
    assert_eq!(db.rows("SELECT count(*) FROM t"), ["0"]);
}

#[test]
fn many_rows_are_bound_at_once() {
    let db = database();
    let rows = bound(vec![
        Arc::new(Int32Array::from(vec![3, 1, 2])),
        Arc::new(StringArray::from(vec![Some("2024-01-01"), None, Some("2024-01-03 12:00:00")])),
        Arc::new(NullArray::new(3)),
    ]);
    let outcome = db.execute_with("INSERT INTO t (id, at, d) VALUES (?, ?, ?)", &rows).unwrap();
    assert_eq!(outcome.affected_count, Some(3));
    let wanted = ["1 5", "2 5 2024-01-03T12:00:00", "3 5 2024-01-01T00:00:00"];
    let squeeze = |rows: Vec<String>| -> Vec<String> {
        rows.iter().map(|r| r.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(squeeze(db.rows("SELECT * FROM t ORDER BY id")), wanted);

    // Several rows a statement, and expressions.
    let two = bound(vec![Arc::new(Int64Array::from(vec![10, 20]))]);
    let sql = "INSERT INTO t (id, n) VALUES ($1, 0), ($1 + 1, 1) RETURNING id";
    let outcome = db.execute_with(sql, &two).unwrap();
    assert_eq!(lines(&outcome.returned.unwrap().1), ["10", "11", "20", "21"]);

    // One row that does not fit, and nothing is there.
    let bad = bound(vec![
        Arc::new(Int64Array::from(vec![30, 31])),
        Arc::new(Int64Array::from(vec![1, 1 << 40])),
    ]);
    let e = db.execute_with("INSERT INTO t (id, n) VALUES (?, ?)", &bad).err().unwrap();
    assert!(e.to_string().contains("row 2") && e.to_string().contains("\"n\""), "{e}");
    assert_eq!(db.rows("SELECT count(*) FROM t WHERE id >= 30"), ["0"]);

    let none = bound(vec![Arc::new(Int64Array::from(Vec::<i64>::new()))]);
    let outcome = db.execute_with("INSERT INTO t (id) VALUES (?)", &none).unwrap();
    assert_eq!(outcome.affected_count, Some(0));
}

#[test]
fn many_rows_are_updated_and_deleted_by_key() {
    let db = database();
    db.execute("INSERT INTO t (id, n) VALUES (1, 1), (2, 2), (3, 3)").unwrap();
    let rows = bound(vec![
        Arc::new(Int32Array::from(vec![10, 20, 30, 40])),
        Arc::new(Int64Array::from(vec![Some(1), Some(1), None, Some(9)])),
    ]);
    let outcome = db.execute_with("UPDATE t SET n = n + ? WHERE id = ?", &rows).unwrap();
    assert_eq!(outcome.affected_count, Some(2));
    assert_eq!(db.rows("SELECT n FROM t ORDER BY id"), ["31", "2", "3"]);
    // Parameters as text, and a condition beside the key: planned one by one.
    let text = bound(vec![
        Arc::new(StringArray::from(vec!["7", "8"])),
        Arc::new(StringArray::from(vec!["2", "3"])),
    ]);
    let outcome = db.execute_with("UPDATE t SET n = ? WHERE id = ? AND n < 3", &text).unwrap();
    assert_eq!(outcome.affected_count, Some(1));
    assert_eq!(db.rows("SELECT n FROM t ORDER BY id"), ["31", "7", "3"]);
    let keys = bound(vec![Arc::new(StringArray::from(vec!["1", "1", "3"]))]);
    let outcome = db.execute_with("DELETE FROM t WHERE id = ?", &keys).unwrap();
    assert_eq!(outcome.affected_count, Some(2));
    assert_eq!(db.rows("SELECT id FROM t"), ["2"]);
}

#[test]
fn parameters_are_counted() {
    let db = database();
    let one = bound(vec![Arc::new(Int64Array::from(vec![1]))]);
    let e = db.execute_with("INSERT INTO t (id, n) VALUES (?, ?)", &one).err().unwrap();
    assert!(e.to_string().contains("2 parameters"), "{e}");
    assert!(db.execute_with("DELETE FROM t", &one).is_err());
    assert!(db.execute("DELETE FROM t WHERE id = ?").is_err());
}

#[test]
fn what_is_defined_survives_a_restart() {
    let db = database();
    db.execute("INSERT INTO t (id) VALUES (1)").unwrap();
    db.execute("ALTER TABLE t ADD COLUMN late TEXT DEFAULT 'x'").unwrap();
    db.execute("CREATE SCHEMA s").unwrap();
    db.execute("CREATE VIEW s.v AS SELECT id, late FROM t").unwrap();
    let db = db.reopen();
    assert_eq!(db.rows("SELECT * FROM s.v"), ["1 x"]);
    db.execute("INSERT INTO t (id) VALUES (2)").unwrap();
    assert_eq!(db.rows("SELECT n, late FROM t WHERE id = 2"), ["5 x"]);
}

#[test]
fn statements_that_meet_are_tried_again() {
    let db = database();
    db.execute("INSERT INTO t (id, n) VALUES (1, 0)").unwrap();
    let add = db.prepare("UPDATE t SET n = n + 1 WHERE id = 1").unwrap();
    db.runtime.block_on(async {
        let adders = (0..4).map(|_| async {
            for _ in 0..5 {
                db.session.execute(&add, None).await.unwrap();
            }
        });
        futures::future::join_all(adders).await;
    });
    assert_eq!(db.rows("SELECT n FROM t"), ["20"]);
}

#[test]
fn a_script_is_one_transaction() {
    let db = database();
    let script = |sql: &str| db.runtime.block_on(db.session.execute_script(Within::Session, sql));
    let outcome = script(
        "INSERT INTO t (id) VALUES (1), (2); UPDATE t SET n = 0 WHERE id = 2;
         CREATE TABLE copy AS SELECT * FROM t; DELETE FROM copy WHERE n = 0",
    )
    .unwrap();
    assert_eq!(outcome.affected_count, Some(4));
    assert_eq!(db.rows("SELECT id FROM copy"), ["1"]);
    assert!(
        script("INSERT INTO t (id) VALUES (3); DROP TABLE copy; INSERT INTO t (id) VALUES (1)")
            .is_err()
    );
    assert_eq!(db.rows("SELECT count(*) FROM t"), ["2"]);
    assert_eq!(db.rows("SELECT count(*) FROM copy"), ["1"]);
}
