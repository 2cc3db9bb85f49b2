"""The files of deploy/: read by Ray itself and by KubeRay's schema, and start.sh really run."""

import contextlib
import copy
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import yaml

from tests.clusters import end_family, free_port

PROJECT = Path(__file__).parent.parent
DEPLOY = PROJECT / "deploy"
START = DEPLOY / "ray" / "start.sh"
SCHEMA = json.loads((Path(__file__).parent / "schemas" / "kuberay.json").read_text())
LAUNCHED = {
    name: yaml.safe_load((DEPLOY / "ray" / f"{name}.yaml").read_text()) for name in ("cluster", "aws")
}
MANIFESTS = {
    name: yaml.safe_load((DEPLOY / "kuberay" / f"{name}.yaml").read_text())
    for name in ("raycluster", "rayjob", "project")
}
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
NODES = """
import time, ray
from genpipe.corpus.actors import cluster
with cluster(1):
    while sum(node["Alive"] for node in ray.nodes()) < {nodes}:
        time.sleep(0.1)
    print(*sorted(node["Resources"]["CPU"] for node in ray.nodes() if node["Alive"]))
"""

Steps = tuple[str | int, ...]


def keys_of(tree: Any, above: Steps = ()) -> Iterator[Steps]:
    """Where every key is; those of rayStartParams are left to `ray start`."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(tree, dict):
            yield (*above, key)
        if isinstance(value, dict | list) and key != "rayStartParams":
            yield from keys_of(value, (*above, key))


def misspelt(tree: Any, steps: Steps) -> Any:
    """The same tree with one key misspelt."""
    wrong = parent = copy.deepcopy(tree)
    for step in steps[:-1]:
        parent = parent[step]
    parent[f"{steps[-1]}x"] = parent.pop(steps[-1])
    return wrong


def check_launched(config: Any) -> None:
    """Raise what Ray has against a file of `ray up`: by its schema, and by its own reading of the file."""
    import ray
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    validate_config(prepare_config(config))


def accepts(manifest: Any) -> bool:
    """Whether KubeRay or Kubernetes has nothing against a manifest."""
    kind = manifest.get("kind", "RayCluster")
    return jsonschema.Draft202012Validator(SCHEMA | {"$ref": f"#/$defs/{kind}"}).is_valid(manifest)


def check_start_words(words: list[str]) -> None:
    """Raise what `ray start` has against these words."""
    from ray.scripts.scripts import start

    start.make_context("start", words)


def start_words(config: Any) -> list[list[str]]:
    """The words of every `ray start` of a file of `ray up`."""
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [shlex.split(command.split("ray start ")[1]) for command in commands if "ray start " in command]


def groups() -> list[dict[str, Any]]:
    """The head group and the worker groups of raycluster.yaml."""
    spec = MANIFESTS["raycluster"]["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_accepts_the_files_of_ray_up(name):
    check_launched(LAUNCHED[name])


@pytest.mark.parametrize(
    ("name", "steps", "complaint"),
    [
        ("cluster", ("provider", "worker_ips"), "worker_ips"),
        ("cluster", ("auth", "ssh_user"), "ssh_userx"),
        ("cluster", ("worker_start_ray_commands",), "worker_start_ray_commandsx"),
        ("aws", ("docker", "image"), "imagex"),
        ("aws", ("head_node_type",), "head_node_typex"),
        ("aws", ("available_node_types", "head"), "head_node_type"),
        ("aws", ("available_node_types", "cpu", "min_workers"), "min_workersx"),
        ("aws", ("available_node_types", "gpu", "node_config"), "node_config"),
    ],
)
def test_ray_refuses_a_misspelt_key(name, steps, complaint, capsys):
    with pytest.raises(Exception) as refused:  # noqa: PT011 - Ray raises its own, the schema's, and click's
        check_launched(misspelt(LAUNCHED[name], steps))
    assert complaint in str(refused.value) + "".join(capsys.readouterr())


def test_ray_refuses_more_nodes_than_it_may_have():
    with pytest.raises(ValueError, match="max_workers"):
        check_launched(LAUNCHED["aws"] | {"max_workers": 0})


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_start_knows_every_word_and_every_node_asks_for_the_token(name):
    words = start_words(LAUNCHED[name])
    assert len(words) == 2
    for each in words:
        check_start_words(each)
    text = (DEPLOY / "ray" / f"{name}.yaml").read_text()
    assert text.count("RAY_AUTH_MODE=token RAY_worker_niceness=0") == 2


def test_ray_start_knows_every_parameter_of_the_groups_and_no_misspelt_one():
    from click import NoSuchOption

    for group in groups():
        check_start_words([f"--{name}={value}" for name, value in group["rayStartParams"].items()])
    with pytest.raises(NoSuchOption):
        check_start_words(["--num-cpuss=0"])


def test_what_ray_up_sends_is_there_and_suffices_to_install():
    sent = [local for local in LAUNCHED["cluster"]["file_mounts"].values() if not local.startswith("~")]
    assert all((PROJECT / local).exists() for local in sent)
    packages = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {f"{local}*" for local in sent} >= set(packages["find"]["include"])
    assert {"Makefile", "pyproject.toml", "README.md", "requirements.lock"} <= set(sent)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_schema_of_kuberay_accepts_the_manifests(name):
    assert accepts(MANIFESTS[name])


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_schema_of_kuberay_refuses_every_key_misspelt(name):
    keys = list(keys_of(MANIFESTS[name]))
    assert len(keys) > 5
    assert [steps for steps in keys if accepts(misspelt(MANIFESTS[name], steps))] == []


def test_the_job_has_the_cluster_of_the_cluster_file():
    assert MANIFESTS["rayjob"]["spec"]["rayClusterSpec"] == MANIFESTS["raycluster"]["spec"]


def test_the_job_asks_for_no_more_processes_than_its_cluster_can_hold():
    from genpipe.cli import build_parser

    program, *words = shlex.split(MANIFESTS["rayjob"]["spec"]["entrypoint"])
    arguments = build_parser().parse_args(words)
    assert (program, arguments.command) == ("genpipe", "train")
    assert arguments.recipe in yaml.safe_load((PROJECT / "params.yaml").read_text())["recipes"]
    cpu = MANIFESTS["raycluster"]["spec"]["workerGroupSpecs"][0]
    assert arguments.workers == (cpu["minReplicas"], cpu["maxReplicas"])


def test_one_version_of_ray_and_of_genpipe_is_named_everywhere():
    spec = MANIFESTS["raycluster"]["spec"]
    assert spec["rayVersion"] == version("ray")
    images = {pod["image"] for group in groups() for pod in group["template"]["spec"]["containers"]}
    genpipe = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert images == {LAUNCHED["aws"]["docker"]["image"]} == {f"REGISTRY/genpipe:{genpipe}"}


def test_pods_run_as_the_user_of_the_image_where_the_project_lies():
    image = (DEPLOY / "Dockerfile").read_text()
    for group in groups():
        context = group["template"]["spec"]["securityContext"]
        assert f"\nUSER {context['runAsUser']}\n" in image
        assert context["runAsNonRoot"]
    head = groups()[0]["template"]["spec"]["containers"][0]
    assert image.rindex("WORKDIR") == image.index(f"WORKDIR {head['workingDir']}\n")
    assert head["volumeMounts"][0]["mountPath"] == head["workingDir"]


def test_the_image_copies_what_is_there_and_locks_its_packages():
    image = (DEPLOY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.+) \S+$", image, re.MULTILINE)
    assert {"genpipe", "flows", "tasks", "requirements.lock"} <= {
        name for line in copied for name in line.split()
    }
    assert all((PROJECT / name).exists() for line in copied for name in line.split())
    assert re.findall(r"^FROM (\S+)", image, re.MULTILINE) == ["python:3.11-slim"]


def environment(home: Path) -> dict[str, str]:
    """That of a person with genpipe's environment active and another home."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return clean | {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def refusal(words: list[str], env: dict[str, str]) -> str:
    """The one line with which start.sh refuses."""
    done = subprocess.run([START, *words], env=env, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    return done.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("", "the role must be head or worker, not nothing"),
        ("tail", "the role must be head or worker, not tail"),
        ("worker", "worker must be followed by the head's HOST:PORT, not nothing"),
        ("worker http://head:6379", "not http://head:6379"),
        ("worker 127.0.0.1:6379", "127.0.0.1:6379 is this machine alone"),
        (
            "worker head:6379 --interface localhost",
            "must be the address that the others reach, not localhost",
        ),
        ("worker head:6379 --port 6380", "--port is the head's"),
        ("worker a..b:6379", "no head answers at a..b:6379"),
        ("head --port", "--port needs a value after it"),
        ("head --port x", "--port: must be 1024 to 65535, not x"),
        ("head --port 80", "not 80"),
        ("head --port 70000", "not 70000"),
        ("head --ports 6379", "not --ports"),
        ("head --interface 0.0.0.0", "must be the address that the others reach"),
        ("head --interface 198.51.100.7", "cannot listen at 198.51.100.7:6379"),
    ],
)
def test_start_refuses_bad_words_in_one_line_and_leaves_nothing(words, complaint, tmp_path):
    assert complaint in refusal(words.split(), environment(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_start_refuses_a_place_for_the_files_of_ray_that_others_may_enter(tmp_path):
    env = environment(tmp_path) | {"RAY_TMPDIR": str(tmp_path)}
    (tmp_path / f"ray-{os.getuid()}").mkdir(mode=0o755)
    words = ["head", "--port", str(free_port())]
    assert "must be a directory of this user alone, with mode 700" in refusal(words, env)
    (tmp_path / f"ray-{os.getuid()}").rmdir()
    (tmp_path / f"ray-{os.getuid()}").symlink_to(tmp_path)
    assert "must be a directory of this user alone, with mode 700" in refusal(words, env)


def test_start_tells_that_a_port_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen at 127.0.0.1:{port}" in refusal(
            ["head", "--port", port], environment(tmp_path)
        )


def test_start_refuses_a_token_that_others_can_read_or_that_is_empty(tmp_path):
    words = ["head", "--port", str(free_port()), "--token", str(tmp_path / "token")]
    (tmp_path / "token").write_text("t" * 64)
    (tmp_path / "token").chmod(0o644)
    assert "must have mode 600" in refusal(words, environment(tmp_path))
    (tmp_path / "token").write_text("")
    assert "the cluster's token is not there" in refusal(words, environment(tmp_path))


def test_start_makes_no_token_for_a_worker_and_wants_a_head_that_answers(tmp_path):
    import ray

    here = ray.util.get_node_ip_address()
    assert "no head answers" in refusal(["worker", f"{here}:{free_port()}"], environment(tmp_path))
    with socket.create_server((here, 0)) as head:
        words = ["worker", f"{here}:{head.getsockname()[1]}"]
        assert "copy it from the head" in refusal(words, environment(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_start_wants_ray(tmp_path):
    assert "found no ray" in refusal(["head"], environment(tmp_path) | {"PATH": "/usr/bin:/bin"})


def test_start_explains_itself(tmp_path):
    words = [START, "worker", "--help"]
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("start.sh head")
    assert all(option in done.stdout for option in ("--interface", "--port", "--token"))


def members(session: int) -> list[psutil.Process]:
    """Every process of a session, and all below them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == session:
                found += [process, *process.children(recursive=True)]
    return found


def listening(session: int) -> set[str]:
    """The addresses on which a session's processes listen."""
    found: set[str] = set()
    for process in members(session):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            connections = process.net_connections("tcp")
            found |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    return found


@contextlib.contextmanager
def started(words: list[str], env: dict[str, str], file: Path) -> Iterator[tuple[int, str]]:
    """Run start.sh in a session of its own: the session, and what was printed; at the end all of it is killed."""
    with file.open("w") as out:
        script = subprocess.Popen(words, env=env, cwd=PROJECT, stdout=out, stderr=out, start_new_session=True)
    try:
        assert script.wait(timeout=600) == 0, file.read_text()
        yield script.pid, file.read_text()
    finally:
        for process in members(script.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        end_family(script)


@pytest.fixture
def short():
    """A folder with a short name, since a Unix socket allows 107 bytes."""
    folder = Path(f"/tmp/gd{os.getpid()}")
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def evaluated(printed: str, code: str, env: dict[str, str]) -> str:
    """What Python code prints after the shell has evaluated what start.sh printed."""
    shell = ["bash", "-c", 'eval "$1" && exec "$2" -c "$3"', "bash", printed, sys.executable, code]
    return subprocess.run(shell, env=env, check=True, capture_output=True, text=True, timeout=600).stdout


def status_of_jobs(port: int, token: str) -> int:
    """The HTTP status of the list of jobs."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        return urllib.request.urlopen(request, timeout=300).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.ray
def test_a_head_without_an_interface_serves_this_machine_alone_and_only_with_the_token(short, tmp_path):
    env, board = environment(tmp_path), free_port()
    env["RAY_TMPDIR"] = str(short)
    own = ["--num-cpus", "3", "--dashboard-port", str(board)]
    words = [str(START), "head", "--port", str(free_port()), "--", *own]
    with started(words, env, short / "out") as (session, printed):
        token = tmp_path / ".ray" / "auth_token"
        assert (token.stat().st_mode & 0o777, len(token.read_text())) == (0o600, 64)
        assert listening(session) <= LOOPBACK
        assert (short / f"ray-{os.getuid()}" / "r" / "session_latest").exists()
        assert (short / f"ray-{os.getuid()}").stat().st_mode & 0o777 == 0o700
        assert evaluated(printed, NODES.format(nodes=1), env) == "3.0\n"
        assert status_of_jobs(board, token.read_text()) == 200
        assert status_of_jobs(board, "f" * 64) in (401, 403)


@pytest.mark.ray
def test_a_worker_joins_by_the_line_that_the_head_prints(short, tmp_path):
    import ray

    env = environment(tmp_path)
    heads, workers = (env | {"RAY_TMPDIR": str(short / name)} for name in "hw")  # as on two machines
    for each in (heads, workers):
        Path(each["RAY_TMPDIR"]).mkdir()
    own = ["--num-cpus", "1", "--include-dashboard", "false"]
    place = ["--interface", ray.util.get_node_ip_address(), "--port", str(free_port())]
    words = [str(START), "head", *place, "--token", str(short / "token"), "--", *own]
    with started(words, heads, short / "head") as (head, printed):
        assert listening(head) - LOOPBACK  # a control of the test above, and a reason for a firewall
        (line,) = re.findall(r"#\s+(deploy/ray/start.sh worker .+)", printed)
        with started([*shlex.split(line), "--", "--num-cpus", "2"], workers, short / "worker"):
            assert all([*short.glob(f"{name}/ray-*/r/session_latest/sockets/raylet")] for name in "hw")
            assert evaluated(printed, NODES.format(nodes=2), env) == "1.0 2.0\n"
