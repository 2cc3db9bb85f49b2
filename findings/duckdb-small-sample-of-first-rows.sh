#!/usr/bin/env bash
# DuckDB draws a small sample of a table from its first rows only.
#
# Guess:    USING SAMPLE 5 ROWS is a reservoir sample: every row of the table has the same chance.
# Seen:     a sample of n rows, n below 30, holds no row beyond the first 4096 * n. A sample of one row out of a
#           million lies between row 2,048 and row 4,095 every time. 30 rows and more reach the whole table.
#           The scan takes round(n * 2048 / rows seen) rows from each block of 2,048, and that is 0 once 4096 * n
#           rows are behind it. A block that gives none is not counted as seen, so it stays 0 for good. At 122,880 rows
#           seen another method takes over, which n below 30 never reaches (read in the code of its repository, and seen
#           in the numbers). `reservoir`, TABLESAMPLE and a seed do the same.
# Versions: duckdb 2.0.1; 1.4.5 and 1.5.6 do it too.
# Matters:  a few rows to look at, to judge by hand or to put into a prompt come from the oldest file or the first
#           class of a sorted table, and repeated draws confirm it. A test with 1,000 rows, or drawing 1,000, sees nothing.
# Remedy:   ORDER BY random() LIMIT n, or USING SAMPLE 100 ROWS around which ORDER BY random() LIMIT n stands.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  duckdb==2.0.1
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
import duckdb
print("duckdb", duckdb.__version__)
database = duckdb.connect(config={"threads": 1})
database.execute("create table events as select range as number from range(1_000_000)")
def drawn(query, times=60):
    return [row[0] for _ in range(times) for row in database.execute(query).fetchall()]
for size in (1, 2, 5, 12, 29, 30, 100):
    rows = drawn(f"select number from events using sample {size} rows")
    print(f"60 samples of {size} rows: from row {min(rows):,} to row {max(rows):,}")
    assert len(rows) == 60 * size
    assert (max(rows) < 4096 * size) == (size < 30), "small samples have changed"
single = drawn("select number from events using sample reservoir(1 rows)")
assert 2048 <= min(single) and max(single) < 4096 and len(set(single)) > 40, "a sample of one row has changed"
first, second = (drawn(f"select number from events {clause}", 30) for clause in (
    "tablesample reservoir(5 rows)", "using sample reservoir(5 rows) repeatable (7)"))
assert max(first + second) < 4096 * 5
assert max(row[0] for _ in range(30) for row in database.sql("from events using sample 5").fetchall()) < 4096 * 5
right = drawn("select number from events order by random() limit 5")
mended = drawn("select number from (from events using sample 100 rows) order by random() limit 5")
for name, rows in {"order by random() limit 5": right, "the same out of 100 rows": mended}.items():
    share = sum(row < 4096 * 5 for row in rows) / len(rows)
    print(f"{name}: up to row {max(rows):,}, {share:.0%} from the first 20,480")
    assert max(rows) > 900_000 and share < 0.1
PY
