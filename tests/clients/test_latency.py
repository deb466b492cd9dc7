"""Short statements answer soon, whatever others do: long statements, clients that do not read or do not speak, loads."""

import contextlib
import socket
import threading
import time

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest

from conftest import full_scale
from omendb_server import Server
from unread import Unread

ROWS = 200_000
# Generous: machines that run tests are slow and shared, and the programs not optimized. Whoever waits for a long statement waits
# for minutes. OMENDB_TEST_SCALE=full prints what the aim of 100 ms is measured by.
BOUND = 2000


@pytest.fixture
def busy(tmp_path):
    """A server that some keep busy; what they began ends with it."""
    server = Server(tmp_path / "data").start()
    execute(
        server,
        "CREATE TABLE t (k BIGINT PRIMARY KEY, v TEXT)",
        f"INSERT INTO t SELECT value, repeat('x', 100) FROM generate_series(0, {ROWS - 1}) AS s(value)",
    )
    yield server
    alive, tail = server.alive(), server.tail()
    server.kill()
    assert alive, f"the server ended by itself:\n{tail}"


def execute(server, *statements: str) -> None:
    with server.connect() as con, con.cursor() as cur:
        for sql in statements:
            cur.execute(sql)


def latencies(server, seconds: float) -> dict:
    """Milliseconds that short statements take, as they are sent one after the other."""
    times = {"SELECT 1": [], "point read": []}
    with server.connect() as con, con.cursor() as cur:
        end, k = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            k = (k * 7919 + 13) % ROWS
            for name, sql, wanted in ("SELECT 1", "SELECT 1", 1), ("point read", f"SELECT k FROM t WHERE k = {k}", k):
                begun = time.perf_counter()
                cur.execute(sql)
                assert cur.fetchall() == [(wanted,)]
                times[name].append((time.perf_counter() - begun) * 1000)
            time.sleep(0.005)
    return times


def percentile(times, share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def measure(what: str, server, seconds: float = 5 if full_scale() else 2) -> None:
    """Prints percentiles, and holds nine of ten against the bound."""
    for name, times in latencies(server, seconds).items():
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        print(f"\nLATENCY {what}: {name}: n {len(times)}, p50 {p50:.1f}, p99 {p99:.1f}, most {max(times):.1f} ms")
        assert percentile(times, 0.9) < BOUND, f"{what}: {name}: {times}"


def background(job, *args) -> None:
    """Does it until the server is gone."""

    def run():
        with contextlib.suppress(Exception):
            while True:
                job(*args)

    threading.Thread(target=run, daemon=True).start()


def run(server, sql: str) -> None:
    """Runs a statement to its end, which may be the server's."""
    with server.connect() as con, con.cursor() as cur:
        cur.execute(sql)
        cur.fetch_arrow_table()


def test_nobody_else(busy):
    measure("nobody else", busy)


RESULTS = {
    "scans": "SELECT * FROM t",
    "filtered": "SELECT * FROM t WHERE v LIKE '%x%'",
    "joins": "SELECT a.k, b.v FROM t a JOIN t b ON a.k = b.k",
}


UNREAD = [(name, count) for name in RESULTS for count in (200, 512, 2000)]


@pytest.mark.parametrize("name, count", UNREAD if full_scale() else [("scans", 2000), ("filtered", 512)])
def test_results_that_nobody_reads(busy, name, count):
    unread = Unread(busy, RESULTS[name], count)
    unread.wait()
    measure(f"{count} unread {name} ({unread.begun()} begun)", busy)
    unread.close()


LONG = {
    "levenshtein": "SELECT sum(levenshtein(repeat('ab', 10000) || value, repeat('ba', 10000))) FROM generate_series(1, 100000) AS s(value)",
    "nested loop": "SELECT count(*) FROM generate_series(1, 5000000) a(x) JOIN generate_series(1, 5000000) b(y) ON a.x < b.y + 1",
    "sums": "SELECT sum(value % 7) FROM generate_series(1, 10000000000) AS s(value)",
    "regexps": "SELECT count(*) FROM generate_series(1, 100000) AS s(value) WHERE regexp_like(repeat('a', 10000) || value, '(a*)*b')",
    "sort": "SELECT count(*) FROM (SELECT value FROM generate_series(1, 100000000) AS s(value) ORDER BY value % 1000) q",
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("count", [1, 8, 40] if full_scale() else [8])
def test_long_statements(busy, name, count):
    for _ in range(count):
        background(run, busy, LONG[name])
    time.sleep(2)
    measure(f"{count} x {name}", busy)


def test_sockets_that_say_nothing(busy):
    sockets = [socket.create_connection(("127.0.0.1", busy.port)) for _ in range(1500)]
    for s in sockets[::2]:
        s.sendall(b"P")
    measure("1500 silent sockets", busy)
    for s in sockets:
        s.close()


def test_a_row_that_no_segment_holds(busy):
    execute(busy, "CREATE TABLE bad (k BIGINT PRIMARY KEY, t TIMESTAMP(0))")
    far = pa.table({"k": [1], "t": pa.array([1 << 60], pa.timestamp("s"))})

    def load():
        with busy.connect() as con, con.cursor() as cur:
            with contextlib.suppress(flightsql.Error):
                cur.adbc_ingest("bad", far, mode="append")
            cur.execute("CHECKPOINT")

    background(load)
    measure("a bad row", busy)


@pytest.mark.parametrize("count", [1, 4, 16] if full_scale() else [16])
def test_loads(busy, count):
    rows = 1_000_000

    def load(i):
        data = pa.table({"k": pa.array(range(rows), pa.int64()), "v": ["x" * 50] * rows})
        with busy.connect() as con, con.cursor() as cur:
            cur.adbc_ingest(f"load{i}", data, mode="replace")

    for i in range(count):
        background(load, i)
    time.sleep(3)
    measure(f"{count} loads", busy)
