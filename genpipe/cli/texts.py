"""Texts on the command line: which ones, how they are read, and with how much memory; the same for all commands about text."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genpipe.cli.arguments import Arguments, positive
from genpipe.files import refuse_inputs

if TYPE_CHECKING:
    from genpipe.corpus.inputs import Input

# written out, since genpipe.params takes a while to import; a test compares
TOKENIZERS = "jieba, jieba_python, char, word, whitespace, bpe, wordpiece, unigram, lexicon, tagged"
NORMALISATION = "nfc, nfkc, full_width, lower, casefold, simplified"

READING = ("field", "whole_files", "errors")  # options of add_reading


def add_names(command: Arguments, nargs: str = "+") -> None:
    command.add_argument(
        "names",
        nargs=nargs,
        metavar="NAME",
        help="a file: .txt (a document a line), .jsonl, either with .gz or .zst, or .parquet; a quoted pattern (*.txt, 0[0-4].jsonl, {train,test}.jsonl), "
        "a folder, a URL, a data set that save_to_disk wrote, or hf://NAME:SPLIT",
    )


def add_reading(command: Arguments) -> None:
    command.add_argument("--field", default="text", help="field or column that holds the text; default: text")
    command.add_argument("--whole-files", action="store_true", help="a .txt file is one document")
    command.add_argument(
        "--errors",
        default="strict",
        choices=["strict", "replace"],
        help="bytes that are no UTF-8: stop (strict, the default), or take them as U+FFFD and say how many",
    )


def add_normalise(command: Arguments) -> None:
    command.add_argument(
        "--normalise",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="STEPS",
        help=f"before anything else, in order, for example nfkc,lower; some of {NORMALISATION}",
    )


def add_tokenizer(command: Arguments) -> None:
    command.add_argument(
        "--tokenizer", default="jieba", metavar="NAME", help=f"one of {TOKENIZERS}; default: jieba"
    )
    command.add_argument(
        "--tokenizer-file",
        type=Path,
        metavar="FILE",
        help="what defines it: a Hugging Face file, word<TAB>count a line (lexicon), or the folder of a trained crf_tagger (tagged)",
    )


def add_memory(command: Arguments, shard_bytes: str) -> None:
    """`shard_bytes`: the default of a unit of work, in words."""
    command.add_argument(
        "--shard-bytes", type=positive, metavar="N", help=f"size of a unit of work; default: {shard_bytes}"
    )
    command.add_argument(
        "--memory", type=positive, metavar="MB", help="for the counts of a worker; default: cluster.memory_mb"
    )


def given(arguments: argparse.Namespace, names: Iterable[str], default: Callable[[str], object]) -> list[str]:
    """Those options of `names` that are not at their default, as they are written."""
    return [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name) != default(name)]


def read_inputs(
    root: Path, arguments: argparse.Namespace, outs: Sequence[Path], others: Sequence[Path | None] = ()
) -> "list[Input]":
    """The texts; BadInput where writing one of `outs` would change them, one of `others`, or params.yaml."""
    from genpipe.corpus.inputs import find_inputs

    inputs = find_inputs(
        arguments.names, field=arguments.field, whole_files=arguments.whole_files, errors=arguments.errors
    )
    read = [path for item in inputs if (path := item.local_path)]
    files = [*map(Path, arguments.names), *read, root / "params.yaml", *filter(None, others)]
    for out in outs:
        refuse_inputs(out, files)
    return inputs
