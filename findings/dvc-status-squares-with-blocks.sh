#!/usr/bin/env bash
# `dvc status` looks at every value of params.yaml once for each stage: four times the blocks take sixteen times the looks.
#
# Guess:    a stage names `blocks.b7` as its parameter, so DVC takes that key out of the parsed file, and the time of
#           `dvc status` grows with the number of stages.
# Seen:     DVC passes the key to `dpath.get`, which walks through all values of the file in order and compares the path
#           of each one with the key, until one fits. With 25 stages of `foreach`, a block of 20 numbers each, it
#           looks at 13,200 values, with 100 stages at 210,300: 16 times as many. With 130 blocks, and a second file of 20,000 hashes
#           that each stage names a part of, this was two thirds of the time of a status.
# Versions: dvc 3.67.1, dpath 2.2.0, Python 3.11.
# Matters:  one params.yaml with a block for each experiment is what `foreach` is made for, and `dvc status` and `dvc repro`
#           of one stage slow down with every experiment that is kept.
# Remedy:   several small parameter files, or a look-up by the parts of the key where DVC is used from Python.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" dvc==3.67.1 dpath==2.2.0
export PYTHONPATH="$folder/site-packages" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$folder/state"
looks() {
  mkdir "$folder/$1" && cd "$folder/$1"
  git init --quiet && python3 -m dvc init --quiet
  python3 - "$1" <<'PY'
import json, sys
blocks = {f"b{i}": {f"x{j}": j for j in range(20)} for i in range(int(sys.argv[1]))}
stage = {"foreach": "${blocks}", "do": {"cmd": "true", "params": ["blocks.${key}"]}}
open("params.yaml", "w").write(json.dumps({"blocks": blocks}))
open("dvc.yaml", "w").write(json.dumps({"stages": {"train": stage}}))
PY
  python3 -m dvc commit --quiet --force
  python3 -m cProfile -o "$folder/$1.profile" -m dvc status > /dev/null
  python3 - "$folder/$1.profile" <<'PY'
import pstats, sys
calls = pstats.Stats(sys.argv[1]).stats
print(sum(found[1] for (file, _, name), found in calls.items() if file.endswith("dpath/segments.py") and name == "leaf"))
PY
}
few=$(looks 25)
many=$(looks 100)
echo "25 stages: $few values looked at; 100 stages: $many"
(( many > 10 * few )) || { echo "this is no longer so"; exit 1; }
