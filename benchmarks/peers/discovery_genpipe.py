"""The same by `genpipe discover` in an empty folder: TEXT OUT MIN_COUNT WORKERS."""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from genpipe.cli import main as genpipe


def main() -> None:
    """Write words and their counts as TSV."""
    text, out, least, workers = sys.argv[1:]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="discovery-") as root:
        words = Path(root) / "words"
        status = genpipe(
            ["--root", root, "discover", text, "--method", "solidity", "--min-count", least, "--workers", workers,
             "--executor", "local", "--examples", "0", "--out", str(words)]
        )  # fmt: skip
        shutil.copyfile(words / "lexicon.tsv", out)
    print(json.dumps({"seconds": time.perf_counter() - started}))
    sys.exit(status)


if __name__ == "__main__":
    main()
