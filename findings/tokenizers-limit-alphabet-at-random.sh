#!/usr/bin/env bash
# limit_alphabet chooses at random among characters of equal frequency.
#
# Guess:    BPE training is deterministic in tokenizers: pairs of equal count have a fixed order, and so
#           have characters.
# Seen:     limit_alphabet sorts characters by frequency only, from a table without a fixed order. On the same
#           text every training keeps other characters, so the vocabularies differ.
# Versions: tokenizers 0.23.3.
# Matters:  Chinese text needs the limit, and in its long tail hundreds of characters share a frequency.
#           Two trainings turn other characters into [UNK], and no two tokenizer files agree.
#           A test without ties, or without the limit, does not show it.
# Remedy:   choose the characters yourself and pass them as initial_alphabet of the same size.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  tokenizers==0.23.3
export PYTHONPATH="$folder/site-packages"
cd "$folder"
python3 - <<'PY'
from collections import Counter
import tokenizers
from tokenizers import Tokenizer, models, trainers
print("tokenizers", tokenizers.__version__)
lines = ["".join(chr(0x4E00 + i) for i in range(start, start + 50)) for start in range(0, 3000, 50)] * 2
def train(**options):
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    trainer = trainers.BpeTrainer(vocab_size=1100, special_tokens=["[UNK]"], show_progress=False, **options)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer.to_str()
limited = {train(limit_alphabet=1000) for _ in range(5)}
counts = Counter("".join(lines))
chosen = sorted(counts, key=lambda c: (-counts[c], c))[:1000]
fixed = {train(limit_alphabet=1000, initial_alphabet=chosen) for _ in range(5)}
unlimited = {train() for _ in range(5)}
print("five trainings: limit_alphabet gives", len(limited), "tokenizers, with the characters given",
      len(fixed), "and without a limit", len(unlimited))
assert len(limited) > 1, "limit_alphabet is deterministic now"
assert len(fixed) == len(unlimited) == 1
PY
