"""A PostgreSQL server for the tests: a scratch data directory, a free port, gone at the end."""

import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import tempfile

# Debian's and Fedora's places; PostgreSQL's own programs are not on PATH there.
PLACES = ["/usr/lib/postgresql", "/usr/pgsql", "/usr/local/pgsql", "/opt/homebrew/opt"]


class Missing(Exception):
    """PostgreSQL is not installed. The suite fails: a silent skip would look like a pass."""


def programs() -> pathlib.Path:
    """The directory of `initdb` and `postgres`, of the newest version that is installed."""
    found = []
    for place in map(pathlib.Path, PLACES):
        for initdb in place.glob("**/bin/initdb"):
            numbers = [int(n) for n in re.findall(r"\d+", str(initdb.parent))]
            found.append((numbers, initdb.parent))
    if not found and (initdb := shutil.which("initdb")):
        found.append(([], pathlib.Path(initdb).resolve().parent))
    if not found:
        raise Missing(
            "the differential tests compare with PostgreSQL, which is not installed: no `initdb` under "
            f"{', '.join(PLACES)} or on PATH. Install it (Debian: apt-get install postgresql)."
        )
    return max(found)[1]


def _unprivileged() -> str | None:
    """A user to run the server as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
            return name
        except KeyError:
            continue
    raise Missing("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")


class Postgres:
    """A server process on a scratch directory."""

    def __init__(self):
        self.bin = programs()
        self.user = _unprivileged()
        # Not under the tests' own temporary directory: root's is closed to the user that the server runs as.
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="omendb-postgres-"))
        if self.user:
            shutil.chown(self.home, self.user)
        self.port = None
        self.process = None

    def _run_as(self) -> dict:
        """What subprocess needs to start a program as the server's user."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
        return {"user": self.user, "cwd": self.home, "env": environment} if self.user else {"env": environment}

    def start(self) -> "Postgres":
        """Makes the data directory and starts the server; nothing is made durable, since nothing outlives the run."""
        data = self.home / "data"
        made = subprocess.run(
            [self.bin / "initdb", "--pgdata", data, "--username", "tester", "--auth", "trust", "--encoding", "UTF8",
             "--lc-collate", "C", "--lc-ctype", "C.UTF-8", "--no-sync"],
            capture_output=True, text=True, **self._run_as(),
        )
        if made.returncode:
            raise AssertionError(f"initdb failed:\n{made.stdout}{made.stderr}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off",
            "full_page_writes": "off", "synchronous_commit": "off", "timezone": "UTC", "datestyle": "ISO, YMD",
            "intervalstyle": "postgres", "lc_messages": "C", "max_connections": 10, "jit": "off",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with open(self.home / "log", "wb") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", data, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._run_as(),
            )
        for _ in range(300):
            ready = subprocess.run([self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)])
            if ready.returncode == 0:
                return self
            try:
                self.process.wait(0.1)
                break
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError("PostgreSQL did not start:\n" + (self.home / "log").read_text(errors="replace")[-4000:])

    def stop(self) -> None:
        """Ends the server and removes its directory."""
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)
