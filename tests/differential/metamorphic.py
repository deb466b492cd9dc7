"""Checks that need no second engine: two ways to ask the same thing must answer the same.

- `partition`: a table's rows are those where p is true, where NOT p is, and where p IS NULL is.
- `copy`: a condition on the key and on a copy of its column, which is no key, find the same rows; so do changes by them.
- `path`: a statement that the key answers at once and the same, wrapped so that the planner has to plan and run it.
- `bound`: a value in the text and the same value bound.
- `storage`: rows in memory, in a segment, and in merged segments.
"""

import dataclasses
import random
import re

from changes import Changes
from equality import Answer, same_rows
from expressions import bound, columns_of
from schema import KINDS, Table, constant, table
from syntax import Node

KEYS = ["int2", "int4", "int8", "num", "f8", "text", "date", "ts", "tstz", "time", "bytea", "bool"]


@dataclasses.dataclass
class Breach:
    """Two answers that should be one."""

    check: str
    setup: list
    first: tuple
    second: tuple

    def report(self) -> str:
        lines = [f"-- {self.check}"] + [f"{s};" for s in self.setup]
        for sql, answer in (self.first, self.second):
            lines += [f"{sql};", f"-- {answer.text()}"]
        return "\n".join(lines)


def with_copy(rng: random.Random) -> Table:
    """A table whose key column `k` has a copy `k2` that is no key."""
    kind = rng.choice(KEYS)
    others = tuple((f"c{i}", rng.choice(KEYS)) for i in range(2))
    made = table("m0", (("id", "int4"), ("k", kind), *others), rng, 0.1)
    key_kind = rng.choice(["primary", "cluster", "cluster"])
    rows = []
    for i in range(rng.choice([0, 1, 3, 8, 15])):
        value = constant(kind, rng, 0.1)
        value = "0" if value == "'NaN'" and kind == "f8" else value
        rest = tuple("NULL" if rng.random() < 0.2 else constant(k, rng, 0.1) for _, k in others)
        rows.append((str(i), value, value, *rest))
    key = ("k", "id") if key_kind == "primary" else ("k",)
    return dataclasses.replace(
        made, columns=(("id", "int4"), ("k", kind), ("k2", kind), *others), rows=tuple(rows), key_kind=key_kind, key=key,
        storage=rng.choice(["memory", "flushed", "segments"]),
    )


def key_condition(rng: random.Random, kind: str) -> Node:
    """A condition on k alone: comparisons, lists, ranges, their negations and combinations, of literals and bound values."""
    expression = KINDS.get(kind, kind)

    def value() -> Node:
        if rng.random() < 0.3 and kind not in ("time", "iv"):
            return bound(expression if rng.random() < 0.8 else rng.choice(["int", "flt", "num"] if expression in ("int", "flt", "num") else [expression]), rng, 0.15)
        return Node(expression, (constant(kind, rng, 0.15),))

    def atom() -> Node:
        match rng.randrange(7):
            case 0 | 1 | 2:
                return Node("bool", ("(k ", rng.choice(["=", "<>", "<", "<=", ">", ">="]), " ", value(), ")"))
            case 3:
                return Node("bool", ("(k BETWEEN ", value(), " AND ", value(), ")"))
            case 4:
                return Node("bool", (f"(k {rng.choice(['IN', 'NOT IN'])} (", value(), ", ", value(), "))"))
            case 5:
                return Node("bool", (f"(k IS {rng.choice(['', 'NOT '])}DISTINCT FROM ", value(), ")"))
            case _:
                return Node("bool", ("(", value(), " ", rng.choice(["=", "<", ">="]), " k)"))

    node = atom()
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        node = Node("bool", ("(", node, rng.choice([" AND ", " OR "]), atom(), ")"))
    return Node("bool", ("(NOT ", node, ")")) if rng.random() < 0.15 else node


class Checks:
    """Runs the checks on one server; `run` returns a breach or None."""

    def __init__(self, bench):
        self.bench = bench
        self.omen = bench.omen

    def ask(self, node: Node, bind: bool = True) -> tuple:
        binds = [] if bind else None
        sql = node.render(binds)
        return sql, self.omen.run(sql, self.omen.batch(binds or []))

    @staticmethod
    def agree(a: Answer, b: Answer, inexact: bool) -> bool:
        # Whether an error comes up may depend on what is read first, so only rows are compared.
        return a.failed or b.failed or same_rows(a.rows, b.rows, False, inexact)

    def breach(self, check: str, made: Table, first: tuple, second: tuple) -> Breach:
        setup = [made.create(True), *made.insert(made.rows)]
        return Breach(f"{check} (rows: {made.storage})", setup, first, second)

    def run(self, rng: random.Random) -> Breach | None:
        check = rng.choice([self.partition, self.copy, self.copy, self.change, self.path, self.bound, self.storage])
        made = with_copy(rng)
        self.bench.load(self.omen, [made])
        return check(rng, made)

    def partition(self, rng: random.Random, made: Table) -> Breach | None:
        g = Changes(rng, [made], 0.02)
        g.scopes = [columns_of(made, "a")]
        p = g.expression("bool", rng.choice([1, 2, 2, 3]))
        whole = self.ask(Node("query", ("SELECT a.* FROM m0 AS a",)))
        parts = [self.ask(Node("query", ("SELECT a.* FROM m0 AS a WHERE ", *condition)))
                 for condition in ((p,), ("NOT (", p, ")"), ("(", p, ") IS NULL"))]
        if any(answer.failed for _, answer in parts):
            return None
        rows = [row for _, answer in parts for row in answer.rows]
        if same_rows(whole[1].rows, rows, False, False):
            return None
        return self.breach("partition", made, whole, (" UNION ALL ".join(sql for sql, _ in parts), Answer(rows=rows)))

    @staticmethod
    def _copied(node: Node) -> Node:
        def swap(part):
            if isinstance(part, Node):
                return Checks._copied(part)
            return re.sub(r"\bk\b", "k2", part) if isinstance(part, str) and not part.lstrip().startswith(("'", "CAST(")) else part

        return dataclasses.replace(node, parts=tuple(swap(part) for part in node.parts))

    def copy(self, rng: random.Random, made: Table) -> Breach | None:
        condition = key_condition(rng, made.kind_of("k"))
        what = rng.choice(["*", "id", "count(*)", "min(id), max(id)", "k2, count(*)"])
        after = " GROUP BY k2" if what.startswith("k2") else ""
        first = self.ask(Node("query", (f"SELECT {what} FROM m0 WHERE ", condition, after)))
        second = self.ask(Node("query", (f"SELECT {what} FROM m0 WHERE ", self._copied(condition), after)))
        if first[1].failed != second[1].failed and made.rows or not self.agree(first[1], second[1], False):
            return self.breach("copy", made, first, second)
        return None

    def change(self, rng: random.Random, made: Table) -> Breach | None:
        """The same change by the key and by the copy."""
        condition = key_condition(rng, made.kind_of("k"))
        head = rng.choice(["DELETE FROM m0", "UPDATE m0 SET c0 = NULL", "UPDATE m0 SET id = id + 1"])
        answers = []
        for where in (condition, self._copied(condition)):
            self.omen.script(["BEGIN"])
            answer = self.ask(Node("change", (f"{head} WHERE ", where, " RETURNING id, k, c0")))
            left = self.omen.run("SELECT * FROM m0")
            self.omen.script(["ROLLBACK"])
            answers.append((answer, left))
        (first, left), (second, other) = answers
        if not self.agree(first[1], second[1], False) or not self.agree(left, other, False) or first[1].failed != second[1].failed and made.rows:
            return self.breach("change", made, first, second)
        return None

    def path(self, rng: random.Random, made: Table) -> Breach | None:
        condition = key_condition(rng, made.kind_of("k"))
        columns = rng.choice(["id, k, c0", "*", "k"])
        first = self.ask(Node("query", (f"SELECT {columns} FROM m0 WHERE ", condition)))
        inner = "(SELECT * FROM m0 UNION ALL SELECT * FROM m0 WHERE FALSE)"
        second = self.ask(Node("query", (f"SELECT {columns} FROM {inner} AS s WHERE ", condition)))
        if self.agree(first[1], second[1], False):
            return None
        return self.breach("path", made, first, second)

    def bound(self, rng: random.Random, made: Table) -> Breach | None:
        g = Changes(rng, [made], 0.05)
        g.binding = 0.8
        g.scopes, g.subqueries = [columns_of(made, "a")], False
        node = Node("query", ("SELECT a.* FROM m0 AS a WHERE ", g.expression("bool", rng.choice([1, 2]))))
        first, second = self.ask(node), self.ask(node, False)
        if first[1].failed != second[1].failed and made.rows or not self.agree(first[1], second[1], False):
            return self.breach("bound", made, first, second)
        return None

    def storage(self, rng: random.Random, made: Table) -> Breach | None:
        """The same query before and after flush and compaction, of rows that partly were replaced and deleted."""
        self.bench.loaded["omendb"].pop("m0", None)
        g = Changes(rng, [made], 0.02)
        queries = []
        for _ in range(3):
            g.scopes = [columns_of(made, "a")]
            g.subqueries = False
            queries.append(Node("query", ("SELECT a.* FROM m0 AS a WHERE ", g.expression("bool", 2))))
            queries.append(Node("query", ("SELECT * FROM m0 WHERE ", key_condition(rng, made.kind_of("k")))))
        queries.append(Node("query", ("SELECT k, count(*), min(id) FROM m0 GROUP BY k",)))
        queries.append(Node("query", ("SELECT min(k), max(k), count(*) FROM m0",)) if made.kind_of("k") not in ("bool", "bytea") else queries[-1])
        self.omen.run("DELETE FROM m0 WHERE id % 3 = 1")
        self.omen.run("UPDATE m0 SET id = id + 100 WHERE id % 4 = 2")
        before = [self.ask(q) for q in queries]
        for action in ("omendb.Flush", "omendb.Compact"):
            self.omen.action(action, "m0")
            for query, (sql, answer) in zip(queries, before):
                again = self.ask(query)
                if answer.failed != again[1].failed or not self.agree(answer, again[1], False):
                    return self.breach(f"storage, {action}", made, (sql, answer), again)
        return None


def campaign(bench, seed: str, number: int) -> list:
    """Runs so many checks; returns the breaches with the seeds that show them."""
    checks, breaches = Checks(bench), []
    for i in range(number):
        if breach := checks.run(random.Random(f"{seed}/m{i}")):
            breaches.append((f"{seed}/m{i}", breach))
    return breaches
