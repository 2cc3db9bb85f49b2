"""Tokenizers by name, the normalisation before them, and the training of those that a file defines."""

import itertools
import json
import math
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jieba
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rjieba
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save
from tokenizers import models, pre_tokenizers, trainers

from genpipe import cli
from genpipe.corpus import chinese, hidden_markov, training
from genpipe.corpus.chinese import split_chinese
from genpipe.corpus.lexicon import Lexicon
from genpipe.corpus.normalisation import normalisation_version, normaliser
from genpipe.corpus.tokenizers import DEFINED, NAMES, corpus_tokenizer, tokenizer
from genpipe.errors import BadInput
from genpipe.files import write_json
from genpipe.models.crf_tagger import CRFTagger
from genpipe.params.corpora import NO_FILE, Corpus
from genpipe.params.tokenizers import NormalisationStep

CHINESE = ["床前明月光，疑是地上霜。", "舉頭望明月，低頭思故鄉。", "明月幾時有，把酒問青天。"]
ENGLISH = [
    "the quick brown fox doesn't jump",
    "the lazy dog and the quick cat",
    "a quick, quick fox: the end!",
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
mixed = st.lists(
    st.text("床前明月光疑是地上霜的一在有中国研究生物学常瓶", min_size=1, max_size=6)
    | st.sampled_from(
        ["github.com", "man-pages-zh", "1.5n", "10%", "1.5", "3.14.15%", "AT&T", "c++", "C#", "xc#"]
    )
    | st.sampled_from(
        [
            "T恤",
            "A座",
            "IP地址",
            "don't",
            "a_b",
            "--",
            "...",
            "α",
            "é",
            "۱۲",
            "㐀",
            "𠮷",
            "龦",
            "豈",
            "〇",
            "常在瓶",
            "鹤榻瓶",
            "一上",
        ]
    )
    | st.text("ab1.%+#&_- ，。!\t\r\n", max_size=5),
    max_size=8,
).map("".join)


spaced = st.text(st.sampled_from("ab床 \t\n\r\x0b\x1c\x85\xa0\u2003\u2028\u3000"), max_size=12)


def is_space(character: str) -> bool:
    """Unicode's White_Space; Python's own takes four control characters for space as well."""
    return character.isspace() and character not in "\x1c\x1d\x1e\x1f"


def write_lexicon(path: Path, counts: dict[str, int]) -> Path:
    path.write_text("".join(f"{word}\t{count}\n" for word, count in counts.items()), encoding="utf-8")
    return path


def write_tagger(folder: Path) -> Path:
    """A model that cuts words, with random weights, as a training leaves it."""
    network = {"embedding_dim": 8, "num_layers": 2, "num_pairs": 20, "pair_dim": 4}
    vocabulary = ["<unk>", *"明月光"]
    torch.manual_seed(0)
    recipe = CRFTagger(len(vocabulary) + 5, 4, ["B", "E", "M", "S"], **network)
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(save(recipe.state_dict()))
    write_json(folder / "recipe.json", {"model": "crf_tagger", "train": {"network": network}})
    facts = {"num_tokens": len(vocabulary) + 5, "num_tags": 4, "classes": ["B", "E", "M", "S"]}
    write_json(folder / "data.json", {"kind": "tagged", "splits": ["train"], "facts": facts})
    write_json(folder / "vocabulary.json", vocabulary)
    write_json(folder / "codec.json", {"tokenizer": "char", "normalise": [], "tokenizer_file": None})
    return folder


def word_counts(name: str, documents: list[str]) -> pa.Table:
    counts = Counter(token for tokens in tokenizer(name).split_all(documents) for token in tokens)
    return pa.table({"token": list(counts), "count": list(counts.values())})


def train(path: Path, kind: training.Kind, documents=ENGLISH, size: int = 70, **options) -> Path:
    training.train_tokenizer(word_counts("word", documents), kind, size, path, **options)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tokenizers")
    made = {kind: train(folder / f"{kind}.json", kind) for kind in training.KINDS}
    lexicon = write_lexicon(folder / "lexicon.tsv", {"明月": 5, "月": 2, "光": 1})
    return {**made, "lexicon": lexicon, "tagged": write_tagger(folder / "tagger")}


# jieba


@settings(max_examples=400)
@given(mixed)
def test_jieba_is_jieba(text):
    assert tokenizer("jieba").split(text) == tokenizer("jieba_python").split(text)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("见github.com网", "见 github . com 网"),
        ("man-pages-zh", "man - pages - zh"),
        ("1.5n与1.5", "1.5 n 与 1.5"),
        ("AT&T的c++、C#和xc#", "AT&T 的 c++ 、 C# 和 x c#"),
        ("10%的T恤", "10% 的 T恤"),
        ("5%a", "5% a"),
        ("a+b", "a + b"),
        ("a#b", "a # b"),
        ("a&b", "a & b"),
        ("a.b", "a . b"),
        ("a_b", "a _ b"),
        ("㐀㐁𠮷野家", "㐀 㐁 𠮷 野家"),
        (" \t\r\n\u3000", ""),
    ],
)
def test_traps_where_rjieba_alone_differs_from_jieba(text, tokens):
    assert split_chinese(text) == tokens.split()
    assert tokenizer("jieba_python").split(text) == tokens.split()


def test_jieba_python_takes_no_cached_dictionary_and_says_nothing(tmp_path):
    (tmp_path / "jieba.cache").write_bytes(b"\xe9\x00\x00\x00\x00")  # marshal of what no dictionary is
    code = "from genpipe.corpus.tokenizers import tokenizer; print(tokenizer('jieba_python').split('明月光'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": "."},
    )
    assert done.stdout == "['明月光']\n"
    assert done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["jieba.cache"]


@pytest.mark.parametrize("text", ["常在瓶", "鹤榻瓶", "珍重提携常在眼。", "老去心情常在埜", "a常在瓶b"])
def test_nearly_equal_probabilities_are_decided_as_jieba_does(text):
    assert tokenizer("jieba").split(text) == tokenizer("jieba_python").split(text)
    assert tokenizer("jieba").split(text) != rjieba.cut(text, True)  # its probabilities are rounded


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text(
            "常在瓶鹤榻一的是不了人龥鿕埜丂" + "".join(map(chr, range(0x9F00, 0x9FD6))),
            min_size=1,
            max_size=9,
        )
    )
)
def test_the_hidden_markov_model_is_jiebas(runs):
    lengths = list(map(len, runs))
    stops = np.cumsum(lengths, dtype=np.int64)
    points = np.array([ord(character) for run in runs for character in run], np.uint32)
    found = hidden_markov.word_starts(points, stops - lengths, stops)
    words = [word for run in runs for word in jieba.finalseg.cut(run)]
    assert sorted(set(found.tolist())) == [0, *itertools.accumulate(map(len, words))][: len(words)]


def test_rjieba_has_the_dictionary_of_jieba_and_its_words_among_single_characters_are_found():
    counts = chinese._jieba().FREQ
    words = [word for word, count in counts.items() if count and len(word) > 1]
    assert all(map(rjieba.has_word, words))
    assert [word for word in words if word.isascii() and word.isalnum()] == []  # rjieba joins no two words
    single = [word for word in words if rjieba.cut(word, False) == list(word)]
    assert len(single) > 8000
    stops = np.cumsum(list(map(len, single)), dtype=np.int64)
    runs = stops - list(map(len, single)), stops
    text = "".join(single)
    found = chinese._words_among(text, np.array(list(map(ord, text)), np.uint32), runs)
    assert [text[a:b] for a, b in found] == single
    assert tokenizer("jieba").split("一上") == tokenizer("jieba_python").split("一上") == ["一", "上"]


def test_a_document_end_and_a_hidden_character_are_words_of_their_own_to_rjieba():
    assert rjieba.cut("明月\0\0光a\0b\0月", False) == ["明月", "\0", "\0", "光", "a", "\0", "b", "\0", "月"]


# the vectorised ones


@settings(max_examples=200)
@given(
    st.lists(texts | mixed | spaced | st.text("月㐀𠮷\0\1a.", max_size=6), max_size=6),
    st.sampled_from([(), ("nfkc", "lower")]),
)
@pytest.mark.parametrize("name", ["jieba", "jieba_python", "word", "whitespace", "char"])
def test_explode_split_and_split_all_agree(name, documents, normalise):
    cut = tokenizer(name, normalise=normalise)
    exploded = cut.explode(pl.Series(documents, dtype=pl.String)).collect()
    assert exploded.schema == {"document": pl.UInt32, "token": pl.String}
    assert exploded.rows() == [(i, token) for i, text in enumerate(documents) for token in cut.split(text)]
    assert cut.split_all(documents) == [cut.split(text) for text in documents]


def test_words_keep_case_marks_and_inner_apostrophes():
    text = "Don't l’eau 'quoted' a_b 3.14 हिन्दी 明月，光"
    assert tokenizer("word").split(text) == [
        "Don't",
        "l’eau",
        "quoted",
        "a_b",
        "3",
        "14",
        "हिन्दी",
        "明月",
        "光",
    ]


def test_white_space_is_unicodes():
    assert tokenizer("whitespace").split("a\u3000b\u00a0c\u2028d\u0085e\u200bf") == [
        "a",
        "b",
        "c",
        "d",
        "e\u200bf",
    ]


@settings(max_examples=100)
@given(texts | spaced)
def test_characters_are_all_but_white_space_and_newlines_stay(text):
    assert tokenizer("char").split(text) == [c for c in text if c == "\n" or not is_space(c)]


@given(texts | spaced)
def test_white_space_is_what_unicode_calls_so(text):
    runs = itertools.groupby(text, is_space)
    assert tokenizer("whitespace").split(text) == ["".join(run) for space, run in runs if not space]


def test_threads_are_for_what_leaves_python_alone():
    assert [name for name in ("jieba", "word", "whitespace", "char") if tokenizer(name).on_threads] == [
        "word",
        "whitespace",
        "char",
    ]
    assert not tokenizer("word", normalise=("lower",)).on_threads


# normalisation


@pytest.mark.parametrize(
    ("steps", "text", "normal"),
    [
        ((), "Ａﬁ", "Ａﬁ"),
        (("nfc",), "e\u0301ﬁ", "éﬁ"),
        (("nfkc",), "ﬁＡ", "fiA"),
        (("full_width",), "ＡＢＣ～！\u3000ﬁ，。", "ABC~! ﬁ,。"),
        (("lower",), "ABCß", "abcß"),
        (("casefold",), "ABCß", "abcss"),
        (("simplified",), "頭髮乾燥，乾坤。\n發", "头发干燥，乾坤。\n发"),
        (("full_width", "lower"), "Ａ", "a"),
        (("lower", "nfkc"), "Kg㎏ℌ", "kgkgH"),  # in the order given: ℌ becomes H after it could become h
        (("nfkc", "lower"), "Kg㎏ℌ", "kgkgh"),
    ],
)
def test_normalisation_steps_in_their_order(steps, text, normal):
    assert normaliser(steps)(text) == normal
    assert "".join(tokenizer("char", normalise=steps).split(text)) == "".join(c for c in normal if c != " ")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (("nfc", "nfkc"), "nfc and nfkc exclude each other"),
        (("casefold", "lower"), "lower and casefold exclude each other"),
        (("lower", "nfc", "lower"), "lower is there 2 times"),
        (("upper",), "no step 'upper'; name some of: nfc, nfkc,"),
        (("",), "no step ''"),
    ],
)
def test_bad_normalisation_is_refused(steps, message):
    for use in (normaliser, normalisation_version, lambda names: tokenizer("char", normalise=names)):
        with pytest.raises(BadInput, match=message):
            use(steps)


def test_every_step_and_its_tables_are_in_the_version(monkeypatch):
    monkeypatch.setattr("unicodedata.unidata_version", "99.0")
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"{name}-7")
    assert normalisation_version(()) == "-"
    assert normalisation_version(("full_width", "lower")) == "full_width+lower unicode 99.0"
    assert normalisation_version(("simplified",)) == "simplified opencc opencc-7"


# all of them


@pytest.mark.parametrize("name", NAMES)
def test_tokenizers_travel_to_other_processes(name, files):
    cut = tokenizer(name, normalise=("lower",), file=files.get(name))
    there = pickle.loads(pickle.dumps(cut))
    documents = ["明月光 The quick", "", "fox\nDOG"]
    assert there.version == cut.version
    assert there.split_all(documents) == cut.split_all(documents) == [cut.split(text) for text in documents]
    assert sum(map(len, there.split_all(documents))) > 0


@pytest.mark.parametrize("name", NAMES)
def test_versions_differ_by_name_and_normalisation(name, files):
    file = files.get(name)
    versions = {tokenizer(name, normalise=steps, file=file).version for steps in [(), ("lower",), ("nfc",)]}
    versions |= {tokenizer(other, file=files.get(other)).version for other in NAMES}
    assert len(versions) == len(NAMES) + 2


@pytest.mark.parametrize(
    ("name", "package"),
    [("jieba", "rjieba"), ("jieba_python", "jieba"), ("word", "polars"), ("whitespace", "polars"), ("bpe", "tokenizers")],
)  # fmt: skip
def test_a_version_changes_with_the_package_that_cuts(name, package, files, monkeypatch):
    before = tokenizer(name, file=files.get(name)).version
    monkeypatch.setattr("importlib.metadata.version", lambda asked: "7" if asked == package else "0")
    assert f"{package} 7" in tokenizer(name, file=files.get(name)).version != before


def test_a_version_changes_with_the_content_of_the_file_alone(tmp_path):
    one = write_lexicon(tmp_path / "a.tsv", {"明月": 5})
    same = write_lexicon(tmp_path / "b.tsv", {"明月": 5})
    assert tokenizer("lexicon", file=one).version == tokenizer("lexicon", file=same).version
    before = tokenizer("lexicon", file=one)
    write_lexicon(one, {"明": 5})
    assert tokenizer("lexicon", file=one).version != before.version
    assert tokenizer("lexicon", file=one).split("明月") == ["明", "月"]
    assert before.split("明月") == ["明月"]


def test_a_wrong_name_or_file_is_refused_with_its_remedy(tmp_path, files):
    for name, file, message in [
        ("character", None, "no tokenizer 'character'; there are: jieba, jieba_python, char"),
        ("bpe", None, "tokenizer bpe: needs the file that defines it"),
        ("lexicon", None, "tokenizer lexicon: needs the file that defines it"),
        ("char", files["bpe"], "tokenizer char: takes no file, got"),
        ("bpe", tmp_path / "none.json", "none.json: no such file"),
        ("bpe", files["unigram"], "its model must have the type BPE, not Unigram"),
        ("wordpiece", files["lexicon"], "not a valid Hugging Face tokenizer with a model of type WordPiece"),
        ("unigram", write_lexicon(tmp_path / "empty.json", {}), "not a valid Hugging Face tokenizer"),
    ]:
        with pytest.raises(BadInput) as raised:
            tokenizer(name, file=file)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)


BYTES = {character: number for number, character in enumerate(pre_tokenizers.ByteLevel.alphabet())}
HEXADECIMAL = {f"<0x{byte:02X}>": byte for byte in range(256)}


def write_model(path: Path, model: models.Model, changes: dict[str, object]) -> Path:
    """A tokenizer file of a model, with other values in the model's block."""
    definition = json.loads(tokenizers.Tokenizer(model).to_str())
    definition["model"] |= changes
    path.write_text(json.dumps(definition), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "model", "more", "message"),
    [
        ("bpe", models.BPE({"<unk>": 0, "a": 1}, [], unk_token="<unk>"), {"dropout": 0.1}, "model.dropout is 0.1, so it cuts at random"),
        ("bpe", models.BPE({"a": 0}, []), {}, "model.unk_token is not set, so characters outside its vocabulary are dropped"),
        ("bpe", models.BPE({"a": 0}, []), {"unk_token": "<unk>"}, "model.unk_token '<unk>' is not in model.vocab"),
        ("bpe", models.BPE(HEXADECIMAL | {"a": 256}, []), {}, "model.unk_token is not set"),
        ("bpe", models.BPE({"<0x41>": 0}, [], byte_fallback=True), {}, "model.unk_token is not set"),
        ("bpe", models.BPE(BYTES, []), {}, "model.unk_token is not set"),  # without the pre-tokenizer that makes bytes
        ("bpe", models.BPE({"<unk>": 0, "a": 1, "b": 2}, [], unk_token="<unk>"), {"vocab": {"<unk>": 0, "a": 1, "b": 1}}, "more than one token has the id 1"),
        ("wordpiece", models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"), {"vocab": {"a": 0}}, "model.unk_token '[UNK]' is not in model.vocab"),
        ("unigram", models.Unigram([("a", -1.0)], 0), {"unk_id": None}, "model.unk_id is None"),
        ("unigram", models.Unigram([("a", -1.0)], 0), {"unk_id": 7}, "model.unk_id is 7"),
    ],
)  # fmt: skip
def test_a_file_that_cuts_at_random_or_loses_characters_is_refused(tmp_path, kind, model, more, message):
    file = write_model(tmp_path / "model.json", model, more)
    with pytest.raises(BadInput) as raised:
        tokenizer(kind, file=file)
    assert f"{file}: {message}" in str(raised.value)
    assert "; " in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "pre_tokenizer", "tokens"),
    [
        (models.BPE(BYTES, []), pre_tokenizers.ByteLevel(add_prefix_space=False), ["a", "æ", "ľ", "Ī"]),
        (
            models.BPE(BYTES, []),
            pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            ),
            ["a", "æ", "ľ", "Ī"],
        ),
        (
            models.BPE(HEXADECIMAL | {"a": 256}, [], byte_fallback=True),
            None,
            ["a", "<0xE6>", "<0x9C>", "<0x88>"],
        ),
        (models.BPE({"<unk>": 0, "a": 1}, [], unk_token="<unk>", dropout=0.0), None, ["a", "<unk>"]),
    ],
)
def test_a_file_that_loses_nothing_is_taken(tmp_path, model, pre_tokenizer, tokens):
    made = tokenizers.Tokenizer(model)
    if pre_tokenizer is not None:
        made.pre_tokenizer = pre_tokenizer
    made.save(str(tmp_path / "model.json"))
    assert tokenizer("bpe", file=tmp_path / "model.json").split("a月") == tokens


def test_truncation_padding_and_added_tokens_of_a_file_change_no_count(tmp_path):
    made = tokenizers.Tokenizer(models.BPE({"<unk>": 0, "a": 1}, [], unk_token="<unk>"))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.add_tokens([tokenizers.AddedToken("Xy", normalized=True)])
    made.enable_truncation(2)
    made.enable_padding(length=9)
    made.save(str(tmp_path / "model.json"))
    assert tokenizer("bpe", file=tmp_path / "model.json").split("aaaaXYz") == [*"aaaa", "Xy", "<unk>"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: must be word<TAB>count"),
        ("明月\t5\n月 3\n".encode(), "line 2: must be word<TAB>count"),
        ("明月\t0\n".encode(), "line 1: must be"),
        ("明月\t-1\n".encode(), "line 1: must be"),
        ("明月\t1.5\n".encode(), "line 1: must be"),
        ("明月\t٣\n".encode(), "line 1: must be"),
        ("明 月\t1\n".encode(), "line 1: must be"),
        (b"\t1\n", "line 1: must be"),
        ("明月\t1\n光\t2\n明月\t1\n".encode(), "line 3: '明月' was there before"),
        ("明月\t5\n".encode("gb18030"), "not valid UTF-8 at byte 0"),
    ],
)
def test_a_bad_lexicon_is_refused_by_its_line(tmp_path, data, message):
    path = tmp_path / "lexicon.tsv"
    path.write_bytes(data)
    with pytest.raises(BadInput) as raised:
        tokenizer("lexicon", file=path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


# the lexicon


def all_splits(units: tuple[str, ...]) -> list[list[str]]:
    if not units:
        return [[]]
    return [
        ["".join(units[:end]), *rest] for end in range(1, len(units) + 1) for rest in all_splits(units[end:])
    ]


@settings(max_examples=300)
@given(
    st.dictionaries(st.text("明月光ab", min_size=1, max_size=4), st.integers(1, 50), min_size=1, max_size=10),
    st.text("明月光ab霜", max_size=7),
)
def test_the_lexicon_finds_a_most_probable_split(counts, text):
    lexicon = Lexicon(counts)
    total = sum(counts.values())
    score = lambda split: sum(math.log(counts.get(word, 1) / total) for word in split)
    allowed = [
        split for split in all_splits(tuple(text)) if all(len(word) == 1 or word in counts for word in split)
    ]
    found = lexicon.best(text)
    assert found in allowed
    assert score(found) == pytest.approx(max(map(score, allowed)))


def test_the_lexicon_keeps_ascii_runs_and_drops_white_space(tmp_path):
    cut = tokenizer(
        "lexicon", file=write_lexicon(tmp_path / "l.tsv", {"明月": 9, "T恤": 3, "c++": 2, "ab": 5})
    )
    assert cut.split("明月 光abc ab\n明 月T恤c++BT恤don't") == [
        "明月", "光", "abc", "ab", "明", "月", "T恤", "c++", "BT", "恤", "don", "'", "t",
    ]  # fmt: skip


def test_of_equal_splits_the_longer_first_word_is_taken():
    assert Lexicon({"ab": 1, "c": 1, "a": 1, "bc": 1}).best("abc") == ["ab", "c"]


# training


@settings(max_examples=60)
@given(
    st.dictionaries(st.text("abc明月", min_size=1, max_size=7), st.integers(1, 6), min_size=1, max_size=12),
    st.integers(7, 40),
)
def test_bpe_has_the_vocabulary_and_the_merges_of_hugging_face(tmp_path, counts, size):
    out = tmp_path / "bpe.json"
    training.train_tokenizer(
        pa.table({"token": list(counts), "count": list(counts.values())}), "bpe", size, out
    )
    theirs = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    theirs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<unk>"], show_progress=False)
    theirs.train_from_iterator([word for word, count in counts.items() for _ in range(count)], trainer)
    ours, wanted = json.loads(out.read_text())["model"], json.loads(theirs.to_str())["model"]
    assert ours["vocab"] == wanted["vocab"]
    assert ours["merges"] == wanted["merges"]


@pytest.mark.parametrize("kind", training.KINDS)
def test_equal_counts_give_equal_bytes_in_any_order(tmp_path, kind):
    counts = word_counts("word", ENGLISH)
    training.train_tokenizer(counts, kind, 60, tmp_path / "a")
    training.train_tokenizer(counts.sort_by("token"), kind, 60, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    training.train_tokenizer(counts.slice(1), kind, 60, tmp_path / "c")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize("kind", training.KINDS)
def test_the_size_is_kept_and_frequent_words_become_one_piece(tmp_path, kind):
    path = train(tmp_path / "t.json", kind)
    vocabulary = tokenizers.Tokenizer.from_file(str(path)).get_vocab()
    assert vocabulary["<unk>"] == 0
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= 70
    assert tokenizer(kind, file=path).split("quick the") == ["quick", "the"]


@pytest.mark.parametrize("kind", training.KINDS)
def test_a_chinese_text_comes_back(tmp_path, kind):
    path = tmp_path / "zh.json"
    training.train_tokenizer(word_counts("jieba", CHINESE), kind, 64, path)
    for text in CHINESE:
        tokens = tokenizer(kind, file=path).split(text)
        assert "".join(token.removeprefix("##") for token in tokens) == text
        assert len(tokens) < len(text)
        model = tokenizers.Tokenizer.from_file(str(path))
        assert model.decode(model.encode(text).ids).replace(" ", "") == text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_an_english_text_comes_back_with_its_spaces(tmp_path, kind):
    path = tmp_path / "en.json"
    training.train_tokenizer(word_counts("whitespace", ENGLISH), kind, 80, path, spaced=True)
    model = tokenizers.Tokenizer.from_file(str(path))
    for text in ENGLISH:
        assert model.decode(model.encode(text).ids) == text
        assert "".join(tokenizer(kind, file=path).split(text)) == "▁" + text.replace(" ", "▁")


def test_an_english_text_comes_back_from_wordpiece_word_by_word(tmp_path):
    model = tokenizers.Tokenizer.from_file(str(train(tmp_path / "en.json", "wordpiece")))
    assert model.decode(model.encode(ENGLISH[0]).ids) == ENGLISH[0]


@pytest.mark.parametrize("kind", training.KINDS)
def test_what_was_not_counted_is_unknown(tmp_path, kind):
    assert tokenizer(kind, file=train(tmp_path / "t.json", kind)).split("the 月") == ["the", "<unk>"]


def test_bad_training_is_refused(tmp_path):
    counts = word_counts("word", ENGLISH)
    none = pa.table({"token": ["\n", "<unk>"], "count": [3, 1]})
    characters = len(set("".join(counts["token"].to_pylist())))
    for table, kind, size, spaced, message in [
        (counts, "word", 60, False, "no kind of tokenizer 'word' can be trained; there are: bpe,"),
        (counts, "wordpiece", 60, True, "drop --spaced"),
        (counts, "bpe", characters, False, f"size: must be {characters + 1} or more"),
        (none, "bpe", 60, False, "there are no counts of words to train on"),
    ]:
        with pytest.raises(BadInput, match=message):
            training.train_tokenizer(table, kind, size, tmp_path / "t.json", spaced=spaced)
    training.train_tokenizer(counts, "bpe", characters + 1, tmp_path / "t.json")


# params.yaml and the command line


def corpus(**values) -> Corpus:
    return Corpus.model_validate({"dataset": "d", "files": ["t.txt"], **values})


def test_a_corpus_names_a_file_exactly_where_one_is_needed(tmp_path):
    write_lexicon(tmp_path / "l.tsv", {"明月": 5})
    chosen = corpus(tokenizer="lexicon", tokenizer_file="l.tsv", normalise=["simplified"])
    assert corpus_tokenizer(tmp_path, chosen).split("明月頭") == ["明月", "头"]
    for name in NAMES:
        file = NO_FILE if name in DEFINED else "l.tsv"
        with pytest.raises(ValidationError, match=f"tokenizer_file: the tokenizer {name} (needs|takes no)"):
            corpus(tokenizer=name, tokenizer_file=file)


def test_the_help_names_what_there_is():
    assert cli.texts.TOKENIZERS.split(", ") == list(NAMES)
    assert cli.texts.NORMALISATION.split(", ") == list(NormalisationStep.__args__)


def test_a_tokenizer_is_trained_and_used_from_the_command_line(tmp_path, capsys):
    text, counts, file = tmp_path / "t.txt", tmp_path / "counts.parquet", tmp_path / "bpe.json"
    text.write_text("\n".join(ENGLISH) + "\nＦＯＸ\n")
    count = ["--root", str(tmp_path), "count", str(text), "--workers", "0", "--out", str(counts)]
    assert cli.main([*count, "--tokenizer", "word"]) == 0
    learn = ["--counts", str(counts), "--kind", "bpe", "--size", "60", "--out", str(file)]
    assert cli.main(["tokenizer", "train", *learn]) == 0
    assert (
        cli.main([*count, "--tokenizer", "bpe", "--tokenizer-file", str(file), "--normalise", "nfkc,lower"])
        == 0
    )
    table = pq.read_table(counts)
    found = dict(zip(table["token"].to_pylist(), table["count"].to_pylist(), strict=True))
    assert found["quick"] == 4
    assert not {"Ｆ", "F"} & found.keys()
    assert cli.main([*count, "--tokenizer", "character"]) == 2
    assert "no tokenizer 'character'" in capsys.readouterr().err
    assert cli.main(["tokenizer", "train", *learn[:1], str(text), *learn[2:]]) == 2
    assert "not the Parquet file of genpipe count" in capsys.readouterr().err
