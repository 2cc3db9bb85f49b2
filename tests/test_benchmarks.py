"""How commands are compared: no assertion here is about speed."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import measure, texts
from benchmarks.corpus import scaling_table
from genpipe.errors import BadInput


def python(code: str, *more: str) -> list[str]:
    return [sys.executable, "-c", code, *more]


def writing(rows: str) -> list[str]:
    return python(f"import sys; open(sys.argv[1], 'w').write({rows!r})", f"{measure.OUT}.tsv")


def test_time_asleep_is_wall_and_not_cpu() -> None:
    run = measure.measured(python("import time; time.sleep(1)"), memory=False)
    assert run.wall >= 1
    assert run.cpu < run.wall
    assert (run.work, run.counts, run.peak) == (None, None, 0)


def test_memory_of_a_grandchild_is_seen() -> None:
    child = "import time; kept = bytearray(200_000_000); time.sleep(1.5)"
    run = measure.measured(
        python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"), memory=True
    )
    assert run.peak > 200_000_000


def test_cpu_of_a_child_that_nobody_waits_for_is_seen() -> None:
    # it ends with the parent, which does not wait for it: getrusage tells of neither
    child = "x = sum(range(10**12))"
    parent = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "time.sleep(2)\n"
        "import os, signal; os.kill(p.pid, signal.SIGKILL); os._exit(0)"
    )
    assert measure.measured(python(parent), memory=False).cpu > 0.3


def test_a_failure_is_told_with_its_last_line() -> None:
    with pytest.raises(BadInput, match=r"ended with 1: SystemExit|ended with 1: no such thing"):
        measure.measured(python("raise SystemExit('no such thing')"), memory=False)


def test_compare_alternates_and_makes_a_table() -> None:
    commands = {
        "a": python("print('{\"seconds\": 2}')"),
        "b": python("print('noise'); print('{\"seconds\": 1}')"),
    }
    table = measure.compare(commands, 2, base="a", megabytes={"a": 4.0, "b": 4.0})
    assert [len(row.runs) for row in table.rows] == [2, 2]
    assert [row.speeds("work") for row in table.rows] == [[2.0, 2.0], [4.0, 4.0]]
    line = next(line for line in str(table).splitlines() if line.startswith("| b |"))
    assert line.split("|")[6].strip() == "2.00"


def test_equal_counts_in_another_order_pass_and_others_do_not() -> None:
    measure.compare({"a": writing("x\t2\ny\t1\n"), "b": writing("y\t1\nx\t2\n")}, 1)
    unequal = {"a": writing("x\t2\n"), "b": writing("x\t3\n")}
    with pytest.raises(BadInput, match="wanted the same counts of all"):
        measure.compare(unequal, 1)
    measure.compare(unequal, 1, families={"a": "one", "b": "another"})


def test_parquet_and_tsv_hash_alike(tmp_path: Path) -> None:
    pq.write_table(pa.table({"token": ["的", "a"], "count": [3, 1]}), tmp_path / "counts.parquet")
    (tmp_path / "counts.tsv").write_text("a\t1\n的\t3\n", encoding="utf-8")
    hashes = {measure.hash_of_counts(tmp_path / f"counts.{kind}") for kind in ("tsv", "parquet")}
    assert len(hashes) == 1


def test_rounds_begin_with_another_command() -> None:
    assert [measure.rotated(["a", "b", "c"], number)[0] for number in range(4)] == ["a", "b", "c", "a"]


def test_efficiency_is_the_median_of_paired_rounds() -> None:
    table = scaling_table({1: [4.0, 4.0, 4.0], 2: [2.0, 2.5, 4.0]}, 8.0)
    assert table.splitlines()[-1] == "| 2 | 2.50 (2.00-4.00) | 3.2 | 0.80 |"


def test_documents_are_lines_that_every_reader_sees_alike() -> None:
    tidied = texts.tidy(["a\u3000b\r\nc\u2028d\x1ce", " ", "a b c d e", "\ufeff第一"])
    assert tidied == ["a b c d e", "第一"]
    assert texts.shuffled(["x", "y", "z"]) == texts.shuffled(["z", "x", "y"])
    assert list(texts.up_to(4, ["a", "b", "c"])) == ["a", "b"]
