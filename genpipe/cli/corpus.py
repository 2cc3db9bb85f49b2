"""What is made of text: counts, vocabularies, token ids."""

import argparse
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from genpipe.cli import texts, using
from genpipe.cli.arguments import Commands, add_workers, is_of_model, new_file, orders, positive
from genpipe.errors import BadInput

if TYPE_CHECKING:
    from genpipe.params.cluster import Cluster

NOT_OF_A_CORPUS = (  # what `genpipe count` has no use for where params.yaml says how a corpus is counted
    *texts.READING, "normalise", "tokenizer", "tokenizer_file", "ngrams", "document_frequency",
    "min_count", "top", "shard_bytes", "out",
)  # fmt: skip


def add(commands: Commands) -> None:
    """Add the commands about text."""
    for add_some in (_add_count, _add_text):
        add_some(commands)


def _add_count(commands: Commands) -> None:
    """Counting words."""
    count = commands.add_parser(
        "count",
        help="tokenize and count words on parallel workers, exactly",
        epilog="The same bytes come out whatever --workers, --executor, --memory and --shard-bytes are. Example: "
        "genpipe count data/poems/tang.jsonl --field paragraphs --tokenizer jieba --workers 2 --out counts.parquet",
    )
    texts.add_names(count, "*")
    count.add_argument("--corpus", help="count a corpus of params.yaml instead of files")
    texts.add_reading(count)
    texts.add_normalise(count)
    texts.add_tokenizer(count)
    _add_counting(count)
    count.set_defaults(run=_count, default=count.get_default)


def _add_counting(count: argparse.ArgumentParser) -> None:
    """What is counted, how, and where to."""
    count.add_argument(
        "--ngrams",
        type=orders,
        default=(1,),
        metavar="ORDERS",
        help="for example 1,2,3 (at most 6): tokens in a row, joined by a space; default: 1",
    )
    count.add_argument(
        "--document-frequency", action="store_true", help="a column with the documents that a token is in"
    )
    count.add_argument(
        "--min-count", type=positive, default=1, metavar="N", help="drop rarer ones, at the end"
    )
    count.add_argument("--top", type=positive, metavar="N", help="keep the N most frequent, at the end")
    texts.add_memory(count, "2 MiB, 16 MiB for the tokenizers char, word and whitespace")
    add_workers(count)
    count.add_argument(
        "--out", type=new_file, metavar="FILE", help="the Parquet file to write; default: counts.parquet"
    )


def _add_text(commands: Commands) -> None:
    """What follows the counts: vocabularies, token ids."""
    vocabulary = commands.add_parser("vocabulary", help="make the vocabulary of a counted corpus")
    vocabulary.add_argument("corpus")
    vocabulary.set_defaults(run=_vocabulary)

    encode = commands.add_parser(
        "encode",
        help="turn a data set of text into token ids, or inputs into codes of a trained model",
        description="Turn a data set of text into memory-mapped token ids, as encodings in params.yaml says; or print the codes or "
        "features that a trained model finds for inputs, a line each: its name and its numbers, with tabs between them.",
        epilog="examples: genpipe encode couplets; genpipe encode ogan three.png seven.png > codes.tsv",
    )
    encode.add_argument(
        "encoding",
        metavar="ENCODING|MODEL",
        help=f"an encoding of params.yaml, or, before INPUT, {using.MODEL}",
    )
    using.add_encode(encode)
    add_workers(encode)
    encode.set_defaults(run=_encode)


def _count(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.corpus import counts
    from genpipe.corpus.counting import Counting
    from genpipe.corpus.tokenizers import tokenizer

    if bool(arguments.corpus) == bool(arguments.names):
        raise BadInput("count needs either files or --corpus NAME; see genpipe count --help")
    cluster = cluster_of(root, arguments)
    clean_up_when_ended()
    if arguments.corpus:
        from genpipe.params.project import read_params

        _refuse_beside_corpus(arguments)
        corpus = read_params(root).named("corpora", arguments.corpus)
        counts.count_corpus(root, arguments.corpus, corpus, cluster)
        return
    name, steps, file = arguments.tokenizer, arguments.normalise, arguments.tokenizer_file
    what = Counting(
        tokenizer(name, normalise=steps, file=file),
        counts.scratch_of(root),
        orders=arguments.ngrams,
        document_frequency=arguments.document_frequency,
        min_count=arguments.min_count,
        memory=cluster.memory_mb << 20,
    )
    out = arguments.out or Path("counts.parquet")
    inputs = texts.read_inputs(root, arguments, [out], [file])
    counts.count_inputs(
        inputs,
        what,
        shard_bytes=arguments.shard_bytes or what.usual_shard,
        workers=cluster.workers,
        where=cluster.executor,
        out=out,
        top=arguments.top,
    )


def _refuse_beside_corpus(arguments: argparse.Namespace) -> None:
    """What is counted of a corpus, and how, stands in params.yaml."""
    for option in texts.given(arguments, NOT_OF_A_CORPUS, arguments.default):
        raise BadInput(
            f"{option}: not valid beside --corpus {arguments.corpus}, whose block in params.yaml "
            "says how it is counted; change it there, or name files"
        )


def clean_up_when_ended() -> None:
    """Let SIGTERM end the command as Ctrl-C does: workers are dismissed, scratch is removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def cluster_of(root: Path, arguments: argparse.Namespace) -> "Cluster":
    """Where to work: as params.yaml says, where there is one, and as the command line says."""
    from genpipe.params.cluster import Cluster

    cluster = Cluster.model_validate({})
    if (root / "params.yaml").exists():
        from genpipe.params.project import read_params  # a third of the start of a count

        cluster = read_params(root).cluster.as_allotted()
    if arguments.address:
        os.environ["RAY_ADDRESS"] = arguments.address
    given = {
        "workers": arguments.workers,
        "executor": arguments.executor,
        "memory_mb": getattr(arguments, "memory", None),
    }
    if arguments.executor:
        given["executors"] = {}
    return cluster.model_copy(update={key: value for key, value in given.items() if value is not None})


def _vocabulary(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.corpus.vocabulary import build_vocabulary
    from genpipe.params.project import read_params

    build_vocabulary(root, arguments.corpus, read_params(root).named("corpora", arguments.corpus))


def _encode(root: Path, arguments: argparse.Namespace) -> None:
    if is_of_model(arguments):
        using.encode(root, arguments)
        return
    from genpipe.corpus.encoding import encode
    from genpipe.params.project import read_params

    params = read_params(root)
    if arguments.encoding in params.recipes and arguments.encoding not in params.encodings:
        using.encode(root, arguments)  # says which inputs are missing
        return
    encoding = params.named("encodings", arguments.encoding)
    corpus = params.named("corpora", encoding.corpus)
    clean_up_when_ended()
    encode(root, arguments.encoding, encoding, corpus, cluster_of(root, arguments))
