#!/usr/bin/env bash
# A matrix from DataFrame.to_numpy() comes back from safetensors scrambled.
#
# Guess:    safetensors.numpy saves the values of an array, or refuses an array that is not contiguous,
#           as safetensors.torch does.
# Seen:     it writes the memory of the array as it lies and records the shape. A matrix in column order
#           keeps its shape and its set of values, but they stand in other places. There is no error.
#           pandas and polars both return column order from to_numpy() for an ordinary float frame.
# Versions: safetensors 0.8.0, numpy 2.4.6, pandas 3.1.1, polars 2.1.0.
# Matters:  features and embeddings leave data frames in this way. Sums and means of the whole file still
#           agree, so a quick check does not see the damage.
# Remedy:   pass np.ascontiguousarray(x), and compare one row after loading.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  safetensors==0.8.0 numpy==2.4.6 pandas==3.1.1 polars==2.1.0
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
import numpy as np, pandas as pd, polars as pl, safetensors
from safetensors.numpy import load, save
print("safetensors", safetensors.__version__, "numpy", np.__version__)
print("pandas", pd.__version__, "polars", pl.__version__)
columns = {"a": [1.0, 2.0, 3.0], "b": [10.0, 20.0, 30.0]}
for library in (pd, pl):
    matrix = library.DataFrame(columns).to_numpy()
    loaded = load(save({"x": matrix}))["x"]
    print(library.__name__, "saved", matrix.tolist(), "loaded", loaded.tolist())
    assert loaded.shape == matrix.shape and loaded.sum() == matrix.sum()
    assert loaded.tolist() == [[1.0, 2.0], [3.0, 10.0], [20.0, 30.0]], "the matrix is no longer scrambled"
    mended = load(save({"x": np.ascontiguousarray(matrix)}))["x"]
    assert np.array_equal(mended, matrix)
PY
