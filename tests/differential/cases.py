"""One statement on some tables, run in every engine and compared."""

import dataclasses
import re

from engines import Duck, Omen, Pg
from equality import Answer, same_rows
from syntax import Node

# SQLSTATE classes that speak of the values. With others (42: the statement is no PostgreSQL, 0A: not supported, 57: too slow)
# PostgreSQL has no answer to compare with.
DATA_ERRORS = ("22", "23", "21")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is run. `strict` says that an error in PostgreSQL must be one in OmenDB; see `expressions.SAFE` and `EDGE`."""

    family: str
    tables: tuple
    statement: Node
    ordered: bool = False
    strict: bool = False
    # A change: the table that is compared afterwards, and whether it is rolled back then.
    changed: str | None = None
    rollback: bool = False
    bound: bool = False
    zone: str = "UTC"
    # Which engine is right.
    oracle: str = "postgresql"

    def sql(self) -> str:
        return self.statement.render()

    def setup(self, omendb: bool = True) -> list:
        """The statements that make the tables."""
        used = [t for t in self.tables if re.search(rf"\b{t.name}\b", self.sql())]
        zone = [f"SET timezone = '{self.zone}'"] if self.zone != "UTC" else []
        return zone + [s for t in used for s in [t.create(omendb), *t.insert(t.rows)]]


@dataclasses.dataclass
class Divergence:
    """Two answers that differ. The kinds: OmenDB `refused` it, `accepted` what is an error, answered something else (`wrong`), says
    no for another reason (`sqlstate`), or gives the columns other `names`."""

    case: Case
    kind: str
    omendb: Answer
    reference: Answer
    after: tuple = ()

    def signature(self) -> str:
        """What stays the same while the statement gets smaller."""
        if self.kind == "refused":
            return f"refused: {message_class(self.omendb.error)}"
        match self.kind:
            case "accepted":
                return f"accepted: {self.reference.sqlstate}"
            case "sqlstate":
                return f"sqlstate: {self.omendb.sqlstate} for {self.reference.sqlstate}: {message_class(self.omendb.error)}"
            case "names":
                ours, theirs = next((a, b) for a, b in zip(self.omendb.names + [""], self.reference.names + [""]) if a != b)
                return f"names: {message_class(ours)[:40]} for {theirs}"
        return self.kind

    def report(self, duck: str | None = None) -> str:
        lines = [f"-- {self.signature()} ({self.case.family})"]
        lines += [f"{s};" for s in self.case.setup()]
        binds = []
        sql = self.case.statement.render(binds if self.case.bound else None)
        lines.append(f"{sql};")
        if binds:
            lines.append(f"-- bound      {', '.join(f'{b.as_py()!r} {b.type}' for b in binds)}")
        if self.kind == "names":
            lines.append(f"-- names      {self.omendb.names} | {self.reference.names}")
        lines.append(f"-- omendb     {self.omendb.text()}")
        lines.append(f"-- {self.case.oracle:10} {self.reference.text()}")
        if self.after:
            lines.append(f"-- table then: omendb {self.after[0].text()} | {self.case.oracle} {self.after[1].text()}")
        if duck:
            lines.append(f"-- duckdb     {duck}")
        return "\n".join(lines)


def message_class(message: str) -> str:
    """A message without what it quotes and counts."""
    message = (message or "").split("\n")[0]
    message = re.sub(r"^query .* not implemented", "query _ not implemented", message)
    if not re.match("invalid function|(internal error: )?function|syntax error", message, re.IGNORECASE):
        message = re.sub(r'"[^"]*"|\'[^\']*\'|`[^`]*`', "_", message)
    message = re.sub(r"\b[at]\d+(\.\w+)?\b|\bc\d\b|\bd\d+(\.\w+)?\b", "_", message)
    return re.sub(r"-?\d+(\.\d+)?", "#", message)[:110]


def same_names(case: Case, ours: list, theirs: list) -> bool:
    """Whether columns are named the same. What is bound here stands as a cast in PostgreSQL's text, whose name is its type's."""
    cast = ("?column?",) if case.bound else ()
    return len(ours) == len(theirs) and all(a == b or a in cast for a, b in zip(ours, theirs))


class Bench:
    """The engines with tables loaded into them."""

    def __init__(self, omen: Omen, postgres: Pg, duck: Duck):
        self.omen, self.postgres, self.duck = omen, postgres, duck
        self.loaded = {"omendb": {}, "postgresql": {}, "duckdb": {}}
        self.zones = {"omendb": "UTC", "postgresql": "UTC", "duckdb": "UTC"}
        self.counts = {"compared": 0, "outside": 0, "order": 0}

    def load(self, engine, tables) -> None:
        """Brings an engine's tables to what is wanted."""
        have = self.loaded[engine.name]
        for table in tables:
            if have.get(table.name) == table:
                continue
            omendb = engine is self.omen
            have.pop(table.name, None)
            engine.script([table.drop(), table.create(omendb)])
            if omendb and table.storage == "segments" and len(table.rows) > 1:
                half = len(table.rows) // 2
                for rows in (table.rows[:half], table.rows[half:]):
                    engine.script(table.insert(rows))
                    engine.flush(table.name)
            else:
                engine.script(table.insert(table.rows))
                if omendb and table.storage != "memory":
                    engine.flush(table.name)
            have[table.name] = table

    def set_zone(self, engine, zone: str) -> None:
        if self.zones[engine.name] != zone:
            engine.script([f"SET timezone = '{zone}'"])
            self.zones[engine.name] = zone

    def answer(self, engine, case: Case):
        """What the statement answers, and for a change the table afterwards."""
        self.load(engine, case.tables)
        self.set_zone(engine, case.zone)
        sql, batch = case.sql(), None
        if case.bound and engine is self.omen:
            binds = []
            sql = case.statement.render(binds)
            batch = engine.batch(binds)
        if not case.changed:
            return engine.run(sql, batch), None
        if case.rollback:
            engine.script(["BEGIN"])
        try:
            answer = engine.run(sql, batch)
            after = engine.run(f"SELECT * FROM {case.changed}") if not answer.failed or not case.rollback else None
        finally:
            if case.rollback:
                engine.script(["ROLLBACK"])
            else:
                self.loaded[engine.name].pop(case.changed, None)
        return answer, after

    def compare(self, case: Case) -> Divergence | None:
        """Runs a case where it is compared and in OmenDB; None where they agree or cannot be compared."""
        oracle = self.postgres if case.oracle == "postgresql" else self.duck
        right, right_after = self.answer(oracle, case)
        if right.failed and oracle is self.postgres and right.sqlstate[:2] not in DATA_ERRORS or right.failed and oracle is self.duck:
            self.counts["outside"] += 1
            return None
        omen, omen_after = self.answer(self.omen, case)
        # Of no rows nothing is computed, unless the planner computes constants.
        if right.failed and not omen.failed and not (case.strict and omen.rows):
            self.counts["order"] += 1
            return None
        self.counts["compared"] += 1
        if right.failed or omen.failed:
            if right.failed and omen.failed:
                # Both say no: of the same class, unless OmenDB refuses the statement before it looks at values.
                same = oracle is not self.postgres or (omen.sqlstate or "0A")[:2] in (right.sqlstate[:2], "0A", "42")
                # Of several rows that are wrong, or a row that is wrong twice, either engine names one.
                if not same and case.changed and (omen.sqlstate or "")[:2] in DATA_ERRORS and omen.sqlstate != "22000":
                    self.counts["order"] += 1
                    return None
                return None if same else Divergence(case, "sqlstate", omen, right)
            return Divergence(case, "refused" if omen.failed else "accepted", omen, right)
        inexact = case.statement.is_inexact()
        after = (omen_after, right_after) if case.changed else ()
        if not same_rows(omen.rows, right.rows, case.ordered and "ORDER BY" in case.sql(), inexact):
            return Divergence(case, "wrong", omen, right, after)
        if after and not same_rows(omen_after.rows, right_after.rows, False, inexact):
            return Divergence(case, "wrong", omen, right, after)
        if oracle is self.postgres and right.names and not same_names(case, omen.names, right.names):
            return Divergence(case, "names", omen, right)
        return None

    def third(self, case: Case) -> str | None:
        """What DuckDB says, for the report."""
        if case.oracle == "duckdb" or case.changed:
            return None
        try:
            self.load(self.duck, case.tables)
            return self.duck.run(case.sql()).text()
        except AssertionError as error:
            self.loaded["duckdb"].clear()
            return f"(tables) {error}"
