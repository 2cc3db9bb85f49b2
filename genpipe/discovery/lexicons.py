"""Folders of found words: of the files that a command names, and of a data set that params.yaml names."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from genpipe import files as file_tools
from genpipe.corpus.counts import files_of, scratch_of
from genpipe.corpus.inputs import Input, find_inputs
from genpipe.discovery import showing, words
from genpipe.discovery.words import Place, Settings

if TYPE_CHECKING:  # Pydantic takes a while to import
    from genpipe.params.cluster import Cluster
    from genpipe.params.lexicons import Lexicon

TYPICAL = 40  # words that are shown


def write_lexicon(
    inputs: Sequence[Input],
    settings: Settings,
    place: Place,
    out: Path,
    *,
    known: Path | None,
    beside: Path | None,
    examples: int,
    name: str = "discover",
) -> None:
    """Find the words of some texts, write the folder `out`, whole or not at all, and print the most frequent ones.

    `known`: a file with a word a line, for precision and recall. `beside`: the folder of another text, for the words that are typical of this one.
    """
    known_words = showing.read_known(known) if known else None
    other = showing.read_table(beside) if beside else None
    found = words.discover(inputs, settings, place, name)
    scores = {} if known_words is None else showing.scores_against(found, known_words)
    typical = [] if other is None else showing.typical(found, other, TYPICAL)
    contexts = showing.in_context(inputs, found, settings, examples)
    showing.write(out, found, contexts, scores, typical)
    print(showing.summary(found))
    for score, value in scores.items():
        print(f"{100 * value:>11.1f}% {score} against {known}")
    if typical:
        print(f"typical beside {beside}: {' '.join(typical)}")
    print(f"the words are in {out}")


def discover_dataset(root: Path, name: str, block: "Lexicon", cluster: "Cluster") -> None:
    """Write artifacts/lexicons/NAME: the words of a data set, as the block says."""
    artifacts = root / "artifacts"
    out = artifacts / "lexicons" / name
    dataset = artifacts / "datasets" / block.dataset
    files = files_of(dataset, block.files, f"lexicons.{name}")
    known = root / block.known_file if block.known_file else None
    beside = artifacts / "lexicons" / block.other if block.other else None
    if beside:
        file_tools.existing(beside, f"make it first: genpipe discover --lexicon {block.other}")
    file_tools.require_ours(out, showing.FILES)
    file_tools.refuse_inputs(out, [dataset, *filter(None, (known, beside))])
    settings = Settings(**{each.name: getattr(block, each.name) for each in fields(Settings)})
    where = cluster.executor_of(f"discover@{name}")
    write_lexicon(
        find_inputs(files, field=block.field),
        settings,
        Place(scratch_of(root), cluster.workers, where, cluster.memory_mb << 20, block.shard_bytes),
        out,
        known=known,
        beside=beside,
        examples=block.examples,
        name=f"discover {name}",
    )
