"""A real server and a real worker for the deployments of prefect.yaml."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.chaos.processes import Family, ended, succeeded
from tests.clusters import free_port

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
PREPARED = 300  # seconds that a command of Prefect may take
ANSWERS = 300  # seconds in which the server must answer
COMING = {"SCHEDULED", "PENDING"}
LOST = 90  # seconds, more than the lease of a run that has not begun and the server's look at it
STOPPED = 60  # seconds in which a service must end when it is asked to


class Services:
    """They are started again when they died, as systemd would; every method gives the complaints about them."""

    def __init__(self, family: Family, root: Path, environment: Mapping[str, str], log: Path) -> None:
        self._family = family
        self._root = root
        self._log = log
        self._port = free_port()
        self.environment = {**environment, "PREFECT_API_URL": f"http://127.0.0.1:{self._port}/api"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> list[str]:
        """Start what does not run, and deploy."""
        return [
            *self.revive(),
            *self.call("work-pool", "create", "local", "--type", "process", "--overwrite"),
            *self.call("deploy", "--all"),
        ]

    def call(self, *words: str) -> list[str]:
        """Run a command of Prefect that ends by itself."""
        process = self._family.start([*PREFECT, *words], self._root, self.environment, self._log)
        return succeeded(process, PREPARED, f"prefect {' '.join(words)}")

    def revive(self) -> list[str]:
        """Start what does not run, the server first, after a second, in which the killed are buried."""
        time.sleep(1)
        self._keep("server", "server", "start", "--host", "127.0.0.1", "--port", str(self._port))
        complaints = self._unanswered()
        self._keep("worker", "worker", "start", "--pool", "local", "--type", "process")
        return complaints

    def _keep(self, name: str, *words: str) -> None:
        if name not in self._running or self._running[name].poll() is not None:
            command = [sys.executable, "-m", "prefect", *words]
            self._running[name] = self._family.start(command, self._root, self.environment, self._log)

    def _unanswered(self) -> list[str]:
        deadline = time.monotonic() + ANSWERS
        while time.monotonic() < deadline:
            try:
                self._client().get("/health").raise_for_status()
                return []
            except httpx.HTTPError:
                time.sleep(0.5)
        return [f"Prefect's server did not answer within {ANSWERS} s (log: {self._log})"]

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.environment["PREFECT_API_URL"], timeout=60)

    def runs(self) -> list[dict[str, Any]]:
        """The runs of flows that the server knows."""
        with self._client() as client:
            return client.post("/flow_runs/filter", json={}).raise_for_status().json()

    def settle(self) -> None:
        """Wait until no run is about to begin, so that one the killed left is not met; a lost one keeps its place for a lease."""
        deadline = time.monotonic() + LOST
        with contextlib.suppress(httpx.HTTPError):
            while any(run["state_type"] in COMING for run in self.runs()) and time.monotonic() < deadline:
                time.sleep(1)

    def has(self, process: psutil.Process) -> bool:
        """Whether it is one of them: neither the flow of the worker, nor what that starts."""
        return process.pid in {service.pid for service in self._running.values()}

    def stop(self) -> list[str]:
        """Ask them to end, the worker first; one that does not is ended, and the other has its turn."""
        complaints = []
        for name in ("worker", "server"):
            self._running[name].send_signal(signal.SIGTERM)
            complaints += ended(self._running[name], STOPPED, f"Prefect's {name}")
        return complaints
