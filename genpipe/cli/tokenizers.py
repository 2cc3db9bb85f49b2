"""Files that define tokenizers: learnt from counts or from texts, or made of a lexicon."""

import argparse
from pathlib import Path

from genpipe.cli import corpus
from genpipe.cli.arguments import Commands, add_workers, new_file, positive
from genpipe.errors import BadInput
from genpipe.files import refuse_inputs

BYTE_PIECE = "byte_piece"
FROM_COUNTS = ("bpe", "wordpiece", "unigram")
OF_TEXTS = (
    "field",
    "whole_files",
    "errors",
    "shard_bytes",
    "min_count",
    "memory",
    "workers",
    "executor",
    "address",
)
EXPORTS = ("jieba", "unigram")  # written out, since to import what writes them takes a while; a test compares


def add(commands: Commands) -> None:
    """Add the command `tokenizer`."""
    tokenizer = commands.add_parser("tokenizer", help="make a tokenizer file")
    actions = tokenizer.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_train(actions)
    _add_export(actions)


def _add_train(actions: Commands) -> None:
    train = actions.add_parser(
        "train",
        help="learn pieces of words from counts, or pieces of bytes from texts",
        epilog="examples: genpipe tokenizer train --counts counts.parquet --kind bpe --size 8000 --out tokenizer.json; "
        "genpipe tokenizer train poems.jsonl --field paragraphs --kind byte_piece --size 8000 --out tokenizer.json",
    )
    train.add_argument(
        "names", nargs="*", metavar="FILE", help="for byte_piece: texts, as genpipe count takes them"
    )
    train.add_argument(
        "--counts", type=Path, metavar="FILE", help="what genpipe count wrote; not for byte_piece"
    )
    train.add_argument("--kind", required=True, choices=[*FROM_COUNTS, BYTE_PIECE])
    train.add_argument("--size", required=True, type=int, metavar="N", help="pieces, at most")
    train.add_argument("--out", required=True, type=new_file, metavar="FILE")
    train.add_argument(
        "--spaced", action="store_true", help="white space ends words and can be decoded (bpe, unigram)"
    )
    texts = train.add_argument_group("how texts are read, and where (byte_piece)")
    texts.add_argument("--field", help="field or column that holds the text; default: text")
    texts.add_argument("--whole-files", action="store_true", default=None, help="a .txt file is one document")
    texts.add_argument(
        "--errors",
        choices=["strict", "replace"],
        help="bytes that are no UTF-8: stop (default), or take U+FFFD",
    )
    texts.add_argument(
        "--shard-bytes", type=positive, metavar="N", help="size of a unit of work; default: 2 MiB"
    )
    texts.add_argument(
        "--min-count",
        type=positive,
        metavar="N",
        help="of n-grams of bytes; rarer ones end a piece; default: 2",
    )
    texts.add_argument(
        "--memory", type=positive, metavar="MB", help="for the counts of a worker; default: cluster.memory_mb"
    )
    add_workers(train)
    train.set_defaults(run=_train)


def _add_export(actions: Commands) -> None:
    export = actions.add_parser(
        "export",
        help="turn a lexicon into the file of another library",
        epilog="example: genpipe tokenizer export words.tsv --to jieba --out userdict.txt",
    )
    export.add_argument("lexicon", type=Path, metavar="LEXICON", help="word<TAB>count a line")
    export.add_argument(
        "--to",
        required=True,
        choices=EXPORTS,
        help="a user dictionary of jieba, or a Unigram file of Hugging Face tokenizers",
    )
    export.add_argument("--out", required=True, type=new_file, metavar="FILE")
    export.set_defaults(run=_export)


def _train(root: Path, arguments: argparse.Namespace) -> None:
    if arguments.kind == BYTE_PIECE:
        _train_on_texts(root, arguments)
    else:
        _train_on_counts(arguments)
    print(f"the tokenizer is in {arguments.out}")


def _train_on_counts(arguments: argparse.Namespace) -> None:
    kind = arguments.kind
    if arguments.names:
        raise BadInput(
            f"{arguments.names[0]}: --kind {kind} is learnt from counts, not from texts; "
            "count them first (genpipe count FILE --out COUNTS) and give --counts COUNTS"
        )
    if arguments.counts is None:
        raise BadInput(f"--kind {kind} needs --counts FILE; make it with: genpipe count FILE --out COUNTS")
    if unused := [name for name in OF_TEXTS if getattr(arguments, name) is not None]:
        raise BadInput(
            f"--{unused[0].replace('_', '-')}: only for --kind {BYTE_PIECE}, which reads texts; drop it"
        )
    from genpipe.corpus.training import train_tokenizer
    from genpipe.corpus.vocabulary import read_counts

    refuse_inputs(arguments.out, [arguments.counts])
    counts = read_counts(arguments.counts, "genpipe count FILE --out COUNTS")
    train_tokenizer(counts, kind, arguments.size, arguments.out, spaced=arguments.spaced)


def _train_on_texts(root: Path, arguments: argparse.Namespace) -> None:
    if arguments.counts is not None:
        raise BadInput(
            f"--counts: --kind {BYTE_PIECE} is learnt from texts, not from counts; name the files instead"
        )
    if arguments.spaced:
        raise BadInput(f"--spaced: --kind {BYTE_PIECE} keeps all white space anyway; drop it")
    if not arguments.names:
        raise BadInput(f"--kind {BYTE_PIECE} needs the files to learn from; name some, as for genpipe count")
    from genpipe.corpus.counts import scratch_of
    from genpipe.corpus.inputs import find_inputs
    from genpipe.discovery.byte_pieces import MIN_COUNT, SHARD_BYTES, train_byte_pieces

    cluster = corpus.cluster_of(root, arguments)
    corpus.clean_up_when_ended()
    inputs = find_inputs(
        arguments.names,
        field=arguments.field or "text",
        whole_files=bool(arguments.whole_files),
        errors=arguments.errors or "strict",
    )
    read = [path for item in inputs if (path := item.local_path)]
    refuse_inputs(arguments.out, [*map(Path, arguments.names), *read, root / "params.yaml"])
    train_byte_pieces(
        inputs,
        arguments.size,
        arguments.out,
        scratch=scratch_of(root),
        workers=cluster.workers,
        where=cluster.executor,
        memory=cluster.memory_mb << 20,
        shard_bytes=arguments.shard_bytes or SHARD_BYTES,
        min_count=arguments.min_count or MIN_COUNT,
    )


def _export(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.discovery.exports import export_lexicon

    refuse_inputs(arguments.out, [arguments.lexicon])
    export_lexicon(arguments.lexicon, arguments.to, arguments.out)
    print(f"the lexicon is in {arguments.out}")
