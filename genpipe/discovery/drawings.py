"""Trees for people: brackets, an indented list, and a drawing as SVG."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from html import escape

from genpipe.discovery.trees import Tree

EM, LABEL_EM = 18, 12  # pixels of a letter: of words, of templates
GAP, LEVEL, MARGIN = 14, 44, 16  # between words, between levels, around all
STYLE = (
    "text{font-family:sans-serif;text-anchor:middle;fill:#1a1a1a}.w{font-size:18px}.t{font-size:12px;fill:#1f5fa8}"
    ".f{fill:#8a5a00}line{stroke:#9aa3ad}.b{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#eee}.t{fill:#8ab8f0}.f{fill:#e8b050}.b{fill:#161616}}"
)

FLAT = "…"  # above words without a template
Joining = Callable[[Sequence[str]], str]


def bracketed(tree: Tree, join: Joining = "".join) -> str:
    """The sentence with brackets around what stands in placeholders: (鸡蛋)可以(吃)吗."""
    return join(
        [child if isinstance(child, str) else f"({bracketed(child, join)})" for child in tree.children]
    )


def indented(tree: Tree, join: Joining = "".join) -> str:
    """The template, and below it a line a part: a word, the tree of a placeholder, or in brackets its words where there is no more to show."""
    if tree.template is None or len(tree.children) == 1:
        return f"({join(tree.words())})"
    return "\n".join([tree.name, *_below(tree, join)])


def _below(tree: Tree, join: Joining) -> Iterator[str]:
    for number, child in enumerate(tree.children, start=1):
        is_last = number == len(tree.children)
        first, *rest = [child] if isinstance(child, str) else indented(child, join).split("\n")
        yield ("└─ " if is_last else "├─ ") + first
        yield from (("   " if is_last else "│  ") + line for line in rest)


def drawn(tree: Tree) -> str:
    """The tree as SVG: templates above the words that they match, words of a placeholder without a template in brown."""
    drawing = _Drawing()
    top = drawing.place(tree, 0)
    drawing.finish(top)
    return drawing.text()


class _Drawing:
    """Places words from left to right, and each template above the middle of its first and its last part."""

    def __init__(self) -> None:
        self._left = float(MARGIN)
        self._depth = 0
        self._words: list[tuple[float, str, bool]] = []  # middle, word, whether it is of a template
        self._labels: list[tuple[float, int, str]] = []  # middle, level, template
        self._lines: list[
            tuple[float, int, float, int | None]
        ] = []  # from middle and level to these; None: the words

    def place(self, tree: Tree, level: int) -> float:
        """Place a tree; returns the middle of its top."""
        start, label = self._left, _width(tree.name, LABEL_EM) + GAP
        self._depth = max(self._depth, level + 1)
        is_flat = tree.template is None
        tops = [self._child(child, level + 1, not is_flat) for child in tree.children]
        self._left = max(self._left, start + label)
        middle = (tops[0][0] + tops[-1][0]) / 2
        self._lines += [(middle, level, x, below) for x, below in tops]
        self._labels.append((middle, level, FLAT if is_flat else tree.name))
        return middle

    def finish(self, top: float) -> None:
        """Make room for a label that is wider than its words."""
        widest = max((_width(name, LABEL_EM) / 2 + x for x, _, name in self._labels), default=top)
        self._left = max(self._left, widest + MARGIN)

    def text(self) -> str:
        """The drawing."""
        floor = self._y(self._depth)
        width, height = round(self._left + MARGIN), floor + EM + MARGIN
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
            f"<title>{escape(' '.join(word for _, word, _ in self._words))}</title><style>{STYLE}</style>",
        ]
        parts.append(f'<rect class="b" width="{width}" height="{height}"/>')
        for x, level, below, to in self._lines:
            y = floor - 2 if to is None else self._y(to) - LABEL_EM - 1
            parts.append(f'<line x1="{x:.1f}" y1="{self._y(level) + 4}" x2="{below:.1f}" y2="{y}"/>')
        for x, level, name in self._labels:
            parts.append(f'<text class="t" x="{x:.1f}" y="{self._y(level)}">{escape(name)}</text>')
        for x, word, is_template in self._words:
            kind = "w" if is_template else "w f"
            parts.append(f'<text class="{kind}" x="{x:.1f}" y="{floor + EM}">{escape(word)}</text>')
        return "\n".join([*parts, "</svg>\n"])

    def _child(self, child: Tree | str, level: int, is_template: bool) -> tuple[float, int | None]:
        """Place a word or a tree: its middle, and its level, or None where it is on the line of the words."""
        if isinstance(child, str):
            return self._word(child, is_template), None
        if len(child.children) == 1:
            (word,) = child.words()
            return self._word(word, child.template is not None), None
        return self.place(child, level), level

    def _word(self, word: str, is_template: bool) -> float:
        width = _width(word, EM)
        middle = self._left + width / 2
        self._left += width + GAP
        self._words.append((middle, word, is_template))
        return middle

    def _y(self, level: int) -> int:
        return MARGIN + LABEL_EM + level * LEVEL


def _width(text: str, em: int) -> float:
    """Pixels, about."""
    return sum(em if unicodedata.east_asian_width(letter) in "WF" else 0.6 * em for letter in text)
