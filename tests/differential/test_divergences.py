"""What the list says is so: each divergence is still one, with these very answers, and the page shows the list."""

import datetime
import re

import pyarrow as pa
import pytest

from divergences import PAGE, listed, page
from engines import Omen
from equality import Answer, same_rows

ENTRIES = listed()


def names(entry) -> list:
    return re.findall(r"CREATE (TABLE|VIEW) (\w+)", " ".join(entry.setup))


def answer(engine, entry) -> Answer:
    """The answer on an empty database, which is empty again afterwards."""
    for kind, name in reversed(names(entry)):
        engine.run(f"DROP {kind} IF EXISTS {name}")
    try:
        engine.script(entry.setup)
        if entry.parameters and isinstance(engine, Omen):
            return engine.run(entry.statement, engine.batch([pa.scalar(value) for value in entry.parameters]))
        text = entry.statement
        for value in entry.parameters:
            shown = f"TIMESTAMP '{value}'" if isinstance(value, datetime.datetime) else repr(value)
            text = text.replace("?", shown, 1)
        return engine.run(text)
    finally:
        for kind, name in reversed(names(entry)):
            engine.run(f"DROP {kind} IF EXISTS {name}")


def kind_of(ours: Answer, theirs: Answer) -> str | None:
    """How two answers differ, if they do."""
    match ours.failed, theirs.failed:
        case True, True:
            return "sqlstate" if ours.sqlstate[:2] != theirs.sqlstate[:2] else None
        case True, False:
            return "refused"
        case False, True:
            return "accepted"
        case _ if same_rows(ours.rows, theirs.rows, False, False):
            return "names" if ours.names != theirs.names else None
        case _:
            return "wrong"


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.id for entry in ENTRIES])
def test_a_listed_divergence_is_still_one(bench, entry):
    bench.loaded = {name: {} for name in bench.loaded}
    ours, theirs = answer(bench.omen, entry), answer(bench.postgres if entry.oracle == "postgresql" else bench.duck, entry)
    kind = kind_of(ours, theirs)
    assert kind, f"both answer {ours.text()} now: take {entry.id} off the list (and write a test that keeps it so)"
    assert kind == entry.kind, f"listed as {entry.kind}, but OmenDB answers {ours.text()}, {entry.oracle} {theirs.text()}"
    if entry.error and ours.failed:
        assert re.search(entry.error, ours.error or ""), f"the message is now {ours.error!r}"
    if not ours.failed:
        assert ours.text() == entry.omendb
    if not theirs.failed:
        assert theirs.text() == entry.reference


def test_entries_have_ids_and_reasons_of_their_own():
    assert len({entry.id for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert len(entry.reason) > 20 and entry.status in ("difference", "refusal", "defect"), entry.id
        assert entry.error or entry.sql, f"{entry.id} would explain every {entry.kind} answer"


def test_the_page_shows_the_list():
    assert PAGE.read_text() == page(ENTRIES), f"write it anew: python tests/differential/divergences.py > {PAGE.name}"
