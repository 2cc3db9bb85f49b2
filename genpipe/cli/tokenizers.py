"""Files that define tokenizers: learnt from counts or from texts, or made of a lexicon."""

import argparse
from pathlib import Path

from genpipe.cli import corpus, texts
from genpipe.cli.arguments import Commands, add_workers, new_file, positive
from genpipe.errors import BadInput
from genpipe.files import refuse_inputs

BYTE_PIECE = "byte_piece"
FROM_COUNTS = ("bpe", "wordpiece", "unigram")
OF_TEXTS = (*texts.READING, "shard_bytes", "min_count", "memory", "workers", "executor", "address")
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
    texts.add_names(train, "*")
    train.add_argument(
        "--counts", type=Path, metavar="FILE", help="what genpipe count wrote; not for byte_piece"
    )
    train.add_argument("--kind", required=True, choices=[*FROM_COUNTS, BYTE_PIECE])
    train.add_argument("--size", required=True, type=int, metavar="N", help="pieces, at most")
    train.add_argument("--out", required=True, type=new_file, metavar="FILE")
    train.add_argument(
        "--spaced", action="store_true", help="white space ends words and can be decoded (bpe, unigram)"
    )
    of_texts = train.add_argument_group("how texts are read, and where (byte_piece)")
    texts.add_reading(of_texts)
    texts.add_memory(of_texts, "2 MiB")
    of_texts.add_argument(
        "--min-count",
        type=positive,
        metavar="N",
        help="of n-grams of bytes; rarer ones end a piece; default: 2",
    )
    add_workers(train)
    train.set_defaults(run=_train, default=train.get_default)


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
    for option in texts.given(arguments, OF_TEXTS, arguments.default):
        raise BadInput(f"{option}: only for --kind {BYTE_PIECE}, which reads texts; drop it")
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
    from genpipe.discovery.byte_pieces import MIN_COUNT, SHARD_BYTES, train_byte_pieces

    cluster = corpus.cluster_of(root, arguments)
    corpus.clean_up_when_ended()
    inputs = texts.read_inputs(root, arguments, [arguments.out])
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
