"""A process that has imported DVC and torch once, and forks from it what would import them again: DVC, and a stage's command.

    python warm_process.py NUMBER        of the open socket on which the flow asks

A fork is a guard (tasks/guard.py) in a session of its own, whose pipes came with the request. So who ends what is as with
guards that are started anew. This process ends with the flow, and its guards end their groups when it ends.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.pop(0)  # the directory of this file, whose modules are nobody's top level

from genpipe import numerics

if __name__ == "__main__":
    # before NumPy and torch are imported, which read it once
    numerics.use(numerics.of(Path.cwd()))

from dvc.stage import run as dvc_run
from dvc.stage.exceptions import StageCmdFailedError

from genpipe import lease, own_code
from genpipe.cli import main as run_command
from genpipe.params.cluster import WORKERS
from tasks import atomic_dvc, guard
from tasks.cluster import MEETING
from tasks.warm import GROUPS

# what differs in the environment from stage to stage; Ray, which is not imported here, reads it in the fork
OF_A_STAGE = ("DVC_STAGE", "DVC_ROOT", WORKERS, *MEETING)
LARGEST = 1 << 20  # bytes of a request
# what `dvc repro` imports only when it is called: 0.8 CPU seconds a stage, four fifths of what DVC takes for one
DVC_USES = (
    *("dvc.cli.parser", "dvc.commands.repro", "dvc.repo.reproduce", "dvc.repo.open_repo", "dvc.repo.stage"),
    *("dvc.repo.artifacts", "dvc.repo.datasets", "dvc.repo.metrics", "dvc.repo.params", "dvc.repo.plots"),
    *("dvc.cachemgr", "dvc.data_cloud", "dvc.dirs", "dvc.lock", "dvc.rwlock", "dvc.scm", "dvc._debug"),
    *("dvc.utils.strictyaml", "dvc_data.hashfile.db.local", "dvc_render", "fsspec.implementations.memory"),
    *("dulwich.ignore", "dulwich.worktree", "configobj", "flatten_dict", "platformdirs", "pyparsing"),
)
# what torch imports when the first optimiser is made: 1.2 CPU seconds, and memory that forks then share
OPTIMISERS_USE = "torch._dynamo"
ENVIRONMENT = dict(os.environ)
CODE = own_code.digest()  # before the import of the rest: a file that changes meanwhile makes it another

cold_run = dvc_run._run


class Forked:
    """A child that is a fork of this process."""

    def __init__(self, work: Callable[[], int]) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _end(work)

    def wait(self) -> int:
        """Its exit status, or minus the number of the signal that ended it."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def serve(control: socket.socket) -> None:
    """Fork a guard for each request, until the flow is gone."""
    prctl(guard.PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a guard: it reports by itself
    while True:
        message, pipes, _, _ = socket.recv_fds(control, LARGEST, 3)
        if not message:
            return
        request = json.loads(message)
        _import_for(request["words"][-1])
        # where the system has no process left, the closed pipes say so, and the flow starts a command
        with suppress(OSError):
            if not os.fork():
                control.close()
                _end(lambda request=request, pipes=pipes: _guard(request, pipes))
        for pipe in pipes:
            os.close(pipe)


def _import_for(stage: str) -> None:
    """Import what the stage will need and forks of later stages can share."""
    if stage.partition("@")[0] == "train" and OPTIMISERS_USE not in sys.modules:
        importlib.import_module(OPTIMISERS_USE)
        gc.freeze()


def _guard(request: dict[str, Any], pipes: Sequence[int]) -> int:
    """What a guard does; its number, and at the end its exit status, go to the third pipe."""
    os.setsid()
    _die_with(os.getppid(), signal.SIGTERM)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked, output, report = pipes
    for mine, standard in ((asked, 0), (output, 1), (output, 2)):
        os.dup2(mine, standard)
    os.close(asked)
    os.close(output)
    os.write(report, f"{os.getpid()}\n".encode())
    os.chdir(request["root"])
    os.environ.clear()
    os.environ.update(request["environment"])
    status = guard.main(request["timeout"], guard.GRACE, request["words"], _start_dvc)
    os.write(report, f"{status}\n".encode())
    return status


def _start_dvc(words: list[str], _: Callable[..., object]) -> Forked:
    parent = os.getpid()
    waiting, ready = os.pipe()

    def work() -> int:
        os.setsid()
        _die_with(parent, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(waiting)
        os.close(ready)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        dvc_run._run = run
        return atomic_dvc.run(words)

    child = Forked(work)
    os.close(ready)
    # until its group is there: a guard that is asked to end at once would find none, and wait for all of its work
    os.read(waiting, 1)
    os.close(waiting)
    return child


def run(executable: str | None, cmd: str, **how: Any) -> None:
    """In place of DVC's: a command of genpipe that needs torch is run in a fork, any other one as DVC does."""
    # a fork computes as this process does: its own call of numerics.use comes after the imports
    environment = {**how["env"], **numerics.settings(numerics.of(Path(how["cwd"])))}
    words = forkable(cmd, environment)
    if words is None:
        cold_run(executable, cmd, **how)
        return

    def work() -> int:
        os.chdir(how["cwd"])
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["genpipe", *words]
        # DVC has put its own in their place
        assert sys.__stdout__ is not None
        assert sys.__stderr__ is not None
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        atexit._clear()  # what DVC has registered
        try:
            return run_command(words)
        finally:
            atexit._run_exitfuncs()

    before = signal.getsignal(signal.SIGINT)
    child = Forked(work)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = child.wait()
    signal.signal(signal.SIGINT, before)
    if status:
        raise StageCmdFailedError(cmd, status)


def forkable(cmd: str, environment: dict[str, str]) -> list[str] | None:
    """The words of a command of genpipe that a fork may run: with the code, packages and environment of this process."""
    words = cmd.split()
    is_plain = shlex.join(words) == cmd and len(words) > 1 and words[0] == "genpipe" and words[1] in GROUPS
    if not is_plain or _settings(environment) != _settings(ENVIRONMENT):
        return None
    command = shutil.which("genpipe", path=environment.get("PATH"))
    is_ours = command is not None and Path(command).parent.samefile(Path(sys.executable).parent)
    return words[1:] if is_ours and own_code.digest.__wrapped__() == CODE else None


def _settings(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in OF_A_STAGE}


def _die_with(parent: int, number: int) -> None:
    prctl(guard.PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the line above, whose signal will never come
        os.kill(os.getpid(), signal.SIGKILL)


def _end(work: Callable[[], int]) -> NoReturn:
    """Do the work of a fork, and end: what stands above it on the stack is its parent's."""
    status = 1
    try:
        status = work()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 (nothing may return into the code of the parent)
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):  # closed, or nobody reads it any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status % 256)


def prctl(option: int, value: int) -> None:
    """prctl(2) of Linux."""
    ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    lease.die_with_parent()
    import scipy.optimize  # noqa: F401  (what judges of samples import, a third of a second each)

    import genpipe.experiment  # noqa: F401  (with torch: what the commands of GROUPS import)

    for name in DVC_USES:
        # another version of DVC may do without it
        with suppress(ImportError):
            importlib.import_module(name)
    # a collection in a fork would write to every object, and so copy every page
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
