"""Starts the engines, and stops them."""

import contextlib
import pathlib

from cases import Bench
from engines import Duck, Omen, Pg
from omendb_server import Server
from postgres import Postgres


@contextlib.contextmanager
def opened(scratch):
    """A bench on servers of its own."""
    with contextlib.ExitStack() as stack:
        postgres = Postgres()
        stack.callback(postgres.stop)
        postgres.start()
        server = Server(pathlib.Path(scratch) / "data").start()
        stack.callback(server.kill)
        omen, pg, duck = Omen(server), Pg(postgres), Duck()
        for engine in (omen, pg, duck):
            stack.callback(engine.close)
        yield Bench(omen, pg, duck)
