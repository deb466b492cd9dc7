//! Who does not read, does not speak or asks for too much keeps nobody else from working.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use arrow_flight::FlightData;
use omendb::config::{Given, Time};
use tonic::{Code, Status, Streaming};

use crate::fixture::{Client, Server};

/// Rows whose number nobody lives to see.
const ENDLESS: &str =
    "SELECT a.value FROM generate_series(1, 1000000) AS a, generate_series(1, 1000000) AS b";

/// Begins a query, and does not read its rows to the end.
async fn half_read(client: &mut Client, sql: &str) -> Result<Streaming<FlightData>, Status> {
    let info = client.info(sql).await;
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut stream = client.flight.do_get(ticket).await?.into_inner();
    // The schema comes first, then rows.
    for _ in 0..2 {
        stream.message().await?;
    }
    Ok(stream)
}

async fn point_reads_answer(client: &mut Client) {
    let begun = Instant::now();
    for k in 0..20 {
        assert_eq!(client.number(&format!("SELECT k FROM t WHERE k = {k}")).await, k);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_nobody_reads_hold_no_threads() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.update("CREATE TABLE t (k BIGINT PRIMARY KEY, v TEXT)").await;
    client
        .update("INSERT INTO t SELECT value, repeat('x', 100) FROM generate_series(0, 199999)")
        .await;
    let mut held = Vec::new();
    let mut others = Vec::new();
    for _ in 0..8 {
        others.push(server.client_for_streams(75).await);
    }
    for i in 0..600 {
        let other = &mut others[i % 8];
        held.push(half_read(other, "SELECT * FROM t").await.unwrap());
    }
    point_reads_answer(&mut client).await;
    // Reads of many rows have what they need too, by the key and by plans.
    assert_eq!(client.query("SELECT k FROM t WHERE k < 5000").await.num_rows(), 5000);
    assert_eq!(client.number("SELECT COUNT(*) FROM t WHERE v LIKE 'x%'").await, 200_000);
    // Each goes on where it stopped.
    let mut stream = held.pop().unwrap();
    let mut messages = 0;
    while stream.message().await.unwrap().is_some() {
        messages += 1;
    }
    assert!(messages > 0);
    drop((stream, held, client));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_place_is_told_and_what_stops_others_gets_through() {
    let given = Given {
        max_statements: Some(2),
        queue_timeout: Some(Time(Duration::from_millis(300))),
        ..Given::default()
    };
    let server = Server::start_with(given).await;
    let mut client = server.client().await;
    client.update("CREATE TABLE t (k BIGINT PRIMARY KEY)").await;
    client.update("INSERT INTO t SELECT value FROM generate_series(0, 9999)").await;
    let _first = half_read(&mut client, ENDLESS).await.unwrap();
    let _second = half_read(&mut client, ENDLESS).await.unwrap();
    let refused = half_read(&mut client, "SELECT SUM(k) FROM t").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("max_statements"), "{refused}");
    let sqlstate = refused.metadata().get("x-omendb-sqlstate").unwrap();
    assert_eq!(sqlstate, "53300");
    point_reads_answer(&mut client).await;
    client.update("BEGIN").await;
    client.update("COMMIT").await;
    let id = "SELECT CAST(MIN(query_id) AS BIGINT) FROM omendb.queries";
    let id = client.number(id).await;
    client.update(&format!("KILL QUERY {id}")).await;
    // A result that is not read gives its place back at once.
    assert_eq!(client.number("SELECT CAST(SUM(k) AS BIGINT) FROM t").await, 49_995_000);
    drop((_first, _second, client));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_limit_are_refused_and_new_connections_still_work() {
    let given = Given { max_calls: Some(50), ..Given::default() };
    let server = Server::start_with(given).await;
    let mut client = server.client().await;
    client.update("CREATE TABLE t (k BIGINT PRIMARY KEY)").await;
    client.update("INSERT INTO t SELECT value FROM generate_series(0, 999999)").await;
    let info = client.info("SELECT * FROM t").await;
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(client.flight.do_get(ticket.clone()).await.unwrap().into_inner());
    }
    let refused = client.flight.do_get(ticket).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("max_calls"), "{refused}");
    let mut other = server.client().await;
    point_reads_answer(&mut other).await;
    drop((held, client, other));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_handshake_takes_no_place_for_long() {
    let given = Given { max_connections: Some(8), ..Given::default() };
    let server = Server::start_with(given).await;
    let address = server.running().address();
    let half = |_| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(b"P").unwrap();
        socket
    };
    let mut sockets: Vec<TcpStream> = (0..24).map(half).collect();
    let begun = Instant::now();
    let mut client = server.client().await;
    assert_eq!(client.number("SELECT CAST(1 AS BIGINT)").await, 1);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    // All of them are closed in the end, whether or not others need the place.
    let last = sockets.pop().unwrap();
    let closed = tokio::task::spawn_blocking(move || {
        last.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        (&last).read_to_end(&mut Vec::new())
    });
    let closed = closed.await.unwrap();
    let reset = std::io::ErrorKind::ConnectionReset;
    assert!(closed.as_ref().map_or_else(|e| e.kind() == reset, |_| true), "{closed:?}");
    drop((sockets, client));
    server.stop().await;
}
