"""The nearest of many sentences beside NumPy, and embedding them beside sentence-transformers: one thread, alternated.

    python -m benchmarks.search nearest FOLDER SENTENCES [--queries 200] [--rounds 5] [--quiet-only]
    python -m benchmarks.search embed MODEL SENTENCES --peers PYTHON [--num 10000] [--rounds 5] [--quiet-only]

`nearest`: FOLDER is what `genpipe embed` wrote; where it has no index, one is built; queries are sentences of a text file that are not in it, if there are enough. NumPy
multiplies all vectors by the one of a query and takes the 10 largest cosines. Recall is the share of those that the index finds.

`embed`: MODEL is a similarity with `encoder: transformer`. PYTHON has the packages of benchmarks/peers/requirements-search.txt; its model has the
same shape (tokens, width, layers, heads), and cuts texts into the same words, with weights of its own. Each round is a process of each.
A number is CPU time; a ratio is that of speeds, ours divided by theirs.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.measure import busy_cores, measured, rotated, wait_for_quiet
from genpipe.errors import BadInput, GenpipeError
from genpipe.files import read_json

HERE = Path(__file__).parent
NUM = 10
RECALL, FASTER, EMBEDDING = 0.99, 20.0, 1.2  # what we shall reach
OURS, PEER = "genpipe", "sentence_transformers"
Times = dict[str, list[float]]


def by_numpy(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The places of the NUM largest cosines, the largest first."""
    cosines = vectors @ query
    places = np.argpartition(cosines, -NUM)[-NUM:]
    return places[np.argsort(-cosines[places])]


def recall_of(found: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> float:
    """The share of the right places of all queries that are found, in whatever order."""
    hits = [len({*some} & {*those}) for some, those in zip(found, right, strict=True)]
    return sum(hits) / sum(map(len, right))


def seconds_each(find: Callable[[np.ndarray], np.ndarray], queries: np.ndarray) -> float:
    """CPU seconds of a query, the mean over all, one after another."""
    begun = time.process_time()
    for query in queries:
        find(query)
    return (time.process_time() - begun) / len(queries)


def nearest(given: argparse.Namespace) -> list[str]:
    """Rows of the table of queries."""
    from genpipe.using.embedding import Index
    from genpipe.using.model import opened
    from genpipe.using.nearest import opened as opened_graph
    from genpipe.using.outputs import VECTORS
    from genpipe.using.sentences import vectors_of

    index = Index(opened(Path(given.model).resolve()), exact=True)
    vectors, of = index.folder.vectors, index.folder.card["sha256"][VECTORS]
    graph = opened_graph(index.folder.directory, vectors, of)
    queries = vectors_of(index.using, sentences_of(given, given.queries, set(index.folder.sentences))).numpy()
    ways = {
        "index": lambda query: graph.nearest(query[np.newaxis], NUM)[1][0],
        "numpy": lambda query: by_numpy(vectors, query),
    }
    found = {name: [find(query) for query in queries] for name, find in ways.items()}
    times = alternated([*ways], given, lambda name: seconds_each(ways[name], queries))
    recall = f"{recall_of(found['index'], found['numpy']):.4f} (bar {RECALL})"
    return [
        f"| nearest {NUM} of {len(vectors):,}, {vectors.shape[1]} numbers | {row(times, 'index', 'numpy')} | {FASTER} |",
        f"recall at {NUM} of {len(queries)} queries: {recall}",
    ]


def sentences_of(given: argparse.Namespace, num: int, known: set[str]) -> list[str]:
    """Lines of the file, evenly spread, those that are not known if there are enough."""
    lines = [line for line in Path(given.sentences).read_text(encoding="utf-8").splitlines() if line.strip()]
    new = [line for line in lines if line not in known]
    chosen = new if len(new) >= num else lines
    return chosen[:: max(1, len(chosen) // num)][:num]


def embed(given: argparse.Namespace) -> list[str]:
    """Rows of the table of embedding."""
    card = read_json(Path(given.model) / "recipe.json")
    network = card["train"]["network"]
    if network.get("encoder") != "transformer":
        raise BadInput(f"{given.model}: no transformer; name a similarity with encoder: transformer")
    shape = "x".join(
        str(network.get(key, usual)) for key, usual in (("dim", 128), ("num_blocks", 1), ("num_heads", 4))
    )
    words = [given.sentences, str(given.num)]
    vocabulary = str(Path(given.model) / "vocabulary.json")
    commands = {
        OURS: [f"PYTHONPATH={HERE.parent}", sys.executable, script(OURS), given.model, *words],
        PEER: ["PYTHONPATH=", given.peers, script(PEER), shape, vocabulary, *words],
    }

    def run(name: str) -> float:
        seconds = measured(["env", "OMP_NUM_THREADS=1", *commands[name]], memory=False).work
        assert seconds is not None
        return seconds

    times = alternated([*commands], given, run)
    return [f"| embed {given.num:,} sentences, {shape} | {row(times, OURS, PEER)} | {EMBEDDING} |"]


def script(name: str) -> str:
    """The file of a contestant."""
    return str(HERE / "peers" / f"embed_{name}.py")


def alternated(names: list[str], given: argparse.Namespace, run: Callable[[str], float]) -> Times:
    """Each contestant once a round, another one first each time."""
    found: Times = {name: [] for name in names}
    for number in range(given.rounds):
        for name in rotated(names, number):
            _ = wait_for_quiet() if given.quiet_only else busy_cores(0.1)
            found[name].append(run(name))
            print(f"round {number + 1}: {name}: {1e3 * found[name][-1]:.3f} ms", file=sys.stderr, flush=True)
    return found


def row(times: Times, ours: str, theirs: str) -> str:
    """The medians in milliseconds, and the ratio with its spread."""
    ratios = [their / our for our, their in zip(times[ours], times[theirs], strict=True)]
    medians = " | ".join(f"{1e3 * statistics.median(times[name]):.3f}" for name in (ours, theirs))
    return f"{medians} | {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def main() -> None:
    """Print the table of one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["nearest", "embed"])
    parser.add_argument("model", metavar="FOLDER|MODEL")
    parser.add_argument("sentences", metavar="SENTENCES", help="a text file, a sentence a line")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--num", type=int, default=10_000, help="sentences to embed")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quiet-only", action="store_true", help="wait until other programs are quiet")
    given = parser.parse_args()
    try:
        lines = (nearest if given.part == "nearest" else embed)(given)
    except GenpipeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    print("| what | ours, ms | theirs, ms | ours / theirs, speed | bar |")
    print("|---|---:|---:|---:|---:|")
    print("\n".join(lines))


if __name__ == "__main__":
    from genpipe import numerics

    numerics.use("native")  # one thread of OpenBLAS, as commands of genpipe have it
    main()
