"""Words found without labels: exact counts, both published algorithms, and what they find in text whose words are known."""

import itertools
import math
import random
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc_data.topics import topics  # English of the standard library
from typing import get_args

import numpy as np
import polars as pl
import pytest

from genpipe.cli import discovery as commands
from genpipe.cli import main
from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.lexicon import Lexicon
from genpipe.discovery import cutting, gram_counting, showing, words
from genpipe.discovery.branching import branching
from genpipe.discovery.candidates import confirmed, locate
from genpipe.discovery.entropy import gain, gain_bound, without_redundant
from genpipe.discovery.grams import NONE
from genpipe.discovery.solidity import exp, solid, solidities
from genpipe.discovery.words import Place, Settings, discover
from tests.discovering import as_counts, grams_of, planted, write

DAILY = Path("data/daily/199801.txt")


def test_text_that_was_counted_before_is_not_counted_again(tmp_path, monkeypatch):
    first, second = write(tmp_path / "a.jsonl", ["天地 日月"]), write(tmp_path / "b.jsonl", ["日月天地"])
    before = discover(find_inputs([str(first)]), Settings(min_count=1), Place(tmp_path / "s"))
    seen = []
    count = gram_counting.count_windows
    monkeypatch.setattr(
        gram_counting, "count_windows", lambda texts, *how: seen.extend(texts) or count(texts, *how)
    )
    both = discover(find_inputs([str(first), str(second)]), Settings(min_count=1), Place(tmp_path / "s"))
    assert seen == ["日月天地"]
    fresh = discover(find_inputs([str(first), str(second)]), Settings(min_count=1), Place(tmp_path / "t"))
    assert both.table.equals(fresh.table)
    assert not both.table.equals(before.table)


def test_the_solidity_is_the_smallest_over_all_cuts(tmp_path):
    generator = random.Random(1)
    texts = ["".join(generator.choices("天地人日", k=30)) for _ in range(20)]
    grams = grams_of(write(tmp_path / "a.jsonl", texts), 4)
    counts = as_counts(grams)
    for order, ratios in enumerate(solidities(grams), start=1):
        if order == 1:
            continue
        for units, ratio in zip(grams.units_of(order).tolist(), ratios.tolist(), strict=True):
            gram = tuple(grams.names[unit - 1] for unit in units)
            cuts = [
                grams.total * counts[gram] / (counts[gram[:i]] * counts[gram[i:]]) for i in range(1, order)
            ]
            assert ratio == pytest.approx(min(cuts), rel=1e-15)


def test_a_solid_n_gram_may_have_a_weak_inside(tmp_path):
    # B and C are everywhere, and beside one another by chance; ABCD is always whole
    generator = random.Random(2)
    texts = ["甲乙丙丁"] * 30 + ["".join(generator.choices("乙丙戊己", k=8)) for _ in range(400)]
    grams = grams_of(write(tmp_path / "a.jsonl", texts), 4)
    members = solid(grams, {2: 2.0, 3: 1.0, 4: 1.0})
    names = {
        "".join(grams.names[unit - 1] for unit in units)
        for order in (2, 3, 4)
        for units in grams.units_of(order)[members[order - 1]].tolist()
    }
    assert "甲乙丙丁" in names
    assert "乙丙" not in names


def test_the_look_back_removes_what_overlapping_pairs_have_joined(tmp_path):
    generator = random.Random(3)
    # 各项 and 项目 are frequent words of their own; 各项目 is only where both meet
    texts = list(["各项", "项目"] * 60) + ["各项目"] * 3
    texts += ["".join(generator.choices("戊己庚辛壬癸", k=6)) for _ in range(300)]
    path = write(tmp_path / "a.jsonl", texts)
    settings = Settings(method="solidity", order=3, min_count=3, thresholds=(2.0, 4.0))
    found = discover(find_inputs([str(path)]), settings, Place(tmp_path / "s")).table
    assert {"各项", "项目"} <= set(found["word"])
    assert "各项目" not in set(found["word"])
    grams = grams_of(path, 3, min_count=3)
    members = solid(grams, {2: 2.0, 3: 4.0})
    tokens = cutting.cut(cutting.binding_of(grams, members, "runs")).split("各项目")
    assert tokens == ["各项目"]


def test_longer_words_need_all_their_n_grams_and_strict_ones_all_parts(tmp_path):
    grams = grams_of(write(tmp_path / "a.jsonl", ["甲乙丙丁戊"] * 3), 4)
    located = locate(["甲乙丙丁戊", "甲乙丙丁", "甲乙丙", "甲乙"], grams, "runs")
    members = [np.zeros(5, bool), np.ones(4, bool), np.zeros(3, bool), np.ones(2, bool)]
    assert confirmed(located, members).tolist() == [True, True, False, True]
    assert confirmed(located, members, strict=True).tolist() == [False, False, False, True]
    members[3][0] = False
    # the first in order is 乙丙丁戊
    assert confirmed(located, members).tolist() == [False, True, False, True]


def test_branching_entropies_are_those_of_the_neighbours(tmp_path):
    # behind 天: 地 four times, 日 and the end once each; before it: 月 twice, four beginnings
    grams = grams_of(write(tmp_path / "a.jsonl", ["天地"] * 2 + ["月天地"] * 2 + ["天日", "天"]), 2)
    ends = branching(grams)[0]
    sky = grams.names.index("天")
    assert ends.right[sky] == pytest.approx(-(4 / 6 * math.log(4 / 6) + 2 / 6 * math.log(1 / 6)))
    assert ends.left[sky] == pytest.approx(-(2 / 6 * math.log(2 / 6) + 4 / 6 * math.log(1 / 6)))


def test_the_autonomy_is_the_rise_of_the_entropies_at_both_ends_in_deviations(tmp_path):
    generator = random.Random(8)
    texts = ["".join(generator.choices("天地人日", [4, 3, 2, 1], k=40)) for _ in range(30)]
    grams = grams_of(write(tmp_path / "a.jsonl", texts), 4)
    counts = as_counts(grams)

    def entropy(gram: tuple[str, ...], side: int) -> float:
        total = grams.total if not gram else counts[gram]
        neighbours = [counts.get((unit, *gram) if side == 0 else (*gram, unit), 0) for unit in grams.names]
        shares = [count / total for count in neighbours if count]
        missing = total - sum(neighbours)
        return -sum(share * math.log(share) for share in shares) + missing / total * math.log(total)

    for order, found in enumerate(branching(grams), start=1):
        units = [tuple(grams.names[unit - 1] for unit in row) for row in grams.units_of(order).tolist()]
        rises = np.array(
            [[entropy(g, 0) - entropy(g[1:], 0), entropy(g, 1) - entropy(g[:-1], 1)] for g in units]
        )
        expected = ((rises - rises.mean(0)) / rises.std(0)).sum(1)
        assert found.autonomy == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_candidate_with_a_rare_unit_is_in_no_table(tmp_path):
    grams = grams_of(write(tmp_path / "a.jsonl", ["天地", "天地", "罕天地"]), 3, min_count=2)
    located = locate(["天地", "罕", "罕天地", "天"], grams, "runs")
    assert located.lengths.tolist() == [2, 1, 3, 1]
    assert [(located.whole(order) != NONE).tolist() for order in (1, 2, 3)] == [
        [False, False, False, True],
        [True, False, False, False],
        [False, False, False, False],
    ]


def test_joining_two_units_changes_the_information_as_the_formula_says():
    generator = random.Random(4)
    text = generator.choices("abcd", weights=[4, 3, 2, 1], k=20_000)

    def information(units: Sequence[str]) -> tuple[float, float]:
        shares = {unit: count / len(units) for unit, count in Counter(units).items()}
        length = sum(share * len(unit) for unit, share in shares.items())
        return -sum(share * math.log(share) for share in shares.values()) / length, length

    before, length = information(text)
    joined = re.findall("ab|.", "".join(text))
    p = {unit: count / len(text) for unit, count in Counter(text).items()}
    p_ab = joined.count("ab") / len(text)
    assert information(joined)[0] - before == pytest.approx(-gain(p["a"], p["b"], p_ab) / length, abs=1e-12)


def test_the_bound_is_never_above_the_gain():
    generator = np.random.default_rng(5)
    for _ in range(200_000):
        p_a, p_b = generator.uniform(1e-6, 0.6, 2)
        p_ab = generator.uniform(1e-9, 0.999) * min(p_a, p_b, 0.999)
        if p_a + p_b - p_ab < 1:
            assert gain(p_a, p_b, p_ab) - gain_bound(p_a, p_b, p_ab) >= -1e-12


def test_a_redundant_word_gives_its_count_to_its_parts():
    counts = {
        "天地": 50,
        "日月": 50,
        "天地日月": 20,
        "甲乙丙": 10,
        "甲": 1,
        "乙": 1,
        "丙": 1,
        "天": 5,
        "地": 5,
    }
    kept = without_redundant(counts, "runs")
    assert "天地日月" not in kept
    assert kept["天地"] == 70
    assert kept["日月"] == 70
    assert kept["甲乙丙"] == 10


def test_the_parts_of_a_redundant_word_are_words_and_of_equal_cuts_the_longer_comes_first():
    kept = without_redundant({"天地日": 5, "天": 90, "地": 80, "日": 70}, "runs")
    assert kept == {"天": 95, "地": 85, "日": 75}
    kept = without_redundant(
        {"天地日": 1, "天地": 30, "地日": 30, "天": 20, "日": 20, "地": 20}, "runs", per_unit=False
    )
    assert kept["天地"] == 31
    assert kept["日"] == 21
    assert kept["地日"] == 30


def longer_words(found: words.Words) -> set[str]:
    return set(found.table.filter(pl.col("units") > 1)["word"])


@pytest.mark.parametrize("method", ["solidity", "combined"])
def test_planted_words_are_found(tmp_path, method):
    texts, lexicon = planted()
    path = write(tmp_path / "a.jsonl", texts)
    settings = Settings(method=method, min_count=32, thresholds=(2.0, 4.0, 6.0))
    found = longer_words(discover(find_inputs([str(path)]), settings, Place(tmp_path / "s")))
    seen = {word for word in lexicon if sum(text.count(word) for text in texts) >= 32}
    assert len(found & lexicon) / len(seen) >= 0.9
    assert len(found & lexicon) / len(found) >= 0.99


@pytest.mark.parametrize("method", ["solidity", "combined"])
def test_nothing_is_found_where_characters_are_shuffled(tmp_path, method):
    texts, _ = planted(shuffle=True)
    path = write(tmp_path / "a.jsonl", texts)
    settings = Settings(method=method, min_count=32, thresholds=(2.0, 4.0, 6.0))
    assert longer_words(discover(find_inputs([str(path)]), settings, Place(tmp_path / "s"))) == set()


def gold() -> list[list[str]]:
    """The lines of the People's Daily as words."""
    lines = []
    for line in DAILY.read_text(encoding="utf-8").splitlines():
        written = [word.rpartition("/")[0].lstrip("[") for word in line.split()]
        normal = ["".join(unicodedata.normalize("NFKC", word).split()) for word in written]
        lines.append([word for word in normal if word])
    return [line for line in lines if line]


def spans(tokens: Sequence[str]) -> set[tuple[int, int]]:
    ends = [*itertools.accumulate(map(len, tokens))]
    return set(zip([0, *ends], ends, strict=False))


def f1(counts: Mapping[str, int], lines: Sequence[Sequence[str]]) -> float:
    lexicon = Lexicon(counts)
    pairs = [(spans(line), spans(lexicon.split("".join(line)))) for line in lines]
    right, real, found = (
        sum(map(len, each)) for each in zip(*((a & b, a, b) for a, b in pairs), strict=True)
    )
    return 2 * right / (real + found)


@pytest.mark.skipif(not DAILY.exists(), reason="genpipe data data/daily")
def test_words_of_the_peoples_daily(tmp_path):
    lines = gold()
    path = write(tmp_path / "a.jsonl", ["".join(line) for line in lines])
    test = lines[::10]
    found = {
        method: discover(find_inputs([str(path)]), Settings(method=method), Place(tmp_path / "s"))
        for method in get_args(words.Method)
    }
    scores = {method: f1(each.lexicon, test) for method, each in found.items()}
    assert scores["solidity"] >= 0.735
    assert scores["entropy"] >= 0.666
    assert scores["combined"] >= 0.76
    everything = Counter(itertools.chain.from_iterable(lines))
    assert f1(everything, test) >= 0.945
    assert f1(Counter("".join(map("".join, lines))), test) == pytest.approx(0.359, abs=0.01)
    multiple = longer_words(found["combined"])
    assert len(multiple & everything.keys()) / len(multiple) > 0.8


@pytest.mark.parametrize(
    ("method", "workers", "where"),
    [("combined", 2, "local"), ("entropy", 2, "local"), ("combined", 1, "local")],
)
def test_the_same_words_on_any_number_of_workers(tmp_path, method, workers, where):
    texts, _ = planted()
    path = write(tmp_path / "a.jsonl", texts[:4000])
    settings = Settings(method=method)
    alone = discover(find_inputs([str(path)]), settings, Place(tmp_path / "s"))
    place = Place(tmp_path / "t", workers, where, memory=4 << 20, shard_bytes=50_000)
    together = discover(find_inputs([str(path)]), settings, place)
    assert alone.table.equals(together.table)
    assert alone.lexicon == together.lexicon


@pytest.mark.ray
def test_the_same_words_on_ray(tmp_path, monkeypatch):
    texts, _ = planted()
    path = write(tmp_path / "a.jsonl", texts[:2000])
    alone = discover(find_inputs([str(path)]), Settings(), Place(tmp_path / "s"))
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as short:
        monkeypatch.setenv("RAY_TMPDIR", short)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        place = Place(tmp_path / "t", 2, "ray", shard_bytes=50_000)
        together = discover(find_inputs([str(path)]), Settings(), place)
    assert alone.table.equals(together.table)
    assert alone.lexicon == together.lexicon


def test_english_without_spaces(tmp_path):
    sentences = [line for text in topics.values() for line in re.split("[.:;,()]", text.lower())]
    real = {word for line in sentences for word in re.findall("[a-z]+", line)}
    lines = ["".join(re.findall("[a-z]", line)) for line in sentences]
    path = write(tmp_path / "a.jsonl", [line for line in lines if line])
    found = discover(
        find_inputs([str(path)]), Settings("solidity", "characters", order=6), Place(tmp_path / "s")
    ).table
    longer = set(found.filter(pl.col("units") > 2)["word"])
    assert {"object", "value", "method", "class", "list"} <= longer
    assert len(longer & real) / len(longer) > 0.8


def test_japanese(tmp_path):
    generator = random.Random(7)
    lexicon = [
        "カメラ",
        "東京",
        "ありがとう",
        "日本語",
        "写真",
        "新聞",
        "さくら",
        "映画",
        "駅",
        "を",
        "は",
        "で",
        "大学",
        "テレビ",
    ]
    texts = ["".join(generator.choices(lexicon, k=6)) + "。" for _ in range(3000)]
    path = write(tmp_path / "a.jsonl", texts)
    settings = Settings("solidity", thresholds=(1.0, 2.0, 2.0))
    found = longer_words(discover(find_inputs([str(path)]), settings, Place(tmp_path / "s")))
    assert found == {word for word in lexicon if len(word) > 1}


def test_thresholds_are_rounded_once():
    assert exp(2.0) == 7.38905609893065
    assert exp(0.0) == 1.0


def test_the_command_writes_a_lexicon_a_table_and_examples(tmp_path, capsys):
    texts, _ = planted()
    path, out = write(tmp_path / "a.jsonl", texts[:3000]), tmp_path / "words"
    known = tmp_path / "known.tsv"
    known.write_text("".join(f"{word}\t1\n" for word in planted()[1]), encoding="utf-8")
    asked = [
        "--root",
        str(tmp_path),
        "discover",
        str(path),
        "--out",
        str(out),
        "--against",
        str(known),
        "--workers",
        "0",
    ]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert f"the words are in {out}" in printed
    assert "% precision against" in printed
    assert {file.name for file in out.iterdir()} == {*showing.FILES} - {"typical.tsv"}
    table = pl.read_csv(out / "words.tsv", separator="\t", quote_char=None)
    first = table.row(0, named=True)
    assert f"[{first['word']}]" in first["examples"]
    assert first["solidity"] > 0
    assert main(["segment", texts[0], "--lexicon", str(out)]) == 0
    assert capsys.readouterr().out.replace(" ", "").strip() == texts[0]


@pytest.mark.parametrize("units", ["runs", "characters"])
def test_segment_cuts_and_normalises_as_the_folder_of_its_words_says(tmp_path, capsys, units):
    generator = random.Random(1)
    lines = ["".join(generator.choices(["xy", "AB", "zw", "pq", "st"], k=4)) for _ in range(2000)]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "words"
    asked = ["discover", str(tmp_path / "a.txt"), "--out", str(out), "--workers", "0", "--units", units]
    asked += ["--normalise", "lower", "--method", "solidity", "--order", "2", "--thresholds", "0.7"]
    assert main(["--root", str(tmp_path), *asked]) == 0
    capsys.readouterr()
    assert main(["segment", "stABnm xyABZW!", "--lexicon", str(out)]) == 0
    found = capsys.readouterr().out
    # a run of letters is one unit, and cut nowhere; letters that are units form the words that were found
    assert found == {"runs": "stabnm xyabzw !\n", "characters": "st ab n m xy ab zw !\n"}[units]
    lexicon = out / "lexicon.tsv"
    assert main(["segment", "stABnm", "--lexicon", str(lexicon)]) == 0
    assert capsys.readouterr().out == "stABnm\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "words: has no statistics.json that can be read; name a folder that genpipe discover wrote"),
        ("{", "statistics.json: not what genpipe discover writes"),
        ('{"normalise": []}', "statistics.json: not what genpipe discover writes: 'kind_of_units'"),
        ('{"normalise": [], "kind_of_units": "bytes"}', "no units 'bytes'"),
        ('{"normalise": ["nonsense"], "kind_of_units": "runs"}', "normalise: no step 'nonsense'"),
    ],
)
def test_a_folder_that_is_none_of_found_words_is_refused(tmp_path, capsys, text, line):
    words = tmp_path / "words"
    words.mkdir()
    (words / "lexicon.tsv").write_text("天地\t9\n", encoding="utf-8")
    if text is not None:
        (words / "statistics.json").write_text(text, encoding="utf-8")
    assert main(["segment", "天地", "--lexicon", str(words)]) == 2
    assert line in capsys.readouterr().err


def test_typical_words_are_those_with_the_highest_likelihood_ratio(tmp_path, capsys):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("天地\n" * 60 + "日月\n" * 50 + "山水\n" * 5, encoding="utf-8")
    second.write_text("天地\n" * 60 + "花鳥\n" * 50 + "山水\n" * 6, encoding="utf-8")
    base = [
        "--root",
        str(tmp_path),
        "discover",
        "--workers",
        "0",
        "--method",
        "solidity",
        "--thresholds",
        "0,0,0",
    ]
    assert main([*base, str(second), "--out", str(tmp_path / "second")]) == 0
    asked = [*base, str(first), "--out", str(tmp_path / "first"), "--beside", str(tmp_path / "second")]
    assert main(asked) == 0
    # 天地 is a larger share of the first text, whose total is smaller by one; 山水 is a smaller one
    assert f"typical beside {tmp_path / 'second'}: 日月 天地\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (["--method", "entropy", "--order", "3"], "--order: of use with --method combined or solidity"),
        (["--method", "solidity", "--min-pmi", "3"], "--min-pmi: of use with --method entropy"),
        (["--thresholds", "1,2"], "thresholds: 2 given, and n-grams of 2 to 4 units need 3"),
        (["--normalise", "nonsense"], "normalise: no step 'nonsense'"),
        (["--against", "none.txt"], "none.txt: No such file"),
        (["--beside", "none"], "none: has no words.parquet"),
        (["--out", "."], "a.txt"),
        (["--beside", "other", "--out", "other"], "other: this is the input other"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch, asked, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("天地\n" * 9, encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/statistics.json").write_text("{}", encoding="utf-8")
    assert main(["--root", str(tmp_path), "discover", "a.txt", "--workers", "0", *asked]) == 2
    errors = capsys.readouterr().err
    assert line in errors
    assert not (tmp_path / "words").exists()
    assert (tmp_path / "a.txt").exists()


def test_what_the_command_line_names_is_what_there_is():
    assert commands.METHODS == words.METHODS
    assert commands.FILES == showing.FILES


def test_marks_between_rows_are_in_the_lexicon_and_are_no_words(tmp_path):
    generator = random.Random(2)
    lines = [
        "，".join("".join(generator.choices(["天地", "日月", "山"], k=3)) for _ in range(3))
        for _ in range(300)
    ]
    path = write(tmp_path / "a.jsonl", lines)
    found = discover(
        find_inputs([str(path)]), Settings("combined", order=2, thresholds=(0.5,)), Place(tmp_path / "s")
    )
    assert "，" in found.lexicon
    assert set(found.table["word"]) == {"天地", "日月", "山"}


def test_an_empty_text_has_no_words(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\n，\n", encoding="utf-8")
    out = tmp_path / "w"
    for method in words.METHODS:
        asked = ["discover", str(tmp_path / "a.txt"), "--out", str(out), "--method", method, "--workers", "0"]
        assert main(["--root", str(tmp_path), *asked]) == 0
        assert pl.read_parquet(out / "words.parquet").is_empty()
