//! Predicates on the key against the same predicates on a copy of it that no index knows.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::TryStreamExt;
use proptest::prelude::*;

use super::*;
use crate::engine::{Engine, Options};
use crate::sql::{Database, Session, SqlOptions, Within};

const TABLES: [&str; 5] = ["ints", "floats", "times", "texts", "pairs"];

async fn answer(session: &Session, sql: &str) -> RecordBatch {
    let statement = session.prepare(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let rows = session.query(&statement, None).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let batches: Vec<RecordBatch> = rows.stream.try_collect().await.unwrap();
    concat_batches(&rows.schema, &batches).unwrap()
}

fn leaf(table: usize) -> BoxedStrategy<String> {
    let value: BoxedStrategy<String> = match table {
        0 | 4 => prop_oneof![
            5 => (-3i64..33).prop_map(|v| v.to_string()),
            1 => (-3i64..33).prop_map(|v| format!("{v}.5")),
            1 => Just("9223372036854775807".to_owned()),
        ]
        .boxed(),
        1 => (-9i64..40).prop_map(|v| format!("{}", v as f64 * 0.25)).boxed(),
        2 => (1u32..4, 0u32..24, 0u32..2)
            .prop_map(|(d, h, m)| format!("'1970-01-0{d} {h:02}:{:02}:00'", m * 30))
            .boxed(),
        _ => (0u32..33).prop_map(|v| format!("'key {v}'")).boxed(),
    };
    let column = if table == 4 {
        prop_oneof![Just("COLUMN"), Just("OTHER")].boxed()
    } else {
        Just("COLUMN").boxed()
    };
    let op = prop_oneof![Just("="), Just("<>"), Just("<"), Just("<="), Just(">"), Just(">=")];
    let list = prop::collection::vec(value.clone(), 1..6);
    prop_oneof![
        4 => (column.clone(), op, value.clone()).prop_map(|(c, op, v)| format!("{c} {op} {v}")),
        2 => (column.clone(), any::<bool>(), value.clone(), value.clone()).prop_map(
            |(c, not, a, b)| format!("{c} {}BETWEEN {a} AND {b}", if not { "NOT " } else { "" })
        ),
        2 => (column.clone(), any::<bool>(), list).prop_map(|(c, not, list)| {
            format!("{c} {}IN ({})", if not { "NOT " } else { "" }, list.join(", "))
        }),
        1 => column.prop_map(|c| format!("{c} IS NOT NULL")),
    ]
    .boxed()
}

fn predicate() -> impl Strategy<Value = (usize, String)> {
    (0..TABLES.len()).prop_flat_map(|table| {
        let tree = leaf(table).prop_recursive(3, 12, 2, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
                inner.prop_map(|a| format!("(NOT {a})")),
            ]
        });
        (Just(table), tree)
    })
}

#[test]
fn ranges_hold_just_the_rows_that_pass() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { background: false, ..Options::default() };
    let engine = Engine::open(dir.path(), options).unwrap();
    let database = Database::new(engine, SqlOptions::default()).unwrap();
    let session = database.session();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let script = "
            CREATE TABLE ints (k BIGINT PRIMARY KEY, c BIGINT);
            CREATE TABLE floats (k DOUBLE PRIMARY KEY, c DOUBLE);
            CREATE TABLE times (k TIMESTAMP PRIMARY KEY, c TIMESTAMP);
            CREATE TABLE texts (k TEXT PRIMARY KEY, c TEXT);
            CREATE TABLE pairs (k BIGINT, j INT, c BIGINT, d INT, PRIMARY KEY (k, j));
            INSERT INTO ints SELECT value, value AS c FROM generate_series(0, 30) AS g(value);
            INSERT INTO floats SELECT value * 0.25, value * 0.25 AS c FROM generate_series(-5, 30) AS g(value);
            INSERT INTO times SELECT to_timestamp(value * 1800), to_timestamp(value * 1800) AS c FROM generate_series(0, 99) AS g(value);
            INSERT INTO texts SELECT 'key ' || value, 'key ' || value AS c FROM generate_series(0, 30) AS g(value);
            INSERT INTO pairs SELECT value / 6, value % 6, value / 6 AS c, value % 6 AS d FROM generate_series(0, 99) AS g(value);";
        session.execute_script(Within::Session, script).await.unwrap();
    });
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&predicate(), |(table, predicate)| {
        let key = predicate.replace("COLUMN", "k").replace("OTHER", "j");
        let copy = predicate.replace("COLUMN", "c").replace("OTHER", "d");
        let order = if table == 4 { "k, j" } else { "k" };
        let sql =
            |p: &str| format!("SELECT {order} FROM {} WHERE {p} ORDER BY {order}", TABLES[table]);
        runtime.block_on(async {
            let found = answer(&session, &sql(&key)).await;
            let expected = answer(&session, &sql(&copy)).await;
            prop_assert_eq!(found, expected, "{}", sql(&key));
            Ok(())
        })
    });
    result.unwrap();
}

#[test]
fn literals_of_other_types_find_their_place_exactly() {
    let set = |t: &DataType, op, v: ScalarValue| compare(t, op, &v).unwrap().within_type(t);
    let int = DataType::Int64;
    let big = ScalarValue::Float64(Some(9_007_199_254_740_993.5));
    assert_eq!(
        set(&int, Operator::Gt, big),
        ValueSet::between(Cut::Int(9_007_199_254_740_995), Cut::High)
    );
    assert_eq!(set(&int, Operator::Eq, ScalarValue::Float64(Some(1.5))), ValueSet::none());
    assert_eq!(
        set(&int, Operator::Lt, ScalarValue::Float64(Some(-1.5))),
        ValueSet::between(Cut::Low, Cut::Int(-1))
    );
    assert_eq!(set(&int, Operator::Gt, ScalarValue::Float64(Some(1e300))), ValueSet::none());
    assert_eq!(set(&int, Operator::Gt, ScalarValue::Int64(Some(i64::MAX))), ValueSet::none());
    assert_eq!(set(&int, Operator::GtEq, ScalarValue::Float64(Some(1e-300))).0.len(), 1);
    let price = DataType::Decimal128(10, 2);
    assert_eq!(
        set(&price, Operator::Eq, ScalarValue::Float64(Some(1.1))),
        ValueSet::between(Cut::Int(110), Cut::Int(111))
    );
    assert_eq!(set(&price, Operator::Eq, ScalarValue::Float64(Some(1.111))), ValueSet::none());
    let day = DataType::Date32;
    let noon = ScalarValue::TimestampMicrosecond(Some(43_200_000_000 - 86_400_000_000), None);
    assert_eq!(set(&day, Operator::Lt, noon.clone()), ValueSet::between(Cut::Low, Cut::Int(0)));
    assert_eq!(set(&day, Operator::Eq, noon), ValueSet::none());
    // Neighbouring floats lie one apart, and zero has one place.
    assert_eq!(float_64(-0.0), float_64(0.0));
    assert_eq!(float_64(f64::from_bits(1)), 1);
    assert_eq!(float_64(-f64::from_bits(1)), -1);
    for value in [f64::NEG_INFINITY, -1.5, 0.0, 1e-310, 2.5, f64::MAX] {
        assert_eq!(to_float_64(float_64(value) as i64), value);
    }
}

/// Columns whose values lie where types end, lose digits or meet.
const NUMBERS: [(&str, &str); 7] = [
    ("SMALLINT", "-32768, -1, 0, 5, 32767"),
    ("INT", "-2147483648, -1, 0, 5, 6, 16777216, 16777217, 2147483647"),
    (
        "BIGINT",
        "-9223372036854775808, -9007199254740993, -1, 0, 5, 6, 9007199254740991, 9007199254740992, \
         9007199254740993, 9007199254740994, 9223372036854775806, 9223372036854775807",
    ),
    ("BIGINT UNSIGNED", "0, 5, 9007199254740992, 9007199254740993, 18446744073709551615"),
    ("DECIMAL(18, 4)", "-1.5, 0, 0.1, 5, 5.25, 45678.1234, 8123456.7801, 99999999999999.9999"),
    ("REAL", "-1.5, 0, 0.1, 5, 5.25, 16777216, 45678.125"),
    ("DOUBLE", "-1.5, 0, 0.1, 5, 5.25, 45678.1234, 9007199254740992, 1e300, '-inf', 'inf'"),
];

const EDGES: [&str; 28] = [
    "0",
    "-1",
    "5",
    "5.25",
    "-0.5",
    "0.1",
    "0.1e0",
    "5e0",
    "5.25e0",
    "45678.1234",
    "45678.1234e0",
    "32768",
    "16777217",
    "9007199254740992.0",
    "9007199254740993",
    "9007199254740992e0",
    "9007199254740993e0",
    "CAST(9007199254740993 AS DOUBLE)",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808.5",
    "18446744073709551615",
    "1e300",
    "-1e300",
    "CAST('NaN' AS DOUBLE)",
    "CAST('-inf' AS DOUBLE)",
    "CAST(0.1 AS REAL)",
    "CAST(5 AS SMALLINT)",
];

#[test]
fn numbers_of_every_type_compare_on_the_key_as_they_do_without() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { background: false, ..Options::default() };
    let engine = Engine::open(dir.path(), options).unwrap();
    let database = Database::new(engine, SqlOptions::default()).unwrap();
    let session = database.session();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (i, (data_type, values)) in NUMBERS.iter().enumerate() {
        let rows: Vec<String> =
            values.split(',').map(|v| format!("({0}, {0})", v.trim())).collect();
        let script = format!(
            "CREATE TABLE t{i} (k {data_type} PRIMARY KEY, c {data_type});
             INSERT INTO t{i} VALUES {};",
            rows.join(", ")
        );
        runtime.block_on(session.execute_script(Within::Session, &script)).unwrap();
    }
    let run = |sql: String| {
        runtime.block_on(async {
            let statement = session.prepare(&sql).await.map_err(|e| e.to_string())?;
            let rows = session.query(&statement, None).await.map_err(|e| e.to_string())?;
            let batches: Vec<RecordBatch> =
                rows.stream.try_collect().await.map_err(|e| e.to_string())?;
            Ok::<_, String>(concat_batches(&rows.schema, &batches).unwrap())
        })
    };
    let cast = prop::sample::select(vec![
        "{}",
        "CAST({} AS DOUBLE)",
        "CAST({} AS REAL)",
        "CAST({} AS DECIMAL(38, 10))",
        "CAST({} AS BIGINT)",
    ]);
    let op = prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let value = || prop::sample::select(EDGES.to_vec());
    let comparison =
        (cast, op, value(), value(), 0..4).prop_map(|(cast, op, a, b, form)| match form {
            0 => format!("{cast} BETWEEN {a} AND {b}"),
            1 => format!("{cast} IN ({a}, {b})"),
            _ => format!("{cast} {op} {a}"),
        });
    let config = ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&(0..NUMBERS.len(), comparison), |(i, comparison)| {
        let of = |column: &str| comparison.replace("{}", column);
        let found = run(format!("SELECT c FROM t{i} WHERE {} ORDER BY c", of("k")));
        let expected = run(format!("SELECT c FROM t{i} WHERE {} ORDER BY c", of("c")));
        // A cast may fail on a row that is not read where the key says that it does not pass.
        if expected.is_err() {
            return Ok(());
        }
        prop_assert_eq!(found, expected, "{} of {}", comparison, NUMBERS[i].0);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn casts_to_doubles_join_integers() {
    let set = |t: &DataType, op, v: f64| {
        compare_cast(t, true, op, &ScalarValue::Float64(Some(v))).unwrap()
    };
    let edge = 9_007_199_254_740_992.0;
    assert_eq!(
        set(&DataType::Int64, Operator::Eq, edge),
        ValueSet::between(Cut::Int(1 << 53), Cut::Int((1 << 53) + 2))
    );
    assert_eq!(
        set(&DataType::Int64, Operator::Gt, edge),
        ValueSet::between(Cut::Int((1 << 53) + 2), Cut::High)
    );
    let all = DataType::Decimal128(38, 0);
    assert_eq!(set(&all, Operator::Gt, 1e300).within_type(&all), ValueSet::none());
    assert!(keeps_order(&DataType::Int64, &DataType::Float64));
    assert!(!widens(&DataType::Int64, &DataType::Float64));
    assert!(!widens(&DataType::Int64, &DataType::Decimal128(20, 2)));
    assert!(widens(&DataType::Int64, &DataType::Decimal128(21, 2)));
}
