"""Bring counts and vocabularies up to date, and nothing that is trained on them.

python -m flows.corpus [CORPUS …]                  of all corpora of params.yaml, or of these
prefect deployment run 'corpus/manual' --watch     where prefect.yaml is deployed and a worker runs
"""

import sys

if __name__ == "__main__":  # what needs no Prefect is done first: its import takes seconds
    from flows.commands import corpus_main

    sys.exit(corpus_main())

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.asking import corpus_targets
from flows.retrain import retrain


@flow(name="corpus", task_runner=ThreadPoolTaskRunner())  # pyright: ignore  (its type is invariant)
def corpus(names: list[str] | None = None, max_parallel: int | None = None) -> Any:
    """Count and make vocabularies of the corpora `names` (all when none is given), as `retrain` runs its targets."""
    targets = corpus_targets(Path.cwd(), names)
    return retrain.fn(targets, max_parallel)  # pyright: ignore[reportFunctionMemberAccess]
