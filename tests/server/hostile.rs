//! Messages that no honest client sends: each is answered, and the server goes on.

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    Any, CommandStatementIngest, CommandStatementQuery, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use futures::TryStreamExt;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::fixture::{Client, Server, numbers, numbers_schema};

fn seed() -> u64 {
    let seed = std::env::var("OMENDB_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11);
    println!("seed {seed} (OMENDB_TEST_SEED)");
    seed
}

fn rounds(some: usize, many: usize) -> usize {
    let full = std::env::var("OMENDB_TEST_SCALE").is_ok_and(|v| v == "full");
    if full { many } else { some }
}

fn damage(bytes: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..5) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..3) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

async fn alive(client: &mut Client) {
    assert_eq!(client.number("SELECT CAST(7 AS BIGINT)").await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_loads_are_answered() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.update("CREATE TABLE t (k BIGINT PRIMARY KEY, v DOUBLE)").await;
    let mut rng = StdRng::seed_from_u64(seed());
    let command = CommandStatementIngest { table: "t".to_owned(), ..Default::default() };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let batch = numbers(0..20).with_schema(numbers_schema(&[])).unwrap();
    let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(futures::stream::iter([Ok(batch)]))
        .try_collect()
        .await
        .unwrap();
    for _ in 0..rounds(500, 20_000) {
        let mut messages = messages.clone();
        let at = rng.random_range(0..messages.len());
        let message = &mut messages[at];
        if rng.random_bool(0.7) {
            message.data_header = damage(&message.data_header, &mut rng).into();
        } else {
            message.data_body = damage(&message.data_body, &mut rng).into();
        }
        let answer = client.flight.do_put(futures::stream::iter(messages)).await;
        if let Ok(answer) = answer {
            let _ = answer.into_inner().message().await;
        }
    }
    alive(&mut client).await;
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_commands_tickets_and_actions_are_answered() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut rng = StdRng::seed_from_u64(seed());
    let command = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
    let command = command.as_any().encode_to_vec();
    let info = client.info("SELECT 1").await;
    let ticket = info.endpoint[0].ticket.clone().unwrap().ticket;
    for _ in 0..rounds(300, 20_000) {
        let descriptor = FlightDescriptor::new_cmd(damage(&command, &mut rng));
        let _ = client.flight.get_flight_info(descriptor).await;
        let ticket = Ticket { ticket: damage(&ticket, &mut rng).into() };
        if let Ok(stream) = client.flight.do_get(ticket).await {
            let _ = stream.into_inner().try_collect::<Vec<_>>().await;
        }
        let names = [
            "CreatePreparedStatement",
            "CancelFlightInfo",
            "SetSessionOptions",
            "omendb.TableStats",
        ];
        let name = names[rng.random_range(0..names.len())];
        let _ = client.action(name, damage(&command, &mut rng)).await;
    }
    alive(&mut client).await;
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_handles_are_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for handle in [Vec::new(), vec![0xFF; 40], b"SELECT 1".to_vec()] {
        let wrapped = TicketStatementQuery { statement_handle: handle.into() };
        let ticket = Ticket { ticket: wrapped.as_any().encode_to_vec().into() };
        assert!(client.flight.do_get(ticket).await.is_err());
    }
    let unknown =
        Any { type_url: "type.googleapis.com/what.ever".to_owned(), value: Default::default() };
    let descriptor = FlightDescriptor::new_cmd(unknown.encode_to_vec());
    assert!(client.flight.get_flight_info(descriptor).await.is_err());
    let paths = [vec![], vec!["a".to_owned(); 4], vec!["no such table".to_owned()]];
    for path in paths {
        assert!(client.flight.get_flight_info(FlightDescriptor::new_path(path)).await.is_err());
    }
    alive(&mut client).await;
    drop(client);
    server.stop().await;
}

/// What cannot be decoded is the client's fault, and no internal error.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_decoded_are_refused_as_such() {
    use arrow_flight::{Action, FlightInfo, PutResult};
    use tonic::codegen::http::uri::PathAndQuery;
    use tonic_prost::ProstCodec;
    let server = Server::start().await;
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    let path = |call: &str| -> PathAndQuery {
        format!("/arrow.flight.protocol.FlightService/{call}").parse().unwrap()
    };
    // The first field of these is no text.
    let wrong = || Action { r#type: "\u{7}\u{7}".to_owned(), body: Default::default() };
    let mut refused = Vec::new();
    for call in ["GetFlightInfo", "GetSchema"] {
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<Action, FlightInfo>::default();
        let request = tonic::Request::new(wrong());
        refused.push(grpc.unary(request, path(call), codec).await.unwrap_err());
    }
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<Action, PutResult>::default();
    let request = tonic::Request::new(futures::stream::iter([wrong()]));
    let answer = grpc.streaming(request, path("DoPut"), codec).await;
    refused.push(match answer {
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    });
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<FlightDescriptor, FlightData>::default();
    let request = tonic::Request::new(FlightDescriptor { r#type: 2, ..Default::default() });
    let answer = grpc.server_streaming(request, path("DoGet"), codec).await;
    refused.push(match answer {
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    });
    for status in refused {
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        assert_eq!(status.metadata().get("x-omendb-sqlstate").unwrap(), "08P01");
    }
    let mut client = server.client().await;
    alive(&mut client).await;
    drop((client, grpc));
    server.stop().await;
}
