"""Runs random statements and gathers where the engines differ.

Every round has tables of its own and a seed of its own, so that one round can be run again alone.
"""

import argparse
import collections
import dataclasses
import os
import random
import re
import sys
import tempfile
import time

from cases import Bench, Case, Divergence
from changes import Changes
from divergences import Listed, listed
from expressions import EDGE, SAFE, columns_of
from schema import tables
from shrink import shrink
from syntax import Many, Node, text

STATEMENTS_OF_A_ROUND = 40
ZONES = ["UTC", "UTC", "UTC", "Asia/Tokyo", "America/New_York"]
# What only DuckDB has to compare with.
DUCK = {
    "int": ["lag({int} IGNORE NULLS)", "lead({int} IGNORE NULLS)", "first_value({int} IGNORE NULLS)", "last_value({int} IGNORE NULLS)",
            "lag({int}, 2 IGNORE NULLS)", "lead({int}, 2 IGNORE NULLS)", "lead({int}, -1 IGNORE NULLS)"],
    # DuckDB computes those of REAL in 32 bits.
    "flt": ["~median(CAST({flt} AS DOUBLE PRECISION))", "~quantile_cont(CAST({flt} AS DOUBLE PRECISION), 0.3)"],
}


def case(rng: random.Random, made: tuple, zone: str) -> Case:
    """A random case of a random family."""
    family = rng.choices(["select", "plain", "edge", "change", "bound", "duck"], [46, 20, 12, 14, 9, 3])[0]
    g = Changes(rng, list(made), {"edge": 0.3, "change": 0.03}.get(family, 0.01))
    match family:
        case "select":
            node, ordered = g.statement()
            return Case(family, made, node, ordered, zone=zone)
        case "plain":
            return Case(family, made, g.plain(SAFE, list(SAFE)), zone=zone)
        case "edge":
            return Case(family, made, g.plain(EDGE, list(EDGE)), strict=True, zone=zone)
        case "change":
            node, table = g.change()
            return Case(family, made, node, changed=table.name, rollback=rng.random() < 0.5, zone=zone)
        case "bound":
            g.binding = 0.7
            if rng.random() < 0.3:
                node, table = g.change()
                return Case(family, made, node, changed=table.name, rollback=rng.random() < 0.5, bound=True, zone=zone)
            node = g.plain(SAFE, list(SAFE)) if rng.random() < 0.3 else filtered(g)
            return Case(family, made, node, bound=True, zone=zone)
        case _:
            return Case(family, made, only_duck(g), oracle="duckdb")


def filtered(g: Changes) -> Node:
    """A table with a condition of bound values, often on its key."""
    table = g.rng.choice(g.tables)
    g.scopes = [columns_of(table, "a")]
    parts = [g.expression("bool", g.rng.choice([1, 1, 2]))]
    if g.rng.random() < 0.4:
        key = (table.key or ("id",))[0]
        kind = dict(g.scopes[-1])[f"a.{key}"]
        if kind not in ("time", "bytea", "flt", "bool"):
            from expressions import bound

            parts.append(Node("bool", (f"a.{key} ", g.rng.choice(["=", "<", "<=", ">", ">=", "<>"]), " ", bound(kind, g.rng, 0.05))))
    return Node("query", (f"SELECT a.* FROM {table.name} AS a WHERE ", Many(tuple(parts), " AND ")))


def only_duck(g: Changes) -> Node:
    """Functions that PostgreSQL 15 does not have."""
    table = g.rng.choice(g.tables)
    g.scopes, g.subqueries = [columns_of(table, "a")], False
    g.templates = {kind: ["COALESCE({%s}, {%s})" % (kind, kind)] for kind in SAFE}
    kind = g.rng.choice(list(DUCK))
    node = g.fill(kind, g.rng.choice(DUCK[kind]), 1)
    if kind == "int":
        own = [ref for ref, k in g.scopes[-1] if k in ("int", "text", "date", "num")]
        order = f"{g.rng.choice(own)}{g.rng.choice(['', ' DESC', ' NULLS FIRST'])}, a.id"
        partition = f"PARTITION BY {g.rng.choice(own)} " if g.rng.random() < 0.4 else ""
        return Node("query", ("SELECT a.id, ", node, f" OVER ({partition}ORDER BY {order}) FROM {table.name} AS a"))
    by = g.rng.choice([ref for ref, _ in g.scopes[-1]])
    return Node("query", (f"SELECT {by}, ", node, f" FROM {table.name} AS a GROUP BY {by}"))


@dataclasses.dataclass
class Outcome:
    """What a campaign found."""

    seed: str
    statements: int = 0
    counts: dict = dataclasses.field(default_factory=dict)
    families: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    # Shrunk divergences that nothing in the list explains, one for each class, and how often each class was met.
    unexplained: dict = dataclasses.field(default_factory=dict)
    met: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    explained: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def summary(self) -> str:
        families = ", ".join(f"{k} {v}" for k, v in sorted(self.families.items()))
        lines = [f"seed {self.seed}: {self.statements} statements ({families})",
                 f"  {self.counts['compared']} compared, {self.counts['outside']} no SQL of the other engine, "
                 f"{self.counts['order']} where whether an error comes up depends on the order of evaluation"]
        lines += [f"  {n:6} explained by {name}" for name, n in self.explained.most_common()]
        lines += [f"  {self.met[k]:6} UNEXPLAINED {k}" for k in self.unexplained]
        return "\n".join(lines)


def skeleton(found: Divergence) -> str:
    """The class of a shrunk divergence: its statement without names and numbers."""
    sql = re.sub(r"'(?:[^']|'')*'", "'_'", found.case.sql())
    sql = re.sub(r"\b([atdw])\d+\b", r"\1", sql)
    sql = re.sub(r"\bc\d\b|\bx\d\b|\bid\b", "c", sql)
    sql = re.sub(r"\b\d+(\.\d+)?\b", "1", sql)
    return sql if found.kind == "wrong" else f"{found.signature()} | {sql}"


def campaign(bench: Bench, seed: str, statements: int, known: list[Listed], rounds=None, log=None, until=None, kinds=None) -> Outcome:
    """Runs so many statements; each divergence that the list does not explain is made small."""
    outcome = Outcome(seed)
    number = 0
    while outcome.statements < statements and (until is None or time.monotonic() < until):
        if rounds is not None and number not in rounds:
            number += 1
            if number > max(rounds):
                break
            continue
        rng = random.Random(f"{seed}/{number}")
        made = tuple(tables(rng, 0.04))
        zone = rng.choice(ZONES)
        for index in range(min(STATEMENTS_OF_A_ROUND, statements - outcome.statements)):
            one = case(random.Random(f"{seed}/{number}/{index}"), made, zone)
            outcome.statements += 1
            outcome.families[one.family] += 1
            found = bench.compare(one)
            if found and (kinds is None or found.kind in kinds):
                note(outcome, bench, found, known, f"{number}/{index}", log)
        number += 1
    outcome.counts = dict(bench.counts)
    return outcome


def explains(known: list[Listed], found: Divergence) -> str | None:
    return next((entry.id for entry in known if entry.explains(found)), None)


def note(outcome: Outcome, bench: Bench, found: Divergence, known: list, where: str, log) -> None:
    """Files a divergence. Some are known by their message or name; a wrong answer by what is left when it is small."""
    if found.kind not in ("wrong", "accepted"):
        name = explains(known, found)
        if not name and found.signature() in outcome.met:
            outcome.met[found.signature()] += 1
            return
    else:
        name = None
    small = found if name else shrink(bench, found)
    if name := name or explains(known, small):
        outcome.explained[name] += 1
        return
    key = skeleton(small) if small.kind in ("wrong", "accepted") else small.signature()
    outcome.met[key] += 1
    if key not in outcome.unexplained:
        outcome.unexplained[key] = small
        if log:
            print(f"\n#### {where} {key}\n{small.report(bench.third(small.case))}", file=log, flush=True)


def main() -> None:
    """The same by hand: `python campaign.py --seed 7 --statements 5000`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--statements", type=int, default=2000)
    parser.add_argument("--round", type=int, action="append", help="only this round (may be given again)")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--kind", action="append", help="only divergences of this kind: refused, accepted, wrong (may be given again)")
    parser.add_argument("--log", help="a file for what diverges; standard output otherwise")
    arguments = parser.parse_args()
    from bench import opened

    with tempfile.TemporaryDirectory(prefix="omendb-differential-") as scratch, opened(scratch) as bench:
        log = open(arguments.log, "a") if arguments.log else sys.stdout
        began = time.monotonic()
        until = began + arguments.seconds if arguments.seconds else None
        outcome = campaign(bench, arguments.seed, arguments.statements, listed(), arguments.round, log, until, arguments.kind)
        print(f"\n{outcome.summary()}\n  in {time.monotonic() - began:.0f} s", file=log, flush=True)
        if log is not sys.stdout:
            print(outcome.summary())


if __name__ == "__main__":
    sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients")]
    main()
