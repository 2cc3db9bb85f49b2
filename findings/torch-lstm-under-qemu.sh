#!/usr/bin/env bash
# Under qemu-user 7.2 torch's LSTM and grid_sample give wrong numbers, while everything beside them is right.
#
# Guess:    an emulator that runs all of torch without an error also computes what a processor computes, up to the
#           last bits: the same instructions are defined to the bit.
# Seen:     a float32 nn.LSTM is wrong by 0.3, where its numbers lie between -1 and 1, and grid_sample by 1.4. Both
#           agree with float64 to 1e-6 on a real processor, and GRU, linear layers, convolutions and attention agree with
#           it under the emulator too. With oneDNN switched off the LSTM is right. The emulated processor (Haswell, EPYC,
#           max) makes no difference.
# Versions: torch 2.13.0 on the CPU, qemu-user 7.2 as in Debian 12.
# Matters:  qemu-user is how images for other processors are built and tested. A test suite that passes there says
#           nothing about an LSTM, and a model trained there has learnt from wrong numbers, without a warning.
# Remedy:   compare with float64 before results from an emulator are believed; torch.backends.mkldnn.flags(enabled=False).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
(cd "$folder" && apt-get download -qq qemu-user && dpkg --extract qemu-user_*.deb qemu)
qemu="$folder/qemu/usr/bin/qemu-x86_64"
"$qemu" --version | head -n 1
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  torch==2.13.0 numpy==2.4.6
export PYTHONPATH="$folder/site-packages" OMP_NUM_THREADS=1
cat >"$folder/errors.py" <<'PY'
import json, torch
from torch import nn
from torch.nn.functional import grid_sample
torch.set_num_threads(1)
torch.manual_seed(0)
def error(function, *inputs):
    with torch.no_grad():
        found = function(*inputs)
        right = function.double()(*(x.double() for x in inputs)) if isinstance(function, nn.Module) else function(*(x.double() for x in inputs))
    first = lambda x: x[0] if isinstance(x, tuple) else x
    return float((first(found) - first(right)).abs().max())
words = torch.randn(5, 3, 16)
errors = {
    "LSTM": error(nn.LSTM(16, 32), words),
    "grid_sample": error(lambda x, grid: grid_sample(x, grid, align_corners=False), torch.randn(1, 3, 8, 8), torch.rand(1, 8, 8, 2) * 2 - 1),
    "GRU": error(nn.GRU(16, 32), words),
    "Conv2d": error(nn.Conv2d(3, 8, 3), torch.randn(2, 3, 8, 8)),
    "TransformerEncoderLayer": error(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0), words),
}
with torch.backends.mkldnn.flags(enabled=False):
    errors["LSTM without oneDNN"] = error(nn.LSTM(16, 32), words)
print(json.dumps(errors))
PY
cd "$folder"
python3 errors.py >real.json 2>/dev/null
python=$(python3 -c 'import sys; print(sys.executable)')
"$qemu" -cpu Haswell "$python" errors.py >emulated.json 2>emulated.log || { cat emulated.log; exit 1; }
python3 - <<'PY'
import json
real, emulated = (json.loads(open(name).read()) for name in ("real.json", "emulated.json"))
for name in real:
    print(f"{name}: largest error {real[name]:.1e} on this processor, {emulated[name]:.1e} emulated")
assert max(real.values()) < 1e-5
wrong = [name for name, error in emulated.items() if error > 1e-5]
assert wrong == ["LSTM", "grid_sample"], wrong
assert emulated["LSTM"] > 0.05 and emulated["grid_sample"] > 0.5
PY
