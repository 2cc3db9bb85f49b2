#!/usr/bin/env bash
# In NumPy format a float64 column of datasets is float64 by row and float32 by batch.
#
# Guess:    with_format("numpy") gives the type that the features name, float64.
# Seen:     a single row holds float64, a column or a batch float32. Row-wise filter works on batches inside:
#           on times in seconds it keeps none of the rows that it should keep. A batched map that returns
#           the column unchanged writes the rounded values into a column still called float64.
#           The torch format rounds too; pandas, polars and arrow do not.
# Versions: datasets 5.2.0, numpy 2.4.6.
# Matters:  float32 has steps of 128 at 1.7e9, so times, offsets and identifiers held as float64 merge.
#           The features go on saying float64.
# Remedy:   with_format("numpy", dtype=np.float64), or the arrow format.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6 dill==0.4.1
export PYTHONPATH="$folder/site-packages"
cd "$folder"
HF_DATASETS_OFFLINE=1 HF_HOME="$folder" HF_DATASETS_DISABLE_PROGRESS_BARS=1 python3 - <<'PY'
import datasets, numpy as np
print("datasets", datasets.__version__, "numpy", np.__version__)
plain = datasets.Dataset.from_dict({"time": [1700000000.25, 1700000001.25, 1700000002.25]})
rows = plain.with_format("numpy")
print("feature", plain.features["time"], "row", type(rows[0]["time"]).__name__, "column", rows["time"][:].dtype)
late = lambda row: row["time"] > 1700000000.5
counts = len(plain.filter(late)), len(rows.filter(late))
same = rows.map(lambda batch: {"time": batch["time"]}, batched=True).with_format(None)
print("filter keeps", counts[0], "rows without format and", counts[1], "in NumPy format")
print("after an identity map:", same.features["time"], same["time"][:])
assert rows[0]["time"].dtype == np.float64 and rows["time"][:].dtype == np.float32, "the types agree now"
assert counts == (2, 0), "filter agrees now"
assert same["time"][:] == [1700000000.0] * 3 and same.features["time"].dtype == "float64"
wide = plain.with_format("numpy", dtype=np.float64)
assert len(wide.filter(late)) == 2
PY
