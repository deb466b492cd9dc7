"""The list of known divergences, `divergences.toml`, and the page of the docs made of it."""

import dataclasses
import pathlib
import re
import tomllib

FILE = pathlib.Path(__file__).with_name("divergences.toml")


@dataclasses.dataclass(frozen=True)
class Listed:
    """A divergence and its reason. It explains what it matches: the kind, the message of a refusal, the shrunk statement."""

    id: str
    title: str
    reason: str
    # "difference" (meant so), "refusal" (not there), "defect" (a wrong answer that is to be mended)
    status: str
    kind: str
    statement: str
    omendb: str
    reference: str
    setup: tuple = ()
    oracle: str = "postgresql"
    error: str = ""
    sql: str = ""
    # Values bound to the statement's question marks; where an engine takes none they stand in the text.
    parameters: tuple = ()

    def explains(self, found) -> bool:
        # What is refused may be so before values are looked at that PostgreSQL has another error for.
        kinds = ("refused", "sqlstate") if self.kind == "refused" and self.error else (self.kind,)
        if found.kind not in kinds or self.oracle not in (found.case.oracle, "postgresql"):
            return False
        if self.error and not re.search(self.error, found.omendb.error or found.signature()):
            return False
        return not self.sql or re.search(self.sql, found.case.sql()) is not None


def listed() -> list[Listed]:
    entries = tomllib.loads(FILE.read_text()).get("divergence", [])
    return [Listed(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}) for entry in entries]


PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "sql-differences.md"

HEAD = """# Where SQL differs from PostgreSQL

The tests run random statements in OmenDB and in PostgreSQL (in DuckDB, where PostgreSQL lacks the function) and compare the
answers: `./test differential`. What differs is listed here with its reason. The page is made from `tests/differential/divergences.toml`,
and the tests run each entry: one that answers as PostgreSQL does, or otherwise than listed, fails them.
"""
SECTIONS = {
    "difference": ("Meant so", "OmenDB's answer is another one, and is meant to be."),
    "refusal": ("Refused", "OmenDB has no answer and says so; nothing is answered wrongly."),
    "defect": ("Defects", "OmenDB's answer is wrong, or it answers what it should refuse. These are to be mended."),
}


def page(entries: list[Listed]) -> str:
    """The page of the docs."""
    out = [HEAD]
    for status, (title, about) in SECTIONS.items():
        chosen = [entry for entry in entries if entry.status == status]
        out.append(f"## {title}\n\n{about if chosen else 'None that is known.'}\n")
        for entry in chosen:
            sql = "\n".join(f"{s};" for s in (*entry.setup, entry.statement))
            other = {"postgresql": "PostgreSQL", "duckdb": "DuckDB"}[entry.oracle]
            out.append(f"### {entry.title}\n\n{entry.reason}\n\n```sql\n{sql}\n-- OmenDB: {entry.omendb}\n-- {other}: {entry.reference}\n```\n")
    return "\n".join(out)


if __name__ == "__main__":
    print(page(listed()), end="")
