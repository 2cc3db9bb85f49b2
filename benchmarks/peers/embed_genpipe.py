"""Sentences as vectors by genpipe, from texts on: MODEL SENTENCES NUM; the last line of the output is JSON with CPU seconds."""

import json
import sys
import time
from pathlib import Path

from genpipe import numerics

numerics.use("native")

from genpipe.using.model import opened  # noqa: E402
from genpipe.using.sentences import vectors_of  # noqa: E402

model, file, num = sys.argv[1:]
lines = Path(file).read_text(encoding="utf-8").splitlines()[: int(num)]
using = opened(Path(model).resolve())
vectors_of(using, lines[:64])
begun = time.process_time()
vectors = vectors_of(using, lines)
seconds = time.process_time() - begun
assert len(vectors) == len(lines)
assert bool(vectors.isfinite().all())
print(json.dumps({"seconds": seconds}))
