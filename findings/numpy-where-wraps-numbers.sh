#!/usr/bin/env bash
# np.where(mask, labels, -1) of uint8 labels gives 255: a Python number that does not fit is wrapped without an error.
#
# Guess:    NumPy 2 refuses a Python integer that is out of bounds for the other array's type (OverflowError), here as in
#           np.add; NumPy 1 widened the result.
# Seen:     np.where and np.select take the type of the array and wrap the number: -1 is 255, 300 is 44, and 2**38 among int32
#           is 0. np.add, np.minimum, np.full_like and a plain assignment raise OverflowError for the same numbers.
#           np.int64(-1) in its place widens the result.
# Versions: numpy 2.4.6; numpy 1.26.4 gives int16 and -1.
# Matters:  -1 for "no label" in a mask of segments becomes class 255, and a very negative score that is to forbid something
#           becomes 0, the best score there is.
# Remedy:   give the constant a type: np.int64(-1).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 2.4.6 1.26.4; do
  python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/$version/site-packages" numpy==$version
done
cd "$folder"
cat > look.py <<'PY'
import sys

import numpy as np

labels, mask = np.array([7, 8, 9], np.uint8), np.array([True, False, True])
scores = np.array([5, 6, 7], np.int32)
found = [
    np.where(mask, labels, -1),
    np.where(mask, labels, 300),
    np.select([mask], [labels], -1),
    np.where(mask, scores, -(2**38)),
]
print("numpy", np.__version__, [(array.dtype.name, array.tolist()) for array in found])
if sys.argv[1] == "old":
    assert [array.tolist()[1] for array in found] == [-1, 300, -1, -(2**38)]
    raise SystemExit
assert [array.tolist()[1] for array in found] == [255, 44, 255, 0], "numbers are kept or refused now"
assert [array.dtype.name for array in found] == ["uint8", "uint8", "uint8", "int32"]


def assign():
    labels.copy()[0] = -1


for name, work in {
    "add": lambda: np.add(labels, -1),
    "minimum": lambda: np.minimum(labels, 300),
    "full_like": lambda: np.full_like(labels, -1),
    "assignment": assign,
}.items():
    try:
        work()
        raise SystemExit(f"{name} takes the number now")
    except OverflowError as error:
        print(f"{name}: {error}")
assert np.where(mask, labels, np.int64(-1)).tolist() == [7, -1, 9]
PY
PYTHONPATH="$folder/2.4.6/site-packages" python3 look.py new
PYTHONPATH="$folder/1.26.4/site-packages" python3 look.py old
