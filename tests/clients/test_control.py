"""Statements that are polled, listed and cancelled."""

import adbc_driver_manager
import pytest


def execute(con, sql):
    with con.cursor() as cur:
        cur.execute(sql)


def rows(con, sql):
    with con.cursor() as cur:
        cur.execute(sql)
        return cur.fetchall()


def test_incremental_execution_is_polled(con, table):
    execute(con, f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
    incremental = adbc_driver_manager.StatementOptions.INCREMENTAL.value
    progress = adbc_driver_manager.StatementOptions.PROGRESS.value
    with con.cursor() as cur:
        cur.adbc_statement.set_options(**{incremental: "true"})
        insert = f"INSERT INTO {table} SELECT a.value * 1000 + b.value FROM generate_series(1, 2000) a, generate_series(1, 400) b"
        cur.adbc_statement.set_sql_query(insert)
        polls = 0
        while True:
            partitions, _, _ = cur.adbc_statement.execute_partitions()
            polls += 1
            if not partitions:
                break
            if cur.adbc_statement.get_option_float(progress) == 1.0:
                break
        assert polls >= 1
    assert rows(con, f"SELECT count(*) FROM {table}") == [(800000,)]
    with con.cursor() as cur:
        cur.adbc_statement.set_options(**{incremental: "true"})
        partitions, _ = cur.adbc_execute_partitions(f"SELECT id FROM {table} WHERE id < 1011")
        assert len(partitions) == 1
        with con.cursor() as fresh:
            fresh.adbc_read_partition(partitions[0])
            assert fresh.fetchall() == [(id,) for id in range(1001, 1011)]


def test_what_runs_is_listed_and_killed(server, con, table):
    with server.connect() as other, other.cursor() as cur:
        cur.execute("SELECT a.value FROM generate_series(1, 1000000) AS a, generate_series(1, 1000000) AS b")
        reader = cur.fetch_record_batch()
        next(reader)
        listed = "SELECT query_id, rows_returned > 0 FROM omendb.queries WHERE sql LIKE 'SELECT a.value%'"
        ((query, returned),) = rows(con, listed)
        assert returned
        execute(con, f"KILL QUERY {query}")
        with pytest.raises(Exception, match="cancelled by request"):
            for _ in reader:
                pass
        assert rows(con, listed) == []
