"""Templates of sentences, and trees by them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from genpipe.cli import corpus, texts
from genpipe.cli.arguments import Commands, add_workers, new_file, number, positive
from genpipe.errors import BadInput
from genpipe.files import new_file as written
from genpipe.files import refuse_inputs

if TYPE_CHECKING:
    from genpipe.corpus.tokenizers import Tokenizer


def add(commands: Commands) -> None:
    """Add the commands about templates."""
    _add_templates(commands)
    _add_parse(commands)


def _add_templates(commands: Commands) -> None:
    templates = commands.add_parser(
        "templates",
        help="find templates of sentences (X 的 X) by words that stand together, exactly",
        description="Find templates of sentences: words that stand together more often than chance has it, and placeholders "
        "X between them. Sentences end at 。！？!?；; and newlines. Writes Parquet, and a TSV beside it, by count.",
        epilog="The same bytes come out whatever --workers, --executor, --memory and --shard-bytes are. Example: "
        "genpipe templates data/poems/tang.jsonl --field paragraphs --workers 2 --out templates.parquet",
    )
    texts.add_names(templates)
    texts.add_reading(templates)
    texts.add_normalise(templates)
    texts.add_tokenizer(templates)
    _add_settings(templates)
    texts.add_memory(templates, "2 MiB, 16 MiB for the tokenizers char, word and whitespace")
    add_workers(templates)
    templates.add_argument(
        "--out",
        type=new_parquet,
        metavar="FILE",
        help="the Parquet file to write; default: templates.parquet",
    )
    templates.set_defaults(run=_templates)


def _add_settings(templates: argparse.ArgumentParser) -> None:
    """What a template is."""
    templates.add_argument(
        "--clauses",
        action="store_true",
        help="cut sentences at commas, quotes, brackets and all other marks too",
    )
    for option, kind, default, unit, text in (
        ("--window", window, 5, "N", "words that a pair reaches over, at most 50; 1 finds phrases"),
        (
            "--min-proba",
            share,
            1e-5,
            "P",
            "a pair's share of all pairs must be above; at most 1/P pairs are in memory",
        ),
        ("--min-pmi", number, 2.0, "NATS", "pointwise mutual information of a pair must be above"),
        ("--min-count", positive, 2, "N", "drop rarer templates, at the end"),
        ("--max-paths", positive, 1000, "N", "templates of a sentence, at most"),
    ):
        shown = f"{text}; default: {default:g}"
        templates.add_argument(option, type=kind, default=default, metavar=unit, help=shown)


def _add_parse(commands: Commands) -> None:
    parse = commands.add_parser(
        "parse",
        help="find the tree of a sentence by nested templates",
        description="Print the most probable nested templates of sentences, of at most 250 words each: brackets with the score "
        "in nats, then the tree. A text is cut into sentences and words as those were that the templates come from.",
        epilog="example: genpipe parse 鸡蛋可以吃吗 --templates templates.parquet --svg tree.svg",
    )
    parse.add_argument("sentences", nargs="+", metavar="SENTENCE")
    parse.add_argument(
        "--templates",
        required=True,
        type=Path,
        metavar="FILE",
        help="what genpipe templates wrote, or a .tsv of your own: template<TAB>count a line",
    )
    parse.add_argument("--top", type=positive, metavar="N", help="only the N most frequent templates")
    parse.add_argument(
        "--null-score",
        type=number,
        default=-20.0,
        metavar="NATS",
        help="for each word but the first of a span that no template matches; default: -20",
    )
    parse.add_argument("--tokenizer", metavar="NAME", help="default: that of the templates; jieba for a .tsv")
    parse.add_argument("--tokenizer-file", type=Path, metavar="FILE", help="what defines it")
    parse.add_argument("--svg", type=new_file, metavar="FILE", help="draw the tree of the one sentence")
    parse.set_defaults(run=_parse)


def new_parquet(text: str) -> Path:
    """A Parquet file to write; a TSV of the same name is written beside it."""
    if Path(text).suffix != ".parquet":
        raise argparse.ArgumentTypeError(
            f"must be the name of a Parquet file, as templates.parquet, not {text!r}"
        )
    new_file(str(Path(text).with_suffix(".tsv")))
    return new_file(text)


def window(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 50:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 50, not {text!r}")
    return int(text)


def share(text: str) -> float:
    value = number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a share from 0 up and below 1, not {text!r}")
    return value


def _templates(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.corpus.counts import scratch_of
    from genpipe.corpus.tokenizers import tokenizer
    from genpipe.discovery.template_files import Settings, find_templates, tsv_of

    cluster = corpus.cluster_of(root, arguments)
    corpus.clean_up_when_ended()
    file = arguments.tokenizer_file
    words = tokenizer(arguments.tokenizer, normalise=arguments.normalise, file=file)
    out = arguments.out or Path("templates.parquet")
    inputs = texts.read_inputs(root, arguments, [out, tsv_of(out)], [file])
    names = ("clauses", "window", "min_proba", "min_pmi", "min_count", "max_paths")
    found = find_templates(
        inputs,
        words,
        Settings(**{name: getattr(arguments, name) for name in names}),
        out,
        scratch=scratch_of(root),
        memory=cluster.memory_mb << 20,
        shard_bytes=arguments.shard_bytes,
        workers=cluster.workers,
        where=cluster.executor,
    )
    print(found)


def _parse(root: Path, arguments: argparse.Namespace) -> None:
    from genpipe.discovery.drawings import bracketed, drawn, indented
    from genpipe.discovery.notation import escaped
    from genpipe.discovery.template_files import read_about, read_grammar, sentences_of
    from genpipe.discovery.trees import Parser

    if arguments.svg:
        refuse_inputs(arguments.svg, [arguments.templates, *filter(None, [arguments.tokenizer_file])])
    about = read_about(arguments.templates)
    tokenizer = _tokenizer_of(arguments, about)
    clauses = about.get("clauses", False)
    sentences = [words for text in arguments.sentences for words in sentences_of(text, tokenizer, clauses)]
    if arguments.svg and len(sentences) != 1:
        raise BadInput(f"--svg {arguments.svg}: draws one sentence, not {len(sentences)}; give one")
    known = {escaped(word) for words in sentences for word in words}
    grammar = read_grammar(arguments.templates, known, arguments.top)
    parser = Parser(grammar.counts, total=grammar.total, null_score=arguments.null_score)
    trees = [parser.parse(words) for words in sentences]
    if arguments.svg:
        with written(arguments.svg) as partial:
            partial.write_text(drawn(trees[0]), encoding="utf-8")
    for tree in trees:
        print(f"{bracketed(tree, tokenizer.join)}  {tree.score:.2f}\n{indented(tree, tokenizer.join)}")


def _tokenizer_of(arguments: argparse.Namespace, about: dict) -> "Tokenizer":
    """The tokenizer that cut the words of the templates, or the one that is asked for."""
    from genpipe.corpus.tokenizers import tokenizer
    from genpipe.progress import tell

    name = arguments.tokenizer or about.get("tokenizer", "jieba")
    found = tokenizer(name, normalise=about.get("normalise", ()), file=arguments.tokenizer_file)
    if about and found.version != about["version"]:
        tell(
            f"genpipe: {arguments.templates}: its words were cut by {about['version']}, these by {found.version}"
        )
    return found
