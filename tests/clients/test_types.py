"""Each type by every way in and out: literals, bound values, loads; rows, schemas of queries, schemas of tables. It asks in our
words what the validation suite of ADBC's drivers asks (tests/validation), which is in no registry."""

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest

NOON, FAR, EPOCH = 1684158330123456789, 253402300799, 0


def instants(unit: str) -> list:
    """Times in a unit: now, the epoch, before it, and the ends of what fits years of four digits or the unit."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    ends = [-62135596800 * per_second, FAR * per_second] if unit != "ns" else [-(2**63) + 1, 2**63 - 1]
    return [NOON * per_second // 10**9, EPOCH, -14182939700 * per_second // 1000, *ends, None]


def timestamps(unit, zone=None):
    return pa.array(instants(unit), pa.timestamp(unit, zone))


def times(unit, bits):
    day = 86400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return pa.array([0, day // 2 + 1, day - 1, None], getattr(pa, f"time{bits}")(unit))


def decimals(*texts, precision=10, scale=2):
    return pa.array([*texts, None]).cast(pa.decimal128(precision, scale))


# The type in SQL, and values of the type that Arrow has for it.
TYPES = {
    "BOOLEAN": pa.array([True, False, None]),
    "SMALLINT": pa.array([-(2**15), 0, 2**15 - 1, None], pa.int16()),
    "INTEGER": pa.array([-(2**31), 0, 2**31 - 1, None], pa.int32()),
    "BIGINT": pa.array([-(2**63), 0, 2**63 - 1, None], pa.int64()),
    "REAL": pa.array([-3.5, 0, 3.4028234663852886e38, None], pa.float32()),
    "DOUBLE PRECISION": pa.array([-3.5, 0, 1.7976931348623157e308, None], pa.float64()),
    "NUMERIC(10, 2)": decimals("123.45", "0.00", "-999.99", "9999999.99"),
    "NUMERIC(38, 38)": decimals("0.1", "-0.00000000000000000000000000000000000001", precision=38, scale=38),
    "TEXT": pa.array(["", "a 'quoted' one", "世界 🚀", "x" * 100_000, None]),
    "VARCHAR(1000)": pa.array(["", "x" * 1000, "世" * 1000, None]),
    "BYTEA": pa.array([b"", b"\0", b"\xde\xad\xbe\xef", b"\xff" * 100_000, None]),
    "VARBINARY(1000)": pa.array([b"", b"\xff" * 1000, None]),
    "DATE": pa.array([19492, 0, -719162, 2932896, None], pa.date32()),
    "TIME(0)": times("s", 32),
    "TIME(3)": times("ms", 32),
    "TIME": times("us", 64),
    "TIME(9)": times("ns", 64),
    **{f"TIMESTAMP({p})": timestamps(unit) for p, unit in ((0, "s"), (3, "ms"), (6, "us"), (9, "ns"))},
    **{f"TIMESTAMP({p}) WITH TIME ZONE": timestamps(unit, "UTC") for p, unit in ((0, "s"), (3, "ms"), (6, "us"), (9, "ns"))},
}


def rows(values: pa.Array) -> pa.Table:
    return pa.table({"idx": pa.array(range(len(values)), pa.int64()), "value": values})


def read(cur, table: str) -> pa.Table:
    cur.execute(f"SELECT idx, value FROM {table} ORDER BY idx")
    return cur.fetch_arrow_table()


def assert_equal(got: pa.Table, wanted: pa.Table) -> None:
    assert got.schema.types == wanted.schema.types
    assert got["value"].combine_chunks().equals(wanted["value"].combine_chunks()), got["value"]


@pytest.mark.parametrize("sql", TYPES)
def test_bound_values(con, cur, table, sql):
    cur.execute(f"CREATE TABLE {table} (idx BIGINT PRIMARY KEY, value {sql})")
    cur.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows(TYPES[sql]))
    assert_equal(read(cur, table), rows(TYPES[sql]))
    wanted = rows(TYPES[sql]).schema.types
    assert cur.adbc_execute_schema(f"SELECT idx, value FROM {table}").types == wanted
    assert con.adbc_get_table_schema(table).types == wanted


@pytest.mark.parametrize("sql", TYPES)
def test_loads(con, cur, table, sql):
    data = rows(TYPES[sql])
    assert cur.adbc_ingest(table, data) == len(data)
    assert_equal(read(cur, table), data)
    with con.cursor() as other:
        assert other.adbc_ingest(table, data, mode="create_append") == len(data)
        with pytest.raises(flightsql.Error, match="ALREADY_EXISTS"):
            other.adbc_ingest(table, data.append_column("more", pa.array(range(len(data)))), mode="create_append")
        assert read(cur, table).num_rows == 2 * len(data)


@pytest.mark.parametrize("sql", [sql for sql, values in TYPES.items() if not pa.types.is_binary(values.type)])
def test_texts(cur, table, sql):
    """What a value looks like is a value again, cast or assigned."""
    cur.execute(f"CREATE TABLE {table} (idx BIGINT PRIMARY KEY, value {sql})")
    cur.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows(TYPES[sql]))
    cur.execute(f"SELECT CAST(CAST(value AS TEXT) AS {sql}) AS value, idx FROM {table} ORDER BY idx")
    assert_equal(cur.fetch_arrow_table().select(["idx", "value"]), rows(TYPES[sql]))


ENCODED = {
    "dictionary": (lambda a: a.dictionary_encode(), "TEXT"),
    "large": (lambda a: a.cast(pa.large_string()), "TEXT"),
    "view": (lambda a: a.cast(pa.string_view()), "TEXT"),
    "large bytes": (lambda a: a.cast(pa.large_binary()), "BYTEA"),
    "byte views": (lambda a: a.cast(pa.binary_view()), "BYTEA"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_other_encodings_of_values(cur, table, name):
    encode, sql = ENCODED[name]
    encoded = rows(encode(TYPES[sql]))
    cur.execute(f"CREATE TABLE {table} (idx BIGINT PRIMARY KEY, value {sql})")
    cur.executemany(f"INSERT INTO {table} VALUES (?, ?)", encoded)
    assert_equal(read(cur, table), rows(TYPES[sql]))
    cur.adbc_ingest(table, encoded, mode="replace")
    assert_equal(read(cur, table), rows(TYPES[sql]))


def test_half_floats_are_reals(cur, table):
    halves = pa.array([0.0, -0.00006103515625, 65504, None], pa.float16())
    cur.adbc_ingest(table, rows(halves))
    assert_equal(read(cur, table), rows(halves.cast(pa.float32())))


def test_decimals_of_negative_scale_are_whole_numbers(cur, table):
    hundreds = pa.array([99, -99, 10, None]).cast(pa.decimal128(19, 0)).cast(pa.int64())
    values = pa.array([v and v * 100 for v in hundreds.to_pylist()], pa.decimal128(2, -2))
    cur.adbc_ingest(table, rows(values))
    assert_equal(read(cur, table), rows(values.cast(pa.decimal128(4, 0))))


def test_zones_and_fixed_sizes_come_back_as_they_went_in(cur, table):
    data = pa.table({"idx": pa.array([0, 1], pa.int64()), "value": pa.array([0, None], pa.timestamp("ms", "Asia/Tokyo"))})
    data = data.append_column("fixed", pa.array([b"abc", None], pa.binary(3)))
    cur.adbc_ingest(table, data)
    cur.execute(f"SELECT * FROM {table} ORDER BY idx")
    assert cur.fetch_arrow_table().equals(data)


def test_a_load_names_the_catalog_and_the_schema(con, cur, table):
    cur.execute(f"CREATE SCHEMA {table}")
    with con.cursor() as loader:
        for _ in range(2):
            options = {"catalog_name": "omendb", "db_schema_name": table}
            loader.adbc_ingest("t", rows(pa.array([1, 2])), mode="create_append", **options)
    assert read(cur, f"{table}.t").num_rows == 4
    cur.execute(f"DROP TABLE {table}.t")
    cur.execute(f"DROP SCHEMA {table}")


def test_the_server_names_itself(con):
    info = con.adbc_get_info()
    assert info["vendor_name"] == "OmenDB" and info["vendor_version"] and info["vendor_arrow_version"]
    assert (con.adbc_current_catalog, con.adbc_current_db_schema) == ("omendb", "public")
