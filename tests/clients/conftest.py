"""Fixtures: one server for the whole run, one connection and one fresh table name for each test."""

import itertools
import os
import re

import pytest

from omendb_server import Server, binary


def pytest_configure(config):
    if not os.access(binary(), os.X_OK):
        raise pytest.UsageError(f"no program at {binary()}: build it (./test python does), or set OMENDB_BIN")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server that tests share; each uses tables of its own."""
    server = Server(tmp_path_factory.mktemp("shared") / "data").start()
    yield server
    alive = server.alive()
    tail = server.tail()
    server.kill()
    assert alive, f"the server ended by itself:\n{tail}"


@pytest.fixture
def own_server(tmp_path):
    """A server of the test's own, to be killed and started again."""
    server = Server(tmp_path / "data").start()
    yield server
    server.kill()


@pytest.fixture
def con(server):
    with server.connect() as connection:
        yield connection


@pytest.fixture
def cur(con):
    with con.cursor() as cursor:
        yield cursor


NUMBERS = itertools.count(1)


@pytest.fixture
def table(request, server):
    """A table name that no other test uses; what bears it is dropped afterwards."""
    name = f"{re.sub(r'[^a-z0-9]+', '_', request.node.originalname.lower())}_{next(NUMBERS)}"
    yield name
    if server.alive():
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f'DROP TABLE IF EXISTS "{name}"')


def full_scale() -> bool:
    """Whether the long forms were asked for."""
    return os.environ.get("OMENDB_TEST_SCALE") == "full"
