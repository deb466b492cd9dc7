"""The suite's own parts: equality, shrinking, and the runner of sqllogictest files."""

import math
import random
from decimal import Decimal

import pytest

from changes import Changes
from equality import Answer, Moment, interval_from_text, moment_from_text, same_rows, same_value
from schema import tables
from sqllogictest import Tally, parse, run_file
from syntax import Many, Node, smaller, text

DAY = 86_400_000_000


@pytest.mark.parametrize("a, b, inexact, same", [
    (None, None, False, True),
    (None, Decimal(0), False, False),
    (Decimal("1.50"), Decimal("1.5"), False, True),
    (Decimal(1), True, False, False),
    (math.nan, math.nan, False, True),
    (0.0, -0.0, False, True),
    (0.1 + 0.2, 0.3, False, False),
    (0.1 + 0.2, 0.3, True, True),
    (Decimal("0.3333333333333333"), Decimal("0.333333"), False, False),
    (Decimal("0.3333333333333333"), Decimal("0.333333"), True, True),
    (Decimal("1.1"), Decimal("1.2"), True, False),
    ("a", b"a", False, False),
    (Moment("date", 0), Moment("timestamp", 0), False, False),
])
def test_values_are_compared_by_type(a, b, inexact, same):
    assert same_value(a, b, inexact) is same


def test_texts_of_postgresql_become_numbers():
    assert moment_from_text("date", "1970-01-02").at == 1
    assert moment_from_text("date", "0001-12-31 BC").at == -719163
    assert moment_from_text("timestamptz", "1970-01-01 02:00:00.5+02").at == 500_000
    assert interval_from_text("1 mon -2 days -03:04:05").at == 28 * DAY - 11_045_000_000


def test_rows_have_an_order_only_where_the_statement_gives_one():
    a, b = [(Decimal(1),), (Decimal(2),)], [(Decimal(2),), (Decimal(1),)]
    assert same_rows(a, b, False, False)
    assert not same_rows(a, b, True, False)
    assert not same_rows(a, a + a, False, False)


def test_a_statement_shrinks_to_what_matters():
    tree = Node("query", ("SELECT ", Many((text("int", "7"), Node("int", ("(", text("int", "3"), " + ", text("int", "bad"), ")")))), " FROM t"))
    while smallest := next((s for s in smaller(tree) if "bad" in s.render()), None):
        tree = smallest
    assert tree.render() == "SELECT bad FROM t"


def test_a_seed_gives_the_same_statements():
    def made():
        rng = random.Random("x")
        g = Changes(rng, tables(rng, 0.1))
        return [g.statement()[0].render() for _ in range(20)] + [g.change()[0].render() for _ in range(20)]

    assert made() == made()


FILE = """hash-threshold 3

statement ok
CREATE TABLE t(a INTEGER, b TEXT)

statement ok
INSERT INTO t VALUES (2, 'x'), (1, NULL)

statement error
SELECT nothing FROM t

onlyif mysql
query I nosort
SELECT 5 DIV 2
----
2

skipif postgresql
statement ok
PRAGMA none

query IT rowsort
SELECT a, b FROM t
----
1
NULL
2
x

query R valuesort
SELECT a / 2.0 FROM t
----
0.500
1.000

query II nosort
SELECT a, a FROM t ORDER BY 1
----
4 values hashing to 361619205d8fd52692717ea4890ccf94

query I nosort
SELECT a FROM t ORDER BY 1
----
2
1
"""


class Answers:
    """An engine that knows the answers of FILE."""

    def run(self, sql: str) -> Answer:
        one, two = Decimal(1), Decimal(2)
        known = {
            "SELECT nothing FROM t": Answer(error="no such column"), "SELECT a, b FROM t": Answer(rows=[(two, "x"), (one, None)]),
            "SELECT a / 2.0 FROM t": Answer(rows=[(Decimal("1"),), (Decimal("0.5"),)]),
            "SELECT a, a FROM t ORDER BY 1": Answer(rows=[(one, one), (two, two)]), "SELECT a FROM t ORDER BY 1": Answer(rows=[(one,), (two,)]),
        }
        return known.get(sql, Answer())


def test_the_runner_counts_what_is_right_and_wrong(tmp_path):
    path = tmp_path / "a.test"
    path.write_text(FILE)
    assert [r.kind for r in parse(FILE)] == ["ok", "ok", "error", "query", "query", "query", "query"]
    tally = Tally()
    run_file(Answers(), path, 0, tally)
    assert dict(tally.counts) == {"right": 6, "wrong": 1}, tally.report()
