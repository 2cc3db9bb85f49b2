"""`genpipe features`: texts beside the features that a trained model finds in the images of the same rows."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpipe.assembly import Trained, keep_freed_memory, load_trained
from genpipe.capabilities import Embeds, Encodes
from genpipe.data.loader import codec_files, read_array, read_description
from genpipe.errors import BadInput, BadState
from genpipe.files import (
    TABLES,
    WEIGHTS,
    existing,
    new_directory,
    refuse_inputs,
    require_ours,
    sha256,
    write_json,
)
from genpipe.nn.pixels import scaled
from genpipe.params.features import Features
from genpipe.sampling.draw import in_chunks

STREAM = "stream"


def write_features(root: Path, name: str, block: Features) -> None:
    """Write artifacts/features/NAME, whole or not at all: the texts of the encoding, SPLIT.vector.npy, and SPLIT_images.npy of the test.

    Raises BadInput where texts and images do not have the same rows, and where the model finds no features in images of that size.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    encoded, images, model = (
        existing(root / "artifacts" / place, "run the stage that makes it (genpipe plan names it)")
        for place in (f"encoded/{block.encoding}", f"datasets/{block.dataset}", block.model)
    )
    out = root / "artifacts" / "features" / name
    refuse_inputs(out, [encoded, images, model])
    require_ours(out, TABLES)
    described = read_description(encoded)
    if described["kind"] != STREAM:
        raise BadInput(
            f"features.{name}.encoding: {block.encoding} is of the kind {described['kind']}; name one of the kind {STREAM}"
        )
    found = load_trained(model)
    longest, dim = 0, 0
    with new_directory(out, TABLES) as directory:
        for path in codec_files(encoded):
            shutil.copyfile(path, directory / path.name)
        for split in described["splits"]:
            for part in ("ids", "offsets"):
                shutil.copyfile(encoded / f"{split}.text.{part}.npy", directory / f"{split}.text.{part}.npy")
            lengths = np.diff(read_array(encoded / f"{split}.text.offsets.npy"))
            pixels = read_array(images / f"{split}_images.npy")
            _require_rows(f"features.{name}: {split}", lengths, pixels)
            vectors = features_of(
                found, scaled(torch.from_numpy(pixels.copy())), f"features.{name}.model: {block.model}"
            )
            np.save(directory / f"{split}.vector.npy", vectors.numpy())
            longest, dim = max(longest, int(lengths.max())), vectors.shape[1]
        # pictures of the report show these
        shutil.copyfile(images / "test_images.npy", directory / "test_images.npy")
        facts: dict[str, Any] = {key: value for key, value in described["facts"].items() if key != "time"}
        facts |= {
            "max_length": longest,
            "vector_dim": dim,
            "features_of": model.name,
            "features_sha256": sha256(model / WEIGHTS),
        }
        write_json(
            directory / "data.json", {"kind": "captions", "splits": described["splits"], "facts": facts}
        )
    print(f"wrote {out}: {dim} features of {block.model} a text")


def features_of(found: Trained, images: Tensor, where: str) -> Tensor:
    """The features of images, float32 [n, dim], of values in [0, 1], or their codes where the model has no features.

    Raises BadInput, begun with `where`, for a model that has neither, or that takes images of another size.
    """
    recipe = found.recipe
    shape, size = found.facts.get("image_shape"), tuple(images.shape[1:])
    if found.kind != "images" or shape is None or not isinstance(recipe, Embeds | Encodes):
        raise BadInput(f"{where} finds no features in images; take a classifier, or an autoencoder")
    if tuple(shape) != size:
        raise BadInput(
            f"{where} takes images of {tuple(shape)}, and these have {size}; take a model of images of that size"
        )
    given = [name for name in getattr(recipe, "given", ()) if not isinstance(recipe, Embeds)]
    if given:
        raise BadInput(f"{where} finds codes under {', '.join(given)} only; take a model without conditions")
    function = recipe.embed if isinstance(recipe, Embeds) else recipe.encode
    vectors = in_chunks(function, {"images": images}).float()
    if not bool(vectors.isfinite().all()):
        raise BadState(f"{where} finds features that are not finite; train it again")
    return vectors


def _require_rows(where: str, lengths: np.ndarray, images: np.ndarray) -> None:
    if len(lengths) != len(images):
        raise BadInput(
            f"{where}: {len(lengths):,} texts and {len(images):,} images; name the data set that the texts are of"
        )
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        raise BadInput(f"{where}: text {empty[0] + 1} has no token; take another tokenizer for its corpus")
