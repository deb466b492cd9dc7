//! Statements that are polled, listed and cancelled, and rows that come by several endpoints or compressed.

use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow_flight::sql::{Any, CommandStatementQuery, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{CancelFlightInfoRequest, CancelFlightInfoResult, FlightDescriptor, FlightInfo};
use futures::TryStreamExt;
use omendb::flight::proto;
use omendb::flight::proto::session_option_value::OptionValue;
use prost::Message;
use tonic::Code;

use crate::fixture::{Client, Server};

/// More rows than a test waits for.
const ENDLESS: &str =
    "INSERT INTO big SELECT a.k * 10000000 + b.k, 0 FROM big a, big b, big c WHERE c.k < 100";

async fn with_rows() -> (Server, Client) {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.update("CREATE TABLE big (k BIGINT PRIMARY KEY, v BIGINT)").await;
    let rows = "INSERT INTO big SELECT value, value % 10 FROM generate_series(1, 100000)";
    client.update(rows).await;
    (server, client)
}

fn descriptor(sql: &str) -> FlightDescriptor {
    let query = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(query.as_any().encode_to_vec())
}

async fn set(client: &mut Client, name: &str, value: OptionValue) -> bool {
    let value = proto::SessionOptionValue { option_value: Some(value) };
    let request =
        proto::SetSessionOptionsRequest { session_options: [(name.to_owned(), value)].into() };
    let answer = client.action("SetSessionOptions", request.encode_to_vec()).await.unwrap();
    proto::SetSessionOptionsResult::decode(&answer[0][..]).unwrap().errors.is_empty()
}

/// The keys that each endpoint returns.
async fn keys(client: &mut Client, info: &FlightInfo) -> Vec<Vec<i64>> {
    let mut all = Vec::new();
    for endpoint in &info.endpoint {
        let stream = client.sql.do_get(endpoint.ticket.clone().unwrap()).await.unwrap();
        let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        all.push(
            batches
                .iter()
                .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
                .collect(),
        );
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_change_is_polled_to_its_end_and_runs_once() {
    let (server, mut client) = with_rows().await;
    let change = "INSERT INTO big SELECT a.k * 1000000 + b.k, 0 FROM big a, big b WHERE b.k <= 3 AND a.k <= 50000";
    let mut poll = client.flight.poll_flight_info(descriptor(change)).await.unwrap().into_inner();
    let mut polls = 1;
    while let Some(next) = poll.flight_descriptor {
        let info = poll.info.unwrap();
        assert!(info.endpoint.is_empty(), "nothing can be fetched yet");
        assert!(poll.progress.is_none_or(|p| (0.0..1.0).contains(&p)));
        assert!(poll.expiration_time.is_some());
        poll = client.flight.poll_flight_info(next.clone()).await.unwrap().into_inner();
        polls += 1;
        if poll.flight_descriptor.is_none() {
            // What was lost on the way can be asked for again.
            let again = client.flight.poll_flight_info(next).await.unwrap().into_inner();
            assert_eq!(again.info.unwrap().total_records, 150_000);
        }
    }
    let info = poll.info.unwrap();
    assert_eq!((info.total_records, poll.progress), (150_000, Some(1.0)), "after {polls} polls");
    assert_eq!(client.fetch(&info).await.num_rows(), 0);
    assert_eq!(client.number("SELECT COUNT(*) FROM big").await, 250_000);

    let refused = client.flight.poll_flight_info(descriptor(change)).await;
    let refused = match refused {
        Err(status) => status,
        Ok(poll) => {
            let mut next = poll.into_inner().flight_descriptor;
            loop {
                match client.flight.poll_flight_info(next.unwrap()).await {
                    Err(status) => break status,
                    Ok(poll) => next = poll.into_inner().flight_descriptor,
                }
            }
        }
    };
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polled_change_is_cancelled_by_its_flight_info() {
    let (server, mut client) = with_rows().await;
    let poll = client.flight.poll_flight_info(descriptor(ENDLESS)).await.unwrap().into_inner();
    let next = poll.flight_descriptor.expect("it is not done");
    let request = CancelFlightInfoRequest { info: poll.info };
    let cancel = client.action("CancelFlightInfo", request.encode_to_vec()).await.unwrap();
    let cancelled = CancelFlightInfoResult::decode(&cancel[0][..]).unwrap();
    assert_eq!(cancelled.status, arrow_flight::CancelStatus::Cancelled as i32);
    let ended = client.flight.poll_flight_info(next).await.unwrap_err();
    assert_eq!(ended.code(), Code::Cancelled, "{ended}");
    assert_eq!(client.number("SELECT COUNT(*) FROM big").await, 100_000);
    let made_up = proto::PollHandle { id: vec![7; 16] };
    let made_up = Any {
        type_url: "type.googleapis.com/omendb.flight.PollHandle".to_owned(),
        value: made_up.encode_to_vec().into(),
    };
    let made_up = FlightDescriptor::new_cmd(made_up.encode_to_vec());
    let unknown = client.flight.poll_flight_info(made_up).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_client_runs_is_listed_and_cancelled() {
    let (server, mut client) = with_rows().await;
    let mut other = server.client().await;
    let running = tokio::spawn(async move { other.sql.execute(ENDLESS.to_owned(), None).await });
    let listed = "SELECT CAST(query_id AS BIGINT) FROM omendb.queries WHERE sql LIKE 'INSERT INTO big SELECT a.k *%'";
    let id = loop {
        let rows = client.query(listed).await;
        if rows.num_rows() > 0 {
            break rows.column(0).as_primitive::<Int64Type>().value(0);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let request = proto::CancelQueryRequest { query_id: id as u64 };
    client.action("omendb.CancelQuery", request.encode_to_vec()).await.unwrap();
    assert!(running.await.unwrap().is_err());
    let gone = client.action("omendb.CancelQuery", request.encode_to_vec()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(client.query(listed).await.num_rows(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_endpoints_share_out_the_rows_of_one_snapshot() {
    let (server, mut client) = with_rows().await;
    assert!(set(&mut client, "endpoint_count", OptionValue::Int64Value(4)).await);
    for value in [OptionValue::Int64Value(0), OptionValue::StringValue("many".to_owned())] {
        assert!(!set(&mut client, "endpoint_count", value).await);
    }
    let mut other = server.client().await;
    for (sql, expected, descending) in [
        ("SELECT k FROM big", (1..=100_000).collect::<Vec<i64>>(), false),
        (
            "SELECT k, v + 1 FROM big WHERE k > 50000 ORDER BY k DESC",
            (50_001..=100_000).collect(),
            true,
        ),
        ("SELECT k FROM big WHERE v = 3", (1..=100_000).filter(|k| k % 10 == 3).collect(), false),
        (
            "SELECT k FROM big WHERE k < 500 OR k > 99000 AND k <= 99500",
            (1..500).chain(99_001..=99_500).collect(),
            false,
        ),
    ] {
        let info = client.info(sql).await;
        assert_eq!(info.endpoint.len(), 4, "{sql}");
        assert!(info.ordered && info.endpoint.iter().all(|e| e.expiration_time.is_some()));
        // All read what was there when they were made.
        other.update("DELETE FROM big").await;
        // Tickets stand alone: another connection redeems them.
        let mut parts = keys(&mut other, &info).await;
        if !sql.contains("ORDER BY") {
            // The parts are in order; the rows of each need not be.
            parts.iter_mut().for_each(|part| part.sort_unstable());
        }
        let share = expected.len() / 4;
        for part in &parts {
            assert!(part.len() > share / 2 && part.len() < share * 2, "{sql}: {}", part.len());
        }
        let mut all = parts.concat();
        if descending {
            all.reverse();
        }
        assert_eq!(all, expected, "{sql}");
        other
            .update("INSERT INTO big SELECT value, value % 10 FROM generate_series(1, 100000)")
            .await;
    }
    for whole in [
        "SELECT COUNT(*) FROM big",
        "SELECT k FROM big LIMIT 1000",
        "SELECT SUM(k) FROM big GROUP BY v",
        "SELECT 1",
    ] {
        assert_eq!(client.info(whole).await.endpoint.len(), 1, "{whole}");
    }
    // Repeating keys stay together, and the parts are as equal as their runs allow.
    other.update("CREATE TABLE runs (k BIGINT) CLUSTER BY (k)").await;
    other.update("INSERT INTO runs SELECT value / 100 FROM generate_series(0, 3999)").await;
    let info = client.info("SELECT k FROM runs").await;
    let parts = keys(&mut client, &info).await;
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1000; 4]);
    assert!(parts.windows(2).all(|pair| pair[0].last() < pair[1].first()));
    // The path of a table too.
    let path = FlightDescriptor::new_path(vec!["big".to_owned()]);
    let info = client.flight.get_flight_info(path).await.unwrap().into_inner();
    assert_eq!((info.endpoint.len(), info.total_records), (4, 100_000));
    assert_eq!(keys(&mut client, &info).await.concat().len(), 100_000);
    server.stop().await;
}

/// A ticket comes from a client: what it says of its text is believed no more than SET.
#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_means_what_it_did_where_it_was_made() {
    let (server, mut client) = with_rows().await;
    client.update("CREATE SCHEMA other").await;
    client.update("CREATE TABLE other.big (k BIGINT PRIMARY KEY)").await;
    let info = client.info("SELECT k FROM big WHERE k < 4").await;
    client.update("SET search_path = 'other'").await;
    assert_eq!(client.fetch(&info).await.num_rows(), 3);
    let there = client.info("SELECT COUNT(*) FROM big").await;
    let mut fresh = server.client().await;
    assert_eq!(fresh.fetch(&there).await.column(0).as_primitive::<Int64Type>().value(0), 0);

    let made_up = |meaning: proto::Meaning| {
        let ticket = there.endpoint[0].ticket.clone().unwrap();
        let wrapped = Any::decode(&*ticket.ticket).unwrap();
        let wrapped: TicketStatementQuery = wrapped.unpack().unwrap().unwrap();
        let mut inner = proto::Ticket::decode(&*wrapped.statement_handle).unwrap();
        inner.meaning = Some(meaning);
        let handle = inner.encode_to_vec().into();
        let wrapped = TicketStatementQuery { statement_handle: handle };
        arrow_flight::Ticket { ticket: wrapped.as_any().encode_to_vec().into() }
    };
    let meaning = |search_path: String, timezone: &str| proto::Meaning {
        search_path,
        timezone: timezone.to_owned(),
    };
    for (meaning, code) in [
        (meaning("x".repeat(1 << 10), "UTC"), Code::NotFound),
        (meaning("other".to_owned(), "Mars"), Code::InvalidArgument),
    ] {
        let refused = fresh.flight.do_get(made_up(meaning)).await.err().unwrap();
        assert_eq!(refused.code(), code, "{}", refused.code());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_compressed_on_request() {
    let (server, mut client) = with_rows().await;
    let sql = "SELECT k, v FROM big";
    let plain = client.query(sql).await;
    let mut sizes = Vec::new();
    for compression in ["none", "lz4", "zstd"] {
        let value = OptionValue::StringValue(compression.to_owned());
        assert!(set(&mut client, "compression", value).await);
        let info = client.info(sql).await;
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let mut stream = client.flight.do_get(ticket).await.unwrap().into_inner();
        let mut bytes = 0;
        while let Some(message) = stream.message().await.unwrap() {
            bytes += message.data_body.len();
        }
        sizes.push(bytes);
        assert_eq!(client.fetch(&info).await, plain, "{compression}");
    }
    assert!(sizes[1] < sizes[0] / 2 && sizes[2] < sizes[1], "{sizes:?}");
    assert!(!set(&mut client, "compression", OptionValue::StringValue("gzip".to_owned())).await);
    let empty = client.query("SELECT k FROM big WHERE k < 0").await;
    assert_eq!(empty, concat_batches(&empty.schema(), &[]).unwrap());
    server.stop().await;
}
