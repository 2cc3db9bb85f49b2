"""Training a sub-word tokenizer from word counts; equal counts give equal bytes, in whatever order they come.

Hugging Face's trainers read texts, not counts, and count in hash tables whose order their floating-point sums and ties
may follow. Therefore the training is here, on whole numbers alone, and their library only gets the result:

bpe        Sennrich's merges: the most frequent pair first, of equal ones the one with the smaller ids. The same
           vocabulary and the same merges as Hugging Face's BpeTrainer makes from the words repeated (tests compare).
wordpiece  As Hugging Face makes it, from merges in which ## marks what begins no word; but every character is there
           with ## and without, so ids, and with them ties, differ from theirs. For Chinese it serves badly: a clause
           is one word to it, so of the words that were counted it finds the first, and characters after that.
unigram    Hard EM, which is NOT Hugging Face's or SentencePiece's soft EM: cut all words by the most probable split,
           count the pieces, drop the least used, and again, down to the size. All single characters stay.

No piece crosses the words that were counted. In a text, runs of letters and digits are words (an apostrophe inside
included) and any other character is one; white space is lost. With `spaced` words are what white space separates, and
decoding gives it back: for counts of the tokenizer whitespace.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from genpipe.corpus.lexicon import Lexicon
from genpipe.corpus.vocabulary import UNKNOWN
from genpipe.errors import BadInput
from genpipe.files import new_file

Kind = Literal["bpe", "wordpiece", "unigram"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CONTINUES = "##"  # marks a piece of wordpiece that begins no word
BEGINS = "▁"  # stands for the space before a word where words are `spaced`
MAX_PIECE = 16  # characters, of unigram
SEEDS = 10  # pieces that unigram begins with, for one that it ends with
KEPT = 0.75  # share of unigram's pieces that a round keeps, at least
_WORD_OR_CHARACTER = r"\w+(?:['’]\w+)*|[^\w\s]"

Words = dict[str, int]
Pair = tuple[int, int]


def train_tokenizer(counts: pa.Table, kind: Kind, size: int, out: Path, *, spaced: bool = False) -> None:
    """Train on `counts` (columns token, count) a tokenizer of at most `size` pieces, and write its JSON file `out`."""
    if kind not in KINDS:
        raise BadInput(f"no kind of tokenizer {kind!r} can be trained; there are: {', '.join(KINDS)}")
    if spaced and kind == "wordpiece":
        raise BadInput("wordpiece: --spaced is for --kind bpe and unigram; drop --spaced, its ## marks words")
    words = _words(counts, BEGINS if spaced else "")
    _check_size(words, kind, size)
    model = tokenizers.Tokenizer(_TRAINERS[kind](words, size))
    model.pre_tokenizer, model.decoder = _around(kind, spaced)
    with new_file(out) as partial:
        partial.write_text(model.to_str(pretty=True) + "\n", encoding="utf-8")


class Merges:
    """Byte-pair encoding learnt from words and their counts; `prefix` marks a symbol that begins no word."""

    def __init__(self, words: Mapping[str, int], prefix: str = "") -> None:
        self._prefix = prefix
        self.tokens = [UNKNOWN, *_alphabet(words, prefix)]
        self.merges: list[tuple[str, str]] = []
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        self._counts = list(words.values())
        self._words = [[self._ids[symbol] for symbol in _symbols(word, prefix)] for word in words]
        self._pairs: Counter[Pair] = Counter()
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)  # words where a pair may be
        self._queue: list[tuple[int, Pair]] = []
        for index in range(len(words)):
            self._add(index, 1)
        self._enqueue(self._pairs)

    def learn(self, size: int) -> None:
        """Merge pairs until there are `size` tokens, or no pair."""
        while len(self.tokens) < size and self._queue:
            negative, pair = heapq.heappop(self._queue)
            if self._pairs[pair] == -negative:
                self._merge(pair)
            else:
                self._enqueue([pair])  # it got rarer meanwhile

    def _enqueue(self, pairs: Any) -> None:
        for pair in pairs:
            if self._pairs[pair] > 0:
                heapq.heappush(self._queue, (-self._pairs[pair], pair))

    def _merge(self, pair: Pair) -> None:
        left, right = (self.tokens[number] for number in pair)
        joined = self._number(left + right.removeprefix(self._prefix))
        self.merges.append((left, right))
        grown: set[Pair] = set()
        for index in self._places.pop(pair):
            self._add(index, -1)
            self._words[index] = _joined(self._words[index], pair, joined)
            self._add(index, 1)
            grown.update(near for near in pairwise(self._words[index]) if joined in near)
        del self._pairs[pair]
        self._enqueue(grown - {pair})

    def _number(self, token: str) -> int:
        if token not in self._ids:  # two ways of merging may give one token
            self._ids[token] = len(self.tokens)
            self.tokens.append(token)
        return self._ids[token]

    def _add(self, index: int, sign: int) -> None:
        for pair in pairwise(self._words[index]):
            self._pairs[pair] += sign * self._counts[index]
            self._places[pair].add(index)


def learn_unigram(words: Mapping[str, int], size: int) -> Words:
    """At most `size` pieces and how often the most probable splits of `words` use them (a character: once at least)."""
    pieces = _substrings(words, size * SEEDS)
    while True:
        lexicon = Lexicon(pieces)
        used = Counter(dict.fromkeys(_characters(words), 0))
        for word, count in words.items():
            for piece in lexicon.best(word):
                used[piece] += count
        if len(used) <= size:
            return {piece: max(count, 1) for piece, count in used.items()}
        pieces = _most_used(used, max(size, int(len(used) * KEPT)))


def _train_bpe(words: Words, size: int) -> Any:
    found = Merges(words)
    found.learn(size)
    return models.BPE(_numbered(found.tokens), found.merges, unk_token=UNKNOWN)


def _train_wordpiece(words: Words, size: int) -> Any:
    found = Merges(words, CONTINUES)
    found.learn(size)
    return models.WordPiece(_numbered(found.tokens), unk_token=UNKNOWN, max_input_chars_per_word=1 << 20)


def _train_unigram(words: Words, size: int) -> Any:
    pieces = learn_unigram(words, size - 1)
    scores = Lexicon(pieces).scores()
    ordered = sorted(pieces, key=lambda piece: (-pieces[piece], piece))
    return models.Unigram([(UNKNOWN, 0.0), *((piece, scores[piece]) for piece in ordered)], 0, False)


_TRAINERS = {"bpe": _train_bpe, "wordpiece": _train_wordpiece, "unigram": _train_unigram}


def _around(kind: Kind, spaced: bool) -> tuple[Any, Any]:
    """What cuts a text into words, and what joins pieces to a text."""
    if spaced:
        return pre_tokenizers.Metaspace(BEGINS), decoders.Metaspace(BEGINS)
    cut = pre_tokenizers.Split(tokenizers.Regex(_WORD_OR_CHARACTER), "removed", invert=True)
    return cut, decoders.WordPiece(CONTINUES, cleanup=False) if kind == "wordpiece" else decoders.Fuse()


def _words(counts: pa.Table, before: str) -> Words:
    rows = zip(counts["token"].to_pylist(), counts["count"].to_pylist(), strict=True)
    words = {before + token: count for token, count in rows if token.strip() and token != UNKNOWN}
    if not words:
        raise BadInput("there are no counts of words to train on; count a text that has words")
    return words


def _check_size(words: Words, kind: Kind, size: int) -> None:
    needed = 1 + len(_alphabet(words, CONTINUES if kind == "wordpiece" else ""))
    if size < needed:
        raise BadInput(
            f"size: must be {needed} or more, with room for {UNKNOWN} and each single character, not {size}; "
            "take a larger one, or counts without the rarest words"
        )


def _characters(words: Mapping[str, int]) -> list[str]:
    return sorted({character for word in words for character in word})


def _alphabet(words: Mapping[str, int], prefix: str) -> list[str]:
    found = _characters(words)
    # with the prefix too: in a Chinese text any word may follow another without a space
    return [*found, *(prefix + character for character in found)] if prefix else found


def _symbols(word: str, prefix: str) -> list[str]:
    return [word[0], *(prefix + character for character in word[1:])]


def _joined(symbols: list[int], pair: Pair, joined: int) -> list[int]:
    """`symbols` with `pair` replaced by `joined`, from the left."""
    result: list[int] = []
    index = 0
    while index < len(symbols):
        is_pair = tuple(symbols[index : index + 2]) == pair
        result.append(joined if is_pair else symbols[index])
        index += 2 if is_pair else 1
    return result


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def _substrings(words: Mapping[str, int], number: int) -> Words:
    """All characters, and the `number` repeated substrings that cover the most text."""
    found: Counter[str] = Counter()
    for word, count in words.items():
        for piece in _pieces(word):
            found[piece] += count
    repeated = Counter({piece: count for piece, count in found.items() if count > 1 or len(piece) == 1})
    return _most_used(repeated, number)


def _most_used(found: Counter[str], number: int) -> Words:
    """All characters (counted once at least), and the longer pieces that cover the most text, `number` together."""
    characters = {piece: max(count, 1) for piece, count in found.items() if len(piece) == 1}
    longer = [piece for piece in found if len(piece) > 1]
    longer.sort(key=lambda piece: (-found[piece] * len(piece), piece))
    return characters | {piece: found[piece] for piece in longer[: max(0, number - len(characters))]}


def _pieces(word: str) -> Iterator[str]:
    for start in range(len(word)):
        for end in range(start + 1, min(start + MAX_PIECE, len(word)) + 1):
            yield word[start:end]
