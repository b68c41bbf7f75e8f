"""How well topics predict words that they were not fitted to; knows topic-word matrices of any origin.

The measure is document completion: of each held-out document one half of the tokens is shown, the topics'
shares in it are estimated, and the other half is to be predicted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .corpus import Corpus
    from .sampler import Priors

__all__ = ["completion_perplexity", "scikit_learn_topics", "smoothed", "split_held_out"]

FOLD_IN_ITERATIONS = 50
"""Expectation-maximisation steps for a document's topics; more change the fourth digit."""


def split_held_out(corpus: Corpus, *, share: float, seed: int) -> tuple[Corpus, Corpus]:
    """Set documents aside.

    Args:
        corpus: all documents.
        share: the share of documents to hold out; at least one is.
        seed: the same seed holds out the same documents.

    Returns:
        The documents to train on, and those held out.
    """
    order = np.random.default_rng(seed).permutation(corpus.num_documents)
    num_held_out = max(1, round(share * corpus.num_documents))
    held_out, trained = np.sort(order[:num_held_out]), np.sort(order[num_held_out:])
    return corpus.select(trained), corpus.select(held_out)


def smoothed(counts: NDArray[np.int64], *, prior: float) -> NDArray[np.float64]:
    """Turn word-topic counts into probabilities.

    Args:
        counts: (words, topics) int64.
        prior: added to every count.

    Returns:
        (words, topics) float64; every column sums to 1.
    """
    raised = counts + prior
    probabilities: NDArray[np.float64] = raised / raised.sum(axis=0)
    return probabilities


def completion_perplexity(
    word_given_topic: NDArray[np.float64], corpus: Corpus, *, document_topic: float, seed: int
) -> float:
    """Predict one half of each document from the other half.

    Args:
        word_given_topic: (words, topics) float64 probabilities; every column sums to 1. Kept fixed.
        corpus: documents that the topics were not fitted to; those of one token are left out.
        document_topic: the prior of topics in a document.
        seed: the same seed cuts the documents in the same halves.

    Returns:
        The perplexity: the predicted half is as surprising as a choice among so many equally likely words.
    """
    rng = np.random.default_rng(seed)
    log_likelihood, num_predicted = 0.0, 0
    for first, last in zip(corpus.starts[:-1], corpus.starts[1:], strict=True):
        words = rng.permutation(corpus.words[first:last])
        shown, predicted = words[: len(words) // 2], words[len(words) // 2 :]
        if not len(shown):
            continue
        shares = _fold_in(word_given_topic[shown], document_topic=document_topic)
        log_likelihood += float(np.log(word_given_topic[predicted] @ shares).sum())
        num_predicted += len(predicted)
    if not num_predicted:
        raise ValueError(f"none of {corpus.num_documents} held-out documents has two words or more")
    return float(np.exp(-log_likelihood / num_predicted))


def scikit_learn_topics(
    corpus: Corpus, *, num_topics: int, priors: Priors, iterations: int, seed: int
) -> NDArray[np.float64]:
    """Fit the same model with scikit-learn, for comparison.

    Args:
        corpus: the documents to train on.
        num_topics: the number of topics.
        priors: the two priors.
        iterations: passes over all documents.
        seed: where its chance starts.

    Returns:
        (words, topics) float64 probabilities; every column sums to 1.
    """
    # Imported here: only a comparison needs it, and it takes a second.
    from scipy.sparse import csr_matrix  # noqa: PLC0415
    from sklearn.decomposition import LatentDirichletAllocation  # noqa: PLC0415

    ones = np.ones(corpus.num_tokens)
    shape = (corpus.num_documents, len(corpus.vocabulary))
    counts = csr_matrix((ones, (corpus.documents(), corpus.words)), shape=shape)
    model = LatentDirichletAllocation(
        n_components=num_topics,
        doc_topic_prior=priors.document_topic,
        topic_word_prior=priors.topic_word,
        learning_method="batch",
        max_iter=iterations,
        random_state=seed,
    )
    model.fit(counts)
    pseudo_counts = np.asarray(model.components_, dtype=np.float64).T  # (words, topics), the prior included
    probabilities: NDArray[np.float64] = pseudo_counts / pseudo_counts.sum(axis=0)
    return probabilities


def _fold_in(likelihoods: NDArray[np.float64], *, document_topic: float) -> NDArray[np.float64]:
    num_topics = likelihoods.shape[1]
    shares = np.full(num_topics, 1 / num_topics)
    for _ in range(FOLD_IN_ITERATIONS):
        weights = likelihoods * shares  # (tokens, topics)
        weights /= weights.sum(axis=1, keepdims=True)
        shares = weights.sum(axis=0) + document_topic
        shares /= shares.sum()
    return shares
