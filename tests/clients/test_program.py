"""The program's commands."""

import csv

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from omendb_server import run


def sql(server, text):
    return run("sql", "--url", server.uri, "-c", text)


@pytest.fixture
def data():
    return pa.table({"id": pa.array(range(1000), pa.int64()), "name": [f"n{i}" for i in range(1000)], "x": [i / 2 for i in range(1000)]})


def test_sql_draws_tables(server, table):
    done = sql(server, f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT); INSERT INTO {table} VALUES (1, 'one'), (2, 'a;b'); SELECT * FROM {table}")
    assert done.returncode == 0, done.stderr
    assert "one" in done.stdout and "a;b" in done.stdout and "name" in done.stdout


def test_sql_fails_with_a_message(server):
    done = sql(server, "SELECT * FROM no_such_table")
    assert done.returncode != 0
    assert "no_such_table" in done.stderr
    assert "panicked" not in done.stderr


def test_sql_without_a_server():
    done = run("sql", "--url", "grpc://127.0.0.1:1", "-c", "SELECT 1")
    assert done.returncode != 0
    assert "127.0.0.1:1" in done.stderr


@pytest.mark.parametrize("kind", ["parquet", "csv", "arrow"])
def test_load(server, cur, table, data, tmp_path, kind):
    path = tmp_path / f"data.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(data, path)
    elif kind == "arrow":
        pyarrow.feather.write_feather(data, path, compression="uncompressed")
    else:
        with open(path, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(data.column_names)
            rows.writerows(zip(*(c.to_pylist() for c in data.columns)))
    done = run("load", str(path), "--table", table, "--primary-key", "id", "--url", server.uri)
    assert done.returncode == 0, done.stderr
    assert "1000" in (done.stdout + done.stderr).replace(",", "")
    cur.execute(f"SELECT count(*), min(name), sum(x) FROM {table} WHERE id >= 500")
    assert cur.fetchone() == (500, "n500", sum(i / 2 for i in range(500, 1000)))
    again = run("load", str(path), "--table", table, "--url", server.uri)
    assert again.returncode != 0 and table in again.stderr
    ignored = run("load", str(path), "--table", table, "--on-conflict", "ignore", "--url", server.uri)
    assert ignored.returncode == 0, ignored.stderr


def test_load_of_a_file_that_is_not_there(server):
    done = run("load", "/no/such/file.parquet", "--table", "t", "--url", server.uri)
    assert done.returncode != 0
    assert "/no/such/file.parquet" in done.stderr


def test_health(server):
    assert run("health", "--url", server.uri).returncode == 0
    assert run("health", "--url", "grpc://127.0.0.1:1").returncode != 0


def test_demo():
    done = run("demo", "--rows", "100000")
    assert done.returncode == 0, done.stderr
    assert "100000" in done.stdout.replace(",", "")


def test_settings_come_from_flag_then_environment_then_file(tmp_path):
    file = tmp_path / "omendb.toml"
    file.write_text('listen = "127.0.0.1:1111"\nmemory = "2GiB"\nmax_sql = "10KiB"\n')
    done = run("serve", "--config", str(file), "--listen", "127.0.0.1:3333", "--print-config", OMENDB_LISTEN="127.0.0.1:2222", OMENDB_MEMORY="3GiB")
    assert done.returncode == 0, done.stderr
    for line in ('listen = "127.0.0.1:3333"', 'memory = "3GiB"', 'max_sql = "10KiB"'):
        assert line in done.stdout


def test_settings_that_mean_nothing_are_refused(tmp_path):
    file = tmp_path / "omendb.toml"
    file.write_text('lisen = "127.0.0.1:1111"\n')
    for done in (run("serve", "--config", str(file)), run("serve", OMENDB_LISEN="x"), run("serve", "--memory", "lots")):
        assert done.returncode != 0
        assert "lisen" in done.stderr.lower() or "lots" in done.stderr


def test_other_than_loopback_needs_to_be_asked_for(tmp_path):
    done = run("serve", "--data-dir", str(tmp_path / "data"), "--listen", "0.0.0.0:0")
    assert done.returncode != 0
    assert "--insecure" in done.stderr
