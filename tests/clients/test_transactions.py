"""Transactions through ADBC's DBAPI, whose connections have them unless told otherwise, and through SQL."""

import contextlib
import time
import warnings

import adbc_driver_flightsql.dbapi as flightsql
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from omendb_server import Server


@pytest.fixture
def txn(server):
    """A connection with transactions, and the check that the driver takes them as such."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with server.connect(autocommit=False) as connection:
            yield connection


@pytest.fixture
def numbers(cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v BIGINT)")
    cur.execute(f"INSERT INTO {table} VALUES (1, 10), (2, 20), (3, 30)")
    return table


def rows(con, sql, parameters=None):
    with con.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def execute(con, sql, parameters=None):
    with con.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.rowcount


def test_commit_and_rollback(txn, con, numbers):
    assert execute(txn, f"INSERT INTO {numbers} VALUES (4, 40)") == 1
    assert execute(txn, f"UPDATE {numbers} SET v = v + 1 WHERE id = ?", (1,)) == 1
    assert rows(txn, f"SELECT id, v FROM {numbers} WHERE id IN (1, 4) ORDER BY id") == [(1, 11), (4, 40)]
    assert rows(con, f"SELECT count(*), sum(v) FROM {numbers}") == [(3, 60)]
    txn.commit()
    assert rows(con, f"SELECT count(*), sum(v) FROM {numbers}") == [(4, 101)]
    execute(txn, f"DELETE FROM {numbers}")
    assert rows(txn, f"SELECT count(*) FROM {numbers}") == [(0,)]
    txn.rollback()
    assert rows(txn, f"SELECT count(*) FROM {numbers}") == [(4,)]


def test_every_kind_of_change_is_part_of_it(txn, con, numbers):
    with txn.cursor() as cur:
        cur.executemany(f"INSERT INTO {numbers} VALUES (?, ?)", [(i, i) for i in range(100, 200)])
        cur.execute(f"INSERT INTO {numbers} VALUES (100, 0), (500, 0) ON CONFLICT (id) DO UPDATE SET v = excluded.v RETURNING id")
        assert sorted(cur.fetchall()) == [(100,), (500,)]
        cur.execute(f"UPDATE {numbers} SET id = id + 1000 WHERE id < 4")
        cur.execute(f"DELETE FROM {numbers} WHERE id = 500")
        cur.execute(f"CREATE TABLE {numbers}_new AS SELECT * FROM {numbers}")
        cur.execute(f"ALTER TABLE {numbers}_new ADD COLUMN w TEXT DEFAULT 'x'")
        cur.execute(f"CREATE VIEW {numbers}_view AS SELECT w FROM {numbers}_new")
        cur.adbc_ingest(f"{numbers}_new", pa.table({"id": [7], "v": [8]}), mode="append")
        cur.execute(f"SELECT count(w) FROM {numbers}_view")
        assert cur.fetchall() == [(104,)]
        cur.execute(f"TRUNCATE TABLE {numbers}")
        cur.execute(f"SELECT count(*) FROM {numbers}")
        assert cur.fetchall() == [(0,)]
    names = txn.adbc_get_objects(depth="tables", table_name_filter=f"{numbers}%").read_all().to_pylist()
    assert len([t for c in names for s in c["catalog_db_schemas"] for t in s["db_schema_tables"]]) == 3
    assert "w" in txn.adbc_get_table_schema(f"{numbers}_new").names
    assert rows(con, f"SELECT count(*) FROM {numbers}") == [(3,)]
    txn.rollback()
    assert rows(con, f"SELECT id FROM {numbers} ORDER BY id") == [(1,), (2,), (3,)]
    for gone in (f"{numbers}_new", f"{numbers}_view"):
        with pytest.raises(flightsql.Error, match=gone):
            rows(txn, f"SELECT * FROM {gone}")


def test_scripts(txn, con, numbers):
    """The DBAPI commits before a script; the script belongs to the next transaction."""
    with txn.cursor() as cur:
        cur.execute(f"DELETE FROM {numbers} WHERE id = 1")
        cur.executescript(f"DELETE FROM {numbers} WHERE id = 2; INSERT INTO {numbers} VALUES (4, 0), (5, 0)")
    assert rows(con, f"SELECT id FROM {numbers} ORDER BY id") == [(2,), (3,)]
    assert rows(txn, f"SELECT id FROM {numbers} ORDER BY id") == [(3,), (4,), (5,)]
    txn.rollback()
    assert rows(txn, f"SELECT id FROM {numbers} ORDER BY id") == [(2,), (3,)]


def test_a_transaction_reads_one_state(txn, con, numbers):
    execute(con, f"INSERT INTO {numbers} VALUES (4, 40)")
    assert rows(txn, f"SELECT count(*) FROM {numbers}") == [(4,)], "nothing is pinned before the first statement"
    execute(con, f"DELETE FROM {numbers} WHERE id > 1")
    assert rows(txn, f"SELECT count(*) FROM {numbers}") == [(4,)]
    txn.commit()
    assert rows(txn, f"SELECT count(*) FROM {numbers}") == [(1,)]


def test_rows_are_read_after_the_commit(txn, con, table):
    """The driver fetches in the background, and may lose the race with the commit."""
    execute(con, f"CREATE TABLE {table} AS SELECT value AS id FROM generate_series(1, 300000)")
    with txn.cursor() as cur:
        cur.execute(f"INSERT INTO {table} VALUES (0)")
        cur.execute(f"SELECT id FROM {table} ORDER BY id")
        txn.commit()
        execute(con, f"DELETE FROM {table}")
        assert cur.fetch_arrow_table().num_rows == 300_001


def test_the_first_committer_wins(server, txn, numbers):
    with server.connect(autocommit=False) as other:
        execute(txn, f"UPDATE {numbers} SET v = v + 1 WHERE id = 2")
        execute(other, f"UPDATE {numbers} SET v = v + 100 WHERE id = 2")
        execute(other, f"UPDATE {numbers} SET v = 0 WHERE id = 3")
        txn.commit()
        # Not by commit(): where that fails, the driver forgets its transaction and can be used for nothing more.
        with pytest.raises(flightsql.Error, match="retry"):
            execute(other, "COMMIT")
        assert rows(other, f"SELECT id, v FROM {numbers} ORDER BY id") == [(1, 10), (2, 21), (3, 30)]
        # Those that touch different rows both commit.
        execute(txn, f"UPDATE {numbers} SET v = 0 WHERE id = 1")
        execute(other, f"UPDATE {numbers} SET v = 0 WHERE id = 3")
        txn.commit()
        other.commit()
    assert rows(txn, f"SELECT sum(v) FROM {numbers}") == [(21,)]
    with server.connect(autocommit=False) as other:
        execute(other, f"DELETE FROM {numbers}")
        execute(txn, f"INSERT INTO {numbers} VALUES (4, 40)")
        execute(txn, f"DELETE FROM {numbers} WHERE id = 1")
        txn.commit()
        with pytest.raises(flightsql.Error, match="retry"):
            other.commit()
    assert rows(txn, f"SELECT id FROM {numbers} ORDER BY id") == [(2,), (3,), (4,)]


def test_a_failed_change_needs_a_rollback(txn, con, numbers):
    execute(txn, f"INSERT INTO {numbers} VALUES (4, 40)")
    with pytest.raises(flightsql.Error, match="primary key"):
        execute(txn, f"INSERT INTO {numbers} VALUES (5, 50), (1, 0)")
    with pytest.raises(flightsql.Error, match="ROLLBACK"):
        execute(txn, f"INSERT INTO {numbers} VALUES (6, 60)")
    txn.rollback()
    assert rows(con, f"SELECT count(*) FROM {numbers}") == [(3,)]
    execute(txn, f"INSERT INTO {numbers} VALUES (6, 60)")
    txn.commit()
    assert rows(con, f"SELECT count(*) FROM {numbers}") == [(4,)]
    execute(txn, f"INSERT INTO {numbers} VALUES (7, 70)")
    with pytest.raises(flightsql.Error, match="primary key"):
        execute(txn, f"INSERT INTO {numbers} VALUES (1, 0)")
    with pytest.raises(flightsql.Error, match="rolled back"):
        txn.commit()
    assert rows(con, f"SELECT count(*) FROM {numbers}") == [(4,)]


def test_savepoints(txn, con, numbers):
    execute(txn, f"INSERT INTO {numbers} VALUES (4, 40)")
    execute(txn, "SAVEPOINT here")
    with pytest.raises(flightsql.Error):
        execute(txn, f"INSERT INTO {numbers} VALUES (4, 0)")
    execute(txn, "ROLLBACK TO here")
    execute(txn, f"DELETE FROM {numbers} WHERE id = 1")
    execute(txn, "ROLLBACK TO SAVEPOINT here")
    execute(txn, "RELEASE here")
    txn.commit()
    assert rows(con, f"SELECT id FROM {numbers} ORDER BY id") == [(1,), (2,), (3,), (4,)]


def test_transactions_by_sql(server, con, numbers):
    """All that JDBC and an autocommit connection have."""
    with server.connect() as other:
        execute(other, "BEGIN")
        execute(other, f"INSERT INTO {numbers} VALUES (4, 40)")
        with other.cursor() as cur:
            cur.adbc_ingest(numbers, pa.table({"id": [5], "v": [50]}), mode="append")
        assert rows(other, f"SELECT count(*) FROM {numbers}") == [(5,)]
        assert rows(con, f"SELECT count(*) FROM {numbers}") == [(3,)]
        execute(other, "COMMIT")
        assert rows(con, f"SELECT count(*) FROM {numbers}") == [(5,)]
        execute(other, "START TRANSACTION")
        execute(other, f"DELETE FROM {numbers}")
        execute(other, "ROLLBACK")
        execute(other, f"DELETE FROM {numbers} WHERE id = 5")
        with other.cursor() as cur:
            cur.executescript(f"BEGIN; DELETE FROM {numbers} WHERE id = 4; COMMIT; BEGIN; DELETE FROM {numbers}; ROLLBACK")
    assert rows(con, f"SELECT count(*) FROM {numbers}") == [(3,)]


def test_sql_in_a_transaction_of_the_driver(txn, con, numbers):
    """COMMIT and ROLLBACK as statements end the work so far; the driver's transaction goes on."""
    execute(txn, "BEGIN")
    execute(txn, f"DELETE FROM {numbers} WHERE id = 1")
    execute(txn, "COMMIT")
    assert rows(con, f"SELECT count(*) FROM {numbers}") == [(2,)]
    execute(txn, f"DELETE FROM {numbers}")
    execute(txn, "ROLLBACK")
    execute(txn, f"DELETE FROM {numbers} WHERE id = 2")
    assert rows(con, f"SELECT count(*) FROM {numbers}") == [(2,)]
    txn.commit()
    assert rows(con, f"SELECT count(*) FROM {numbers}") == [(1,)]


def test_a_statement_is_used_again_in_the_next_transaction(txn, con, numbers):
    with txn.cursor() as cur:
        insert = f"INSERT INTO {numbers} VALUES (?, 0)"
        cur.execute(insert, (4,))
        txn.rollback()
        cur.execute(insert, (5,))
        assert rows(con, f"SELECT count(*) FROM {numbers}") == [(3,)]
        txn.commit()
        cur.execute(insert, (6,))
        txn.commit()
    assert rows(con, f"SELECT id FROM {numbers} WHERE id > 3 ORDER BY id") == [(5,), (6,)]


def test_pandas_replaces_atomically(txn, con, table):
    frame = pd.DataFrame({"id": range(70_000), "name": "x"})
    frame.to_sql(table, txn, index=False)
    assert rows(con, f"SELECT count(*) FROM {table}") == [(70_000,)], "to_sql commits"
    frame.head(5).to_sql(table, txn, index=False, if_exists="append")
    with pytest.raises(Exception, match=table):
        frame.to_sql(table, txn, index=False, if_exists="fail")
    txn.rollback()
    frame.head(10).to_sql(table, txn, index=False, if_exists="replace")
    assert rows(con, f"SELECT count(*) FROM {table}") == [(10,)]
    # A replacement that fails leaves the table as it was.
    broken = pd.DataFrame({"id": [1, 2], "x": [object(), 2]})
    with pytest.raises(Exception):
        broken.to_sql(table, txn, index=False, if_exists="replace")
    txn.rollback()
    assert rows(con, f"SELECT count(*), min(name) FROM {table}") == [(10, "x")]
    assert len(pd.read_sql(f"SELECT * FROM {table} WHERE id < 3", txn)) == 3
    assert len(pd.read_sql(table, txn)) == 10


@pytest.mark.parametrize("mode", ["create", "append", "replace", "create_append"])
def test_loads_in_all_modes_are_rolled_back(txn, con, table, mode):
    existing = mode in ("append", "replace")
    if existing:
        execute(con, f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
        execute(con, f"INSERT INTO {table} VALUES (-1)")
    with txn.cursor() as cur:
        cur.adbc_ingest(table, pa.table({"id": range(80_000)}), mode=mode)
        cur.adbc_ingest(table, pa.table({"id": range(80_000, 80_010)}), mode="append")
        before = 1 if mode == "append" else 0
        assert rows(txn, f"SELECT count(*) FROM {table} WHERE id < 80005") == [(80_005 + before,)]
        txn.rollback()
        if existing:
            assert rows(con, f"SELECT id FROM {table}") == [(-1,)]
        else:
            with pytest.raises(flightsql.Error, match=table):
                rows(con, f"SELECT * FROM {table}")
        cur.adbc_ingest(table, pa.table({"id": range(80_000)}), mode=mode)
    txn.commit()
    assert rows(con, f"SELECT count(*) FROM {table} WHERE id >= 0") == [(80_000,)]


def test_a_load_that_breaks_leaves_nothing(txn, con, numbers):
    def batches():
        yield pa.record_batch({"id": range(100, 200), "v": range(100)})
        raise RuntimeError("broken")

    schema = pa.schema([("id", pa.int64()), ("v", pa.int64())])
    execute(txn, f"INSERT INTO {numbers} VALUES (4, 40)")
    with txn.cursor() as cur, pytest.raises(Exception):
        cur.adbc_ingest(numbers, pa.RecordBatchReader.from_batches(schema, batches()), mode="append")
    # It was a statement that failed.
    with pytest.raises(flightsql.Error, match="load"):
        execute(txn, f"INSERT INTO {numbers} VALUES (5, 50)")
    execute(txn, "ROLLBACK")
    execute(txn, f"INSERT INTO {numbers} VALUES (6, 60)")
    txn.commit()
    assert rows(con, f"SELECT id FROM {numbers} ORDER BY id") == [(1,), (2,), (3,), (6,)]


def test_polars_in_a_transaction(txn, con, table):
    pl.DataFrame({"id": [1, 2, 3]}).write_database(table, txn, engine="adbc", if_table_exists="replace")
    assert pl.read_database(f"SELECT count(*) AS n FROM {table}", txn)["n"].to_list() == [3]
    txn.commit()
    assert rows(con, f"SELECT count(*) FROM {table}") == [(3,)]


def test_many_empty_transactions_are_cheap(server):
    """Pools roll back at every turn; each also begins the next transaction."""
    with server.connect(autocommit=False) as con:
        for _ in range(300):
            con.rollback()
            con.commit()
        assert rows(con, "SELECT 1") == [(1,)]


def test_closing_rolls_back(server, con, numbers):
    other = server.connect(autocommit=False)
    execute(other, f"DELETE FROM {numbers}")
    other.close()
    assert rows(con, f"SELECT count(*) FROM {numbers}") == [(3,)]
    execute(con, f"UPDATE {numbers} SET v = 0")


def test_nothing_of_an_open_transaction_survives_kill_9(own_server):
    with own_server.connect(autocommit=False) as con:
        execute(con, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        con.commit()
        execute(con, "INSERT INTO t VALUES (1)")
        con.commit()
        execute(con, "INSERT INTO t VALUES (2)")
        execute(con, "CREATE TABLE u (id BIGINT)")
        with con.cursor() as cur:
            cur.adbc_ingest("t", pa.table({"id": range(10, 100_000)}), mode="append")
        assert rows(con, "SELECT count(*) FROM t") == [(99_992,)]
        own_server.kill()
        own_server.start(port=own_server.port)
        # The connection comes back by itself; the transaction does not, and says so.
        for statement in ("INSERT INTO t VALUES (3)", "INSERT INTO t VALUES (4)"):
            with pytest.raises(flightsql.Error):
                execute(con, statement)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(flightsql.Error):
                con.rollback()
                break
            assert time.monotonic() < deadline
        assert rows(con, "SELECT id FROM t") == [(1,)]
        with pytest.raises(flightsql.Error, match="u"):
            rows(con, "SELECT * FROM u")
        execute(con, "INSERT INTO t VALUES (5)")
        con.commit()
    with own_server.connect() as con:
        assert rows(con, "SELECT id FROM t ORDER BY id") == [(1,), (5,)]


def test_idle_transactions_are_rolled_back(tmp_path):
    server = Server(tmp_path / "data", "--transaction-idle", "300ms").start()
    try:
        with server.connect(autocommit=False) as con, server.connect() as other:
            execute(con, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
            con.commit()
            time.sleep(2.5)
            execute(con, "INSERT INTO t VALUES (1)")  # One that has not begun is never idle.
            execute(other, "BEGIN")
            execute(other, "INSERT INTO t VALUES (2)")
            time.sleep(2.5)
            for c in (con, other):
                with pytest.raises(flightsql.Error, match="idle"):
                    execute(c, "INSERT INTO t VALUES (3)")
            con.rollback()
            execute(other, "ROLLBACK")
            execute(con, "INSERT INTO t VALUES (4)")
            con.commit()
            assert rows(other, "SELECT id FROM t") == [(4,)]
    finally:
        server.kill()


def test_session_options(server, con, table):
    execute(con, f"CREATE SCHEMA {table}")
    execute(con, f"CREATE TABLE {table}.{table} (id BIGINT PRIMARY KEY)")
    with server.connect() as other:
        options = other.adbc_connection
        assert options.get_option("adbc.connection.db_schema") == "public"
        options.set_options(**{"adbc.connection.db_schema": table})
        assert options.get_option("adbc.connection.db_schema") == table
        assert rows(other, f"SELECT count(*) FROM {table}") == [(0,)]
        with other.cursor() as cur:
            cur.adbc_ingest(table, pa.table({"id": [1]}), mode="append")
        assert rows(con, f"SELECT count(*) FROM {table}.{table}") == [(1,)]
        option = "adbc.flight.sql.session.option."
        options.set_options(**{f"{option}timezone": "+02:00"})
        assert options.get_option(f"{option}timezone") == "+02:00"
        with pytest.raises(flightsql.Error):
            options.set_options(**{f"{option}colour": "red"})
        execute(other, f"INSERT INTO {table} SELECT value FROM generate_series(2, 20000)")
        for compression in ("zstd", "lz4", "none"):
            options.set_options(**{f"{option}compression": compression})
            assert rows(other, f"SELECT sum(id) FROM (SELECT id FROM {table})") == [(200010000,)]
            with other.cursor() as cur:
                cur.execute(f"SELECT id FROM {table}")
                assert cur.fetch_arrow_table().column("id").to_pylist() == list(range(1, 20001))
        options.set_options(**{f"{option}endpoint_count": "3"})
        with other.cursor() as cur:
            cur.execute(f"SELECT id FROM {table} WHERE id % 2 = 0")
            assert sorted(cur.fetch_arrow_table().column("id").to_pylist()) == list(range(2, 20001, 2))
            partitions, _ = cur.adbc_execute_partitions(f"SELECT id FROM {table}")
            assert len(partitions) == 3
            got = []
            for partition in partitions:
                with con.cursor() as fresh:
                    fresh.adbc_read_partition(partition)
                    got.extend(fresh.fetch_arrow_table().column("id").to_pylist())
            assert got == list(range(1, 20001))
        with pytest.raises(flightsql.Error):
            options.set_options(**{f"{option}compression": "gzip"})
    execute(con, f"DROP TABLE {table}.{table}")
    execute(con, f"DROP SCHEMA {table}")
