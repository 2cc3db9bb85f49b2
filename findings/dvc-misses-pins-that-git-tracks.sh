#!/usr/bin/env bash
# DVC does not see a .dvc file that Git tracks, where .gitignore says `/data/*` and then `!/data/*.dvc`.
#
# Guess:    Git tracks data/raw.dvc, and `git check-ignore data/` says that the folder is not ignored, so DVC
#           finds the file there: `dvc status` reports changed data, and stages wait for it.
# Seen:     DVC asks dulwich whether `data/` is ignored, and dulwich takes the star of `/data/*` for nothing at
#           all: yes. DVC skips the folder without a word. `dvc status` after a change says that nothing is tracked, and
#           `dvc pull` fetches nothing; with the name of the .dvc file both work. The same two lines in
#           data/.gitignore, as `/*` and `!/*.dvc`, are read as Git reads them.
# Versions: dvc 3.67.1 (dulwich 1.2.21), Git 2.39, Python 3.11.
# Matters:  the raw data of a project is out of its graph: changed data runs no stage by this way, and a clone pulls
#           nothing. `dvc add` writes another .gitignore; people who keep a folder empty but for pins write this one.
# Remedy:   put the patterns into data/.gitignore.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  dvc==3.67.1 dulwich==1.2.21
export PYTHONPATH="$folder/site-packages" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$folder/state"
mkdir "$folder/project" && cd "$folder/project"
git init --quiet
python3 -m dvc init --quiet
mkdir data && echo spring > data/raw
python3 -m dvc add --quiet data/raw
rm data/.gitignore
printf '/data/*\n!/data/*.dvc\n' > .gitignore
git add . && git ls-files data
if git check-ignore --quiet data/; then echo "Git ignores the folder"; exit 1; fi
echo autumn > data/raw
above=$(python3 -m dvc status)
named=$(python3 -m dvc status data/raw.dvc)
rm .gitignore && printf '/*\n!/*.dvc\n!/.gitignore\n' > data/.gitignore
beside=$(python3 -m dvc status)
printf '%s\n' "patterns above: $above" "the same, by name: $named" "patterns in the folder: $beside"
[[ $above == *"no data or pipelines tracked"* && $named == *"data/raw"* && $beside == *"data/raw"* ]] || { echo "this is no longer so"; exit 1; }
