"""SQL through the ADBC driver's DBAPI."""

import contextlib
import datetime
import decimal

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest

UTC = datetime.timezone.utc


def rows(cur, sql, *parameters):
    cur.execute(sql, parameters or None)
    return cur.fetchall()


def test_rows_come_back_in_key_order(cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
    cur.execute(f"INSERT INTO {table} VALUES (3, 'c'), (-1, 'a'), (2, NULL)")
    assert rows(cur, f"SELECT * FROM {table} ORDER BY id") == [(-1, "a"), (2, None), (3, "c")]
    assert rows(cur, f"SELECT * FROM {table} ORDER BY id DESC LIMIT 1 OFFSET 1") == [(2, None)]
    assert rows(cur, f"SELECT name FROM {table} WHERE id = 3") == [("c",)]
    assert rows(cur, f"SELECT name FROM {table} WHERE id = 4") == []


def test_row_counts(cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v INT)")
    assert cur.rowcount == -1
    cur.execute(f"INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)")
    assert cur.rowcount == 3
    cur.execute(f"UPDATE {table} SET v = v + 1 WHERE id >= 2")
    assert cur.rowcount == 2
    cur.execute(f"DELETE FROM {table} WHERE id = 1")
    assert cur.rowcount == 1
    cur.execute(f"DELETE FROM {table} WHERE id = 1")
    assert cur.rowcount == 0
    assert rows(cur, f"SELECT id, v FROM {table} ORDER BY id") == [(2, 3), (3, 4)]


def test_a_statement_runs_once(cur, table):
    """The driver prepares, describes and fetches: only one of the calls may change anything."""
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v BIGINT)")
    cur.execute(f"INSERT INTO {table} VALUES (1, 0)")
    for _ in range(5):
        cur.execute(f"UPDATE {table} SET v = v + 1")
    cur.adbc_prepare(f"UPDATE {table} SET v = v + 100")
    with contextlib.suppress(flightsql.NotSupportedError):
        cur.adbc_execute_schema(f"UPDATE {table} SET v = v + 100")
    assert rows(cur, f"SELECT v FROM {table}") == [(5,)]


def test_returning(cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v BIGINT)")
    cur.execute(f"INSERT INTO {table} VALUES (1, 10), (2, 20) RETURNING id, v * 2 AS twice")
    assert sorted(cur.fetchall()) == [(1, 20), (2, 40)]
    assert rows(cur, f"SELECT count(*) FROM {table}") == [(2,)]
    cur.execute(f"DELETE FROM {table} WHERE id = 2 RETURNING v")
    assert cur.fetchall() == [(20,)]
    assert rows(cur, f"SELECT id FROM {table}") == [(1,)]


def test_on_conflict(cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v BIGINT)")
    cur.execute(f"INSERT INTO {table} VALUES (1, 10), (2, 20)")
    cur.execute(f"INSERT INTO {table} VALUES (2, 0), (3, 30) ON CONFLICT (id) DO NOTHING")
    assert cur.rowcount == 1
    cur.execute(f"INSERT INTO {table} VALUES (1, 5), (4, 40) ON CONFLICT (id) DO UPDATE SET v = {table}.v + excluded.v")
    assert cur.rowcount == 2
    assert rows(cur, f"SELECT id, v FROM {table} ORDER BY id") == [(1, 15), (2, 20), (3, 30), (4, 40)]


def test_parameters(cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT, at TIMESTAMPTZ, price DECIMAL(10, 2), ok BOOLEAN)")
    at = datetime.datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=UTC)
    cur.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", (1, "één", at, decimal.Decimal("12.34"), True))
    assert cur.rowcount == 1
    cur.execute(f"INSERT INTO {table} VALUES ($1, $2, $3, $4, $5)", (2, None, None, None, None))
    assert rows(cur, f"SELECT * FROM {table} WHERE id = ?", 1) == [(1, "één", at, decimal.Decimal("12.34"), True)]
    assert rows(cur, f"SELECT * FROM {table} WHERE id = $1", 2) == [(2, None, None, None, None)]
    assert rows(cur, f"SELECT id FROM {table} WHERE at BETWEEN ? AND ?", at, at) == [(1,)]
    assert rows(cur, f"SELECT id FROM {table} WHERE name = ? AND id > ?", "één", 0) == [(1,)]


def test_executemany(cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
    cur.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(i, None if i % 2 else f"n{i}") for i in range(1000)])
    assert cur.rowcount == 1000
    assert rows(cur, f"SELECT count(*), count(name), min(id), max(id) FROM {table}") == [(1000, 500, 0, 999)]
    cur.executemany(f"UPDATE {table} SET name = ? WHERE id = ?", [("x", 1), ("y", 3), ("z", -5)])
    assert cur.rowcount == 2
    cur.executemany(f"DELETE FROM {table} WHERE id = ?", [(i,) for i in range(10, 1000)])
    assert rows(cur, f"SELECT id, name FROM {table} WHERE name < 'zz' AND id IN (1, 2, 3)") == [(1, "x"), (2, "n2"), (3, "y")]


def test_executemany_is_one_transaction(cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
    with pytest.raises(flightsql.Error):
        cur.executemany(f"INSERT INTO {table} VALUES (?)", [(1,), (2,), (1,)])
    assert rows(cur, f"SELECT count(*) FROM {table}") == [(0,)]


def test_executescript(cur, table):
    cur.executescript(f"""
        CREATE TABLE {table} (id BIGINT PRIMARY KEY, v TEXT);
        INSERT INTO {table} VALUES (1, 'a;b'), (2, 'c'); -- a comment; with a semicolon
        DELETE FROM {table} WHERE id = 2;
    """)
    assert rows(cur, f"SELECT * FROM {table}") == [(1, "a;b")]


def test_a_script_that_fails_leaves_nothing(cur, table):
    with pytest.raises(flightsql.Error):
        cur.executescript(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY); INSERT INTO {table} VALUES (1), (1);")
    with pytest.raises(flightsql.Error, match=table):
        cur.execute(f"SELECT * FROM {table}")
        cur.fetchall()


def test_types_come_back_as_declared(cur, table):
    cur.execute(f"""CREATE TABLE {table} (
        k BIGINT PRIMARY KEY, i16 SMALLINT, i32 INT NOT NULL, f32 REAL, f64 DOUBLE, d DECIMAL(12, 3), b BOOLEAN, s TEXT,
        raw BYTEA, day DATE, t TIME, ts TIMESTAMP, tsz TIMESTAMPTZ, ms TIMESTAMP(3), s0 TIMESTAMP(0))""")
    cur.execute(f"""INSERT INTO {table} VALUES (1, -2, 3, 1.5, 2.5, 1234.567, true, 'text', X'00FF', DATE '1969-12-31',
        TIME '23:59:59.5', TIMESTAMP '2024-01-02 03:04:05.678901', TIMESTAMPTZ '2024-01-02 03:04:05+02',
        TIMESTAMP '2024-01-02 03:04:05.678', TIMESTAMP '2024-01-02 03:04:05')""")
    cur.execute(f"SELECT * FROM {table}")
    got = cur.fetch_arrow_table()
    assert [(f.name, f.type) for f in got.schema] == [
        ("k", pa.int64()), ("i16", pa.int16()), ("i32", pa.int32()), ("f32", pa.float32()), ("f64", pa.float64()),
        ("d", pa.decimal128(12, 3)), ("b", pa.bool_()), ("s", pa.string()), ("raw", pa.binary()), ("day", pa.date32()),
        ("t", pa.time64("us")), ("ts", pa.timestamp("us")), ("tsz", pa.timestamp("us", "UTC")),
        ("ms", pa.timestamp("ms")), ("s0", pa.timestamp("s")),
    ]
    assert {f.name for f in got.schema if not f.nullable} == {"k", "i32"}
    dt = datetime.datetime
    assert got.to_pylist() == [{
        "k": 1, "i16": -2, "i32": 3, "f32": 1.5, "f64": 2.5, "d": decimal.Decimal("1234.567"), "b": True, "s": "text",
        "raw": b"\x00\xff", "day": datetime.date(1969, 12, 31), "t": datetime.time(23, 59, 59, 500000),
        "ts": dt(2024, 1, 2, 3, 4, 5, 678901), "tsz": dt(2024, 1, 2, 1, 4, 5, tzinfo=UTC),
        "ms": dt(2024, 1, 2, 3, 4, 5, 678000), "s0": dt(2024, 1, 2, 3, 4, 5),
    }]


def test_a_cursor_closed_early_stops(con, table):
    with con.cursor() as cur:
        cur.execute(f"CREATE TABLE {table} AS SELECT value AS v FROM generate_series(1, 300000) AS g(value)")
        cur.execute(f"SELECT a.v FROM {table} a ORDER BY v")
        assert cur.fetchone() == (1,)
    with con.cursor() as cur:
        assert rows(cur, f"SELECT count(*) FROM {table}") == [(300000,)]


def test_partitions_can_be_read_on_another_connection(server, cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
    cur.execute(f"INSERT INTO {table} VALUES (1), (2)")
    partitions, schema = cur.adbc_execute_partitions(f"SELECT id FROM {table} WHERE id >= ?", (2,))
    assert schema.names == ["id"]
    with server.connect() as other, other.cursor() as reader:
        got = []
        for partition in partitions:
            reader.adbc_read_partition(partition)
            got += reader.fetchall()
    assert got == [(2,)]


def test_metadata(con, cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT, at TIMESTAMPTZ NOT NULL, note TEXT, PRIMARY KEY (at, id))")
    assert con.adbc_get_table_schema(table) == pa.schema([
        pa.field("id", pa.int64(), False), pa.field("at", pa.timestamp("us", "UTC"), False), pa.field("note", pa.string()),
    ])
    assert {"TABLE", "VIEW"} <= set(con.adbc_get_table_types())
    assert con.adbc_get_info()["vendor_name"] == "OmenDB"
    objects = con.adbc_get_objects(catalog_filter="omendb", db_schema_filter="pub%", table_name_filter=table).read_all().to_pylist()
    [catalog] = objects
    [schema] = catalog["catalog_db_schemas"]
    [found] = schema["db_schema_tables"]
    assert (catalog["catalog_name"], schema["db_schema_name"]) == ("omendb", "public")
    assert (found["table_name"], found["table_type"]) == (table, "TABLE")
    assert [c["column_name"] for c in found["table_columns"]] == ["id", "at", "note"]
    nothing = con.adbc_get_objects(table_name_filter="no_such_table").read_all().to_pylist()
    assert all(not s["db_schema_tables"] for c in nothing for s in c["catalog_db_schemas"] or [])


def test_a_pattern_is_a_pattern_and_text_is_text(con, cur, table):
    cur.execute(f'CREATE TABLE "{table}_x" (id BIGINT PRIMARY KEY)')
    try:
        for text in ["%'; DROP TABLE x; --", "SELECT * FROM t WHERE a LIKE '%\\_'", "\\", "(["]:
            con.adbc_get_objects(table_name_filter=text).read_all()
        names = con.adbc_get_objects(depth="tables", table_name_filter=f"{table}%").read_all().to_pylist()
        assert [t["table_name"] for c in names for s in c["catalog_db_schemas"] for t in s["db_schema_tables"]] == [f"{table}_x"]
    finally:
        cur.execute(f'DROP TABLE "{table}_x"')


@pytest.mark.parametrize("sql, kind, words", [
    ("SELECT * FROM no_such_table", flightsql.ProgrammingError, ["no_such_table"]),
    ("SELECT nme FROM {t}", flightsql.ProgrammingError, ["nme"]),
    ("SELEC 1", flightsql.ProgrammingError, ["SELEC"]),
    ("CREATE TABLE {t} (id BIGINT)", flightsql.Error, ["{t}", "exist"]),
    ("INSERT INTO {t} VALUES (1, 'again')", flightsql.Error, ["{t}", "1"]),
    ("INSERT INTO {t} VALUES (NULL, 'x')", flightsql.Error, ["id"]),
    ("INSERT INTO {t} VALUES ('not a number', 'x')", flightsql.Error, ["not a number"]),
    ("INSERT INTO {t} (id, nome) VALUES (9, 'x')", flightsql.Error, ["nome"]),
    ("DROP TABLE no_such_table", flightsql.Error, ["no_such_table"]),
    ("CREATE TABLE other (tags BIGINT[] PRIMARY KEY)", flightsql.Error, ["tags"]),
    ("CREATE TABLE other (a BIGINT, PRIMARY KEY (missing))", flightsql.Error, ["missing"]),
    ("BEGIN ISOLATION LEVEL SERIALIZABLE", flightsql.NotSupportedError, ["SERIALIZABLE"]),
    ("SAVEPOINT a", flightsql.Error, ["transaction"]),
    ("COPY {t} TO '/tmp/out.csv'", flightsql.Error, ["COPY"]),
    ("CREATE EXTERNAL TABLE e (a INT) STORED AS PARQUET LOCATION '/etc/passwd'", flightsql.Error, ["EXTERNAL"]),
    ("CREATE INDEX i ON {t} (name)", flightsql.Error, ["INDEX"]),
    ("SELECT 1 / 0", flightsql.Error, ["zero"]),
])
def test_errors_name_what_is_wrong(cur, table, sql, kind, words):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
    cur.execute(f"INSERT INTO {table} VALUES (1, 'one')")
    with pytest.raises(kind) as caught:
        cur.execute(sql.format(t=table))
        cur.fetchall()
    for word in words:
        assert word.format(t=table).lower() in str(caught.value).lower()
    assert rows(cur, f"SELECT * FROM {table}") == [(1, "one")]


def test_many_connections_at_once(server, table):
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
        cursor.adbc_ingest(table, pa.table({"id": range(1000)}), mode="append")
    connections = [server.connect() for _ in range(20)]
    cursors = [c.cursor() for c in connections]
    for i, cursor in enumerate(cursors):
        cursor.execute(f"SELECT id FROM {table} WHERE id >= {i} ORDER BY id")
    for i, cursor in enumerate(cursors):
        assert len(cursor.fetchall()) == 1000 - i
        cursor.close()
    for connection in connections:
        connection.close()
