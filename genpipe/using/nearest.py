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

FEW = 20_000  # vectors that are all looked at: that takes a few milliseconds
AT_ONCE = 5_000  # vectors that are added at once; fixed, since the graph depends on it
SETTINGS: Mapping[str, int] = {
    "neighbours": 16,
    "construction": 100,
    "search": 64,
}  # M, efConstruction, efSearch

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
    """The graph of some vectors, float32 [n, dim] of length 1, which it does not copy to disk."""

    def __init__(self, index: Any, vectors: np.ndarray, storage: Any = None) -> None:
        self._index, self._vectors = index, vectors
        self._storage = storage  # which faiss does not keep alive

    def nearest(self, queries: np.ndarray, num: int) -> Found:
        """About the nearest `num` vectors to each of `queries`, [queries, dim]; their cosines are exact."""
        num = min(num, len(self._vectors))
        how = _faiss().SearchParametersHNSW(efSearch=max(SETTINGS["search"], 2 * num))
        _, found = self._index.search(np.ascontiguousarray(queries), num, params=how)
        rows = [
            self._ordered(query, places[places >= 0]) for query, places in zip(queries, found, strict=True)
        ]
        return np.stack([cosines for cosines, _ in rows]), np.stack([places for _, places in rows])

    def _ordered(self, query: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cosines as a look at all vectors gives them, and in its order."""
        places = np.sort(places)
        cosines = self._vectors[places] @ query
        order = np.argsort(-cosines, kind="stable")
        return cosines[order], places[order]

    def write(self, directory: Path, of: str) -> None:
        """Write the graph, without the vectors, whose SHA-256 is `of`, and what it is."""
        faiss = _faiss()
        with new_file(directory / GRAPH) as partial:
            faiss.write_index(self._index, str(partial), faiss.IO_FLAG_SKIP_STORAGE)
            write_json(directory / GRAPH_CARD, {**_wanted(of), "sha256": sha256(partial)})


def build(vectors: np.ndarray) -> Graph:
    """The graph of vectors, float32 [n, dim] of length 1, on one thread."""
    faiss = _faiss()
    index = faiss.IndexHNSWFlat(vectors.shape[1], SETTINGS["neighbours"], faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = SETTINGS["construction"]
    with Progress("index", len(vectors), "vectors") as progress:
        for start in range(0, len(vectors), AT_ONCE):
            index.add(np.ascontiguousarray(vectors[start : start + AT_ONCE]))
            progress.reach(index.ntotal)
    return Graph(index, vectors)


def opened(directory: Path, vectors: np.ndarray, of: str) -> Graph:
    """The graph in a directory; built, and written where that is allowed, if it is missing, damaged, or of other vectors, another faiss or settings."""
    if (found := _read(directory, vectors, of)) is not None:
        return found
    print(f"{directory.name}: the index is missing or does not fit; it is built again", file=sys.stderr)
    graph = build(vectors)
    with contextlib.suppress(OSError):
        graph.write(directory, of)
    return graph


def _read(directory: Path, vectors: np.ndarray, of: str) -> Graph | None:
    if not fits(directory, of):
        return None
    faiss = _faiss()
    index = faiss.read_index(str(directory / GRAPH), faiss.IO_FLAG_SKIP_STORAGE)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(np.ascontiguousarray(vectors))
    index.storage, index.own_fields = flat, False
    return Graph(index, vectors, flat)


def fits(directory: Path, of: str) -> bool:
    """Whether the graph in a directory is whole, and that of the vectors with the SHA-256 `of` by this faiss and these settings."""
    with contextlib.suppress(OSError, ValueError):
        card = json.loads((directory / GRAPH_CARD).read_text(encoding="utf-8"))
        return card == {**_wanted(of), "sha256": sha256(directory / GRAPH)}
    return False


def _wanted(of: str) -> dict[str, Any]:
    return {
        "library": f"faiss {metadata.version('faiss-cpu')}",
        "kind": "HNSW, inner product",
        "settings": {**SETTINGS, "at_once": AT_ONCE},
        "vectors": of,
    }


def _faiss() -> Any:
    """The library, on one thread: the order in which several link vectors differs from run to run."""
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss
