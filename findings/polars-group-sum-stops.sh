#!/usr/bin/env bash
# A grouped Float32 sum in polars stops at 16,777,216 while the mean stays right.
#
# Guess:    sum is the same sum in select and in group_by: in blocks, good to some digits at any length.
# Seen:     in group_by each thread adds one by one in Float32. Forty million ones with one thread give
#           16,777,216, with several threads something in between. The plain sum is 40,000,000 and the
#           grouped mean 1.0, so sum and mean * len of one query disagree by more than half.
#           Float16 ends at 2,048 (the plain sum of it is infinite).
# Versions: polars 2.1.0.
# Matters:  features and losses are Float32. Totals over a large group are wrong by a factor that depends on the
#           number of cores, and a machine with more cores hides it.
# Remedy:   cast to Float64 before the sum.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  polars==2.1.0 numpy==2.4.6
export PYTHONPATH="$folder/site-packages"
cd "$folder"
POLARS_MAX_THREADS=1 python3 - <<'PY'
import numpy as np, polars as pl
print("polars", pl.__version__, "numpy", np.__version__)
size = 40_000_000
frame = pl.DataFrame({"loss": np.ones(size, dtype=np.float32), "model": np.zeros(size, dtype=np.int8)})
loss = pl.col("loss")
grouped = frame.group_by("model").agg(sum=loss.sum(), mean=loss.mean(), rows=pl.len()).row(0, named=True)
wide = frame.group_by("model").agg(loss.cast(pl.Float64).sum())["loss"].item()
print("plain sum", frame["loss"].sum(), "grouped", grouped, "grouped in Float64", wide)
assert frame["loss"].sum() == size == wide
assert grouped["sum"] == 2.0**24 and grouped["mean"] == 1.0, "the grouped sum has changed"
half = frame.head(100_000).with_columns(loss.cast(pl.Float16))
half_sums = half["loss"].sum(), half.group_by("model").agg(loss.sum())["loss"].item()
print("100,000 ones in Float16: plain sum", half_sums[0], "grouped", half_sums[1])
assert half_sums == (float("inf"), 2048.0), "Float16 has changed"
PY
