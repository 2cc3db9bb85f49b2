"""A lexicon as files of jieba and of Hugging Face, beside the tokenizer that reads it here."""

import json
import random
from pathlib import Path

import jieba
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from genpipe import cli
from genpipe.cli import tokenizers as tokenizer_commands
from genpipe.corpus.lexicon import Lexicon
from genpipe.corpus.tokenizers import tokenizer
from genpipe.discovery import exports
from genpipe.discovery.exports import for_jieba, unigram_of

COUNTS = {
    "明月": 500,
    "月光": 300,
    "床前": 200,
    "前": 90,
    "明月光": 40,
    "T恤": 30,
    "的": 900,
    "ab": 20,
    "𠮷野家": 5,
    "，": 700,
}
characters = st.sampled_from("床前明月光的，恤𠮷野家鑫龘é😀")
lexicons = st.dictionaries(
    st.text(characters, min_size=1, max_size=4), st.integers(1, 50), min_size=1, max_size=12
)
han = st.sampled_from("床前明月光的一")
han_lexicons = st.dictionaries(
    st.text(han, min_size=1, max_size=4), st.integers(1, 50), min_size=1, max_size=12
)


def write(path: Path, counts: dict[str, int]) -> Path:
    path.write_text("".join(f"{word}\t{count}\n" for word, count in counts.items()), encoding="utf-8")
    return path


def export(path: Path, to: str, counts: dict[str, int] = COUNTS) -> Path:
    out = path / f"{to}.out"
    assert (
        cli.main(
            ["tokenizer", "export", str(write(path / "words.tsv", counts)), "--to", to, "--out", str(out)]
        )
        == 0
    )
    return out


def parts_of(model: tokenizers.Tokenizer, text: str) -> list[str]:
    return [text[start:end] for start, end in model.encode(text, add_special_tokens=False).offsets]


def scores_of(counts: dict[str, int], words: list[str]) -> float:
    scores = Lexicon(counts).scores()
    return sum(scores.get(word, min(0.0, Lexicon({"": sum(counts.values())})._unknown)) for word in words)


# Hugging Face


@pytest.fixture(scope="module")
def unigram(tmp_path_factory) -> Path:
    return export(tmp_path_factory.mktemp("unigram"), "unigram")


@settings(max_examples=400, deadline=None)
@given(text=st.text(st.sampled_from("床前明月光的，恤𠮷野家鑫龘é😀 \n\u3000\x1c\x85"), max_size=14))
def test_texts_without_letters_are_cut_as_here(unigram, text):
    model = tokenizers.Tokenizer.from_file(str(unigram))
    assert parts_of(model, text) == Lexicon(COUNTS).split(text)


@settings(max_examples=400, deadline=None)
@given(counts=lexicons, text=st.text(characters | st.sampled_from(" \n"), max_size=12))
def test_any_lexicon_gives_splits_of_the_same_score(counts, text):
    theirs, ours = parts_of(unigram_of(counts), text), Lexicon(counts).split(text)
    assert "".join(theirs) == "".join(ours)
    assert scores_of(counts, theirs) == pytest.approx(scores_of(counts, ours), abs=1e-9)
    if theirs != ours:  # a tie
        assert len(ours[first_difference(ours, theirs)]) > len(theirs[first_difference(ours, theirs)])


def first_difference(some: list[str], others: list[str]) -> int:
    return next(place for place, (one, other) in enumerate(zip(some, others, strict=False)) if one != other)


def test_ties_are_the_longer_last_word_there_and_the_longer_first_word_here():
    counts = {"明月": 2, "月光": 2, "明": 1, "光": 1}
    assert Lexicon(counts).split("明月光") == ["明月", "光"]
    assert parts_of(unigram_of(counts), "明月光") == ["明", "月光"]


@pytest.mark.parametrize(
    ("text", "here", "there"),
    [
        ("T恤", ["T恤"], ["T恤"]),
        ("穿T恤的", ["穿", "T恤", "的"], ["穿", "T恤", "的"]),
        ("ab ab", ["ab", "ab"], ["ab", "ab"]),
        ("xyz7的", ["xyz7", "的"], ["xyz7", "的"]),
        ("abc", ["abc"], ["ab", "c"]),  # the one difference: a run with a word of the lexicon in it
        ("HTML", ["HTML"], ["H", "T", "ML"]),
        ("鑫龘", ["鑫", "龘"], ["鑫", "龘"]),
    ],
)
def test_runs_of_letters(unigram, text, here, there):
    assert Lexicon(COUNTS).split(text) == here
    assert parts_of(tokenizers.Tokenizer.from_file(str(unigram)), text) == there


def test_white_space_is_pythons(unigram):
    model = tokenizers.Tokenizer.from_file(str(unigram))
    text = "明".join(
        chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and chr(code).isspace()
    )
    assert set(parts_of(model, text)) == {"明"}
    others = [
        chr(code) for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000 and not chr(code).isspace()
    ]
    some = "".join(random.Random(0).sample(others, 20_000))
    assert "".join(parts_of(model, some)) == some


def test_the_engine_takes_the_file_and_text_comes_back(unigram):
    cutter = tokenizer("unigram", file=unigram)
    assert cutter.split("床前明月光的，鑫") == ["床前", "明月光", "的", "，", exports.UNKNOWN]
    model = tokenizers.Tokenizer.from_file(str(unigram))
    assert model.decode(model.encode("床前 明月光").ids) == "床前明月光"


def test_scores_are_logarithms_of_shares(unigram):
    rows = dict(json.loads(unigram.read_text(encoding="utf-8"))["model"]["vocab"])
    scores = Lexicon(COUNTS).scores()
    assert {word: rows[word] for word in COUNTS} == pytest.approx(scores, abs=1e-12)
    assert set(rows) - set(COUNTS) == {exports.UNKNOWN, *"床明月光T恤𠮷野家"}  # parts of words


# jieba


def jieba_of(path: Path) -> jieba.Tokenizer:
    jieba.setLogLevel(60)
    made = jieba.Tokenizer(dictionary=str(path))
    made.tmp_dir = str(path.parent)  # pyright: ignore[reportAttributeAccessIssue]; its cache is of no use to others
    return made


@settings(max_examples=60, deadline=None)
@given(counts=han_lexicons, text=st.text(han, max_size=14))
def test_jieba_cuts_as_here_with_it_alone(tmp_path_factory, counts, text):
    path = tmp_path_factory.mktemp("jieba") / "dictionary.txt"
    path.write_bytes(for_jieba(counts).encode())
    assert jieba_of(path).lcut(text, HMM=False) == Lexicon(counts).split(text)


def test_words_come_back_from_jiebas_own_dictionary_with_them(tmp_path):
    words = {"床明鑫": 3, "龙鱻": 2000, "野鑫家": 1, "鑫ab": 5, "𠮷野": 9, "床，": 9}
    own = jieba.Tokenizer()
    own.tmp_dir = str(tmp_path)  # pyright: ignore[reportAttributeAccessIssue]
    jieba.setLogLevel(60)
    joined = "的".join(words)
    assert not set(words) & set(own.lcut(joined, HMM=False))
    own.load_userdict(str(export(tmp_path, "jieba", words)))
    assert set(words) & set(own.lcut(joined, HMM=False)) == {"床明鑫", "龙鱻", "野鑫家", "鑫ab"}
    assert own.FREQ["龙鱻"] == 2000


def test_the_dictionary_is_word_space_count_the_most_frequent_first(tmp_path):
    lines = export(tmp_path, "jieba").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["的 900", "， 700", "明月 500"]
    assert dict(line.split(" ") for line in lines) == {word: str(count) for word, count in COUNTS.items()}


# the command


def test_the_command_knows_all_formats():
    assert sorted(exports.EXPORTS) == sorted(tokenizer_commands.EXPORTS)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a b\t3\n", "line 1: must be word<TAB>count"),
        ("明\t1\n明\t2\n".encode(), "line 2: '明' was there before"),
        (b"\xff\t1\n", "not valid UTF-8 at byte 0"),
        ("明\t1\n\ufeff月\t1\n".encode(), "begins with U+FEFF"),
        (b"", "line 1: must be word<TAB>count"),
        (None, "no such file"),
    ],
)
def test_bad_lexicons_are_one_line(tmp_path, capsys, content, line):
    if content is not None:
        (tmp_path / "words.tsv").write_bytes(content)
    words = [
        "tokenizer",
        "export",
        str(tmp_path / "words.tsv"),
        "--to",
        "jieba",
        "--out",
        str(tmp_path / "out.txt"),
    ]
    assert cli.main(words) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert line in errors[0]
    assert not (tmp_path / "out.txt").exists()
