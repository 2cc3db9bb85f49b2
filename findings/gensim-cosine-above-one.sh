#!/usr/bin/env bash
# gensim gives a cosine similarity of 106 once a vector was replaced.
#
# Guess:    vectors[word] = vector keeps all else in step: the lengths that most_similar divides by are computed again.
# Seen:     the lengths are computed at the first most_similar and kept. Setting a vector through the public interface
#           (vectors[word], or add_vectors with replace) leaves them as they were, so most_similar divides by the length
#           of the old vector: 106 for a vector that became a hundred times longer, and the order of the words is
#           wrong. similarity() and distances() of the same two words compute afresh and are right. A word that is
#           added after the first search has no length, and the next search fails.
# Versions: gensim 4.4.0, numpy 2.4.6.
# Matters:  vectors are replaced to retrofit them, to load a corrected set or to centre them, often after a first look
#           at the neighbours. The same code without the first look is right.
# Remedy:   fill_norms(force=True) after each change.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  gensim==4.4.0 numpy==2.4.6
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
import gensim, numpy as np
from gensim.models import KeyedVectors
print("gensim", gensim.__version__, "numpy", np.__version__)
def replaced(look_first):
    vectors = KeyedVectors(3)
    vectors.add_vectors(["tea", "milk", "ink"], np.array([[1.1, 0.1, 0.1], [0.1, 1.1, 0.1], [1, 0.5, 0.5]], dtype=np.float32))
    if look_first:
        vectors.most_similar("tea")
    vectors["milk"] = np.array([100, 100, 100], dtype=np.float32)
    return vectors
for look_first in (False, True):
    vectors = replaced(look_first)
    found = [(word, round(cosine, 3)) for word, cosine in vectors.most_similar("tea")]
    single = round(float(vectors.similarity("tea", "milk")), 3)
    print("after a first look:" if look_first else "without a first look:", found, "similarity", single)
    assert single == 0.677 and round(float(1 - vectors.distances("tea", ["milk"])[0]), 3) == 0.677
    if look_first:
        assert found[0][0] == "milk" and found[0][1] > 90, "the lengths are kept in step now"
    else:
        assert found[0][0] == "ink" and found[1] == ("milk", 0.677)
vectors.fill_norms(force=True)
assert vectors.most_similar("tea")[0][0] == "ink"
vectors["rice"] = np.array([1, 1, 0], dtype=np.float32)
try:
    vectors.most_similar("tea")
    raise SystemExit("a word added later is found now")
except (IndexError, ValueError) as error:
    print("a word added later:", type(error).__name__, error)
PY
