//! Errors as clients see them: a gRPC status that says what to do, and a SQLSTATE that says what is wrong.

use arrow_flight::Ticket;
use arrow_flight::sql::{Any, CommandStatementIngest, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Code, Status};

use crate::fixture::{Client, Server};

const SQLSTATE: &str = "x-omendb-sqlstate";

fn sqlstate(status: &Status) -> &str {
    status.metadata().get(SQLSTATE).and_then(|v| v.to_str().ok()).unwrap_or("none")
}

/// The error of a statement, wherever it comes: with its FlightInfo, or with its rows.
async fn error(client: &mut Client, sql: &str) -> Status {
    let command =
        arrow_flight::sql::CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let info = match client.flight.get_flight_info(descriptor).await {
        Ok(info) => info.into_inner(),
        Err(status) => return status,
    };
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let stream = match client.flight.do_get(ticket).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return status,
    };
    stream.try_collect::<Vec<_>>().await.expect_err(sql)
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_fail_with_a_status_and_a_sqlstate() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.update("CREATE TABLE t (k BIGINT PRIMARY KEY, v TEXT NOT NULL)").await;
    client.update("INSERT INTO t VALUES (1, 'a')").await;
    let long = format!("SELECT '{}'", "x".repeat(2 << 20));
    for (sql, state, code) in [
        ("SELEC 1", "42601", Code::InvalidArgument),
        ("SELECT * FROM missing", "42P01", Code::NotFound),
        ("SELECT missing FROM t", "42703", Code::NotFound),
        ("SELECT k FROM t a JOIN t b ON a.k = b.k", "42702", Code::InvalidArgument),
        ("INSERT INTO t VALUES (1, 'b')", "23505", Code::AlreadyExists),
        ("INSERT INTO t VALUES (2, NULL)", "23502", Code::InvalidArgument),
        ("INSERT INTO t VALUES ('x', 'b')", "22P02", Code::InvalidArgument),
        ("SELECT k / 0 FROM t", "22012", Code::InvalidArgument),
        ("CREATE TABLE t (k BIGINT PRIMARY KEY)", "42P07", Code::AlreadyExists),
        ("CREATE TABLE missing.t (k BIGINT PRIMARY KEY)", "3F000", Code::NotFound),
        ("ALTER TABLE t ADD COLUMN v TEXT", "42701", Code::AlreadyExists),
        ("CREATE SCHEMA public", "42P06", Code::AlreadyExists),
        ("SHOW no_such_setting", "42704", Code::InvalidArgument),
        ("SAVEPOINT a", "25P01", Code::FailedPrecondition),
        ("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/'", "0A000", Code::Unimplemented),
        ("KILL QUERY 999999", "26000", Code::NotFound),
        (long.as_str(), "54000", Code::ResourceExhausted),
    ] {
        let status = error(&mut client, sql).await;
        let shown = &sql[..sql.len().min(60)];
        assert_eq!((sqlstate(&status), status.code()), (state, code), "{shown}: {status}");
    }
    server.stop().await;
}

/// What is wrong with a call, and not with a statement, has a SQLSTATE too.
#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_with_a_sqlstate() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let ticket = Ticket::new(b"no ticket".to_vec());
    let status = client.flight.do_get(ticket).await.expect_err("a ticket of nobody");
    assert_eq!((sqlstate(&status), status.code()), ("08P01", Code::InvalidArgument), "{status}");
    let ticket = TicketStatementQuery { statement_handle: vec![1, 2, 3].into() };
    let ticket = Ticket::new(Any::pack(&ticket).unwrap().encode_to_vec());
    let status = client.flight.do_get(ticket).await.expect_err("a handle of nobody");
    assert_eq!(sqlstate(&status), "08P01", "{status}");
    let command = CommandStatementIngest {
        table: "t".into(),
        temporary: true,
        ..CommandStatementIngest::default()
    };
    let data = FlightData {
        flight_descriptor: Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())),
        ..FlightData::default()
    };
    let put = client.flight.do_put(futures::stream::iter([data]).boxed()).await;
    let status = match put {
        Err(status) => status,
        Ok(answer) => answer.into_inner().try_collect::<Vec<_>>().await.expect_err("temporary"),
    };
    assert_eq!((sqlstate(&status), status.code()), ("0A000", Code::Unimplemented), "{status}");
    server.stop().await;
}
