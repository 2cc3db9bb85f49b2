"""Checkpoints of Hugging Face's BERT family, whose weights a training can begin with."""

from pathlib import Path

from genpipe.files import WEIGHTS, write_json
from genpipe.params.corpora import Checkpoint
from genpipe.sources.prepared import Prepared


def prepare_checkpoint(source: Path, directory: Path, dataset: Checkpoint) -> Prepared:
    """Write weights.safetensors by the names that recipes have, `bert.` before each, and vocabulary.json where tokens are known.

    Raises BadInput where the folder is no checkpoint of the family, or has pickled weights only.
    """
    from safetensors.torch import save

    from genpipe.bert_files import read_bert  # here: it needs torch, and the other data sets do not

    files = read_bert(source)
    tensors = {f"bert.{name}": value.contiguous().clone() for name, value in files.state.items()}
    (directory / WEIGHTS).write_bytes(save(tensors))  # save_file would keep all others from reading it
    if files.vocabulary:
        write_json(directory / "vocabulary.json", list(files.vocabulary))
    kept = ("dim", "num_blocks", "num_heads", "max_length", "hidden_dim", "activation")
    unused = {"tensor that the network has no place for": len(files.rest)}
    return Prepared((), {name: files.options[name] for name in kept}, {WEIGHTS: len(files.state)}, unused)
