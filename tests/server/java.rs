//! What clients in Java get, which read some types in their own way. tests/jdbc drives the driver itself.

use arrow::array::Array;
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Decimal128Type, Int16Type, Int32Type, TimeUnit};
use arrow::record_batch::RecordBatch;
use omendb::flight::proto;
use prost::Message;
use tonic::transport::Endpoint;

use crate::fixture::{Client, Server};

/// A client that says it is grpc-java.
async fn java(server: &Server) -> Client {
    let uri = format!("http://{}", server.running().address());
    let endpoint = Endpoint::from_shared(uri).unwrap().user_agent("grpc-java-netty/1.71").unwrap();
    Client::new(endpoint.connect().await.unwrap())
}

const TABLE: &str =
    "CREATE TABLE t (k BIGINT PRIMARY KEY, ts TIMESTAMP, tm TIME(9), tz TIMESTAMPTZ)";

#[tokio::test(flavor = "multi_thread")]
async fn times_are_bound_in_milliseconds() {
    let server = Server::start().await;
    let mut java = java(&server).await;
    java.update(TABLE).await;
    let insert = "INSERT INTO t VALUES (1, ?, ?, ?)".to_owned();
    let mut statement = java.sql.prepare(insert.clone(), None).await.unwrap();
    let schema = statement.parameter_schema().unwrap().clone();
    let types: Vec<&DataType> = schema.fields().iter().map(|f| f.data_type()).collect();
    let millis = TimeUnit::Millisecond;
    let zone = Some("UTC".into());
    let expected = [
        DataType::Timestamp(millis, None),
        DataType::Time32(millis),
        DataType::Timestamp(millis, zone),
    ];
    assert_eq!(types, expected.iter().collect::<Vec<_>>());
    let columns = schema
        .fields()
        .iter()
        .map(|f| {
            let millis = arrow::array::Int64Array::from(vec![45_296_789]);
            match f.data_type() {
                DataType::Time32(_) => arrow::compute::cast(
                    &arrow::compute::cast(&millis, &DataType::Int32).unwrap(),
                    f.data_type(),
                ),
                timestamp => arrow::compute::cast(&millis, timestamp),
            }
            .unwrap()
        })
        .collect();
    statement.set_parameters(RecordBatch::try_new(schema.into(), columns).unwrap()).unwrap();
    assert_eq!(statement.execute_update().await.unwrap(), 1);
    let stored =
        "SELECT CAST(ts AS TEXT) AS ts, CAST(tm AS TEXT) AS tm, CAST(tz AS TEXT) AS tz FROM t";
    let batch = java.query(stored).await;
    let text = |column: usize| batch.column(column).as_string::<i32>().value(0).to_owned();
    assert_eq!(text(0), "1970-01-01 12:34:56.789");
    assert_eq!(text(1), "12:34:56.789");
    assert_eq!(text(2), "1970-01-01 12:34:56.789+00");

    // Others are told the columns' own types.
    let statement = server.client().await.sql.prepare(insert, None).await.unwrap();
    let own = statement.parameter_schema().unwrap().field(0).data_type().clone();
    assert_eq!(own, DataType::Timestamp(TimeUnit::Microsecond, None));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_numbers_leave_as_wider_ones() {
    let server = Server::start().await;
    let sql = "SELECT CAST(255 AS TINYINT UNSIGNED) AS a, CAST(65535 AS SMALLINT UNSIGNED) AS b, \
               CAST('18446744073709551615' AS BIGINT UNSIGNED) AS c";
    let batch = java(&server).await.query(sql).await;
    assert_eq!(batch.column(0).as_primitive::<Int16Type>().value(0), 255);
    assert_eq!(batch.column(1).as_primitive::<Int32Type>().value(0), 65_535);
    assert_eq!(batch.column(2).as_primitive::<Decimal128Type>().value(0), i128::from(u64::MAX));
    let batch = server.client().await.query(sql).await;
    assert_eq!(batch.column(0).data_type(), &DataType::UInt8);
    server.stop().await;
}

/// Java finds the entries of a map by name, and the Rust crate has names of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_map_of_conversions_is_named_as_arrow_names_maps() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let info = client.sql.get_sql_info(Vec::new()).await.unwrap();
    let batch = client.fetch(&info).await;
    let maps = batch.column(1).as_union().child(5).as_map();
    let names: Vec<_> = maps.entries().fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["key", "value"]);
    assert_eq!((maps.len(), maps.value(0).is_empty()), (1, false));
    server.stop().await;
}

/// A count of -1 would make the driver fetch rows, and so run the statement again.
#[tokio::test(flavor = "multi_thread")]
async fn definitions_count_no_rows() {
    let server = Server::start().await;
    let mut java = java(&server).await;
    assert_eq!(java.update(TABLE).await, 0);
    let mut statement = java.sql.prepare("DROP TABLE t".to_owned(), None).await.unwrap();
    assert_eq!(statement.execute_update().await.unwrap(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_option_schema_is_where_bare_names_are_looked_up() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.update("CREATE SCHEMA lab").await;
    client.update("CREATE TABLE lab.only_there (k BIGINT)").await;
    let mut set = async |name: &str, value: &str| {
        let value = proto::session_option_value::OptionValue::StringValue(value.to_owned());
        let value = proto::SessionOptionValue { option_value: Some(value) };
        let request =
            proto::SetSessionOptionsRequest { session_options: [(name.to_owned(), value)].into() };
        let [result] = client
            .action("SetSessionOptions", request.encode_to_vec())
            .await
            .unwrap()
            .try_into()
            .unwrap();
        proto::SetSessionOptionsResult::decode(&result[..]).unwrap().errors.len()
    };
    assert_eq!(set("schema", "lab").await, 0);
    assert_eq!(set("schema", "nowhere").await, 1);
    assert_eq!((set("catalog", "omendb").await, set("catalog", "another").await), (0, 1));
    assert_eq!(client.query("SELECT k FROM only_there").await.num_rows(), 0);
    server.stop().await;
}
