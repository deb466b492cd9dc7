//! Transactions of one session, without the wire.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::FutureExt;
use futures::future::join_all;

use super::Within;
use crate::engine::OnConflict;
use crate::sql::testing::TestDatabase;
use crate::sql::{ErrorKind, IngestMode, IngestRequest};

fn with_table() -> TestDatabase {
    let db = TestDatabase::new(TestDatabase::options());
    db.execute("CREATE TABLE t (k BIGINT PRIMARY KEY, v BIGINT)").unwrap();
    db.execute("INSERT INTO t VALUES (1, 10), (2, 20)").unwrap();
    db
}

fn count(db: &TestDatabase) -> String {
    db.rows("SELECT COUNT(*) FROM t").remove(0)
}

fn message(db: &TestDatabase, sql: &str) -> String {
    match db.execute(sql) {
        Ok(_) => panic!("{sql} is not refused"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn a_call_whose_caller_is_gone_leaves_nothing() {
    let db = with_table();
    db.execute("BEGIN").unwrap();
    db.execute("INSERT INTO t VALUES (3, 30)").unwrap();
    let insert = "INSERT INTO t SELECT value, 0 FROM generate_series(10, 60000)";
    let insert = db.prepare(insert).unwrap();
    let _inside = db.runtime.enter();
    // Begun, and dropped before it is done.
    assert!(db.session.execute(&insert, None).now_or_never().is_none());
    let refused = message(&db, "INSERT INTO t VALUES (4, 40)");
    assert!(refused.contains("gave the call up"), "{refused}");
    assert!(message(&db, "COMMIT").contains("rolled back"));
    assert_eq!(count(&db), "2");
}

#[test]
fn calls_at_the_same_time_take_turns() {
    let db = with_table();
    db.execute("BEGIN").unwrap();
    let statements: Vec<_> =
        (10..40).map(|k| db.prepare(&format!("INSERT INTO t VALUES ({k}, 0)")).unwrap()).collect();
    let calls = statements.iter().map(|statement| db.session.execute(statement, None));
    for result in db.runtime.block_on(join_all(calls)) {
        assert!(result.is_ok());
    }
    assert_eq!(count(&db), "32");
    db.execute("COMMIT").unwrap();
    assert_eq!(count(&db), "32");
}

#[test]
fn a_load_has_its_turn_while_it_lasts_and_readers_do_not_wait() {
    let db = with_table();
    db.execute("BEGIN").unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(100..200));
    let batch = RecordBatch::try_from_iter([("k", column)]).unwrap();
    let request = || IngestRequest {
        table: "t".into(),
        mode: IngestMode::Append,
        on_conflict: OnConflict::Error,
        schema: batch.schema(),
    };
    let mut load = db.ingest(request()).unwrap();
    load.push(&batch).unwrap();
    assert_eq!(count(&db), "2");
    let insert = db.prepare("INSERT INTO t VALUES (3, 30)").unwrap();
    db.runtime.block_on(async {
        let waiting = db.session.execute(&insert, None);
        let finished = tokio::task::spawn_blocking(move || load.finish());
        let (inserted, loaded) = futures::join!(waiting, finished);
        assert!(inserted.is_ok());
        assert_eq!(loaded.unwrap().unwrap().inserted_count, 100);
    });
    assert_eq!(count(&db), "103");
    db.execute("SAVEPOINT a").unwrap();
    // One that is dropped has failed, and leaves nothing of itself.
    let mut load = db.ingest(request()).unwrap();
    load.push(&batch).unwrap();
    drop(load);
    assert!(message(&db, "INSERT INTO t VALUES (4, 40)").contains("load"));
    db.execute("ROLLBACK TO a").unwrap();
    assert_eq!(count(&db), "103");
    db.execute("ROLLBACK").unwrap();
    assert_eq!(count(&db), "2");
}

#[test]
fn statements_see_the_definitions_of_their_transaction() {
    let db = with_table();
    let select = "SELECT * FROM t WHERE k = 1";
    assert_eq!(db.rows(select), ["1 10"]);
    db.execute("BEGIN").unwrap();
    db.execute("ALTER TABLE t ADD COLUMN w TEXT DEFAULT 'x'").unwrap();
    assert_eq!(db.rows(select), ["1 10 x"]);
    // Another session goes by its own definition, though both statements are kept by the same text.
    let other = db.database.session();
    let columns = |session: &crate::sql::Session| {
        let prepared = db.runtime.block_on(session.prepare(select)).unwrap();
        prepared.schema().fields().len()
    };
    assert_eq!((columns(&other), columns(&db.session)), (2, 3));
    db.execute("DROP TABLE t").unwrap();
    assert!(db.prepare(select).is_err());
    db.execute("ROLLBACK").unwrap();
    assert_eq!(db.rows(select), ["1 10"]);
    // Another definition with the same version is another definition.
    db.execute("ALTER TABLE t ADD COLUMN z BIGINT DEFAULT 5").unwrap();
    assert_eq!(db.rows(select), ["1 10 5"]);
}

#[test]
fn idle_transactions_go_and_those_that_hold_nothing_stay() {
    let db = with_table();
    db.execute("BEGIN").unwrap();
    let named = db.session.begin().unwrap();
    assert_eq!(db.session.reap(Duration::ZERO), 0);
    db.execute("INSERT INTO t VALUES (3, 30)").unwrap();
    let reading = db.session.pin(Within::Named(named)).unwrap().unwrap().reading();
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(db.session.reap(Duration::ZERO), 1, "the other is being read");
    drop(reading);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(db.session.reap(Duration::ZERO), 1);
    assert!(message(&db, "INSERT INTO t VALUES (4, 40)").contains("idle"));
    assert!(message(&db, "COMMIT").contains("idle"));
    // The client has noticed.
    db.execute("INSERT INTO t VALUES (5, 50)").unwrap();
    assert_eq!(db.rows("SELECT k FROM t ORDER BY k"), ["1", "2", "5"]);
    let lost = db.runtime.block_on(db.session.commit(named)).unwrap_err();
    assert!(lost.to_string().contains("idle"), "{lost}");
    db.session.rollback(named).unwrap();
    let ended = db.runtime.block_on(db.session.commit(named)).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::State);
}

#[test]
fn a_transaction_by_sql_that_the_server_lost_is_not_forgotten() {
    let db = with_table();
    db.session.lose_sql_transaction("the server started again");
    for sql in ["INSERT INTO t VALUES (3, 30)", "SAVEPOINT a"] {
        assert!(message(&db, sql).contains("started again"));
    }
    assert!(db.prepare("SELECT * FROM t").is_err());
    db.execute("BEGIN").unwrap();
    db.execute("INSERT INTO t VALUES (3, 30)").unwrap();
    db.execute("COMMIT").unwrap();
    assert_eq!(count(&db), "3");
    // What a closed session is asked for is refused.
    db.execute("BEGIN").unwrap();
    db.execute("DELETE FROM t").unwrap();
    db.session.close();
    assert!(message(&db, "DELETE FROM t").contains("closed"));
    let other = db.database.session();
    let select = db.runtime.block_on(other.prepare("SELECT k FROM t WHERE k > 2")).unwrap();
    assert!(db.runtime.block_on(other.query(&select, None)).is_ok());
    assert_eq!(db.database.engine().snapshot().tables()[0].row_count(), 3);
}
