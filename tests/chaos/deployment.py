"""A real server and a real worker for the deployments of prefect.yaml."""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil

from tests.chaos.processes import Family
from tests.clusters import free_port

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
RUN = [*PREFECT, "deployment", "run", "retrain/manual", "--watch"]


class Services:
    """They are started again when they died, as systemd would."""

    def __init__(self, family: Family, root: Path, environment: Mapping[str, str], log: Path) -> None:
        self._family = family
        self._root = root
        self._log = log
        self._port = free_port()
        self.environment = {**environment, "PREFECT_API_URL": f"http://127.0.0.1:{self._port}/api"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start what does not run, and deploy."""
        self.revive()
        for words in (
            ["work-pool", "create", "local", "--type", "process", "--overwrite"],
            ["deploy", "--all"],
        ):
            self._family.start([*PREFECT, *words], self._root, self.environment, self._log).wait(120)

    def revive(self) -> None:
        """Start what does not run, the server first, after a second, in which the killed are buried."""
        time.sleep(1)
        self._keep("server", "server", "start", "--host", "127.0.0.1", "--port", str(self._port))
        self._wait_for_health()
        self._keep("worker", "worker", "start", "--pool", "local", "--type", "process")

    def _keep(self, name: str, *words: str) -> None:
        if name not in self._running or self._running[name].poll() is not None:
            command = [sys.executable, "-m", "prefect", *words]
            self._running[name] = self._family.start(command, self._root, self.environment, self._log)

    def _wait_for_health(self) -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.environment['PREFECT_API_URL']}/health").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.5)
        raise TimeoutError(f"Prefect's server; its log: {self._log}")

    def has(self, process: psutil.Process) -> bool:
        """Whether it is one of them: neither the flow of the worker, nor what that starts."""
        return process.pid in {service.pid for service in self._running.values()}

    def stop(self) -> None:
        """Ask them to end, the worker first."""
        for name in ("worker", "server"):
            self._running[name].send_signal(signal.SIGTERM)
            self._running[name].wait(60)
