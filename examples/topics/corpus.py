"""Texts as counted words: reading them, and cutting identifiers into words; knows no topics."""

from __future__ import annotations

import hashlib
import re
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .stopwords import STOP_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["Corpus", "CorpusError", "build", "read_folder", "read_standard_library", "split_words"]

WORD_LETTERS_MIN = 3
"""Two letters are variables and syllables; three already name things (css, xml, url)."""

_LEFT_OUT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled"}
)
"""Folders of the standard library that are tests, other people's packages or caches."""

# In this order: the capitals of HTTPServer before its Server, then Camel or snake, then CONSTANTS.
_PIECE = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


class CorpusError(Exception):
    """A folder that makes no corpus: missing, or nothing left after rare and common words are dropped."""


@dataclass(frozen=True)
class Corpus:
    """Documents as runs of word numbers.

    Attributes:
        names: the documents' names.
        vocabulary: the words, the most frequent first: word ``i`` is row ``i`` of every count matrix.
        words: (tokens,) int32, word numbers, document after document.
        starts: (documents + 1,) int64, where each document starts in ``words``.
    """

    names: tuple[str, ...]
    vocabulary: tuple[str, ...]
    words: NDArray[np.int32]
    starts: NDArray[np.int64]

    @property
    def num_documents(self) -> int:
        """How many documents there are."""
        return len(self.names)

    @property
    def num_tokens(self) -> int:
        """How many words were counted, with their repeats."""
        return len(self.words)

    def documents(self) -> NDArray[np.int32]:
        """Tell each token's document.

        Returns:
            (tokens,) int32 document numbers.
        """
        numbers = np.arange(self.num_documents, dtype=np.int32)
        return np.repeat(numbers, np.diff(self.starts))

    def positions_of(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the tokens of some documents.

        Args:
            documents: (n,) int64 document numbers.

        Returns:
            (m,) int64 positions in ``words``, ascending.
        """
        chosen = np.zeros(self.num_documents, dtype=np.bool_)
        chosen[documents] = True
        return np.flatnonzero(chosen[self.documents()])

    def select(self, documents: NDArray[np.int64]) -> Corpus:
        """Take some documents with the same vocabulary.

        Args:
            documents: (n,) int64 document numbers, ascending.

        Returns:
            A corpus of these documents.
        """
        lengths = np.diff(self.starts)[documents]
        return Corpus(
            names=tuple(self.names[number] for number in documents),
            vocabulary=self.vocabulary,
            words=self.words[self.positions_of(documents)],
            starts=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        )

    def fingerprint(self) -> str:
        """Say in a line whether two corpora are the same: vocabulary, tokens and documents.

        Returns:
            A SHA-256 in hexadecimal.
        """
        digest = hashlib.sha256("\n".join(self.vocabulary).encode())
        digest.update(self.words.astype("<i4").tobytes())
        digest.update(self.starts.astype("<i8").tobytes())
        return digest.hexdigest()


def split_words(text: str) -> list[str]:
    """Cut a text into lower-case words; ``snake_case`` and ``camelCase`` are several.

    Args:
        text: any text, source code included.

    Returns:
        The words in order, without those of fewer than three letters.
    """
    return [piece.lower() for piece in _PIECE.findall(text) if len(piece) >= WORD_LETTERS_MIN]


def read_standard_library(*, limit: int | None = None) -> Corpus:
    """Read the standard library of the Python that runs this, one document a module, tests left out.

    Args:
        limit: take only so many modules, spread evenly; None for all.

    Returns:
        The corpus.

    Raises:
        CorpusError: this Python has no standard library in source form.
    """
    root = Path(sysconfig.get_path("stdlib"))
    paths = [
        path
        for path in sorted(root.rglob("*.py"))
        if not _LEFT_OUT.intersection(path.relative_to(root).parts[:-1])
    ]
    return _read(root, paths, limit=limit)


def read_folder(root: Path, *, limit: int | None = None) -> Corpus:
    """Read every file below a folder, one document a file.

    Args:
        root: the folder.
        limit: take only so many files, spread evenly; None for all.

    Returns:
        The corpus.

    Raises:
        CorpusError: there is no such folder, or nothing countable in it.
    """
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder; --corpus takes a folder of text files")
    hidden = [path for path in sorted(root.rglob("*")) if path.is_file()]
    paths = [
        path for path in hidden if not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    return _read(root, paths, limit=limit)


def build(
    texts: Iterable[tuple[str, Sequence[str]]], *, documents_min: int = 5, documents_share_max: float = 0.5
) -> Corpus:
    """Make a corpus from documents that are already cut into words.

    Args:
        texts: names of documents with their words.
        documents_min: words in fewer documents are dropped as too rare to have company.
        documents_share_max: words in more than this share of documents are dropped as too common.

    Returns:
        The corpus; documents of which no word remains are left out.

    Raises:
        CorpusError: no word remains at all.
    """
    kept = [(name, [word for word in words if word not in STOP_WORDS]) for name, words in texts]
    spread = Counter(word for _, words in kept for word in set(words))
    documents_max = documents_share_max * len(kept)
    frequency = Counter(
        word for _, words in kept for word in words if documents_min <= spread[word] <= documents_max
    )
    if not frequency:
        raise CorpusError(
            f"no word stands in at least {documents_min} and at most {documents_max:.0f} of "
            f"{len(kept)} documents; give more documents, or longer ones"
        )
    vocabulary = tuple(sorted(frequency, key=lambda word: (-frequency[word], word)))
    number_of = {word: number for number, word in enumerate(vocabulary)}
    counted = [(name, [number_of[word] for word in words if word in number_of]) for name, words in kept]
    counted = [(name, numbers) for name, numbers in counted if numbers]
    lengths = [len(numbers) for _, numbers in counted]
    return Corpus(
        names=tuple(name for name, _ in counted),
        vocabulary=vocabulary,
        words=np.array([number for _, numbers in counted for number in numbers], dtype=np.int32),
        starts=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
    )


def _read(root: Path, paths: Sequence[Path], *, limit: int | None) -> Corpus:
    if limit is not None and limit < len(paths):
        # Spread evenly: the first N in order of the alphabet would be one package only.
        paths = [paths[position * len(paths) // limit] for position in range(limit)]
    if not paths:
        raise CorpusError(f"there are no files to read in {root}; give another folder with --corpus")
    # A few old modules are in Latin-1; a strange letter is no reason to lose a document.
    texts = ((path, path.read_text(encoding="utf-8", errors="replace")) for path in paths)
    return build((str(path.relative_to(root)), split_words(text)) for path, text in texts)
