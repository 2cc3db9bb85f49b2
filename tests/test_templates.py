"""Templates of sentences: counts, edges and paths beside enumerations of our own, and the same bytes however they are found."""

import itertools
import math
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genpipe.cli import main
from genpipe.corpus.counting import Counting
from genpipe.corpus.counts import counted
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.tokenizers import tokenizer
from genpipe.discovery.notation import escaped, escaped_column, parts_of, text_of
from genpipe.discovery.template_files import Settings, find_templates, read_about, read_grammar
from genpipe.discovery.templates import (
    CUT,
    LONGEST,
    SENTENCES,
    paths_in_turns,
    skip_grams,
    templates_of,
)
from genpipe.errors import BadInput, BadState

EVERYTHING = Settings(min_proba=0.0, min_pmi=-math.inf, min_count=1, window=2)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
documents = st.lists(st.text("abcX。\\", max_size=9), min_size=1, max_size=8)


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def find(path: Path, changed: Settings = EVERYTHING, name: str = "char", **options) -> Counter[str]:
    """The templates that are found in a file."""
    out = path.with_suffix(".parquet")
    given = {"memory": 1 << 28, "shard_bytes": 40, "workers": 0, "where": "local"} | options
    find_templates(
        find_inputs([str(path)]), tokenizer(name), changed, out, scratch=path.parent / "scratch", **given
    )
    return Counter(dict(pl.read_parquet(out).select("template", "count").iter_rows()))


def sentences_of(texts: list[str], most: int = LONGEST) -> list[list[str]]:
    """The characters of all sentences, by hand."""
    for mark in "。！？!?；;":
        texts = [part for text in texts for part in text.split(mark)]
    return [list(text[i : i + most]) for text in texts for i in range(0, len(text), most)]


def pairs_of(sentences: list[list[str]], window: int) -> Counter[tuple[str, str]]:
    return Counter(
        (a, b)
        for s in sentences
        for (i, a), (j, b) in itertools.combinations(enumerate(s), 2)
        if j - i <= window
    )


def templates_by_hand(sentences: list[list[str]], changed: Settings) -> Counter[str]:
    """Every subset of places is looked at: a maximal path steps along edges, and no edge leads to it or from it."""
    singles = Counter(word for sentence in sentences for word in sentence)
    pairs = pairs_of(sentences, changed.window)

    def strong(a: str, b: str) -> bool:
        share = pairs[a, b] / pairs.total()
        pmi = math.log(share * singles.total() ** 2 / (singles[a] * singles[b]))
        return share > changed.min_proba and pmi > changed.min_pmi

    found: Counter[str] = Counter()
    for sentence in sentences:
        places = range(len(sentence))
        edges = {
            (i, j)
            for i, j in itertools.combinations(places, 2)
            if j - i <= changed.window and strong(sentence[i], sentence[j])
        }
        for size in range(1, len(sentence) + 1):
            for path in itertools.combinations(places, size):
                is_open = any((i, path[0]) in edges or (path[-1], i) in edges for i in places)
                if not is_open and all(step in edges for step in itertools.pairwise(path)):
                    shown = [sentence[i] if i in path else None for i in places]
                    found[holes(shown)] += 1
    return Counter({text: count for text, count in found.items() if count >= changed.min_count})


def holes(shown: list[str | None]) -> str:
    """Placeholders in a row are one; equal words in a row stay."""
    kept = [part for i, part in enumerate(shown) if part is not None or i == 0 or shown[i - 1] is not None]
    return text_of(kept)


# notation


@settings(max_examples=300)
@given(
    st.lists(
        st.none() | words | st.sampled_from(["X", "\\", " ", "\\X", "\n", "\\s"]), min_size=1, max_size=5
    )
)
def test_a_template_can_be_read_back_from_its_text(parts):
    shown = holes(parts)
    if not any(parts):
        with pytest.raises(ValueError, match="has no word"):
            parts_of(shown)
        return
    assert list(parts_of(shown)) == [
        part for i, part in enumerate(parts) if part is not None or i == 0 or parts[i - 1] is not None
    ]
    assert not set("\n\t\r") & set(shown)


@given(st.lists(words | st.sampled_from(["X", "\\", "a b", "\t"])))
def test_a_column_of_words_is_written_as_single_words_are(column):
    frame = pl.DataFrame({"word": column}, schema={"word": pl.String})
    assert frame.select(escaped_column(pl.col("word"))).to_series().to_list() == list(map(escaped, column))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a  b", "two spaces"),
        ("X", "no word"),
        ("a X X", "two placeholders"),
        (r"a\q", "no escape"),
    ],
)
def test_a_text_that_is_no_template_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parts_of(text)


# counts and edges


@settings(max_examples=40)
@given(documents, st.integers(1, 4))
def test_words_and_pairs_are_counted_exactly(tmp_path, texts, window):
    path = write(tmp_path / "t.txt", texts)
    counting = Counting(skip_grams(tokenizer("char"), False, window), tmp_path / "scratch")
    with counted(
        find_inputs([str(path)]), counting, shard_bytes=9, workers=0, where="local", name="pairs"
    ) as counts:
        found = dict(counts.rows().collect().iter_rows())
    sentences = sentences_of(texts)
    singles = Counter(escaped(word) for sentence in sentences for word in sentence)
    pairs = {text_of(pair): count for pair, count in pairs_of(sentences, window).items()}
    assert found == {**singles, **pairs}


@settings(max_examples=60)
@given(
    documents,
    st.integers(1, 4),
    st.sampled_from([0.0, 0.05, 0.1]),
    st.sampled_from([-math.inf, 0.01, 0.3]),
    st.integers(1, 2),
)
def test_templates_are_those_of_an_enumeration(tmp_path, texts, window, min_proba, min_pmi, min_count):
    path = write(tmp_path / "t.txt", texts)
    changed = Settings(window=window, min_proba=min_proba, min_pmi=min_pmi, min_count=min_count)
    if not sentences_of(texts):
        with pytest.raises(BadInput, match="no word in the texts"):
            find(path, changed)
        return
    assert find(path, changed) == templates_by_hand(sentences_of(texts), changed)


def test_an_edge_needs_more_than_chance_and_more_than_a_share(tmp_path):
    path = write(tmp_path / "t.txt", ["ab"] * 8 + ["cd", "ca", "ad", "db", "bc"])
    pairs, singles = Counter({"ab": 8, "others": 5}), Counter(a=10, b=10, c=3, d=3)
    pmi = math.log(pairs["ab"] / 13 / (singles["a"] / 26 * singles["b"] / 26))
    below = find(path, Settings(min_proba=0.5, min_pmi=pmi - 1e-9, min_count=1))
    assert below["a b"] == 8
    assert (below["c X"], below["X d"]) == (2, 2), "one of thirteen pairs is less than half"
    above = find(path, Settings(min_proba=0.5, min_pmi=pmi + 1e-9, min_count=1))
    assert above["a b"] == 0
    assert above["a X"] == 9
    assert find(path, Settings(min_proba=8 / 13, min_pmi=0, min_count=1))["a b"] == 0


def test_with_a_window_of_one_templates_are_phrases(tmp_path):
    path = write(tmp_path / "t.txt", ["明月光", "明月光", "明月夜", "天上明月光"])
    found = find(path, Settings(window=1, min_proba=0.0, min_pmi=0.5, min_count=1))
    assert found["明 月 光"] == 2
    assert found["天 上 明 月 光"] + found["天 上 X"] == 1
    assert not [text for text in found if "X" in parts_of(text)[1:-1] or None in parts_of(text)[1:-1]]


def test_clauses_end_at_commas_and_quotes_and_sentences_do_not(tmp_path):
    path = write(tmp_path / "t.txt", ["甲，乙！「丙」"])
    apart = Settings(min_proba=0.9, min_count=1)
    assert find(path, apart) == Counter(["甲 X", "X ， X", "X 乙", "「 X", "X 丙 X", "X 」"])
    clauses = Settings(min_proba=0.9, min_count=1, clauses=True)
    assert find(path, clauses) == Counter(["甲", "乙", "丙"])
    english = write(tmp_path / "e.txt", ['the dog\'s tail, "it wags"'])
    assert find(english, clauses, "word") == Counter(["the X", "X dog's X", "X tail", "it X", "X wags"])


def test_a_sentence_is_cut_after_each_250_words(tmp_path):
    path = write(tmp_path / "t.txt", ["ab" * LONGEST])
    found = find(path, Settings(window=1, min_proba=0.0, min_pmi=-math.inf, min_count=1))
    assert found == Counter({" ".join("ab" * (LONGEST // 2)): 2})


# paths


@settings(max_examples=100)
@given(st.integers(1, 8), st.randoms(use_true_random=False))
def test_paths_come_in_turns_and_nearest_first(size, chosen):
    after = [[j for j in range(i + 1, size) if chosen.random() < 0.5] for i in range(size)]
    found = list(paths_in_turns(after))

    def paths(place: int) -> list[tuple[int, ...]]:
        return [(place, *rest) for j in after[place] for rest in paths(j)] or [(place,)]

    starts = [i for i in range(size) if not any(i in places for places in after)]
    turns = itertools.zip_longest(*(sorted(paths(start)) for start in starts))
    assert found == [path for turn in turns for path in turn if path is not None]


def test_a_sentence_with_exponentially_many_paths_costs_no_time_and_is_counted(tmp_path):
    dense = {"a": {"a"}}
    began = time.process_time()
    found, is_cut = templates_of(["a"] * LONGEST, dense, 5, 1000)
    assert time.process_time() - began < 5
    assert is_cut
    assert len(found) == 1000
    assert found[0] == " ".join(["a"] * LONGEST)
    assert templates_of(["a"] * 6, dense, 2, 8) == (templates_of(["a"] * 6, dense, 2, 9)[0], False), (
        "there are 8"
    )
    assert templates_of(["a"] * 6, dense, 2, 7)[1]
    path = write(tmp_path / "t.txt", ["a" * 60, "ab", "a" * 60])
    counts = find(path, Settings(min_proba=0.0, min_pmi=-1.0, min_count=1, max_paths=10))
    assert counts["a " * 59 + "a"] == 2
    assert counts.total() == 10 + 2 + 10
    assert read_about(tmp_path / "t.parquet")["cut"] == 2
    assert read_about(tmp_path / "t.parquet")["sentences"] == 3


def test_every_beginning_has_its_turn_before_a_dense_part_fills_the_limit():
    followers = {"a": {"a"}, "b": {"b"}}
    found, is_cut = templates_of([*"aaaaaaaaaa", "x", *"bbbbbbbbbb", "y"], followers, 5, 4)
    assert is_cut
    assert found[:2] == ["a a a a a a a a a a X", "X x X"]
    assert found[2].startswith("X b b")
    assert found[3] == "X y"


# the same bytes


def corpus(number: int) -> list[str]:
    chosen = random.Random(0)
    letters = "天地日月山水"
    return ["".join(chosen.choices(letters, range(1, 7), k=chosen.randint(0, 12))) for _ in range(number)]


def bytes_of(folder: Path, **options) -> tuple[bytes, bytes]:
    folder.mkdir()
    path = write(folder / "t.txt", corpus(400))
    find(path, Settings(min_proba=1e-4, min_pmi=0.05, min_count=1), **options)
    return (folder / "t.parquet").read_bytes(), (folder / "t.tsv").read_bytes()


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[bytes, bytes]:
    return bytes_of(tmp_path_factory.mktemp("reference") / "r", shard_bytes=1 << 20)


@pytest.mark.parametrize(
    "options",
    [
        {"shard_bytes": 300},
        {"shard_bytes": 5000, "memory": 1},
        {"workers": 1, "shard_bytes": 3000},
        {"workers": 2, "shard_bytes": 3000},
    ],
)
def test_bytes_depend_neither_on_workers_nor_on_shards_nor_on_memory(tmp_path, reference, options):
    assert bytes_of(tmp_path / "x", **options) == reference


@pytest.mark.ray
def test_ray_finds_the_same(reference, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as short:
        monkeypatch.setenv("RAY_TMPDIR", short)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        assert bytes_of(Path(short) / "x", workers=2, where="ray", shard_bytes=3000) == reference


def test_tables_are_ordered_by_count_and_then_by_text_and_the_tsv_is_the_parquet(reference, tmp_path):
    (tmp_path / "t.parquet").write_bytes(reference[0])
    table = pl.read_parquet(tmp_path / "t.parquet")
    rows = table.rows()
    assert rows == sorted(rows, key=lambda row: (-row[1], row[0].encode()))
    assert all(words == sum(part is not None for part in parts_of(text)) for text, _, words in rows)
    lines = reference[1].decode().splitlines()
    assert lines == ["template\tcount\twords", *("\t".join(map(str, row)) for row in rows)]
    (tmp_path / "t.tsv").write_bytes(reference[1])
    of_tsv, of_parquet = read_grammar(tmp_path / "t.tsv"), read_grammar(tmp_path / "t.parquet")
    assert of_tsv == of_parquet
    assert of_tsv.counts == dict(table.select("template", "count").iter_rows())


def test_a_sum_has_the_templates_that_cannot_match_too(reference, tmp_path):
    (tmp_path / "t.parquet").write_bytes(reference[0])
    whole, some = read_grammar(tmp_path / "t.parquet"), read_grammar(tmp_path / "t.parquet", {"天", "地"})
    assert some.total == whole.total == sum(whole.counts.values())
    assert some.counts == {t: n for t, n in whole.counts.items() if set(parts_of(t)) <= {"天", "地", None}}
    assert len(some.counts) > 3
    first = read_grammar(tmp_path / "t.parquet", top=5)
    assert first.counts == dict(list(whole.counts.items())[:5])
    assert first.total == sum(first.counts.values())


# bad input


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("X 吗\n", "line 1: must be template<TAB>count"),
        ("template\tcount\nX 吗\tmany\n", "line 2: must be template<TAB>count"),
        ("X 吗\t0\n", "line 1: must be template<TAB>count"),
        ("X X 吗\t3\n", "line 1: 'X X 吗': it has two placeholders in a row; fix the line"),
        ("X 吗\t3\nX 吗\t3\n", "line 2: 'X 吗' was there before; add its counts up on one line"),
        ("template\tcount\n", "no template in it"),
    ],
)
def test_a_line_that_is_no_template_is_named(tmp_path, text, line):
    path = tmp_path / "g.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as raised:
        read_grammar(path)
    assert str(raised.value).startswith(f"{path}: {line}")
    assert "\n" not in str(raised.value)


def test_a_file_that_has_no_templates_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(BadState, match="no such file or directory; make it first: genpipe templates"):
        read_grammar(path)
    pl.DataFrame({"template": ["a"], "count": [1]}).write_parquet(path)
    with pytest.raises(BadInput, match="not the Parquet file of genpipe templates"):
        read_about(path)
    path.write_bytes(b"no table")
    with pytest.raises(BadInput, match="not the Parquet file of genpipe templates"):
        read_grammar(path)
    (tmp_path / "g.tsv").write_bytes(b"X \xff\t3\n")
    with pytest.raises(BadInput, match="not valid UTF-8 at byte 2"):
        read_grammar(tmp_path / "g.tsv")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--window", "0"], "must be a number from 1 to 50, not '0'"),
        (["--min-proba", "1"], "must be a share from 0 up and below 1, not '1'"),
        (["--min-pmi", "nan"], "must be a number, not 'nan'"),
        (["--out", "t.tsv"], "must be the name of a Parquet file, as templates.parquet, not 't.tsv'"),
        (["--tokenizer", "char", "--field", "x", "--out", "text.parquet"], "text.parquet: this is the input"),
        (["--tokenizer", "no"], "no tokenizer 'no'"),
        (
            ["--tokenizer", "word"],
            "no word in the texts; name texts with words, or another field or tokenizer",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(tmp_path, monkeypatch, capsys, options, line):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.txt", ["，。"])
    pl.DataFrame({"x": ["a"]}).write_parquet(tmp_path / "text.parquet")
    before = sorted(tmp_path.iterdir())
    name = "text.parquet" if "--field" in options else "t.txt"
    try:
        status = main(["templates", name, *options])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert line in capsys.readouterr().err.splitlines()[-1]
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != ".genpipe"] == before


def test_the_command_writes_both_tables_and_prints_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.txt", ["可以吃吗。可以喝吗！可以说吗？"] * 3)
    settings = ["--min-proba", "0", "--min-pmi", "0.1", "--min-count", "3"]
    assert main(["templates", "t.txt", "--tokenizer", "char", "--workers", "0", *settings]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "9",
        "sentences,",
        "0",
        "of",
        "them",
        "with",
        "more",
        "than",
        "1,000",
        "paths",
    ]
    table = pl.read_parquet("templates.parquet")
    assert dict(table.select("template", "count").iter_rows()) == find(
        tmp_path / "t.txt", Settings(min_proba=0, min_pmi=0.1, min_count=3)
    )
    assert lines[-1] == "the templates are in templates.parquet and templates.tsv"
    assert read_about(Path("templates.parquet"))["min_pmi"] == 0.1
    assert not {SENTENCES, CUT} & set(table["template"])
