"""Prefect on a real PostgreSQL, and what its server lets in."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from tests.servers import LOOPBACK, Prefect, listening, postgresql, prefect_server, why_no_postgresql

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(900)]

AT_ONCE = 20
FLOWS = f"""
import asyncio
from prefect import flow, get_client, task

@task
async def double(number: int) -> int:
    return 2 * number

@flow(log_prints=True)
async def doubling(number: int) -> int:
    print("number", number)
    return await double(number)

async def main():
    print(sum(await asyncio.gather(*(doubling(number) for number in range({AT_ONCE})))))

asyncio.run(main())
"""
ONE_FLOW = """
from prefect import flow

@flow
def nothing():
    return 1

print(nothing())
"""


def run_flows(server: Prefect, tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code as a client of the server."""
    file = tmp_path / "flows.py"
    file.write_text(code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, file], env=server.environment, capture_output=True, text=True, timeout=400
    )


def query(url: str, sql: str) -> list[tuple]:
    """The rows that PostgreSQL answers."""

    async def ask() -> list[tuple]:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    if reason := why_no_postgresql():
        pytest.skip(reason)
    with postgresql() as url:
        yield url


@pytest.fixture(scope="module")
def on_postgresql(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    home = tmp_path_factory.mktemp("prefect")
    with prefect_server(home, {"PREFECT_API_DATABASE_CONNECTION_URL": database}) as server:
        yield server


def test_prefect_keeps_its_flow_runs_in_postgresql(on_postgresql, database, tmp_path):
    done = run_flows(on_postgresql, tmp_path, ONE_FLOW)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert query(database, "SELECT version()")[0][0].startswith("PostgreSQL")
    runs = query(database, "SELECT r.state_type FROM flow_run r JOIN flow f ON f.id = r.flow_id")
    assert [str(row[0]) for row in runs] == ["COMPLETED"]
    home = Path(on_postgresql.environment["PREFECT_HOME"])
    assert not list(home.rglob("*.db")), "a second database, in a file"


def test_twenty_flow_runs_at_once_meet_no_lock_on_postgresql(on_postgresql, database, tmp_path):
    done = run_flows(on_postgresql, tmp_path, FLOWS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(sum(range(AT_ONCE)) * 2)
    states = "SELECT state_type, count(*) FROM {} GROUP BY state_type"
    runs = "(SELECT r.* FROM flow_run r JOIN flow f ON f.id = r.flow_id WHERE f.name = 'doubling') AS runs"
    assert [(str(kind), number) for kind, number in query(database, states.format(runs))] == [
        ("COMPLETED", AT_ONCE)
    ]
    log = Path(on_postgresql.environment["PREFECT_HOME"], "server.log").read_text(encoding="utf-8")
    assert not re.search(r"locked|deadlock|Traceback", log), log[-3000:]


def test_the_database_wants_its_password(database):
    with pytest.raises(asyncpg.InvalidPasswordError):
        query(re.sub(r":[0-9a-f]{32}@", ":guess@", database), "SELECT 1")


def test_server_and_database_listen_on_loopback_alone(on_postgresql):
    assert listening(psutil.Process(on_postgresql.process.pid)) <= LOOPBACK
    assert listening(psutil.Process(on_postgresql.process.pid))
