"""Fixtures: one bench (OmenDB, PostgreSQL, DuckDB) for the whole run."""

import os
import pathlib
import secrets
import sys

import pytest

# The server is started as the tests of the clients start it.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))

from bench import opened  # noqa: E402
from omendb_server import binary  # noqa: E402
from postgres import Missing, programs  # noqa: E402

# The seed of CI: what a run finds is a change's doing, not chance's. OMENDB_DIFF_SEED replays another; `random` takes a new one.
SEED = "omendb"


def pytest_configure(config):
    if not os.access(binary(), os.X_OK):
        raise pytest.UsageError(f"no program at {binary()}: build it (./test differential does), or set OMENDB_BIN")
    try:
        programs()
    except Missing as missing:
        raise pytest.UsageError(str(missing)) from None


def pytest_report_header(config):
    return f"differential seed: {seed_text()} (OMENDB_DIFF_SEED), round: {os.environ.get('OMENDB_DIFF_ROUND', 'all')}"


def seed_text() -> str:
    if os.environ.get("OMENDB_DIFF_SEED") == "random":
        os.environ["OMENDB_DIFF_SEED"] = secrets.token_hex(4)
    return os.environ.get("OMENDB_DIFF_SEED", SEED)


@pytest.fixture(scope="session")
def seed() -> str:
    return seed_text()


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether the long form was asked for."""
    return os.environ.get("OMENDB_TEST_SCALE") == "full"


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("differential")) as bench:
        yield bench
        assert bench.omen.server.alive(), f"the server ended by itself:\n{bench.omen.server.tail()}"
