#!/usr/bin/env bash
# Arrow groups and joins 0.0 apart from -0.0, though it compares them as equal.
#
# Guess:    one value is one key: group_by, join, unique and is_in agree with ==, as in pandas, polars and DuckDB.
# Seen:     they compare the bits. Rounding -0.3 and 0.2 to whole numbers gives -0.0 and 0.0: two groups, two unique
#           values, and a left join that finds no partner for -0.0. `field == 0.0` keeps four rows where
#           `field.isin([0.0])` keeps two. NaN from 0/0 has another sign bit than numpy.nan, so there are two groups of NaN.
#           unique() of a pandas column of Arrow's type gives both zeros.
# Versions: pyarrow 26.0.1, numpy 2.4.6, pandas 3.1.1, polars 2.1.0.
# Matters:  rounded or scaled features are binned, counted and joined by their value. The bin around zero is
#           split and loses the rows from below, and both halves show the same number after a cast.
# Remedy:   add 0.0 to the column (-0.0 + 0.0 is 0.0), or use an integer or a decimal as the key.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  pyarrow==26.0.1 numpy==2.4.6 pandas==3.1.1 polars==2.1.0
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
import numpy as np, pandas as pd, polars as pl, pyarrow as pa, pyarrow.compute as pc
print("pyarrow", pa.__version__, "numpy", np.__version__, "pandas", pd.__version__, "polars", pl.__version__)
bins = pc.round(pa.array([-0.3, 0.2, 0.4, -0.1]))
rows = pa.table({"bin": bins, "count": [1, 1, 1, 1]})
names = pa.table({"bin": [0.0], "name": ["middle"]})
counts = lambda table: sorted(table.group_by("bin").aggregate([("count", "sum")])["count_sum"].to_pylist())
grouped = counts(rows)
joined = sorted(map(str, rows.join(names, "bin")["name"].to_pylist()))
equal = rows.filter(pc.field("bin") == 0.0).num_rows
listed = rows.filter(pc.field("bin").isin([0.0])).num_rows
distinct = pc.count_distinct(bins).as_py()
print("bins", bins.to_pylist(), "groups", grouped, "distinct", distinct)
print("joined", joined, "rows == 0.0:", equal, "rows isin [0.0]:", listed)
assert grouped == [2, 2] and distinct == 2, "zero is one group now"
assert joined == ["None", "None", "middle", "middle"] and (equal, listed) == (4, 2), "joins or isin have changed"
in_polars = pl.from_arrow(rows).group_by("bin").agg(pl.col("count").sum())["count"].to_list()
in_pandas = rows.to_pandas().groupby("bin")["count"].sum().tolist()
typed = pd.Series(bins.to_pylist(), dtype="double[pyarrow]")
print("polars", in_polars, "pandas", in_pandas, "unique of a pandas column of Arrow's type", typed.unique().tolist())
assert in_polars == in_pandas == [4] and typed.nunique() == 2
with np.errstate(invalid="ignore"):
    nothing = np.array([np.nan, (np.zeros(1) / np.zeros(1))[0]])
missing = pa.table({"bin": nothing, "count": [1, 1]})
print("signs of the two NaN:", np.signbit(nothing).tolist(), "groups", counts(missing))
assert counts(missing) == [1, 1], "NaN is one group now"
mended = counts(rows.set_column(0, "bin", pc.add(rows["bin"], 0.0)))
print("after adding 0.0:", mended)
assert mended == [4]
PY
