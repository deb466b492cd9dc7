"""The built server as a test drives it: start, kill, start again."""

import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import time

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow.flight

ROOT = pathlib.Path(__file__).resolve().parents[2]
LISTENING = re.compile(rb"127\.0\.0\.1:([1-9]\d*)")


def binary() -> str:
    """The program under test: OMENDB_BIN, else the one in the target folder."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return os.environ.get("OMENDB_BIN", str(target / "debug" / "omendb"))


def environment(**settings: str) -> dict:
    """The environment without OMENDB_* variables, which would be settings of the server, and with these."""
    return {k: v for k, v in os.environ.items() if not k.startswith("OMENDB_")} | settings


def run(*args: str, timeout: float = 120, **settings: str) -> subprocess.CompletedProcess:
    """Runs the program to its end; `settings` are environment variables."""
    return subprocess.run(
        [binary(), *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        env=environment(**settings),
    )


class Server:
    """A server process on one data directory and a free port."""

    def __init__(self, data_dir, *args: str):
        self.data_dir = pathlib.Path(data_dir)
        self.args = args
        self.log = self.data_dir.with_name(self.data_dir.name + ".log")
        self.process = None
        self.port = None

    def start(self, timeout: float = 60, port: int = 0) -> "Server":
        """Starts the program and returns once it accepts calls. Port 0 is any that is free."""
        log = open(self.log, "ab")
        self.process = subprocess.Popen(
            [binary(), "serve", "--data-dir", str(self.data_dir), "--listen", f"127.0.0.1:{port}", *self.args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment(),
        )
        log.close()
        self.port = self._read_port(time.monotonic() + timeout)
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout):
            return self

    def _read_port(self, deadline: float) -> int:
        """The port from the line that says where the server listens."""
        seen, fd = b"", self.process.stdout.fileno()
        while time.monotonic() < deadline:
            if select.select([fd], [], [], 0.1)[0]:
                more = os.read(fd, 4096)
                seen += more
                if found := LISTENING.search(seen):
                    return int(found[1])
                if not more:
                    break
        self.kill()
        raise AssertionError(f"the server did not say where it listens; it printed {seen!r} and logged:\n{self.tail()}")

    def tail(self) -> str:
        """The end of the server's log."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nothing is said."""
        if self.alive():
            self.process.send_signal(signal.SIGKILL)
        self._reap()

    def terminate(self, timeout: float = 30) -> int:
        """SIGTERM: the server drains and closes. Returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout)
        self._reap()
        return status

    def _reap(self) -> None:
        if self.process is not None:
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    @property
    def uri(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def connect(self, autocommit=True, **options):
        """A connection through ADBC. Unless told otherwise, it commits each statement by itself."""
        return flightsql.connect(self.uri, autocommit=autocommit, **options)

    def flight(self) -> pyarrow.flight.FlightClient:
        """A plain Flight client."""
        return pyarrow.flight.connect(self.uri)
