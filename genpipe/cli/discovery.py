"""Words without labels: found in text, and text cut into them."""

import argparse
import sys
from pathlib import Path

from genpipe.cli import corpus, texts
from genpipe.cli.arguments import Commands, add_workers, not_negative, number, positive
from genpipe.errors import BadInput
from genpipe.files import require_ours

# written out, since genpipe.discovery takes a while to import; a test compares
METHODS = ("combined", "solidity", "entropy")
UNITS = ("runs", "characters")
FILES = ("lexicon.tsv", "words.parquet", "words.tsv", "typical.tsv", "statistics.json")
OF_METHODS = {  # options that only some methods take
    "order": ("combined", "solidity"),
    "thresholds": ("combined", "solidity"),
    "strict": ("combined", "solidity"),
    "freedom": ("combined",),
    "min_proba": ("entropy",),
    "min_pmi": ("entropy",),
}

NOT_OF_A_BLOCK = (  # what `genpipe discover` has no use for where params.yaml says how words are found
    *texts.READING, "normalise", "method", "units", "min_count", *OF_METHODS, "against", "beside", "examples", "shard_bytes", "out",
)  # fmt: skip


def add(commands: Commands) -> None:
    """Add the commands about words without labels."""
    _add_discover(commands)
    _add_segment(commands)


def _add_discover(commands: Commands) -> None:
    discover = commands.add_parser(
        "discover",
        help="find the words of a text without labels, exactly",
        description="Find words by how much more often their units stand together than chance has it. A unit is a character, or a run of letters and "
        "digits of a script with spaces. Writes a folder: lexicon.tsv cuts text into words (genpipe segment, or --tokenizer lexicon), words.tsv and "
        "words.parquet hold the words of two units and more with the evidence, in nats, and examples in context.",
        epilog="The same bytes come out whatever --workers, --executor, --memory and --shard-bytes are; text that was counted before is not counted again. "
        "Example: genpipe discover data/poems/tang.jsonl --field paragraphs --out words",
    )
    texts.add_names(discover, "*")
    discover.add_argument(
        "--lexicon",
        dest="block",
        metavar="NAME",
        help="a block of lexicons in params.yaml instead of files; writes artifacts/lexicons/NAME",
    )
    texts.add_reading(discover)
    texts.add_normalise(discover)
    _add_settings(discover)
    discover.add_argument(
        "--against", type=Path, metavar="FILE", help="a lexicon, a word a line: print precision and recall"
    )
    discover.add_argument(
        "--beside",
        type=Path,
        metavar="FOLDER",
        help="what genpipe discover wrote of another text: print the words that are typical of this one",
    )
    discover.add_argument(
        "--examples",
        type=not_negative,
        default=3,
        metavar="N",
        help="places of a frequent word in context; default: 3",
    )
    texts.add_memory(discover, "8 MiB")
    add_workers(discover)
    discover.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="the folder to write; default: words",
    )
    discover.set_defaults(run=_discover, default=discover.get_default)


def _add_settings(discover: argparse.ArgumentParser) -> None:
    """What a word is."""
    discover.add_argument(
        "--method",
        choices=METHODS,
        default="combined",
        help="solidity: n-grams that are far more frequent than their parts explain; entropy: pairs by minimum entropy; combined (default): solidity, "
        "counted again by how free the ends of words are",
    )
    discover.add_argument(
        "--units",
        choices=UNITS,
        default="runs",
        help="characters: letters are units too, for Latin text without spaces",
    )
    discover.add_argument(
        "--order",
        type=_order,
        metavar="N",
        help="longest n-gram, 2 to 6; default: 4; longer words are found by those inside them",
    )
    discover.add_argument(
        "--min-count",
        type=positive,
        default=5,
        metavar="N",
        help="rarer words are left out, at the end; default: 5",
    )
    discover.add_argument(
        "--thresholds",
        type=_numbers,
        metavar="NATS",
        help="for n-grams of 2, 3, … units, for example 2,4,6 (default of solidity; of combined 1,4.5,8; of letters 0,0.5,1)",
    )
    discover.add_argument(
        "--strict",
        action="store_true",
        default=None,
        help="all parts of three units and more of a word must be solid",
    )
    discover.add_argument(
        "--freedom",
        type=_nats,
        metavar="NATS",
        help="weight of free ends, for each unit of a word; default: 0.75",
    )
    discover.add_argument(
        "--min-proba", type=_nats, metavar="P", help="share of all pairs, and of all words; default: 1e-5"
    )
    discover.add_argument(
        "--min-pmi", type=_nats, metavar="NATS", help="mutual information of a pair; default: 1"
    )


def _add_segment(commands: Commands) -> None:
    segment = commands.add_parser(
        "segment",
        help="cut text into the words of a lexicon",
        description="Print each text with spaces between its words: the most probable ones of a lexicon (Viterbi). Without TEXT, the lines of standard input.",
        epilog="example: genpipe segment 中共中央总书记发表新年讲话 --lexicon words",
    )
    segment.add_argument("texts", nargs="*", metavar="TEXT", help="texts; none: lines of standard input")
    segment.add_argument(
        "--lexicon",
        type=Path,
        required=True,
        metavar="FILE",
        help="word<TAB>count a line, or the folder that genpipe discover wrote, whose units and normalisation are then used",
    )
    segment.set_defaults(run=_segment)


def _discover(root: Path, arguments: argparse.Namespace) -> None:
    if bool(arguments.block) == bool(arguments.names):
        raise BadInput("discover needs either files or --lexicon NAME; see genpipe discover --help")
    corpus.clean_up_when_ended()
    if not arguments.block:
        _discover_files(root, arguments)
        return
    from genpipe.discovery.lexicons import discover_dataset
    from genpipe.params.project import read_params

    for option in texts.given(arguments, NOT_OF_A_BLOCK, arguments.default):
        raise BadInput(
            f"{option}: not valid beside --lexicon {arguments.block}, whose block in params.yaml says how words are found; "
            "change it there, or name files"
        )
    block = read_params(root).named("lexicons", arguments.block)
    discover_dataset(root, arguments.block, block, corpus.cluster_of(root, arguments))


def _discover_files(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.corpus.counts import scratch_of
    from genpipe.corpus.normalisation import normaliser
    from genpipe.discovery.lexicons import write_lexicon
    from genpipe.discovery.words import USUAL_SHARD, Place

    settings = _settings(arguments)
    normaliser(settings.normalise)
    cluster = corpus.cluster_of(root, arguments)
    out = arguments.out or Path("words")
    require_ours(out, FILES)
    inputs = texts.read_inputs(root, arguments, [out], [arguments.against, arguments.beside])
    place = Place(
        scratch_of(root),
        cluster.workers,
        cluster.executor,
        cluster.memory_mb << 20,
        arguments.shard_bytes or USUAL_SHARD,
    )
    write_lexicon(
        inputs,
        settings,
        place,
        out,
        known=arguments.against,
        beside=arguments.beside,
        examples=arguments.examples,
    )


def _settings(arguments: argparse.Namespace):
    from genpipe.discovery.words import Settings

    given = {name: getattr(arguments, name) for name in OF_METHODS if getattr(arguments, name) is not None}
    for name in given:
        if arguments.method not in OF_METHODS[name]:
            raise BadInput(
                f"--{name.replace('_', '-')}: of use with --method {' or '.join(OF_METHODS[name])}, not with {arguments.method}; leave it out"
            )
    return Settings(
        method=arguments.method,
        units=arguments.units,
        normalise=arguments.normalise,
        min_count=arguments.min_count,
        **given,
    )


def _segment(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.discovery.showing import cutter_of

    cuts = cutter_of(arguments.lexicon)
    for text in arguments.texts or (line.rstrip("\n") for line in sys.stdin):
        print(" ".join(cuts.split(text)))


def _order(text: str) -> int:
    if text not in ("2", "3", "4", "5", "6"):
        raise argparse.ArgumentTypeError(f"must be a number from 2 to 6, not {text!r}")
    return int(text)


def _nats(text: str) -> float:
    value = number(text)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more, not {text!r}")
    return value


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(_nats, text.split(",")))
