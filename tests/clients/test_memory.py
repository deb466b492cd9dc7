"""What `--memory` promises: whatever clients send, ask for or leave unread, the server holds that much and 300 MiB."""

import contextlib
import re
import struct
import threading
import time

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight
import pytest

from conftest import full_scale
from http2 import Http2
from omendb_server import Server
from unread import Unread

MIB = 1 << 20
MEMORY = 256
LIMIT = MEMORY + 300


def status(pid: int, field: str) -> int:
    """A size in /proc/PID/status, in MiB."""
    with open(f"/proc/{pid}/status") as lines:
        return int(re.search(rf"^{field}:\s+(\d+) kB", lines.read(), re.M)[1]) // 1024


class Watched(Server):
    """A server whose memory is watched."""

    def resident(self) -> int:
        return status(self.process.pid, "VmRSS")

    def peak(self) -> int:
        return status(self.process.pid, "VmHWM")


@pytest.fixture
def watched(tmp_path):
    server = Watched(tmp_path / "data", "--memory", f"{MEMORY}MiB").start()
    began = server.resident()
    yield server
    assert server.alive(), f"the server ended by itself:\n{server.tail()}"
    peak, left = server.peak(), server.resident()
    server.kill()
    print(f"\nMEMORY {began} MiB at the start, peak {peak} MiB, {left} MiB at the end")
    assert peak <= LIMIT, f"the server held {peak} MiB at its peak ({began} at its start), {LIMIT} are allowed"


def answer(server, sql: str, timeout: float = 120) -> str:
    """Runs a statement and reads its rows as they come; what became of it."""
    rows = 0
    try:
        with server.connect() as con, con.cursor() as cur:
            cur.execute(sql)
            reader = cur.fetch_record_batch()
            end = time.monotonic() + timeout
            for batch in reader:
                rows += batch.num_rows
                if time.monotonic() > end:
                    return f"{rows} rows and no end"
    except (flightsql.Error, OSError) as e:
        return f"{str(e)[:160]}"
    return f"{rows} rows"


def at_once(jobs, timeout: float = 300) -> None:
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
        assert not thread.is_alive(), "a client got no answer"


def joins(count: int) -> str:
    ctes = ["c0 AS (SELECT 1 AS x)"] + [
        f"c{i} AS (SELECT a.x FROM c{i - 1} a JOIN c{i - 1} b ON a.x = b.x)" for i in range(1, count)
    ]
    return f"WITH {', '.join(ctes)} SELECT count(*) FROM c{count - 1}"


def cube(columns: int) -> str:
    names = ", ".join(f"v.c{i}" for i in range(columns))
    values = ", ".join(f"{i} AS c{i}" for i in range(columns))
    return f"SELECT count(*) FROM (SELECT {values}) v GROUP BY CUBE ({names})"


# What a statement asks for, and what it is told, if anything: some have an answer that is small.
REFUSED = {
    "ctes": (joins(60), "reads more than"),
    "cube": (cube(25), "grouping sets"),
    "folding": ("SELECT length(replace(repeat('x', 60000000), 'x', repeat('y', 60000000)))", "replace would make"),
    "repeat": ("SELECT repeat('x', 2000000000)", "repeat would make"),
    "concat": ("SELECT concat(repeat('x', 60000000), repeat('y', 60000000), repeat('x', 60000000))", "concat would make"),
    "range": ("SELECT range(1, 1000000000)", "range would make"),
    "ranges": ("SELECT array_length(range(1, 5000000 + value)) FROM generate_series(1, 100) AS s(value)", "range would make"),
}
LONG = {
    "cube": cube(12),
    "folding": "SELECT length(replace(repeat('x', 20000), 'x', repeat('y', 3000)))",
    "repeat": "SELECT repeat('x', 60000000) FROM generate_series(1, 100)",
    "unnest": "SELECT unnest(range(1, 1000000 + value * 0)) FROM generate_series(1, 20) AS s(value)",
    "array_agg": "SELECT array_length(array_agg(value)) FROM generate_series(1, 30000000) AS s(value)",
    "string_agg": "SELECT length(string_agg(CAST(value AS TEXT), ',')) FROM generate_series(1, 20000000) AS s(value)",
    "distinct": "SELECT count(DISTINCT value) FROM generate_series(1, 20000000) AS s(value)",
    "sort": "SELECT value FROM generate_series(1, 20000000) AS s(value) ORDER BY value % 1000, value DESC LIMIT 5 OFFSET 10000000",
}

def test_statements_that_ask_for_too_much(watched):
    def job(sql, wanted):
        def run():
            told = answer(watched, sql)
            if wanted not in told:
                wrong.append((sql[:200], told))
        return run

    wrong = []
    for statement in REFUSED.values():
        job(*statement)()
    assert not wrong


@pytest.mark.skipif(not full_scale(), reason="takes minutes: OMENDB_TEST_SCALE=full")
@pytest.mark.parametrize("name", LONG)
def test_long_statements(watched, name):
    print(f"\n{name}: {answer(watched, LONG[name])}")


def put(server, path: str, batch: pa.RecordBatch, compression=None, times: int = 1) -> str:
    options = pa.flight.FlightCallOptions(write_options=pa.ipc.IpcWriteOptions(compression=compression))
    try:
        with server.flight() as client:
            writer, reader = client.do_put(pa.flight.FlightDescriptor.for_path(path), batch.schema, options)
            for _ in range(times):
                writer.write_batch(batch)
            writer.done_writing()
            reader.read()
            writer.close()
            return "loaded"
    except pa.ArrowException as e:
        return str(e)[:160]


def execute(server, *statements: str) -> None:
    with server.connect() as con, con.cursor() as cur:
        for sql in statements:
            cur.execute(sql)


def test_a_load_into_a_thousand_columns(watched):
    columns = ", ".join(f"c{i} DOUBLE" for i in range(1000))
    execute(watched, f"CREATE TABLE wide (k BIGINT PRIMARY KEY, {columns})")
    batch = pa.record_batch({"k": pa.array(range(500_000 if full_scale() else 200_000), pa.int64())})
    assert put(watched, "wide", batch) == "loaded"


def test_a_load_of_overlapping_list_views(watched):
    rows, values = 1000 if full_scale() else 450, pa.array(range(100_000), pa.int64())
    offsets, sizes = pa.array([0] * rows, pa.int32()), pa.array([len(values)] * rows, pa.int32())
    views = pa.ListViewArray.from_arrays(offsets, sizes, values)
    batch = pa.record_batch({"k": pa.array(range(rows), pa.int64()), "v": views})
    assert put(watched, "views", batch) == "loaded"


@pytest.mark.parametrize("claimed, told", [(256, "uncompressed"), (60, "loaded")])
def test_loads_of_messages_that_claim_more_than_they_are(watched, claimed, told):
    zeros = pa.Array.from_buffers(pa.int64(), claimed * MIB // 8, [None, pa.py_buffer(bytes(claimed * MIB))])
    batch = pa.record_batch({"k": zeros})
    answers = []
    times = 4 if full_scale() else 1
    at_once([lambda i=i: answers.append(put(watched, f"zeros{i}", batch, "lz4", times)) for i in range(16)])
    assert len(answers) == 16 and all(told in a for a in answers), answers


def test_connections_that_send_all_of_a_message_but_a_byte(watched):
    size = 60 * MIB
    message = b"\0" + struct.pack(">I", size) + bytes(size - 1)
    clients = [Http2(watched.port, timeout=5) for _ in range(40)]
    sent = []

    def job(client):
        (stream,) = client.begin("DoPut")
        sent.append(client.send(stream, message) // MIB)

    at_once([lambda c=c: job(c) for c in clients])
    assert max(sent) > 8 and sum(sent) < MEMORY, f"MiB that the server took: {sorted(sent)}"
    for client in clients:
        client.close()


def test_many_open_streams(watched):
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            client = Http2(watched.port)
            stack.callback(client.close)
            client.begin(*["DoPut", "DoGet"] * 500)
        # They are still there, and others can work.
        time.sleep(1)
        assert answer(watched, "SELECT 1") == "1 rows"


HALF_READ = {
    "scan": "SELECT * FROM t",
    "filtered": "SELECT * FROM t WHERE v LIKE '%x%'",
    "join": "SELECT a.k, a.v, b.v AS w FROM t a JOIN t b ON a.n = b.k",
    "cross": "SELECT a.k, a.v, b.v AS w FROM t a, t b",
    "sort": "SELECT * FROM t ORDER BY n DESC",
    "window": "SELECT k, v, row_number() OVER (ORDER BY n) FROM t",
}


@pytest.mark.parametrize("name", HALF_READ if full_scale() else ["scan", "filtered", "join"])
def test_results_that_are_half_read(watched, name):
    execute(
        watched,
        "CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT, v TEXT)",
        "INSERT INTO t SELECT value, 199999 - value, repeat('x', 100) FROM generate_series(0, 199999) AS s(value)",
    )
    unread = Unread(watched, HALF_READ[name], 200, connections=20)
    unread.wait()
    # Who finds no memory for a join or a sort is told so.
    assert unread.begun() > 0 and unread.begun() + unread.refused() == 200
    print(f"\n{unread.begun()} begun, {unread.refused()} refused")
    unread.close()
