"""The English names of OpenMoji as text, beside the drawings that they name; rows and sides are those of the kind `emoji`.

So a model of pictures that was trained on `emoji` has seen no drawing of the test side, and tones of one emoji, like the man, the
woman and the person of one kind, are on one side. Of equal drawings the first one counts, with its name.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from genpipe.errors import BadInput
from genpipe.params.corpora import EmojiNames
from genpipe.sources.emoji import drawn_by, read_emoji
from genpipe.sources.examples import digests_of, write_examples
from genpipe.sources.jsonl import write_jsonl
from genpipe.sources.prepared import Prepared


def prepare_emoji_names(source: Path, directory: Path, dataset: EmojiNames) -> Prepared:
    """Write SPLIT.jsonl with text and group, and SPLIT_images.npy, uint8 [n, 3, size, size], in the same order."""
    found, records = read_emoji(source, dataset)
    names: dict[bytes, dict[str, str]] = {}
    for content, record in zip(found.digests(), records, strict=True):
        name = record.get("annotation")
        if not isinstance(name, str) or not name.strip():
            raise BadInput(f"{source}: {record['hexcode']}: 'annotation' must be a text; fix its line")
        names.setdefault(content, {"text": name, "group": record["group"]})
    left_out: Counter[str] = Counter()
    prepared = write_examples(source, directory, found, dataset.test_share, left_out, [drawn_by(dataset)])
    counts = {name: number for name, number in prepared.counts.items() if name.endswith("_images.npy")}
    for split in prepared.splits:
        (directory / f"{split}_labels.npy").unlink()
        images = np.load(directory / f"{split}_images.npy")
        with (directory / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            counts[f"{split}.jsonl"] = write_jsonl(file, (names[key] for key in digests_of(images)))
    facts = {"image_shape": prepared.facts["image_shape"]}
    return prepared._replace(facts=facts, counts=counts, classes=())
