"""n-grams of units: exact counts, whatever the shards, the memory and the place of the work."""

import pickle
import random

from hypothesis import given
from hypothesis import strategies as st

from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import cut
from genpipe.corpus.tasks import InProcess
from genpipe.discovery import gram_counting
from genpipe.discovery.gram_counting import GramCounting, count_task, merged
from genpipe.discovery.units import split_units
from tests.discovering import as_counts, grams_by_hand, grams_of, planted, write

TEXTS = st.lists(st.text(st.sampled_from("天地日月 ，ab1é가ก็\n"), max_size=12), min_size=1, max_size=8)


def test_runs_of_letters_and_digits_are_units():
    assert split_units(["中国WTO第3次", "café1990年", "e\u0301te\u0301"], "runs") == [
        ["中", "国", "WTO", "第", "3", "次"],
        ["café1990", "年"],
        ["e\u0301te\u0301"],
    ]
    assert split_units(["WTO"], "characters") == [["W", "T", "O"]]


@given(TEXTS, st.integers(2, 6), st.integers(1, 3), st.sampled_from([40, 200, 1 << 20]))
def test_n_grams_are_those_of_a_counter(tmp_path_factory, texts, order, min_count, shard_bytes):
    path = write(tmp_path_factory.mktemp("text") / "a.jsonl", texts)
    grams = grams_of(path, order, min_count=min_count, shard_bytes=shard_bytes)
    expected = grams_by_hand(texts, order)
    assert as_counts(grams) == {gram: count for gram, count in expected.items() if count >= min_count}
    assert grams.total == sum(count for gram, count in expected.items() if len(gram) == 1)
    assert grams.pairs == sum(count for gram, count in expected.items() if len(gram) == 2)


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
