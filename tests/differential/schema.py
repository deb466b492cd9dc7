"""Random tables: columns of every type, keys of every kind, few rows with many NULLs and repeats."""

import dataclasses
import random

SQL_TYPES = {
    "int2": "SMALLINT", "int4": "INTEGER", "int8": "BIGINT", "num": "NUMERIC(12, 3)", "f4": "REAL", "f8": "DOUBLE PRECISION",
    "text": "TEXT", "bool": "BOOLEAN", "date": "DATE", "time": "TIME", "ts": "TIMESTAMP", "tstz": "TIMESTAMPTZ", "bytea": "BYTEA",
}
# The kinds that expressions are made of.
KINDS = {"int2": "int", "int4": "int", "int8": "int", "f4": "flt", "f8": "flt"}

DATES = ["2024-02-29", "2023-12-31", "2024-01-31", "2024-03-31", "2000-01-01", "1970-01-01", "1969-12-31", "2024-07-01"]
FAR_DATES = ["2500-06-15", "1200-01-01", "9999-12-31", "0001-01-01", "1582-10-10"]
TIMES = ["00:00:00", "10:00:00", "23:59:59.999999", "07:08:09.5", "12:30:00"]
ZONES = ["+00", "+02", "-05:30", "+14"]
TEXTS = ["", "a", "b", "A", "ab", "abc", "a b", " a", "b ", "a%b", "a_b", "10", "9", "-1", "ä", "naïve", "Ωmega", "日本", "a'b", "x\\y"]

POOLS = {
    "int2": ["0", "1", "-1", "2", "3", "7", "10", "100"],
    "int4": ["0", "1", "-1", "2", "3", "5", "7", "10", "42", "-100"],
    "int8": ["0", "1", "-1", "2", "3", "5", "7", "10", "1000", "-42"],
    "num": ["0", "1", "-1", "0.5", "2.5", "-2.5", "1.1", "10.125", "3.999", "100"],
    "f4": ["0", "1", "-1", "0.5", "2.5", "-0.25", "10", "100"],
    "f8": ["0", "1", "-1", "0.5", "2.5", "-0.25", "1.1", "1e10", "100"],
    "text": [t.replace("'", "''") for t in TEXTS],
    "bool": ["TRUE", "FALSE"],
    "date": DATES,
    "time": TIMES,
    "ts": [f"{d} {t}" for d in DATES for t in TIMES],
    "tstz": [f"{d} {t}{z}" for d in DATES[:6] for t in TIMES[:3] for z in ZONES],
    "bytea": ["\\x", "\\x00", "\\x00ff", "\\x61", "\\x6162"],
}
EDGES = {
    "int2": ["32767", "-32768"],
    "int4": ["2147483647", "-2147483648", "46341"],
    "int8": ["9223372036854775807", "-9223372036854775808", "4294967296", "9007199254740993"],
    "num": ["999999999.999", "-999999999.999", "0.001"],
    "f4": ["NaN", "Infinity", "-Infinity", "1e-30", "3e38"],
    "f8": ["NaN", "Infinity", "-Infinity", "1e300", "-1e300", "1e-300", "9007199254740993", "-0.0"],
    "text": ["NaN", "1e3", "true", "2024-01-31", "a" * 40],
    "date": FAR_DATES,
    "ts": [f"{d} {t}" for d in FAR_DATES for t in TIMES[:2]],
    "tstz": [f"{d} {t}+00" for d in FAR_DATES for t in TIMES[:2]],
}
QUOTED = {"text", "date", "time", "ts", "tstz", "bytea"}


def constant(kind: str, rng: random.Random, edge: float = 0.0) -> str:
    """A value of a column type as it stands in VALUES."""
    pool = EDGES[kind] if kind in EDGES and rng.random() < edge else POOLS[kind]
    value = rng.choice(pool)
    quoted = kind in QUOTED or (kind in ("f4", "f8") and value.lstrip("-")[0] in "NI")
    return f"'{value}'" if quoted else value


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with its rows. `columns` are (name, type); `key` is one of PRIMARY, CLUSTER and none, with columns."""

    name: str
    columns: tuple
    rows: tuple
    key_kind: str = "none"
    key: tuple = ()
    storage: str = "memory"

    def create(self, omendb: bool) -> str:
        """CREATE TABLE. A cluster key is OmenDB's own; elsewhere its columns are NOT NULL and no more."""
        parts = []
        for name, kind in self.columns:
            not_null = " NOT NULL" if self.key_kind == "cluster" and name in self.key and not omendb else ""
            parts.append(f"{name} {SQL_TYPES[kind]}{not_null}")
        if self.key_kind == "primary":
            parts.append(f"PRIMARY KEY ({', '.join(self.key)})")
        after = f" CLUSTER BY ({', '.join(self.key)})" if self.key_kind == "cluster" and omendb else ""
        return f"CREATE TABLE {self.name} ({', '.join(parts)}){after}"

    def insert(self, rows) -> list:
        return [f"INSERT INTO {self.name} VALUES {', '.join('(' + ', '.join(row) + ')' for row in rows)}"] if rows else []

    def drop(self) -> str:
        return f"DROP TABLE IF EXISTS {self.name}"

    def kind_of(self, column: str) -> str:
        return dict(self.columns)[column]


def tables(rng: random.Random, edge: float) -> list:
    """Three tables that share some columns by name and type, so that USING and NATURAL joins have what to join by."""
    kinds = list(SQL_TYPES)
    shared = {"id": "int4"}
    for i in range(9):
        shared[f"c{i}"] = rng.choice(kinds)
    made = []
    for i in range(3):
        names = ["id"] + sorted(rng.sample([n for n in shared if n != "id"], rng.randint(3, 6)))
        columns = tuple((name, shared[name]) for name in names)
        made.append(table(f"t{i}", columns, rng, edge))
    return made


def table(name: str, columns: tuple, rng: random.Random, edge: float) -> Table:
    names = [n for n, _ in columns]
    fate = rng.random()
    if fate < 0.5:
        key_kind, key = "primary", ("id",)
    elif fate < 0.65:
        key_kind, key = "primary", (rng.choice(names[1:]), "id")
    elif fate < 0.85:
        key_kind, key = "cluster", (rng.choice(names[1:]),)
    else:
        key_kind, key = "none", ()
    rows = []
    for i in range(rng.choice([0, 1, 2, 4, 6, 6, 9, 12])):
        row = [str(i)]
        for column, kind in columns[1:]:
            if column not in key and rng.random() < 0.2:
                row.append("NULL")
            else:
                value = constant(kind, rng, edge)
                # NaN is no key in OmenDB.
                row.append("0" if value == "'NaN'" and kind in ("f4", "f8") and column in key else value)
        rows.append(tuple(row))
    storage = rng.choice(["memory", "memory", "flushed", "segments"])
    return Table(name, columns, tuple(rows), key_kind, key, storage)
