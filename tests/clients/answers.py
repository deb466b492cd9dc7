"""Answers of two databases made comparable."""

import datetime
import decimal
import math


def plain(value):
    """A value without the types by which two databases differ: decimals that hold integers, time zones."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).replace(tzinfo=None) if value.tzinfo else value
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def same(a, b) -> bool:
    """Equal, or as near as two orders of summation leave a float."""
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return a == b


def sort_key(row):
    # Floats are rounded, so that the last bit does not decide where a row goes.
    return [(v is None, float(f"{v:.6g}") if isinstance(v, float) else v) for v in row if not isinstance(v, bytes)]


def rows_of(table, ordered: bool):
    rows = [tuple(map(plain, row)) for row in zip(*(c.to_pylist() for c in table.columns))]
    return rows if ordered else sorted(rows, key=sort_key)


def assert_same(ours, theirs, ordered: bool):
    """Both Arrow tables hold the same rows: in the same order, if that was asked for."""
    assert [n.lower() for n in ours.column_names] == [n.lower() for n in theirs.column_names]
    ours, theirs = rows_of(ours, ordered), rows_of(theirs, ordered)
    assert len(ours) == len(theirs)
    for number, (a, b) in enumerate(zip(ours, theirs)):
        assert all(map(same, a, b)), f"row {number}: {a} here, {b} in DuckDB"
