"""Runs SQLite's sqllogictest files against the built server and counts what is right, refused and wrong.

    python sqllogictest.py FOLDER [--every 10] [--records 200] [--engine postgresql]

A refusal that the docs list with its reason is counted as listed. The runner takes UNIQUE away from a column then, and goes on
without an index, so that what comes after is compared. Where only some queries of a file are run, each stands for those that are not:
the share in all statements is reckoned so.

The files are SQLite's (https://www.sqlite.org/sqllogictest, mirrored as gregrahn/sqllogictest) and none of ours: the folder is
given by whoever runs this. Of each file, the records that are meant for PostgreSQL are run.
"""

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import sys
import tempfile
from decimal import Decimal

ENGINE = "postgresql"
# What docs/sql-semantics.md refuses with its reason: an index is that of the key, and so is what is unique.
LISTED = re.compile(r"^CREATE INDEX on .* is not supported|UNIQUE is not supported")


@dataclasses.dataclass
class Record:
    """A statement that must succeed or fail, or a query with its answer."""

    kind: str
    sql: str
    line: int
    types: str = ""
    sort: str = "nosort"
    expected: list = dataclasses.field(default_factory=list)
    threshold: int = 0


def parse(text: str):
    """The records of a file that are meant for PostgreSQL."""
    threshold = 8
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        skip = False
        while at < len(lines) and lines[at].split("#")[0].split()[:1] and lines[at].split()[0] in ("skipif", "onlyif"):
            condition, engine = lines[at].split("#")[0].split()[:2]
            skip |= (engine == ENGINE) == (condition == "skipif")
            at += 1
        words = lines[at].split("#")[0].split() if at < len(lines) else []
        start, at = at, at + 1
        if not words:
            continue
        if words[0] == "hash-threshold":
            threshold = int(words[1])
        elif words[0] == "halt" and not skip:
            return
        elif words[0] in ("statement", "query"):
            sql, expected = [], []
            while at < len(lines) and lines[at].strip() and lines[at] != "----":
                sql.append(lines[at])
                at += 1
            if at < len(lines) and lines[at] == "----":
                at += 1
                while at < len(lines) and lines[at] != "":
                    expected.append(lines[at])
                    at += 1
            if skip:
                continue
            if words[0] == "statement":
                yield Record(words[1], "\n".join(sql), start + 1)
            else:
                sort = words[2] if len(words) > 2 else "nosort"
                yield Record("query", "\n".join(sql), start + 1, words[1], sort, expected, threshold)


def shown(value, kind: str) -> str:
    """A value as the files write one of this type."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        value = Decimal(int(value))
    match kind:
        case "I":
            return str(int(value)) if isinstance(value, (Decimal, float)) else "0"
        case "R":
            return f"{float(value):.3f}" if isinstance(value, (Decimal, float)) else "0.000"
        case _:
            text = format(value.normalize(), "f") if isinstance(value, Decimal) else str(value)
            return re.sub(r"[^ -~]", "@", text) or "(empty)"


def as_expected(record: Record, rows: list) -> bool:
    """Whether the rows are the record's answer."""
    table = [[shown(value, kind) for value, kind in zip(row, record.types)] for row in rows]
    if any(len(row) != len(record.types) for row in rows):
        return False
    if record.sort == "rowsort":
        table.sort()
    values = [value for row in table for value in row]
    if record.sort == "valuesort":
        values.sort()
    if len(record.expected) == 1 and (hashed := re.fullmatch(r"(\d+) values hashing to ([0-9a-f]{32})", record.expected[0])):
        digest = hashlib.md5("".join(v + "\n" for v in values).encode()).hexdigest()
        return len(values) == int(hashed[1]) and digest == hashed[2]
    return values == record.expected


class Tally:
    """Counts by outcome and reason, with an example of each reason."""

    def __init__(self):
        self.counts = collections.Counter()
        # The same with each query that was run standing for those of its file that were not.
        self.shares = collections.Counter()
        self.reasons = collections.Counter()
        self.examples = {}

    def note(self, outcome: str, reason: str, where: str, record: Record, weight: int = 1) -> None:
        self.counts[outcome] += 1
        self.shares[outcome] += weight
        if outcome != "right":
            key = f"{outcome}: {reason}"
            self.reasons[key] += 1
            self.examples.setdefault(key, (where, " ".join(record.sql.split())))

    def report(self) -> str:
        lines = []
        for counts, what in ((self.counts, "statements run"), (self.shares, "statements that these stand for")):
            total = sum(counts.values()) or 1
            parts = ", ".join(f"{k} {counts[k]}" for k in ("right", "listed", "refused", "wrong", "accepted"))
            lines.append(f"{parts} of {total} {what}: {100 * counts['right'] / total:.3f} % right")
        for key, n in self.reasons.most_common(60):
            where, sql = self.examples[key]
            lines.append(f"{n:8} {key}\n           {where}: {sql[:300]}")
        return "\n".join(lines)


def run_file(engine, path: pathlib.Path, limit: int, tally: Tally) -> None:
    """Runs a file's records in a clean database, at most `limit` queries of it, spread over the file."""
    from cases import message_class

    records = list(parse(path.read_text(errors="replace")))
    queries = sum(r.kind == "query" for r in records)
    step = max(1, -(-queries // limit)) if limit else 1
    number, made, loosened = 0, [], False
    for record in records:
        if record.kind == "query":
            number += 1
            if number % step:
                continue
        if found := re.match(r"\s*CREATE\s+(TABLE|VIEW)\s+(\w+)", record.sql, re.IGNORECASE):
            made.append((found[1].upper(), found[2]))
        answer = engine.run(record.sql)
        where = f"{path.name}:{record.line}"
        weight = step if record.kind == "query" else 1
        if answer.failed and record.kind != "error" and LISTED.search(answer.error):
            tally.note("listed", message_class(answer.error), where, record)
            loose = re.sub(r",?\s*\bUNIQUE\b(\s*\([^)]*\))?", "", record.sql, flags=re.IGNORECASE)
            if not re.match(r"\s*CREATE\s+(UNIQUE\s+)?INDEX", record.sql, re.IGNORECASE):
                loosened |= not engine.run(loose).failed
            elif "UNIQUE" in record.sql.upper().split():
                loosened = True
        elif answer.failed:
            if record.kind == "error":
                tally.note("right", "", where, record)
            else:
                tally.note("refused", message_class(answer.error), where, record, weight)
        elif record.kind == "error":
            tally.note("listed" if loosened else "accepted", "a statement that must fail", where, record)
        elif record.kind == "query" and not as_expected(record, answer.rows):
            tally.note("wrong", "another answer", where, record, weight)
        else:
            tally.note("right", "", where, record, weight)
    for kind, name in reversed(made):
        engine.run(f"DROP {kind} IF EXISTS {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--every", type=int, default=1, help="only each n-th file")
    parser.add_argument("--first", type=int, default=0, help="the first file of these")
    parser.add_argument("--records", type=int, default=0, help="at most so many queries of a file, spread over it")
    parser.add_argument("--largest", type=int, default=4_000_000, help="files of more bytes are left out")
    parser.add_argument("--engine", choices=["omendb", "postgresql"], default="omendb")
    arguments = parser.parse_args()
    from engines import Omen, Pg
    from omendb_server import Server
    from postgres import Postgres

    files = [p for p in sorted(arguments.folder.rglob("*.test")) if p.stat().st_size <= arguments.largest][arguments.first::arguments.every]
    tally = Tally()
    with contextlib.ExitStack() as stack:
        if arguments.engine == "omendb":
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="omendb-sqllogictest-"))
            server = Server(pathlib.Path(scratch) / "data").start()
            stack.callback(server.kill)
            engine = Omen(server)
        else:
            postgres = Postgres()
            stack.callback(postgres.stop)
            engine = Pg(postgres.start())
        stack.callback(engine.close)
        for path in files:
            before = dict(tally.counts)
            run_file(engine, path, arguments.records, tally)
            changed = {k: v - before.get(k, 0) for k, v in tally.counts.items() if v != before.get(k, 0)}
            print(f"{path.relative_to(arguments.folder)}: {changed}", file=sys.stderr, flush=True)
    print(tally.report())


if __name__ == "__main__":
    sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients")]
    main()
