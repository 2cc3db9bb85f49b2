"""One run at a time in a project, whoever starts it: Prefect's limits know only the runs of one deployment."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

from prefect.states import Cancelled

from genpipe import lease, own_code

Parameters = ParamSpec("Parameters")


def alone(name: str) -> Callable[[Callable[Parameters, Any]], Callable[Parameters, Any]]:
    """Let a flow hold the lease `name` of the project of the current directory while it runs.

    Where another run holds it, this one does nothing and ends as Cancelled, named Busy: nothing failed, and what the other
    run leaves undone the next one does. BadInput where the project has other code than what was imported.
    """

    def decorate(work: Callable[Parameters, Any]) -> Callable[Parameters, Any]:
        @functools.wraps(work)
        def leased(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Any:
            own_code.require(Path.cwd(), *own_code.PARTS)
            try:
                held = lease.hold(Path.cwd(), name)
            except lease.Busy as error:
                return Cancelled(name="Busy", message=str(error))
            with held:
                return work(*args, **kwargs)

        return leased

    return decorate
