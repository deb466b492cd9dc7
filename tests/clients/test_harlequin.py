"""The calls that harlequin-adbc 0.1.2 makes of ADBC's DBAPI, in its order: it never commits, and names tables by catalog."""

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest


@pytest.fixture
def harlequin(server):
    with flightsql.connect(server.uri) as connection:
        yield connection


def execute(connection, query):
    cursor = connection.cursor()
    cursor.execute(query)
    return cursor


def test_queries_come_whole_or_up_to_a_limit(con, harlequin, table):
    with con.cursor() as cur:
        cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT, at TIMESTAMPTZ, price DECIMAL(10, 2))")
        cur.execute(f"INSERT INTO {table} VALUES (1, 'a', '2026-01-01', 1.5), (2, NULL, NULL, NULL), (3, 'c', NULL, 2)")
    cursor = execute(harlequin, f'SELECT * FROM "omendb"."public"."{table}"')
    types = [column[1].id for column in cursor.description]
    assert types == [pa.int64().id, pa.string().id, pa.timestamp("us", "UTC").id, pa.decimal128(10, 2).id]
    assert cursor.fetchallarrow().num_rows == 3
    assert len(execute(harlequin, f"SELECT * FROM {table}").fetchmany(2)) == 2
    # What changes something has no columns to show, and is seen by the same connection.
    assert not execute(harlequin, f"DELETE FROM {table} WHERE id = 1").description
    assert execute(harlequin, f"SELECT count(*) FROM {table}").fetchallarrow().column(0).to_pylist() == [2]
    with pytest.raises(flightsql.Error, match="does not exist"):
        execute(harlequin, "SELECT * FROM nowhere")


def test_the_tree_of_tables(con, harlequin, table):
    with con.cursor() as cur:
        cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
        cur.execute(f"CREATE VIEW {table}_view AS SELECT name FROM {table}")
    try:
        (catalog,) = harlequin.adbc_get_objects().read_all().to_pylist()
        assert catalog["catalog_name"] == "omendb"
        schemas = {schema["db_schema_name"]: schema["db_schema_tables"] for schema in catalog["catalog_db_schemas"]}
        relations = {relation["table_name"]: relation for relation in schemas["public"]}
        assert relations[table]["table_type"].upper() == "TABLE"
        assert relations[f"{table}_view"]["table_type"].upper() == "VIEW"
        assert [column["column_name"] for column in relations[table]["table_columns"]] == ["id", "name"]
        assert all("xdbc_data_type" in column for column in relations[table]["table_columns"])
    finally:
        with con.cursor() as cur:
            cur.execute(f"DROP VIEW {table}_view")
