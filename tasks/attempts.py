"""How often a stage died with the very same inputs: beyond a limit it is not tried again until something changes.

One small file a stage, `.genpipe/attempts/STAGE.json`; success removes it. Retries of a task, of a flow and of an
automation all count here, so that together they end.
"""

import json
import os
from pathlib import Path

from genpipe.files import write_json
from genpipe.graph import Stage, inputs_of


def deaths(root: Path, stage: Stage) -> int:
    """How often `stage` died with the inputs it has now."""
    try:
        record = json.loads(_path(root, stage.name).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0
    return record["deaths"] if record["inputs"] == inputs_of(root, stage.name) else 0


def died(root: Path, stage: Stage) -> None:
    """Count one more death."""
    so_far, path = deaths(root, stage), _path(root, stage.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"inputs": inputs_of(root, stage.name), "deaths": so_far + 1})


def forget(root: Path, name: str | None = None) -> None:
    """Forget the deaths of a stage that went well, or of all stages."""
    paths = [_path(root, name)] if name else (root / ".genpipe" / "attempts").glob("*.json")
    for path in paths:
        path.unlink(missing_ok=True)


def _path(root: Path, name: str) -> Path:
    return root / ".genpipe" / "attempts" / f"{name.replace(os.sep, '_')}.json"
