"""The engines under comparison, each behind the same three calls: `run`, `script`, `close`."""

import re
import struct
from decimal import Decimal

import adbc_driver_manager
import duckdb
import psycopg
import pyarrow as pa
import pyarrow.flight

from messages import encode
from equality import Answer, Moment, exact, interval, interval_from_text, moment_from_text

SQLSTATE = "x-omendb-sqlstate"


def _common(kind: pa.DataType, value):
    """One value of an Arrow array's `cast_for_python` in the common form."""
    if value is None:
        return None
    if pa.types.is_integer(kind):
        return Decimal(value)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return tuple(_common(kind.value_type, v) for v in value)
    if pa.types.is_interval(kind):
        return interval(value.months, value.days, exact(value.nanoseconds, 1000))
    if isinstance(value, dict):
        return tuple(_common(kind.field(name).type, v) for name, v in value.items())
    return value


UNITS = {"s": (1_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}


def arrow_column(column: pa.ChunkedArray) -> list:
    """A column in the common form. Dates and times go by their numbers: Python's calendar is too short for them."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    temporal = {
        pa.types.is_date: "date", pa.types.is_time: "time", pa.types.is_timestamp: "timestamp", pa.types.is_duration: "interval",
    }
    for test, name in temporal.items():
        if test(kind):
            if name == "timestamp" and kind.tz is not None:
                name = "timestamptz"
            if pa.types.is_date64(kind):
                column, kind = column.cast(pa.date32()), pa.date32()
            width = pa.int32() if kind.bit_width == 32 else pa.int64()
            times, per = (1, 1) if name == "date" else UNITS[kind.unit]
            numbers = pa.chunked_array([chunk.view(width) for chunk in column.chunks], width).to_pylist()
            return [None if n is None else Moment(name, exact(n * times, per)) for n in numbers]
    return [_common(kind, value) for value in column.to_pylist()]


def arrow_rows(table: pa.Table) -> list:
    columns = [arrow_column(table.column(i)) for i in range(table.num_columns)]
    return list(zip(*columns)) if columns else []


def _text(value) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class Omen:
    """The built server, through ADBC."""

    name = "omendb"

    def __init__(self, server):
        self.server = server
        self.connection = server.connect()
        self.flight = None
        self.run("SET statement_timeout = '30s'")

    def run(self, sql: str, parameters=None) -> Answer:
        """One statement; `parameters` is a record batch of one row."""
        try:
            with self.connection.cursor() as cursor:
                if parameters is not None:
                    # The driver manager would hide why a statement cannot be prepared.
                    cursor.adbc_prepare(sql)
                cursor.execute(sql, parameters)
                table = cursor.fetch_arrow_table()
            return Answer(table.schema.names, arrow_rows(table))
        except (adbc_driver_manager.Error, pa.ArrowException, UnicodeDecodeError) as error:
            if not self.server.alive():
                raise AssertionError(f"the server ended by itself at\n{sql}\n{self.server.tail()}") from error
            details = {_text(k): _text(v) for k, v in getattr(error, "details", None) or []}
            message = re.sub(r"^[A-Z_]+: \[FlightSQL\] | \([A-Za-z]+; [^()]*\)$", "", str(error))
            return Answer(error=message.strip(), sqlstate=details.get(SQLSTATE))

    @staticmethod
    def batch(values: list) -> pa.RecordBatch | None:
        """A row of parameters, each with its own type."""
        arrays = [pa.array([value.as_py()], value.type) for value in values]
        return pa.RecordBatch.from_arrays(arrays, [f"${i + 1}" for i in range(len(arrays))]) if arrays else None

    def action(self, name: str, table: str) -> None:
        """An action on a table: omendb.Flush or omendb.Compact."""
        self.flight = self.flight or self.server.flight()
        body = encode({1: table})
        list(self.flight.do_action(pyarrow.flight.Action(name, body)))

    def flush(self, table: str) -> None:
        self.action("omendb.Flush", table)

    def script(self, statements) -> None:
        """Statements that must succeed."""
        for sql in statements:
            answer = self.run(sql)
            assert not answer.failed, f"OmenDB refuses {sql}\n{answer.text()}"

    def close(self) -> None:
        self.connection.close()
        if self.flight:
            self.flight.close()


class _Of(psycopg.adapt.Loader):
    kind = ""

    def load(self, data):
        text = bytes(data).decode()
        return interval_from_text(text) if self.kind == "interval" else moment_from_text(self.kind, text)


class _Number(psycopg.adapt.Loader):
    def load(self, data):
        return Decimal(bytes(data).decode())


class _Real(psycopg.adapt.Loader):
    def load(self, data):
        # The shortest text of a float of 32 bits; as a double it is the number that Arrow sends.
        return struct.unpack("f", struct.pack("f", float(bytes(data).decode())))[0]


def _loaders(connection) -> None:
    adapters = connection.adapters
    for kind, name in [("date", "date"), ("time", "time"), ("timestamp", "timestamp"), ("timestamptz", "timestamptz"), ("interval", "interval")]:
        adapters.register_loader(name, type(f"_{kind}", (_Of,), {"kind": kind}))
    for name in ("int2", "int4", "int8", "numeric"):
        adapters.register_loader(name, _Number)
    adapters.register_loader("float4", _Real)


class Pg:
    """PostgreSQL, through psycopg, in text format."""

    name = "postgresql"

    def __init__(self, postgres):
        self.connection = psycopg.connect(
            host="127.0.0.1", port=postgres.port, user="tester", dbname="postgres", autocommit=True, prepare_threshold=None,
        )
        _loaders(self.connection)
        self.connection.execute("SET statement_timeout = '10s'")
        self.connection.execute("SET client_min_messages = error")

    def run(self, sql: str, parameters=None) -> Answer:
        try:
            # Without parameters psycopg uses the simple protocol and leaves % alone.
            cursor = self.connection.execute(sql.encode())
            if cursor.description is None:
                return Answer()
            rows = [tuple(tuple(v) if isinstance(v, list) else v for v in row) for row in cursor.fetchall()]
            return Answer([column.name for column in cursor.description], rows)
        except psycopg.Error as error:
            return Answer(error=str(error).split("\n")[0], sqlstate=error.sqlstate)

    def script(self, statements) -> None:
        for sql in statements:
            answer = self.run(sql)
            assert not answer.failed, f"PostgreSQL refuses {sql}\n{answer.text()}"

    def close(self) -> None:
        self.connection.close()


class Duck:
    """DuckDB in this process, with the settings that bring it closest to PostgreSQL."""

    name = "duckdb"

    def __init__(self):
        self.connection = duckdb.connect(":memory:", config={"threads": "1"})
        for setting in ("default_null_order = 'nulls_last_on_asc_first_on_desc'", "integer_division = true",
                        "ieee_floating_point_ops = false", "TimeZone = 'UTC'"):
            self.connection.execute(f"SET {setting}")

    @staticmethod
    def _bytes(sql: str) -> str:
        """PostgreSQL's hexadecimal bytes as DuckDB writes them."""
        return re.sub(r"'\\x((?:[0-9a-f]{2})*)'", lambda hit: "'" + re.sub("(..)", r"\\x\1", hit[1]) + "'", sql)

    def run(self, sql: str, parameters=None) -> Answer:
        try:
            relation = self.connection.sql(self._bytes(sql))
            if relation is None:
                return Answer()
            table = relation.to_arrow_table()
            return Answer(table.schema.names, arrow_rows(table))
        except (duckdb.Error, pa.ArrowException, ValueError) as error:
            return Answer(error=str(error).split("\n")[0])

    def script(self, statements) -> None:
        for sql in statements:
            answer = self.run(sql)
            assert not answer.failed, f"DuckDB refuses {sql}\n{answer.text()}"

    def close(self) -> None:
        self.connection.close()
