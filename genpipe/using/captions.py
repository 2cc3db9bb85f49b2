"""Captions for a person's pictures: the features of the model that those of the training are from, and the text under them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from genpipe.assembly import Trained
from genpipe.errors import BadInput
from genpipe.features import features_of
from genpipe.files import WEIGHTS, sha256
from genpipe.using.inputs import read
from genpipe.using.making import drawn
from genpipe.using.model import HOW, Using, one_line, opened


def captions(using: Using, inputs: Sequence[str], how: Mapping[str, Any]) -> list[str]:
    """A caption for each file of a picture.

    `encoder` names the model that finds the features: one beside this one, or a directory; by default the one whose features the
    training had. BadInput where it is another one than that.
    """
    others = {key: value for key, value in how.items() if key != "encoder"}
    vectors = vectors_of(using, inputs, how.get("encoder", using.facts["features_of"]))
    made = drawn(using, len(inputs), 0, {"vector": vectors}, {"method": "beam", **others})
    return [one_line(using.text().decode(row)) for row in made["ids"].tolist()]


def vectors_of(using: Using, inputs: Sequence[str], encoder: Any) -> Tensor:
    """The features of pictures, float32 [n, vector_dim], by the model that this one was trained with."""
    name = str(encoder)
    directory = Path(name) if "/" in name else using.directory.parent / name
    if not (directory / WEIGHTS).is_file():
        raise BadInput(
            f"{HOW}encoder: {directory}: no trained model there; captions need the model {using.facts['features_of']} whose features "
            "they were trained on: put it beside this one, or name its directory"
        )
    if sha256(directory / WEIGHTS) != using.facts["features_sha256"]:
        raise BadInput(
            f"{HOW}encoder: {directory}: not the weights of {using.facts['features_of']} that the captions were trained on, so its "
            "features mean something else; name the directory of these"
        )
    found = opened(directory)
    images = read(found, inputs)["images"]
    return features_of(Trained(found.recipe, found.kind, found.facts), images, f"{HOW}encoder: {name}")
