//! Loads whose streams end in other ways than by the client's word: nothing of them is kept. The frames of HTTP/2 are written by
//! hand, since no client sends such.

use std::time::Duration;

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{CommandStatementIngest, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::TryStreamExt;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{Server, numbers, numbers_schema};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// The flag END_STREAM, on a frame of its own.
    Stream,
    /// The stream is reset with this code.
    Reset(u32),
    /// The connection is closed.
    Closed,
    /// END_STREAM in the middle of a message.
    Cut,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// The headers of a DoPut, as literals that nobody remembers (HPACK).
fn headers(authority: &str) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, value: &str) {
        out.push(u8::try_from(value.len()).unwrap());
        out.extend(value.as_bytes());
    }
    // :method POST and :scheme http are in the static table, as are the names of the next.
    let mut out = vec![0x83, 0x86, 0x04];
    text(&mut out, "/arrow.flight.protocol.FlightService/DoPut");
    out.push(0x01);
    text(&mut out, authority);
    out.extend([0x0f, 0x10]);
    text(&mut out, "application/grpc");
    out.push(0x00);
    text(&mut out, "te");
    text(&mut out, "trailers");
    out
}

async fn messages(table: &str) -> Vec<Vec<u8>> {
    let command = CommandStatementIngest { table: table.to_owned(), ..Default::default() };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let batches =
        (0..3).map(|i| Ok(numbers(i * 20..i * 20 + 20).with_schema(numbers_schema(&[])).unwrap()));
    let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(futures::stream::iter(batches.collect::<Vec<_>>()))
        .try_collect()
        .await
        .unwrap();
    let framed = |message: FlightData| {
        let bytes = message.encode_to_vec();
        let mut out = vec![0];
        out.extend((bytes.len() as u32).to_be_bytes());
        out.extend(bytes);
        out
    };
    messages.into_iter().map(framed).collect()
}

/// Sends a load of 60 rows that ends in some way.
async fn load(server: &Server, table: &str, end: End, pause: Duration) {
    let address = server.running().address();
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    socket.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let head = headers(&address.to_string());
    socket.write_all(&frame(HEADERS, END_HEADERS, 1, &head)).await.unwrap();
    let mut messages = messages(table).await;
    let last = messages.last_mut().unwrap();
    if end == End::Cut {
        last.truncate(last.len() - 3);
    }
    for message in &messages {
        socket.write_all(&frame(DATA, 0, 1, message)).await.unwrap();
    }
    tokio::time::sleep(pause).await;
    match end {
        End::Stream | End::Cut => {
            socket.write_all(&frame(DATA, END_STREAM, 1, &[])).await.unwrap();
        }
        End::Reset(code) => {
            socket.write_all(&frame(RST_STREAM, 0, 1, &code.to_be_bytes())).await.unwrap();
        }
        End::Closed => return,
    }
    // What the server says until it says nothing more.
    let mut answer = [0; 4096];
    let quiet = Duration::from_millis(400);
    while let Ok(Ok(1..)) = tokio::time::timeout(quiet, socket.read(&mut answer)).await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_committed_by_the_end_of_its_stream_alone() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let ends = [
        (End::Stream, 60),
        (End::Reset(0), 0), // NO_ERROR
        (End::Reset(8), 0), // CANCEL
        (End::Reset(2), 0), // INTERNAL_ERROR
        (End::Closed, 0),
        (End::Cut, 0),
    ];
    for (i, (end, count)) in ends.into_iter().enumerate() {
        for (j, pause) in [0, 200].into_iter().enumerate() {
            let table = format!("t{i}_{j}");
            client.update(&format!("CREATE TABLE {table} (k BIGINT PRIMARY KEY, v DOUBLE)")).await;
            load(&server, &table, end, Duration::from_millis(pause)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let found = client.number(&format!("SELECT count(*) FROM {table}")).await;
            assert_eq!(found, count, "{end:?} after {pause} ms");
        }
    }
    drop(client);
    server.stop().await;
}
