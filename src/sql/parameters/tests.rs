//! Bound values of every type, in queries and in changes, on the key and on other columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int16Array, Int64Array, NullArray,
    RecordBatch, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::datatypes::DataType;
use futures::TryStreamExt;

use crate::sql::testing::{TestDatabase, lines};

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    let named = columns.into_iter().enumerate().map(|(i, c)| (i.to_string(), c, true));
    RecordBatch::try_from_iter_with_nullable(named).unwrap()
}

fn double(values: &[f64]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn doubles(values: &[f64]) -> RecordBatch {
    batch(values.iter().map(|v| double(&[*v])).collect())
}

/// The rows, after the check that they have the schema that was announced for these values.
fn ask(db: &TestDatabase, sql: &str, parameters: &RecordBatch) -> Vec<String> {
    let prepared = db.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    db.runtime.block_on(async {
        let within = crate::sql::Within::Session;
        let schema = db.session.query_schema(within, &prepared, Some(parameters)).await.unwrap();
        let rows = db.session.query(&prepared, Some(parameters)).await;
        let rows = rows.unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(rows.schema, schema, "{sql}");
        let batches: Vec<RecordBatch> =
            rows.stream.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert!(batches.iter().all(|b| b.schema() == schema), "{sql}");
        if batches.is_empty() { Vec::new() } else { lines(&batches) }
    })
}

fn seats() -> TestDatabase {
    let db = TestDatabase::new(TestDatabase::options());
    db.execute("CREATE TABLE seat (id BIGINT PRIMARY KEY, n INT, c BIGINT)").unwrap();
    db.execute("INSERT INTO seat VALUES (4, 40, 4), (5, 50, 5), (6, 60, 6)").unwrap();
    db
}

#[test]
fn a_value_keeps_its_own_type() {
    let db = seats();
    // On the key and on a column without one.
    for column in ["id", "c"] {
        for (condition, values, expected) in [
            ("# = ?", vec![5.25], vec![]),
            ("# < ?", vec![5.25], vec!["4", "5"]),
            ("# >= ?", vec![5.25], vec!["6"]),
            ("# IN (?, ?)", vec![4.5, 6.0], vec!["6"]),
            ("# BETWEEN ? AND ?", vec![4.5, 5.5], vec!["5"]),
            ("n <> ?", vec![50.5], vec!["4", "5", "6"]),
            ("# < ?", vec![1e300], vec!["4", "5", "6"]),
            ("# > ?", vec![f64::NAN], vec![]),
            ("# = ? + 1", vec![4.0], vec!["5"]),
            ("n / ? > 100", vec![0.5], vec!["6"]),
        ] {
            let condition = condition.replace('#', column);
            let sql = format!("SELECT id FROM seat WHERE {condition} ORDER BY id");
            assert_eq!(ask(&db, &sql, &doubles(&values)), expected, "{sql} {values:?}");
        }
    }
    assert_eq!(ask(&db, "SELECT 100 * ?", &doubles(&[0.25])), ["25.0"]);
    assert_eq!(ask(&db, "SELECT n * ? FROM seat WHERE id = 4", &doubles(&[0.25])), ["10.0"]);
    assert_eq!(ask(&db, "SELECT 2 < ?", &doubles(&[2.5])), ["true"]);
    assert_eq!(ask(&db, "SELECT 7 / ?", &doubles(&[2.0])), ["3.5"]);
    let decimal = Decimal128Array::from(vec![525]).with_precision_and_scale(5, 2).unwrap();
    let decimal = batch(vec![Arc::new(decimal)]);
    assert_eq!(ask(&db, "SELECT id FROM seat WHERE id > ?", &decimal), ["6"]);
    assert_eq!(ask(&db, "SELECT 2 * ?", &decimal), ["10.50"]);
    let small = batch(vec![Arc::new(Int16Array::from(vec![5]))]);
    assert_eq!(ask(&db, "SELECT n FROM seat WHERE id = ?", &small), ["50"]);
    assert_eq!(ask(&db, "SELECT id FROM seat ORDER BY id LIMIT ?", &small).len(), 3);
    // A decimal of hundreds.
    let hundreds = Decimal128Array::from(vec![3]).with_precision_and_scale(3, -2).unwrap();
    assert_eq!(ask(&db, "SELECT ? + 1", &batch(vec![Arc::new(hundreds)])), ["301"]);
}

#[test]
fn text_is_read_as_what_is_wanted() {
    let db = seats();
    let text = |value: &str| batch(vec![Arc::new(StringArray::from(vec![value]))]);
    assert_eq!(ask(&db, "SELECT id FROM seat WHERE id = ?", &text("5")), ["5"]);
    assert_eq!(ask(&db, "SELECT id FROM seat WHERE n + 0 = ?", &text("60")), ["6"]);
    db.execute("CREATE TABLE at (t TIMESTAMP PRIMARY KEY, u TIMESTAMP)").unwrap();
    db.execute("INSERT INTO at VALUES ('2024-01-02 00:00:00', '2024-01-02 00:00:00')").unwrap();
    let nanos = |n| batch(vec![Arc::new(TimestampNanosecondArray::from(vec![n]))]);
    for column in ["t", "u"] {
        let sql = format!("SELECT count(*) FROM at WHERE {column} = ?");
        assert_eq!(ask(&db, &sql, &text("2024-01-02 00:00:00")), ["1"]);
        assert_eq!(ask(&db, &sql, &nanos(1_704_153_600_000_000_000)), ["1"]);
    }
    // A nanosecond later is another time.
    let later = nanos(1_704_153_600_000_000_001);
    assert_eq!(ask(&db, "SELECT count(*) FROM at WHERE t = ?", &later), ["0"]);
}

#[test]
fn what_nothing_tells_is_planned_when_it_is_bound() {
    let db = seats();
    let one = batch(vec![Arc::new(Int64Array::from(vec![1]))]);
    let prepared = db.prepare("SELECT ?").unwrap();
    assert_eq!(prepared.parameters().field(0).data_type(), &DataType::Utf8);
    assert_eq!(ask(&db, "SELECT ?", &one), ["1"]);
    assert_eq!(
        ask(&db, "SELECT ? + 1, ?", &batch(vec![double(&[0.5]), double(&[2.0])])),
        ["1.5 2.0"]
    );
    assert_eq!(ask(&db, "SELECT abs(?)", &doubles(&[-1.5])), ["1.5"]);
    assert_eq!(ask(&db, "SELECT ? + ?", &doubles(&[0.5, 1.0])), ["1.5"]);
    let null = batch(vec![Arc::new(NullArray::new(1))]);
    assert_eq!(ask(&db, "SELECT id FROM seat WHERE id = ?", &null), [""; 0]);
    // How many digits stay is known with the value only.
    let two = batch(vec![Arc::new(Int64Array::from(vec![2]))]);
    assert_eq!(ask(&db, "SELECT round(CAST('1.2345' AS DECIMAL(9, 4)), ?)", &two), ["1.2300"]);
}

#[test]
fn a_value_beside_others_keeps_its_own_type() {
    let db = seats();
    // A column of VALUES holds what is bound, whatever stands in its other rows.
    let sql = "SELECT x FROM (VALUES (1), (?)) v(x) ORDER BY x";
    assert_eq!(ask(&db, sql, &doubles(&[0.25])), ["0.25", "1.0"]);
    let sql = "SELECT x FROM (VALUES (1), (?), (?)) v(x) WHERE x < ?";
    assert_eq!(ask(&db, sql, &doubles(&[0.25, 3.0, 0.5])), ["0.25"]);
    db.execute("CREATE TABLE price (id INT PRIMARY KEY, n NUMERIC(6, 2))").unwrap();
    let change = "INSERT INTO price VALUES (1, 2 * 1), (2, ?), (3, nullif(?, ?))";
    db.execute_with(change, &doubles(&[0.25, 0.5, 1.0])).unwrap();
    assert_eq!(db.rows("SELECT id, n FROM price ORDER BY id"), ["1 2.00", "2 0.25", "3 0.50"]);
    // Where a number or an interval is thought of.
    let day = batch(vec![Arc::new(Date32Array::from(vec![19_753]))]);
    assert_eq!(ask(&db, "SELECT ? - 40", &day), ["2023-12-22"]);
    let moment =
        batch(vec![Arc::new(TimestampMicrosecondArray::from(vec![1_704_153_600_000_000]))]);
    assert_eq!(ask(&db, "SELECT ? - INTERVAL '1 day'", &moment), ["2024-01-01T00:00:00"]);
}

#[test]
fn changes_bind_as_queries_do() {
    let db = seats();
    let change = |sql: &str, values: &[f64]| {
        db.execute_with(sql, &doubles(values)).unwrap_or_else(|e| panic!("{sql}: {e}"))
    };
    assert_eq!(change("DELETE FROM seat WHERE id = ?", &[5.25]).affected_count, Some(0));
    assert_eq!(change("UPDATE seat SET n = n / ? WHERE id = 4", &[0.5]).affected_count, Some(1));
    assert_eq!(
        change("UPDATE seat SET n = n * ? WHERE id = ?", &[0.25, 6.0]).affected_count,
        Some(1)
    );
    assert_eq!(db.rows("SELECT n FROM seat ORDER BY id"), ["80", "50", "15"]);
    change("INSERT INTO seat SELECT 100 * ?, 1, 2", &[0.25]);
    assert_eq!(change("DELETE FROM seat WHERE id < ?", &[4.5]).affected_count, Some(1));
    let sql = "INSERT INTO seat VALUES (6, 1, 1) ON CONFLICT (id) DO UPDATE SET n = seat.n * ?";
    change(sql, &[0.4]);
    assert_eq!(db.rows("SELECT id, n FROM seat ORDER BY id"), ["5 50", "6 6", "25 1"]);
}

#[test]
fn no_rows_of_parameters_do_nothing() {
    let db = seats();
    let none = doubles(&[1.0]).slice(0, 0);
    for sql in [
        "INSERT INTO seat (id) VALUES (?)",
        "DELETE FROM seat WHERE id = ?",
        "DELETE FROM seat WHERE n = ?",
        "UPDATE seat SET n = 1 WHERE id = ?",
        "UPDATE seat SET n = ?",
        "INSERT INTO seat SELECT ?, 1, 2",
    ] {
        let outcome = db.execute_with(sql, &none).unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(outcome.affected_count, Some(0), "{sql}");
    }
    assert_eq!(db.rows("SELECT sum(n) FROM seat"), ["150"]);
    assert!(ask(&db, "SELECT id FROM seat WHERE id = ?", &none).is_empty());
    assert!(ask(&db, "SELECT id FROM seat WHERE n = ?", &none).is_empty());
}
