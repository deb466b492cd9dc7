use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use super::*;
use crate::sql::prepared::Prepared;
use crate::sql::testing::{TestDatabase, lines};

fn with_table() -> TestDatabase {
    let db = TestDatabase::new(TestDatabase::options());
    db.execute("CREATE TABLE t (k BIGINT PRIMARY KEY, v BIGINT)").unwrap();
    db.execute("INSERT INTO t VALUES (1, 10), (2, 20)").unwrap();
    db
}

/// Prepares a statement twice; the one that was kept.
fn kept(db: &TestDatabase, sql: &str) -> Arc<Prepared> {
    let first = db.prepare(sql).unwrap();
    let second = db.prepare(sql).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "{sql} is not kept");
    second
}

#[test]
fn plans_are_kept_and_read_the_latest_rows() {
    let db = with_table();
    let sql = "SELECT SUM(v) FROM t WHERE v > (SELECT MIN(v) FROM t) - 1";
    assert!(kept(&db, sql).planned.is_some());
    assert_eq!(db.rows(sql), ["30"]);
    db.execute("INSERT INTO t VALUES (3, 30)").unwrap();
    assert_eq!(db.rows(sql), ["60"]);
    let join = "SELECT a.k, b.v FROM t a JOIN t b ON a.k = b.k + 1 WHERE a.k < 3 ORDER BY a.k";
    kept(&db, join);
    assert_eq!(db.rows(join), ["2 10"]);
    db.execute("UPDATE t SET v = 11 WHERE k = 1").unwrap();
    assert_eq!(db.rows(join), ["2 11"]);
    // A transaction's own rows, and nobody else's.
    db.execute("BEGIN").unwrap();
    db.execute("INSERT INTO t VALUES (4, 40)").unwrap();
    assert_eq!(db.rows(sql), ["101"]);
    db.execute("ROLLBACK").unwrap();
    assert_eq!(db.rows(sql), ["61"]);
    // What changes rows is described once.
    kept(&db, "INSERT INTO t SELECT k + 100, v FROM t WHERE v > 1");
}

#[test]
fn another_definition_is_planned_anew() {
    let db = with_table();
    db.execute("CREATE VIEW w AS SELECT k, v * 2 AS d FROM t").unwrap();
    let (star, view) =
        ("SELECT * FROM t WHERE v > 0 ORDER BY k", "SELECT d FROM w WHERE d > 0 ORDER BY d");
    kept(&db, star);
    kept(&db, view);
    assert_eq!(db.rows(star), ["1 10", "2 20"]);
    assert_eq!(db.rows(view), ["20", "40"]);
    db.execute("ALTER TABLE t ADD COLUMN x TEXT DEFAULT 'new'").unwrap();
    assert_eq!(db.rows(star), ["1 10 new", "2 20 new"]);
    db.execute("CREATE OR REPLACE VIEW w AS SELECT k, v * 3 AS d FROM t").unwrap();
    assert_eq!(db.rows(view), ["30", "60"]);
    db.execute("DROP VIEW w").unwrap();
    db.execute("DROP TABLE t").unwrap();
    assert!(db.prepare(star).is_err() && db.prepare(view).is_err());
    db.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v DOUBLE)").unwrap();
    db.execute("INSERT INTO t VALUES ('a', 0.5)").unwrap();
    assert_eq!(db.rows(star), ["a 0.5"]);
    // A definition that only a transaction sees.
    db.execute("BEGIN").unwrap();
    db.execute("ALTER TABLE t ADD COLUMN y BIGINT").unwrap();
    assert_eq!(db.prepare(star).unwrap().schema().fields().len(), 3);
    db.execute("ROLLBACK").unwrap();
    assert_eq!(db.prepare(star).unwrap().schema().fields().len(), 2);
}

#[test]
fn a_statement_that_was_prepared_before_runs_on_what_there_is_now() {
    let db = with_table();
    let statement = db.prepare("SELECT v + $1 AS s FROM t WHERE v > $2 ORDER BY k").unwrap();
    assert!(statement.planned.is_some());
    let one = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    let values = RecordBatch::try_from_iter([("1", one(1)), ("2", one(10))]).unwrap();
    let run = || {
        db.runtime.block_on(async {
            let rows = db.session.query(&statement, Some(&values)).await.unwrap();
            futures::TryStreamExt::try_collect::<Vec<_>>(rows.stream).await.unwrap()
        })
    };
    assert_eq!(lines(&run()), ["21"]);
    db.execute("INSERT INTO t VALUES (3, 30)").unwrap();
    assert_eq!(lines(&run()), ["21", "31"]);
    db.execute("ALTER TABLE t ADD COLUMN x BIGINT").unwrap();
    db.execute("INSERT INTO t VALUES (4, 40, 1)").unwrap();
    assert_eq!(lines(&run()), ["21", "31", "41"]);
}

#[test]
fn what_is_of_the_moment_is_not_kept() {
    let db = with_table();
    let sql = "SELECT row_count FROM omendb.tables WHERE table_name = 't'";
    assert!(db.prepare(sql).unwrap().planned.is_none());
    assert_eq!(db.rows(sql), ["2"]);
    db.execute("INSERT INTO t VALUES (3, 30)").unwrap();
    assert_eq!(db.rows(sql), ["3"]);
    let now = "SELECT now() FROM t WHERE v = 10";
    let first = db.rows(now);
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert_ne!(first, db.rows(now));
    // Each run of a sample picks anew.
    let sample = "SELECT SUM(v) FROM t TABLESAMPLE BERNOULLI (50)";
    assert!(db.prepare(sample).unwrap().planned.is_none());
    // An error of a constant is one of running, not of preparing.
    let broken = "SELECT v / (1 - 1) FROM t";
    assert!(db.prepare(broken).is_ok());
    assert!(db.query(broken).is_err());
    assert!(db.query(broken).is_err());
}

#[test]
fn a_kept_plan_holds_no_rows() {
    let db = with_table();
    let statement = kept(&db, "SELECT SUM(v) FROM t WHERE v > 1");
    let plan = &statement.planned.as_ref().unwrap().plan;
    let mut scans = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            assert!(scan.source.is::<Kept>(), "{}", scan.table_name);
            scans += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    assert_eq!(scans, 1);
}
