"""Who is let in, where anything listens, and that no file of data can run code or leave its folder."""

import asyncio
import contextlib
import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import torch
import websockets
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.starting import _server_command
from genpipe import lease
from genpipe.dvc_command import command as command_of_dvc
from genpipe.dvc_command import environment as environment_of_dvc
from genpipe.dvc_command import private_state
from genpipe.errors import BadInput, BadState
from genpipe.files import private_directory
from genpipe.params.project import Params, read_params
from genpipe.training.checkpoint import read_weights, save_weights
from tests.repository import make_repository
from tests.servers import LOOPBACK, Prefect, listening, prefect_server

PROJECT = Path(__file__).resolve().parents[1]
AUTH = "genpipe:correct horse"
PARAMS = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
ONE_FLOW = """
from prefect import flow

@flow
def nothing():
    return 1

print(nothing())
"""
JOIN = "import ray; ray.init(address='{address}'); print('inside')"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server that wants a password and a token against forged requests, and a client that knows both."""
    own = {
        "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        "PREFECT_API_AUTH_STRING": AUTH,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
    }
    with prefect_server(tmp_path_factory.mktemp("prefect"), own) as server:
        yield server


def run_flow(server: Prefect, tmp_path: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run a flow as a client of the server whose settings are `changed`."""
    file = tmp_path / "flow.py"
    file.write_text(ONE_FLOW, encoding="utf-8")
    environment = server.environment | changed
    return subprocess.run(
        [sys.executable, file], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.e2e
def test_who_knows_the_password_runs_flows_and_who_does_not_is_refused(guarded, tmp_path):
    done = run_flow(guarded, tmp_path)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    refused = run_flow(guarded, tmp_path, PREFECT_API_AUTH_STRING="genpipe:guess")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "401 Unauthorized" in refused.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("auth", [None, ("genpipe", "guess"), ("guess", "correct horse"), ("", "")])
def test_a_stranger_reads_and_writes_nothing(guarded, auth):
    with httpx.Client(base_url=guarded.address, auth=auth) as stranger:
        assert stranger.get("/admin/version").status_code == 401
        assert stranger.post("/flow_runs/filter", json={}).status_code in (401, 403)
        assert stranger.get("/csrf-token", params={"client": "stranger"}).status_code == 401
        assert stranger.get("/health").json() is True  # all that is open: for probes
    with httpx.Client(base_url=guarded.address, auth=tuple(AUTH.split(":"))) as friend:
        assert friend.get("/admin/version").status_code == 200


@pytest.mark.e2e
@pytest.mark.parametrize("token", [None, "guess"])
def test_a_stranger_sends_no_events(guarded, token):
    async def send() -> None:
        address = guarded.address.replace("http:", "ws:") + "/events/in"
        async with websockets.connect(address, subprotocols=[websockets.Subprotocol("prefect")]) as socket:
            await socket.send(json.dumps({"type": "auth", "token": token}))
            answer = json.loads(await socket.recv())
            assert answer["type"] != "auth_success"
            await socket.recv()

    with pytest.raises(websockets.ConnectionClosed):
        asyncio.run(send())


@pytest.mark.e2e
def test_a_page_of_another_site_changes_nothing_though_the_browser_knows_the_password(guarded):
    with httpx.Client(base_url=guarded.address, auth=tuple(AUTH.split(":"))) as browser:
        body = {"name": "forged"}
        assert browser.post("/flows/", json=body).status_code == 403
        forged = {"Prefect-Csrf-Token": "guess", "Prefect-Csrf-Client": "browser"}
        assert browser.post("/flows/", json=body, headers=forged).status_code == 403
        token = browser.get("/csrf-token", params={"client": "browser"}).json()["token"]
        assert (
            browser.post("/flows/", json=body, headers=forged | {"Prefect-Csrf-Token": token}).status_code
            == 201
        )


@pytest.mark.e2e
def test_the_server_listens_on_loopback_alone(guarded):
    addresses = listening(psutil.Process(guarded.process.pid))
    assert addresses
    assert addresses <= LOOPBACK


def environment(home: Path, **more: str) -> dict[str, str]:
    """That of a person whose home is `home` and who has set nothing about Ray."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return clean | {"HOME": str(home)} | more


@pytest.mark.ray
def test_the_ray_of_a_stage_listens_on_loopback_alone_and_lets_nobody_in_without_the_token(tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    text = tmp_path / "text.txt"
    text.write_text("山水 有清音\n" * 3_000_000, encoding="utf-8")
    words = ["count", str(text), "--tokenizer", "jieba_python", "--executor", "ray", "--workers", "1"]
    command = [sys.executable, "-m", "genpipe.cli", *words, "--out", str(tmp_path / "counts.parquet")]
    counting = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    seen: set[str] = set()
    try:
        me = psutil.Process(counting.pid)
        address = _gcs_of(me)
        for _ in range(10):  # workers come one after the other
            seen |= listening(me)
            time.sleep(0.2)
        assert counting.poll() is None, "it has ended before it was looked at"
        me.suspend()  # its Ray stays as long as it does
        assert seen
        assert seen <= LOOPBACK
        strangers = {
            "no token": {"RAY_AUTH_MODE": "disabled"},
            "another token": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64},
        }
        for own in strangers.values():
            joining = [sys.executable, "-c", JOIN.format(address=address)]
            stranger = environment(tmp_path / "stranger", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", **own)
            done = subprocess.run(joining, env=stranger, capture_output=True, text=True, timeout=600)
            assert done.returncode != 0
            assert "inside" not in done.stdout
            assert "auth" in done.stderr.lower(), done.stderr
        friend = environment(tmp_path, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_AUTH_MODE="token")
        done = subprocess.run(joining, env=friend, capture_output=True, text=True, timeout=600)
        assert done.stdout == "inside\n", done.stderr  # the control: only the token was missing
    finally:
        _end_family(me)


def _gcs_of(process: psutil.Process) -> str:
    """The address of the Ray that a process has started."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                for word in child.cmdline() if child.name() == "raylet" else ():
                    if word.startswith("--gcs-address="):  # not yet, where it is just being started
                        return word.partition("=")[2]
        time.sleep(0.1)
    raise TimeoutError("no Ray was started")


def _end_family(process: psutil.Process) -> None:
    family = [*process.children(recursive=True), process]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, 300)


NAMES = st.one_of(
    st.text(max_size=12),
    st.text(st.sampled_from("./\\~ab_-;$ \n\0"), max_size=12),
    st.sampled_from(["..", "../x", "/etc", "a/../../b", "~", "a;b", "C:\\x", "é", "A", ".", ""]),
)


def accepted(change) -> Params | None:
    """The parameters after `change`, or None where they are refused."""
    values = copy.deepcopy(PARAMS)
    change(values)
    try:
        return Params.model_validate(values)
    except ValueError:
        return None


def stays_below(folder: Path, name: str) -> bool:
    """Whether a path, as the system reads it, is below its folder."""
    return Path(os.path.normpath(folder / name)).is_relative_to(folder)


@settings(max_examples=150)
@given(NAMES)
@example("digits2")
def test_no_name_of_a_block_leaves_its_folder_or_says_anything_to_a_shell(name):
    renamed = {
        "datasets": lambda p: p["datasets"].update({name: p["datasets"]["digits"]}),
        "corpora": lambda p: p["corpora"].update({name: p["corpora"]["tang"]}),
        "recipes": lambda p: p["recipes"].update({name: p["recipes"]["nice"]}),
    }
    for block, change in renamed.items():
        if accepted(change) is not None:
            folder = Path("/project/artifacts") / block
            assert Path(os.path.normpath(folder / name)).parent == folder
            assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")


@settings(max_examples=150)
@given(NAMES)
@example("data/digits")
def test_no_path_of_the_parameters_leaves_the_project(path):
    below = {
        "": [
            lambda p: p["datasets"]["digits"].update(source=path),
            lambda p: p["corpora"]["tang"].update(tokenizer="bpe", tokenizer_file=path),
        ],
        "artifacts": [lambda p: p["recipes"]["nice"].update(data=path)],
        "artifacts/datasets/tang": [
            lambda p: p["corpora"]["tang"].update(files=[path]),
            lambda p: p["corpora"]["tang"].update(encode=[path]),
        ],
        "genpipe/models": [lambda p: p["recipes"]["nice"].update(model=path)],
    }
    for folder, changes in below.items():
        for change in changes:
            assert accepted(change) is None or stays_below(Path("/project") / folder, path)


def test_the_properties_above_look_at_names_that_are_taken():
    assert accepted(lambda p: p["datasets"].update(digits2=p["datasets"]["digits"])) is not None
    assert accepted(lambda p: p["corpora"]["tang"].update(files=["a/b.jsonl"])) is not None


TAGS = (
    '!!python/object/apply:os.system ["touch pwned"]',
    "!!python/object/new:os.system [touch pwned]",
    "!!python/name:os.system",
    "!!python/module:os",
)


@pytest.mark.parametrize("tag", TAGS)
def test_no_tag_of_params_yaml_runs_code(tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(f"seed: {tag}\ndatasets: {{}}\n", encoding="utf-8")
    with pytest.raises(BadInput, match="not valid YAML, could not determine a constructor"):
        read_params(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_no_tag_in_any_file_that_dvc_reads_runs_code(tmp_path):
    make_repository(tmp_path)
    stage = "stages:\n  a:\n    cmd: genpipe recipes\n    params: [seed]\n    outs: [out]\n"
    (tmp_path / "dvc.yaml").write_text(stage, encoding="utf-8")
    for file in ("params.yaml", "dvc.lock", "data.dvc", "dvc.yaml"):
        (tmp_path / file).write_text(f"seed: {TAGS[0]}\n", encoding="utf-8")
        for words in (["-m", "dvc", "status"], ["-m", "genpipe.cli", "plan"]):
            done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode, f"{file} {words}"
        assert not (tmp_path / "pwned").exists()
        if file != "params.yaml":
            (tmp_path / file).unlink()


def test_a_name_that_is_a_command_is_refused_by_the_flow_before_dvc_hands_it_to_a_shell(tmp_path):
    make_repository(tmp_path)
    stage = "stages:\n  prepare:\n    foreach: ${datasets}\n    do: {cmd: 'echo ${key}'}\n"
    (tmp_path / "dvc.yaml").write_text(stage, encoding="utf-8")
    hostile = {"datasets": {"x; touch pwned #": {"kind": "text", "source": "my"}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(hostile), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "flows.retrain"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "a name is made of a-z, 0-9 and _" in done.stderr
    assert not (tmp_path / "pwned").exists()


class Bomb:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_no_weight_file_runs_code(write, tmp_path):
    mark, path = tmp_path / "pwned", tmp_path / "weights.safetensors"
    with path.open("wb") as file:
        write(Bomb(mark), file)
    with pytest.raises(BadState) as refused:
        read_weights(path)
    assert str(refused.value).startswith(f"{path}: not a whole safetensors file")
    assert "\n" not in str(refused.value)
    assert not mark.exists()
    save_weights({"a": torch.ones(2)}, path)
    assert list(read_weights(path)) == ["a"]


def test_nothing_of_genpipe_unpickles_or_evaluates_what_it_reads():
    rules = "S102,S301,S302,S307,S506"  # exec, pickle, marshal, eval, unsafe YAML
    folders = [str(PROJECT / name) for name in ("genpipe", "tasks", "flows")]
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", rules, *folders]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    unsafe = "torch.load(", "allow_pickle=True", "weights_only=False"
    sources = [path for folder in folders for path in Path(folder).rglob("*.py")]
    assert not [path for path in sources if any(word in path.read_text(encoding="utf-8") for word in unsafe)]


def test_a_lease_follows_no_link_and_leaves_what_it_leads_to(tmp_path):
    (tmp_path / "mine").write_text("years of work")
    (tmp_path / ".genpipe" / "leases").mkdir(parents=True)
    (tmp_path / ".genpipe" / "leases" / "train@nice").symlink_to(tmp_path / "mine")
    with pytest.raises(BadState, match="it is a link or no file; remove it"):
        lease.hold(tmp_path, "train@nice")
    assert (tmp_path / "mine").read_text() == "years of work"
    os.mkfifo(tmp_path / ".genpipe" / "leases" / "pipe")
    with pytest.raises(BadState, match="no file; remove it"):
        lease.hold(tmp_path, "pipe")


def test_the_memory_of_dvc_is_closed_to_others_in_every_call_of_ours(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc-state" / "repo").mkdir(parents=True)
    (tmp_path / ".dvc-state").chmod(0o777)
    state = private_state(tmp_path)
    assert [path.stat().st_mode & 0o777 for path in (state, state / "repo")] == [0o700, 0o700]
    assert environment_of_dvc(tmp_path)["DVC_SITE_CACHE_DIR"] == str(tmp_path / ".dvc-state")
    other = tmp_path / "other"
    (tmp_path / ".dvc" / "config.local").write_text(f"[core]\n    site_cache_dir = {other}\n")
    assert private_state(tmp_path) == other
    assert [path.stat().st_mode & 0o777 for path in (other, other / "repo")] == [0o700, 0o700]
    other.chmod(0o750)
    assert private_state(tmp_path).stat().st_mode & 0o777 == 0o750, (
        "what a person has named is theirs to open"
    )


@pytest.fixture
def seen_by_all() -> Iterator[Path]:
    """A directory that every user of the machine may enter, as those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="gs"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def another_user_can(*words: str) -> bool:
    """Whether a command ends well as a user that is neither this one nor of its groups."""
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    return subprocess.run([*stranger, *words], capture_output=True).returncode == 0


needs_another_user = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user"
)


@needs_another_user
@pytest.mark.parametrize("is_installed", [True, False])
def test_another_user_changes_nothing_of_what_a_dvc_called_by_hand_remembers(seen_by_all, is_installed):
    root, below = seen_by_all / "project", seen_by_all / "project" / "below"
    below.mkdir(parents=True)
    for name in (".dvc/config", ".dvc-state/repo/.gitignore", "Makefile"):  # what Git gives to a new clone
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, root / name)
    own = {name: value for name, value in os.environ.items() if name != "DVC_SITE_CACHE_DIR"}
    # without what `make install` does, in the root alone, as docs/operations.md says
    places = (root, below) if is_installed else (root,)
    for command in (["git", "init", "--quiet"], *[["make", "private"]] * is_installed):
        subprocess.run(command, cwd=root, env=own, check=True, capture_output=True)
    for place in places:
        (place / "data.txt").write_text("1")
        subprocess.run(["dvc", "add", "--quiet", "data.txt"], cwd=place, env=own, check=True, umask=0o022)
    state = root / ".dvc-state"
    assert list(root.rglob(".dvc-state")) == [state]
    databases = list(state.rglob("cache.db"))
    assert databases
    assert another_user_can("cat", str(root / "data.txt")), "a control"
    for directory in [state, *(path for path in state.rglob("*") if path.is_dir())]:
        assert not another_user_can("touch", str(directory / "another"))
    for database in databases:
        assert not another_user_can("dd", "if=/dev/null", f"of={database}", "conv=notrunc")
        assert not (is_installed and another_user_can("cat", str(database)))


@needs_another_user
def test_what_another_user_has_put_in_the_temporary_directory_is_not_believed(seen_by_all, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(seen_by_all))
    ours = private_directory()
    assert (ours, private_directory()) == (seen_by_all / f"genpipe-{os.getuid()}", ours)
    assert not another_user_can("ls", str(ours))
    ours.chmod(0o755)
    with pytest.raises(BadState, match="not a directory of this user alone"):
        private_directory()
    ours.rmdir()
    seen_by_all.chmod(0o1777)
    assert another_user_can("mkdir", "-m", "700", str(ours))
    with pytest.raises(BadState, match="not a directory of this user alone"):
        private_directory()
    ours.rmdir()
    (seen_by_all / "mine").mkdir(mode=0o700)
    ours.symlink_to(seen_by_all / "mine")
    with pytest.raises(BadState, match="remove it, or set TMPDIR"):
        private_directory()


def test_no_module_of_the_current_directory_is_imported_by_dvc(tmp_path):
    for name in ("dvc", "json"):
        (tmp_path / f"{name}.py").write_text("open('marker', 'w').close()\n")
    done = subprocess.run(
        [*command_of_dvc("version"), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "marker").exists()


def test_the_server_of_a_flow_imports_no_module_of_the_current_directory(tmp_path):
    (tmp_path / "nowhere.py").write_text("open('marker', 'w').close()\n")
    words = ["nowhere:app" if ":" in word else word for word in _server_command(0)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert 'Could not import module "nowhere"' in done.stderr
    assert not (tmp_path / "marker").exists()
