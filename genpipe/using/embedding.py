"""A folder of embedded sentences: a copy of the model, the sentences, their vectors, an index and a card; and its nearest sentences.

`embedding.json`, the card, `sentences.jsonl` and `vectors.safetensors` are functions of the model and the sentences. The index is a cache of the vectors.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from genpipe.errors import BadInput, BadState
from genpipe.files import (
    FRAMES,
    MODEL,
    existing,
    hash_of,
    new_directory,
    read_json,
    refuse_inputs,
    require_ours,
    sha256,
    write_json,
)
from genpipe.using import nearest
from genpipe.using.model import Using, one_line
from genpipe.using.outputs import CARD, EMBEDDED, GRAPH, GRAPH_CARD, SENTENCES, VECTORS
from genpipe.using.sentences import Embedded, embedded, vectors_of

AGAIN = "write the folder again with genpipe embed"


def embed(using: Using, lines: Iterable[str], out: Path, inputs: Sequence[Path] = ()) -> None:
    """Write the folder `out`, whole or not at all; sentences that it has already, by the same model, keep their vectors.

    Raises BadInput where `out` holds other files or is one of `inputs`, and where no sentence can be embedded.
    """
    require_ours(out, EMBEDDED)
    refuse_inputs(out, [using.directory, *inputs])
    model = _model_of(using.directory)
    before = _before(out, model["sha256"])
    made = embedded(using, lines, before)
    with new_directory(out, EMBEDDED) as partial:
        for name in MODEL:
            if name != FRAMES and (using.directory / name).exists():
                shutil.copyfile(using.directory / name, partial / name)
        _write(made, model, partial)
        _write_index(made, partial, out)
    print("\n".join(_said(made, out, len(before))))


def _write(made: Embedded, model: dict[str, Any], directory: Path) -> None:
    with (directory / SENTENCES).open("wb") as file:
        file.writelines(orjson.dumps({"text": text}) + b"\n" for text in made.sentences)
    (directory / VECTORS).write_bytes(save({"vectors": made.vectors}))
    card = {
        "model": model,
        "sentences": len(made.sentences),
        "dim": made.vectors.shape[1],
        "lines": made.read,
        "without_a_known_token": made.unknown,
        "shortened": made.shortened,
        "libraries": {"torch": torch.__version__},
        "sha256": {name: sha256(directory / name) for name in (SENTENCES, VECTORS)},
    }
    write_json(directory / CARD, card)


def _write_index(made: Embedded, directory: Path, before: Path) -> None:
    """The graph, where there are so many vectors that it pays; that of `before` where it has the same."""
    if len(made.sentences) <= nearest.FEW:
        return
    of = sha256(directory / VECTORS)
    if nearest.fits(before, of):
        for name in (GRAPH, GRAPH_CARD):
            shutil.copyfile(before / name, directory / name)
        return
    nearest.build(made.vectors.numpy()).write(directory, of)


def _said(made: Embedded, out: Path, before: int) -> list[str]:
    lines = [f"wrote {out}: {len(made.sentences):,} sentences as vectors of {made.vectors.shape[1]} numbers"]
    repeated = made.read - len(made.sentences) - made.unknown
    notes = [
        (repeated, "lines repeat an earlier one"),
        (made.unknown, "sentences have no token that the model knows; they are left out"),
        (made.shortened, "sentences are longer than what the model reads; the rest of them has no effect"),
        (before, "vectors were there already"),
    ]
    return [*lines, *(f"{number:>12,} {text}" for number, text in notes if number)]


def _model_of(directory: Path) -> dict[str, Any]:
    """The name of a model and a hash of all that its features depend on."""
    files = [directory / name for name in MODEL if name not in (FRAMES, "card.md")]
    recipe = read_json(existing(directory / "recipe.json", "name the directory of a trained model"))
    return {
        "recipe": recipe.get("recipe", directory.name),
        "model": recipe.get("model"),
        "sha256": hash_of([path for path in files if path.exists()], directory),
    }


def _before(out: Path, model: str) -> dict[str, Tensor]:
    """The vectors that a folder has already by the same model and torch, by sentence; none where it is not whole."""
    try:
        folder = read_folder(out)
    except (BadInput, BadState):
        return {}
    if folder.card["model"]["sha256"] != model or folder.card["libraries"] != {"torch": torch.__version__}:
        return {}
    return dict(zip(folder.sentences, torch.from_numpy(folder.vectors), strict=True))


@dataclass(frozen=True)
class Folder:
    """What a folder of embedded sentences holds."""

    directory: Path
    card: dict[str, Any]
    sentences: list[str]
    vectors: np.ndarray  # float32 [sentences, dim], of length 1


def is_folder(directory: Path) -> bool:
    """Whether `genpipe embed` wrote a directory."""
    return (directory / CARD).is_file()


def read_folder(directory: Path) -> Folder:
    """A folder that `genpipe embed` wrote. Raises BadState where a file is missing or damaged."""
    card = read_json(existing(directory / CARD, AGAIN))
    hashes = card.get("sha256") if isinstance(card, dict) else None
    for name in (SENTENCES, VECTORS):
        path = existing(directory / name, AGAIN)
        if not isinstance(hashes, dict) or hashes.get(name) != sha256(path):
            raise BadState(f"{path}: not what {CARD} describes: its SHA-256 differs; {AGAIN}")
    with (directory / SENTENCES).open("rb") as file:
        sentences = [orjson.loads(line)["text"] for line in file]
    try:
        vectors = load_file(directory / VECTORS)["vectors"].numpy()
    except (SafetensorError, KeyError) as error:
        raise BadState(f"{directory / VECTORS}: {error}; {AGAIN}") from None
    return Folder(directory, card, sentences, vectors)


class Index:
    """The sentences of a folder that `genpipe embed` wrote, ready for queries.

    By default the nearest ones are found by the graph where there is one; `exact` looks at all.
    """

    def __init__(self, using: Using, exact: bool = False) -> None:
        """`using` is the model in the folder. Raises BadState where a file of the folder is missing or damaged."""
        self.using, self.folder = using, read_folder(using.directory)
        is_small = len(self.folder.sentences) <= nearest.FEW
        of = self.folder.card["sha256"][VECTORS]
        self.graph = None if exact or is_small else nearest.opened(using.directory, self.folder.vectors, of)

    def search(self, queries: Sequence[str], num: int = 10) -> list[list[tuple[float, str]]]:
        """For each query the cosines and the texts of the `num` nearest sentences, the nearest first.

        Raises BadInput for a query of which the model knows no token.
        """
        if num < 1:
            raise BadInput(f"num: must be 1 or more, not {num}")
        cosines, places = self.nearest(vectors_of(self.using, queries).numpy(), num)
        texts = self.folder.sentences
        return [
            [(float(cosine), texts[place]) for cosine, place in zip(*row, strict=True)]
            for row in zip(cosines, places, strict=True)
        ]

    def nearest(self, vectors: np.ndarray, num: int) -> nearest.Found:
        """The cosines and the places of the `num` nearest sentences to each vector, float32 [queries, dim] of length 1."""
        if self.graph is not None:
            return self.graph.nearest(vectors, num)
        return nearest.exact(self.folder.vectors, vectors, num)


def search(using: Using, queries: Sequence[str], num: int, exact: bool) -> None:
    """Print the nearest sentences: their cosines and texts, after the query where there are several."""
    found = Index(using, exact).search(queries, num)
    for query, rows in zip(queries, found, strict=True):
        begin = f"{one_line(query)}\t" if len(queries) > 1 else ""
        for cosine, text in rows:
            print(f"{begin}{cosine:.4f}\t{one_line(text)}")
