"""What the flow knows of the times of stages, and what it makes of them: an order, shares of the cores, a forecast."""

from dataclasses import replace
from pathlib import Path

import pytest

from genpipe import cores as machine
from genpipe.graph import Needs, Stage
from genpipe.params.cluster import WORKERS, Cluster
from tasks.order import hastened, next_to_start
from tasks.reproduce import Processes
from tasks.stages import Place, processes_of
from tasks.times import GUESSES, Times, expectation, keep_time, read_times, share
from tasks.trials import place_of_one


def stage(name: str, *upstream: str, ray: bool = True) -> Stage:
    return Stage(name, upstream, ("has never run",), Needs(ray=ray))


PREPARE, SHORT, LONG = stage("prepare@a"), stage("train@short", "prepare@a"), stage("train@long", "prepare@a")
JUDGE, LAST = stage("train@judge", "prepare@a"), stage("evaluate@short", "train@short", "train@judge")
STAGES = (PREPARE, SHORT, LONG, JUDGE, LAST)
KNOWN = Times(
    {
        "prepare@a": {1: 2.0},
        "train@short": {1: 10.0, 2: 12.0},
        "train@long": {1: 40.0, 2: 25.0},
        "train@judge": {1: 20.0},
        "evaluate@short": {1: 30.0},
    }
)


def test_the_stage_with_the_longest_chain_behind_it_starts_first() -> None:
    chains = KNOWN.chains(STAGES)
    assert chains == {
        "prepare@a": 52.0, "train@short": 40.0, "train@long": 40.0, "train@judge": 50.0, "evaluate@short": 30.0,
    }  # fmt: skip
    waiting = [SHORT, LONG, JUDGE, LAST]
    assert next_to_start(waiting, [], 2, chains) == JUDGE
    assert next_to_start([SHORT, LONG, LAST], [JUDGE], 2, chains) == SHORT, "of equal ones the first"
    urgent = Stage("urgent", (), ("x",), Needs(priority=1))
    assert next_to_start([*waiting, urgent], [], 2, chains) == urgent


def test_what_a_cluster_waits_for_comes_before_longer_chains() -> None:
    chains = hastened(KNOWN.chains(STAGES), list(STAGES), [SHORT])
    assert next_to_start([SHORT, LONG, JUDGE, LAST], [], 2, chains) == SHORT
    assert next_to_start([LONG, JUDGE, LAST], [SHORT], 2, chains) == JUDGE
    other = stage("prepare@b")
    long = Times({**KNOWN.recorded, "prepare@b": {1: 99.0}})
    waiting = [other, *STAGES]
    assert next_to_start(waiting, [], 2, long.chains(waiting)) == other
    chains = hastened(long.chains(waiting), waiting, [SHORT])
    assert next_to_start(waiting, [], 2, chains) == PREPARE, "what it needs, too"


def test_the_forecast_is_that_of_the_order_in_which_the_flow_starts_stages() -> None:
    """Two at once: prepare 0-2, judge 2-22, short 2-12, long 12-52, the last one 22-52."""
    assert KNOWN.forecast(STAGES, 2) == 52.0
    assert KNOWN.forecast(STAGES, 1) == 2.0 + 10.0 + 40.0 + 20.0 + 30.0
    assert KNOWN.forecast(STAGES, 9) == KNOWN.chains(STAGES)["prepare@a"]
    assert KNOWN.forecast(STAGES[1:2], 2) == 10.0, "what it waits for is up to date"


@pytest.mark.parametrize(
    ("free", "others", "limit", "given"),
    [(4, 0, 4, 4), (4, 1, 4, 2), (4, 3, 4, 1), (4, 9, 4, 1), (0, 0, 4, 1), (8, 1, 3, 3), (4, 0, 0, 1)],
)
def test_a_stage_gets_its_part_of_the_free_cores(free: int, others: int, limit: int, given: int) -> None:
    assert share(LONG, limit, free, others, Times({})) == given


def test_a_stage_for_which_two_processes_were_slower_gets_one() -> None:
    assert share(SHORT, 2, 2, 0, KNOWN) == 1
    assert share(LONG, 2, 2, 0, KNOWN) == 2
    assert share(JUDGE, 2, 2, 0, KNOWN) == 2, "not tried yet"


def test_of_a_stage_without_a_record_the_time_is_that_of_its_group() -> None:
    assert KNOWN.seconds("train@new") == (10.0 + 40.0 + 20.0) / 3
    assert Times({}).seconds("train@new") == GUESSES["train"]


def test_times_are_recorded_by_the_number_of_processes_and_said(tmp_path: Path) -> None:
    assert expectation(tmp_path, STAGES, 2).endswith(
        f"; guessed for {len(STAGES)} of them, which have not run here before"
    )
    keep_time(tmp_path, "train@long", 1, 400.0)
    keep_time(tmp_path, "train@long", 2, 240.04)
    keep_time(tmp_path, "train@long", 1, 60.0)
    assert read_times(tmp_path, STAGES) == Times({"train@long": {1: 60.0, 2: 240.04}})
    said = expectation(tmp_path, [LONG], 2)
    assert said == "that takes about 1.0 min with 2 stages at once"
    assert expectation(tmp_path, STAGES, 2).endswith(
        "; guessed for 4 of them, which have not run here before"
    )


def test_a_damaged_record_is_as_good_as_none(tmp_path: Path) -> None:
    keep_time(tmp_path, "train@long", 1, 1.0)
    (record,) = (tmp_path / ".genpipe" / "times").iterdir()
    for text in ("", "[1]", '{"one": 2}', '{"1": null}'):
        record.write_text(text)
        assert read_times(tmp_path, STAGES) == Times({})
    keep_time(tmp_path, "train@long", 2, 3.0)
    assert read_times(tmp_path, STAGES) == Times({"train@long": {2: 3.0}})


def test_a_stage_on_ray_has_all_workers_and_another_one_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    settings = Cluster(workers=4, executors={"train@long": "ray"})
    here = Place(4, Processes(), None, settings, cores=8)
    assert processes_of(LONG, here, 1, 3, Times({})) == 4
    assert processes_of(SHORT, here, 4, 1, Times({})) == 2
    assert processes_of(stage("sample@short", ray=False), here, 4, 0, Times({})) == 1
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert processes_of(SHORT, here, 4, 1, Times({})) == 4
    local = replace(here, settings=Cluster(workers=4, executors={"train": "local"}))
    assert processes_of(SHORT, local, 4, 1, Times({})) == 2, "as asked for, though a cluster is named"


def test_the_number_of_workers_of_the_project_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    three = Cluster(workers=3, max_workers=5)
    monkeypatch.delenv(WORKERS, raising=False)
    assert three.as_allotted() == three
    for given, workers in (("1", 1), ("3", 3), ("8", 3)):
        monkeypatch.setenv(WORKERS, given)
        allotted = three.as_allotted()
        assert (allotted.workers, allotted.max_workers) == (workers, None)
    assert Cluster(workers=0).as_allotted().workers == 0


@pytest.mark.parametrize(
    ("max_parallel", "trials", "cores"), [(8, 2, 4), (2, 9, 4), (8, 8, 1), (16, 9, 1), (8, 0, 8)]
)
def test_the_trials_that_run_at_once_divide_the_cores(max_parallel: int, trials: int, cores: int) -> None:
    here = place_of_one(Place(max_parallel, Processes(), None, Cluster(), cores=8), trials)
    assert (here.max_parallel, here.cores) == (1, cores)


@pytest.mark.parametrize(
    ("limit", "found"),
    [("max 100000\n", 64), ("200000 100000\n", 2), ("150000 100000\n", 2), ("10000 100000\n", 1), ("", 64)],
)
def test_a_container_has_the_cores_that_it_has_time_for(limit, found, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    if limit:
        (tmp_path / "cpu.max").write_text(limit)
    assert machine.cores() == found


def test_a_time_that_cannot_be_kept_fails_nothing(tmp_path):
    (tmp_path / ".genpipe").write_text("a file in the way")
    keep_time(tmp_path, "train@nice", 1, 2.0)
    assert not read_times(tmp_path, []).recorded
