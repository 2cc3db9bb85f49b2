"""Sorted runs: their sum by ranges, in the order of counts."""

import errno
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genpipe.corpus import runs
from genpipe.corpus.runs import Part, Range, Run

tokens = st.text(st.sampled_from("ab山水𠀀\n é"), max_size=3)
counters = st.lists(st.dictionaries(tokens, st.integers(1, 5), max_size=30), min_size=1, max_size=4)


def run_of(counts: dict[str, int], path: Path) -> Run:
    frame = pl.DataFrame(
        {"token": list(counts), "count": list(counts.values())},
        schema={"token": pl.String, "count": pl.Int64},
    )
    return runs.write_run(path, runs.by_token(frame), {"tokens": sum(counts.values())})


def summed(given_runs: list[Run], within: Range) -> pl.DataFrame:
    return runs.add_up(runs.rows_within(given_runs, within))


def ordered_parts(given_runs: list[Run], number: int, directory: Path) -> list[Part]:
    parts = []
    for i, within in enumerate(runs.choose_ranges(given_runs, number)):
        total = summed(given_runs, within).sort("count", "token", descending=[True, False])
        parts.append(runs.write_part(directory / f"part{i}.arrow", total, len(total)))
    return parts


@settings(max_examples=60)
@given(counters, st.integers(1, 6), st.sampled_from([1, 2, 7, 1 << 20]))
def test_the_sum_has_the_same_rows_in_the_same_order_for_any_ranges(
    tmp_path_factory, all_counts, number, batch
):
    directory = tmp_path_factory.mktemp("runs")
    total = sum(map(Counter, all_counts), Counter())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "PART_ROWS", batch)
        patch.setattr(runs, "RUN_ROWS", 3)
        given_runs = [run_of(counts, directory / f"{i}.parquet") for i, counts in enumerate(all_counts)]
        rows = runs.by_count(ordered_parts(given_runs, number, directory)).collect(engine="streaming").rows()
    assert rows == sorted(total.items(), key=lambda item: (-item[1], item[0]))


def test_the_file_has_the_same_bytes_for_any_number_of_ranges(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUN_ROWS", 10)
    given_runs = [
        run_of({f"w{i * k % 997}": i % 7 + 1 for i in range(2000)}, tmp_path / f"run{k}.parquet")
        for k in (1, 3)
    ]
    files = []
    for number in (1, 2, 8):
        path = tmp_path / f"{number}.parquet"
        directory = tmp_path / str(number)
        runs.write_table(path, runs.by_count(ordered_parts(given_runs, number, directory)))
        files.append(path.read_bytes())
    assert len(set(files)) == 1
    assert len(pl.read_parquet(tmp_path / "1.parquet")) == 997


def test_the_top_rows_are_those_of_the_whole(tmp_path):
    given_runs = [run_of({f"w{i}": i + 1 for i in range(100)}, tmp_path / "run.parquet")]
    parts = ordered_parts(given_runs, 3, tmp_path)
    runs.write_table(tmp_path / "top.parquet", runs.by_count(parts).head(5))
    assert pl.read_parquet(tmp_path / "top.parquet")["count"].to_list() == [100, 99, 98, 97, 96]


def test_a_run_that_was_cut_off_is_none(tmp_path):
    path = tmp_path / "run.parquet"
    run_of({"a": 1}, path)
    assert runs.open_run(path).about == {"tokens": 1}
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(pl.exceptions.ComputeError):
        runs.open_run(path)


def test_a_full_disk_keeps_its_number():
    with pytest.raises(OSError, match="/dev/full") as failed:
        runs.write_table(Path("/dev/full"), pl.LazyFrame({"token": ["a"], "count": [1]}))
    assert failed.value.errno == errno.ENOSPC


def test_counting_text_imports_no_library_that_it_does_not_need():
    code = (
        "import sys, genpipe.corpus.counts; print({'pyarrow', 'numpy', 'pydantic', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_ranges_hold_about_as_many_rows_each(tmp_path):
    given_runs = [
        run_of({f"{i:06}": 1 for i in range(k, 600_000, 3)}, tmp_path / f"{k}.parquet") for k in range(3)
    ]
    sizes = [len(summed(given_runs, within)) for within in runs.choose_ranges(given_runs, 8)]
    assert len(sizes) == 8
    assert sum(sizes) == 600_000
    assert max(sizes) < 1.2 * min(sizes)


def test_a_run_that_is_there_twice_counts_twice(tmp_path):
    run = run_of({"a": 2, "b": 1}, tmp_path / "run.parquet")
    assert sorted(summed([run, run], (None, None)).rows()) == [("a", 4), ("b", 2)]


def test_a_token_too_long_for_a_footer_is_in_its_range(tmp_path):
    counts = {"a": 1, "b" * 10_000: 2, "c": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "RUN_ROWS", 1)
        run = run_of(counts, tmp_path / "run.parquet")
    ranges = runs.choose_ranges([run], 3)
    assert len(ranges) > 1
    assert dict(row for within in ranges for row in summed([run], within).rows()) == counts


@pytest.mark.parametrize(("num_runs", "rows"), [(300, 300), (1000, 10)])
def test_ranges_of_many_small_runs_are_even_too(tmp_path, num_runs, rows):
    every = [f"{i:06}" for i in range(num_runs * rows)]
    random.Random(0).shuffle(every)
    given_runs = [
        run_of(dict.fromkeys(every[i::num_runs], 1), tmp_path / f"{i}.parquet") for i in range(num_runs)
    ]
    sizes = [len(summed(given_runs, within)) for within in runs.choose_ranges(given_runs, 10)]
    assert len(sizes) == 10
    assert sum(sizes) == len(every)
    assert max(sizes) < 1.3 * len(every) / 10


def test_ranges_weigh_a_row_group_by_its_rows(tmp_path):
    large = run_of({f"b{i:06}": 1 for i in range(100_000)}, tmp_path / "large.parquet")
    small = [
        run_of({f"a{i:06}": 1 for i in range(k, 2000, 20)}, tmp_path / f"{k}.parquet") for k in range(20)
    ]
    sizes = [len(summed([large, *small], within)) for within in runs.choose_ranges([large, *small], 4)]
    assert len(sizes) == 4
    assert max(sizes) < 1.3 * 102_000 / 4


def test_a_joined_run_is_cut_into_ranges_as_its_parts_are(tmp_path):
    parts = [run_of({f"{k}{i:05}": 1 for i in range(20_000)}, tmp_path / f"{k}.parquet") for k in "ab"]
    joined = runs.open_run(runs.join_runs(tmp_path / "joined.parquet", parts, {}).path)
    sizes = [len(summed([joined], within)) for within in runs.choose_ranges([joined], 4)]
    assert (joined.rows, sum(sizes), len(sizes)) == (40_000, 40_000, 4)
    assert max(sizes) < 1.2 * min(sizes)
