"""How a run says that some of its work failed, and how that is logged."""

import logging

from genpipe.errors import WorkFailed, reported


class RunFailed(WorkFailed):
    """Some of the work failed: one line for each failure."""


def log_failures_in_one_line() -> None:
    """Let Prefect log what we raise without where it was raised: the message says it all."""
    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and reported(error):
        record.exc_info = None
    return True
