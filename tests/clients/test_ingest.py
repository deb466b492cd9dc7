"""Bulk loads through the ADBC driver."""

import decimal
import random

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.compute as pc
import pytest

MANY = 150_000  # more than the write-ahead log takes row by row


def fetch(cur, sql):
    cur.execute(sql)
    return cur.fetch_arrow_table()


def count(cur, table):
    cur.execute(f'SELECT count(*) FROM "{table}"')
    return cur.fetchone()[0]


def keyed(data: pa.Table, **metadata: str) -> pa.Table:
    return data.replace_schema_metadata(metadata)


def readings(first, n, step=1):
    """`n` rows whose key `ts` counts up from `first`."""
    ts = pa.array(range(first, first + n * step, step), pa.int64())
    return pa.table({"ts": ts, "value": pc.multiply(pc.cast(ts, pa.float64()), 0.5)})


def test_create_makes_the_table(cur, table):
    schema = pa.schema([pa.field("ts", pa.int64(), False), pa.field("value", pa.float64())])
    assert cur.adbc_ingest(table, readings(0, 10).cast(schema)) == 10
    got = fetch(cur, f"SELECT * FROM {table}")
    assert got.schema.equals(schema) and got.num_rows == 10
    with pytest.raises(flightsql.Error, match=table):
        cur.adbc_ingest(table, readings(10, 10), mode="create")
    assert count(cur, table) == 10


def test_create_takes_the_primary_key_from_the_schema(cur, table):
    assert cur.adbc_ingest(table, keyed(readings(0, 10), primary_key="ts")) == 10
    with pytest.raises(flightsql.Error, match="(?s)" + table) as caught:
        cur.adbc_ingest(table, readings(5, 20), mode="append")
    assert "5" in str(caught.value)
    assert count(cur, table) == 10
    cur.execute(f"SELECT value FROM {table} WHERE ts = 3")
    assert cur.fetchall() == [(1.5,)]


def test_create_takes_a_repeating_key_from_the_schema(cur, table):
    data = pa.table({"at": pa.array([5, 1, 5, 3, 1], pa.timestamp("us")), "n": [0, 1, 2, 3, 4]})
    assert cur.adbc_ingest(table, keyed(data, cluster_by="at")) == 5
    assert fetch(cur, f"SELECT n FROM {table} ORDER BY at, n")["n"].to_pylist() == [1, 4, 3, 0, 2]
    cur.execute(f"SELECT count(*) FROM {table} WHERE at = TIMESTAMP '1970-01-01 00:00:00.000005'")
    assert cur.fetchone() == (2,)


def test_composite_key(cur, table):
    data = pa.table({"series": pa.array([2, 1, 2, 1], pa.int32()), "at": pa.array([1, 2, 0, 1], pa.int64()), "v": list("abcd")})
    cur.adbc_ingest(table, keyed(data, primary_key="series,at"))
    assert fetch(cur, f"SELECT v FROM {table} ORDER BY series, at")["v"].to_pylist() == ["d", "b", "c", "a"]
    cur.execute(f"SELECT v FROM {table} WHERE series = 2 AND at >= 1")
    assert cur.fetchall() == [("a",)]


def test_modes(cur, table):
    with pytest.raises(flightsql.Error, match=table):
        cur.adbc_ingest(table, readings(0, 5), mode="append")
    assert cur.adbc_ingest(table, keyed(readings(0, 5), primary_key="ts"), mode="create_append") == 5
    assert cur.adbc_ingest(table, readings(5, 5), mode="create_append") == 5
    assert cur.adbc_ingest(table, readings(10, 5), mode="append") == 5
    assert count(cur, table) == 15
    other = pa.table({"name": ["x"], "n": [1]})
    assert cur.adbc_ingest(table, keyed(other, primary_key="name"), mode="replace") == 1
    assert fetch(cur, f"SELECT * FROM {table}").to_pylist() == [{"name": "x", "n": 1}]


def test_ingest_into_a_schema(cur, table):
    cur.execute(f"CREATE SCHEMA s_{table}")
    try:
        cur.adbc_ingest("t", readings(0, 3), db_schema_name=f"s_{table}")
        cur.execute(f"SELECT count(*) FROM s_{table}.t")
        assert cur.fetchone() == (3,)
    finally:
        cur.execute(f"DROP TABLE IF EXISTS s_{table}.t")
        cur.execute(f"DROP SCHEMA s_{table}")


@pytest.mark.parametrize("policy, expected", [("ignore", 10.0), ("replace", -1.0)])
def test_conflict_policy(cur, table, policy, expected):
    cur.adbc_ingest(table, keyed(readings(0, 100), primary_key="ts"))
    late = pa.table({"ts": [20, 200], "value": [-1.0, -2.0]})
    cur.adbc_ingest(table, keyed(late, on_conflict=policy), mode="append")
    assert count(cur, table) == 101
    cur.execute(f"SELECT value FROM {table} WHERE ts IN (20, 200) ORDER BY ts")
    assert cur.fetchall() == [(expected,), (-2.0,)]


@pytest.mark.parametrize("policy, expected", [("error", None), ("ignore", "first"), ("replace", "last")])
@pytest.mark.parametrize("between", [0, MANY])
def test_duplicates_within_a_load(cur, table, policy, expected, between):
    """The two equal keys are apart by more than one sorted run of the load."""
    middle = list(range(between))
    data = pa.table({"k": [-5, *middle, -5], "v": ["first", *["" for _ in middle], "last"]})
    load = keyed(data, primary_key="k", on_conflict=policy)
    if expected is None:
        with pytest.raises(flightsql.Error, match="-5"):
            cur.adbc_ingest(table, load)
        with pytest.raises(flightsql.Error, match=table):
            count(cur, table)
    else:
        cur.adbc_ingest(table, load)
        assert count(cur, table) == between + 1
        cur.execute(f"SELECT v FROM {table} WHERE k = -5")
        assert cur.fetchall() == [(expected,)]


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_large_load(cur, table, shuffled):
    keys = list(range(0, 3 * MANY, 3))
    if shuffled:
        random.Random(7).shuffle(keys)
    data = pa.table({"k": pa.array(keys, pa.int64()), "twice": pa.array([2 * k for k in keys], pa.int64())})
    reader = pa.RecordBatchReader.from_batches(data.schema.with_metadata({"primary_key": "k"}), data.to_batches(10_000))
    assert cur.adbc_ingest(table, reader) == MANY
    got = fetch(cur, f"SELECT * FROM {table} ORDER BY k")
    assert got["k"].to_pylist() == list(range(0, 3 * MANY, 3))
    assert pc.all(pc.equal(pc.multiply(got["k"], 2), got["twice"])).as_py()
    assert count(cur, table) == MANY
    cur.execute(f"SELECT count(*), min(k), max(k) FROM {table} WHERE k > 299 AND k <= 3000")
    assert cur.fetchone() == (901, 300, 3000)
    cur.execute(f"SELECT k FROM {table} ORDER BY k LIMIT 2 OFFSET 100000")
    assert cur.fetchall() == [(300000,), (300003,)]
    cur.execute(f"DELETE FROM {table} WHERE k % 2 = 1")
    assert cur.rowcount == MANY // 2
    cur.execute(f"SELECT count(*) FROM {table} WHERE k < 600")
    assert cur.fetchone() == (100,)


def test_columns_are_matched_by_name_and_cast_where_nothing_is_lost(cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, price DECIMAL(10, 2), note TEXT DEFAULT 'none')")
    cur.adbc_ingest(table, pa.table({"price": pa.array([1, 2], pa.int32()), "id": pa.array([7, 8], pa.int16())}), mode="append")
    assert fetch(cur, f"SELECT * FROM {table} ORDER BY id").to_pylist() == [
        {"id": 7, "price": decimal.Decimal("1.00"), "note": "none"}, {"id": 8, "price": decimal.Decimal("2.00"), "note": "none"},
    ]


@pytest.mark.parametrize("column, values, words", [
    ("small", pa.array([1, 70_000], pa.int64()), ["small", "70000"]),
    ("small", pa.array(["1", "x"]), ["small"]),
    ("whole", pa.array([1.0, 1.5]), ["whole", "1.5"]),
    ("id", pa.array([1, None], pa.int64()), ["id", "null"]),
    ("surplus", pa.array([1, 2]), ["surplus"]),
])
def test_a_cast_that_loses_something_is_refused(cur, table, column, values, words):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, small SMALLINT, whole BIGINT)")
    columns = {"id": pa.array([10, 11], pa.int64())} | {column: values}
    with pytest.raises(flightsql.Error) as caught:
        cur.adbc_ingest(table, pa.table(columns), mode="append")
    for word in words:
        assert word in str(caught.value).lower()
    assert count(cur, table) == 0


def test_arrow_types_come_back(cur, table):
    data = pa.table({
        "k": pa.array([1, 2], pa.uint64()),
        "view": pa.array(["a", None], pa.string_view()),
        "large": pa.array(["b", None], pa.large_string()),
        "dictionary": pa.array(["c", None]).dictionary_encode(),
        "list": pa.array([[1, None], None], pa.list_(pa.int32())),
        "struct": pa.array([{"x": 1, "y": "z"}, None]),
        "second": pa.array([5, None], pa.timestamp("s")),
        "zoned": pa.array([5, None], pa.timestamp("ns", "Europe/Paris")),
        "day64": pa.array([86_400_000, None], pa.date64()),
        "half": pa.array([1.5, None], pa.float32()).cast(pa.float16()),
        "fixed": pa.array([b"1234", None], pa.binary(4)),
        "duration": pa.array([5, None], pa.duration("ms")),
        "null": pa.nulls(2),
    })
    cur.adbc_ingest(table, keyed(data, primary_key="k"))
    got = fetch(cur, f"SELECT * FROM {table} ORDER BY k")
    assert got.schema.field("zoned").type == pa.timestamp("ns", "Europe/Paris")
    assert got.schema.field("second").type == pa.timestamp("s")
    assert got.schema.field("day64").type == pa.date64()
    assert got.to_pylist() == data.to_pylist()


@pytest.mark.parametrize("key", [
    pa.array([3, 1, 2], pa.int8()), pa.array([2**64 - 1, 0, 2**63], pa.uint64()), pa.array([-(2**63), 2**63 - 1, 0], pa.int64()),
    pa.array([0.5, -1.0, float("inf")], pa.float64()), pa.array([5, -5, 0], pa.date32()), pa.array([5, -5, 0], pa.timestamp("ns", "UTC")),
    pa.array([decimal.Decimal("1.10"), decimal.Decimal("-2.00"), decimal.Decimal("0.01")], pa.decimal128(30, 2)),
    pa.array(["b", "", "ä"]), pa.array([b"\x00", b"", b"\xff"], pa.binary()), pa.array([5, 4, 3], pa.time64("us")),
], ids=lambda a: re_id(a.type))
def test_key_types(cur, table, key):
    data = pa.table({"k": key, "n": range(3)})
    cur.adbc_ingest(table, keyed(data, primary_key="k"))
    got = fetch(cur, f"SELECT k, n FROM {table} ORDER BY k")
    assert got.to_pylist() == data.sort_by("k").to_pylist()
    first = got["k"][0].as_py()
    cur.execute(f"SELECT n FROM {table} WHERE k = ?", pa.record_batch({"0": got["k"].combine_chunks()[:1]}))
    assert cur.fetchall() == [(got["n"][0].as_py(),)], first
    with pytest.raises(flightsql.Error):
        cur.adbc_ingest(table, data, mode="append")


def re_id(kind: pa.DataType) -> str:
    return "".join(c if c.isalnum() else "_" for c in str(kind))


@pytest.mark.parametrize("key, words", [
    (pa.array([1.0, float("nan")]), ["nan"]), (pa.array([1, None]), ["null"]), (pa.array([[1], [2]]), ["list"]),
], ids=["nan", "null", "list"])
def test_keys_that_cannot_be(cur, table, key, words):
    with pytest.raises(flightsql.Error) as caught:
        cur.adbc_ingest(table, keyed(pa.table({"the_key": key}), primary_key="the_key"))
    assert all(word in str(caught.value).lower() for word in ["the_key", *words])
    with pytest.raises(flightsql.Error, match=table):
        count(cur, table)


def test_a_key_column_that_is_not_there(cur, table):
    with pytest.raises(flightsql.Error, match="missing"):
        cur.adbc_ingest(table, keyed(readings(0, 3), primary_key="missing"))


def test_a_load_that_fails_midway_leaves_nothing(cur, table):
    """The last batch of a long stream does not fit."""
    good = readings(0, MANY)
    batches = [*good.to_batches(20_000), pa.record_batch({"ts": [7], "value": [0.0]})]
    schema = good.schema.with_metadata({"primary_key": "ts"})
    cur.execute(f"CREATE TABLE {table} (ts BIGINT PRIMARY KEY, value DOUBLE)")
    with pytest.raises(flightsql.Error, match="7"):
        cur.adbc_ingest(table, pa.RecordBatchReader.from_batches(schema, batches), mode="append")
    assert count(cur, table) == 0
    assert cur.adbc_ingest(table, good, mode="append") == MANY


def test_a_stream_that_breaks_leaves_nothing(server, cur, table):
    """The client fails after it sent most of its rows."""
    cur.execute(f"CREATE TABLE {table} (ts BIGINT PRIMARY KEY, value DOUBLE)")

    def batches():
        yield from readings(0, MANY).to_batches(20_000)
        raise RuntimeError("the client fails")

    with server.connect() as other, other.cursor() as loader, pytest.raises(Exception):
        loader.adbc_ingest(table, pa.RecordBatchReader.from_batches(readings(0, 1).schema, batches()), mode="append")
    assert count(cur, table) == 0


def test_no_rows(cur, table):
    """The driver sends an empty table as a call without a descriptor: the error must help."""
    empty = pa.table({"id": pa.array([], pa.int64())})
    try:
        cur.adbc_ingest(table, empty)
    except flightsql.Error as error:
        assert "descriptor" in str(error).lower() or "empty" in str(error).lower()
