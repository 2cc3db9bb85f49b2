"""How the command of a flow begins and ends: one line for what is wrong, and Prefect only where there is work for it."""

import importlib
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from genpipe import lease
from genpipe.errors import BadInput
from genpipe.graph import NotVerified
from tasks.failing import RunFailed
from tasks.publish import PublishFailed

PREFECT = {  # what the user has set stays
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine needs more than the default
}


def status_of(work: Callable[[], None]) -> int:
    """Do the work; 0 when all went well, 1 when a stage failed, 2 when the input is at fault, 75 when another does it."""
    try:
        work()
    except lease.Busy as error:
        return _fail(error, lease.BUSY)
    except BadInput as error:
        return _fail(error, 2)
    except (RunFailed, NotVerified, PublishFailed) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where it stopped", 130)
    return 0


def run_flow(name: str, **parameters: Any) -> None:
    """Run the flow `name` of flows/NAME.py here; raises what it failed with, or Busy when another run holds its lease."""
    prepare_prefect()
    module = importlib.import_module(f"flows.{name}")  # only now: it reads the environment, and takes seconds
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


def _fail(message: object, status: int) -> int:
    print(f"genpipe: {message}", file=sys.stderr)
    return status
