#!/usr/bin/env bash
# The mean of two polars columns can lie outside the range of its values.
#
# Guess:    mean_horizontal adds in floating point, since its result is Float64 and since mean,
#           list.mean and rolling_mean are right on the same values.
# Seen:     it adds in the type of the columns first. The mean of the UInt8 values 200 and 100 is 22,
#           the mean of two equal large Int64 values is negative.
# Versions: polars 2.1.0.
# Matters:  pixel, token-count and score columns are often small integers. Averaging the marks of two raters
#           or two image channels gives plausible small numbers.
# Remedy:   cast to Float64 before pl.mean_horizontal.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  polars==2.1.0
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
import polars as pl
print("polars", pl.__version__)
pixels = pl.DataFrame({"red": [200], "green": [100]}, schema={"red": pl.UInt8, "green": pl.UInt8})
wrong = pixels.select(pl.mean_horizontal("red", "green")).item()
as_list = pixels.select(pl.concat_list("red", "green").list.mean()).item()
right = pixels.select(pl.mean_horizontal(pl.all().cast(pl.Float64))).item()
print("mean_horizontal of 200 and 100 (UInt8):", wrong, "list.mean:", as_list, "after a cast:", right)
large = pl.DataFrame({"a": [2**62], "b": [2**62]})
negative = large.select(pl.mean_horizontal("a", "b")).item()
print("mean_horizontal of 2**62 and 2**62 (Int64):", negative, "mean of the column:", large["a"].mean())
assert (wrong, as_list, right) == (22.0, 150.0, 150.0), "mean_horizontal has changed"
assert negative == -float(2**62), "mean_horizontal of Int64 has changed"
PY
