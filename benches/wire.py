#!/usr/bin/env python3
"""Drives OmenDB and the bare servers of `benches/wire.rs` from one client and prints a table of medians.

    cargo bench --bench wire              every part
    cargo bench --bench wire -- get put   some parts

Parts: get, put, duckdb, point, count, memory, restart, loads. Needs the packages of tests/clients/requirements.txt: name a
Python that has them in OMENDB_BENCH_PYTHON. OMENDB_BENCH_DIR is where data directories go (default: a temporary
directory), OMENDB_BENCH_RUNS how many interleaved runs a median is taken of (default 5).
"""

import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "clients"))
from omendb_server import LISTENING, Server  # noqa: E402
from messages import decode, encode  # noqa: E402

RUNS = int(os.environ.get("OMENDB_BENCH_RUNS", "5"))
HOT_ROWS = 10_000_000
BATCH_ROWS = 64 * 1024
ROW_BYTES = 32
TICKS = os.sysconf("SC_CLK_TCK")
SCHEMA = pa.schema([
    pa.field("k", pa.int64(), False), pa.field("a", pa.int64()), pa.field("b", pa.float64()), pa.field("c", pa.int64()),
])
DDL = "CREATE TABLE {} (k BIGINT PRIMARY KEY, a BIGINT, b DOUBLE, c BIGINT)"
RESULTS = []


def say(text):
    print(text, file=sys.stderr, flush=True)


def report(what, ours, theirs, unit, target):
    """Keeps one line of the final table: medians of both, and the ratio that the target speaks of."""
    ours, theirs = statistics.median(ours), statistics.median(theirs) if theirs else None
    ratio = ours / theirs if theirs else ours
    RESULTS.append((what, ours, theirs, unit, ratio, target))
    say(f"  {what}: {ours:.4g} {unit}" + (f" against {theirs:.4g}: {ratio:.3f}" if theirs else "") + f" (target {target})")


def command(name, fields):
    """A Flight SQL command wrapped in Any."""
    return encode({1: f"type.googleapis.com/arrow.flight.protocol.sql.{name}", 2: encode(fields)})


def rows_of(first, n, shuffle=None, step=2):
    """Rows like those of the bare server: keys count up in twos."""
    keys = np.arange(first, first + n, dtype=np.int64)
    if shuffle is not None:
        keys = shuffle[first:first + n]
    return pa.record_batch([pa.array(keys * step), pa.array(keys % 1000), pa.array(keys * 0.5), pa.array(keys)], schema=SCHEMA)


def batches_of(rows, shuffle=None):
    for first in range(0, rows, BATCH_ROWS):
        yield rows_of(first, min(BATCH_ROWS, rows - first), shuffle)


class Peer:
    """The bare server as a process."""

    def __init__(self, parquet):
        self.process = subprocess.Popen(
            [os.environ["OMENDB_BENCH_PEER"], "peer", str(parquet)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )
        self.port = int(LISTENING.search(self.process.stdout.readline())[1])
        self.uri = f"grpc://127.0.0.1:{self.port}"

    def close(self):
        self.process.kill()
        self.process.wait()


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(pid):
    """The most memory that a process held since `reset_peak`."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def reset_peak(pid):
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def sql(server, *texts):
    """Runs statements; returns the rows of the last."""
    with server.connect() as con, con.cursor() as cur:
        for text in texts:
            cur.execute(text)
        return cur.fetchall() if cur.description else None


def put(uri, table, batches, mode="append"):
    """Loads batches as an ADBC client would, and returns when they are acknowledged."""
    # TableDefinitionOptions: if_not_exist is 1 (create) or 2 (fail), if_exists 1 (fail) or 2 (append).
    options = {"append": {1: 2, 2: 2}, "create": {1: 1, 2: 1}}[mode]
    descriptor = flight.FlightDescriptor.for_command(command("CommandStatementIngest", {1: encode(options), 2: table}))
    with flight.connect(uri) as client:
        writer, reader = client.do_put(descriptor, SCHEMA)
        for batch in batches:
            writer.write_batch(batch)
        writer.done_writing()
        answer = decode(reader.read().to_pybytes())
        writer.close()
    return answer.get(1, [0])[0]


def get(uri, text):
    """Streams a query's rows and drops them; returns rows and seconds."""
    with flight.connect(uri) as client:
        began = time.perf_counter()
        info = client.get_flight_info(flight.FlightDescriptor.for_command(command("CommandStatementQuery", {1: text})))
        rows = 0
        for endpoint in info.endpoints:
            for chunk in client.do_get(endpoint.ticket):
                rows += chunk.data.num_rows
        return rows, time.perf_counter() - began


@contextlib.contextmanager
def omendb(folder, name, *args):
    data = pathlib.Path(folder) / name
    server = Server(data, *args).start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(data, ignore_errors=True)


def part_get(folder, peer):
    """A hot key range, with and without deleted rows, and uncached."""
    text = f"SELECT * FROM t WHERE k >= 0 AND k < {2 * HOT_ROWS}"
    with omendb(folder, "get") as server:
        sql(server, DDL.format("t"))
        put(server.uri, "t", batches_of(HOT_ROWS))

        def compare(what, target, expected, before=lambda: None):
            ours, theirs = [], []
            for _ in range(RUNS):
                before()
                rows, seconds = get(server.uri, text)
                assert rows == expected, (rows, expected)
                ours.append(rows * ROW_BYTES / seconds / 1e9)
                rows, seconds = get(peer.uri, "hot")
                theirs.append(rows * ROW_BYTES / seconds / 1e9)
            report(what, ours, theirs, "GB/s", target)

        def restart():
            server.kill()
            server.start()

        get(server.uri, text)
        compare("DoGet, hot", ">= 0.9", HOT_ROWS)
        compare("DoGet, uncached", ">= 0.5", HOT_ROWS, restart)
        sql(server, "DELETE FROM t WHERE k % 200 = 14")
        get(server.uri, text)
        compare("DoGet, hot, 1 % deleted", ">= 0.8", HOT_ROWS - HOT_ROWS // 100)


def part_put(folder, peer):
    """Sorted and unsorted loads beside a sink and a plain Parquet writer."""
    shuffle = np.random.default_rng(7).permutation(HOT_ROWS).astype(np.int64)
    inputs = {"sorted": list(batches_of(HOT_ROWS)), "unsorted": list(batches_of(HOT_ROWS, shuffle))}
    times = {name: [] for name in ("sorted", "unsorted", "sink", "parquet")}
    with omendb(folder, "put") as server:
        for run in range(RUNS):
            for name in times:
                source = inputs["unsorted" if name == "unsorted" else "sorted"]
                began = time.perf_counter()
                if name in inputs:
                    sql(server, DDL.format("t"))
                    began = time.perf_counter()
                    rows = put(server.uri, "t", source)
                else:
                    rows = put(peer.uri, name, source)
                times[name].append(HOT_ROWS * ROW_BYTES / (time.perf_counter() - began) / 1e9)
                assert rows == HOT_ROWS, (name, rows)
                if name in inputs:
                    sql(server, "DROP TABLE t")
    report("DoPut, sorted, against a sink", times["sorted"], times["sink"], "GB/s", ">= 0.35")
    report("DoPut, unsorted, against a sink", times["unsorted"], times["sink"], "GB/s", ">= 0.15")
    report("DoPut, sorted, against Parquet with fsync", times["sorted"], times["parquet"], "GB/s", "beside")


def part_duckdb(folder, _peer):
    """The same load into DuckDB with a primary key, from Arrow in its own process."""
    table = pa.Table.from_batches(batches_of(HOT_ROWS))
    ours, theirs = [], []
    with omendb(folder, "duckdb-ours") as server:
        for run in range(min(RUNS, 3)):
            sql(server, DDL.format("t"))
            began = time.perf_counter()
            put(server.uri, "t", table.to_batches(BATCH_ROWS))
            ours.append(HOT_ROWS / (time.perf_counter() - began) / 1e6)
            sql(server, "DROP TABLE t")
            path = pathlib.Path(folder) / f"{run}.duckdb"
            con = duckdb.connect(str(path))
            con.execute(DDL.format("t"))
            con.register("source", table)
            began = time.perf_counter()
            con.execute("INSERT INTO t SELECT * FROM source")
            con.execute("CHECKPOINT")
            theirs.append(HOT_ROWS / (time.perf_counter() - began) / 1e6)
            con.close()
            path.unlink()
    report("load with a primary key, against DuckDB", ours, theirs, "Mrows/s", ">= 8")


def latencies(cur, keys, text, parameters):
    out = []
    for key in keys:
        began = time.perf_counter()
        cur.execute(text if parameters else text.replace("?", str(key)), (key,) if parameters else None)
        rows = cur.fetchall()
        out.append((time.perf_counter() - began) * 1e6)
        assert len(rows) == 1, (key, rows)
    return out


def part_point(folder, peer):
    """Point reads through ADBC, as text and prepared, and the server's share of them."""
    rows = 1_000_000
    text = "SELECT k, a, b, c FROM t WHERE k = ?"
    with omendb(folder, "point") as server:
        sql(server, DDL.format("t"))
        put(server.uri, "t", batches_of(rows))
        connections = [flightsql.connect(uri, autocommit=True) for uri in (server.uri, peer.uri)]
        cursors = [c.cursor() for c in connections]
        random = np.random.default_rng(3)
        for name, parameters in (("text", False), ("prepared", True)):
            medians, cpu = ([], []), ([], [])
            for _ in range(RUNS):
                keys = [int(k) * 2 for k in random.integers(0, rows, 1000)]
                for i, (cur, pid) in enumerate(zip(cursors, (server.process.pid, peer.process.pid))):
                    before = cpu_seconds(pid)
                    medians[i].append(statistics.median(latencies(cur, keys, text, parameters)))
                    cpu[i].append((cpu_seconds(pid) - before) / len(keys) * 1e6)
            report(f"point read, {name}", *medians, "us", "<= 1.15")
            report(f"server CPU of a point read, {name}, all calls", *cpu, "us", "beside")
        for cur, con in zip(cursors, connections):
            cur.close()
            con.close()


def part_count(folder, _peer):
    """COUNT(*) over few and many keys: with deleted rows, overlapping segments and rows in the memtable."""
    with omendb(folder, "count") as server:
        sql(server, DDL.format("t"))
        put(server.uri, "t", batches_of(HOT_ROWS))
        overlap = pa.record_batch([pa.array([20 * k + 1 for k in range(500_000)]), *rows_of(0, 500_000).columns[1:]], schema=SCHEMA)
        put(server.uri, "t", [overlap])
        sql(server, "DELETE FROM t WHERE k % 200 = 14", "INSERT INTO t VALUES (15, 1, 1, 1), (10000007, 1, 1, 1)")
        few, many = [], []
        with server.connect() as con, con.cursor() as cur:
            def once(width):
                began = time.perf_counter()
                cur.execute(f"SELECT count(*) FROM t WHERE k >= 10000 AND k < {10_000 + 2 * width}")
                [(n,)] = cur.fetchall()
                assert n > width * 0.9
                return (time.perf_counter() - began) * 1e6
            for _ in range(200 * RUNS):
                few.append(once(1_000))
                many.append(once(9_900_000))
    report("COUNT(*) over 10^7 keys, against 10^3", many, few, "us", "<= 1.2")


def part_memory(folder, _peer):
    """Resident memory while 30 M rows come and go."""
    rows = 30_000_000
    with omendb(folder, "memory") as server:
        sql(server, DDL.format("t"))
        pid = server.process.pid
        reset_peak(pid)
        put(server.uri, "t", batches_of(rows))
        report("peak memory, 30 M sorted rows loaded", [peak_bytes(pid) / 2**20], None, "MiB", "<= 1324")
        reset_peak(pid)
        assert get(server.uri, "SELECT * FROM t")[0] == rows
        report("peak memory, 30 M rows streamed out", [peak_bytes(pid) / 2**20], None, "MiB", "<= 1324")
        sql(server, "DROP TABLE t", DDL.format("t"))
        reset_peak(pid)
        shuffle = np.random.default_rng(7).permutation(rows).astype(np.int64)
        put(server.uri, "t", batches_of(rows, shuffle))
        report("peak memory, 30 M unsorted rows loaded", [peak_bytes(pid) / 2**20], None, "MiB", "<= 1324")


def part_restart(folder, _peer):
    """Start after kill -9 with a log as full as it gets and scattered deletes."""
    with omendb(folder, "restart") as server:
        sql(server, DDL.format("t"))
        put(server.uri, "t", batches_of(HOT_ROWS))
        scattered = [int(k) * 2 for k in np.random.default_rng(5).choice(HOT_ROWS, 100_000, replace=False)]
        with server.connect() as con, con.cursor() as cur:
            for at in range(0, len(scattered), 1000):
                cur.execute(f"DELETE FROM t WHERE k IN ({','.join(map(str, scattered[at:at + 1000]))})")
            for at in range(55):
                # About a megabyte each: together just below what the log may hold before a checkpoint.
                cur.adbc_ingest("t", pa.Table.from_batches([rows_of(HOT_ROWS + at * 30_000, 30_000)]), mode="append")
        times = []
        for _ in range(RUNS):
            server.kill()
            began = time.perf_counter()
            server.start()
            times.append(time.perf_counter() - began)
        [(n,)] = sql(server, "SELECT count(*) FROM t")
        assert n == HOT_ROWS - 100_000 + 55 * 30_000, n
    report("restart to ready", times, None, "s", "<= 1")


def part_loads(folder, _peer):
    """A thousand loads in random key order."""
    loads, rows = 1000, 5_000
    keys = np.random.default_rng(11).permutation(loads * rows).astype(np.int64)
    with omendb(folder, "loads") as server:
        sql(server, DDL.format("t"))
        for at in range(loads):
            put(server.uri, "t", [rows_of(at * rows, rows, keys)])
        time.sleep(5)
        io = dict(line.split(": ") for line in pathlib.Path(f"/proc/{server.process.pid}/io").read_text().splitlines())
        disk = sum(f.stat().st_size for f in server.data_dir.rglob("*") if f.is_file())
        [(n,)] = sql(server, "SELECT count(*) FROM t")
        assert n == loads * rows, n
        say("  plan of a point read:\n" + "\n".join(map(str, sql(server, "EXPLAIN SELECT * FROM t WHERE k = 5000000"))))
        say("  segments:\n" + str(sql(server, "SELECT count(*) FROM omendb.segments")))
    live = loads * rows * ROW_BYTES
    report("write amplification after 1,000 loads", [int(io["write_bytes"]) / live], None, "x", "<= 10")
    report("disk against live data after 1,000 loads", [disk / live], None, "x", "<= 1.5")


PARTS = {name.removeprefix("part_"): f for name, f in globals().items() if name.startswith("part_")}


def main():
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := [p for p in chosen if p not in PARTS]:
        sys.exit(f"no part {unknown}: there are {', '.join(PARTS)}\n{__doc__}")
    with tempfile.TemporaryDirectory(dir=os.environ.get("OMENDB_BENCH_DIR")) as folder:
        peer = Peer(pathlib.Path(folder) / "bare.parquet")
        try:
            for name in chosen:
                say(f"{name}: {PARTS[name].__doc__}")
                PARTS[name](folder, peer)
        finally:
            peer.close()
    print("| what | OmenDB | beside | unit | ratio | target |\n|---|---|---|---|---|---|")
    for what, ours, theirs, unit, ratio, target in RESULTS:
        print(f"| {what} | {ours:.4g} | {'' if theirs is None else f'{theirs:.4g}'} | {unit} | {ratio:.3g} | {target} |")


if __name__ == "__main__":
    main()
