"""The hidden Markov model by which jieba cuts a run of Han characters that its dictionary leaves single.

A character begins a word (B), continues it (M), ends it (E) or is a word by itself (S); Viterbi's algorithm finds the
most probable states. Equal to jieba.finalseg bit by bit: its probabilities, its order of additions, and of equal scores
the state with the later letter.
"""

import functools
import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STATES = "BEMS"  # by letter, so that of two states the later one has the larger index
END, SINGLE = STATES.index("E"), STATES.index("S")
PREVIOUS = {"B": "ES", "E": "BM", "M": "BM", "S": "ES"}
FIRST_HAN, LAST_HAN = 0x4E00, 0x9FD5
IMPOSSIBLE = (
    -3.14e100
)  # jieba's logarithm of a probability of 0; that sums with it round to it is part of the result

# For each state the two that may precede it
_EARLIER = np.array([STATES.index(PREVIOUS[state][0]) for state in STATES])
_LATER = np.array([STATES.index(PREVIOUS[state][1]) for state in STATES])


class _Model(NamedTuple):
    """Logarithms of probabilities: start [state, 1], from the earlier and the later state [state, 1], emit [state, Han]."""

    start: np.ndarray
    earlier: np.ndarray
    later: np.ndarray
    emit: np.ndarray


def word_starts(points: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """The indices at which words start in the runs `starts[i]:stops[i]` of the code points, all within FIRST_HAN to LAST_HAN."""
    order = np.argsort(starts - stops, kind="stable")  # the longest first: the runs that go on are a prefix
    first, lengths = starts[order], (stops - starts)[order]
    longest = int(lengths[0]) if len(lengths) else 0
    active = np.searchsorted(-lengths, -np.arange(longest + 1), side="left")  # [t]: runs longer than t
    last, choices = _forward(points, first, active)
    return np.concatenate([starts, *_backward(first, active, last, choices)])


def _forward(
    points: np.ndarray, first: np.ndarray, active: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The last state of each run, and at each step but the first whether each state follows its later one."""
    model = _model()
    last = np.empty(len(first), np.intp)
    choices = []
    scores = np.empty((len(STATES), len(first)))
    for step in range(len(active) - 1):
        number = active[step]
        emit = np.take(model.emit, points[first[:number] + step] - FIRST_HAN, axis=1)
        if step:
            earlier = scores[_EARLIER, :number] + model.earlier + emit
            later = scores[_LATER, :number] + model.later + emit
            choices.append(later >= earlier)
            scores = np.maximum(earlier, later)
        else:
            scores = model.start + emit
        ended = slice(active[step + 1], number)
        last[ended] = np.where(scores[SINGLE, ended] >= scores[END, ended], SINGLE, END)
    return last, choices


def _backward(
    first: np.ndarray, active: np.ndarray, state: np.ndarray, choices: list[np.ndarray]
) -> list[np.ndarray]:
    """Where a word starts after the end of another one, followed back from the last states."""
    found = []
    for step in range(len(choices), 0, -1):
        number = active[step]
        current = state[:number]
        chosen = choices[step - 1][current, np.arange(number)]
        previous = np.where(chosen, _LATER[current], _EARLIER[current])
        state[:number] = previous
        ended = (previous == END) | (previous == SINGLE)
        found.append(first[:number][ended] + step)
    return found


@functools.cache
def _model() -> _Model:
    start, between, emit = map(_probabilities, ("prob_start", "prob_trans", "prob_emit"))
    table = np.full((len(STATES), LAST_HAN - FIRST_HAN + 1), IMPOSSIBLE)
    for row, state in zip(table, STATES, strict=True):
        for character, probability in emit[state].items():
            if FIRST_HAN <= ord(character) <= LAST_HAN:
                row[ord(character) - FIRST_HAN] = probability
    column = lambda values: np.array(list(values))[:, None]
    return _Model(
        column(start[state] for state in STATES),
        column(between[PREVIOUS[state][0]][state] for state in STATES),
        column(between[PREVIOUS[state][1]][state] for state in STATES),
        table,
    )


def _probabilities(name: str) -> dict[str, Any]:
    """A table of the package jieba, without its `__init__`, which takes longer to import than a small text to count."""
    spec = importlib.util.find_spec("jieba")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("no module named 'jieba'; install genpipe again")
    path = Path(spec.submodule_search_locations[0], "finalseg", f"{name}.py")
    loader = importlib.machinery.SourceFileLoader(f"jieba_{name}", str(path))
    found = importlib.util.spec_from_loader(loader.name, loader)
    assert found is not None
    module = importlib.util.module_from_spec(found)
    loader.exec_module(module)
    return module.P
