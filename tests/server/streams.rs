//! Streams that are dropped, connections that say nothing, and the end of a server.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use omendb::config::{Given, Settings};
use omendb::server::{Error, Running};
use tonic::Code;

use crate::fixture::{Server, numbers};

/// Waits until `done`, for so long that only a hang fails.
async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_stops_its_work() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let endless =
        "SELECT a.value FROM generate_series(1, 1000000) AS a, generate_series(1, 1000000) AS b";
    for _ in 0..20 {
        let info = client.info(endless).await;
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let mut stream = client.flight.do_get(ticket).await.unwrap().into_inner();
        for _ in 0..3 {
            stream.message().await.unwrap().unwrap();
        }
    }
    // What is dropped gives its threads and its processor back: the server ends without waiting for anything.
    let stopped = tokio::time::timeout(Duration::from_secs(25), server.stop()).await;
    assert!(stopped.is_ok(), "calls still run");
    eventually("threads remain", async || thread_count() < 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_holds_for_the_whole_stream() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let info = client
        .info("SELECT a.value FROM generate_series(1, 1000000) AS a, generate_series(1, 1000000) AS b")
        .await;
    let mut request = tonic::Request::new(info.endpoint[0].ticket.clone().unwrap());
    // By hand: tonic's own client would end the call itself.
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let mut stream = match client.flight.do_get(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => panic!("{status}"),
    };
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an unfinished stream must not end as if it were complete"),
            Err(status) => break status,
        }
    };
    assert!(matches!(ended.code(), Code::DeadlineExceeded | Code::Cancelled), "{ended}");
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_keep_others_out() {
    let server = Server::start().await;
    let address = server.running().address();
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut client = server.client().await;
    assert_eq!(client.number("SELECT CAST(1 AS BIGINT)").await, 1);
    // They are closed in the end.
    let mut first = silent.into_iter().next().unwrap();
    first.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        first.read_to_end(&mut bytes)
    });
    let read = read.await.unwrap();
    assert!(
        read.is_ok()
            || read.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
        "{read:?}"
    );
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.update("CREATE TABLE t (k BIGINT PRIMARY KEY, v DOUBLE)").await;
    client.update("INSERT INTO t VALUES (1, 0.5), (2, 1)").await;
    drop(client);
    let server = server.restart().await;
    let mut client = server.client().await;
    let rows = client.query("SELECT * FROM t ORDER BY k").await;
    assert_eq!(rows.column(1), numbers(1..3).column(1));
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_refused_by_name() {
    let server = Server::start().await;
    let settings = |dir: &std::path::Path, listen: String| {
        let given =
            Given { data_dir: Some(dir.to_owned()), listen: Some(listen), ..Given::default() };
        Settings::resolve(&[given])
    };
    let same_dir = settings(&server.dir.path().join("data"), "127.0.0.1:0".to_owned());
    let refused = Running::start(same_dir).await.unwrap_err().to_string();
    assert!(refused.contains("data"), "{refused}");
    let other = Arc::new(tempfile::tempdir().unwrap());
    let busy = server.running().address().to_string();
    let refused = Running::start(settings(other.path(), busy.clone())).await.unwrap_err();
    assert!(matches!(&refused, Error::Busy(address) if *address == busy), "{refused}");
    // The refused one has let its directory go.
    let exposed = Running::start(settings(other.path(), "0.0.0.0:0".to_owned())).await.unwrap_err();
    assert!(matches!(exposed, Error::Exposed(_)), "{exposed}");
    Running::start(settings(other.path(), "127.0.0.1:0".to_owned()))
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    server.stop().await;
}
