#!/usr/bin/env bash
# Slices of a tensor in a safetensors file are not those of the same array: the last page of a loop is an error.
#
# Guess:    get_slice("rows")[start:stop] follows the rules of Python: a stop behind the end means the end, and a slice that
#           holds nothing is empty.
# Seen:     a stop behind the end raises, so reading 10 rows in pages of 4 fails at the third page. An empty slice is an empty
#           array inside the tensor ([3:3]) and raises at its end ([10:10]). Of a tensor without rows even [:] raises, while
#           get_tensor reads it. A negative start raises OverflowError, while a negative index works.
# Versions: safetensors 0.8.0, numpy 2.4.6.
# Matters:  shards and ranges end where they end. Code that is tested on even sizes fails on the last page or on the first
#           worker whose part is empty.
# Remedy:   clamp the stop to get_shape(), and read nothing where the slice is empty.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  safetensors==0.8.0 numpy==2.4.6
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
import numpy as np
import safetensors
from safetensors import safe_open
from safetensors.numpy import save_file

rows = np.arange(20).reshape(10, 2)
save_file({"rows": rows, "none": rows[:0]}, "pages.safetensors")
print("safetensors", safetensors.__version__)


def read(name, where):
    with safe_open("pages.safetensors", "numpy") as file:
        try:
            found = file.get_slice(name)[where]
        except Exception as error:
            return type(error).__name__
        expected = {"rows": rows, "none": rows[:0]}[name][where]
        assert np.array_equal(found, expected)
        return f"{len(found)} rows" if isinstance(where, slice) else "a row"


pages = [read("rows", slice(start, start + 4)) for start in range(0, 10, 4)]
print("pages of 4:", pages)
assert pages == ["4 rows", "4 rows", "SafetensorError"], "a stop behind the end is taken now"
empty = [read("rows", slice(3, 3)), read("rows", slice(10, 10)), read("none", slice(None))]
print("[3:3], [10:10], [:] of no rows:", empty)
assert empty == ["0 rows", "SafetensorError", "SafetensorError"], "all empty slices are alike now"
last = [read("rows", -1), read("rows", slice(-1, None))]
print("[-1], [-1:]:", last)
assert last == ["a row", "OverflowError"], "a negative start is taken now"
with safe_open("pages.safetensors", "numpy") as file:
    assert file.get_tensor("none").shape == (0, 2)
PY
