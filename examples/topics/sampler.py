"""Collapsed Gibbs sampling of topics with numpy; knows no servers and no processes.

A sampler owns some documents: the topic of each of their tokens, and how often each document has each
topic. What all samplers share (how often each word, and any word, has each topic) is handed to it block
by block, and it answers with the moves it made, for its caller to tell the others.

Tokens are sampled in chunks, many at once: within a chunk each token's own assignment is taken out of the
counts exactly, but the chunk's other moves are not seen yet. Chunks are small against the counts, and this
is what makes numpy as fast here as a compiled loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BlockResult", "Priors", "Sampler", "histogram", "plan_blocks", "topic_weights"]

CHUNK_TOKENS = 1024
"""Large enough that numpy's calls cost less than their work, small enough that the counts stay fresh."""


@dataclass(frozen=True)
class Priors:
    """How evenly topics are spread over documents, and words over topics, before anything is seen."""

    document_topic: float = 0.1
    topic_word: float = 0.05


@dataclass(frozen=True)
class BlockResult:
    """What sampling a block changed.

    Attributes:
        words: (n,) int64 words of the tokens that moved.
        old_topics: (n,) int64 topics they left.
        new_topics: (n,) int64 topics they went to.
        num_tokens: tokens looked at.
        log_likelihood: sum over these of each token's log probability given all other tokens.
    """

    words: NDArray[np.int64]
    old_topics: NDArray[np.int64]
    new_topics: NDArray[np.int64]
    num_tokens: int
    log_likelihood: float


def plan_blocks(words: NDArray[np.int32], *, num_words: int, num_blocks: int) -> NDArray[np.int64]:
    """Cut the vocabulary into runs of words with about equally many tokens each.

    Args:
        words: (tokens,) int32 the words of the whole corpus.
        num_words: the size of the vocabulary.
        num_blocks: how many blocks to aim at; fewer come out where a word alone fills several.

    Returns:
        (blocks + 1,) int64, strictly ascending from 0 to ``num_words``.
    """
    ends = np.cumsum(np.bincount(words, minlength=num_words))
    goals = np.arange(1, num_blocks) * (len(words) / num_blocks)
    return np.unique(np.concatenate(([0], np.searchsorted(ends, goals) + 1, [num_words]))).astype(np.int64)


def histogram(
    words: NDArray[np.int32], topics: NDArray[np.int32], *, num_words: int, num_topics: int
) -> NDArray[np.int64]:
    """Count how often each word has each topic.

    Args:
        words: (tokens,) int32.
        topics: (tokens,) int32.
        num_words: the size of the vocabulary.
        num_topics: the number of topics.

    Returns:
        (num_words, num_topics) int64 counts.
    """
    cells = words.astype(np.int64) * num_topics + topics
    return np.bincount(cells, minlength=num_words * num_topics).reshape(num_words, num_topics)


def topic_weights(
    *,
    word_rows: NDArray[np.float64],
    document_rows: NDArray[np.float64],
    topic_totals: NDArray[np.float64],
    own: NDArray[np.int32],
    num_words: int,
    priors: Priors,
) -> NDArray[np.float64]:
    """Weigh every topic for every token of a chunk, its own assignment taken out of all three counts.

    Args:
        word_rows: (n, topics) float64 counts of the tokens' words; overwritten.
        document_rows: (n, topics) float64 counts of the tokens' documents; overwritten.
        topic_totals: (topics,) float64 counts of all words.
        own: (n,) int32 the tokens' present topics.
        num_words: the size of the vocabulary.
        priors: the two priors.

    Returns:
        (n, topics) float64; rows are not normalised.
    """
    each = np.arange(len(own))
    totals = topic_totals + num_words * priors.topic_word
    word_rows[each, own] -= 1
    word_rows += priors.topic_word
    document_rows[each, own] -= 1
    document_rows += priors.document_topic
    weights = np.multiply(word_rows, document_rows, out=document_rows)
    weights /= totals
    # The total without the token differs from its row's divisor in one cell only.
    weights[each, own] *= totals[own] / (totals[own] - 1)
    return weights


class Sampler:
    """Some documents, their tokens' topics, and how they are sampled anew.

    Args:
        words: (tokens,) int32 words.
        documents: (tokens,) int32 documents, counted from 0 among those of this sampler.
        topics: (tokens,) int32 present topics.
        blocks: (blocks + 1,) int64 as ``plan_blocks`` makes them.
        num_topics: the number of topics.
        priors: the two priors.
        rng: where chance comes from.
    """

    def __init__(
        self,
        *,
        words: NDArray[np.int32],
        documents: NDArray[np.int32],
        topics: NDArray[np.int32],
        blocks: NDArray[np.int64],
        num_topics: int,
        priors: Priors,
        rng: np.random.Generator,
    ) -> None:
        self.words = words
        self.documents = documents
        self.topics = topics.copy()
        self.blocks = blocks
        self.num_topics = num_topics
        self._num_words = int(blocks[-1])
        self._priors = priors
        self._rng = rng
        # Grouped by word once: a block's tokens are then a run of this order.
        self._by_word = np.argsort(words, kind="stable")
        self._block_starts = np.searchsorted(words[self._by_word], blocks)
        num_documents = int(documents.max()) + 1 if len(documents) else 0
        cells = documents.astype(np.int64) * num_topics + topics
        counts = np.bincount(cells, minlength=num_documents * num_topics)
        self._n_dk = counts.reshape(num_documents, num_topics).astype(np.float64)
        self._log_lengths = np.log(
            np.maximum(self._n_dk.sum(axis=1) - 1, 0) + num_topics * priors.document_topic
        )

    @property
    def num_blocks(self) -> int:
        """How many blocks a sweep has."""
        return len(self.blocks) - 1

    def histogram(self) -> NDArray[np.int64]:
        """Count this sampler's own assignments afresh, from nothing but the tokens.

        Returns:
            (words, topics) int64 counts.
        """
        return histogram(self.words, self.topics, num_words=self._num_words, num_topics=self.num_topics)

    def sample_block(self, block: int, *, n_wk: NDArray[np.int64], n_k: NDArray[np.int64]) -> BlockResult:
        """Give every token of a block of words a new topic.

        Args:
            block: the block's number.
            n_wk: (block's words, topics) int64 counts over all samplers, this one's included.
            n_k: (topics,) int64 counts of all words, likewise.

        Returns:
            The moves, for the shared counts; this sampler's own counts have them already.
        """
        first, last = self._block_starts[block], self._block_starts[block + 1]
        # A new order each time: a chunk of one word only would meet itself in stale counts.
        tokens = self._rng.permutation(self._by_word[first:last])
        old = self.topics[tokens]
        word_counts = n_wk.astype(np.float64)
        totals = n_k.astype(np.float64)
        log_likelihood = 0.0
        for start in range(0, len(tokens), CHUNK_TOKENS):
            chunk = tokens[start : start + CHUNK_TOKENS]
            log_likelihood += self._sample_chunk(
                chunk, word_counts, totals, first_word=int(self.blocks[block])
            )
        new = self.topics[tokens]
        moved = old != new
        return BlockResult(
            words=self.words[tokens[moved]].astype(np.int64),
            old_topics=old[moved].astype(np.int64),
            new_topics=new[moved].astype(np.int64),
            num_tokens=len(tokens),
            log_likelihood=log_likelihood,
        )

    def _sample_chunk(
        self,
        tokens: NDArray[np.int64],
        word_counts: NDArray[np.float64],
        totals: NDArray[np.float64],
        *,
        first_word: int,
    ) -> float:
        documents, old = self.documents[tokens], self.topics[tokens]
        rows = self.words[tokens] - first_word
        weights = topic_weights(
            word_rows=word_counts[rows],  # (n, topics), a copy
            document_rows=self._n_dk[documents],  # (n, topics), a copy
            topic_totals=totals,
            own=old,
            num_words=self._num_words,
            priors=self._priors,
        )
        np.cumsum(weights, axis=1, out=weights)
        whole = weights[:, -1]
        drawn = self._rng.random(len(tokens)) * whole
        # Rounding can make the draw reach the sum itself; the last topic is then what was meant.
        new = np.minimum((weights <= drawn[:, None]).sum(axis=1), self.num_topics - 1).astype(np.int32)
        for counts, index in ((self._n_dk, documents), (word_counts, rows)):
            np.subtract.at(counts, (index, old), 1)
            np.add.at(counts, (index, new), 1)
        totals += np.bincount(new, minlength=self.num_topics) - np.bincount(old, minlength=self.num_topics)
        self.topics[tokens] = new
        return float((np.log(whole) - self._log_lengths[documents]).sum())
