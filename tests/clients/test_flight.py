"""Plain Flight, without SQL: path descriptors, listings, actions."""

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from messages import decode, encode


@pytest.fixture
def client(server):
    with server.flight() as client:
        yield client


def put(client, descriptor, data, **headers):
    """Loads a table; returns what the server answered."""
    options = flight.FlightCallOptions(headers=[(f"x-omendb-{k}".replace("_", "-").encode(), v.encode()) for k, v in headers.items()])
    writer, reader = client.do_put(descriptor, data.schema, options)
    with writer:
        writer.write_table(data, max_chunksize=10_000)
        writer.done_writing()
        answer = reader.read()
    return decode(answer.to_pybytes()) if answer is not None else {}


def get(client, descriptor):
    [endpoint] = client.get_flight_info(descriptor).endpoints
    return client.do_get(endpoint.ticket).read_all()


def action(client, name, **fields):
    [result] = list(client.do_action(flight.Action(f"omendb.{name}", encode({1: fields["table"]}))))
    return decode(result.body.to_pybytes())


def numbers(n):
    return pa.table({"id": pa.array(range(n), pa.int64()), "name": [f"n{i}" for i in range(n)]})


def test_put_and_get_by_path(client, cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
    path = flight.FlightDescriptor.for_path(table)
    assert put(client, path, numbers(100_000))[1] == [100_000]
    info = client.get_flight_info(path)
    assert info.schema.names == ["id", "name"]
    got = get(client, path)
    assert got.schema.equals(info.schema)
    assert got["id"].to_pylist() == list(range(100_000))
    assert client.get_schema(path).schema.equals(info.schema)


def test_a_load_says_what_it_did(client, cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
    answer = put(client, flight.FlightDescriptor.for_path(table), numbers(200_000))
    assert answer[1] == [200_000]
    assert answer[1003][0] >= 1, "segments written"
    assert answer[1004][0] > 0, "training time"


def test_a_path_that_names_no_table(client):
    path = flight.FlightDescriptor.for_path("no_such_table")
    with pytest.raises(Exception, match="no_such_table"):
        client.get_flight_info(path)
    with pytest.raises(Exception, match="no_such_table"):
        put(client, path, numbers(1), mode="append")


def test_put_to_a_new_path_makes_the_table(client, cur, table):
    data = numbers(10).replace_schema_metadata({"primary_key": "id"})
    assert put(client, flight.FlightDescriptor.for_path(table), data)[1] == [10]
    with pytest.raises(Exception, match=table):
        put(client, flight.FlightDescriptor.for_path(table), data)
    assert put(client, flight.FlightDescriptor.for_path("public", table), data, on_conflict="replace")[1] == [10]
    assert put(client, flight.FlightDescriptor.for_path(table), data, on_conflict="ignore").get(1, [0]) == [0]
    cur.execute(f"SELECT count(*) FROM {table}")
    assert cur.fetchone() == (10,)


def test_list_flights(client, cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
    cur.execute(f"INSERT INTO {table} VALUES (1), (2)")
    listed = {tuple(f.descriptor.path): f for f in client.list_flights()}
    [found] = [f for path, f in listed.items() if path[-1] == table.encode()]
    assert found.schema.names == ["id"]
    assert get(client, found.descriptor)["id"].to_pylist() == [1, 2]


def test_actions_are_listed(client):
    names = {a.type for a in client.list_actions()}
    assert {"omendb.Flush", "omendb.Compact", "omendb.Retrain", "omendb.TableStats"} <= names
    assert {"CreatePreparedStatement", "ClosePreparedStatement"} <= names


def test_admin_actions(client, cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
    cur.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(i, "x") for i in range(1000)])
    assert action(client, "TableStats", table=table)[2] == [1000]
    action(client, "Flush", table=table)
    stats = action(client, "TableStats", table=table)
    assert stats.get(4, [0]) == [0], "rows left in the memtable"
    assert len(stats[6]) >= 1, "segments"
    assert action(client, "Retrain", table=table)[1] == [len(stats[6])]
    cur.execute(f"DELETE FROM {table} WHERE id < 900")
    action(client, "Flush", table=table)
    action(client, "Compact", table=table)
    stats = action(client, "TableStats", table=table)
    assert stats[2] == [100] and stats.get(3, [0]) == [0], "rows, and deleted rows"
    cur.execute(f"SELECT count(*), min(id) FROM {table}")
    assert cur.fetchall() == [(100, 900)]
    with pytest.raises(Exception, match="no_such_table"):
        action(client, "Flush", table="no_such_table")
    with pytest.raises(Exception, match="omendb.NoSuchAction"):
        action(client, "NoSuchAction", table=table)


@pytest.mark.parametrize("ticket", [b"", b"\x00", b"x" * 1000, b"\xff" * 64])
def test_a_ticket_that_is_none(client, ticket):
    with pytest.raises((flight.FlightError, pa.ArrowException)):
        client.do_get(flight.Ticket(ticket)).read_all()


def test_a_ticket_is_good_on_any_connection(server, client, cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
    cur.execute(f"INSERT INTO {table} VALUES (1), (2)")
    [endpoint] = client.get_flight_info(flight.FlightDescriptor.for_path(table)).endpoints
    with server.flight() as other:
        assert other.do_get(endpoint.ticket).read_all().num_rows == 2


def test_a_reader_that_goes_away_stops_the_stream(server, cur, table):
    cur.adbc_ingest(table, numbers(300_000))
    for _ in range(5):
        with server.flight() as client:
            [endpoint] = client.get_flight_info(flight.FlightDescriptor.for_path(table)).endpoints
            reader = client.do_get(endpoint.ticket)
            reader.read_chunk()
            reader.cancel()
    cur.execute(f"SELECT count(*) FROM {table}")
    assert cur.fetchone() == (300_000,)
