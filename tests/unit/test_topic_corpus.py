"""The topic example's corpus: words out of source code, and documents out of words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.topics.corpus import (
    Corpus,
    CorpusError,
    build,
    read_folder,
    read_standard_library,
    split_words,
)

if TYPE_CHECKING:
    from pathlib import Path


def small() -> Corpus:
    texts = [
        ("a", ["cookie", "jar", "jar"]),
        ("b", ["jar", "socket"]),
        ("empty", ["once"]),
        ("c", ["socket", "jar", "cookie", "self"]),
    ]
    return build(texts, documents_min=2, documents_share_max=0.8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("snake_case_name", ["snake", "case", "name"]),
        ("camelCaseName", ["camel", "case", "name"]),
        ("HTTPServerError", ["http", "server", "error"]),
        ("MAX_RETRIES2", ["max", "retries"]),
        ("x = ab12abc", ["abc"]),
        ("__init_subclass__", ["init", "subclass"]),
        ("", []),
    ],
)
def test_identifiers_become_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(st.text())
def test_words_are_lower_case_letters_of_three_and_more(text: str) -> None:
    for word in split_words(text):
        assert word.isascii()
        assert word.isalpha()
        assert word == word.lower()
        assert len(word) >= 3


def test_rare_common_and_stop_words_are_dropped_and_frequent_words_come_first() -> None:
    corpus = small()
    assert corpus.vocabulary == ("jar", "cookie", "socket")
    assert corpus.names == ("a", "b", "c")
    assert corpus.words.tolist() == [1, 0, 0, 0, 2, 2, 0, 1]
    assert corpus.starts.tolist() == [0, 3, 5, 8]
    assert corpus.documents().tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_a_word_in_most_documents_is_dropped() -> None:
    texts = [(str(number), ["everywhere", "seldom"][: 1 + number % 2]) for number in range(10)]
    assert build(texts, documents_min=2).vocabulary == ("seldom",)


def test_nothing_left_is_an_error_with_the_numbers() -> None:
    with pytest.raises(CorpusError, match="at least 5 and at most 1 of 2 documents"):
        build([("a", ["cookie"]), ("b", ["cookie"])])


def test_selected_documents_keep_their_words_and_the_vocabulary() -> None:
    corpus = small()
    chosen = corpus.select(np.array([0, 2]))
    assert chosen.vocabulary == corpus.vocabulary
    assert chosen.names == ("a", "c")
    assert chosen.words.tolist() == [1, 0, 0, 2, 0, 1]
    assert chosen.starts.tolist() == [0, 3, 6]
    assert corpus.positions_of(np.array([0, 2])).tolist() == [0, 1, 2, 5, 6, 7]


def test_the_fingerprint_tells_corpora_apart() -> None:
    corpus = small()
    assert corpus.fingerprint() == small().fingerprint()
    assert corpus.fingerprint() != corpus.select(np.array([0, 1])).fingerprint()
    moved = Corpus(corpus.names, corpus.vocabulary, corpus.words, np.array([0, 2, 5, 8]))
    assert corpus.fingerprint() != moved.fingerprint()


def test_a_folder_is_read_without_hidden_files(tmp_path: Path) -> None:
    for number in range(30):
        folder = tmp_path / f"part{number % 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number:02d}.txt").write_text(["cookie jar", "socket", "turtle"][number % 3])
    (tmp_path / ".hidden").write_text("socket " * 100)
    corpus = read_folder(tmp_path)
    assert corpus.num_documents == 30
    assert corpus.num_tokens == 10 * 2 + 10 + 10
    assert "part1/07.txt" in corpus.names
    # Spread over all folders: six of each, where the first eighteen would have been two folders.
    assert read_folder(tmp_path, limit=18).num_tokens == 6 * 2 + 6 + 6


def test_a_missing_or_empty_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nowhere is not a folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="no files to read"):
        read_folder(tmp_path)


def test_the_standard_library_has_its_modules_and_not_its_tests() -> None:
    corpus = read_standard_library(limit=120)
    assert 80 < corpus.num_documents <= 120
    assert corpus.num_tokens > 20_000
    assert not [name for name in corpus.names if {"test", "tests"} & set(name.split("/"))]
    frequency = np.bincount(corpus.words, minlength=len(corpus.vocabulary))
    assert (np.diff(frequency) <= 0).all()
    assert frequency.min() >= 5
    assert not {"self", "def", "the", "import"} & set(corpus.vocabulary)
