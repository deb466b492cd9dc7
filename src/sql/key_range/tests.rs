//! The fast path against DataFusion on random statements.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::compute::concat_batches;
use futures::TryStreamExt;
use proptest::prelude::*;

use crate::engine::{Engine, Options};
use crate::sql::{Database, Prepared, Result, Rows, Session, SqlOptions, Within};

struct Fixture {
    runtime: tokio::runtime::Runtime,
    session: Session,
    _dir: tempfile::TempDir,
}

/// Tables of every kind of key, rows in segments, in the memtable, and deleted.
fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { background: false, row_group_rows: 64, ..Options::default() };
    let engine = Engine::open(dir.path(), options).unwrap();
    let database = Database::new(engine, SqlOptions::default()).unwrap();
    let session = database.session();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let script = "
            CREATE TABLE ints (k BIGINT PRIMARY KEY, v INT, s TEXT);
            CREATE TABLE small (k INT PRIMARY KEY, v INT);
            CREATE TABLE floats (k DOUBLE PRIMARY KEY, v INT);
            CREATE TABLE money (k DECIMAL(12, 2) PRIMARY KEY, v INT);
            CREATE TABLE times (k TIMESTAMP PRIMARY KEY, v INT);
            CREATE TABLE days (k DATE, v INT) CLUSTER BY (k);
            CREATE TABLE texts (k TEXT PRIMARY KEY, v INT);
            CREATE TABLE pairs (a BIGINT, b INT, v INT, PRIMARY KEY (a, b));";
        session.execute_script(Within::Session, script).await.unwrap();
        for part in 0..2 {
            for (table, columns) in [
                ("ints", "value * 3, value % 7, 'row ' || value"),
                ("small", "value - 50, value"),
                ("floats", "value * 0.5 - 20.0, value"),
                ("money", "CAST(value AS DECIMAL(12, 2)) / 4, value"),
                ("times", "to_timestamp(value * 3600), value"),
                ("days", "CAST(to_timestamp(value * 40000) AS DATE), value"),
                ("texts", "'key ' || value, value"),
                ("pairs", "value / 10, value % 10, value"),
            ] {
                let (from, to) = (part * 100, part * 100 + 99);
                let sql = format!(
                    "INSERT INTO {table} SELECT {columns} FROM generate_series({from}, {to}) AS g(value)"
                );
                run(&session, &sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            }
            if part == 0 {
                database.engine().flush(None).unwrap();
            }
        }
        for table in ["ints", "small", "floats", "money", "texts", "pairs"] {
            run(&session, &format!("DELETE FROM {table} WHERE v % 5 = 3")).await.unwrap();
        }
    });
    Fixture { runtime, session, _dir: dir }
}

async fn run(session: &Session, sql: &str) -> Result<()> {
    let statement = session.prepare(sql).await?;
    session.execute(&statement, None).await?;
    Ok(())
}

async fn collect(rows: Rows) -> Result<RecordBatch> {
    let batches: Vec<RecordBatch> = rows.stream.try_collect().await?;
    Ok(concat_batches(&rows.schema, &batches)?)
}

/// A value that statements compare the key of `table` with.
fn value(table: usize) -> BoxedStrategy<String> {
    match table {
        0 | 1 | 7 => prop_oneof![
            4 => (-70i64..650).prop_map(|v| v.to_string()),
            1 => (-70i64..650).prop_map(|v| format!("{v}.5")),
            1 => Just("9223372036854775807".to_owned()),
            1 => Just("1e30".to_owned()),
        ]
        .boxed(),
        2 => (-50i64..200).prop_map(|v| format!("{}", v as f64 * 0.5)).boxed(),
        3 => prop_oneof![
            (-5i64..60).prop_map(|v| format!("{}", v as f64 * 0.25)),
            (-5i64..60).prop_map(|v| format!("{v}.123")),
            (-5i64..60).prop_map(|v| v.to_string()),
        ]
        .boxed(),
        4 => (1u32..9, 0u32..24).prop_map(|(d, h)| format!("'1970-01-0{d} {h:02}:00:00'")).boxed(),
        5 => (1u32..28, 1u32..4).prop_map(|(d, m)| format!("'1970-{m:02}-{d:02}'")).boxed(),
        _ => (0u32..220).prop_map(|v| format!("'key {v}'")).boxed(),
    }
}

const TABLES: [&str; 8] = ["ints", "small", "floats", "money", "times", "days", "texts", "pairs"];

fn condition(table: usize) -> BoxedStrategy<String> {
    let key = if table == 7 { "a" } else { "k" };
    let op = prop_oneof![Just("="), Just("<"), Just("<="), Just(">"), Just(">=")];
    prop_oneof![
        4 => (op.clone(), value(table)).prop_map(move |(op, v)| format!("{key} {op} {v}")),
        1 => (op, value(table)).prop_map(move |(op, v)| format!("{v} {op} {key}")),
        2 => (value(table), value(table)).prop_map(move |(a, b)| format!("{key} BETWEEN {a} AND {b}")),
        1 => prop::collection::vec(value(table), 1..5)
            .prop_map(move |v| format!("{key} IN ({})", v.join(", "))),
    ]
    .boxed()
}

/// A random statement of the kind that the fast path takes (or nearly).
fn statement() -> impl Strategy<Value = String> {
    (0..TABLES.len()).prop_flat_map(|table| {
        let pairs = table == 7;
        let key = if pairs { "a" } else { "k" };
        let output = prop_oneof![
            Just("*".to_owned()),
            Just(format!("v, {key}")),
            Just(format!("{key} AS renamed")),
            Just("v".to_owned()),
            Just("count(*)".to_owned()),
            Just("COUNT(*) AS n".to_owned()),
        ];
        let conditions = prop::collection::vec(condition(table), 0..3);
        let second = prop::option::of((0..12i32).prop_map(|b| format!("b >= {b}")));
        let order = prop_oneof![Just(""), Just("ASC"), Just("DESC"), Just("none")];
        let limit = prop::option::of(0u64..300);
        let offset = prop::option::of(0u64..150);
        (output, conditions, second, order, limit, offset).prop_map(
            move |(output, mut conditions, second, order, limit, offset)| {
                if pairs {
                    conditions.extend(second);
                }
                let count = output.to_lowercase().starts_with("count");
                let mut sql = format!("SELECT {output} FROM {}", TABLES[table]);
                if !conditions.is_empty() {
                    sql.push_str(&format!(" WHERE {}", conditions.join(" AND ")));
                }
                if !count {
                    if order != "none" {
                        let second = if pairs { format!(", b {order}") } else { String::new() };
                        sql.push_str(&format!(" ORDER BY {key} {order}{second}"));
                    }
                    if let Some(limit) = limit {
                        sql.push_str(&format!(" LIMIT {limit}"));
                    }
                    if let Some(offset) = offset {
                        sql.push_str(&format!(" OFFSET {offset}"));
                    }
                }
                sql
            },
        )
    })
}

/// The statement without the fast path.
fn planned(prepared: &Prepared) -> Prepared {
    Prepared { key_range: None, ..prepared.clone() }
}

#[test]
fn answers_equal_datafusions() {
    let fixture = fixture();
    let session = &fixture.session;
    let mut recognised = 0;
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let counter = &mut recognised;
    let counter = std::cell::RefCell::new(counter);
    let result = runner.run(&statement(), |sql| {
        fixture.runtime.block_on(async {
            let prepared = session.prepare(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            if prepared.key_range.is_none() {
                return Ok(());
            }
            **counter.borrow_mut() += 1;
            let fast = collect(session.query(&prepared, None).await.unwrap()).await.unwrap();
            let slow = session.query(&planned(&prepared), None).await.unwrap();
            let slow = collect(slow).await.unwrap();
            prop_assert_eq!(fast.schema(), slow.schema(), "{}", &sql);
            prop_assert_eq!(fast, slow, "{}", &sql);
            Ok(())
        })
    });
    result.unwrap();
    assert!(recognised > 150, "only {recognised} statements took the fast path");
}

#[test]
fn parameters_take_the_fast_path() {
    let fixture = fixture();
    let session = &fixture.session;
    fixture.runtime.block_on(async {
        for (sql, columns) in [
            ("SELECT * FROM ints WHERE k = ?", vec![vec![Some("30"), Some("31"), None]]),
            (
                "SELECT v, k FROM ints WHERE k >= $1 AND k < $2",
                vec![vec![Some("3")], vec![Some("90")]],
            ),
            (
                "SELECT k FROM times WHERE k > ? LIMIT ?",
                vec![vec![Some("1970-01-02 00:00:00")], vec![Some("7")]],
            ),
            (
                "SELECT count(*) FROM texts WHERE k BETWEEN ? AND ?",
                vec![vec![Some("key 1"), Some("key 2")], vec![Some("key 15"), Some("key 9")]],
            ),
        ] {
            let prepared = session.prepare(sql).await.unwrap();
            assert!(prepared.key_range.is_some(), "{sql}");
            let arrays = columns.into_iter().enumerate().map(|(i, column)| {
                (i.to_string(), Arc::new(StringArray::from(column)) as arrow::array::ArrayRef)
            });
            let values = RecordBatch::try_from_iter(arrays).unwrap();
            let fast = session.query(&prepared, Some(&values)).await.unwrap();
            let slow = planned(&prepared);
            let snapshot = session.database().engine().snapshot();
            let context = session.context().plan_context(&snapshot);
            let description =
                crate::sql::query::plan(&context, &slow.statement).unwrap().description;
            assert_eq!(description.parameters, prepared.parameters(), "{sql}");
            let slow = session.query(&slow, Some(&values)).await.unwrap();
            assert_eq!(collect(fast).await.unwrap(), collect(slow).await.unwrap(), "{sql}");
        }
    });
}
