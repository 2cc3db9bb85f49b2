"""Small recipes, one for each kind of data: a file of this folder, a row here, and blocks of params.yaml beside it.

That is all a person writes to add a model. `registered` puts them into the list of recipes of the process of a test; in
`tests.reference.project` they are in a project of their own, beside those of genpipe.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from genpipe import yaml_text
from genpipe.models import RECIPES
from genpipe.recipe import Recipe
from tests.reference.conditional_vae import ConditionalVAE
from tests.reference.plane_flow import PlaneFlow
from tests.reference.reader import Reader
from tests.reference.relaxation import Relaxation
from tests.reference.sentences import Sentences
from tests.reference.stream_model import StreamModel
from tests.reference.tagger import Tagger
from tests.reference.translator import Translator

HERE = Path(__file__).parent
PARAMS: Mapping[str, Any] = yaml_text.read(HERE / "params.yaml")


class Row(NamedTuple):
    """A recipe, the kind of its data, and what it writes: its first panel, and a metric."""

    make: type[Recipe]
    kind: str
    panel: str
    metric: str


REFERENCE = {
    "conditional_vae": Row(ConditionalVAE, "images", "grid.png", "reconstruction_mse"),
    "plane_flow": Row(PlaneFlow, "points", "points.tsv", "nats_per_point"),
    "stream_model": Row(StreamModel, "stream", "texts.txt", "nats_per_token"),
    "translator": Row(Translator, "pairs", "texts.txt", "nats_per_token"),
    "reader": Row(Reader, "passages", "texts.txt", "exact_match"),
    "sentences": Row(Sentences, "groups", "neighbours.tsv", "unseen.top_1"),
    "tagger": Row(Tagger, "tagged", "tags.tsv", "tag_accuracy"),
    "relaxation": Row(Relaxation, "trajectory", "trajectories.tsv", "later.trajectory_error"),
}


def block(name: str) -> dict[str, Any]:
    """A recipe as tests/tiny.py says it."""
    written = PARAMS["recipes"][name]
    how = written["sample"].get("how", {})
    return {"network": {}, **written["train"], "kind": REFERENCE[name].kind, "how": how}


@pytest.fixture
def registered(monkeypatch):
    """The reference recipes beside those of genpipe, until the test ends."""
    for name, row in REFERENCE.items():
        monkeypatch.setitem(RECIPES, name, row.make)
