"""Makes a diverging case smaller: the statement first, then rows, tables and columns."""

import dataclasses
import re
import time

from cases import Bench, Case, Divergence
from schema import Table
from syntax import smaller


def shrink(bench: Bench, found: Divergence, seconds: float = 60.0) -> Divergence:
    """The smallest case that was found to diverge in the same way."""
    until = time.monotonic() + seconds

    def diverges(case: Case) -> Divergence | None:
        if time.monotonic() > until:
            return None
        again = bench.compare(case)
        return again if again and again.signature() == found.signature() else None

    best = diverges(found.case) or found
    while True:
        before = best
        best = _statement(best, diverges)
        best = _tables(best, diverges)
        if best is before or time.monotonic() > until:
            return best


def _statement(best: Divergence, diverges) -> Divergence:
    """Steps to smaller trees while there is one that diverges."""
    while True:
        for tree in smaller(best.case.statement):
            if again := diverges(dataclasses.replace(best.case, statement=tree)):
                best = again
                break
        else:
            return best


def _tables(best: Divergence, diverges) -> Divergence:
    if best.case.zone != "UTC":
        best = diverges(dataclasses.replace(best.case, zone="UTC")) or best
    for name in [t.name for t in best.case.tables]:
        for change in (_plainer, _columns):
            table = next(t for t in best.case.tables if t.name == name)
            for other in change(table, best.case.sql()):
                if again := diverges(_with(best.case, other)):
                    best = again
                    break
        best = _rows(best, name, diverges)
    return best


def _with(case: Case, table: Table) -> Case:
    return dataclasses.replace(case, tables=tuple(table if t.name == table.name else t for t in case.tables))


def _plainer(table: Table, sql: str):
    """Without its key, or in memory."""
    if table.key_kind != "none":
        yield dataclasses.replace(table, key_kind="none", key=(), storage="memory")
    if table.storage != "memory":
        yield dataclasses.replace(table, storage="memory")


def _columns(table: Table, sql: str):
    """Without the columns that the statement does not name."""
    keep = [i for i, (name, _) in enumerate(table.columns) if name in table.key or re.search(rf"\b{name}\b", sql)] or [0]
    if len(keep) < len(table.columns):
        yield dataclasses.replace(
            table, columns=tuple(table.columns[i] for i in keep), rows=tuple(tuple(row[i] for i in keep) for row in table.rows),
        )


def _rows(best: Divergence, name: str, diverges) -> Divergence:
    """Halves first, then single rows."""
    table = next(t for t in best.case.tables if t.name == name)
    width = len(table.rows)
    while width >= 1:
        at, shorter = 0, False
        while at < len(table.rows):
            other = dataclasses.replace(table, rows=table.rows[:at] + table.rows[at + width:])
            if again := diverges(_with(best.case, other)):
                best, table, shorter = again, other, True
            else:
                at += width
        if not shorter or width > len(table.rows):
            width //= 2
    return best
