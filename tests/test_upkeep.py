"""doctor, gc, unlock and check --determinism on real projects, with processes that are really killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
import yaml

from genpipe.dvc_command import environment as dvc_environment
from genpipe.experiment import identity, run_key
from genpipe.params.project import read_params
from genpipe.upkeep import doctor
from genpipe.upkeep.doctor import orphaned_rays
from genpipe.upkeep.holders import is_running
from tests.clusters import free_port
from tests.repository import as_somebody, commit, dvc, make_repository
from tests.repository import run as ran
from tests.servers import prefect_server

PROJECT = Path(__file__).resolve().parents[1]
OLD = 40 * 86400
HOLD = "import time; from pathlib import Path; from genpipe import lease; f = lease.hold(Path('.'), {!r}); print(1, flush=True); time.sleep(600)"
HALF = "import time; from pathlib import Path; from genpipe.files import {0}\nwith {0}({1}) as p: p.{2}; print(1, flush=True); time.sleep(600)"

REMOVING = """
import shutil, time
from pathlib import Path
from genpipe.upkeep import leftovers
shutil.rmtree = lambda path: (print(1, flush=True), time.sleep(600))
leftovers.remove(Path('.'), [leftovers.Leftover(Path('artifacts/old'), 'old', 0)])
"""


def run(root: Path, *words: str, **own: str) -> subprocess.CompletedProcess[str]:
    """A command in a project."""
    environment = {**as_somebody(), **own}
    return subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, timeout=300)


def genpipe(root: Path, *words: str, **own: str) -> subprocess.CompletedProcess[str]:
    return run(root, sys.executable, "-m", "genpipe.cli", *words, **own)


@contextlib.contextmanager
def running(root: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has said that it is at work; it is killed at the end."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        yield process
    finally:
        process.kill()
        process.wait()


def killed(root: Path, code: str) -> int:
    """The number of a process that was killed at its work."""
    with running(root, code) as process:
        pass
    return process.pid


def age(path: Path, seconds: float = OLD) -> None:
    """Let a file or directory, and all in it, be old."""
    for each in [*path.rglob("*"), path]:
        os.utime(each, (time.time() - seconds,) * 2, follow_symlinks=False)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DVC project in Git: one stage, run and committed."""
    root = tmp_path_factory.mktemp("template")
    make_repository(root)
    stage = "stages:\n  draw:\n    cmd: mkdir out && cp word out/word && date +%s%N > out/when\n    deps: [word]\n    outs: [out]\n"
    (root / "dvc.yaml").write_text(stage, encoding="utf-8")
    (root / "word").write_text("one", encoding="utf-8")
    (root / ".gitignore").write_text("/out\n/.genpipe\n", encoding="utf-8")
    shutil.copy(PROJECT / "params.yaml", root)
    dvc(root, "repro", "--quiet")
    commit(root, "one")
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy of the small project, for a test to change."""
    return Path(shutil.copytree(template, tmp_path / "project", symlinks=True))


@pytest.fixture
def runs(project: Path) -> dict[str, Path]:
    """Directories of runs: of the current key of a recipe, of an old one, and of a recipe that is gone."""
    data = project / "artifacts" / "datasets" / "digits"
    data.mkdir(parents=True)
    (data / "facts.json").write_text("{}", encoding="utf-8")
    params = read_params(project)
    key = run_key(identity(project, "nice", params, params.recipes["nice"].train, params.seed, "cpu"))
    names = {"current": f"nice-{key}", "old": f"nice-{'0' * 16}", "gone": f"gone-{'1' * 16}", "unknown": f"couplet-{'2' * 16}"}  # fmt: skip
    paths = {name: project / ".genpipe" / "runs" / directory for name, directory in names.items()}
    for path in paths.values():
        (path / "checkpoints").mkdir(parents=True)
        (path / "checkpoints" / "weights").write_bytes(b"w" * 1000)
    return paths


def test_gc_shows_old_runs_and_removes_them_only_when_told(project, runs):
    shown = genpipe(project, "gc")
    assert shown.returncode == 0, shown.stderr
    assert "1.0 kB  .genpipe/runs/nice-0000000000000000  (no recipe has this key now)" in shown.stdout
    assert shown.stdout.endswith("nothing was deleted; genpipe gc --yes does it\n")
    assert all(path.exists() for path in runs.values())
    assert genpipe(project, "gc", "--yes").stdout.endswith("freed 2.0 kB\n")
    # "unknown" stays: the data of couplet is not there, so its current key cannot be computed
    assert {name for name, path in runs.items() if path.exists()} == {"current", "unknown"}
    assert sorted(path.name for path in runs["current"].parent.iterdir()) == sorted(
        [runs["current"].name, runs["unknown"].name]
    )
    assert genpipe(project, "gc", "--yes").stdout == "nothing can go\n"


def test_gc_keeps_every_run_of_a_recipe_that_somebody_trains(project, runs):
    with running(project, HOLD.format("train@nice")):
        assert genpipe(project, "gc", "--yes").returncode == 0
        assert runs["old"].exists()
        assert not runs["gone"].exists()
    genpipe(project, "gc", "--yes")
    assert not runs["old"].exists()


def test_dvc_keeps_the_settings_of_the_environment_and_is_no_stage_s(monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_STAGE", "train@nice")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "elsewhere"))
    given = dvc_environment(Path())
    assert given["DVC_SITE_CACHE_DIR"] == str(tmp_path / "elsewhere")
    assert "DVC_STAGE" not in given


def test_gc_removes_what_killed_processes_left_and_nothing_of_the_living(project):
    by_dead = [
        HALF.format("new_file", "Path('artifacts/a.json')", "write_text('{')"),
        HALF.format("new_directory", "Path('artifacts/b')", "joinpath('c').touch()"),
    ]
    for code in by_dead:
        killed(project, code)
    scratch = HALF.format(
        "scratch_directory", "Path('.genpipe/counts'), 'parts'", "joinpath('d').write_text('1')"
    )
    (project / ".genpipe" / "counts").mkdir(parents=True)
    killed(project, scratch)
    (project / "artifacts" / "old").mkdir()
    killed(project, REMOVING)
    left = [*(project / "artifacts").iterdir(), *(project / ".genpipe" / "counts").iterdir()]
    assert len(left) == 4
    of_ray = [project / ".genpipe/ray" / f"run-{pid}" for pid in (killed(project, "print(1)"), os.getpid())]
    for path in of_ray:
        path.mkdir(parents=True)
    with running(project, by_dead[0]), running(project, scratch):
        living = {*(project / "artifacts").iterdir(), *(project / ".genpipe" / "counts").iterdir()} - {*left}
        genpipe(project, "gc", "--yes")
        assert sum(path.exists() for path in left) == 3, "what is recent may be another machine's"
        age(project / "artifacts")
        shown = genpipe(project, "gc", "--yes")
        assert "was writing it and has ended" in shown.stdout
        assert not any(path.exists() for path in left)
        assert [path.exists() for path in of_ray] == [False, True]
        assert len(living) == 2
        assert all(path.exists() for path in living)


def test_gc_removes_old_logs_shards_and_workspaces_and_keeps_those_in_use(project):
    own = project / ".genpipe"
    names = (
        "logs/a.log",
        "counts/1.parquet",
        "encoded/tang/1.npz",
        "trials/a/file",
        "trials/busy/file",
        "runs.json",
    )
    for name in names:
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text("1", encoding="utf-8")
    raw = project / "raw"  # what a workspace links to is the project's
    raw.mkdir()
    (raw / "file").write_text("1", encoding="utf-8")
    (own / "trials" / "a" / "data").symlink_to(raw)
    age(own)
    (own / "logs" / "new.log").write_text("1", encoding="utf-8")
    with running(own / "trials" / "busy", HOLD.format("train@nice")):
        age(own / "trials" / "busy")
        assert genpipe(project, "gc", "--yes", "--days", "41").stdout == "nothing can go\n"
        with running(project, HOLD.format("trials")):
            genpipe(project, "gc", "--yes")
            assert (own / "trials/a/file").exists(), "a sweep is at work, and may go on in it"
        genpipe(project, "gc", "--yes")
    there = {str(path.relative_to(own)) for path in own.rglob("*") if path.is_file()}
    assert there == {
        "logs/new.log",
        "trials/busy/file",
        "trials/busy/.genpipe/leases/train@nice",
        "leases/trials",
        "runs.json",
    }
    assert (raw / "file").exists()


def test_gc_keeps_what_a_branch_a_tag_or_a_workspace_needs_of_the_cache(project):
    for word, tag in (("two", "kept"), ("three", None), ("four", None)):
        (project / "word").write_text(word, encoding="utf-8")
        dvc(project, "repro", "--quiet")
        if tag:
            commit(project, word)
            ran(project, "git", "tag", tag)
            ran(project, "git", "reset", "--quiet", "--soft", "HEAD~1")
    trial = project / ".genpipe" / "trials" / "t"  # shares the cache, and has made something of its own
    trial.mkdir(parents=True)
    dvc(trial, "init", "--no-scm", "--quiet")
    dvc(trial, "cache", "dir", "--local", str(project / ".dvc" / "cache"))
    (trial / "dvc.yaml").write_text(
        "stages:\n  t:\n    cmd: echo trial > t\n    outs: [t]\n", encoding="utf-8"
    )
    dvc(trial, "repro", "--quiet")
    shown = genpipe(project, "gc")
    assert "objects of DVC's cache  (no branch, tag or workspace needs it)" in shown.stdout, shown.stderr
    assert genpipe(project, "gc", "--no-cache").stdout == "nothing can go\n"
    assert genpipe(project, "gc", "--yes").returncode == 0
    assert genpipe(project, "gc").stdout == "nothing can go\n"
    for place, file in ((project, "out/word"), (trial, "t")):
        before = (place / file).read_text(encoding="utf-8")
        ran(place, "rm", "-r", file.split("/")[0])
        dvc(place, "checkout", "--quiet")
        assert (place / file).read_text(encoding="utf-8") == before
    for revision, word in (("kept", "two"), ("main", "one")):
        ran(project, "git", "checkout", "--quiet", "--force", revision)
        dvc(project, "checkout", "--quiet", "--force")
        assert (project / "out" / "word").read_text(encoding="utf-8") == word


def test_gc_refuses_to_judge_a_cache_that_others_share(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("cache")
    dvc(project, "cache", "dir", "--local", str(elsewhere))
    done = genpipe(project, "gc", "--yes")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "others may need what is in it" in done.stderr
    assert genpipe(project, "gc", "--yes", "--no-cache").returncode == 0


SLOW = "stages:\n  slow:\n    cmd: sleep 600\n    deps: [word]\n    outs: [never]\n"


@contextlib.contextmanager
def reproducing(root: Path) -> Iterator[psutil.Process]:
    """`dvc repro` of a stage that goes on for long, and has begun."""
    (root / "dvc.yaml").write_text(SLOW, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--single-item", "slow"],
        cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 600
        while not psutil.Process(process.pid).children(recursive=True):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_unlock_shows_a_living_holder_and_takes_nothing_from_it(project):
    with reproducing(project) as process:
        for words in (["unlock"], ["unlock", "--yes"]):
            done = genpipe(project, *words)
            assert done.returncode == 0, done.stderr
            assert f"write never: held by process {process.pid} (" in done.stdout
            assert "repro --single-item slow" in done.stdout
            assert "ended" not in done.stdout
        table = json.loads((project / ".dvc/tmp/rwlock").read_text(encoding="utf-8"))
        assert [entry["pid"] for entry in table["write"].values()] == [process.pid]


def test_unlock_removes_what_a_killed_dvc_left_and_only_when_told(project):
    with reproducing(project) as process:
        process.kill()
        process.wait()
    shown = genpipe(project, "unlock").stdout
    assert f"write never: left by process {process.pid} (" in shown
    assert f"read word: left by process {process.pid} (" in shown
    assert "nothing was removed" in shown
    removed = genpipe(project, "unlock", "--yes").stdout.splitlines()[-1]
    assert removed == f"removed {shown.count('left by process')} entries of processes that have ended"
    assert genpipe(project, "unlock").stdout == "nobody holds anything\n"
    (project / "dvc.yaml").write_text(SLOW.replace("sleep 600", "touch never"), encoding="utf-8")
    assert "had been killed" not in dvc(project, "repro")  # DVC reads the table, and has nothing to clear


def test_unlock_tells_a_holder_by_its_command_since_numbers_are_given_anew(project):
    with running(project, "import time; print(1, flush=True); time.sleep(600)") as other:
        holder = {"pid": other.pid, "cmd": "/venv/bin/dvc repro --single-item slow"}
        table = {"write": {str(project / "never"): holder}, "read": {}}
        (project / ".dvc/tmp/rwlock").write_text(json.dumps(table), encoding="utf-8")
        assert "left by process" in genpipe(project, "unlock").stdout
        assert "removed 1 entries" in genpipe(project, "unlock", "--yes").stdout
        assert other.poll() is None


@pytest.mark.parametrize(
    ("words", "known", "other"),
    [
        (
            ["-c", "import time; print(1, flush=True); time.sleep(600)", "--wait", "a b"],
            "-c --wait a b",
            "-c --wait b",
        ),
        (["-m", "work", "a"], "{root}/work/__main__.py a", "{root}/worker/__main__.py a"),
        (["-m", "work.slow", "a"], "{root}/work/slow.py a", "{root}/work/fast.py a"),
        (["work/slow.py"], "work/slow.py", "work/slow.py a"),
    ],
    ids=["code", "package", "module", "file"],
)
def test_a_process_is_known_by_its_command_however_it_was_started(words, known, other, tmp_path):
    (tmp_path / "work").mkdir()
    for name in ("slow.py", "__main__.py"):
        text = "import time; print(1, flush=True); time.sleep(600)"
        (tmp_path / "work" / name).write_text(text, encoding="utf-8")
    process = subprocess.Popen([sys.executable, *words], cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert is_running(process.pid, known.format(root=tmp_path))
        assert not is_running(process.pid, other.format(root=tmp_path))
        assert not is_running(process.pid, f"/venv/bin/dvc {words[-1]}")
    finally:
        process.kill()
        process.communicate()
    assert not is_running(process.pid, known.format(root=tmp_path))


def test_unlock_leaves_alone_what_it_cannot_judge(project):
    (project / ".dvc/tmp/lock").write_text(
        "/project/.dvc/tmp/0123.lock", encoding="utf-8"
    )  # as flufl.lock does
    shown = genpipe(project, "unlock", "--yes")
    assert (shown.returncode, shown.stdout.count("\n")) == (0, 1)
    assert "cannot be identified (core.hardlink_lock is on" in shown.stdout
    for table in ("{", "[]", '{"write": {"x": {"pid": "?", "cmd": "a"}}}'):
        (project / ".dvc/tmp/rwlock").write_text(table, encoding="utf-8")
        refused = genpipe(project, "unlock", "--yes")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "not DVC's table of busy paths" in refused.stderr
        assert (project / ".dvc/tmp/rwlock").read_text(encoding="utf-8") == table


def test_unlock_shows_leases_and_dvcs_own_lock(project):
    lock = "import time, zc.lockfile; f = zc.lockfile.LockFile('.dvc/tmp/lock'); print(1, flush=True); time.sleep(600)"
    with running(project, HOLD.format("train@nice")) as one, running(project, lock) as two:
        shown = genpipe(project, "unlock", "--yes").stdout
        assert f".genpipe/leases/train@nice: held by process {one.pid} (" in shown
        assert f".dvc/tmp/lock: held by process {two.pid} (" in shown
    assert genpipe(project, "unlock").stdout == "nobody holds anything\n"


def findings(root: Path, **own: str) -> dict[str, dict[str, str]]:
    """What the doctor found, by subject; the last word on each."""
    done = genpipe(root, "doctor", "--json", **{"PREFECT_API_URL": "", **own})
    found = json.loads(done.stdout)
    assert done.returncode == int(any(each["level"] == "missing" for each in found))
    return {each["subject"]: each for each in found}


def test_the_doctor_finds_nothing_in_an_empty_directory_and_says_so(tmp_path):
    done = genpipe(tmp_path, "doctor")
    assert done.returncode == 1
    assert "missing  project: no .dvc/config, dvc.yaml, params.yaml in" in done.stdout
    parts = "data/digits, data/poems, data/authors, data/reviews, data/daily, data/minilm, data/bible, data/help, data/glyphs, data/emoji"
    assert f"missing  data: no {parts}; genpipe data" in done.stdout


@pytest.mark.parametrize("command", ["doctor", "models", "gc", "unlock", "plan", "check"])
def test_a_root_that_is_not_there_is_one_line(command, tmp_path):
    done = genpipe(tmp_path, "--root", "nowhere", command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"genpipe: {tmp_path}/nowhere: no such directory; go to the root of the project\n"


def test_the_doctor_answers_within_three_seconds_of_work(project):
    before = os.times()
    genpipe(project, "doctor")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 3


def test_the_doctor_names_packages_that_are_missing_or_differ(project):
    lock = f"prefect=={version('prefect')}\npsutil==0.1\nno-such-package==1.0\n# a comment\n"
    (project / "requirements.lock").write_text(lock, encoding="utf-8")
    found = run(project, sys.executable, "-m", "genpipe.cli", "doctor").stdout
    assert "missing  packages: no-such-package not installed; make install" in found
    assert f"warning  packages: psutil {version('psutil')} instead of 0.1" in found
    (project / "requirements.lock").write_text(lock.splitlines()[0], encoding="utf-8")
    assert findings(project)["packages"]["level"] == "ok"


def test_the_doctor_sees_stale_locks_leftovers_and_bad_parameters(project):
    good = findings(project)
    assert {good[name]["level"] for name in ("project", "locks", "leftovers")} == {"ok"}
    killed(project, HALF.format("new_file", "Path('artifacts/a.json')", "write_text('{')"))
    age(project / "artifacts")
    table = {"write": {"x": {"pid": killed(project, "print(1)"), "cmd": "dvc repro"}}, "read": {}}
    (project / ".dvc/tmp/rwlock").write_text(json.dumps(table), encoding="utf-8")
    (project / "params.yaml").write_text("seed: no\n", encoding="utf-8")
    bad = findings(project)
    assert (bad["project"]["level"], bad["locks"]["level"], bad["leftovers"]["level"]) == ("missing", "warning", "warning")  # fmt: skip
    assert (bad["locks"]["remedy"], bad["leftovers"]["remedy"]) == ("genpipe unlock", "genpipe gc")


@pytest.mark.parametrize(
    ("numerics", "precision", "flags", "said"),
    [
        ("portable", "float32", "sse4_2 avx2", []),
        ("portable", "float32", "sse4_2", ["no AVX2: bytes differ from those of other machines"]),
        ("portable", "bfloat16", "avx2 avx512_bf16", ["bfloat16 takes 2 to 21 times as long as float32 with numerics: portable: nice"]),
        ("native", "bfloat16", "avx2", ["bfloat16 takes 2 to 21 times as long as float32 without AVX-512 bf16: nice"]),
        ("native", "bfloat16", "avx2 avx512_bf16", []),
    ],
)  # fmt: skip
def test_the_doctor_knows_what_the_processor_lacks(monkeypatch, tmp_path, numerics, precision, flags, said):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: {flags}\n")
    monkeypatch.setattr(doctor, "CPUINFO", tmp_path / "cpuinfo")
    values = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8")) | {"numerics": numerics}
    values["recipes"]["nice"]["train"]["precision"] = precision
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = [found.found for found in doctor.examine(tmp_path) if found.subject in ("processor", "precision")]
    assert found == said


def test_the_doctor_sees_a_ray_whose_starter_has_ended(tmp_path):
    daemon = tmp_path / "raylet"  # the kernel names a process after the file
    daemon.write_text("#!/bin/sh\nsleep 600\n", encoding="utf-8")
    daemon.chmod(0o755)
    starters = (killed(tmp_path, "print(1)"), os.getpid())
    names = [f"--log-dir=/tmp/ray/session_2026-11-21_22-07-36_881027_{pid}/logs" for pid in starters]
    daemons = [subprocess.Popen([daemon, name], start_new_session=True) for name in names]
    try:
        assert {process.pid for process in daemons} & set(orphaned_rays()) == {daemons[0].pid}
    finally:
        for process in daemons:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_doctor_sees_where_others_can_change_what_dvc_remembers_and_its_remedies_help(project):
    state = project / ".dvc-state"
    found = findings(project)["DVC's memory"]
    assert found["remedy"] == f"dvc config --local core.site_cache_dir {state}"
    dvc(project, *found["remedy"].split()[1:])
    genpipe(project, "plan")  # makes it
    assert findings(project)["DVC's memory"]["found"] == f"{state}, private"
    (state / "repo").chmod(0o777)
    found = findings(project)["DVC's memory"]
    assert (found["level"], found["found"]) == ("warning", f"{state}/repo open to other users")
    run(project, *found["remedy"].partition(",")[0].split())
    assert findings(project)["DVC's memory"]["level"] == "ok"


def test_the_doctor_knows_where_results_are_pushed(project):
    assert findings(project)["remote"]["remedy"] == "dvc remote add -d NAME URL"
    dvc(project, "remote", "add", "--local", "--default", "team", "/somewhere")
    assert findings(project)["remote"]["found"] == "dvc push goes to team"


def patiently(root: Path, own: dict[str, str]) -> dict[str, dict[str, str]]:
    """What the doctor finds once the server has time for it: it does not wait long, and this machine may be busy."""
    for _ in range(20):
        found = findings(root, **own)
        if "timed out" not in found["Prefect"]["found"]:
            break
    return found


@pytest.mark.e2e
def test_the_doctor_asks_the_server(project, tmp_path_factory):
    for nonsense in ("http://[", "ftp://x", "x"):
        assert findings(project, PREFECT_API_URL=nonsense)["Prefect"]["level"] == "missing"
    nowhere = findings(project, PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api")["Prefect"]
    assert (nowhere["level"], nowhere["remedy"][:9]) == ("missing", "start it:")
    auth = {"PREFECT_SERVER_API_AUTH_STRING": "a:b", "PREFECT_API_AUTH_STRING": "a:b"}
    with prefect_server(tmp_path_factory.mktemp("prefect"), auth) as server:
        refused = findings(project, PREFECT_API_URL=server.address, PREFECT_API_AUTH_STRING="a:c")["Prefect"]
        assert (refused["level"], refused["remedy"]) == (
            "missing",
            "export PREFECT_API_AUTH_STRING=USER:PASSWORD",
        )
        (project / "prefect.yaml").write_text(
            yaml.safe_dump({"deployments": [{"name": "nightly", "entrypoint": "flow.py:draw_it", "work_pool": {"name": "local"}}]}),
            encoding="utf-8",
        )  # fmt: skip
        (project / "flow.py").write_text(
            "from prefect import flow\n\n@flow\ndef draw_it():\n    pass\n", encoding="utf-8"
        )
        own = {"PREFECT_API_URL": server.address, "PREFECT_API_AUTH_STRING": "a:b"}
        found = patiently(project, own)
        assert found["Prefect"] | {"subject": ""} == {
            "subject": "", "level": "ok", "found": f"version {version('prefect')} at {server.address}", "remedy": "",
        }  # fmt: skip
        assert found["deployments"]["remedy"] == "prefect --no-prompt deploy --all"
        server.call(project, "work-pool", "create", "local", "--type", "process")
        server.call(project, "deploy", "--all")
        assert patiently(project, own)["deployments"]["level"] == "ok"


def test_check_names_the_file_that_two_runs_of_a_stage_make_differently(project):
    done = genpipe(project, "check", "--determinism", "draw")
    assert (done.returncode, done.stdout) == (1, "draw: two runs differ in 1 files, first out/when\n"), (
        done.stderr
    )
    text = (project / "dvc.yaml").read_text(encoding="utf-8")
    (project / "dvc.yaml").write_text(text.replace("date +%s%N", "date +%Y"), encoding="utf-8")
    lock = (project / "dvc.lock").read_bytes()
    done = genpipe(project, "check", "--determinism", "draw")
    assert (done.returncode, done.stdout) == (0, "draw: two runs made the same bytes\n"), done.stderr
    assert lock == (project / "dvc.lock").read_bytes(), "the project itself is left alone"
    assert not any((project / ".genpipe" / "determinism").iterdir())


def test_check_runs_a_stage_twice_below_a_path_of_any_characters(project):
    root = project.rename(project.with_name("数据, #1 “q”"))
    done = genpipe(root, "check", "--determinism", "draw")
    assert (done.returncode, done.stdout) == (1, "draw: two runs differ in 1 files, first out/when\n"), (
        done.stderr
    )


def test_check_says_in_one_line_that_a_stage_is_not_there_or_cannot_run(project):
    done = genpipe(project, "check", "--determinism", "drawn")
    assert (done.returncode, done.stderr) == (2, "genpipe: no stage 'drawn' in dvc.yaml; it has: draw\n")
    text = (project / "dvc.yaml").read_text(encoding="utf-8")
    (project / "dvc.yaml").write_text(text.replace("date", "no-such-command"), encoding="utf-8")
    done = genpipe(project, "check", "--determinism", "draw")
    assert (done.returncode, done.stderr.count("\n")) == (1, 2), done.stderr  # the progress, and why it ended
    assert "genpipe: draw: run 1 of 2 failed: dvc repro: ERROR: failed to reproduce 'draw'" in done.stderr
