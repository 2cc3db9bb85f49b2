"""n-grams of units: exact counts, whatever the shards, the memory and the place of the work."""

import math
import pickle
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import cut
from genpipe.corpus.tasks import InProcess
from genpipe.discovery import cutting, gram_counting
from genpipe.discovery.entropy import strong_pairs
from genpipe.discovery.gram_counting import GramCounting, count_task, merged
from genpipe.discovery.units import Numbers, cut_units, rows_of, split_units
from genpipe.discovery.windows import count_windows, layout, unpack
from tests.discovering import as_counts, grams_by_hand, grams_of, planted, write

TEXTS = st.lists(st.text(st.sampled_from("天地日月 ，ab1é가ก็\n"), max_size=12), min_size=1, max_size=8)


def test_runs_of_letters_and_digits_are_units():
    assert split_units(["中国WTO第3次", "café1990年", "e\u0301te\u0301"], "runs") == [
        ["中", "国", "WTO", "第", "3", "次"],
        ["café1990", "年"],
        ["e\u0301te\u0301"],
    ]
    assert split_units(["WTO"], "characters") == [["W", "T", "O"]]


@pytest.mark.parametrize("kind", ["runs", "characters"])
def test_given_numbers_of_units_are_those_of_the_text_itself(kind):
    texts = ["卡拉OK，天地 a", "第3次WTO！", "天𠀀e\u0301"]
    rows, units = rows_of(texts, kind), cut_units(texts, kind)
    assert Numbers(rows.names).of(units).tolist() == rows.ids.tolist()
    fewer = [name for name in rows.names if name not in ("天", "WTO", "W")]
    numbers = {name: number for number, name in enumerate(fewer, start=1)}
    expected = [numbers.get(["", *rows.names][number], 0) for number in rows.ids.tolist()]
    assert Numbers(fewer).of(units).tolist() == expected


def test_no_window_goes_across_a_break():
    found = count_windows(["天。地", "日月"], 3, "runs")
    places = [place.tolist() for place in unpack(found.words, layout(len(found.names), 3)[0], 3)]
    spelled = [
        "".join(found.names[unit - 1] for unit in units if unit) for units in zip(*places, strict=True)
    ]
    assert sorted(spelled) == sorted(["天", "地", "日月", "月"])


@given(TEXTS, st.integers(2, 6), st.integers(1, 3), st.sampled_from([40, 200, 1 << 20]))
def test_n_grams_are_those_of_a_counter(tmp_path_factory, texts, order, min_count, shard_bytes):
    path = write(tmp_path_factory.mktemp("text") / "a.jsonl", texts)
    grams = grams_of(path, order, min_count=min_count, shard_bytes=shard_bytes)
    expected = grams_by_hand(texts, order)
    assert as_counts(grams) == {gram: count for gram, count in expected.items() if count >= min_count}
    assert grams.total == sum(count for gram, count in expected.items() if len(gram) == 1)
    assert grams.pairs == sum(count for gram, count in expected.items() if len(gram) == 2)


def test_rare_units_do_not_count_together(tmp_path):
    grams = grams_of(write(tmp_path / "a.jsonl", ["天甲地", "天乙地", "天丙地"]), 3, min_count=3)
    assert as_counts(grams) == {("天",): 3, ("地",): 3}
    assert (grams.total, grams.pairs) == (9, 6)


def test_many_different_units_need_more_than_one_word_of_bits(tmp_path):
    texts = [" ".join(f"w{number}" for number in range(70_000))] * 2 + ["天地人日月星 天地人日月星"]
    grams = grams_of(write(tmp_path / "a.jsonl", texts), 6)
    assert len(grams.names) == 70_006
    counts = as_counts(grams)
    assert counts["天", "地", "人", "日", "月", "星"] == 2
    assert counts[("w69999",)] == 2


def test_a_small_memory_gives_the_same_table(tmp_path, monkeypatch):
    monkeypatch.setattr(gram_counting, "BYTES_OF_A_CHARACTER", 1 << 14)
    monkeypatch.setattr(GramCounting, "block", property(lambda counting: counting.memory >> 14))
    generator = random.Random(0)
    texts = ["".join(generator.choices("天地人日月星", k=50)) for _ in range(200)]
    path = write(tmp_path / "a.jsonl", texts)
    large, small = grams_of(path, 5), grams_of(path, 5, memory=1 << 20)
    assert len([*(tmp_path / "scratch").glob("*.safetensors")]) > 100  # the small one has many runs
    assert as_counts(large) == as_counts(small)
    assert large.pairs == small.pairs == 200 * 49


class Elsewhere:
    """Does each task as a machine does that sees none of our files: what is sent is pickled."""

    alive = 1

    def run(self, tasks, done):
        results = [task.away.keep(pickle.loads(pickle.dumps(task.away.pack()))()) for task in tasks]
        for number, result in enumerate(results):
            done(number, result)
        return results


def test_a_machine_that_sees_no_files_counts_alike(tmp_path):
    texts, _ = planted()
    path = write(tmp_path / "a.jsonl", texts[:500])
    counting = GramCounting(4, tmp_path / "s", memory=1 << 20)
    counting.scratch.mkdir()
    shards = [shard for item in find_inputs([str(path)]) for shard in cut(item, 5000)]
    tables = []
    for does in (Elsewhere(), Elsewhere(), InProcess()):  # the second time, the runs are there
        counted = does.run([count_task(shard, counting) for shard in shards], lambda *_: None)
        tables.append(as_counts(merged(counted, counting, does, 2, "test")))
    assert tables[0] == tables[1] == tables[2]
    assert tables[0] == grams_by_hand(texts[:500], 4)


@given(
    st.lists(st.text("天地人𠀀ก", max_size=10), min_size=1, max_size=5),
    st.sets(st.text("天地人𠀀", min_size=2, max_size=4)),
)
def test_neighbours_are_bound_where_an_n_gram_of_the_set_has_both(tmp_path_factory, texts, chosen):
    path = write(tmp_path_factory.mktemp("text") / "a.jsonl", texts)
    grams = grams_of(path, 4)
    members = [
        np.array(
            [
                "".join(grams.names[unit - 1] for unit in units) in chosen
                for units in grams.units_of(order).tolist()
            ],
            bool,
        )
        for order in range(1, 5)
    ]
    found = cutting.cut(cutting.binding_of(grams, members, "runs")).split_all(texts)
    for text, tokens in zip(texts, found, strict=True):
        covered = {
            place
            for size in range(2, 5)
            for start in range(len(text) - size + 1)
            if text[start : start + size] in chosen
            for place in range(start, start + size - 1)
        }
        expected = "".join(c if i in covered else c + " " for i, c in enumerate(text)).split()
        assert tokens == expected


def test_an_n_gram_whose_hash_is_that_of_another_one_binds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "FILTER_BITS", 1)  # most n-grams have a hash in common
    text = "天地日月天日地月山天地月日"
    grams = grams_of(write(tmp_path / "a.jsonl", [text]), 2)
    is_member = [
        [grams.names[unit - 1] for unit in units] == ["天", "地"] for units in grams.units_of(2).tolist()
    ]
    binding = cutting.binding_of(grams, [np.zeros(len(grams.names), bool), np.array(is_member)], "runs")
    assert cutting.cut(binding).split(text) == [
        "天地", "日", "月", "天", "日", "地", "月", "山", "天地", "月", "日"
    ]  # fmt: skip


def test_strong_pairs_are_frequent_and_bound(tmp_path):
    generator = random.Random(9)
    texts = ["".join(generator.choices("天地人日月星", [9, 8, 7, 2, 2, 1], k=20)) for _ in range(30)]
    grams = grams_of(write(tmp_path / "a.jsonl", [*texts, "月星月星"]), 2)
    counts = as_counts(grams)
    strong = strong_pairs(grams, 0.01, 0.1)
    for units, is_strong in zip(grams.units_of(2).tolist(), strong.tolist(), strict=True):
        a, b = (grams.names[unit - 1] for unit in units)
        share = counts[a, b] / grams.pairs
        information = math.log(share * grams.total**2 / (counts[a,] * counts[b,]))
        assert is_strong == (share > 0.01 and information > 0.1)
    assert {*strong.tolist()} == {True, False}
