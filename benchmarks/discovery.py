"""Words found in verse, beside the published algorithm as a serial program; both must find the same words and counts.

python -m benchmarks.discovery [--rounds 2] [--part peer|workers|growth]

peer      `genpipe discover --method solidity` in one process beside benchmarks/peers/discovery_article.py, on 63 MB of verse
workers   one worker process beside two
growth    a tenth of the verse beside all of it, 64 MB of memory a worker
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import OUT, chosen, compare
from benchmarks.packages import poems
from benchmarks.texts import shuffled, tidy, write

PARTS = ("peer", "workers", "growth")
MIN_COUNT = 5
OTHERS = re.compile("[^\u4e00-\u9fa5 ，。！？、；：]")  # of these the article's program makes no words
HERE = Path(__file__).parent / "peers"


def command(text: Path, workers: int) -> list[str]:
    """A search by genpipe."""
    return [
        sys.executable,
        str(HERE / "discovery_genpipe.py"),
        str(text),
        f"{OUT}.tsv",
        str(MIN_COUNT),
        str(workers),
    ]


def main() -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--part", action="append", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        verse = shuffled(OTHERS.sub(" ", text) for text in tidy(poems()))
        all_of_it = write(Path(scratch) / "verse.txt", verse)
        tenth = write(Path(scratch) / "tenth.txt", verse[::10])
        article = [
            sys.executable,
            str(HERE / "discovery_article.py"),
            str(all_of_it),
            f"{OUT}.tsv",
            str(MIN_COUNT),
        ]
        sizes = {path: path.stat().st_size / 1e6 for path in (all_of_it, tenth)}
        for part in chosen(arguments.part, PARTS):
            commands = {
                "peer": {"article": article, "genpipe": command(all_of_it, 0)},
                "workers": {"one worker": command(all_of_it, 1), "two workers": command(all_of_it, 2)},
                "growth": {"a tenth": command(tenth, 0), "all": command(all_of_it, 0)},
            }[part]
            megabytes = {name: sizes[tenth if name == "a tenth" else all_of_it] for name in commands}
            families = {name: name if part == "growth" else part for name in commands}
            print(
                f"\n## {part}\n\n{compare(commands, arguments.rounds, megabytes=megabytes, families=families)}"
            )


if __name__ == "__main__":
    main()
