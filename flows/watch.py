"""Tell Prefect when the raw data has changed: the event genpipe.data.updated, once for each change.

    python -m flows.watch                    look once
    python -m flows.watch --every 60         look again and again, until it is ended
    prefect.yaml deploys it as watch/data, every five minutes

Raw data is what the .dvc files pin and what the sources of `datasets` in params.yaml hold. The first look only remembers that.
"""

import sys

if __name__ == "__main__":  # what needs no Prefect is done first: its import takes seconds
    from flows.commands import watch_main

    sys.exit(watch_main())

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.asking import WATCH_LEASE
from tasks.events import send
from tasks.leasing import alone
from tasks.watching import announce, look


@flow(name="watch")
@alone(WATCH_LEASE)
def watch() -> Any:
    """Look once, and announce what changed."""
    change = look(Path.cwd())
    if change is None:
        return Completed(name="Unchanged", message="the raw data is as it was")
    announce(Path.cwd(), change, send)
    return Completed(message=f"announced: {', '.join(change.names)}")
