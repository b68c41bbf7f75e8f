"""Texts as numbered words, and pairs of words that stand near each other; plain numpy, knows no server."""

from __future__ import annotations

import bz2
import csv
import gzip
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import IO

    from numpy.typing import NDArray

__all__ = ["Pairs", "Text", "number_words", "pairs_of", "read_words"]

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
"""Letters of any alphabet, with apostrophes inside."""

_SAMPLE_CHARACTERS = 1 << 16
"""Of a CSV file, by which its separator is guessed."""


@dataclass(frozen=True)
class Text:
    """A text as numbers of words; rare words are left out.

    Attributes:
        vocabulary: the words, the most frequent first: word ``i`` has number ``i``.
        counts: (words,) int64, how often each stands in the text.
        words: (tokens,) int32.
    """

    vocabulary: tuple[str, ...]
    counts: NDArray[np.int64]
    words: NDArray[np.int32]

    def most_frequent(self, num: int) -> Text:
        """Return the same text without all but the most frequent words.

        Args:
            num: of words that are left.
        """
        return Text(self.vocabulary[:num], self.counts[:num], self.words[self.words < num])


@dataclass(frozen=True)
class Pairs:
    """Words that stand near each other.

    Attributes:
        inputs: (n,) int64, the words in the middle of the window.
        outputs: (n,) int64, a word beside each.
        share: of the words that they were made of, those that stand before them.
    """

    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]
    share: float = 0.0

    def __len__(self) -> int:
        """Return how many pairs there are."""
        return len(self.inputs)


def read_words(path: Path) -> Iterator[str]:
    """Yield the words of a file in lower case.

    Args:
        path: a text in UTF-8; ``.gz`` and ``.bz2`` are decompressed. Of a file named ``.csv`` only the column with the
            most text counts.

    Raises:
        OSError: the file can't be read.
        ValueError: it is damaged.
    """
    opened: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open}
    with opened.get(path.suffix, open)(
        path, "rt", encoding="utf-8-sig", errors="replace", newline=""
    ) as file:
        lines: Iterable[str] = file
        try:
            if ".csv" in path.suffixes[-2:]:
                lines = _longest_column(file)
            for line in lines:
                yield from _WORD.findall(line.lower())
        except (EOFError, zlib.error, csv.Error) as error:
            raise ValueError(f"{path} is damaged or cut off: {error}") from error


def _longest_column(file: IO[str]) -> list[str]:
    sample = file.read(_SAMPLE_CHARACTERS)
    file.seek(0)
    delimiter = max(",;\t|", key=sample.count)
    rows = list(csv.reader(file, delimiter=delimiter))
    lengths = Counter[int]()
    for row in rows:
        for column, cell in enumerate(row):
            lengths[column] += len(cell)
    longest = max(lengths, key=lengths.__getitem__, default=0)
    return [row[longest] for row in rows if len(row) > longest]


def number_words(words: Iterable[str], *, count_min: int, words_max: int | None = None) -> Text:
    """Number words by how frequent they are.

    Args:
        words: in their order.
        count_min: rarer words are left out.
        words_max: only so many, the most frequent; None: all.

    Returns:
        The text.

    Raises:
        ValueError: fewer than two different words are left.
    """
    numbers: dict[str, int] = {}
    tokens = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int32)
    counts = np.bincount(tokens, minlength=len(numbers))
    order = np.argsort(-counts, kind="stable")[: int((counts >= count_min).sum())][:words_max]
    if len(order) < 2:
        if words_max is not None and words_max < 2:
            raise ValueError(f"vectors of {words_max} word have no neighbours; take at least 2")
        raise ValueError(
            f"of {len(tokens)} words, {len(order)} stand at least {count_min} times; give more text, or --min-count 1"
        )
    places = np.full(len(numbers), -1, np.int32)
    places[order] = np.arange(len(order))
    spelled = list(numbers)
    numbered = places[tokens]
    return Text(tuple(spelled[number] for number in order), counts[order], numbered[numbered >= 0])


def pairs_of(
    counts: NDArray[np.int64],
    words: NDArray[np.int32],
    *,
    window: int,
    subsample: float,
    batch_pairs: int,
    seed: Sequence[int],
) -> Iterator[Pairs]:
    """Yield the pairs of some of a text's words in batches, in the order of the text.

    As word2vec does it, frequent words are left out by chance, and a window is of a random width.

    Args:
        counts: (words,) of each word in the whole text.
        words: (tokens,) int32: a piece of the text.
        window: words on either side, at most.
        subsample: words of more than this share of the text are left out, the more frequent the more often; 0: none.
        batch_pairs: of each batch but the last.
        seed: where chance starts.
    """
    rng = np.random.default_rng(seed)
    if subsample:
        shares = counts / counts.sum()
        keeps = np.minimum(1, np.sqrt(subsample / shares) + subsample / shares)
        words = words[rng.random(len(words)) < keeps[words]]
    widths = rng.integers(1, window + 1, len(words))
    # Enough words for some batches at a time, and the window before and after them.
    step = max(1, 8 * batch_pairs // (window + 1))
    rest = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    for start in range(0, len(words), step):
        found = _pairs_around(words, widths, start, min(start + step, len(words)), window)
        found = Pairs(
            np.concatenate([rest.inputs, found.inputs]), np.concatenate([rest.outputs, found.outputs])
        )
        num_whole = len(found) // batch_pairs * batch_pairs
        for first in range(0, num_whole, batch_pairs):
            at = slice(first, first + batch_pairs)
            yield Pairs(found.inputs[at], found.outputs[at], start / len(words))
        rest = Pairs(found.inputs[num_whole:], found.outputs[num_whole:], start / len(words))
    if len(rest):
        yield rest


def _pairs_around(
    words: NDArray[np.int32], widths: NDArray[np.int64], start: int, stop: int, window: int
) -> Pairs:
    middles = np.arange(start, stop)[:, np.newaxis]
    offsets = np.concatenate([np.arange(-window, 0), np.arange(1, window + 1)])
    places = middles + offsets  # (words, 2 * window)
    near = (np.abs(offsets) <= widths[start:stop, np.newaxis]) & (places >= 0) & (places < len(words))
    middle = np.broadcast_to(middles, places.shape)
    return Pairs(words[middle[near]].astype(np.int64), words[places[near]].astype(np.int64))
