"""The topic example's sampler, and the proof that its counts are shared without loss; no servers here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.topics import checkpoint
from examples.topics.display import describe_topics
from examples.topics.proof import check_counts
from examples.topics.sampler import Priors, Sampler, histogram, plan_blocks, topic_weights
from examples.topics.worker import deal_documents

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Counts = NDArray[np.int64]

NUM_WORDS, NUM_TOPICS, NUM_DOCUMENTS = 40, 5, 12
PRIORS = Priors(document_topic=0.2, topic_word=0.1)


BLOCKS = np.array([0, 1, 2, 4, 8, 16, 40], dtype=np.int64)


def make_sampler(seed: int, *, num_tokens: int = 3000) -> Sampler:
    rng = np.random.default_rng(seed)
    words = np.minimum(rng.geometric(0.15, num_tokens) - 1, NUM_WORDS - 1).astype(np.int32)
    return Sampler(
        words=words,
        documents=np.sort(rng.integers(NUM_DOCUMENTS, size=num_tokens)).astype(np.int32),
        topics=rng.integers(NUM_TOPICS, size=num_tokens, dtype=np.int32),
        blocks=BLOCKS,
        num_topics=NUM_TOPICS,
        priors=PRIORS,
        rng=rng,
    )


def sweep(samplers: list[Sampler], n_wk: Counts, n_k: Counts) -> float:
    """One sweep of several samplers in turn, block by block, as workers do at the same time."""
    log_likelihood = 0.0
    for block in range(samplers[0].num_blocks):
        for sampler in samplers:
            rows = slice(sampler.blocks[block], sampler.blocks[block + 1])
            result = sampler.sample_block(block, n_wk=n_wk[rows], n_k=n_k)
            for topics, by in ((result.old_topics, -1), (result.new_topics, 1)):
                np.add.at(n_wk, (result.words, topics), by)
                np.add.at(n_k, topics, by)
            log_likelihood += result.log_likelihood
    return log_likelihood


def test_weights_are_those_of_counts_from_which_the_token_was_taken_out() -> None:
    rng = np.random.default_rng(3)
    words, documents = rng.integers(NUM_WORDS, size=200), rng.integers(NUM_DOCUMENTS, size=200)
    topics = rng.integers(NUM_TOPICS, size=200)
    n_wk, n_dk = np.zeros((NUM_WORDS, NUM_TOPICS)), np.zeros((NUM_DOCUMENTS, NUM_TOPICS))
    np.add.at(n_wk, (words, topics), 1)
    np.add.at(n_dk, (documents, topics), 1)
    weights = topic_weights(
        word_rows=n_wk[words],
        document_rows=n_dk[documents],
        topic_totals=n_wk.sum(axis=0),
        own=topics.astype(np.int32),
        num_words=NUM_WORDS,
        priors=PRIORS,
    )
    for token in range(200):
        others = np.arange(200) != token
        of_word = np.bincount(topics[others & (words == words[token])], minlength=NUM_TOPICS)
        of_document = np.bincount(topics[others & (documents == documents[token])], minlength=NUM_TOPICS)
        totals = np.bincount(topics[others], minlength=NUM_TOPICS)
        expected = (of_word + PRIORS.topic_word) * (of_document + PRIORS.document_topic)
        expected /= totals + NUM_WORDS * PRIORS.topic_word
        np.testing.assert_allclose(weights[token], expected, rtol=1e-12)


def test_tokens_are_drawn_with_the_probabilities_of_their_weights() -> None:
    # One token a document and word, all alike: every one is a draw from the same distribution.
    num_tokens = 40_000
    n_wk, n_k = np.array([[400_000, 100_000]]), np.array([400_000, 100_000])
    sampler = Sampler(
        words=np.zeros(num_tokens, dtype=np.int32),
        documents=np.arange(num_tokens, dtype=np.int32),
        topics=np.zeros(num_tokens, dtype=np.int32),
        blocks=np.array([0, 1]),
        num_topics=2,
        priors=Priors(document_topic=1.0, topic_word=3e5),
        rng=np.random.default_rng(0),
    )
    result = sampler.sample_block(0, n_wk=n_wk, n_k=n_k)
    # With one word (count + prior) / (total + prior) is 1: topics are as likely as the document says.
    assert result.num_tokens == num_tokens
    share = (sampler.topics == 1).mean()
    assert abs(share - 0.5) < 5 * np.sqrt(0.25 / num_tokens)
    assert result.log_likelihood == pytest.approx(0.0, abs=1e-6 * num_tokens)


@pytest.mark.parametrize("num_samplers", [1, 2, 4])
def test_moves_lead_from_the_old_histogram_to_the_new_one(num_samplers: int) -> None:
    samplers = [make_sampler(seed) for seed in range(num_samplers)]
    n_wk = np.sum([sampler.histogram() for sampler in samplers], axis=0)
    n_k = n_wk.sum(axis=0)
    before = n_wk.copy()
    for _ in range(3):
        sweep(samplers, n_wk, n_k)
        proof = check_counts(n_wk, n_k, [sampler.histogram() for sampler in samplers])
        assert proof.holds, str(proof)
        assert proof.num_tokens == 3000 * num_samplers
    assert (before != n_wk).any()


def test_the_likelihood_of_separable_documents_rises_to_what_is_possible() -> None:
    # Two kinds of documents with four words of their own: within its kind each word has 1 in 4.
    rng = np.random.default_rng(1)
    documents = np.repeat(np.arange(20, dtype=np.int32), 100)
    words = (4 * (documents % 2) + rng.integers(4, size=2000)).astype(np.int32)
    sampler = Sampler(
        words=words,
        documents=documents,
        topics=rng.integers(2, size=2000, dtype=np.int32),
        blocks=plan_blocks(words, num_words=8, num_blocks=4),
        num_topics=2,
        priors=Priors(document_topic=0.01, topic_word=0.01),
        rng=rng,
    )
    n_wk = sampler.histogram()
    n_k = n_wk.sum(axis=0)
    first = sweep([sampler], n_wk, n_k) / 2000
    for _ in range(40):
        last = sweep([sampler], n_wk, n_k) / 2000
    assert first < np.log(1 / 7)
    assert last == pytest.approx(np.log(1 / 4), abs=0.03)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.integers(1, 12))
def test_blocks_cover_every_word_once(words: list[int], num_blocks: int) -> None:
    blocks = plan_blocks(np.array(words, dtype=np.int32), num_words=10, num_blocks=num_blocks)
    assert blocks[0] == 0
    assert blocks[-1] == 10
    assert (np.diff(blocks) > 0).all()
    assert len(blocks) <= num_blocks + 1


@given(st.lists(st.integers(1, 1000), max_size=60), st.integers(1, 5))
def test_documents_are_dealt_once_each_and_evenly(lengths: list[int], num_workers: int) -> None:
    tokens = np.array(lengths, dtype=np.int64)
    hands = deal_documents(tokens, num_workers=num_workers)
    assert sorted(np.concatenate(hands).tolist()) == list(range(len(lengths)))
    loads = [int(tokens[hand].sum()) for hand in hands]
    assert max(loads) - min(loads) <= max(lengths, default=0)


def test_more_workers_than_documents_leave_some_without_work() -> None:
    hands = deal_documents(np.array([5, 3]), num_workers=4)
    assert [hand.tolist() for hand in hands] == [[0], [1], [], []]
    empty = np.zeros(0, dtype=np.int32)
    idle = Sampler(
        words=empty,
        documents=empty,
        topics=empty,
        blocks=np.array([0, 2, 4]),
        num_topics=3,
        priors=PRIORS,
        rng=np.random.default_rng(0),
    )
    counts = np.ones((2, 3), dtype=np.int64)
    result = idle.sample_block(1, n_wk=counts, n_k=counts.sum(axis=0))
    assert result.num_tokens == 0
    assert len(result.words) == 0
    assert not idle.histogram().any()


def proof_pieces() -> tuple[Counts, Counts, list[Counts]]:
    samplers = [make_sampler(seed) for seed in (5, 6)]
    histograms = [sampler.histogram() for sampler in samplers]
    n_wk = np.sum(histograms, axis=0)
    return n_wk, n_wk.sum(axis=0), histograms


def test_the_proof_holds_for_right_counts_and_says_what_it_compared() -> None:
    proof = check_counts(*proof_pieces())
    assert proof.holds
    assert str(proof) == "40 x 5 cells, 6,000 tokens"


def test_a_lost_move_is_seen() -> None:
    n_wk, n_k, histograms = proof_pieces()
    # A token of word 0 went from topic 1 to 2 in its worker, and the servers heard nothing.
    histograms[0][0, 1] -= 1
    histograms[0][0, 2] += 1
    proof = check_counts(n_wk, n_k, histograms)
    assert not proof.holds
    assert (proof.num_wrong_cells, proof.num_wrong_totals) == (2, 0)
    assert f"n_wk[0, 1] is {n_wk[0, 1]:,}, the assignments make it {n_wk[0, 1] - 1:,}" in str(proof)


def test_a_doubled_move_is_seen() -> None:
    n_wk, n_k, histograms = proof_pieces()
    n_wk[3, 4] += 1
    n_wk[3, 0] -= 1
    proof = check_counts(n_wk, n_k, histograms)
    assert not proof.holds
    assert (proof.num_wrong_cells, proof.num_wrong_totals) == (2, 2)
    assert "2 of 40 x 5 cells" in str(proof)
    assert "n_wk[3, 0]" in str(proof)


def test_wrong_moves_that_keep_every_sum_are_seen() -> None:
    n_wk, n_k, histograms = proof_pieces()
    # Two mistakes that cancel in the sums of rows and of columns: only the cells tell.
    n_wk[1, 0] += 1
    n_wk[1, 1] -= 1
    n_wk[2, 0] -= 1
    n_wk[2, 1] += 1
    proof = check_counts(n_wk, n_k, histograms)
    assert not proof.holds
    assert (proof.num_wrong_cells, proof.num_wrong_totals) == (4, 0)


def test_a_wrong_total_is_seen_though_every_cell_is_right() -> None:
    n_wk, n_k, histograms = proof_pieces()
    n_k[2] += 1
    proof = check_counts(n_wk, n_k, histograms)
    assert not proof.holds
    assert (proof.num_wrong_cells, proof.num_wrong_totals) == (0, 1)
    assert f"n_k[2] is {n_k[2]:,}" in str(proof)


def test_a_histogram_counts_pairs() -> None:
    words, topics = np.array([0, 1, 1, 1], dtype=np.int32), np.array([1, 0, 0, 1], dtype=np.int32)
    assert histogram(words, topics, num_words=3, num_topics=2).tolist() == [[0, 1], [2, 1], [0, 0]]


def description(folder: str, *, num_workers: int) -> checkpoint.Description:
    return checkpoint.Description(
        folder=folder,
        sweep=3,
        num_workers=num_workers,
        num_topics=NUM_TOPICS,
        document_topic=0.1,
        topic_word=0.05,
        fingerprint="0123",
    )


def save_two(url: str, topics: NDArray[np.int32]) -> checkpoint.Description:
    """Two workers save: one has the even tokens, the other the odd ones."""
    saved = description(checkpoint.new_folder(url, sweep=3), num_workers=2)
    positions = np.arange(len(topics))
    for number in range(2):
        checkpoint.save_assignments(
            f"{url}/{saved.folder}", number=number, positions=positions[number::2], topics=topics[number::2]
        )
    return saved


def test_assignments_of_several_workers_are_put_together_again(tmp_path: Path) -> None:
    topics = np.random.default_rng(0).integers(NUM_TOPICS, size=101, dtype=np.int32)
    saved = save_two(str(tmp_path), topics)
    checkpoint.commit(str(tmp_path), saved)
    assert checkpoint.read(str(tmp_path)) == saved
    loaded = checkpoint.load_assignments(str(tmp_path), saved, num_tokens=101)
    assert loaded.tolist() == topics.tolist()


def test_what_was_not_committed_leaves_the_former_checkpoint(tmp_path: Path) -> None:
    topics = np.zeros(10, dtype=np.int32)
    first, second = save_two(str(tmp_path), topics), save_two(str(tmp_path), topics)
    checkpoint.commit(str(tmp_path), first)
    assert checkpoint.read(str(tmp_path)).folder == first.folder
    checkpoint.commit(str(tmp_path), second)
    assert checkpoint.read(str(tmp_path)).folder == second.folder
    assert not (tmp_path / first.folder).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([second.folder, "topic-model.json"])


def test_a_damaged_checkpoint_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    url = str(tmp_path)
    topics = np.full(10, NUM_TOPICS - 1, dtype=np.int32)
    saved = save_two(url, topics)
    with pytest.raises(checkpoint.ResumeError, match=r"no topic-model.json .* run once without --resume"):
        checkpoint.read(url)
    (tmp_path / "topic-model.json").write_text('{"sweep": 3}')
    with pytest.raises(checkpoint.ResumeError, match="damaged"):
        checkpoint.read(url)
    with pytest.raises(checkpoint.ResumeError, match=r"10 tokens that aren't the corpus's 12"):
        checkpoint.load_assignments(url, saved, num_tokens=12)
    saved_by_three = description(saved.folder, num_workers=3)
    with pytest.raises(checkpoint.ResumeError, match=r"assignments-2.npy can't be read"):
        checkpoint.load_assignments(url, saved_by_three, num_tokens=10)
    checkpoint.save_assignments(
        f"{url}/{saved.folder}", number=0, positions=np.arange(0, 10, 2), topics=topics[::2] + np.int32(1)
    )
    with pytest.raises(checkpoint.ResumeError, match="topics from 4 to 5, not 0 to 4"):
        checkpoint.load_assignments(url, saved, num_tokens=10)


def test_topics_are_named_by_their_words_the_largest_first() -> None:
    lines = describe_topics(np.array([[1, 0], [0, 6], [1, 2]]), ["jar", "socket", "turtle"])
    assert lines == ["80.0%  socket turtle", "20.0%  jar turtle"]
