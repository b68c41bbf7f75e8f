"""How well the topic example's topics predict, measured and compared with scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest

from examples.topics.corpus import Corpus
from examples.topics.quality import (
    completion_perplexity,
    scikit_learn_topics,
    smoothed,
    split_held_out,
)
from examples.topics.sampler import Priors, Sampler, plan_blocks

NUM_WORDS, NUM_TOPICS = 200, 6
PRIORS = Priors(document_topic=0.1, topic_word=0.05)


def synthetic(
    *, num_documents: int, seed: int
) -> tuple[Corpus, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Documents drawn from topics that are known, and these topics, (words, topics)."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(NUM_WORDS, 0.05), size=NUM_TOPICS).T
    documents = []
    for _ in range(num_documents):
        shares = rng.dirichlet(np.full(NUM_TOPICS, PRIORS.document_topic))
        documents.append(rng.choice(NUM_WORDS, size=120, p=topics @ shares))
    corpus = Corpus(
        names=tuple(str(number) for number in range(num_documents)),
        vocabulary=tuple(f"word{number}" for number in range(NUM_WORDS)),
        words=np.concatenate(documents).astype(np.int32),
        starts=np.arange(num_documents + 1, dtype=np.int64) * 120,
    )
    return corpus, topics


def test_perfect_knowledge_of_one_word_is_a_perplexity_of_one_and_none_that_of_all_words() -> None:
    corpus = Corpus(("a", "b"), ("x", "y"), np.array([0, 0, 0, 0, 1, 1], dtype=np.int32), np.array([0, 4, 6]))
    known = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert completion_perplexity(known, corpus, document_topic=1e-12, seed=0) == pytest.approx(1)
    unknown = np.full((2, 2), 0.5)
    assert completion_perplexity(unknown, corpus, document_topic=0.1, seed=0) == pytest.approx(2)


def test_the_prior_is_what_a_document_without_evidence_gets() -> None:
    # The shown half (one token of word 0) says nothing about topics that both have it alike.
    corpus = Corpus(("a",), ("x", "y"), np.array([0, 0], dtype=np.int32), np.array([0, 2]))
    alike = np.array([[0.25, 0.25], [0.75, 0.75]])
    assert completion_perplexity(alike, corpus, document_topic=0.1, seed=0) == pytest.approx(4)


def test_documents_of_one_word_cannot_be_scored() -> None:
    corpus = Corpus(("a",), ("x",), np.array([0], dtype=np.int32), np.array([0, 1]))
    with pytest.raises(ValueError, match="none of 1 held-out documents"):
        completion_perplexity(np.ones((1, 1)), corpus, document_topic=0.1, seed=0)


def test_true_topics_predict_better_than_other_ones() -> None:
    corpus, topics = synthetic(num_documents=40, seed=1)
    _, others = synthetic(num_documents=1, seed=2)
    true = completion_perplexity(topics + 1e-9, corpus, document_topic=0.1, seed=0)
    other = completion_perplexity(others + 1e-9, corpus, document_topic=0.1, seed=0)
    assert true < 0.5 * other


def test_smoothing_gives_probabilities_without_zeros() -> None:
    probabilities = smoothed(np.array([[3, 0], [1, 0]]), prior=0.5)
    np.testing.assert_allclose(probabilities, [[0.7, 0.5], [0.3, 0.5]])


def test_held_out_documents_are_apart_from_the_others_and_the_same_each_time() -> None:
    corpus, _ = synthetic(num_documents=50, seed=3)
    trained, held_out = split_held_out(corpus, share=0.1, seed=4)
    assert (trained.num_documents, held_out.num_documents) == (45, 5)
    assert not set(trained.names) & set(held_out.names)
    assert split_held_out(corpus, share=0.1, seed=4)[1].names == held_out.names
    assert split_held_out(corpus, share=0.1, seed=5)[1].names != held_out.names


def test_the_sampler_is_as_good_as_scikit_learn_and_nearly_as_good_as_the_truth() -> None:
    corpus, topics = synthetic(num_documents=200, seed=7)
    trained, held_out = split_held_out(corpus, share=0.2, seed=7)
    rng = np.random.default_rng(7)
    sampler = Sampler(
        words=trained.words,
        documents=trained.documents(),
        topics=rng.integers(NUM_TOPICS, size=trained.num_tokens, dtype=np.int32),
        blocks=plan_blocks(trained.words, num_words=NUM_WORDS, num_blocks=8),
        num_topics=NUM_TOPICS,
        priors=PRIORS,
        rng=rng,
    )
    n_wk = sampler.histogram()
    for _ in range(80):
        for block in range(sampler.num_blocks):
            rows = slice(sampler.blocks[block], sampler.blocks[block + 1])
            sampler.sample_block(block, n_wk=n_wk[rows], n_k=n_wk.sum(axis=0))
            n_wk = sampler.histogram()
    theirs = scikit_learn_topics(trained, num_topics=NUM_TOPICS, priors=PRIORS, iterations=50, seed=7)

    def perplexity(probabilities: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> float:
        return completion_perplexity(probabilities, held_out, document_topic=PRIORS.document_topic, seed=7)

    ours = perplexity(smoothed(n_wk, prior=PRIORS.topic_word))
    assert ours < 1.05 * perplexity(theirs)
    assert ours < 1.10 * perplexity(topics + 1e-9)
