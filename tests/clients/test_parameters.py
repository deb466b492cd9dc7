"""Bound values through the ADBC driver: each keeps its own type, as if a literal of it stood in the text."""

import decimal
import math

import pytest


@pytest.fixture
def seats(cur, table):
    cur.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, n INT)")
    cur.execute(f"INSERT INTO {table} VALUES (4, 40), (5, 50), (6, 60)")
    return table


def rows(cur, sql, *parameters):
    cur.execute(sql, parameters or None)
    return cur.fetchall()


@pytest.mark.parametrize(
    "condition, parameters, expected",
    [
        ("id = ?", (5.25,), []),
        ("id < ?", (5.25,), [4, 5]),
        ("id >= ?", (5.25,), [6]),
        ("id IN (?, ?)", (4.5, 6.0), [6]),
        ("id BETWEEN ? AND ?", (4.5, 5.5), [5]),
        ("n <> ?", (50.5,), [4, 5, 6]),
        ("id < ?", (1e300,), [4, 5, 6]),
        ("id > ?", (math.nan,), []),
        ("n / ? > 100", (0.5,), [6]),
        ("id = ?", (decimal.Decimal("5.00"),), [5]),
        ("id = ?", ("5",), [5]),
    ],
)
def test_conditions(cur, seats, condition, parameters, expected):
    found = rows(cur, f"SELECT id FROM {seats} WHERE {condition} ORDER BY id", *parameters)
    assert found == [(key,) for key in expected]


def test_arithmetic(cur, seats):
    assert rows(cur, "SELECT 100 * ?", 0.25) == [(25.0,)]
    assert rows(cur, f"SELECT n * ? FROM {seats} WHERE id = 4", 0.25) == [(10.0,)]
    assert rows(cur, "SELECT 2 < ?", 2.5) == [(True,)]
    assert rows(cur, "SELECT ?", 1) == [(1,)]
    assert rows(cur, "SELECT ?", "one") == [("one",)]
    assert rows(cur, "SELECT ? + ?", 1, 0.5) == [(1.5,)]


def test_many_and_none(cur, seats):
    cur.executemany(f"UPDATE {seats} SET n = n * ? WHERE id = ?", [(0.5, 4), (2.0, 5)])
    assert rows(cur, f"SELECT n FROM {seats} ORDER BY id") == [(20,), (100,), (60,)]
