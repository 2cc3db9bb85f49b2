"""Servers of a test's own: PostgreSQL, Prefect's, a process worker; on loopback, in temporary directories, ended by pid."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from flows.starting import PREFECT
from tests.clusters import free_port

UP = 240  # seconds that a server may take to answer
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
# For servers with a worker: else a run of a schedule meets the one that a test has started.
UNSCHEDULED = {"PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false"}
AS_OURS = {**PREFECT, "PREFECT_WORKER_QUERY_SECONDS": "1"}


@dataclass(frozen=True)
class Prefect:
    """A server of Prefect: the address of its API, the environment of who uses it, and its process."""

    address: str
    environment: dict[str, str] = field(repr=False)
    process: subprocess.Popen[bytes]

    def call(self, root: Path, *words: str, timeout: float = 1800) -> str:
        """What `prefect WORDS` prints; it must end well."""
        command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
        done = subprocess.run(
            command, cwd=root, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, f"prefect {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@contextlib.contextmanager
def prefect_server(
    home: Path, settings: Mapping[str, str] | None = None, port: int | None = None
) -> Iterator[Prefect]:
    """A server whose files are below `home`, with `settings` of its own; on SQLite where these name no database.

    With the same `home` and `port` it is the same server, started again.
    """
    port = port or free_port()
    address = f"http://127.0.0.1:{port}/api"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    own = {**AS_OURS, "PREFECT_HOME": str(home), "PREFECT_API_URL": address, **(settings or {})}
    environment = kept | own
    words = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
    with _prefect(home / "server.log", environment, *words) as process:
        _wait_for(f"{address}/health", process, home / "server.log")
        yield Prefect(address, environment, process)


@contextlib.contextmanager
def process_worker(server: Prefect, root: Path, log: Path, *words: str) -> Iterator[None]:
    """A worker of the pool `local`, started in `root` with more `words`."""
    with _prefect(log, server.environment, "worker", "start", "--pool", "local", *words, cwd=root):
        yield


@contextlib.contextmanager
def _prefect(
    log: Path, environment: Mapping[str, str], *words: str, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words],
            cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        _end(process, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes], ask: signal.Signals) -> None:
    """Ask a process to end, then kill what is left of its session."""
    if process.poll() is None:
        process.send_signal(ask)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + UP
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(address, timeout=10).is_success:
                return
        time.sleep(0.3)
    raise TimeoutError(f"{address} does not answer\n{log.read_text(encoding='utf-8')[-3000:]}")


def why_no_postgresql() -> str | None:
    """Why no PostgreSQL can be started here, or None."""
    if not postgresql_programs():
        return "found no PostgreSQL (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        return "PostgreSQL refuses to run as root, and there is no setpriv to become another user"
    return None


def postgresql_programs() -> Path | None:
    """The directory of initdb and postgres: Debian has it outside PATH."""
    if here := shutil.which("initdb"):
        return Path(here).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A new database server with a password, on loopback; the URL of its empty database, as Prefect wants it."""
    programs, user = postgresql_programs(), _unprivileged()
    assert programs is not None, why_no_postgresql()
    # not in a test's own directory: its parents are closed to the user that PostgreSQL becomes
    with tempfile.TemporaryDirectory(prefix="genpipe-postgresql-") as name:
        directory, password, port = Path(name), secrets.token_hex(16), free_port()
        (directory / "password").write_text(password, encoding="utf-8")
        for path in (directory, directory / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
        initdb = [
            programs / "initdb", "--pgdata", directory / "data", "--username", "prefect", "--auth", "scram-sha-256",
            "--pwfile", directory / "password", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync",
        ]  # fmt: skip
        subprocess.run(
            [*_become(user), *map(str, initdb)], cwd=name, env=_bare(), check=True, capture_output=True
        )
        with _postgres(programs, directory, user, port):
            yield f"postgresql+asyncpg://prefect:{password}@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def _postgres(programs: Path, directory: Path, user: pwd.struct_passwd, port: int) -> Iterator[None]:
    words = ["-D", str(directory / "data"), "-p", str(port), "-k", "", "-c", "listen_addresses=127.0.0.1"]
    log = directory / "log"
    with log.open("w", encoding="utf-8") as file:
        server = subprocess.Popen(
            [*_become(user), str(programs / "postgres"), *words],
            cwd=directory, env=_bare(), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + UP
        ready = [str(programs / "pg_isready"), "--quiet", "--host", "127.0.0.1", "--port", str(port)]
        while subprocess.run(ready, check=False).returncode:
            assert server.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield
    finally:
        _end(server, signal.SIGINT)  # PostgreSQL's fast shutdown: clients are sent away


def _unprivileged() -> pwd.struct_passwd:
    """This user, or one that is not root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    names = {user.pw_name for user in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")


def _become(user: pwd.struct_passwd) -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


def _bare() -> dict[str, str]:
    """An environment in which nothing of this user's changes what PostgreSQL does."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


def listening(*processes: psutil.Process) -> set[str]:
    """The addresses on which processes and all below them listen."""
    found: set[str] = set()
    for process in processes:
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {
                    connection.laddr.ip
                    for connection in member.net_connections("inet")
                    if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE) and connection.laddr
                }
    return found
