#!/usr/bin/env bash
# polars cuts 0.999 to 0 when the first hundred rows of a list held whole numbers.
#
# Guess:    a float after the rows that polars looked at is an error, as with read_ndjson or a column of
#           values, or widens the column.
# Seen:     pl.DataFrame(list of dicts) settles on Int64 after 100 rows and then cuts every later float
#           toward zero without an error: 0.5 and 0.999 are 0, -1.9 is -1. strict=True changes nothing.
#           Tuples with orient="row" do the same. The same rows as NDJSON or as one column raise.
# Versions: polars 2.1.0.
# Matters:  metrics are logged as dicts. A loss or an accuracy that starts at a whole number (0, 1)
#           for a hundred steps becomes a column of zeros, and the best step is chosen from it.
# Remedy:   pass infer_schema_length=None or a schema.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  polars==2.1.0
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
import io, json
import polars as pl
print("polars", pl.__version__)
rows = [{"accuracy": 1} for _ in range(100)] + [{"accuracy": x} for x in (0.5, 0.999, -1.9)]
from_dicts = pl.DataFrame(rows, strict=True)["accuracy"]
from_tuples = pl.DataFrame([(r["accuracy"],) for r in rows], schema=["accuracy"], orient="row")["accuracy"]
print("from dicts:", from_dicts.dtype, from_dicts[-3:].to_list(), "from tuples:", from_tuples[-3:].to_list())
assert from_dicts[-3:].to_list() == from_tuples[-3:].to_list() == [0, 0, -1], "late floats are kept or refused now"
for name, build in {
    "NDJSON": lambda: pl.read_ndjson(io.StringIO("\n".join(map(json.dumps, rows)))),
    "one column": lambda: pl.DataFrame({"accuracy": [r["accuracy"] for r in rows]}),
}.items():
    try:
        raise SystemExit(f"{name} is accepted now: {build()}")
    except (pl.exceptions.ComputeError, TypeError) as error:
        print(f"{name}: {type(error).__name__}")
whole = pl.DataFrame(rows, infer_schema_length=None)["accuracy"]
print("infer_schema_length=None:", whole.dtype, whole[-3:].to_list())
assert whole[-3:].to_list() == [0.5, 0.999, -1.9]
PY
