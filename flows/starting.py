"""How the command of a flow begins and ends: one line for what is wrong, and Prefect only where there is work for it."""

import contextlib
import importlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from genpipe import lease, own_code
from genpipe.errors import EXIT_STATUS, Unavailable, exit_status
from tasks import guard

PREFECT = {  # what the user has set stays
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine needs more than the default
    # as in [tool.prefect] of pyproject.toml, for a project without it
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER": "P7D",
}
SERVER = (
    "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--log-level", "error", "--lifespan", "on",
)  # fmt: skip
SERVER_PATIENCE = 120.0  # seconds
SERVER_GRACE = 5.0  # seconds to end in

_servers: list["subprocess.Popen[bytes]"] = []  # their input is open as long as this process lives


def status_of(work: Callable[[], None]) -> int:
    """Do the work; 0 when all went well, else the status of the error (genpipe/errors.py)."""
    try:
        own_code.require(Path.cwd(), *own_code.PARTS)
        work()
    except (Exception, KeyboardInterrupt) as error:
        if (end := exit_status(error)) is None:
            raise
        print(f"genpipe: {end[1]}", file=sys.stderr)
        return end[0]
    return 0


def run_flow(name: str, **parameters: Any) -> None:
    """Run the flow `name` of flows/NAME.py here; raises what it failed with, or Busy when another run holds its lease."""
    prepare_prefect()
    with _served():
        module = importlib.import_module(
            f"flows.{name}"
        )  # only now: it reads the environment, and takes seconds
        state = getattr(module, name)(**parameters, return_state=True)
    logging.getLogger("prefect").setLevel(logging.WARNING)  # its goodbye would follow our last line
    if state.is_cancelled():
        raise lease.Busy(state.message)
    if not state.is_completed():
        state.result()


def prepare_prefect() -> None:
    """Set what Prefect reads from the environment when it is imported."""
    for variable, value in PREFECT.items():
        os.environ.setdefault(variable, value)


@contextlib.contextmanager
def _served() -> Iterator[None]:
    """The server that Prefect is set to use, or one that ends with this process, even by SIGKILL: Prefect's own would not.

    It ends after the last lines of the log were sent, when the process is gone and the guard's input closes.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if PREFECT_API_URL.value():
        yield
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = guard.guarded(_server_command(port), grace=SERVER_GRACE)
    server = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    _servers.append(server)
    _wait_for(server, f"http://127.0.0.1:{port}/api/health")
    threading.Thread(target=_end_after, args=(server,), daemon=True).start()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        yield


def _server_command(port: int) -> list[str]:
    """Nothing of the current directory is imported: Python's -P keeps it out, and uvicorn puts its --app-dir first."""
    apart = ["--app-dir", str(Path(sys.executable).parent)]
    return [sys.executable, "-P", "-m", "uvicorn", *SERVER, "--port", str(port), *apart]


def _end_after(server: "subprocess.Popen[bytes]") -> None:
    """End with the server: Prefect would ask it again and again for many minutes. The stages' guards see this end, too."""
    server.wait()
    line = "Prefect's server ended before the flow did; the same command goes on where it stopped"
    print(f"genpipe: {line}", file=sys.stderr, flush=True)
    os._exit(EXIT_STATUS[Unavailable])


def _wait_for(server: "subprocess.Popen[bytes]", address: str) -> None:
    deadline = time.monotonic() + SERVER_PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(address).is_success:
                return
        time.sleep(0.1)
    raise Unavailable("Prefect's server did not start, this machine may be too busy; run this again")
