//! Changes under contention, and changes whose rows, or whose errors, must reach their clients.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{CommandStatementIngest, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::TryStreamExt;
use omendb::config::Given;
use prost::Message;
use tonic::Code;

use crate::fixture::{Client, Server};

#[tokio::test(flavor = "multi_thread")]
async fn statements_on_the_same_row_at_once_all_succeed() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.update("CREATE TABLE tally (k INT PRIMARY KEY, n BIGINT)").await;
    client.update("CREATE TABLE plain (k INT, n BIGINT)").await;
    client.update("INSERT INTO tally VALUES (2, 0)").await;
    client.update("INSERT INTO plain VALUES (1, 0)").await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let mut client = server.client().await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..15 {
                let upsert =
                    "INSERT INTO tally VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET n = tally.n + 1";
                assert_eq!(client.update(upsert).await, 1);
                let update = "UPDATE tally SET n = n + 1 WHERE k = 2 RETURNING n";
                assert_eq!(client.query(update).await.num_rows(), 1);
                client.update("UPDATE plain SET n = n + 1").await;
                client.update("DELETE FROM tally WHERE k = 3").await;
                client.update("INSERT INTO tally VALUES (3, 1) ON CONFLICT (k) DO NOTHING").await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(client.number("SELECT n FROM tally WHERE k = 1").await, 120);
    assert_eq!(client.number("SELECT n FROM tally WHERE k = 2").await, 120);
    assert_eq!(client.number("SELECT n FROM plain").await, 120);
    drop(client);
    server.stop().await;
}

/// A megabyte to keep rows in.
async fn with_little_room() -> (Server, Client) {
    let given = Given { memory: Some("16MiB".parse().unwrap()), ..Given::default() };
    let server = Server::start_with(given).await;
    let mut client = server.client().await;
    client.update("CREATE TABLE t (k BIGINT PRIMARY KEY, v TEXT)").await;
    let fill = "INSERT INTO t SELECT value, repeat('x', 1000) FROM generate_series(1, 3000)";
    assert_eq!(client.update(fill).await, 3000);
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_returning_that_cannot_be_kept_change_nothing() {
    let (server, mut client) = with_little_room().await;
    for change in ["DELETE FROM t RETURNING *", "UPDATE t SET k = k + 10000 RETURNING *"] {
        let refused = client.sql.execute(change.to_owned(), None).await.unwrap_err();
        assert!(refused.to_string().contains("no room to keep"), "{refused}");
        assert_eq!(client.number("SELECT count(*) FROM t WHERE k < 10000").await, 3000);
    }
    let insert = "INSERT INTO t SELECT k + 50000, v FROM t RETURNING *";
    assert!(client.sql.execute(insert.to_owned(), None).await.is_err());
    assert_eq!(client.number("SELECT count(*) FROM t").await, 3000);
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_returning_stay_until_they_are_fetched() {
    let (server, mut client) = with_little_room().await;
    let mut other = server.client().await;
    let first = client.info("DELETE FROM t WHERE k <= 400 RETURNING *").await;
    let second = "DELETE FROM t WHERE k BETWEEN 1001 AND 1400 RETURNING *".to_owned();
    // Some fit beside the first, and then no more.
    let refused = match other.sql.execute(second, None).await {
        Ok(info) => {
            assert!(info.total_records > 0);
            let more = "DELETE FROM t WHERE k BETWEEN 2001 AND 2800 RETURNING *".to_owned();
            other.sql.execute(more, None).await.unwrap_err()
        }
        Err(refused) => refused,
    };
    assert!(refused.to_string().contains("no room to keep"), "{refused}");
    assert_eq!(client.number("SELECT count(*) FROM t WHERE k BETWEEN 2001 AND 2800").await, 800);
    // What was promised to the first is there; once it was fetched, there is room for others.
    assert_eq!(client.fetch(&first).await.num_rows(), 400);
    let third = other.info("DELETE FROM t WHERE k BETWEEN 2001 AND 2400 RETURNING *").await;
    assert_eq!(other.fetch(&third).await.num_rows(), 400);
    drop((client, other));
    server.stop().await;
}

/// A load that breaks a rule is told which, and not that it was cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_fails_says_why() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.update("CREATE TABLE t (k BIGINT PRIMARY KEY, v DOUBLE NOT NULL)").await;
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("v", DataType::Float64, true),
    ]));
    let batches = (0..4_i64).map(|i| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![i])),
            Arc::new(Float64Array::from(vec![(i != 1).then_some(1.0)])),
        ];
        Ok(RecordBatch::try_new(schema.clone(), columns).unwrap())
    });
    let command = CommandStatementIngest { table: "t".to_owned(), ..Default::default() };
    let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())))
        .build(futures::stream::iter(batches.collect::<Vec<_>>()))
        .try_collect()
        .await
        .unwrap();
    for _ in 0..200 {
        // The stream stays open: the error comes while more is expected.
        let endless = futures::stream::iter(messages.clone());
        let endless = futures::StreamExt::chain(endless, futures::stream::pending());
        let error = match client.flight.do_put(endless).await {
            Ok(answer) => answer.into_inner().message().await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.message().contains("NOT NULL"), "{error}");
    }
    assert_eq!(client.number("SELECT count(*) FROM t").await, 0);
    drop(client);
    server.stop().await;
}

/// A column of a type of a fixed size would take as much in every row without a value.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_of_huge_fixed_sizes_is_refused_by_name() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("wide", DataType::FixedSizeBinary(i32::MAX), true),
    ]));
    let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_flight_descriptor(Some(FlightDescriptor::new_path(vec!["t".to_owned()])))
        .build(futures::stream::empty())
        .try_collect()
        .await
        .unwrap();
    let error = match client.flight.do_put(futures::stream::iter(messages)).await {
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.code(), Code::Unimplemented, "{error}");
    assert!(error.message().contains("\"wide\""), "{}", error.message());
    drop(client);
    server.stop().await;
}

/// Maintenance that fails is told in `omendb.tables`; here none does.
#[tokio::test(flavor = "multi_thread")]
async fn tables_tell_of_their_maintenance() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.update("CREATE TABLE t (k BIGINT PRIMARY KEY, t TIMESTAMP(0))").await;
    let far =
        "INSERT INTO t VALUES (1, arrow_cast(1152921504606846976, 'Timestamp(Second, None)'))";
    let refused = client.sql.execute_update(far.to_owned(), None).await.unwrap_err();
    assert!(refused.to_string().contains("row 1 of the rows"), "{refused}");
    let tables = client.query("SELECT maintenance_error FROM omendb.tables").await;
    assert_eq!((tables.num_rows(), tables.column(0).null_count()), (1, 1));
    drop(client);
    server.stop().await;
}
