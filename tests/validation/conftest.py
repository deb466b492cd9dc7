"""Fixtures of the validation suite of ADBC's drivers: our server, and the driver as it must be used."""

import pathlib
import sys
import tomllib

import adbc_driver_flightsql
import adbc_driver_manager.dbapi
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "clients"))

from adbc_drivers_validation.tests import conftest as suite  # noqa: E402
from omendb_server import Server  # noqa: E402
from quirks import HERE, QUIRKS  # noqa: E402

pytest_addoption = suite.pytest_addoption


def expected_failures() -> dict:
    """Reasons by name."""
    return tomllib.loads((HERE / "expected.toml").read_text())["failures"]


def pytest_collection_modifyitems(session, config, items):
    suite.pytest_collection_modifyitems(session, config, items)
    failures = expected_failures()
    for item in items:
        name = f"{item.originalname}:{item.callspec.params['query'].name}" if "query" in item.callspec.params else item.originalname
        if reason := failures.pop(name, None):
            # Strict: what passes unexpectedly fails, so that the list stays true.
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    if failures and not config.option.keyword and config.args == [str(HERE)]:
        raise pytest.UsageError(f"expected.toml names tests that the suite does not have: {', '.join(failures)}")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("validation") / "data").start()
    with server.connect() as con, con.cursor() as cur:
        cur.execute("CREATE SCHEMA other")
    yield server
    alive, tail = server.alive(), server.tail()
    server.kill()
    assert alive, f"the server ended by itself:\n{tail}"


@pytest.fixture(scope="session")
def driver():
    return QUIRKS[0]


class Prepared:
    """A statement that is prepared before rows are bound to it. The driver takes rows bound to an unprepared one for a load,
    and forgets them when it is prepared afterwards."""

    def __init__(self, inner):
        self._inner, self._sql, self._prepared = inner, False, False

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def set_sql_query(self, query):
        self._sql, self._prepared = True, False
        self._inner.set_sql_query(query)

    def prepare(self):
        if not self._prepared:
            self._inner.prepare()
            self._prepared = True

    def bind(self, *args):
        if self._sql:
            self.prepare()
        self._inner.bind(*args)


@pytest.fixture(scope="session")
def conn_factory(server):
    """Connections that commit each statement by itself."""

    def make():
        connection = adbc_driver_manager.dbapi.connect(
            driver=adbc_driver_flightsql._driver_path(), db_kwargs={"uri": server.uri}, autocommit=True
        )
        make_cursor = connection.cursor

        def cursor(*_args, **_kwargs):
            cursor = make_cursor()
            cursor._stmt = Prepared(cursor._stmt)
            return cursor

        connection.cursor = cursor
        return connection

    return make


@pytest.fixture(scope="module")
def conn(conn_factory):
    with conn_factory() as connection:
        yield connection
