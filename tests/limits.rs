//! Statements of every shape, far beyond what anyone writes: each is answered or refused, and the process lives on.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use omendb::engine::{Engine, Options};
use omendb::sql::{Code, Database, Error, ErrorKind, Session, SqlOptions, StatementKind};

const PLANNING: Duration = Duration::from_secs(3);

struct Fixture {
    session: Session,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), Options::default()).unwrap();
        let options = SqlOptions { planning_timeout: PLANNING, ..SqlOptions::default() };
        let session = Database::new(engine, options).unwrap().session();
        let fixture = Self { session, _dir: dir };
        for sql in [
            "CREATE TABLE t (a BIGINT PRIMARY KEY, s TEXT)",
            "INSERT INTO t VALUES (1, 'x'), (2, 'y')",
        ] {
            fixture.run(sql).await.unwrap();
        }
        fixture
    }

    /// Rows of the answer.
    async fn run(&self, sql: &str) -> Result<usize, Error> {
        let answer = tokio::time::timeout(Duration::from_secs(120), self.answer(sql)).await;
        answer.unwrap_or_else(|_| panic!("no answer to {}", &sql[..sql.len().min(100)]))
    }

    async fn answer(&self, sql: &str) -> Result<usize, Error> {
        let statement = self.session.prepare(sql).await?;
        if statement.kind() != StatementKind::Query {
            self.session.execute(&statement, None).await?;
            return Ok(0);
        }
        let rows = self.session.query(&statement, None).await?;
        let batches: Vec<_> = rows.stream.try_collect().await?;
        Ok(batches.iter().map(|b| b.num_rows()).sum())
    }

    /// Runs what may be refused for its size alone.
    async fn survives(&self, name: &str, sql: &str) {
        let begun = Instant::now();
        let result = self.run(sql).await;
        let took = begun.elapsed();
        println!("{name}: {:?} in {took:?}", result.as_ref().map_err(|e| (e.code(), short(e))));
        // Preparing and running plan once each.
        assert!(took < 4 * PLANNING + Duration::from_secs(20), "{name} took {took:?}");
        if let Err(error) = result {
            assert_ne!(error.code(), Code::InternalError, "{name}: {}", short(&error));
            assert_ne!(error.kind(), ErrorKind::Refused, "{name}: {}", short(&error));
        }
    }
}

fn short(error: &Error) -> String {
    error.message().chars().take(150).collect()
}

/// Without `OMENDB_TEST_LONG`, what takes long without optimization is left out.
fn sizes() -> &'static [usize] {
    match std::env::var_os("OMENDB_TEST_LONG") {
        Some(_) => &[10, 100, 1_000, 10_000, 30_000],
        None => &[10, 300, 30_000],
    }
}

/// `first`, `n` times `part`, `between` and `n` times `end`.
const SHAPES: &[(&str, &str, &str, &str)] = &[
    ("SELECT 1", " UNION ALL SELECT 1", "", ""),
    ("SELECT a FROM t", " UNION SELECT a FROM t", "", ""),
    ("SELECT 1", " EXCEPT SELECT 2", "", ""),
    ("SELECT 1", " INTERSECT SELECT 1", "", ""),
    ("SELECT 1", " UNION ALL SELECT 1 EXCEPT SELECT 2", "", ""),
    ("", "(SELECT 1 UNION ALL ", "SELECT 1", ")"),
    ("SELECT 1", " NOTNULL", "", ""),
    ("SELECT a", " IS NULL", " FROM t", ""),
    ("SELECT 'a'", " LIKE 'a'", "", ""),
    ("SELECT s", " || 'a'", " FROM t", ""),
    ("SELECT a", " + 1", " FROM t", ""),
    ("SELECT a", " * 1", " FROM t", ""),
    ("SELECT 1.5", " + 1.5", "", ""),
    ("SELECT a", " = a", " FROM t", ""),
    ("SELECT a", " IS DISTINCT FROM a", " FROM t", ""),
    ("SELECT 5 < ANY (ARRAY[1", ", 1", "])", ""),
    ("SELECT 5 = ALL (ARRAY[1", ", 1", "])", ""),
    ("SELECT ", "((", "1", ") < ANY (ARRAY[1, 2, 3, 4, 5, 6]))::INT"),
    ("SELECT (a, a) IN ((1, 1)", ", (1, 1)", ") FROM t", ""),
    ("SELECT ", "((1, ", "1", ") < (1, 2))"),
    ("SELECT ", "~ ", "1", ""),
    ("SELECT 1 BETWEEN 0 AND 1", " BETWEEN 0 AND 1", "", ""),
    ("SELECT a", "::BIGINT", " FROM t", ""),
    ("SELECT a FROM t WHERE a = 1", " OR a = 7", "", ""),
    ("SELECT a FROM t WHERE a > 0", " AND s <> 'z'", "", ""),
    ("SELECT a FROM t WHERE a = 1", " OR s = 'x' AND a = 2", "", ""),
    ("SELECT TIMESTAMP '2024-01-01 00:00:00'", " AT TIME ZONE 'UTC'", "", ""),
    ("SELECT [1]", "[1]", "", ""),
    ("SELECT ", "NOT ", "true", ""),
    ("SELECT ", "- ", "1", ""),
    ("SELECT ", "(", "1", ")"),
    ("SELECT ", "[", "1", "]"),
    ("SELECT ", "abs(", "a", ")"),
    ("SELECT ", "CAST(", "1", " AS INT)"),
    ("SELECT ", "CASE WHEN true THEN ", "1", " END"),
    ("SELECT CASE a", " WHEN 5 THEN 6", " ELSE 7 END FROM t", ""),
    ("SELECT ", "(SELECT ", "1", ")"),
    ("SELECT ", "EXISTS (SELECT ", "1", ")"),
    ("SELECT * FROM ", "(SELECT * FROM ", "t", ") x"),
    ("SELECT a FROM t WHERE ", "a IN (SELECT a FROM t WHERE ", "true", ")"),
    ("SELECT a FROM t WHERE true", " AND a IN (SELECT a FROM t)", "", ""),
    ("SELECT 1", ", (SELECT max(a) FROM t)", "", ""),
    ("SELECT count(*) FROM (VALUES (1)) v", ", (VALUES (1)) v", "", ""),
    ("SELECT count(*) FROM (VALUES (1)) v", " CROSS JOIN (VALUES (1)) v", "", ""),
    ("SELECT 1 WHERE 1 IN (1", ", 1", ")", ""),
    ("VALUES (1)", ", (1)", "", ""),
    ("SELECT 1", ", 1", "", ""),
    ("SELECT concat('a'", ", 'a'", ")", ""),
    ("SELECT coalesce(NULL", ", a", ") FROM t", ""),
    ("SELECT a FROM t ORDER BY a", ", a", "", ""),
    ("SELECT a FROM t GROUP BY a", ", a", "", ""),
    ("SELECT 1 FROM t GROUP BY GROUPING SETS ((a)", ", (a)", ")", ""),
    ("SELECT sum(a) OVER (ORDER BY a)", ", sum(a) OVER (ORDER BY a)", " FROM t", ""),
    ("EXPLAIN SELECT 1", " UNION ALL SELECT 1", "", ""),
    ("EXPLAIN SELECT a FROM t WHERE a = 1", " OR s = 'a'", "", ""),
    ("", "EXPLAIN ", "SELECT 1", ""),
    ("", "WITH c AS (", "SELECT 1", ") SELECT * FROM c"),
    ("SELECT 1::", "ARRAY<", "INT", ">"),
    ("SELECT NULL::INT", "[]", "", ""),
    ("SELECT arrow_cast(1, '", "List(", "Int64", ")"),
    ("INSERT INTO t VALUES (0", " + 1", ", 'x') ON CONFLICT DO NOTHING", ""),
    ("UPDATE t SET s = 'x' WHERE a = 1", " OR a = 9", "", ""),
    ("DELETE FROM t WHERE a = 8", " OR s = 'zz'", "", ""),
    ("DELETE FROM t WHERE a = 8", " - 1", "", ""),
];

#[tokio::test]
async fn every_shape_at_every_size_is_answered_or_refused() {
    let fixture = Fixture::new().await;
    let only = std::env::var("OMENDB_TEST_SHAPE").ok();
    for (first, part, between, end) in SHAPES {
        if only.as_ref().is_some_and(|only| !part.contains(only.as_str())) {
            continue;
        }
        for n in sizes() {
            let mut sql = format!("{first}{}{between}{}", part.repeat(*n), end.repeat(*n));
            if part.starts_with("List") {
                sql.push_str("')");
            }
            if sql.len() < 1 << 20 {
                fixture.survives(&format!("{first}{part} x {n}"), &sql).await;
            }
        }
    }
    assert_eq!(fixture.run("SELECT 1").await.unwrap(), 1);
}

/// The most memory that the process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

#[tokio::test]
async fn arguments_that_size_something_are_bounded() {
    let fixture = Fixture::new().await;
    for sql in [
        "SELECT repeat('x', 2000000000)",
        "SELECT repeat(s, 9223372036854775807) FROM t",
        "SELECT lpad('x', 2000000000), rpad('x', 2000000000, 'ab')",
        "SELECT lpad(s, 1000000000) FROM t",
        "SELECT concat(repeat('x', 60000000), repeat('y', 60000000))",
        "SELECT repeat('x', 40000000) || s || repeat('y', 40000000) FROM t",
        "SELECT array_concat(range(0, 5000000), range(a, 5000000)) FROM t",
        "SELECT format('%2000000000s', s) FROM t",
        "SELECT translate(repeat(s, 40000000), 'x', 'ä') FROM t",
        "SELECT string_agg(repeat('x', 10000), '') OVER (ORDER BY value ROWS BETWEEN 1000 PRECEDING AND CURRENT ROW) FROM generate_series(1, 2000)",
        "SELECT concat_ws(repeat(',', 40000000), 'a', 'b', 'c')",
        "SELECT replace(repeat('x', 100000), 'x', repeat('y', 100000))",
        "SELECT regexp_replace(repeat('x', 100000), 'x', repeat('y', 100000), 'g')",
        "SELECT array_repeat(1, 2000000000)",
        "SELECT array_repeat(a, 2000000000) FROM t",
        "SELECT array_length(range(0, 9000000000000000000))",
        "SELECT array_length(range(a, 9000000000000000000)) FROM t",
        "SELECT generate_series(-9000000000000000000, 9000000000000000000)",
        "SELECT array_length(array_resize([1], 2000000000, 0))",
        "SELECT array_to_string(range(1, 1000000), repeat('x', 100000))",
        "SELECT approx_percentile_cont(0.5, 2147483647) WITHIN GROUP (ORDER BY a) FROM t",
        "SELECT approx_percentile_cont(a, 0.5, 2147483647) FROM t",
        "SELECT approx_percentile_cont(a, 0.5, 1000000 * 1000000) FROM t",
        "SELECT levenshtein(repeat('x', 1000000), repeat('y', 1000000))",
    ] {
        let error = fixture.run(sql).await.expect_err(sql);
        assert_eq!(error.code(), Code::ProgramLimitExceeded, "{sql}: {error}");
    }
    for sql in [
        "SELECT length(repeat('x', 1000000)), length(lpad('x', 1000000))",
        "SELECT length(concat(repeat('x', 1000000), repeat('y', 1000000)))",
        "SELECT length(replace(repeat('x', 1000000), 'y', repeat('y', 1000000)))",
        "SELECT array_length(range(0, 100000)), array_length(array_repeat(1, 100000))",
        "SELECT approx_percentile_cont(0.5, 1000) WITHIN GROUP (ORDER BY a) FROM t",
        "SELECT levenshtein('kitten', 'sitting')",
        "SELECT array_length(generate_series(DATE '2024-01-01', DATE '2024-12-31', INTERVAL '1 day'))",
    ] {
        assert_eq!(fixture.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")), 1, "{sql}");
    }
    assert!(peak() < 4 << 30, "the process took {} bytes", peak());
}

/// What computes for long without giving way.
const LONG: &[&str] = &[
    "SELECT sum(levenshtein(repeat('ab', 10000), concat(repeat('ba', 10000), CAST(value AS TEXT)))) FROM generate_series(1, 100000)",
    "SELECT count(*) FROM generate_series(1, 5000000) a JOIN generate_series(1, 5000000) b ON a.value * b.value < 0",
    "SELECT sum(levenshtein(concat(repeat('ab', 10000), CAST(value AS TEXT)), repeat('ba', 10000))) FROM generate_series(1, 100000)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_statements_do_not_wait_for_long_ones() {
    let fixture = Fixture::new().await;
    let database = fixture.session.database().clone();
    let long: Vec<_> = LONG
        .iter()
        .map(|sql| {
            let session = database.session();
            tokio::spawn(async move {
                let statement = session.prepare(sql).await?;
                let rows = session.query(&statement, None).await?;
                rows.stream.try_collect::<Vec<_>>().await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut waits = Vec::new();
    for i in 0..100 {
        let begun = Instant::now();
        assert_eq!(fixture.run(&format!("SELECT {i} + 1")).await.unwrap(), 1);
        waits.push(begun.elapsed());
    }
    waits.sort();
    println!("median {:?}, p99 {:?}, most {:?}", waits[50], waits[98], waits[99]);
    // A busy machine has its own waits: those of a poll that keeps a thread would be tens of seconds.
    assert!(waits[98] < Duration::from_secs(5), "{waits:?}");
    let running = long.iter().filter(|task| !task.is_finished()).count();
    assert_eq!(running, long.len(), "the long statements are too short");
    long.iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn long_chains_run() {
    let fixture = Fixture::new().await;
    // More joins on one way than a task has units to yield by.
    let joins: Vec<String> = (0..150).map(|i| format!("t t{i} USING (a)")).collect();
    let joins = format!("SELECT count(*) FROM t JOIN {}", joins.join(" JOIN "));
    match fixture.run(&joins).await {
        Ok(rows) => assert_eq!(rows, 1),
        Err(error) => assert_eq!(error.code(), Code::StatementTimeout, "{error}"),
    }
    let union = vec!["SELECT 1"; 600].join(" UNION ALL ");
    assert_eq!(fixture.run(&union).await.unwrap(), 600);
    let or: Vec<String> = (0..1_200).map(|i| format!("a = {i}")).collect();
    let or = format!("SELECT a FROM t WHERE {}", or.join(" OR "));
    assert_eq!(fixture.run(&or).await.unwrap(), 2);
    let or: Vec<String> = (0..1_200).map(|i| format!("a + 1 = {i}")).collect();
    let or = format!("SELECT a FROM t WHERE {}", or.join(" OR "));
    assert_eq!(fixture.run(&or).await.unwrap(), 2);
}

#[tokio::test]
async fn what_multiplies_while_it_is_planned_is_refused_or_bounded() {
    let fixture = Fixture::new().await;
    for joined in [2, 3] {
        let mut ctes = vec!["c0 AS (SELECT a FROM t)".to_owned()];
        for i in 1..60 {
            let from: Vec<String> = (0..joined).map(|j| format!("c{} x{j}", i - 1)).collect();
            ctes.push(format!("c{i} AS (SELECT x0.a FROM {})", from.join(" CROSS JOIN ")));
        }
        let sql = format!("WITH {} SELECT count(*) FROM c59", ctes.join(", "));
        let error = fixture.run(&sql).await.unwrap_err();
        assert_eq!(error.code(), Code::StatementTooComplex, "{error}");
    }
    // Views multiply as common table expressions do.
    fixture.run("CREATE VIEW v0 AS SELECT a FROM t").await.unwrap();
    let mut refused = None;
    for i in 1..16 {
        let (v, w) = (i, i - 1);
        let sql = format!(
            "CREATE VIEW v{v} AS SELECT x.a FROM v{w} x, v{w} y, v{w} z WHERE x.a = y.a AND x.a = z.a"
        );
        if let Err(error) = fixture.run(&sql).await {
            refused = Some(error.code());
            break;
        }
    }
    assert_eq!(refused, Some(Code::StatementTooComplex));
    let columns: Vec<String> = (0..25).map(|i| format!("a + {i}")).collect();
    let sql = format!("SELECT 1 FROM t GROUP BY CUBE ({})", columns.join(", "));
    let error = fixture.run(&sql).await.unwrap_err();
    assert_eq!(error.code(), Code::StatementTooComplex, "{error}");
}
