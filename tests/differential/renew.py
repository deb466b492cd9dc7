"""Brings `divergences.toml` and the page of the docs up to date with the built server: `python renew.py`.

Each entry is run. One that answers as the other engine does now is dropped, and what the others answer is written anew. Reasons
and titles stay; look at the difference before you commit it.
"""

import dataclasses
import datetime
import json
import os
import sys
import tempfile

HEAD = """\
# Where OmenDB's SQL differs from PostgreSQL's (from DuckDB's, where PostgreSQL lacks the function). docs/sql-differences.md is made
# of this list, and the tests run each entry: renew.py brings both up to date. `error` matches the message of a refusal, `sql` the
# statement that is left when a divergence has been made small: what both match is explained by the entry.
"""


def literal(value) -> str:
    """A value as TOML writes it."""
    match value:
        case tuple():
            return f"[{', '.join(map(literal, value))}]"
        case datetime.datetime():
            return value.isoformat()
        case _:
            return json.dumps(value, ensure_ascii=False)


def toml(entry) -> str:
    """An entry as it stands in the file."""
    lines = ["[[divergence]]"]
    for field in dataclasses.fields(entry):
        value = getattr(entry, field.name)
        if value != field.default:
            lines.append(f"{field.name} = {literal(value)}")
    return "\n".join(lines) + "\n"


def renewed(bench, entry):
    """The entry with today's answers; None where there is no divergence any more."""
    from test_divergences import answer, kind_of

    ours, theirs = answer(bench.omen, entry), answer(bench.postgres if entry.oracle == "postgresql" else bench.duck, entry)
    kind = kind_of(ours, theirs)
    if kind is None or kind == "names" != entry.kind:
        print(f"dropped {entry.id}: both answer {ours.text()}")
        return None
    if kind != entry.kind:
        print(f"look at {entry.id}: it was {entry.kind} and is {kind}: {ours.text()}")
    shown = f"refused: {ours.error.splitlines()[0][:160]}" if ours.failed else ours.text()
    return dataclasses.replace(entry, kind=kind, omendb=shown, reference=theirs.text())


def main() -> None:
    from bench import opened
    from divergences import FILE, PAGE, listed, page

    with tempfile.TemporaryDirectory(prefix="omendb-differential-") as scratch, opened(scratch) as bench:
        entries = [entry for entry in (renewed(bench, entry) for entry in listed()) if entry]
    FILE.write_text("\n".join([HEAD] + [toml(entry) for entry in entries]))
    PAGE.write_text(page(entries))


if __name__ == "__main__":
    sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients")]
    main()
