"""The nearest of many vectors: a graph of neighbours, or a look at all of them where there are few.

The graph is a hierarchical navigable small world (Malkov, Yashunin, *Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs*, 2016, arXiv:1603.09320) by faiss. It is built on one thread, so that one machine builds the same bytes again. Processors of
another kind may round cosines, and so link neighbours, otherwise: it is a cache of the vectors, no artifact, and is built again where it does not fit.
"""

import contextlib
import json
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from genpipe.files import new_file, sha256, write_json
from genpipe.progress import Progress
from genpipe.using.outputs import GRAPH, GRAPH_CARD

FEW = 100_000  # vectors that are all looked at: with 128 numbers each that takes about 5 milliseconds
AT_ONCE = 5_000  # vectors that are added at once; fixed, since the graph depends on it
SETTINGS: Mapping[str, int] = {"neighbours": 24, "construction": 150}  # M and efConstruction of the paper
BREADTH = 104  # ef of a search, at least
CANDIDATES = 2  # for each sentence that is asked for

Found = tuple[np.ndarray, np.ndarray]  # cosines, float32 [queries, num], and places, int64 [queries, num]


def exact(vectors: np.ndarray, queries: np.ndarray, num: int) -> Found:
    """The nearest `num` of `vectors`, float32 [n, dim] of length 1, to each of `queries`, [queries, dim]; the earlier one where two are as near."""
    num = min(num, len(vectors))
    rows = [_best(vectors @ query, num) for query in queries]
    return np.stack([cosines for cosines, _ in rows]), np.stack([places for _, places in rows])


def _best(cosines: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    least = np.partition(cosines, len(cosines) - num)[len(cosines) - num]
    candidates = np.flatnonzero(cosines >= least)
    places = candidates[np.argsort(-cosines[candidates], kind="stable")[:num]]
    return cosines[places], places


class Graph:
    """The graph of some vectors, float32 [n, dim] of length 1; it holds them in 8 bits a number, and finds candidates by these."""

    def __init__(self, index: Any, vectors: np.ndarray) -> None:
        self._index, self._vectors = index, vectors

    def nearest(self, queries: np.ndarray, num: int) -> Found:
        """About the nearest `num` vectors to each of `queries`, [queries, dim]; their cosines are exact."""
        num = min(num, len(self._vectors))
        candidates = min(CANDIDATES * num, len(self._vectors))
        self._index.hnsw.efSearch = max(BREADTH, 2 * candidates)
        _, found = self._index.search(np.ascontiguousarray(queries), candidates)
        rows = [self._best(query, places, num) for query, places in zip(queries, found, strict=True)]
        return np.stack([cosines for cosines, _ in rows]), np.stack([places for _, places in rows])

    def _best(self, query: np.ndarray, places: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Candidates by their exact cosines; of two that are as near the earlier one comes first, as in a look at all."""
        places = np.sort(places[places >= 0])
        if len(places) < num:  # the graph leads to fewer
            cosines, places = exact(self._vectors, query[np.newaxis], num)
            return cosines[0], places[0]
        cosines = self._vectors[places] @ query
        order = np.argsort(-cosines, kind="stable")[:num]
        return cosines[order], places[order]

    def write(self, directory: Path, of: str) -> None:
        """Write the graph, and that it is of the vectors with the SHA-256 `of`."""
        with new_file(directory / GRAPH) as partial:
            _faiss().write_index(self._index, str(partial))
            write_json(directory / GRAPH_CARD, {**_wanted(of), "sha256": sha256(partial)})


def build(vectors: np.ndarray) -> Graph:
    """The graph of vectors, float32 [n, dim] of length 1, on one thread."""
    faiss = _faiss()
    index = faiss.IndexHNSWSQ(
        vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, SETTINGS["neighbours"], faiss.METRIC_INNER_PRODUCT
    )
    index.hnsw.efConstruction = SETTINGS["construction"]
    index.train(np.ascontiguousarray(vectors))  # the range of each number
    with Progress("index", len(vectors), "vectors") as progress:
        for start in range(0, len(vectors), AT_ONCE):
            index.add(np.ascontiguousarray(vectors[start : start + AT_ONCE]))
            progress.reach(index.ntotal)
    return Graph(index, vectors)


def opened(directory: Path, vectors: np.ndarray, of: str) -> Graph:
    """The graph in a directory; built, and written where that is allowed, if it is missing, damaged, or of other vectors, another faiss or settings."""
    if fits(directory, of):
        return Graph(_faiss().read_index(str(directory / GRAPH)), vectors)
    print(f"{directory.name}: the index is missing or does not fit; it is built again", file=sys.stderr)
    graph = build(vectors)
    with contextlib.suppress(OSError):
        graph.write(directory, of)
    return graph


def fits(directory: Path, of: str) -> bool:
    """Whether the graph in a directory is whole, and that of the vectors with the SHA-256 `of` by this faiss and these settings."""
    with contextlib.suppress(OSError, ValueError):
        card = json.loads((directory / GRAPH_CARD).read_text(encoding="utf-8"))
        return card == {**_wanted(of), "sha256": sha256(directory / GRAPH)}
    return False


def _wanted(of: str) -> dict[str, Any]:
    return {
        "library": f"faiss {metadata.version('faiss-cpu')}",
        "kind": "HNSW, 8 bits a number, inner product",
        "settings": {**SETTINGS, "at_once": AT_ONCE},
        "vectors": of,
    }


def _faiss() -> Any:
    """The library, on one thread: the order in which several link vectors differs from run to run."""
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss
