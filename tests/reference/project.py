"""A project with genpipe's own code and the reference recipes in it: their files, their rows, their blocks, raw data."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genpipe.graph import read_plan
from tests.reference import HERE, REFERENCE
from tests.repository import as_somebody, make_repository

Words = tuple[str, ...]  # of a command, without genpipe
Results = dict[Words, tuple[int, str]]  # its exit status, and what it printed
CODE = Path(__file__).parents[2]
CHARACTERS = "天地日月山水花鳥春秋"
STAGES = """\
import json, sys
from genpipe.cli import main
for words in json.load(sys.stdin):
    print(f"$ genpipe {' '.join(words)}", flush=True)
    print(f"= {main(words)}", flush=True)
"""


def make_project(root: Path) -> Path:
    """The project at `root`, with its raw data; no stage has run."""
    root.mkdir()
    make_repository(root)
    shutil.copytree(CODE / "genpipe", root / "genpipe")
    for name in ("dvc.yaml", "requirements.lock", ".dvcignore"):
        shutil.copy2(CODE / name, root / name)
    shutil.copy2(HERE / "params.yaml", root / "params.yaml")
    for name in REFERENCE:
        add_model(root, name)
    write_raw_data(root / "data")
    return root


def add_model(root: Path, name: str) -> None:
    """The file of a model, and its row."""
    shutil.copy2(HERE / f"{name}.py", root / "genpipe/models" / f"{name}.py")
    path, make = root / "genpipe/models/__init__.py", REFERENCE[name].make.__name__
    rows = path.read_text().replace("] = {\n", f'] = {{\n    "{name}": {make},\n', 1)
    path.write_text(f"from genpipe.models.{name} import {make}\n{rows}")


def commands_of(root: Path) -> list[Words]:
    """The commands of all stages that the graph has, in its order, and the report."""
    named = [stage.name.partition("@") for stage in read_plan(root).stages]
    return [*(_command(verb, name) for verb, _, name in named), ("report",)]


def _command(verb: str, name: str) -> Words:
    if verb == "count":
        return verb, "--corpus", name
    return (verb, name) if name else (verb,)


def run_commands(root: Path, commands: Sequence[Words]) -> Results:
    """The exit status of each command and what it printed, by the code of the project, in one process."""
    done = subprocess.run(
        [sys.executable, "-c", STAGES],
        cwd=root,  # so that the project's own genpipe is imported
        input=json.dumps(commands),
        env={**as_somebody(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    parts = [part.rpartition("\n= ") for part in done.stdout.split("$ genpipe ")[1:]]
    assert len(parts) == len(commands), done.stdout
    return {words: (int(status), said) for words, (said, _, status) in zip(commands, parts, strict=True)}


def write_raw_data(data: Path) -> None:
    """Pictures in two colours, poems, and records of each kind; the points are drawn by their stage."""
    draw = random.Random(0)
    write_pictures(data / "pictures")
    text = lambda least, most: "".join(draw.choices(CHARACTERS, k=draw.randint(least, most)))
    write_lines(data / "poems.jsonl", (_poem(text) for _ in range(60)))
    write_lines(data / "questions.jsonl", (_question(text) for _ in range(60)))
    write_lines(data / "tags.jsonl", (_tagged(text(2, 6)) for _ in range(60)))
    (data / "cooling.csv").write_text(
        "minutes,cup,pot\n"
        + "".join(f"{t},{20 + 60 * 0.8**t:.4f},{20 + 70 * 0.9**t:.4f}\n" for t in range(24))
    )
    for split, groups in (("train", range(6)), ("test", range(6)), ("unseen", range(6, 9))):
        sayings = [_saying(group, text(1, 3)) for group in groups for _ in range(4)]
        write_lines(data / "sayings" / f"{split}.jsonl", sayings)


def write_pictures(folder: Path) -> None:
    """Red ones that are bright above, blue ones that are bright below."""
    noise = np.random.default_rng(0)
    for label, channel, rows in (("red", 0, slice(4)), ("blue", 2, slice(4, 8))):
        (folder / label).mkdir(parents=True)
        for number in range(24):
            pixels = noise.integers(0, 150, (8, 8, 3), dtype=np.uint8)
            pixels[rows, :, channel] += 100
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _poem(text: Any) -> dict[str, Any]:
    return {"title": text(2, 4), "paragraphs": [text(3, 5), text(3, 5)]}


def _question(text: Any) -> dict[str, Any]:
    passages = [text(2, 5) for _ in range(3)]
    return {"question": text(2, 4), "passages": passages, "answers": [passages[0][:2], passages[0][-2:]]}


def _tagged(text: str) -> dict[str, Any]:
    return {"text": text, "tags": ["first" if CHARACTERS.index(c) < 5 else "last" for c in text]}


def _saying(group: int, rest: str) -> dict[str, Any]:
    return {"group": f"group {group}", "text": CHARACTERS[group] + CHARACTERS[-1 - group] + rest}
