"""Random expressions of every type, from templates.

In a template `{int}` is an expression of that kind, `{#1-4}` a small number, `{'a|b}` one of these words, `{any}` an expression of any
kind that sorts, `{q:int}` a query of one column, `{s:int}` a query of one value, `{same}` a further expression of the first one's
kind. A template that begins with `~` computes something that two right engines may round differently.

The templates of `SAFE` raise no errors on ordinary values. Those of `EDGE` may: they are used in statements of one plain expression
for each row, because elsewhere what is computed before what, and so whether an error comes up, is an engine's own affair.
"""

import random
import re

import pyarrow as pa

from schema import KINDS, POOLS, constant
from syntax import Bind, Node, text

COMPARE = "{'=|<>|<|<=|>|>=}"
FIELDS = "{'year|month|day|quarter|week|isodow|dow|doy|isoyear|decade|century|epoch}"
CLOCK_FIELDS = "{'hour|minute|second|microseconds|milliseconds}"
TRUNC = "{'year|quarter|month|week|day|hour|minute|second|decade|century}"
ZONE = "{'UTC|Asia/Tokyo|America/New_York|Europe/Berlin|Asia/Kolkata}"

SAFE = {
    "int": [
        "({int} + {int})", "({int} - {int})", "({int} * {#-3-3})", "({int} / NULLIF({int}, 0))", "({int} % NULLIF({int}, 0))",
        "(- {int})", "abs({int})", "mod({int}, NULLIF({int}, 0))", "length({text})", "char_length({text})", "octet_length({text})",
        "ascii({text})", "strpos({text}, {text})", "position({text} IN {text})", "({date} - {date})", "CAST({bool} AS INTEGER)",
        "CAST({num} AS BIGINT)", "CAST(round({num}, 0) AS INTEGER)", "(CASE WHEN {bool} THEN {int} ELSE {int} END)",
        "(CASE {int} WHEN {int} THEN {int} WHEN 1 THEN {int} END)", "COALESCE({int}, {int})", "NULLIF({int}, {int})",
        "GREATEST({int}, {int}, {int})", "LEAST({int}, {int})", "({int} & {int})", "({int} | {int})", "(~ {int})", "({int} << {#0-4})",
        "({int} >> {#0-4})", "{s:int}", "bit_length({text})", "sign({int})::int", "gcd({int}, {int})", "octet_length({bytea})",
    ],
    "num": [
        "({num} + {num})", "({num} - {num})", "({num} * {lit})", "~({num} / NULLIF({num}, 0))", "({num} % NULLIF({num}, 0))",
        "({num} + {int})", "({int} - {num})", "({num} * {int})", "~({num} / NULLIF({int}, 0))", "(- {num})", "abs({num})", "round({num})",
        "round({num}, {#0-2})", "trunc({num}, {#0-2})", "trunc({num})", "floor({num})", "ceil({num})", "sign({num})", "mod({num}, NULLIF({num}, 0))",
        "CAST({int} AS NUMERIC(12, 2))", "CAST({num} AS NUMERIC(10, 1))", "extract(" + FIELDS + " FROM {ts})", "extract(" + FIELDS + " FROM {date})",
        "extract(" + CLOCK_FIELDS + " FROM {ts})", "extract(" + FIELDS + " FROM {tstz})", "extract(" + CLOCK_FIELDS + " FROM {time})",
        "extract({'day|hour|month|epoch|second|minute|year} FROM {iv})", "(CASE WHEN {bool} THEN {num} ELSE {int} END)", "COALESCE({num}, {int})",
        "COALESCE({num}, {num})", "NULLIF({num}, {num})", "GREATEST({num}, {num})", "LEAST({num}, {int})", "{s:num}",
    ],
    "flt": [
        "({flt} + {flt})", "({flt} - {flt})", "({flt} * {#-3-3})", "~({flt} / NULLIF({flt}, 0))", "({flt} + {int})", "({flt} * {num})",
        "({int} - {flt})", "(- {flt})", "abs({flt})", "floor({flt})", "ceil({flt})", "round({flt})", "trunc({flt})", "sign({flt})",
        "~sqrt(abs({flt}))", "~cbrt({flt})", "~ln(abs({flt}) + 1)", "~log10(abs({flt}) + 1)", "~power(abs({int}), 0.5::double precision)",
        "~sin({int})", "~atan({flt})", "~atan2({flt}, {flt})", "~degrees({int})", "~radians({int})", "pi()", "~exp(sin({int}))",
        "CAST({int} AS DOUBLE PRECISION)", "CAST({num} AS DOUBLE PRECISION)", "CAST({int} AS REAL)",
        "(CASE WHEN {bool} THEN {flt} ELSE {int} END)", "COALESCE({flt}, {flt})", "COALESCE({flt}, {num})", "NULLIF({flt}, {flt})",
        "GREATEST({flt}, {flt})", "LEAST({flt}, {flt})", "date_part('{'year|month|day|hour|minute|second|epoch}', {ts})", "{s:flt}",
    ],
    "text": [
        "({text} || {text})", "({text} || {int})", "upper({text})", "lower({text})", "initcap({text})", "btrim({text})", "trim({text})",
        "ltrim({text}, {text})", "rtrim({text}, 'ab ')", "trim(BOTH 'a' FROM {text})", "trim(LEADING FROM {text})", "replace({text}, {text}, {text})",
        "substr({text}, {#-2-4})", "substr({text}, {#-2-4}, {#0-4})", "substring({text} FROM {#-1-4} FOR {#0-3})", "substring({text} FROM {#0-3})",
        "left({text}, {#-3-4})", "right({text}, {#-3-4})", "lpad({text}, {#-1-6})", "lpad({text}, {#0-6}, {text})", "rpad({text}, {#0-6}, {text})",
        "repeat({text}, {#-1-3})", "reverse({text})", "split_part({text}, {'' ''|''a''|''b''}, {#1-3})", "translate({text}, 'ab', {text})",
        "concat({text}, {int}, {text})", "concat_ws('-', {text}, {text}, {int})", "overlay({text} PLACING {text} FROM {#1-3})",
        "overlay({text} PLACING 'xx' FROM {#1-3} FOR {#0-3})", "md5({text})", "to_hex(abs({int}))", "chr({#65-90})", "CAST({int} AS TEXT)",
        "CAST({num} AS TEXT)", "CAST({bool} AS TEXT)", "CAST({date} AS TEXT)", "CAST({ts} AS TEXT)", "CAST({time} AS TEXT)", "CAST({tstz} AS TEXT)",
        "(CASE WHEN {bool} THEN {text} ELSE {text} END)", "(CASE {text} WHEN {text} THEN 'x' ELSE {text} END)", "COALESCE({text}, {text})",
        "NULLIF({text}, {text})", "GREATEST({text}, {text})", "LEAST({text}, {text})", "encode({bytea}, 'hex')", "{s:text}",
        "to_char({ts}, '{'YYYY-MM-DD|HH24:MI:SS|DD.MM.YYYY HH12|MonthDD|Dy, DD Mon|YYYYMMDD|US|Q|IYYY-IW}')", "CAST({text} AS VARCHAR(2))",
        "regexp_replace({text}, 'a+', 'Z')", "regexp_replace({text}, '[ab]', 'Z', 'g')", "CAST({iv} AS TEXT)",
    ],
    "bool": [
        "({int} " + COMPARE + " {int})", "({num} " + COMPARE + " {num})", "({flt} " + COMPARE + " {flt})", "({text} " + COMPARE + " {text})",
        "({int} " + COMPARE + " {num})", "({num} " + COMPARE + " {flt})", "({int} " + COMPARE + " {flt})", "({date} " + COMPARE + " {date})",
        "({ts} " + COMPARE + " {ts})", "({date} " + COMPARE + " {ts})", "({ts} " + COMPARE + " {tstz})", "({tstz} " + COMPARE + " {date})",
        "({tstz} " + COMPARE + " {tstz})", "({time} " + COMPARE + " {time})", "({iv} " + COMPARE + " {iv})", "({bytea} " + COMPARE + " {bytea})",
        "({bool} {'=|<>|<|>} {bool})", "({date} " + COMPARE + " '2024-01-31')", "({ts} " + COMPARE + " '2024-01-31 10:00')",
        "({tstz} " + COMPARE + " '2024-01-31')", "({int} " + COMPARE + " '7')", "({num} " + COMPARE + " '2.5')", "({flt} " + COMPARE + " '2.5')",
        "({time} " + COMPARE + " '10:00')", "({bool} = '{'t|f|yes|off|true}')",
        "({bool} AND {bool})", "({bool} OR {bool})", "(NOT {bool})", "({bool} AND {bool})", "({bool} OR {bool})",
        "({any} IS NULL)", "({any} IS NOT NULL)", "({bool} IS TRUE)", "({bool} IS NOT TRUE)", "({bool} IS FALSE)", "({bool} IS UNKNOWN)",
        "({bool} IS NOT UNKNOWN)", "({any} IS DISTINCT FROM {same})", "({any} IS NOT DISTINCT FROM {same})", "({any} BETWEEN {same} AND {same})",
        "({any} NOT BETWEEN {same} AND {same})", "({any} BETWEEN SYMMETRIC {same} AND {same})", "({any} IN ({same}, {same}))",
        "({any} NOT IN ({same}, {same}, {same}))", "({any} IN ({same}, NULL))", "({any} NOT IN ({same}, NULL))",
        "({text} LIKE {'''a%''|''%b''|''_''|''%''|''a!_b'' ESCAPE ''!''|''''|''A%''})", "({text} NOT LIKE {'''a%''|''_b%''})",
        "({text} ILIKE 'A%')", "({text} LIKE {text})", "({text} ~ {'''^a''|''b$''|''[ab]{2}''|''.''})", "({text} ~* '^A')", "({text} !~ 'b')",
        "({text} SIMILAR TO '(a|b)%')", "starts_with({text}, {text})", "(({int}, {text}) = ({int}, {text}))", "(({int}, {int}) < ({int}, {int}))",
        "(({int}, {text}) IN (({int}, {text}), (1, 'a')))",
        "({any} IN {q:same})", "({any} NOT IN {q:same})", "({any} " + COMPARE + " ANY {q:same})", "({any} " + COMPARE + " ALL {q:same})",
        "EXISTS {q:any}", "(NOT EXISTS {q:any})", "({any} = {s:same})", "({any} = ANY (ARRAY[{same}, {same}]))",
        "(CASE WHEN {bool} THEN {bool} ELSE {bool} END)", "COALESCE({bool}, {bool})", "NULLIF({bool}, {bool})", "CAST({int} % 2 AS INTEGER)::boolean",
    ],
    "date": [
        "({date} + {int})", "({date} - {#0-40})", "CAST({ts} AS DATE)", "CAST({tstz} AS DATE)", "COALESCE({date}, {date})",
        "(CASE WHEN {bool} THEN {date} ELSE {date} END)", "GREATEST({date}, {date})", "LEAST({date}, {date})", "NULLIF({date}, {date})",
        "make_date({#1990-2030}, {#1-12}, {#1-28})", "to_date('{'2024-02-29|1999-12-31}', 'YYYY-MM-DD')", "{s:date}", "CAST('{'2024-02-29|20240131|2024-1-5}' AS DATE)",
    ],
    "time": [
        "CAST({ts} AS TIME)", "({time} + {iv})", "({time} - {iv})", "COALESCE({time}, {time})", "GREATEST({time}, {time})",
        "(CASE WHEN {bool} THEN {time} ELSE {time} END)", "{s:time}", "make_time({#0-23}, {#0-59}, 5.5)",
    ],
    "ts": [
        "({ts} + {iv})", "({ts} - {iv})", "({date} + {iv})", "({date} - {iv})", "({iv} + {ts})", "CAST({date} AS TIMESTAMP)", "({date} + {time})",
        "date_trunc('" + TRUNC + "', {ts})", "({tstz} AT TIME ZONE '" + ZONE + "')", "CAST({tstz} AS TIMESTAMP)", "COALESCE({ts}, {date})",
        "COALESCE({ts}, {ts})", "(CASE WHEN {bool} THEN {ts} ELSE {ts} END)", "GREATEST({ts}, {ts})", "LEAST({ts}, {date})", "{s:ts}",
        "date_bin(INTERVAL '{'15 minutes|1 day|7 hours}', {ts}, TIMESTAMP '2000-01-01 00:05:00')", "CAST({ts} AS TIMESTAMP({#0-6}))",
        "make_timestamp({#1990-2030}, {#1-12}, {#1-28}, {#0-23}, {#0-59}, 1.5)",
    ],
    "tstz": [
        "({tstz} + {iv})", "({tstz} - {iv})", "date_trunc('" + TRUNC + "', {tstz})", "({ts} AT TIME ZONE '" + ZONE + "')", "CAST({ts} AS TIMESTAMPTZ)",
        "CAST({date} AS TIMESTAMPTZ)", "COALESCE({tstz}, {ts})", "COALESCE({tstz}, {tstz})", "(CASE WHEN {bool} THEN {tstz} ELSE {tstz} END)",
        "GREATEST({tstz}, {tstz})", "{s:tstz}", "date_trunc('" + TRUNC + "', {tstz}, '" + ZONE + "')", "to_timestamp({int})",
    ],
    "iv": [
        "({ts} - {ts})", "({tstz} - {tstz})", "({iv} + {iv})", "({iv} - {iv})", "({iv} * {int})", "({int} * {iv})", "(- {iv})", "({iv} * 1.5)",
        "({iv} / {#1-4})", "COALESCE({iv}, {iv})", "(CASE WHEN {bool} THEN {iv} ELSE {iv} END)", "GREATEST({iv}, {iv})", "CAST({time} AS INTERVAL)",
        "({time} - {time})", "make_interval(days => {#0-40})", "justify_hours({iv})", "justify_days({iv})", "age({ts}, {ts})", "date_trunc('day', {iv})",
    ],
    "bytea": [
        "({bytea} || {bytea})", "COALESCE({bytea}, {bytea})", "(CASE WHEN {bool} THEN {bytea} ELSE {bytea} END)", "decode('{'00ff|61|}', 'hex')",
        "substr({bytea}, {#1-2}, {#0-2})",
    ],
}

BINARY = "{'+|-|*}"
BADTEXT = "{'12| 12 |1e3|abc|NaN|Infinity|-inf|12.5|0x10|1_000|2147483648|99999999999999999999||t|yes|2024-02-30|24:00:00|10:00|2024-01-31 10:00|2024-01-31 10:00+02|10:61|epoch|1.5e400}"
EDGE = {
    "int": [
        "({int} " + BINARY + " {int})", "({int} / {int})", "({int} % {int})", "CAST({num} AS {'SMALLINT|INTEGER|BIGINT})", "abs({int})", "(- {int})",
        "CAST({flt} AS {'SMALLINT|INTEGER|BIGINT})", "CAST({int} AS {'SMALLINT|INTEGER})", "CAST('" + BADTEXT + "' AS {'SMALLINT|INTEGER|BIGINT})",
        "CAST({text} AS INTEGER)", "({int} << {#0-70})", "CAST({bool} AS INTEGER)", "factorial({#0-20})::bigint", "mod({int}, {int})",
    ],
    "num": [
        "({num} " + BINARY + " {num})", "~({num} / {num})", "({num} % {num})", "CAST({num} AS NUMERIC(5, 2))", "CAST({flt} AS NUMERIC(12, 3))",
        "CAST('" + BADTEXT + "' AS NUMERIC(12, 3))", "round({num}, {#-3-4})", "CAST({int} AS NUMERIC(4, 2))", "CAST({text} AS NUMERIC(6, 2))",
    ],
    "flt": [
        "({flt} " + BINARY + " {flt})", "~({flt} / {flt})", "~sqrt({flt})", "~ln({flt})", "~power({flt}, {flt})", "~exp({flt})", "CAST({num} AS REAL)",
        "CAST('" + BADTEXT + "' AS {'REAL|DOUBLE PRECISION})", "CAST({flt} AS REAL)", "~acos({flt})", "CAST({text} AS DOUBLE PRECISION)", "~log({flt})",
    ],
    "text": [
        "CAST({flt} AS TEXT)", "chr({#0-200})", "repeat({text}, {#-3-3})", "CAST({int} AS TEXT)", "CAST({num} AS TEXT)", "left({text}, {int}::int)",
        "substr({text}, {#-3-3}, {#-2-5})", "split_part({text}, {text}, {#-3-3})", "lpad({text}, {#-2-9}, {text})", "encode({bytea}, 'base64')",
        "CAST({text} AS CHAR(3))", "CAST({text} AS VARCHAR(1))", "CAST({iv} AS TEXT)", "CAST({tstz} AS TEXT)",
    ],
    "bool": [
        "CAST('" + BADTEXT + "' AS BOOLEAN)", "({flt} " + COMPARE + " {flt})", "({int} " + COMPARE + " {flt})", "({num} " + COMPARE + " {flt})",
        "({int} " + COMPARE + " '" + BADTEXT + "')", "({date} " + COMPARE + " '" + BADTEXT + "')", "({ts} " + COMPARE + " '" + BADTEXT + "')",
        "({bool} = '" + BADTEXT + "')", "({ts} " + COMPARE + " {date})", "({tstz} " + COMPARE + " {ts})", "CAST({text} AS BOOLEAN)",
    ],
    "date": ["({date} + {int})", "({date} - {int})", "CAST('" + BADTEXT + "' AS DATE)", "make_date({#-1-3000}, {#0-13}, {#0-32})", "CAST({ts} AS DATE)"],
    "time": ["CAST('" + BADTEXT + "' AS TIME)", "({time} + {iv})", "CAST({tstz} AS TIME)", "CAST({iv} AS TIME)"],
    "ts": ["CAST('" + BADTEXT + "' AS TIMESTAMP)", "({ts} + {iv})", "({ts} - {iv})", "date_trunc('" + TRUNC + "', {ts})", "CAST({tstz} AS TIMESTAMP)",
           "({tstz} AT TIME ZONE '" + ZONE + "')", "CAST({date} AS TIMESTAMP)"],
    "tstz": ["CAST('" + BADTEXT + "' AS TIMESTAMPTZ)", "({tstz} + {iv})", "({ts} AT TIME ZONE '" + ZONE + "')", "date_trunc('" + TRUNC + "', {tstz})"],
    "iv": ["({ts} - {ts})", "({iv} * {int})", "({iv} / {int})", "CAST('{'1 day|1 mon -1 day|01:02:03|P1DT2H|1.5 days|-1 year|2 weeks|abc|1h}' AS INTERVAL)"],
    "bytea": ["CAST('{'\\x00|abc|\\x0|\\xzz}' AS BYTEA)"],
}

SORTED = ["int", "num", "flt", "text", "date", "ts", "tstz", "time", "bool", "int", "text"]
INTERVALS = ["1 day", "24 hours", "1 month", "30 days", "2 months 3 days", "-1 day", "01:30:00", "1 year", "90 minutes", "0 days", "1 day -02:00:00"]
PLACE = re.compile(r"\{((?:[^{}]|\{\d\})*)\}")


def literal(kind: str, rng: random.Random, edge: float = 0.0) -> Node:
    """A typed literal."""
    match kind:
        case "int":
            column = rng.choice(["int4", "int4", "int4", "int8", "int2"])
            value = constant(column, rng, edge)
            if column == "int2":
                return text(kind, f"CAST({value} AS SMALLINT)")
            return text(kind, f"({value})" if value.startswith("-") else value)
        case "num":
            value = constant("num", rng, edge)
            value = value if "." in value else value + ".0"
            return text(kind, f"({value})" if value.startswith("-") else value)
        case "flt":
            return text(kind, f"CAST({constant('f8', rng, edge)} AS {rng.choice(['DOUBLE PRECISION', 'DOUBLE PRECISION', 'REAL'])})")
        case "text":
            return text(kind, constant("text", rng, edge))
        case "bool":
            return text(kind, rng.choice(POOLS["bool"]))
        case "iv":
            return text(kind, f"INTERVAL '{rng.choice(INTERVALS)}'")
        case "bytea":
            return text(kind, f"CAST({constant('bytea', rng)} AS BYTEA)")
        case _:
            word = {"date": "DATE", "time": "TIME", "ts": "TIMESTAMP", "tstz": "TIMESTAMPTZ"}[kind]
            return text(kind, f"{word} {constant(kind, rng, edge)}")


class Expressions:
    """Makes expressions over the columns in scope. `Queries` adds what has a FROM."""

    def __init__(self, rng: random.Random, tables: list, edge: float = 0.0):
        self.rng = rng
        self.tables = tables
        self.edge = edge
        # Columns that may be named, innermost query last: lists of (reference, kind).
        self.scopes = [[]]
        self.templates = SAFE
        self.subqueries = True
        # Binds a share of the literals.
        self.binding = 0.0

    def columns(self, kind: str) -> list:
        own = [ref for ref, k in self.scopes[-1] if k == kind]
        if len(self.scopes) > 1 and (not own or self.rng.random() < 0.35):
            return [ref for scope in self.scopes[:-1] for ref, k in scope if k == kind] or own
        return own

    def leaf(self, kind: str) -> Node:
        if self.rng.random() < 0.75 and (columns := self.columns(kind)):
            return text(kind, self.rng.choice(columns))
        if self.rng.random() < 0.06:
            word = {"int": "INTEGER", "num": "NUMERIC(12, 3)", "flt": "DOUBLE PRECISION", "bool": "BOOLEAN", "ts": "TIMESTAMP",
                    "tstz": "TIMESTAMPTZ", "iv": "INTERVAL"}.get(kind, kind.upper())
            return text(kind, f"CAST(NULL AS {word})")
        if self.rng.random() < self.binding:
            return bound(kind, self.rng, self.edge)
        return literal(kind, self.rng, self.edge)

    def any_kind(self) -> str:
        present = [k for _, k in self.scopes[-1] if k not in ("bytea", "iv")]
        return self.rng.choice(present) if present and self.rng.random() < 0.7 else self.rng.choice(SORTED)

    def expression(self, kind: str, depth: int) -> Node:
        if depth <= 0 or self.rng.random() < 0.2:
            return self.leaf(kind)
        template = self.rng.choice(self.templates[kind])
        if not self.subqueries and ("{q:" in template or "{s:" in template):
            return self.leaf(kind)
        return self.fill(kind, template, depth)

    def fill(self, kind: str, template: str, depth: int) -> Node:
        inexact = template.startswith("~")
        template = template.removeprefix("~")
        parts, at, first = [], 0, None
        for place in PLACE.finditer(template):
            parts.append(template[at:place.start()])
            at = place.end()
            what = place[1]
            if what == "any":
                what = first = self.any_kind()
            what = what.replace("same", first or "")
            parts.append(self.part(what, depth - 1))
        parts.append(template[at:])
        return Node(kind, tuple(parts), inexact)

    def part(self, what: str, depth: int):
        if what.startswith("#"):
            low, high = re.fullmatch(r"#(-?\d+)-(-?\d+)", what).groups()
            number = self.rng.randint(int(low), int(high))
            return f"({number})" if number < 0 else str(number)
        if what.startswith("'"):
            return self.rng.choice(what[1:].replace("''", "\0").split("|")).replace("\0", "'")
        if what == "lit":
            return literal("num", self.rng)
        if what.startswith("q:"):
            return self.subquery(what[2:] if what != "q:any" else self.any_kind(), depth)
        if what.startswith("s:"):
            return self.scalar(what[2:], depth)
        return self.expression(what, depth)

    def subquery(self, kind: str, depth: int) -> Node:
        raise NotImplementedError

    def scalar(self, kind: str, depth: int) -> Node:
        raise NotImplementedError


def bound(kind: str, rng: random.Random, edge: float) -> Node:
    """A literal that is bound where it can be."""
    import datetime
    from decimal import Decimal

    if kind in ("iv", "time"):
        return literal(kind, rng, edge)
    column = {"int": rng.choice(["int2", "int4", "int8"]), "flt": rng.choice(["f4", "f8"])}.get(kind, kind)
    value = constant(column, rng, edge)
    bare = value.strip("'").replace("''", "'")
    match column:
        case "int2" | "int4" | "int8":
            made = pa.scalar(int(bare), {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64()}[column])
        case "num":
            made = pa.scalar(Decimal(bare))
        case "f4" | "f8":
            made = pa.scalar(float(bare), pa.float32() if column == "f4" else pa.float64())
        case "text":
            made = pa.scalar(bare)
        case "bool":
            made = pa.scalar(bare == "TRUE")
        case "bytea":
            made = pa.scalar(bytes.fromhex(bare[2:]))
        case "date":
            made = pa.scalar(datetime.date.fromisoformat(bare))
        case "ts":
            made = pa.scalar(datetime.datetime.fromisoformat(bare), pa.timestamp("us"))
        case "tstz":
            made = pa.scalar(datetime.datetime.fromisoformat(bare), pa.timestamp("us", "UTC"))
    sql = {"int2": "SMALLINT", "int4": "INTEGER", "int8": "BIGINT", "num": "NUMERIC", "f4": "REAL", "f8": "DOUBLE PRECISION",
           "ts": "TIMESTAMP", "tstz": "TIMESTAMPTZ"}.get(column, column.upper())
    return Node(kind, (Bind(f"CAST({value} AS {sql})", made),))


def columns_of(table, alias: str) -> list:
    """The columns of a table as a scope."""
    return [(f"{alias}.{name}", KINDS.get(kind, kind)) for name, kind in table.columns]
