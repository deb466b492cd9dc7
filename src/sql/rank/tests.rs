//! Answers from positions against DataFusion's own, on random statements: a condition on another column makes it read the rows.

use std::cell::Cell;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::sample::{Method, Sampling};
use crate::sql::testing::{TestDatabase, lines};

/// Runs what `statements` makes, with `{}` empty and as a condition that only DataFusion can check; says how many were answered
/// from positions.
fn compare(db: &TestDatabase, cases: u32, statements: impl Strategy<Value = String>) -> u32 {
    let answered = Cell::new(0);
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let result = TestRunner::new(config).run(&statements, |sql| {
        let fast = sql.replace("{}", "");
        if explain(db, &fast).contains("RankExec") {
            answered.set(answered.get() + 1);
        }
        let slow = sql.replace("{}", " AND v >= 0");
        assert!(!explain(db, &slow).contains("RankExec"), "{slow}");
        let (fast_rows, slow_rows) = (whole(db, &fast), whole(db, &slow));
        prop_assert_eq!(fast_rows.schema(), slow_rows.schema(), "{}", &fast);
        prop_assert_eq!(fast_rows, slow_rows, "{}", &fast);
        Ok(())
    });
    result.unwrap();
    answered.get()
}

fn explain(db: &TestDatabase, sql: &str) -> String {
    lines(&db.query(&format!("EXPLAIN {sql}")).unwrap_or_else(|e| panic!("{sql}: {e}"))).join("\n")
}

fn whole(db: &TestDatabase, sql: &str) -> RecordBatch {
    let schema = db.prepare(sql).unwrap().schema();
    let batches = db.query(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    concat_batches(&schema, &batches).unwrap()
}

/// Each table filled in three parts, two of them flushed, whose keys lie among each other; then some rows deleted.
fn fill(db: &TestDatabase, tables: &[(&str, &str, &str)]) {
    for (table, definition, key) in tables {
        db.execute(&format!("CREATE TABLE {table} ({definition}")).unwrap();
        for part in 0..3 {
            let sql = format!(
                "INSERT INTO {table} SELECT {key}, value % 7 AS v \
                 FROM generate_series({part}, 299, 3) AS g(value)"
            );
            db.execute(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
            if part < 2 {
                db.database.engine().flush(None).unwrap();
            }
        }
        db.execute(&format!("DELETE FROM {table} WHERE v = 3")).unwrap();
    }
}

#[test]
fn aggregates_equal_datafusions() {
    let db = TestDatabase::new(TestDatabase::options());
    let tables = [
        ("ints", "k BIGINT PRIMARY KEY, v INT)", "value * 3 - 200 AS k"),
        ("small", "k SMALLINT PRIMARY KEY, v INT)", "value - 50 AS k"),
        ("floats", "k DOUBLE PRIMARY KEY, v INT)", "value * 0.37 - 20.15 AS k"),
        ("reals", "k REAL PRIMARY KEY, v INT)", "CAST(value * 0.37 - 20.15 AS REAL) AS k"),
        (
            "money",
            "k DECIMAL(12, 2) PRIMARY KEY, v INT)",
            "CAST(value * 7 AS DECIMAL(12, 2)) / 4 - 100 AS k",
        ),
        ("large", "k BIGINT PRIMARY KEY, v INT)", "9007199254740000 + value * 11 AS k"),
        ("runs", "k BIGINT, v INT) CLUSTER BY (k)", "value / 9 - 10 AS k"),
        (
            "pairs",
            "k BIGINT, b INT, v INT, PRIMARY KEY (k, b))",
            "value / 9 - 10 AS k, value % 9 AS b",
        ),
    ];
    fill(&db, &tables);
    let share = prop_oneof![
        Just("0.5".to_owned()),
        Just("0.0".to_owned()),
        Just("1.0".to_owned()),
        (0_u32..1000).prop_map(|p| format!("0.{p:03}")),
    ];
    let share = || share.clone();
    let function = prop_oneof![
        2 => Just("median(k)".to_owned()),
        2 => share().prop_map(|p| format!("percentile_cont({p}) WITHIN GROUP (ORDER BY k)")),
        1 => share().prop_map(|p| format!("percentile_cont({p}) WITHIN GROUP (ORDER BY k DESC)")),
        1 => share().prop_map(|p| format!("quantile_cont(k, {p})")),
        2 => share().prop_map(|p| format!("percentile_disc({p}) WITHIN GROUP (ORDER BY k)")),
        1 => share().prop_map(|p| format!("percentile_disc({p}) WITHIN GROUP (ORDER BY k DESC)")),
        1 => Just("min(k)".to_owned()),
        1 => Just("max(k)".to_owned()),
        1 => Just("count(*)".to_owned()),
        1 => Just("count(k)".to_owned()),
        1 => Just("min(k + 1)".to_owned()),
    ];
    let functions = prop::collection::btree_set(function, 1..4);
    let bound = -150_i64..500;
    let condition = prop_oneof![
        2 => Just("k >= -10000".to_owned()),
        2 => (bound.clone(), bound.clone()).prop_map(|(a, b)| format!("k BETWEEN {a} AND {b}")),
        1 => bound.clone().prop_map(|a| format!("k < {a}")),
        1 => bound.clone().prop_map(|a| format!("(k < {a} OR k > {a} + 20)")),
        1 => prop::collection::vec(bound, 1..5)
            .prop_map(|v| format!("k IN ({})", v.iter().map(i64::to_string).collect::<Vec<_>>().join(", "))),
    ];
    let names: Vec<&str> = tables.iter().map(|t| t.0).collect();
    let statement = (prop::sample::select(names), functions, condition).prop_map(|(t, f, c)| {
        let f: Vec<String> = f.into_iter().collect();
        format!("SELECT {} FROM {t} WHERE {c}{{}}", f.join(", "))
    });
    let answered = compare(&db, 250, statement);
    assert!(answered > 120, "only {answered} statements were answered from positions");
}

#[test]
fn approximations_are_exact_where_positions_tell() {
    let db = TestDatabase::new(TestDatabase::options());
    fill(&db, &[("t", "k BIGINT PRIMARY KEY, v INT)", "value * value AS k")]);
    for (approximate, exact) in [
        ("approx_percentile_cont(0.3) WITHIN GROUP (ORDER BY k)", "quantile_cont(k, 0.3)"),
        ("approx_percentile_cont(k, 0.9)", "quantile_cont(k, 0.9)"),
        ("approx_median(k)", "median(k)"),
    ] {
        let sql = format!("SELECT {approximate} AS q FROM t WHERE k > 100");
        assert!(explain(&db, &sql).contains("RankExec"), "{sql}");
        let exact = whole(&db, &format!("SELECT {exact} AS q FROM t WHERE k > 100"));
        assert_eq!(whole(&db, &sql), exact, "{sql}");
        let slow = whole(&db, &format!("{sql} AND v >= 0"));
        assert_eq!(slow.schema(), exact.schema());
    }
}

#[test]
fn buckets_equal_datafusions() {
    let db = TestDatabase::new(TestDatabase::options());
    // From 1967 on, through leap days, some hours apart and now and then much further.
    let at = "(value * value * 97 % 4000 - 1200) * 86400 + value * 7919";
    let tables = [
        ("plain", "k TIMESTAMP PRIMARY KEY, v INT)".to_owned(), format!("to_timestamp({at}) AS k")),
        ("utc", "k TIMESTAMPTZ PRIMARY KEY, v INT)".to_owned(), format!("to_timestamp({at}) AS k")),
        (
            "fine",
            "k TIMESTAMP(9) PRIMARY KEY, v INT)".to_owned(),
            format!("to_timestamp({at}) AS k"),
        ),
        (
            "coarse",
            "k TIMESTAMP(0) PRIMARY KEY, v INT)".to_owned(),
            format!("to_timestamp({at}) AS k"),
        ),
        (
            "days",
            "k DATE, v INT) CLUSTER BY (k)".to_owned(),
            format!("CAST(to_timestamp({at}) AS DATE) AS k"),
        ),
        (
            "dense",
            "k TIMESTAMP, b INT, v INT, PRIMARY KEY (k, b))".to_owned(),
            "to_timestamp(value * 11 - 1500) AS k, value AS b".to_owned(),
        ),
    ];
    fill(&db, &tables.iter().map(|t| (t.0, t.1.as_str(), t.2.as_str())).collect::<Vec<_>>());
    let names: Vec<&str> = tables.iter().map(|t| t.0).collect();
    let unit = prop::sample::select(vec![
        "second",
        "minute",
        "hour",
        "day",
        "week",
        "month",
        "quarter",
        "year",
        "millisecond",
    ]);
    let interval = prop::sample::select(vec![
        "1 month",
        "2 months",
        "7 months",
        "1 year",
        "15 minutes",
        "1 hour",
        "36 hours",
        "10 days",
        "1 second",
    ]);
    let bucket = prop_oneof![
        3 => unit.prop_map(|u| format!("date_trunc('{u}', k)")),
        2 => interval.clone().prop_map(|i| format!("date_bin(INTERVAL '{i}', k)")),
        2 => interval.prop_map(|i| format!("date_bin(INTERVAL '{i}', k, TIMESTAMP '1972-03-31 01:02:03')")),
    ];
    let day = || {
        (1965_u32..1981, 1_u32..13, 1_u32..29).prop_map(|(y, m, d)| format!("'{y}-{m:02}-{d:02}'"))
    };
    let condition = prop_oneof![
        1 => Just("k >= '1900-01-01'".to_owned()),
        3 => (day(), day()).prop_map(|(a, b)| format!("k >= {a} AND k < {b}")),
        1 => (day(), day()).prop_map(|(a, b)| format!("(k < {a} OR k > {b})")),
        1 => (0_u32..60, 0_u32..60)
            .prop_map(|(a, b)| format!("k BETWEEN '1970-01-01 00:{a:02}:30' AND '1970-01-01 00:{b:02}:00'")),
    ];
    let order = prop_oneof![
        3 => Just("ORDER BY 1"),
        1 => Just("ORDER BY 1 DESC"),
        1 => Just("ORDER BY 1 LIMIT 3"),
        1 => Just("ORDER BY 1 LIMIT 2 OFFSET 4"),
        1 => Just("HAVING count(*) > 2 ORDER BY 1"),
    ];
    let statement =
        (prop::sample::select(names), bucket, condition, order).prop_map(|(t, b, c, o)| {
            // date_bin knows no dates.
            let b = if t == "days" && b.starts_with("date_bin") {
                b.replace(", k", ", CAST(k AS TIMESTAMP)")
            } else {
                b
            };
            format!("SELECT {b} AS bucket, count(*) AS n FROM {t} WHERE {c}{{}} GROUP BY 1 {o}")
        });
    let answered = compare(&db, 300, statement);
    assert!(answered > 150, "only {answered} statements were answered from positions");
}

#[test]
fn buckets_of_zones_that_set_clocks_back_are_planned() {
    let db = TestDatabase::new(TestDatabase::options());
    db.execute("CREATE TABLE t (k TIMESTAMPTZ PRIMARY KEY)").unwrap();
    db.execute("INSERT INTO t SELECT to_timestamp(1729990000 + value * 600) FROM generate_series(0, 40) AS g(value)").unwrap();
    let by = |zone: &str| {
        format!(
            "SELECT date_trunc('hour', arrow_cast(k, 'Timestamp(µs, \"{zone}\")')), count(*) FROM t GROUP BY 1 ORDER BY 1"
        )
    };
    let in_zone = |zone: &str| {
        by(zone)
            .replace("µs", "Microsecond")
            .replace("Timestamp(Microsecond, ", "Timestamp(Microsecond, Some(")
            .replace("\")'", "\"))'")
    };
    assert!(!explain(&db, &in_zone("Europe/Berlin")).contains("RankExec"));
    assert!(explain(&db, &in_zone("+02:00")).contains("RankExec"));
}

#[test]
fn many_buckets_of_few_rows_are_planned() {
    let db = TestDatabase::new(TestDatabase::options());
    db.execute("CREATE TABLE t (k TIMESTAMP PRIMARY KEY)").unwrap();
    db.execute(
        "INSERT INTO t SELECT to_timestamp(value * 60) FROM generate_series(0, 999) AS g(value)",
    )
    .unwrap();
    let by = |unit: &str| format!("SELECT date_trunc('{unit}', k), count(*) FROM t GROUP BY 1");
    assert!(!explain(&db, &by("minute")).contains("RankExec"));
    assert!(explain(&db, &by("hour")).contains("RankExec"));
}

fn sampling(method: Method, share: f64, seed: u64) -> Sampling {
    Sampling { method, share, seed, repeatable: true }
}

proptest! {
    #[test]
    fn samples_are_ranks_without_repeats(
        count in 0_u64..3000,
        share in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0_f64],
        system in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let method = if system { Method::System } else { Method::Bernoulli };
        let sampling = sampling(method, share, seed);
        let ranks: Vec<u64> = sampling.ranks(count).collect();
        prop_assert_eq!(ranks.len() as u64, (count as f64 * share).round() as u64);
        prop_assert!(ranks.is_sorted_by(|a, b| a < b));
        prop_assert!(ranks.last().is_none_or(|last| *last < count));
        prop_assert_eq!(&ranks, &sampling.ranks(count).collect::<Vec<_>>());
    }
}

#[test]
fn every_rank_is_picked_alike() {
    for method in [Method::Bernoulli, Method::System] {
        let mut hits = [0_u32; 50];
        for seed in 0..4000 {
            sampling(method, 0.2, seed).ranks(50).for_each(|rank| hits[rank as usize] += 1);
        }
        // 800 expected; the deviation is about 25.
        assert!(hits.iter().all(|h| (650..950).contains(h)), "{method:?}: {hits:?}");
    }
}

#[test]
fn samples_stay_the_same_however_rows_lie() {
    let db = TestDatabase::new(TestDatabase::options());
    fill(&db, &[("t", "k BIGINT, v INT) CLUSTER BY (k)", "value / 4 AS k")]);
    let all = db.rows("SELECT count(*) FROM t")[0].parse::<f64>().unwrap();
    for method in ["BERNOULLI", "SYSTEM"] {
        let sql = format!("SELECT k, v FROM t TABLESAMPLE {method} (20) REPEATABLE (7)");
        let rows = db.rows(&sql);
        assert_eq!(rows.len(), (all * 0.2).round() as usize);
        db.database.engine().flush(None).unwrap();
        assert_eq!(db.rows(&sql), rows);
        let table = db.database.engine().table("t").unwrap();
        db.database.engine().compact(table.id()).unwrap();
        assert_eq!(db.rows(&sql), rows);
        assert_ne!(db.rows(&sql.replace("(7)", "(8)")), rows);
        // Rows are picked first: a condition leaves some of them.
        let some = db.rows(&format!("{sql} WHERE k < 30"));
        let expected: Vec<String> = rows
            .iter()
            .filter(|r| r.split(' ').next().unwrap().parse::<i64>().unwrap() < 30)
            .cloned()
            .collect();
        assert_eq!(some, expected);
        let plan = explain(&db, &sql);
        assert!(plan.contains("RankExec: table=public.t, sample="), "{plan}");
    }
}
