"""What the documentation says works."""

import re

import pytest

from omendb_server import ROOT


def statements(page: str):
    """The statements of a page's ```sql blocks."""
    text = (ROOT / page).read_text()
    for block in re.findall(r"```sql\n(.*?)```", text, re.S):
        for statement in re.sub(r"--.*", "", block).split(";"):
            if statement.strip():
                yield statement.strip()


@pytest.mark.parametrize("page", ["docs/sql.md"])
def test_every_statement_of_the_page_runs(own_server, page):
    found = list(statements(page))
    assert len(found) > 10
    with own_server.connect() as con, con.cursor() as cur:
        for statement in found:
            try:
                cur.execute(statement)
                cur.fetchall()
            except Exception as error:
                raise AssertionError(f"{page}: {statement}") from error
