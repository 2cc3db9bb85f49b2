#!/usr/bin/env bash
# A filter that says `in {"the", "a"}` is never found in the cache of datasets.
#
# Guess:    the fingerprint of a function does not depend on the process, as it does not for a function
#           that uses a global set: datasets sorts sets before it hashes them.
# Seen:     Python compiles `x in {...}` to a frozenset constant. datasets sorts sets but not frozensets,
#           so the fingerprint follows the hash seed of the process. A frozenset among the globals or
#           among the attributes of an object does the same. A global set and a tuple are stable.
# Versions: datasets 5.2.0 (dill 0.4.1), Python 3.11.
# Matters:  every start of a pipeline runs the step and all later steps again, and leaves another cache
#           file on the disk. Nothing warns, since the function can be pickled.
# Remedy:   use a tuple or a global set, or pass new_fingerprint.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6 dill==0.4.1
export PYTHONPATH="$folder/site-packages"
cd "$folder"
cat > fingerprints.py <<'PY'
import datasets
from datasets.fingerprint import Hasher
COMMON = {"the", "a", "of", "and"}
FROZEN = frozenset(COMMON)
print(datasets.__version__,
      Hasher.hash(lambda row: row["word"] not in {"the", "a", "of", "and"}),
      Hasher.hash(lambda row: row["word"] not in FROZEN),
      Hasher.hash(lambda row: row["word"] not in COMMON),
      Hasher.hash(lambda row: row["word"] not in ("the", "a", "of", "and")))
PY
for seed in 1 2 3; do
  PYTHONHASHSEED=$seed HF_DATASETS_OFFLINE=1 HF_HOME="$folder" python3 fingerprints.py
done | tee fingerprints.txt
for column in 2 3; do
  kinds=$(cut -d ' ' -f $column fingerprints.txt | sort -u | wc -l)
  [ "$kinds" -gt 1 ] || { echo "column $column is stable now"; exit 1; }
done
for column in 4 5; do
  kinds=$(cut -d ' ' -f $column fingerprints.txt | sort -u | wc -l)
  [ "$kinds" -eq 1 ] || { echo "column $column moves now"; exit 1; }
done
echo "three processes: braces and frozenset differ, global set and tuple agree"
