"""The steps of benchmarks.workflow as a Kedro pipeline: PYTHON workflow_kedro.py DIRECTORY --graph JSON --seconds 1.

Each step reads the files of those above it, works, and writes its own, by way of a catalog. Kedro compares nothing with
what is there: every run runs every step.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DataCatalog, SharedMemoryDataCatalog
from kedro.pipeline import node, pipeline
from kedro.runner import ParallelRunner, SequentialRunner


class Text(AbstractDataset[str, str]):
    """A text file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def _load(self) -> str:
        return self._path.read_text(encoding="utf-8")

    def _save(self, data: str) -> None:
        self._path.write_text(data, encoding="utf-8")

    def _exists(self) -> bool:
        return self._path.exists()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}


def step(name: str, seconds: float, *above: str) -> str:
    """What STEP of benchmarks.workflow does."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "\n".join([name, *above])


def main() -> None:
    """Run all steps, and tell the seconds that it took after imports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--graph", type=json.loads, required=True, help="JSON: the names above each step")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--parallel", type=int, default=1)
    given = parser.parse_args()
    started = time.perf_counter()
    names = ["tick", *given.graph]
    kind = SharedMemoryDataCatalog if given.parallel > 1 else DataCatalog
    catalog = kind({name: Text(str(given.directory / name)) for name in names})
    nodes = [
        node(partial(step, name, given.seconds), above or ["tick"], name, name=name)
        for name, above in given.graph.items()
    ]
    runner = ParallelRunner(max_workers=given.parallel) if given.parallel > 1 else SequentialRunner()
    runner.run(pipeline(nodes), catalog)
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
