"""pandas and polars, as their documentation shows databases used."""

import datetime

import duckdb
import pandas as pd
import polars as pl
import pytest

UTC = datetime.timezone.utc


@pytest.fixture
def frame():
    return pd.DataFrame({
        "id": [1, 2, 3],
        "name": ["a", None, "c"],
        "score": [1.5, float("nan"), -2.0],
        "at": pd.to_datetime(["2024-01-01 00:00", "2024-06-01 12:00", None], utc=True),
    })


def test_pandas_writes_and_reads(con, table, frame):
    assert frame.to_sql(table, con, index=False) == 3
    got = pd.read_sql(f"SELECT * FROM {table} ORDER BY id", con)
    assert list(got.columns) == ["id", "name", "score", "at"]
    assert got["id"].tolist() == [1, 2, 3]
    assert got["name"].isna().tolist() == [False, True, False] and got["name"][2] == "c"
    assert got["score"][0] == 1.5 and got["score"].isna().tolist() == [False, True, False]
    assert got["at"][1] == datetime.datetime(2024, 6, 1, 12, tzinfo=UTC) and got["at"].isna()[2]


def test_pandas_fails_appends_and_replaces(con, table, frame):
    frame.to_sql(table, con, index=False)
    with pytest.raises(Exception, match=table):
        frame.to_sql(table, con, index=False)
    frame.to_sql(table, con, index=False, if_exists="append")
    assert pd.read_sql(f"SELECT count(*) AS n FROM {table}", con)["n"][0] == 6
    frame.head(1).to_sql(table, con, index=False, if_exists="replace")
    assert pd.read_sql(f"SELECT count(*) AS n FROM {table}", con)["n"][0] == 1


def test_pandas_reads_by_query_and_by_table_name(con, table, frame):
    frame.to_sql(table, con, index=False)
    got = pd.read_sql(f"SELECT name FROM {table} WHERE id >= 3 ORDER BY id", con)
    assert got["name"].tolist() == ["c"]
    assert len(pd.read_sql(table, con)) == 3
    with pytest.raises(Exception, match="no_such"):
        pd.read_sql("SELECT * FROM no_such", con)


def test_pandas_table_gets_a_key_afterwards(con, cur, table, frame):
    frame.to_sql(table, con, index=False)
    cur.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (id)")
    with pytest.raises(Exception, match=table):
        frame.to_sql(table, con, index=False, if_exists="append")
    assert pd.read_sql(f"SELECT id FROM {table} ORDER BY id DESC", con)["id"].tolist() == [3, 2, 1]


def test_polars_writes_and_reads(con, table):
    frame = pl.DataFrame({
        "id": [1, 2, 3],
        "name": ["a", None, "c"],
        "kind": pl.Series(["x", "y", "x"], dtype=pl.Categorical),
        "at": [datetime.datetime(2024, 1, 1), None, datetime.datetime(2024, 6, 1, 12)],
        "day": [datetime.date(2024, 1, 1), None, datetime.date(1960, 1, 1)],
        "list": [[1, 2], [], None],
    })
    assert frame.write_database(table, con, engine="adbc") == 3
    got = pl.read_database(f"SELECT * FROM {table} ORDER BY id", con)
    assert got.with_columns(pl.col("kind").cast(pl.Categorical)).equals(frame)


def test_polars_appends_and_replaces(con, table):
    frame = pl.DataFrame({"id": [1, 2, 3]})
    frame.write_database(table, con, engine="adbc", if_table_exists="fail")
    with pytest.raises(Exception, match=table):
        frame.write_database(table, con, engine="adbc", if_table_exists="fail")
    frame.write_database(table, con, engine="adbc", if_table_exists="append")
    assert pl.read_database(f"SELECT count(*) AS n FROM {table}", con)["n"].to_list() == [6]
    frame.write_database(table, con, engine="adbc", if_table_exists="replace")
    assert pl.read_database(f"SELECT count(*) AS n FROM {table}", con)["n"].to_list() == [3]


def test_polars_reads_with_parameters_and_in_batches(con, table):
    pl.DataFrame({"id": range(100_000)}).write_database(table, con, engine="adbc")
    got = pl.read_database(f"SELECT id FROM {table} WHERE id < ? ORDER BY id", con, execute_options={"parameters": (3,)})
    assert got["id"].to_list() == [0, 1, 2]
    batches = pl.read_database(f"SELECT id FROM {table}", con, iter_batches=True, batch_size=10_000)
    assert sum(len(b) for b in batches) == 100_000


def test_polars_by_uri(server, table):
    """polars finds the driver by the scheme of the URI, and knows no other scheme for it."""
    uri = f"flightsql://127.0.0.1:{server.port}?transport=tcp"
    frame = pl.DataFrame({"id": [1, 2], "name": ["a", None]})
    assert frame.write_database(table, uri, engine="adbc") == 2
    assert pl.read_database_uri(f"SELECT * FROM {table} ORDER BY id", uri, engine="adbc").equals(frame)


def test_duckdb_reads_and_writes_arrow_streams(cur, table):
    """Without an extension: its queries read an ADBC cursor's stream, and a load takes a stream of its rows."""
    duck = duckdb.connect()
    made = duck.sql("SELECT range AS id, range % 10 AS part FROM range(100000)").to_arrow_reader(10_000)
    assert cur.adbc_ingest(table, made, mode="create") == 100_000
    cur.execute(f"SELECT * FROM {table} WHERE id >= 50000")
    stream = cur.fetch_record_batch()
    assert duck.sql("SELECT part, count(*) FROM stream GROUP BY part ORDER BY part LIMIT 2").fetchall() == [(0, 5000), (1, 5000)]
