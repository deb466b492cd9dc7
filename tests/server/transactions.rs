//! Transactions over the wire: by actions, as ADBC begins them, and by SQL, as JDBC must.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionEndSavepointRequest, Any,
    CommandStatementIngest, EndTransaction, ProstMessageExt, TableDefinitionOptions,
    TableExistsOption, TableNotExistOption,
};
use bytes::Bytes;
use futures::stream;
use prost::Message;
use tonic::Code;

use crate::fixture::{Client, Server, numbers};

async fn with_table() -> (Server, Client) {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.update("CREATE TABLE t (k BIGINT PRIMARY KEY, v DOUBLE)").await;
    client.update("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)").await;
    (server, client)
}

fn keys(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

const COUNT: &str = "SELECT COUNT(*) FROM t";

impl Client {
    async fn begin(&mut self) -> Bytes {
        self.sql.begin_transaction().await.unwrap()
    }

    async fn commit(&mut self, id: &Bytes) -> Result<(), String> {
        let ended = self.sql.end_transaction(id.clone(), EndTransaction::Commit).await;
        ended.map_err(|e| e.to_string())
    }

    async fn rollback(&mut self, id: &Bytes) {
        self.sql.end_transaction(id.clone(), EndTransaction::Rollback).await.unwrap();
    }

    async fn update_in(&mut self, id: &Bytes, sql: &str) -> Result<i64, String> {
        let updated = self.sql.execute_update(sql.to_owned(), Some(id.clone())).await;
        updated.map_err(|e| e.to_string())
    }

    async fn number_in(&mut self, id: &Bytes, sql: &str) -> i64 {
        let info = self.sql.execute(sql.to_owned(), Some(id.clone())).await.unwrap();
        keys(&self.fetch(&info).await)[0]
    }

    async fn try_update(&mut self, sql: &str) -> Result<i64, String> {
        self.sql.execute_update(sql.to_owned(), None).await.map_err(|e| e.to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_writes_are_seen_and_others_see_them_after_the_commit() {
    let (server, mut client) = with_table().await;
    let mut other = server.client().await;
    let id = client.begin().await;
    assert_eq!(client.update_in(&id, "INSERT INTO t VALUES (4, 4), (5, 5)").await, Ok(2));
    assert_eq!(client.update_in(&id, "DELETE FROM t WHERE k = 1").await, Ok(1));
    assert_eq!(client.number_in(&id, COUNT).await, 4);
    // By the key, too.
    assert_eq!(client.number_in(&id, "SELECT k FROM t WHERE k = 5").await, 5);
    assert_eq!(other.number(COUNT).await, 3);
    // The protocol: what names no transaction is committed by itself.
    assert_eq!(client.number(COUNT).await, 3);
    client.commit(&id).await.unwrap();
    assert_eq!(other.number(COUNT).await, 4);
    let again = client.commit(&id).await.unwrap_err();
    assert!(again.contains("committed already"), "{again}");

    let id = client.begin().await;
    client.update_in(&id, "CREATE TABLE u (a BIGINT); INSERT INTO u VALUES (1)").await.unwrap();
    assert_eq!(client.number_in(&id, "SELECT COUNT(*) FROM u").await, 1);
    assert!(other.sql.execute("SELECT * FROM u".to_owned(), None).await.is_err());
    client.rollback(&id).await;
    assert!(client.sql.execute("SELECT * FROM u".to_owned(), None).await.is_err());
    // Rolling back what is gone is no error: clients do it to get on.
    client.rollback(&id).await;
    client.rollback(&Bytes::from_static(b"never")).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_reads_one_state_from_its_first_statement() {
    let (server, mut client) = with_table().await;
    let mut other = server.client().await;
    let id = client.begin().await;
    // It pins nothing yet.
    other.update("INSERT INTO t VALUES (10, 10)").await;
    assert_eq!(client.number_in(&id, COUNT).await, 4);
    other.update("DELETE FROM t").await;
    assert_eq!(client.number_in(&id, COUNT).await, 4);
    // A ticket of the transaction reads what the transaction saw, after its end as well.
    let info = client.sql.execute("SELECT k FROM t ORDER BY k".to_owned(), Some(id.clone()));
    let info = info.await.unwrap();
    client.commit(&id).await.unwrap();
    assert_eq!(keys(&client.fetch(&info).await), [1, 2, 3, 10]);
    assert_eq!(keys(&other.fetch(&info).await), [1, 2, 3, 10]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_committer_wins() {
    let (server, mut client) = with_table().await;
    let mut other = server.client().await;
    let (one, two) = (client.begin().await, other.begin().await);
    client.update_in(&one, "UPDATE t SET v = v + 1 WHERE k = 1").await.unwrap();
    other.update_in(&two, "UPDATE t SET v = v + 10 WHERE k = 1").await.unwrap();
    client.commit(&one).await.unwrap();
    let lost = other.commit(&two).await.unwrap_err();
    assert!(lost.contains("retry"), "{lost}");
    // What fails to commit waits for the client to roll it back.
    let refused = other.update_in(&two, "DELETE FROM t").await.unwrap_err();
    assert!(refused.contains("rolled back"), "{refused}");
    other.rollback(&two).await;
    assert_eq!(other.number("SELECT CAST(v AS BIGINT) FROM t WHERE k = 1").await, 2);
    // The code says what to do.
    let id = other.begin().await;
    let mut third = server.client().await;
    other.update_in(&id, "INSERT INTO t VALUES (7, 7)").await.unwrap();
    third.update("INSERT INTO t VALUES (7, 70)").await;
    let request = arrow_flight::sql::ActionEndTransactionRequest {
        transaction_id: id,
        action: EndTransaction::Commit.into(),
    };
    let body = request.as_any().encode_to_vec();
    assert_eq!(other.action("EndTransaction", body).await.unwrap_err().code(), Code::Aborted);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_fails_the_transaction_and_savepoints_recover_it() {
    let (server, mut client) = with_table().await;
    client.update("BEGIN").await;
    client.update("INSERT INTO t VALUES (4, 4)").await;
    client.update("SAVEPOINT a").await;
    client.update("INSERT INTO t VALUES (5, 5)").await;
    // A query that fails changes nothing, and neither does what cannot be prepared.
    assert!(client.sql.prepare("INSERT INTO missing VALUES (1)".to_owned(), None).await.is_err());
    assert!(client.sql.execute("SELECT missing FROM t".to_owned(), None).await.is_err());
    client.update("INSERT INTO t VALUES (6, 6)").await;
    let duplicate = client.try_update("INSERT INTO t VALUES (60, 1), (4, 0)").await.unwrap_err();
    assert!(duplicate.contains("primary key"), "{duplicate}");
    for sql in ["INSERT INTO t VALUES (7, 7)", "SAVEPOINT b", "RELEASE a", "BEGIN"] {
        let refused = client.try_update(sql).await.unwrap_err();
        assert!(refused.contains("ROLLBACK") && refused.contains("primary key"), "{refused}");
    }
    assert!(client.sql.execute(COUNT.to_owned(), None).await.is_err());
    client.update("ROLLBACK TO SAVEPOINT a").await;
    assert_eq!(client.number(COUNT).await, 4);
    client.update("INSERT INTO t VALUES (8, 8)").await;
    client.update("RELEASE SAVEPOINT a").await;
    assert!(client.try_update("ROLLBACK TO a").await.is_err());
    client.update("COMMIT").await;
    assert_eq!(keys(&client.query("SELECT k FROM t ORDER BY k").await), [1, 2, 3, 4, 8]);

    // COMMIT of one that has failed says that nothing was committed.
    client.update("BEGIN; INSERT INTO t VALUES (9, 9)").await;
    client.try_update("INSERT INTO t VALUES (9, 9)").await.unwrap_err();
    let refused = client.try_update("COMMIT").await.unwrap_err();
    assert!(refused.contains("rolled back"), "{refused}");
    assert_eq!(client.number(COUNT).await, 5);
    client.update("INSERT INTO t VALUES (9, 9)").await;
    // Outside of a transaction, ending one does nothing.
    for sql in ["COMMIT", "ROLLBACK", "END"] {
        client.update(sql).await;
    }
    assert!(client.try_update("SAVEPOINT a").await.is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn savepoints_by_actions() {
    let (server, mut client) = with_table().await;
    let id = client.begin().await;
    let mut points = Vec::new();
    for k in [4, 5] {
        let request = ActionBeginSavepointRequest { transaction_id: id.clone(), name: "a".into() };
        let body = request.as_any().encode_to_vec();
        let [result] = client.action("BeginSavepoint", body).await.unwrap().try_into().unwrap();
        let any = Any::decode(&result[..]).unwrap();
        let result: ActionBeginSavepointResult = any.unpack().unwrap().unwrap();
        points.push(result.savepoint_id);
        client.update_in(&id, &format!("INSERT INTO t VALUES ({k}, 0)")).await.unwrap();
    }
    let end = |point: usize, action: i32| {
        ActionEndSavepointRequest { savepoint_id: points[point].clone(), action }
            .as_any()
            .encode_to_vec()
    };
    // Back to the second, which stays, and again; then to the first, which takes the second away.
    for (point, expected) in [(1, 4), (1, 4), (0, 3)] {
        client.action("EndSavepoint", end(point, 2)).await.unwrap();
        assert_eq!(client.number_in(&id, COUNT).await, expected);
    }
    assert_eq!(client.action("EndSavepoint", end(1, 2)).await.unwrap_err().code(), Code::NotFound);
    client.action("EndSavepoint", end(0, 1)).await.unwrap();
    client.update_in(&id, "INSERT INTO t VALUES (6, 0)").await.unwrap();
    client.commit(&id).await.unwrap();
    assert_eq!(client.number(COUNT).await, 4);
    server.stop().await;
}

fn ingest(mode: (TableNotExistOption, TableExistsOption)) -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: mode.0.into(),
            if_exists: mode.1.into(),
        }),
        table: "t".to_owned(),
        ..CommandStatementIngest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_joins_the_open_transaction() {
    let (server, mut client) = with_table().await;
    let append = || ingest((TableNotExistOption::Fail, TableExistsOption::Append));
    let batches = |keys: std::ops::Range<i64>| stream::iter([Ok(numbers(keys))]);
    let id = client.begin().await;
    client.update_in(&id, "DROP TABLE t").await.unwrap();
    let create = ingest((TableNotExistOption::Create, TableExistsOption::Fail));
    // More rows than a memtable takes at once: they go to segments.
    assert_eq!(client.sql.execute_ingest(create, batches(0..100_000)).await.unwrap(), 100_000);
    client.sql.execute_ingest(append(), batches(100_000..100_010)).await.unwrap();
    assert_eq!(client.number_in(&id, COUNT).await, 100_010);
    assert_eq!(server.client().await.number(COUNT).await, 3);
    client.rollback(&id).await;
    assert_eq!(client.number(COUNT).await, 3);

    // A load that fails leaves nothing of itself.
    let id = client.begin().await;
    client.update_in(&id, "INSERT INTO t VALUES (50, 0)").await.unwrap();
    let rows = stream::iter([Ok(numbers(200..300)), Ok(numbers(50..60))]);
    assert!(client.sql.execute_ingest(append(), rows).await.is_err());
    let failed = client.commit(&id).await.unwrap_err();
    assert!(failed.contains("primary key"), "{failed}");
    client.rollback(&id).await;
    assert_eq!(client.number(COUNT).await, 3);

    client.update("BEGIN").await;
    client.sql.execute_ingest(append(), batches(10..20)).await.unwrap();
    assert_eq!(client.number(COUNT).await, 13);
    client.update("COMMIT").await;
    assert_eq!(server.client().await.number(COUNT).await, 13);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_prepared_in_a_transaction_outlive_it() {
    let (server, mut client) = with_table().await;
    let id = client.begin().await;
    let mut insert = client
        .sql
        .prepare("INSERT INTO t SELECT max(k) + 1, 0 FROM t".to_owned(), Some(id.clone()))
        .await
        .unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 1);
    client.rollback(&id).await;
    assert_eq!(client.number(COUNT).await, 3);
    // In the next transaction of the session, and without one.
    let next = client.begin().await;
    assert_eq!(insert.execute_update().await.unwrap(), 1);
    assert_eq!(client.number(COUNT).await, 3);
    client.commit(&next).await.unwrap();
    assert_eq!(client.number(COUNT).await, 4);
    assert_eq!(insert.execute_update().await.unwrap(), 1);
    assert_eq!(client.number(COUNT).await, 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_a_transaction_or_says_begin() {
    let (server, mut client) = with_table().await;
    client
        .try_update("INSERT INTO t VALUES (4, 0); INSERT INTO t VALUES (1, 0)")
        .await
        .unwrap_err();
    assert_eq!(client.number(COUNT).await, 3);
    let script = "INSERT INTO t VALUES (4, 0); BEGIN; INSERT INTO t VALUES (5, 0); ROLLBACK; INSERT INTO t VALUES (6, 0)";
    assert_eq!(client.update(script).await, 3);
    assert_eq!(keys(&client.query("SELECT k FROM t ORDER BY k").await), [1, 2, 3, 4, 6]);
    // What a script begins and does not end stays open, unless it fails.
    client.update("BEGIN; DELETE FROM t").await;
    assert_eq!(client.number(COUNT).await, 0);
    client.update("ROLLBACK").await;
    client
        .try_update("BEGIN; DELETE FROM t; INSERT INTO t VALUES (1, 0), (1, 0)")
        .await
        .unwrap_err();
    assert_eq!(client.number(COUNT).await, 5);
    client.update("INSERT INTO t VALUES (7, 0)").await;
    assert_eq!(server.client().await.number(COUNT).await, 6);
    // Settings are part of it.
    client
        .update("SET search_path = 'public'; SET timezone = 'UTC'; DELETE FROM t WHERE k = 7")
        .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_rolls_back_and_is_never_silent() {
    let (server, mut client) = with_table().await;
    let id = client.begin().await;
    client.update_in(&id, "DELETE FROM t").await.unwrap();
    client.update("CREATE TABLE other (a BIGINT)").await;
    let prepared = client.sql.prepare("DELETE FROM t".to_owned(), Some(id.clone())).await.unwrap();
    drop(client);

    let mut client = server.client().await;
    assert_eq!(client.number(COUNT).await, 3);
    for result in
        [client.update_in(&id, "DELETE FROM t").await.map(|_| ()), client.commit(&id).await]
    {
        let gone = result.unwrap_err();
        assert!(gone.contains("not open"), "{gone}");
    }
    client.rollback(&id).await;
    drop(prepared);
    assert_eq!(client.number(COUNT).await, 3);

    // Closing the session rolls back as well.
    let id = client.begin().await;
    client.update_in(&id, "DELETE FROM t").await.unwrap();
    client.action("CloseSession", Vec::new()).await.unwrap();
    assert_eq!(client.number(COUNT).await, 3);
    assert!(client.commit(&id).await.is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_and_levels() {
    let (server, mut client) = with_table().await;
    client.update("START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ").await;
    assert_eq!(client.number(COUNT).await, 3);
    let refused = client.try_update("DELETE FROM t").await.unwrap_err();
    assert!(refused.contains("READ ONLY"), "{refused}");
    client.update("COMMIT AND CHAIN").await;
    assert!(client.try_update("DELETE FROM t").await.is_err());
    client.update("ROLLBACK").await;
    let refused = client.try_update("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap_err();
    assert!(refused.contains("SERIALIZABLE"), "{refused}");
    client.update("BEGIN; SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await;
    client.update("DELETE FROM t WHERE k = 1").await;
    client.update("END").await;
    assert_eq!(server.client().await.number(COUNT).await, 2);
    server.stop().await;
}
