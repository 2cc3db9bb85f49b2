#!/usr/bin/env bash
# torch.multinomial over ten million equal float32 weights prefers the second half.
#
# Guess:    equal weights give equal chances; the limit of 2**24 categories is what guards precision.
# Seen:     weights are summed up one by one in float32 on the CPU. With 10 million weights of 0.1 the
#           running sum rounds each step, and the last four tenths are drawn 1.3 times as often as the
#           tenths before them. The same weights as float64 are drawn evenly.
# Versions: torch 2.13.0 on the CPU.
# Matters:  negative sampling and weighted choice of rows use one weight a row. The bias depends on the order
#           of rows, and every small test is right.
# Remedy:   pass float64 weights, as WeightedRandomSampler does by itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  torch==2.13.0 numpy==2.4.6
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
import torch
print("torch", torch.__version__)
torch.set_num_threads(1)
size, draws = 10_000_000, 1_000_000
def tenths(weights):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(weights, draws, replacement=True, generator=generator)
    return torch.bincount(drawn // (size // 10), minlength=10).tolist()
weights = torch.full((size,), 0.1)
single, double = tenths(weights), tenths(weights.double())
print("float32:", single)
print("float64:", double)
fair = draws / 10
assert max(single) > 1.1 * fair and min(single) < 0.9 * fair, "float32 weights are drawn evenly now"
assert 0.98 * fair < min(double) and max(double) < 1.02 * fair
PY
