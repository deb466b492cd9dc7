"""What the documentation says works."""

import re

import pytest

from omendb_server import ROOT


def blocks(page: str, language: str):
    """The blocks of code of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)


def statements(page: str):
    """The statements of a page's ```sql blocks."""
    for block in blocks(page, "sql"):
        for statement in re.sub(r"--.*", "", block).split(";"):
            if statement.strip():
                yield statement.strip()


@pytest.mark.parametrize("page", ["docs/sql.md", "docs/transactions.md"])
def test_every_statement_of_the_page_runs(own_server, page):
    found = list(statements(page))
    assert len(found) > 8
    with own_server.connect() as con, con.cursor() as cur:
        for statement in found:
            try:
                cur.execute(statement)
                cur.fetchall()
            except Exception as error:
                raise AssertionError(f"{page}: {statement}") from error


@pytest.mark.parametrize("number", range(len(blocks("docs/clients.md", "python"))))
def test_every_python_snippet_of_the_clients_page_runs(own_server, number):
    code = blocks("docs/clients.md", "python")[number]
    assert "127.0.0.1:50051" in code
    exec(compile(code.replace("127.0.0.1:50051", f"127.0.0.1:{own_server.port}"), "docs/clients.md", "exec"), {})


def test_the_programs_on_transactions_run(own_server):
    text = (ROOT / "docs/transactions.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(programs) == 2
    exec("\n".join(programs).replace("grpc://127.0.0.1:50051", own_server.uri), {})
