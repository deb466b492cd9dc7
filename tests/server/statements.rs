//! Statements and prepared statements: what runs when, and how often.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, NullArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, Any, CommandPreparedStatementQuery,
    CommandStatementQuery, ProstMessageExt,
};
use arrow_flight::{FlightDescriptor, IpcMessage};
use omendb::flight::proto;
use prost::Message;
use tonic::Code;

use crate::fixture::{Client, Server};

async fn with_table() -> (Server, Client) {
    let server = Server::start().await;
    let mut client = server.client().await;
    assert_eq!(client.update("CREATE TABLE t (k BIGINT PRIMARY KEY, v TEXT)").await, -1);
    assert_eq!(client.update("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)").await, 3);
    (server, client)
}

fn descriptor(sql: &str) -> FlightDescriptor {
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

fn keys(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_runs_when_it_is_fetched() {
    let (server, mut client) = with_table().await;
    let info = client.info("SELECT k, v FROM t ORDER BY k").await;
    assert_eq!(info.total_records, -1);
    client.update("INSERT INTO t VALUES (4, 'd')").await;
    assert_eq!(keys(&client.fetch(&info).await), [1, 2, 3, 4]);
    // A ticket stands alone: it may be redeemed again, and on another connection.
    let mut other = server.client().await;
    assert_eq!(keys(&other.fetch(&info).await), [1, 2, 3, 4]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_run_exactly_once_at_flight_info() {
    let (server, mut client) = with_table().await;
    let insert = "INSERT INTO t VALUES (10, 'x'), (11, 'y')";
    // Neither preparing nor asking for the schema runs anything.
    client.sql.prepare(insert.to_owned(), None).await.unwrap();
    client.flight.get_schema(descriptor(insert)).await.unwrap();
    assert_eq!(client.number("SELECT COUNT(*) FROM t").await, 3);

    let info = client.info(insert).await;
    assert_eq!(info.total_records, 2);
    assert_eq!(info.endpoint.len(), 1);
    assert_eq!(client.number("SELECT COUNT(*) FROM t").await, 5);
    for _ in 0..2 {
        assert_eq!(client.fetch(&info).await.num_rows(), 0);
    }
    assert_eq!(client.number("SELECT COUNT(*) FROM t").await, 5);

    let delete = client.info("DELETE FROM t WHERE k >= 10").await;
    assert_eq!(delete.total_records, 2);
    let create = client.info("CREATE TABLE u (a BIGINT)").await;
    assert_eq!(create.total_records, -1);
    assert!(client.sql.execute("CREATE TABLE u (a BIGINT)".to_owned(), None).await.is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_poll_runs_a_statement_and_is_the_last() {
    let (server, mut client) = with_table().await;
    let poll =
        client.flight.poll_flight_info(descriptor("DELETE FROM t WHERE k = 1")).await.unwrap();
    let poll = poll.into_inner();
    assert_eq!(poll.flight_descriptor, None);
    assert_eq!(poll.info.unwrap().total_records, 1);
    assert_eq!(client.number("SELECT COUNT(*) FROM t").await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_returning_reach_the_client() {
    let (server, mut client) = with_table().await;
    let info = client.info("UPDATE t SET v = 'z' WHERE k <= 2 RETURNING k, v").await;
    assert_eq!(info.total_records, 2);
    for _ in 0..2 {
        let rows = client.fetch(&info).await;
        assert_eq!(rows.num_rows(), 2);
        assert!(rows.column(1).as_string::<i32>().iter().all(|v| v == Some("z")));
    }
    assert_eq!(client.number("SELECT COUNT(*) FROM t WHERE v = 'z'").await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_one_update() {
    let (server, mut client) = with_table().await;
    let script = "CREATE TABLE s (a BIGINT PRIMARY KEY); INSERT INTO s VALUES (1), (2); DELETE FROM s WHERE a = 1;";
    assert_eq!(client.update(script).await, 3);
    assert_eq!(client.number("SELECT COUNT(*) FROM s").await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_say_what_they_are() {
    let (server, mut client) = with_table().await;
    let mut prepare = async |sql: &str| {
        let request =
            ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let body = request.as_any().encode_to_vec();
        let [result] =
            client.action("CreatePreparedStatement", body).await.unwrap().try_into().unwrap();
        let any = Any::decode(&result[..]).unwrap();
        assert!(any.type_url.ends_with(".ActionCreatePreparedStatementResult"));
        proto::ActionCreatePreparedStatementResult::decode(any.value).unwrap()
    };
    let schema = |bytes: Vec<u8>| Schema::try_from(IpcMessage(bytes.into())).unwrap();

    let select = prepare("SELECT v FROM t WHERE k = ? AND v = ?").await;
    assert_eq!(select.is_update, Some(false));
    assert_eq!(schema(select.dataset_schema).field(0).name(), "v");
    let parameters = schema(select.parameter_schema);
    let types: Vec<_> = parameters.fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, [DataType::Int64, DataType::Utf8]);

    let insert = prepare("INSERT INTO t VALUES (?, ?)").await;
    assert_eq!((insert.is_update, insert.dataset_schema.len()), (Some(true), 0));
    assert_eq!(schema(insert.parameter_schema).fields().len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_bound_and_bound_again() {
    let (server, mut client) = with_table().await;
    let mut select = client
        .sql
        .prepare("SELECT k FROM t WHERE k >= ? ORDER BY k".to_owned(), None)
        .await
        .unwrap();
    for (bound, expected) in [(3, vec![3]), (2, vec![2, 3])] {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![bound]));
        select.set_parameters(RecordBatch::try_from_iter([("0", column)]).unwrap()).unwrap();
        let info = select.execute().await.unwrap();
        assert_eq!(keys(&client.fetch(&info).await), expected);
    }
    select.close().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_are_bound_at_once() {
    let (server, mut client) = with_table().await;
    let mut insert =
        client.sql.prepare("INSERT INTO t VALUES (?, ?)".to_owned(), None).await.unwrap();
    let columns: [(&str, ArrayRef); 2] = [
        ("0", Arc::new(Int64Array::from_iter_values(100..400))),
        ("1", Arc::new(NullArray::new(300))),
    ];
    insert.set_parameters(RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 300);
    assert_eq!(client.number("SELECT COUNT(*) FROM t WHERE v IS NULL").await, 301);

    let mut select =
        client.sql.prepare("SELECT v FROM t WHERE k = ?".to_owned(), None).await.unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![2, 1, 99, 2]));
    select.set_parameters(RecordBatch::try_from_iter([("0", column)]).unwrap()).unwrap();
    let info = select.execute().await.unwrap();
    let rows = client.fetch(&info).await;
    assert_eq!(rows.column(0).as_ref(), &StringArray::from(vec!["b", "a", "b"]) as &dyn Array);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_and_tickets_survive_a_restart() {
    let (server, mut client) = with_table().await;
    let mut select = client
        .sql
        .prepare("SELECT k FROM t WHERE k > ? ORDER BY k".to_owned(), None)
        .await
        .unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    select.set_parameters(RecordBatch::try_from_iter([("0", column)]).unwrap()).unwrap();
    let info = select.execute().await.unwrap();
    let handle = {
        // What the client holds after binding: the descriptor that it asked with.
        let any = Any::decode(info.flight_descriptor.clone().unwrap().cmd).unwrap();
        any.unpack::<CommandPreparedStatementQuery>().unwrap().unwrap()
    };
    let server = server.restart().await;
    let mut client = server.client().await;
    assert_eq!(keys(&client.fetch(&info).await), [2, 3]);
    let descriptor = FlightDescriptor::new_cmd(handle.as_any().encode_to_vec());
    let again = client.flight.get_flight_info(descriptor).await.unwrap().into_inner();
    assert_eq!(keys(&client.fetch(&again).await), [2, 3]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_codes_and_names() {
    let (server, mut client) = with_table().await;
    for (sql, code, name) in [
        ("SELECT * FROM missing", Code::NotFound, "missing"),
        ("SELECT nothing FROM t", Code::NotFound, "nothing"),
        ("SELEC 1", Code::InvalidArgument, ""),
        ("INSERT INTO t VALUES (1, 'again')", Code::AlreadyExists, "t"),
        ("CREATE TABLE t (a BIGINT)", Code::AlreadyExists, "t"),
        ("INSERT INTO t (v) VALUES ('no key')", Code::InvalidArgument, "k"),
    ] {
        let status = client.flight.get_flight_info(descriptor(sql)).await.unwrap_err();
        assert_eq!(status.code(), code, "{sql}: {}", status.message());
        assert!(status.message().contains(name), "{sql}: {}", status.message());
    }
    let with_transaction = client.sql.execute("SELECT 1".to_owned(), Some("id".into())).await;
    assert!(with_transaction.is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_redefined_after_flight_info_is_noticed() {
    let (server, mut client) = with_table().await;
    let info = client.info("SELECT * FROM t").await;
    client.update("ALTER TABLE t ADD COLUMN w BIGINT").await;
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let status = client.flight.do_get(ticket).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    server.stop().await;
}
