"""What is missing or wrong on this machine, and the command that fixes each. Imports neither torch, DVC nor Ray."""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path

import psutil

from genpipe import numerics
from genpipe.cores import cores
from genpipe.dvc_command import OTHER_STATE, named_states, state_of
from genpipe.errors import GenpipeError
from genpipe.libraries import locked, normalised
from genpipe.params.project import Params, read_params
from genpipe.upkeep.finding import LOCK, Finding, Level, few
from genpipe.upkeep.holders import holders
from genpipe.upkeep.leftovers import dead_scratch, half_written
from genpipe.upkeep.server import prefect
from genpipe.upkeep.sizes import readable

PYTHON = (3, 11)
LITTLE_DISK, FULL_DISK = 5 << 30, 1 << 30  # bytes; the environment, the data and one run take 4 GB
LITTLE_MEMORY = 2 << 30
SHARED_MEMORY = 150 << 20  # Ray's object store of a stage is 100 MB
CPUINFO = Path("/proc/cpuinfo")
FLAGS = re.compile(r"^flags\s*:(.*)$", re.MULTILINE)  # of the first core
PORTS = {4200: "Prefect", 6379: "Ray", 8265: "Ray's dashboard"}


def examine(root: Path) -> list[Finding]:
    """All findings, in the order in which they are best fixed."""
    looks: tuple[Callable[[Path], Iterator[Finding]], ...] = (
        _python, _git, _packages, _project, _state, _data, _disk, _machine, _processor, _gpus, _locks, _leftovers, prefect, _remote, _ports,
    )  # fmt: skip
    return [finding for look in looks for finding in look(root)]


def _python(root: Path) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON:
        yield Finding(
            "Python", "missing", found, "genpipe needs 3.11 or newer; make install PYTHON=python3.11"
        )
    else:
        yield Finding("Python", "ok", f"{found} in {sys.prefix}")


def _git(root: Path) -> Iterator[Finding]:
    if not shutil.which("git"):
        yield Finding("Git", "missing", "not installed", "apt-get install git")
        return
    who = [_output(root, "git", "config", f"user.{key}") for key in ("name", "email")]
    if all(who) or all(os.environ.get(f"GIT_AUTHOR_{key}") for key in ("NAME", "EMAIL")):
        yield Finding("Git", "ok", "installed, with an identity")
    else:
        remedy = "git config --global user.name NAME; git config --global user.email ADDRESS"
        yield Finding("Git", "warning", "no identity, so nothing can be committed", remedy)


def _output(root: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _packages(root: Path) -> Iterator[Finding]:
    pins = locked(root / "requirements.lock")
    if pins is None:
        yield Finding("packages", "missing", "no requirements.lock", "git checkout requirements.lock")
        return
    wanted = {name: version.split("+")[0] for name, version in pins.items()}  # of any build
    there = {normalised(package.name): package.version for package in importlib.metadata.distributions()}
    absent = [name for name in wanted if name not in there]
    other = [name for name in wanted if name in there and there[name].split("+")[0] != wanted[name]]
    if absent:
        yield Finding("packages", "missing", f"{few(absent)} not installed", LOCK)
    if other:
        detail = few([f"{name} {there[name]} instead of {wanted[name]}" for name in other])
        yield Finding("packages", "warning", f"{detail}: results may differ", LOCK)
    if not absent and not other:
        yield Finding("packages", "ok", f"all {len(wanted)} of requirements.lock")


def _project(root: Path) -> Iterator[Finding]:
    wanted = [name for name in (".dvc/config", "dvc.yaml", "params.yaml") if not (root / name).exists()]
    if wanted:
        yield Finding(
            "project", "missing", f"no {', '.join(wanted)} in {root}", "go to the root of the project"
        )
        return
    try:
        read_params(root)
    except GenpipeError as error:
        yield Finding("project", "missing", str(error), "fix params.yaml")
    else:
        yield Finding("project", "ok", "a DVC project whose params.yaml is valid")


def _state(root: Path) -> Iterator[Finding]:
    """Where DVC remembers hashes: whoever can write there decides what DVC believes of a file."""
    state = state_of(root)
    named = next(named_states(root), "")
    if found := [str(path) for path in (state, state / "repo") if path.is_dir() and _is_open(path)]:
        remedy = f"chmod 700 {' '.join(found)}, or {OTHER_STATE}"
        yield Finding("DVC's memory", "warning", f"{' and '.join(found)} open to other users", remedy)
    elif not Path(named).is_absolute():
        detail = f"{state}, but a dvc called by hand may use one that others can change"
        yield Finding("DVC's memory", "warning", detail, f"dvc config --local core.site_cache_dir {shlex.quote(str(state))}")  # fmt: skip
    else:
        yield Finding("DVC's memory", "ok", f"{state}, private")


def _is_open(path: Path) -> bool:
    """Whether another user owns a directory, or may look or write there."""
    found = path.stat()
    return found.st_uid != os.getuid() or bool(found.st_mode & 0o077)


def _data(root: Path) -> Iterator[Finding]:
    from genpipe.sources.fetch import PARTS
    from genpipe.sources.pin import look, verify

    names = [part.directory for part in PARTS]
    there = [name for name in names if (root / "data" / name).is_dir()]
    absent = [f"data/{name}" for name in names if name not in there]
    unpinned = [name for name in there if not (root / f"data/{name}.dvc").exists()]
    if not there:
        yield Finding("data", "missing", f"no {', '.join(absent)}", "genpipe data")
        return
    try:
        seen = look(root, there)
        for name in there:
            verify(root, name, seen, rewritten=False)
    except GenpipeError as error:
        yield Finding("data", "missing", str(error))
        return
    if unpinned:
        files = ", ".join(f"data/{name}.dvc" for name in unpinned)
        yield Finding("data", "warning", f"no {files} says what it must be", f"git checkout {files}")
    else:
        rest = f"; not fetched: {', '.join(absent)}" if absent else ""
        yield Finding("data", "ok", f"{', '.join(f'data/{name}' for name in there)} verified{rest}")


def _disk(root: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(root).free
    level: Level = "missing" if free < FULL_DISK else "warning" if free < LITTLE_DISK else "ok"
    yield Finding("disk", level, f"{readable(free)} free", "" if level == "ok" else "genpipe gc")


def _machine(root: Path) -> Iterator[Finding]:
    found, memory = cores(), psutil.virtual_memory().available
    workers = _cluster_workers(root)
    if workers > found:
        yield Finding(
            "cores", "warning", f"{found}, and cluster.workers is {workers}", "lower it in params.yaml"
        )
    else:
        yield Finding("cores", "ok", f"{found}")
    if memory < LITTLE_MEMORY:
        yield Finding("memory", "warning", f"{readable(memory)} free", "end other programs, or lower cluster.workers")  # fmt: skip
    else:
        yield Finding("memory", "ok", f"{readable(memory)} free")
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
    if shared < SHARED_MEMORY:
        remedy = (
            "in a container: --shm-size=1g (compose: shm_size); or cluster.executor local, which needs no Ray"
        )
        yield Finding("shared memory", "warning", f"{readable(shared)} free, Ray wants 150 MB", remedy)
    else:
        yield Finding("shared memory", "ok", f"{readable(shared)} free for Ray")


def _cluster_workers(root: Path) -> int:
    params = _params(root)
    return params.cluster.workers if params else 0


def _params(root: Path) -> Params | None:
    try:
        return read_params(root)
    except GenpipeError:
        return None  # reported already


def _processor(root: Path) -> Iterator[Finding]:
    """What the numerics of params.yaml need, and what bfloat16 costs here."""
    params = _params(root)
    found = FLAGS.search(CPUINFO.read_text()) if CPUINFO.exists() else None
    if params is None or found is None or not numerics.is_x86():
        return
    flags = found[1].split()
    if params.numerics == "portable" and "avx2" not in flags:
        yield Finding("processor", "warning", "no AVX2: bytes differ from those of other machines", "run on a processor with AVX2")  # fmt: skip
    slow = [name for name, recipe in params.recipes.items() if recipe.train.precision == "bfloat16"]
    if slow and (params.numerics == "portable" or "avx512_bf16" not in flags):
        reason = "with numerics: portable" if "avx512_bf16" in flags else "without AVX-512 bf16"
        yield Finding("precision", "warning", f"bfloat16 takes 2 to 21 times as long as float32 {reason}: {', '.join(slow)}", "set precision: float32, or train on a GPU")  # fmt: skip


def _gpus(root: Path) -> Iterator[Finding]:
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if not devices:
        yield Finding("GPU", "ok", "none; everything runs on processors")
        return
    if not _torch_has_cuda():
        yield Finding("GPU", "warning", f"{devices} here, but this torch is for processors only", "install a torch with CUDA")  # fmt: skip
        return
    import torch  # takes seconds, so only where there is a GPU to ask for

    seen = torch.cuda.device_count()
    if seen:
        yield Finding("GPU", "ok", f"torch sees {seen} of {devices}")
    else:
        yield Finding("GPU", "warning", f"{devices} here, torch sees none", "nvidia-smi says why; unset CUDA_VISIBLE_DEVICES")  # fmt: skip


def _torch_has_cuda() -> bool:
    """Whether torch was built for GPUs, by its own word, without importing it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    version = Path(found.origin).with_name("version.py")
    return version.exists() and re.search(r"^cuda\b.*= *'", version.read_text(encoding="utf-8"), re.M) is not None  # fmt: skip


def _locks(root: Path) -> Iterator[Finding]:
    try:
        found = holders(root)
    except GenpipeError as error:
        yield Finding("locks", "warning", str(error))
        return
    dead = [holder for holder in found if not holder.is_alive]
    living = sorted({str(holder.pid or "unknown") for holder in found if holder.is_alive})
    if dead:
        yield Finding("locks", "warning", f"{len(dead)} left by processes that have ended", "genpipe unlock")
    elif living:
        yield Finding("locks", "ok", f"held by running processes: {', '.join(living)}")
    else:
        yield Finding("locks", "ok", "nobody holds any")


def _leftovers(root: Path) -> Iterator[Finding]:
    found = [*half_written(root), *dead_scratch(root)]
    if found:
        size = readable(sum(item.size for item in found))
        yield Finding("leftovers", "warning", f"{len(found)} of killed processes, {size}", "genpipe gc")
    else:
        yield Finding("leftovers", "ok", "none of killed processes")
    orphans = orphaned_rays()
    if orphans:
        pids = " ".join(map(str, orphans))
        yield Finding("Ray", "warning", f"processes run though what started them has ended: {pids}", f"if none is a cluster of yours: kill {pids}")  # fmt: skip


def orphaned_rays() -> list[int]:
    """This user's Ray daemons whose session was started by a process that has ended; so are those of `ray start`."""
    found = []
    for process in psutil.process_iter(["pid", "name", "uids", "cmdline"]):
        own = process.info["uids"] is not None and process.info["uids"].real == os.getuid()
        if own and process.info["name"] in ("raylet", "gcs_server"):
            session = re.search(r"/session_\S+?_(\d+)(?=[/ ]|$)", " ".join(process.info["cmdline"] or ()))
            if session and not psutil.pid_exists(int(session[1])):
                found.append(process.pid)
    return sorted(found)


def _remote(root: Path) -> Iterator[Finding]:
    name = ""
    for file in ("config", "config.local"):
        config = ConfigParser(strict=False, interpolation=None)
        try:
            config.read(root / ".dvc" / file, encoding="utf-8")
        except ConfigError:
            yield Finding("remote", "warning", f".dvc/{file} cannot be read", f"git checkout .dvc/{file}")
            return
        name = config.get("core", "remote", fallback=name)
    if name:
        yield Finding("remote", "ok", f"dvc push goes to {name}")
    else:
        yield Finding(
            "remote", "warning", "none: results are on this machine alone", "dvc remote add -d NAME URL"
        )


def _ports(root: Path) -> Iterator[Finding]:
    taken = [
        port for port in PORTS if _answers(port) and f":{port}" not in os.environ.get("PREFECT_API_URL", "")
    ]
    if taken:
        detail = ", ".join(f"{port} ({PORTS[port]}'s)" for port in taken)
        yield Finding("ports", "warning", f"taken on this machine: {detail}", "fine if it is yours; else name another with --port")  # fmt: skip
    else:
        yield Finding("ports", "ok", "those of Prefect and Ray are free, or theirs")


def _answers(port: int) -> bool:
    with socket.socket() as knock:
        knock.settimeout(0.2)
        return knock.connect_ex(("127.0.0.1", port)) == 0
