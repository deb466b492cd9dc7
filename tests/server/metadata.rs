//! The catalog, the server's own description, sessions and actions.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Schema, UInt32Type};
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo,
};
use arrow_flight::{CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, IpcMessage};
use futures::TryStreamExt;
use omendb::flight::proto;
use prost::Message;
use tonic::Code;

use crate::fixture::{Client, Server};

async fn with_tables() -> (Server, Client) {
    let server = Server::start().await;
    let mut client = server.client().await;
    for sql in [
        "CREATE TABLE metrics (ts BIGINT, host TEXT, value DOUBLE, PRIMARY KEY (ts, host))",
        "CREATE TABLE \"Odd_Name\" (a BIGINT)",
        "CREATE SCHEMA other",
        "CREATE TABLE other.metrics (x BIGINT PRIMARY KEY)",
        "CREATE VIEW recent AS SELECT ts, value FROM metrics WHERE ts > 10",
    ] {
        client.update(sql).await;
    }
    (server, client)
}

fn strings(column: &dyn Array) -> Vec<String> {
    column.as_string::<i32>().iter().map(|v| v.unwrap_or("-").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn catalogs_schemas_and_table_types() {
    let (server, mut client) = with_tables().await;
    let info = client.sql.get_catalogs().await.unwrap();
    assert_eq!(strings(client.fetch(&info).await.column(0)), ["omendb"]);
    let info = client.sql.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    assert_eq!(strings(client.fetch(&info).await.column(1)), ["other", "public"]);
    let filtered = CommandGetDbSchemas {
        catalog: Some("omendb".to_owned()),
        db_schema_filter_pattern: Some("p%".to_owned()),
    };
    let info = client.sql.get_db_schemas(filtered).await.unwrap();
    assert_eq!(strings(client.fetch(&info).await.column(1)), ["public"]);
    let info = client.sql.get_table_types().await.unwrap();
    assert_eq!(strings(client.fetch(&info).await.column(0)), ["TABLE", "VIEW"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_with_and_without_schemas() {
    let (server, mut client) = with_tables().await;
    let mut list = async |request: CommandGetTables| {
        let info = client.sql.get_tables(request).await.unwrap();
        client.fetch(&info).await
    };
    let all = list(CommandGetTables::default()).await;
    assert_eq!(all.num_columns(), 4);
    assert_eq!(strings(all.column(2)), ["metrics", "Odd_Name", "metrics", "recent"]);
    let pattern = |p: &str| CommandGetTables {
        table_name_filter_pattern: Some(p.to_owned()),
        ..Default::default()
    };
    assert_eq!(strings(list(pattern("Odd\\_%")).await.column(2)), ["Odd_Name"]);
    assert_eq!(list(pattern("SELECT * FROM metrics WHERE host LIKE '%x%'")).await.num_rows(), 0);
    let views = CommandGetTables {
        table_types: vec!["view".to_owned()],
        include_schema: true,
        ..Default::default()
    };
    let views = list(views).await;
    assert_eq!(strings(views.column(2)), ["recent"]);
    assert_eq!(views.num_columns(), 5);
    let absent = CommandGetTables { catalog: Some("another".to_owned()), ..Default::default() };
    assert_eq!(list(absent).await.num_rows(), 0);

    let one = CommandGetTables {
        db_schema_filter_pattern: Some("public".to_owned()),
        include_schema: true,
        ..pattern("metrics")
    };
    let one = list(one).await;
    let bytes = one.column(4).as_binary::<i32>().value(0).to_vec();
    let schema = Schema::try_from(IpcMessage(bytes.into())).unwrap();
    let described: Vec<_> = schema
        .fields()
        .iter()
        .map(|f| {
            (
                f.name().as_str(),
                f.is_nullable(),
                f.metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        described,
        [("ts", false, "BIGINT"), ("host", false, "TEXT"), ("value", true, "DOUBLE PRECISION")]
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys() {
    let (server, mut client) = with_tables().await;
    let request = CommandGetPrimaryKeys {
        catalog: None,
        db_schema: Some("public".to_owned()),
        table: "metrics".to_owned(),
    };
    let info = client.sql.get_primary_keys(request).await.unwrap();
    let keys = client.fetch(&info).await;
    assert_eq!(strings(keys.column(3)), ["ts", "host"]);
    assert_eq!(keys.column(4).as_primitive::<Int32Type>().values(), &[1, 2]);
    let exported = CommandGetExportedKeys { table: "metrics".to_owned(), ..Default::default() };
    let imported = CommandGetImportedKeys { table: "metrics".to_owned(), ..Default::default() };
    for info in [
        client.sql.get_exported_keys(exported).await.unwrap(),
        client.sql.get_imported_keys(imported).await.unwrap(),
        client.sql.get_cross_reference(CommandGetCrossReference::default()).await.unwrap(),
    ] {
        let rows = client.fetch(&info).await;
        assert_eq!((rows.num_rows(), rows.num_columns()), (0, 13));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_describes_itself() {
    let (server, mut client) = with_tables().await;
    let info = client.sql.get_sql_info(Vec::new()).await.unwrap();
    let all = client.fetch(&info).await;
    assert!(all.num_rows() > 80);
    assert_eq!(all.column(0).as_primitive::<UInt32Type>().value(0), 0);
    let name = all.column(1).as_union().value(0);
    assert_eq!(strings(&name), ["OmenDB"]);
    let info = client
        .sql
        .get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: Some(-5) })
        .await
        .unwrap();
    assert_eq!(strings(client.fetch(&info).await.column(0)), ["BIGINT", "BIGINT UNSIGNED"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_named_by_token_cookie_or_connection() {
    let (server, mut client) = with_tables().await;
    client.sql.handshake("user", "password").await.unwrap();
    assert!(client.sql.token().is_some());
    client.info("SELECT 1").await;

    // Options belong to the session: another connection does not see them.
    let value = proto::session_option_value::OptionValue::BoolValue(true);
    let request = proto::SetSessionOptionsRequest {
        session_options: [
            ("native_types".to_owned(), proto::SessionOptionValue { option_value: Some(value) }),
            ("colour".to_owned(), proto::SessionOptionValue::default()),
        ]
        .into(),
    };
    // A token of no session is refused.
    let forged = client.sql.token().unwrap().replace(char::is_numeric, "0");
    client.sql.set_token(forged);
    assert!(client.sql.execute("SELECT 1".to_owned(), None).await.is_err());
    let mut plain = server.client().await;
    let [result] = plain
        .action("SetSessionOptions", request.encode_to_vec())
        .await
        .unwrap()
        .try_into()
        .unwrap();
    let result = proto::SetSessionOptionsResult::decode(&result[..]).unwrap();
    assert_eq!(result.errors.keys().collect::<Vec<_>>(), ["colour"]);
    let native = async |client: &mut Client| {
        let [options] =
            client.action("GetSessionOptions", Vec::new()).await.unwrap().try_into().unwrap();
        let options = proto::GetSessionOptionsResult::decode(&options[..]).unwrap();
        options.session_options["native_types"].option_value.clone().unwrap()
    };
    use proto::session_option_value::OptionValue::BoolValue;
    assert_eq!(native(&mut plain).await, BoolValue(true));
    assert_eq!(native(&mut server.client().await).await, BoolValue(false));

    // A cookie takes a session to another connection.
    let mut first = server.client().await;
    let listed = first.flight.list_flights(arrow_flight::Criteria::default()).await.unwrap();
    let cookie = listed.metadata().get("set-cookie").unwrap().to_str().unwrap().to_owned();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    first.action("SetSessionOptions", request.encode_to_vec()).await.unwrap();
    let mut second = server.client().await;
    let mut action = tonic::Request::new(arrow_flight::Action {
        r#type: "GetSessionOptions".into(),
        body: Default::default(),
    });
    action.metadata_mut().insert("cookie", cookie.parse().unwrap());
    let response = second.flight.do_action(action).await.unwrap();
    assert!(response.metadata().get("set-cookie").is_none());
    let results: Vec<_> = response.into_inner().try_collect().await.unwrap();
    let options = proto::GetSessionOptionsResult::decode(&results[0].body[..]).unwrap();
    assert_eq!(options.session_options["native_types"].option_value, Some(BoolValue(true)));
    plain.action("CloseSession", Vec::new()).await.unwrap();
    assert_eq!(native(&mut plain).await, BoolValue(false));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_of_administrators() {
    let (server, mut client) = with_tables().await;
    client.update("INSERT INTO other.metrics SELECT * FROM generate_series(1, 1000)").await;
    let listed: Vec<_> = client
        .flight
        .list_actions(arrow_flight::Empty {})
        .await
        .unwrap()
        .into_inner()
        .map_ok(|a| a.r#type)
        .try_collect()
        .await
        .unwrap();
    let table = || "other.metrics".to_owned();
    for (name, body) in [
        ("omendb.Flush", proto::FlushRequest { table: table() }.encode_to_vec()),
        ("omendb.Flush", proto::FlushRequest::default().encode_to_vec()),
        ("omendb.Compact", proto::CompactRequest { table: table() }.encode_to_vec()),
        ("omendb.Retrain", proto::RetrainRequest { table: table() }.encode_to_vec()),
    ] {
        assert!(listed.contains(&name.to_owned()));
        assert_eq!(client.action(name, body).await.unwrap().len(), 1, "{name}");
    }
    let request = proto::TableStatsRequest { table: table() }.encode_to_vec();
    let [stats] = client.action("omendb.TableStats", request).await.unwrap().try_into().unwrap();
    let stats = proto::TableStatsResult::decode(&stats[..]).unwrap();
    assert_eq!(stats.row_count, 1000);
    assert_eq!(stats.segments.iter().map(|s| s.row_count).sum::<u64>(), 1000);
    let request = proto::TableStatsRequest { table: "missing".to_owned() }.encode_to_vec();
    let status = client.action("omendb.TableStats", request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("missing"));
    assert_eq!(
        client.action("omendb.Explode", Vec::new()).await.unwrap_err().code(),
        Code::Unimplemented
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_be_cancelled() {
    let (server, mut client) = with_tables().await;
    let endless =
        "SELECT a.value FROM generate_series(1, 1000000) AS a, generate_series(1, 1000000) AS b";
    let info = client.info(endless).await;
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut stream = client.flight.do_get(ticket).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let request = CancelFlightInfoRequest { info: Some(info) };
    let [result] = client
        .action("CancelFlightInfo", request.encode_to_vec())
        .await
        .unwrap()
        .try_into()
        .unwrap();
    let result = CancelFlightInfoResult::decode(&result[..]).unwrap();
    assert_eq!(result.status(), CancelStatus::Cancelled);
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a cancelled stream must not end as if it were complete"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Cancelled);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_served() {
    let server = Server::start().await;
    let mut client = tonic_health::pb::health_client::HealthClient::new(server.channel().await);
    for service in ["", "arrow.flight.protocol.FlightService"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        let status = client.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving);
    }
    drop(client);
    server.stop().await;
}
