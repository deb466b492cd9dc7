use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{Float64Type, UInt64Type};
use futures::TryStreamExt;

use super::*;
use crate::engine::OnConflict;
use crate::sql::testing::TestDatabase;
use crate::sql::{IngestMode, IngestRequest, Session, Within};

/// More pairs than a test waits for.
const ENDLESS: &str = "SELECT SUM(a.k * b.k + c.k) FROM t a, t b, t c";

fn with_table() -> TestDatabase {
    let db = TestDatabase::new(TestDatabase::options());
    db.execute("CREATE TABLE t (k BIGINT PRIMARY KEY)").unwrap();
    db.execute("INSERT INTO t SELECT value FROM generate_series(1, 100000)").unwrap();
    db
}

/// Nothing runs yet, and there are places.
fn open_gate() -> Queries {
    Queries::new(Gate::new("statements", "max_statements", 8, Duration::from_secs(1)))
}

/// The numbers of the statements that begin with `text`.
fn listed(db: &TestDatabase, text: &str) -> Vec<u64> {
    let queries = db.database.queries().list();
    queries.iter().filter(|q| q.sql().starts_with(text)).map(|q| q.id()).collect()
}

/// Waits for the statement that begins with `text`; its number.
fn wait_for(db: &TestDatabase, text: &str) -> u64 {
    loop {
        match listed(db, text).as_slice() {
            [] => std::thread::sleep(Duration::from_millis(1)),
            [id] => return *id,
            several => panic!("{several:?} are listed for {text}"),
        }
    }
}

/// Runs a statement of a session of its own; its error.
async fn failure(session: Session, sql: &'static str) -> Error {
    let statement = session.prepare(sql).await.unwrap();
    if statement.kind() != crate::sql::StatementKind::Query {
        return session.execute(&statement, None).await.err().unwrap();
    }
    match session.query(&statement, None).await {
        Ok(rows) => rows.stream.try_collect::<Vec<_>>().await.unwrap_err(),
        Err(e) => e,
    }
}

#[test]
fn what_runs_is_listed_and_kill_stops_it() {
    let db = with_table();
    let change = "INSERT INTO t SELECT a.k * 1000000 + b.k FROM t a, t b";
    for sql in [ENDLESS, change] {
        let running = db.runtime.spawn(failure(db.database.session(), sql));
        let id = wait_for(&db, sql);
        let row = db.rows(&format!("SELECT state, sql FROM omendb.queries WHERE query_id = {id}"));
        assert_eq!(row, [format!("running {sql}")]);
        db.execute(&format!("KILL QUERY {id}")).unwrap();
        let error = db.runtime.block_on(running).unwrap();
        assert_eq!(error.code(), Code::QueryCanceled, "{error}");
        assert!(error.message().contains("by request"), "{error}");
        assert!(listed(&db, sql).is_empty());
        let gone = db.execute(&format!("KILL {id}")).err().unwrap();
        assert!(gone.message().contains(&format!("no query {id}")), "{gone}");
    }
    assert_eq!(db.rows("SELECT COUNT(*) FROM t"), ["100000"]);
}

#[test]
fn the_time_limit_holds_for_changes_too() {
    let db = with_table();
    db.execute("SET statement_timeout = 30").unwrap();
    for sql in [ENDLESS, "INSERT INTO t SELECT a.k * 1000000 + b.k FROM t a, t b"] {
        let error = match sql == ENDLESS {
            true => db.query(sql).unwrap_err(),
            false => db.execute(sql).err().unwrap(),
        };
        assert_eq!(error.code(), Code::StatementTimeout, "{error}");
    }
    db.execute("RESET statement_timeout").unwrap();
    assert_eq!(db.rows("SELECT COUNT(*) FROM t"), ["100000"]);
    assert_eq!(db.database.queries().list().len(), 0);
}

#[test]
fn progress_counts_rows_against_what_the_index_says() {
    let db = with_table();
    let progress = |column: usize| -> f64 {
        let sql = "SELECT rows_to_read, rows_read, rows_returned, progress FROM omendb.queries WHERE sql LIKE 'SELECT k%'";
        let batch = db.query(sql).unwrap().remove(0);
        match column {
            3 => batch.column(3).as_primitive::<Float64Type>().value(0),
            _ => batch.column(column).as_primitive::<UInt64Type>().value(0) as f64,
        }
    };
    // By the fast path and planned.
    for (sql, rows) in [
        ("SELECT k FROM t WHERE k > 20000", 80_000.0),
        ("SELECT k + 0 FROM t WHERE k > 90000", 10_000.0),
    ] {
        let statement = db.prepare(sql).unwrap();
        let mut stream = db.runtime.block_on(db.session.query(&statement, None)).unwrap().stream;
        let first = db.runtime.block_on(stream.try_next()).unwrap().unwrap();
        assert_eq!(progress(0), rows, "{sql}");
        assert!(progress(1) >= first.num_rows() as f64, "{sql}");
        assert_eq!(progress(2), first.num_rows() as f64, "{sql}");
        let rest: Vec<_> = db.runtime.block_on(stream.by_ref().try_collect()).unwrap();
        assert_eq!(
            first.num_rows() + rest.iter().map(RecordBatch::num_rows).sum::<usize>(),
            rows as usize
        );
        assert_eq!((progress(1), progress(3)), (rows, 1.0), "{sql}");
        drop(stream);
    }
    assert_eq!(db.database.queries().list().len(), 0);
}

#[test]
fn a_load_can_be_killed_until_it_commits() {
    let db = with_table();
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(200_000..200_100));
    let batch = RecordBatch::try_from_iter([("k", column)]).unwrap();
    let request = IngestRequest {
        table: "t".into(),
        mode: IngestMode::Append,
        on_conflict: OnConflict::Error,
        schema: batch.schema(),
    };
    for late in [false, true] {
        let ingest = db.session.ingest(Within::Session, request.clone());
        let mut load = db.runtime.block_on(ingest).unwrap();
        load.push(&batch).unwrap();
        assert_eq!(listed(&db, "load into table"), [load.query().id()]);
        assert!(load.query().cancel());
        let error = match late {
            true => load.finish().err().unwrap(),
            false => load.push(&batch).err().unwrap(),
        };
        assert_eq!(error.code(), Code::QueryCanceled);
    }
    assert_eq!(db.rows("SELECT COUNT(*) FROM t"), ["100000"]);
}

#[test]
fn of_a_commit_and_a_stop_just_one_comes_first() {
    let queries = open_gate();
    let running = queries.begin(1, &Arc::from("app"), "x", None);
    let query = running.query();
    query.begin_commit().unwrap();
    assert!(!query.cancel());
    let refused = queries.cancel(query.id()).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidTransactionState);
    query.check().unwrap();
    query.begin_again();
    queries.cancel(query.id()).unwrap();
    queries.cancel(query.id()).unwrap();
    assert!(query.begin_commit().is_err() && query.check().is_err());
    assert!(!query.stop(Stop::TimedOut), "it was stopped before");
    query.begin_again();
    assert!(query.check().is_err(), "what was stopped does not run again");
}

#[test]
fn long_texts_are_listed_in_part() {
    let queries = open_gate();
    let running = queries.begin(1, &Arc::from(""), &"é".repeat(MAX_LISTED_BYTES), None);
    assert_eq!(running.query().sql().len(), MAX_LISTED_BYTES);
    let odd = queries.begin(1, &Arc::from(""), &format!("x{}", "é".repeat(MAX_LISTED_BYTES)), None);
    assert_eq!(odd.query().sql().len(), MAX_LISTED_BYTES - 1);
}
