"""Starting, stopping, killing: what was acknowledged is there afterwards."""

import os
import random
import threading
import time

import pyarrow as pa
import pyarrow.flight
import pytest

from conftest import full_scale
from messages import encode
from omendb_server import run

CYCLES = 1000 if full_scale() else 6
BULK = 70_000  # rows that go to segment files at once


def query(server, sql):
    with server.connect() as con, con.cursor() as cur:
        cur.execute(sql)
        return cur.fetchall()


def test_a_restart_keeps_everything(own_server):
    with own_server.connect() as con, con.cursor() as cur:
        cur.execute("CREATE TABLE a (id BIGINT PRIMARY KEY, v TEXT DEFAULT 'd')")
        cur.execute("CREATE TABLE b (at TIMESTAMPTZ, n INT) CLUSTER BY (at)")
        cur.execute("CREATE VIEW v AS SELECT id + 1 AS next FROM a")
        cur.execute("INSERT INTO a (id) VALUES (1), (2), (3)")
        cur.execute("UPDATE a SET v = 'x' WHERE id = 2")
        cur.execute("DELETE FROM a WHERE id = 3")
        cur.adbc_ingest("bulk", pa.table({"k": range(BULK)}).replace_schema_metadata({"primary_key": "k"}))
        cur.execute("DELETE FROM bulk WHERE k % 7 = 0")
    for stop in (own_server.kill, own_server.terminate, own_server.kill):
        stop()
        own_server.start()
        assert query(own_server, "SELECT * FROM a ORDER BY id") == [(1, "d"), (2, "x")]
        assert query(own_server, "SELECT next FROM v ORDER BY next") == [(2,), (3,)]
        assert query(own_server, "SELECT count(*) FROM b") == [(0,)]
        assert query(own_server, "SELECT count(*), sum(k) FROM bulk WHERE k >= 7000") == [
            (sum(1 for k in range(7000, BULK) if k % 7), sum(k for k in range(7000, BULK) if k % 7))
        ]


def test_a_log_that_names_files_which_are_gone(own_server):
    """Rows of a repeating key go from segments and from the memtable, then compaction removes the files."""
    with own_server.connect() as con, con.cursor() as cur:
        cur.execute("CREATE TABLE t (at BIGINT, n BIGINT) CLUSTER BY (at)")
        cur.adbc_ingest("t", pa.table({"at": [i // 10 for i in range(BULK)], "n": range(BULK)}), mode="append")
        cur.execute("INSERT INTO t VALUES (5, -1), (5, -2), (6999, -3), (7000, -4)")
        cur.execute("DELETE FROM t WHERE n IN (-1, -3) OR n % 1000 = 0")
        cur.execute("UPDATE t SET n = n - 1000000 WHERE at = 6000")
        cur.execute("DELETE FROM t WHERE n = -940000 + 5")
        with own_server.flight() as client:
            list(client.do_action(pa.flight.Action("omendb.Compact", encode({1: "t"}))))
        before = query(own_server, "SELECT * FROM t ORDER BY n")
    assert len(before) == BULK + 4 - 2 - BULK // 1000 - 1
    own_server.kill()
    own_server.start()
    assert query(own_server, "SELECT * FROM t ORDER BY n") == before


def test_sigterm_closes_cleanly(own_server):
    query(own_server, "SELECT 1")
    assert own_server.terminate() == 0


def test_sigterm_lets_running_work_finish(own_server):
    with own_server.connect() as con, con.cursor() as cur:
        cur.adbc_ingest("t", pa.table({"k": range(10 * BULK)}))
    client = own_server.flight()
    [endpoint] = client.get_flight_info(pa.flight.FlightDescriptor.for_path("t")).endpoints
    reader = client.do_get(endpoint.ticket)
    rows = reader.read_chunk().data.num_rows
    status = []
    stopping = threading.Thread(target=lambda: status.append(own_server.terminate(60)))
    stopping.start()
    rows += sum(chunk.data.num_rows for chunk in reader)
    assert rows == 10 * BULK
    client.close()
    stopping.join(60)
    assert status == [0]


def test_a_second_process_is_refused(own_server):
    second = run("serve", "--data-dir", str(own_server.data_dir), "--listen", "127.0.0.1:0")
    assert second.returncode != 0
    assert str(own_server.data_dir) in second.stderr
    assert query(own_server, "SELECT 1") == [(1,)]


def test_a_busy_port_is_named(own_server, tmp_path):
    second = run("serve", "--data-dir", str(tmp_path / "other"), "--listen", f"127.0.0.1:{own_server.port}")
    assert second.returncode != 0
    assert str(own_server.port) in second.stderr


class Writer(threading.Thread):
    """Writes statements one after the other and keeps what the table must hold.

    `groups` maps a group of rows to `(rows, version)` once a statement is acknowledged. The statement in flight is in
    `pending` as (group, before, after): a crash may leave either, and nothing between.
    """

    def __init__(self, number: int, seed: int):
        super().__init__(daemon=True)
        self.number, self.random = number, random.Random(seed)
        self.groups, self.pending, self.error = {}, None, None
        self.next_group = 0
        self.acknowledged = 0

    def keys(self, group: int, rows: int):
        # Scattered over the key domain, so that segments of different writers and times overlap.
        return [((group * 1_000_003 + row * 7_919) % 2**40) * 64 + self.number for row in range(rows)]

    def attach(self, server, stopping: threading.Event):
        self.server, self.stopping = server, stopping

    def run(self):
        try:
            with self.server.connect() as con, con.cursor() as cur:
                while not self.stopping.is_set():
                    self.step(cur)
        except Exception as error:  # What a killed server's clients see is of many kinds.
            if not self.stopping.is_set():
                self.error = error

    def step(self, cur):
        choice = self.random.random()
        group = self.random.choice(list(self.groups)) if self.groups and choice > 0.6 else None
        if group is None:
            self.insert(cur, bulk=choice < 0.03)
        elif choice > 0.8:
            rows, version = self.groups[group]
            self.change(cur, group, (rows, version + 1), "UPDATE ledger SET version = version + 1 WHERE grp = ?")
        else:
            self.change(cur, group, None, "DELETE FROM ledger WHERE grp = ?")

    def change(self, cur, group, after, sql):
        before = self.groups[group]
        self.pending = (group, before, after)
        cur.execute(sql, (group,))
        assert cur.rowcount == before[0], (sql, group, before, cur.rowcount)
        self.acknowledge()

    def insert(self, cur, bulk: bool):
        self.next_group += 1
        group = self.next_group * 64 + self.number
        rows = BULK if bulk else self.random.choice([1, 1, 3, 50, 2000])
        keys = self.keys(group, rows)
        self.pending = (group, None, (rows, 0))
        if rows > 10:
            batch = pa.table({"id": keys, "grp": [group] * rows, "version": pa.array([0] * rows, pa.int64())})
            cur.adbc_ingest("ledger", batch, mode="append")
        else:
            cur.execute("INSERT INTO ledger VALUES " + ", ".join(f"({key}, {group}, 0)" for key in keys))
        self.acknowledge()

    def acknowledge(self):
        group, _, after = self.pending
        self.settle(group, after)
        self.pending = None
        self.acknowledged += 1

    def settle(self, group, state):
        if state is None:
            self.groups.pop(group, None)
        else:
            self.groups[group] = state

    def fork(self):
        """A thread for the next cycle that goes on where this one stopped."""
        other = Writer(self.number, self.random.randrange(2**32))
        other.groups, other.next_group, other.acknowledged = self.groups, self.next_group, self.acknowledged
        return other


def check(server, writers):
    """The table holds what was acknowledged; a statement in flight is there whole or not at all."""
    found = {
        group: (rows, low, high, keys)
        for group, rows, low, high, keys in query(
            server, "SELECT grp, count(*), min(version), max(version), sum(id) FROM ledger GROUP BY grp"
        )
    }
    for writer in writers:
        if writer.pending is not None:
            group, before, after = writer.pending
            rows, low, high, _ = found.get(group, (0, None, None, 0))
            state = (rows, low) if rows else None
            assert state in (before, after) and low == high, f"partial statement: group {group} was {before}, to be {after}, is {state}"
            writer.settle(group, state)
            writer.pending = None
        for group, (rows, version) in writer.groups.items():
            assert group in found, f"lost: group {group} with {rows} rows"
            expected = (rows, version, version, sum(writer.keys(group, rows)))
            assert found.pop(group) == expected, f"group {group} should be {expected}"
    assert not found, f"rows that were deleted, or never acknowledged, are there: {found}"
    [(counted,)] = query(server, "SELECT count(*) FROM ledger")
    assert counted == sum(rows for w in writers for rows, _ in w.groups.values())


def test_nothing_acknowledged_is_lost_by_kill_9(own_server):
    seed = int(os.environ.get("OMENDB_TEST_SEED") or random.randrange(2**32))
    print(f"OMENDB_TEST_SEED={seed}")
    chance = random.Random(seed)
    with own_server.connect() as con, con.cursor() as cur:
        cur.execute("CREATE TABLE ledger (id BIGINT PRIMARY KEY, grp BIGINT NOT NULL, version BIGINT NOT NULL)")
    writers = [Writer(number, chance.randrange(2**32)) for number in range(4)]
    for cycle in range(CYCLES):
        writers = [w.fork() for w in writers]
        before = sum(w.acknowledged for w in writers)
        stopping = threading.Event()
        for writer in writers:
            writer.attach(own_server, stopping)
            writer.start()
        time.sleep(chance.uniform(0.05, 1.5))
        stopping.set()
        if chance.random() < 0.9:
            own_server.kill()
        else:
            for writer in writers:
                writer.join(60)
            own_server.terminate()
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive(), "a client hangs on a dead server"
            assert writer.error is None, f"cycle {cycle}: {writer.error!r}\n{own_server.tail()}"
        own_server.start()
        check(own_server, writers)
        print(f"cycle {cycle}: {sum(w.acknowledged for w in writers) - before} statements acknowledged")
    assert sum(w.acknowledged for w in writers) > CYCLES, "hardly anything was written"
