#!/usr/bin/env bash
# default_rng([seed, 0]) repeats the stream of default_rng(seed).
#
# Guess:    a list of numbers is hashed as a whole, so [7], [7, 0] and [7, 0, 0] are three streams.
# Seen:     SeedSequence writes its numbers as 32-bit words and fills up with zeros to four words.
#           7, [7, 0], [7, 0, 0] and [7, 0, 0, 0] are one stream, [7, 1] is that of 7 + 2**32,
#           [2**32, 5] that of [0, 1, 5]. With five words a trailing zero does count.
# Versions: numpy 2.4.6.
# Matters:  [seed, epoch] or [seed, epoch, worker] is a common way to seed. Epoch 0 or worker 0 then repeats
#           the numbers of the parent that was seeded with less: the split, the shuffle or the
#           initialisation. A test with two workers sees no clash between them.
# Remedy:   SeedSequence(seed).spawn(n), or spawn_key=(epoch, worker), which is separate from the seed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  numpy==2.4.6
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
import numpy as np
print("numpy", np.__version__)
def same(a, b):
    return bool((np.random.default_rng(a).random(8) == np.random.default_rng(b).random(8)).all())
pairs = [(7, [7]), (7, [7, 0]), (7, [7, 0, 0]), (7, [7, 0, 0, 0]), ([7, 3], [7, 3, 0]),
         (7 + 2**32, [7, 1]), ([2**32, 5], [0, 1, 5])]
for a, b in pairs:
    print(a, "and", b, "are one stream:", same(a, b))
    assert same(a, b), "these streams differ now"
assert not same(7, [0, 7]) and not same(7, [7, 0, 0, 0, 0])
key = lambda *words: np.random.SeedSequence(7, spawn_key=words)
assert not same(7, key(0)) and not same(key(0), key(0, 0))
print("spawn keys (), (0,) and (0, 0) are three streams")
PY
