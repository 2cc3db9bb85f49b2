"""The units of systemd, the compose file, and the passwords that both read: checked by their own programs, and used."""

import asyncio
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jsonschema
import pytest
import yaml

from flows.starting import PREFECT
from tests.servers import postgresql, prefect_server, process_worker, why_no_postgresql

PROJECT = Path(__file__).resolve().parents[1]
DEPLOY = PROJECT / "deploy"
UNITS = {path.stem: path for path in sorted((DEPLOY / "systemd").glob("*.service"))}
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((Path(__file__).parent / "schemas" / "compose.json").read_text(encoding="utf-8"))
INSTALLED = "/srv/genpipe/.venv/bin/"
MOST_EXPOSED = 2.0  # of 10, by systemd's own judgement
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="found no systemd-analyze")


class Unit(ConfigParser):
    """A unit file: names keep their capitals, and the last of equal names counts."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit(name: str) -> ConfigParser:
    parser = Unit(strict=False, interpolation=None)
    parser.read(UNITS[name], encoding="utf-8")
    return parser


def verified(directory: Path, change: tuple[str, str] = ("", "")) -> str:
    """What systemd has against the units, as they would be installed on this machine."""
    for path in UNITS.values():
        text = path.read_text(encoding="utf-8").replace(INSTALLED, f"{Path(sys.executable).parent}/")
        (directory / path.name).write_text(text.replace(*change), encoding="utf-8")
    stub = "[Service]\nExecStart=/bin/true\n"  # PostgreSQL may not be installed here
    (directory / "postgresql.service").write_text(stub, encoding="utf-8")
    files = [str(directory / path.name) for path in UNITS.values()]
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True)
    return done.stdout + done.stderr


@needs_systemd
def test_systemd_has_nothing_against_the_units(tmp_path):
    assert verified(tmp_path) == ""


@needs_systemd
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("RestartSec", "RestartSecs"), "Unknown key"),
        (("Restart=always", "Restart=allways"), "Failed to parse"),
        (("/prefect worker", "/prefects worker"), "not executable"),
        (("IPAddressAllow=localhost", "IPAddressAllow=local"), "Address prefix is invalid"),
    ],
)
def test_systemd_refuses_a_misspelt_unit(change, complaint, tmp_path):
    assert complaint in verified(tmp_path, change)


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_judges_the_units_to_be_little_exposed(name):
    command = ["systemd-analyze", "security", "--offline=true", str(UNITS[name])]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) < MOST_EXPOSED


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_has_a_user_of_its_own_secrets_apart_and_comes_up_again(name):
    service = unit(name)["Service"]
    users = re.findall(
        r"^u (\S+)", (DEPLOY / "systemd/genpipe.sysusers.conf").read_text(encoding="utf-8"), re.M
    )
    assert service["User"] in users
    assert service["EnvironmentFile"] == f"/etc/genpipe/{name.removeprefix('genpipe-')}.env"
    assert not re.search("AUTH|PASSWORD|CONNECTION", service["Environment"])
    assert service["Restart"] == "always"
    assert (service["IPAddressDeny"], service["IPAddressAllow"]) == ("any", "localhost")


def test_no_two_units_share_a_user_and_the_server_waits_for_postgresql():
    assert len({unit(name)["Service"]["User"] for name in UNITS}) == len(UNITS) == 2
    server, worker = unit("genpipe-server")["Unit"], unit("genpipe-worker")["Unit"]
    assert server["Requires"] == "postgresql.service"
    assert "postgresql.service" in server["After"]
    assert "genpipe-server.service" in worker["After"]
    assert "--host 127.0.0.1" in unit("genpipe-server")["Service"]["ExecStart"]


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="found no systemd-sysusers")
def test_systemd_makes_the_users(tmp_path):
    (tmp_path / "etc").mkdir()
    conf = str(DEPLOY / "systemd/genpipe.sysusers.conf")
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", conf], check=True, capture_output=True)
    users = (tmp_path / "etc/passwd").read_text(encoding="utf-8")
    assert re.search(r"^genpipe:.*:/var/lib/genpipe:.*nologin$", users, re.M)


def valid(tree: Any) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(tree)


def keys_of(tree: Any, above: tuple = ()) -> Iterator[tuple]:
    """Where the keys of the services are, except the names of services and variables, which are free."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if len(above) > 1 and above[-1] not in ("environment", "depends_on"):
            yield (*above, key)
        if key not in ("volumes", "networks") and not key.startswith("x-"):
            yield from keys_of(value, (*above, key))


def test_the_compose_file_has_the_keys_of_the_specification_and_no_misspelt_one():
    jsonschema.Draft202012Validator(SCHEMA).validate(COMPOSE)
    keys = list(keys_of(COMPOSE))
    assert len(keys) > 40
    for *above, key in keys:
        wrong = parent = copy.deepcopy(COMPOSE)
        for step in above:
            parent = parent[step]
        parent[f"{key}x"] = parent.pop(key)
        assert not valid(wrong), (*above, key)


def test_containers_publish_on_loopback_alone_are_watched_and_have_no_secret_in_the_file():
    services = COMPOSE["services"]
    assert services.keys() == {"database", "server", "worker"}
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:4200:4200"]
    assert COMPOSE["networks"][services["database"]["networks"][0]]["internal"] is True
    assert not set(services["database"]["networks"]) & set(services["worker"]["networks"])
    for name, service in services.items():
        assert service["env_file"] == [f"secrets/{name}.env"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert not re.search("AUTH|PASSWORD|CONNECTION", str(service.get("environment")))
    assert services["server"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["worker"]["depends_on"] == {"server": {"condition": "service_healthy"}}


def test_prefect_knows_the_words_and_the_settings_of_units_and_compose_file():
    lines = [unit(name)["Service"]["ExecStart"].split()[1:] for name in UNITS]
    lines += [COMPOSE["services"][name]["command"][1:] for name in ("server", "worker")]
    for words in lines:
        command = [sys.executable, "-m", "prefect", *words, "--help"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told = done.stdout + done.stderr
        assert all(word in told for word in words if word.startswith("--")), words
    from prefect.settings.legacy import _get_settings_fields  # what each setting may be called
    from prefect.settings.models.root import Settings

    known = set(_get_settings_fields(Settings)) | {"PREFECT_HOME"}
    texts = [
        path.read_text(encoding="utf-8")
        for path in (*UNITS.values(), DEPLOY / "compose.yaml", DEPLOY / "secrets.sh")
    ]
    named = set(re.findall(r"\b(PREFECT_[A-Z_]+)\s*[=:]", " ".join(texts)))
    assert len(named) > 6
    assert named <= known


NEEDED = ("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER")


def settings_of_unit() -> dict[str, str]:
    text = UNITS["genpipe-server"].read_text(encoding="utf-8")
    words = " ".join(re.findall(r"^Environment=(.*)", text, re.M)).split()
    return dict(word.split("=", 1) for word in words)


def settings_in_project() -> dict[str, str]:
    """The settings of a server that is started in the project without any in its environment."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "prefect", "config", "view"]
    done = subprocess.run(command, cwd=PROJECT, env=bare, check=True, capture_output=True, text=True)
    return dict(re.findall(r"^(\w+)='([^']*)'", done.stdout, re.M))


@pytest.mark.parametrize(
    "settings",
    [settings_of_unit, settings_in_project, lambda: COMPOSE["services"]["server"]["environment"]],
    ids=["systemd", "the directory of the project", "compose"],
)
def test_leases_and_windows_of_automations_outlast_a_restart_wherever_the_server_is_started(settings):
    there = settings()
    assert {name: there.get(name) for name in NEEDED} == {name: PREFECT[name] for name in NEEDED}


def test_the_leases_of_a_container_are_in_a_volume():
    server = COMPOSE["services"]["server"]
    ((volume, path),) = (each.split(":") for each in server["volumes"])
    assert volume in COMPOSE["volumes"]
    assert server["environment"]["PREFECT_HOME"].startswith(f"{path}/")


def compose() -> list[str] | None:
    """The command of compose on this machine."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) and not subprocess.run([*words, "version"], capture_output=True).returncode:
            return words
    return None


@pytest.mark.skipif(compose() is None, reason="found no docker compose")
def test_compose_accepts_the_file(tmp_path):
    (tmp_path / "deploy").mkdir()
    shutil.copy(DEPLOY / "compose.yaml", tmp_path / "deploy")
    secrets(tmp_path / "deploy" / "secrets", "--database", "database:5432")
    command = [*(compose() or ()), "--file", str(tmp_path / "deploy/compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def secrets(directory: Path, *words: str) -> dict[str, dict[str, str]]:
    """The variables of each file that secrets.sh makes."""
    subprocess.run([DEPLOY / "secrets.sh", directory, *words], check=True, capture_output=True)
    files = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in directory.glob("*.env")}
    return {name: dict(line.split("=", 1) for line in lines) for name, lines in files.items()}


def test_passwords_are_long_new_each_time_and_for_their_owner_alone(tmp_path):
    one, two = (secrets(tmp_path / name) for name in ("one", "two"))
    for made in (one, two):
        assert made.keys() == {"database", "server", "worker"}
        assert len(made["database"]["POSTGRES_PASSWORD"]) == 48
        assert made["database"]["POSTGRES_PASSWORD"] in made["server"]["PREFECT_API_DATABASE_CONNECTION_URL"]
        assert made["server"]["PREFECT_SERVER_API_AUTH_STRING"] == made["worker"]["PREFECT_API_AUTH_STRING"]
        assert made["database"]["POSTGRES_PASSWORD"] not in str(made["worker"])
    assert one["database"] != two["database"]
    assert one["worker"] != two["worker"]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "one").iterdir()} == {0o600}
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "name a directory for the files, not nothing"),
        (["--database"], "name a directory for the files, not --database"),
        (["DIRECTORY", "--database"], "--database needs a value after it"),
        (["DIRECTORY", "--port", "1"], "the options are --database and --server, not --port"),
    ],
)
def test_secrets_refuses_bad_words_in_one_line_and_writes_nothing(words, complaint, tmp_path):
    words = [str(tmp_path / "new") if word == "DIRECTORY" else word for word in words]
    done = subprocess.run([DEPLOY / "secrets.sh", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert complaint in done.stderr
    assert not list(tmp_path.iterdir())


def test_secrets_keeps_passwords_that_are_there(tmp_path):
    made = secrets(tmp_path / "s")
    (tmp_path / "s" / "worker.env").unlink()
    done = subprocess.run([DEPLOY / "secrets.sh", tmp_path / "s"], capture_output=True, text=True)
    assert done.returncode == 2
    kept = {path.stem: path.read_text(encoding="utf-8") for path in (tmp_path / "s").iterdir()}
    assert kept.keys() == {"database", "server"}
    assert made["database"]["POSTGRES_PASSWORD"] in kept["database"]


FLOW = "from prefect import flow\n\n@flow\ndef draw():\n    print('drawn')\n"
DEPLOYMENT = "deployments:\n- {name: now, entrypoint: 'flow.py:draw', work_pool: {name: local}}\n"


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(900)
@pytest.mark.skipif(why_no_postgresql() is not None, reason=str(why_no_postgresql()))
def test_server_and_worker_work_together_by_the_files_that_secrets_makes(tmp_path):
    with postgresql() as url:
        host = re.search(r"@([^/]+)/", url)
        assert host
        made = secrets(tmp_path / "secrets", "--database", host[1])
        asyncio.run(prepare_database(url, made["database"]))
        settings = made["server"] | made["worker"]
        del settings["PREFECT_API_URL"]  # the server of a test has a port of its own
        with prefect_server(tmp_path, settings) as server:
            (tmp_path / "flow.py").write_text(FLOW, encoding="utf-8")
            (tmp_path / "prefect.yaml").write_text(DEPLOYMENT, encoding="utf-8")
            log = tmp_path / "worker.log"
            with process_worker(server, tmp_path, log, "--type", "process"):
                wait_for_pool(server.address, settings["PREFECT_API_AUTH_STRING"])
                server.call(tmp_path, "deploy", "--all")
                assert "Completed" in server.call(tmp_path, "deployment", "run", "draw/now", "--watch")


async def prepare_database(url: str, wanted: dict[str, str]) -> None:
    """What docs/operations.md does with psql."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(f"CREATE DATABASE {wanted['POSTGRES_DB']} OWNER {wanted['POSTGRES_USER']}")
    await connection.execute(f"ALTER ROLE {wanted['POSTGRES_USER']} PASSWORD '{wanted['POSTGRES_PASSWORD']}'")
    await connection.close()


def wait_for_pool(address: str, auth: str) -> None:
    """Until the worker has made its pool."""
    name, password = auth.split(":")
    deadline = time.monotonic() + 600
    while httpx.get(f"{address}/work_pools/local", auth=(name, password)).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
