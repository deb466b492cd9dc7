#!/usr/bin/env python3
"""Lists the crates that the released binary contains, with their licences.

    .ci/notices.py            write NOTICE.md
    .ci/notices.py --check    fail if NOTICE.md is not up to date
    .ci/notices.py --texts    print every licence text, to ship beside a binary
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# One platform, so that the list does not depend on the machine that makes it.
PLATFORM = "x86_64-unknown-linux-gnu"
HEAD = """# Third-party notices

OmenDB is licensed under the Apache License, Version 2.0 (see `LICENSE`). Its binary contains the crates below,
each under the licence named. `.ci/notices.py` writes this list from `Cargo.lock`; `.ci/notices.py --texts` prints
the licences' full texts, which go beside a binary that is passed on.

| crate | version | licence | source |
|---|---|---|---|
"""


def linked_packages():
    """The packages reachable from ours over normal dependencies: what ends up in the binary."""
    out = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", PLATFORM],
        cwd=ROOT, check=True, stdout=subprocess.PIPE,
    ).stdout
    metadata = json.loads(out)
    packages = {p["id"]: p for p in metadata["packages"]}
    nodes = {n["id"]: n for n in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, todo = set(), [root]
    while todo:
        for dep in nodes[todo.pop()]["deps"]:
            # A kind of None is a normal dependency; the others are "dev" and "build".
            if any(k["kind"] is None for k in dep["dep_kinds"]) and dep["pkg"] not in seen:
                # A procedural macro runs at build time only.
                kinds = {k for t in packages[dep["pkg"]]["targets"] for k in t["kind"]}
                if "proc-macro" not in kinds:
                    seen.add(dep["pkg"])
                    todo.append(dep["pkg"])
    return sorted((packages[i] for i in seen), key=lambda p: (p["name"], p["version"]))


def listing(packages):
    rows = (
        "| {name} | {version} | {licence} | {source} |\n".format(
            name=p["name"], version=p["version"],
            licence=p["license"] or f"see {p['license_file']}", source=p["repository"] or "",
        )
        for p in packages
    )
    return HEAD + "".join(rows)


def texts(packages):
    for p in packages:
        folder = pathlib.Path(p["manifest_path"]).parent
        print(f"\n==== {p['name']} {p['version']} ({p['license'] or p['license_file']})\n")
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE")):
                print(f"---- {file.name}\n{file.read_text(errors='replace')}")


def main():
    target, mode = ROOT / "NOTICE.md", sys.argv[1:]
    packages = linked_packages()
    if mode == ["--texts"]:
        texts(packages)
    elif mode == ["--check"]:
        if not target.exists() or target.read_text() != listing(packages):
            sys.exit("NOTICE.md does not match Cargo.lock; run .ci/notices.py and commit the result")
    elif not mode:
        target.write_text(listing(packages))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
