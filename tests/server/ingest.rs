//! Loads: Flight SQL's bulk ingest and plain paths.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt, TryStreamExt};
use omendb::flight::proto::LoadResult;
use prost::Message;
use tonic::{Code, Status};

use crate::fixture::{Client, Server, numbers, numbers_schema};

fn command(
    table: &str,
    missing: TableNotExistOption,
    existing: TableExistsOption,
) -> FlightDescriptor {
    let command = CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: missing.into(),
            if_exists: existing.into(),
        }),
        table: table.to_owned(),
        ..CommandStatementIngest::default()
    };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

async fn encode(
    descriptor: FlightDescriptor,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) -> Vec<FlightData> {
    let batches = batches.into_iter().map(move |b| Ok(b.with_schema(schema.clone()).unwrap()));
    let stream = futures::stream::iter(batches.collect::<Vec<_>>());
    FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(stream)
        .try_collect()
        .await
        .unwrap()
}

async fn put(
    client: &mut Client,
    descriptor: FlightDescriptor,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    header: Option<(&'static str, &str)>,
) -> Result<LoadResult, Status> {
    let messages = encode(descriptor, schema, batches).await;
    let mut request = tonic::Request::new(futures::stream::iter(messages));
    if let Some((name, value)) = header {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let mut results = client.flight.do_put(request).await?.into_inner();
    let result = results.message().await?.unwrap();
    assert!(results.message().await?.is_none(), "one result");
    Ok(LoadResult::decode(result.app_metadata).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_modes_of_ingest() {
    use TableExistsOption as E;
    use TableNotExistOption as N;
    let server = Server::start().await;
    let mut client = server.client().await;
    let schema = || numbers_schema(&[("primary_key", "k")]);
    let mut go = async |missing, existing, keys| {
        put(&mut client, command("t", missing, existing), schema(), vec![numbers(keys)], None).await
    };
    assert_eq!(go(N::Fail, E::Append, 0..10).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(go(N::Create, E::Fail, 0..10).await.unwrap().record_count, 10);
    assert_eq!(go(N::Create, E::Fail, 0..10).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(go(N::Fail, E::Append, 10..20).await.unwrap().record_count, 10);
    assert_eq!(go(N::Create, E::Append, 20..30).await.unwrap().record_count, 10);
    assert_eq!(go(N::Create, E::Append, 25..40).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(client.number("SELECT COUNT(*) FROM t").await, 30);
    let mut go = async |missing, existing, keys| {
        put(&mut client, command("t", missing, existing), schema(), vec![numbers(keys)], None).await
    };
    assert_eq!(go(N::Create, E::Replace, 5..10).await.unwrap().record_count, 5);
    assert_eq!(client.number("SELECT COUNT(*) FROM t").await, 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conflict_policy_comes_from_metadata_or_a_header() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let path = || FlightDescriptor::new_path(vec!["t".to_owned()]);
    let keyed = numbers_schema(&[("primary_key", "k")]);
    put(&mut client, path(), keyed, vec![numbers(0..100)], None).await.unwrap();

    let ignore = numbers_schema(&[("on_conflict", "ignore")]);
    let result = put(&mut client, path(), ignore, vec![numbers(90..110)], None).await.unwrap();
    assert_eq!((result.record_count, result.ignored_count), (10, 10));
    let header = Some(("x-omendb-on-conflict", "replace"));
    let result =
        put(&mut client, path(), numbers_schema(&[]), vec![numbers(0..5)], header).await.unwrap();
    assert_eq!(result.replaced_count, 5);
    let header = Some(("x-omendb-on-conflict", "overwrite"));
    let refused = put(&mut client, path(), numbers_schema(&[]), vec![numbers(0..5)], header).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(client.number("SELECT COUNT(*) FROM t").await, 110);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_load_says_what_it_made_and_comes_back_in_order() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let path = FlightDescriptor::new_path(vec!["public".to_owned(), "big".to_owned()]);
    let batches = (0..10).map(|i| numbers(i * 100_000..(i + 1) * 100_000)).collect();
    let keyed = numbers_schema(&[("primary_key", "k")]);
    let result = put(&mut client, path.clone(), keyed, batches, None).await.unwrap();
    assert_eq!(result.record_count, 1_000_000);
    assert!(result.segment_count >= 1, "a load of a million rows goes to segments");

    let info = client.flight.get_flight_info(path.clone()).await.unwrap().into_inner();
    assert_eq!(info.total_records, 1_000_000);
    let rows = client.fetch(&info).await;
    assert_eq!(rows.column(0), numbers(0..1_000_000).column(0));
    let schema = client.flight.get_schema(path).await.unwrap().into_inner();
    assert_eq!(schema.schema, info.schema);

    let flights: Vec<_> = client
        .flight
        .list_flights(arrow_flight::Criteria::default())
        .await
        .unwrap()
        .into_inner()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(flights.len(), 1);
    assert_eq!(flights[0].flight_descriptor.as_ref().unwrap().path, ["public", "big"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_breaks_leaves_nothing() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let keyed = numbers_schema(&[("primary_key", "k")]);
    let path = FlightDescriptor::new_path(vec!["t".to_owned()]);
    let batches = (0..5).map(|i| numbers(i * 50_000..(i + 1) * 50_000)).collect();
    let messages = encode(path.clone(), keyed.clone(), batches).await;
    // The client sends some and then goes away.
    let endless = futures::stream::iter(messages).chain(futures::stream::pending());
    let call = client.flight.do_put(endless);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(500), call).await.is_err());
    // A duplicate at the very end.
    let batches = vec![numbers(0..200_000), numbers(199_999..200_001)];
    let status = put(&mut client, path, keyed, batches, None).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().contains("199999"), "{}", status.message());
    assert!(
        client.sql.execute("SELECT * FROM t".to_owned(), None).await.is_err(),
        "no table is left"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_descriptor_gets_advice() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let call = client.flight.do_put(futures::stream::iter([FlightData::default()])).await;
    let status = call.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("at least one batch"), "{}", status.message());
    server.stop().await;
}
