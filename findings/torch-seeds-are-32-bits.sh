#!/usr/bin/env bash
# torch generators on the CPU use only the low 32 bits of a seed.
#
# Guess:    manual_seed takes 64 bits (initial_seed() returns them all), so seeds cut from a 64-bit hash
#           never meet in practice.
# Seen:     seed s and seed s + 2**32 give the same numbers, for a Generator and for torch.manual_seed.
#           Among 200,000 seeds cut from SHA-256 some 5 pairs share a stream; 64 bits would give none.
# Versions: torch 2.13.0.
# Matters:  pipelines seed each sample or shard with a hash of its name. At 77,000 names one pair with
#           the same noise is as likely as not, and a high word that holds the epoch or the trial changes nothing.
# Remedy:   draw such numbers with numpy's SeedSequence or Philox, or give torch 32-bit seeds that are
#           checked to be distinct.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  torch==2.13.0
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
import hashlib
import torch
print("torch", torch.__version__)
generator = torch.Generator()
def draw(seed):
    return torch.rand(4, generator=generator.manual_seed(seed))
trial_a, trial_b = (1 << 32) | 7, (2 << 32) | 7
print("seed", trial_a, draw(trial_a).tolist(), "\nseed", trial_b, draw(trial_b).tolist())
assert torch.equal(draw(trial_a), draw(trial_b)) and torch.equal(draw(7), draw(trial_a)), "the high bits count now"
first = torch.manual_seed(trial_a) and torch.randn(4)
second = torch.manual_seed(trial_b) and torch.randn(4)
assert torch.equal(first, second) and torch.initial_seed() == trial_b
seen, pairs = {}, []
for i in range(200_000):
    seed = int.from_bytes(hashlib.sha256(b"shard %d" % i).digest()[:8], "big") >> 1
    low = seed & 0xFFFFFFFF
    if low in seen:
        pairs.append((seen[low], seed))
    seen[low] = seed
print("pairs of 64-bit hashes with one stream:", len(pairs))
assert pairs and all(a != b and torch.equal(draw(a), draw(b)) for a, b in pairs)
PY
