"""The example of word2vec, in a small form, on a text whose words belong together in groups that are known."""

from __future__ import annotations

import bz2
import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from examples.words.counting import compare
from examples.words.text import Text, number_words, pairs_of, read_words
from examples.words.training import Settings
from glintpy import LocalCluster
from glintpy.updaters import Adagrad
from tests.cluster.example_runs import DATA, run

GROUPS = "abcd"
LETTERS = "efghijklmnopqrstuvwx"

SMALL = ("--dim", "16", "--window", "3", "--batch-pairs", "100", "--rate", "0.1", "--subsample", "0")


def planted_words() -> list[str]:
    """Words by group, named after it: the first letter says which."""
    return [f"{group}{letter}" for group in GROUPS for letter in LETTERS]


def write_planted(path: Path, num_sentences: int) -> None:
    """Sentences of words of one group each, with words in between that belong to none."""
    rng = np.random.default_rng(3)
    lines = []
    for _ in range(num_sentences):
        group = GROUPS[rng.integers(len(GROUPS))]
        words = [f"{group}{letter}" for letter in rng.choice(list(LETTERS), 8)]
        words[3] = ("the", "of", "and")[rng.integers(3)]
        lines.append(" ".join(words) + ".")
    path.write_text("\n".join(lines) + "\n")


def neighbours_in(output: str) -> dict[str, list[str]]:
    """Return the neighbours that were printed, by word."""
    found = re.findall(r"^  (\w+): (.*)$", output, flags=re.MULTILINE)
    return {word: re.findall(r"(\w+) -?\d\.\d\d", line) for word, line in found}


def test_neighbours_are_of_the_same_group_and_the_loss_falls(tmp_path: Path) -> None:
    write_planted(tmp_path / "text.txt", 800)
    words = planted_words()
    arguments = (*SMALL, "--epochs", "1", "--servers", "3", "--output", "vectors.txt", "--words", *words)
    done = run("word2vec.py", "text.txt", *arguments, folder=tmp_path)
    assert re.search(
        r"^6,400 words, 83 different ones; vectors of 18 columns, 6 on each of 3 servers; 2 workers$",
        done.stdout,
        flags=re.MULTILINE,
    ), done.stdout
    found = neighbours_in(done.stdout)
    assert sorted(found) == sorted(words)
    # By chance 19 of 82 would be; the sentences' borders mix some in.
    shares = [np.mean([near[0] == word[0] for near in nearest]) for word, nearest in found.items()]
    assert np.mean(shares) > 0.9, done.stdout
    losses = [
        float(loss) for loss in re.findall(r"^ +\d+%  loss (\d\.\d{4})$", done.stdout, flags=re.MULTILINE)
    ]
    assert len(losses) == 10
    assert losses[0] < 6 * np.log(2) + 0.01, "nobody knows less than nothing"
    assert losses[-1] < min(losses[0] - 0.3, losses[4]), done.stdout
    written = (tmp_path / "vectors.txt").read_text().splitlines()
    assert written[0] == "83 18"
    assert len(written) == 84
    vectors = {line.split()[0]: np.array(line.split()[1:], float) for line in written[1:]}
    cosines = {
        word: vectors[word] @ vectors["ae"] / np.linalg.norm(vectors[word]) / np.linalg.norm(vectors["ae"])
        for word in vectors
        if word != "ae"
    }
    best = sorted(cosines, key=lambda word: -cosines[word])[:6]
    assert best == found["ae"]


def test_ten_times_fewer_bytes_travel_and_the_vectors_are_the_same() -> None:
    # As frequent as words are in a language: so some rows repeat in a batch, and travel once.
    num_words = 8000
    shares = 1 / np.arange(1, num_words + 1)
    rng = np.random.default_rng(1)
    words = rng.choice(num_words, 30_000, p=shares / shares.sum()).astype(np.int32)
    text = Text(("",) * num_words, np.maximum(1, 1e6 * shares).astype(np.int64), words)
    with LocalCluster(2) as cluster, cluster.client() as client:
        found = compare(client, text, Settings(), Adagrad(learning_rate=0.05), parts=2, dim=100)
    assert found.num_pairs == 10_000
    assert found.vectors_bytes > 10 * found.scalars_bytes
    # 2 servers, twice two words of 2 bytes, and twice 6 numbers of 4 bytes; little else.
    assert 112 < found.scalars_bytes < 120
    assert found.difference < 1e-3 * found.size


@pytest.mark.soak
def test_word2vec_of_shakespeare(tmp_path: Path) -> None:
    path = DATA / "shakespeare_lines.csv.bz2"
    if not path.is_file():
        pytest.skip(f"{path} is missing; GLINTPY_TEST_DATA names the folder of such files")
    done = run("word2vec.py", path, "--words", "thou", "york", folder=tmp_path)
    found = neighbours_in(done.stdout)
    # By chance one of six neighbours would be among a dozen of 8,556 words once in a hundred times.
    second_person = {
        "thee",
        "thy",
        "thyself",
        "thine",
        "dost",
        "didst",
        "hast",
        "art",
        "wert",
        "wilt",
        "canst",
    }
    houses = {"gloucester", "exeter", "salisbury", "buckingham", "norfolk", "clarence", "warwick", "suffolk"}
    houses |= {"lancaster", "somerset", "bedford", "duke", "edward", "henry", "richard"}
    assert len(second_person & set(found["thou"])) >= 2, done.stdout
    assert len(houses & set(found["york"])) >= 2, done.stdout
    bytes_a_pair = re.search(
        r": ([\d,]+) where vectors are pulled and pushed, (\d+) where they stay", done.stdout
    )
    assert bytes_a_pair, done.stdout
    assert int(bytes_a_pair[1].replace(",", "")) > 10 * int(bytes_a_pair[2])


# --- its parts --------------------------------------------------------------------------------------------------


def test_texts_are_read_packed_or_not_and_of_tables_the_column_with_most_text(tmp_path: Path) -> None:
    text = "Don't STOP,  the 2nd\nÉtude_stop\n"
    expected = ["don't", "stop", "the", "nd", "étude", "stop"]
    (tmp_path / "plain").write_text(text, encoding="utf-8")
    (tmp_path / "text.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "text.bz2").write_bytes(bz2.compress(text.encode()))
    for name in ("plain", "text.gz", "text.bz2"):
        assert list(read_words(tmp_path / name)) == expected
    rows = [
        '"1";"Henry IV";;"So shaken as we are, so wan; with care,"',
        '"2";"A name that is long";"3"',
        '"4";"x";"";"Find we"',
    ]
    (tmp_path / "lines.csv.bz2").write_bytes(bz2.compress("\n".join(rows).encode()))
    found = list(read_words(tmp_path / "lines.csv.bz2"))
    assert found == ["so", "shaken", "as", "we", "are", "so", "wan", "with", "care", "find", "we"]


def test_words_are_numbered_by_how_frequent_they_are() -> None:
    words = list("bacabadc")
    text = number_words(iter(words), count_min=2)
    assert text.vocabulary == ("a", "b", "c")
    assert text.counts.tolist() == [3, 2, 2]
    assert text.words.tolist() == [1, 0, 2, 0, 1, 0, 2]
    assert text.most_frequent(2).words.tolist() == [1, 0, 0, 1, 0]
    assert number_words(iter(words), count_min=1, words_max=2).vocabulary == ("a", "b")
    with pytest.raises(ValueError, match="of 3 words, 1 stand at least 2 times"):
        number_words(iter("aba"), count_min=2)


def test_pairs_stand_within_a_window_each_way_and_none_is_lost_between_batches() -> None:
    words = np.arange(50, dtype=np.int32)
    counts = np.ones(50, np.int64)

    def pairs(batch_pairs: int, window: int = 3, subsample: float = 0) -> list[tuple[int, int]]:
        batches = list(
            pairs_of(counts, words, window=window, subsample=subsample, batch_pairs=batch_pairs, seed=[7])
        )
        assert all(len(batch) == batch_pairs for batch in batches[:-1])
        assert [batch.share for batch in batches] == sorted(batch.share for batch in batches)
        return [pair for batch in batches for pair in zip(batch.inputs, batch.outputs, strict=True)]

    found = pairs(7)
    assert found == pairs(1000) == pairs(1)
    assert {abs(a - b) for a, b in found} == {1, 2, 3}
    near = [sum(a == word for a, _ in found) for word in range(50)]
    # The widths of windows are 1 to 3 by chance: two to six words, fewer at the ends.
    assert set(near[3:-3]) == {2, 4, 6}
    assert near[0] <= 3
    assert {(a, a + 1) for a in range(49)} <= set(found)
    # Words that are all as frequent as that are left out at times.
    assert len(pairs(7, subsample=0.001)) < len(found) / 2


def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"a b " * 999)[:-9])
    done = run("word2vec.py", "cut.gz", folder=tmp_path, status=1)
    assert done.stderr.startswith("error: cut.gz is damaged or cut off: ")
    done = run("word2vec.py", "nowhere.txt", folder=tmp_path, status=1)
    assert done.stderr == "error: [Errno 2] No such file or directory: 'nowhere.txt'\n"
    (tmp_path / "short.txt").write_text("a b a b\n")
    done = run("word2vec.py", "short.txt", folder=tmp_path, status=1)
    assert done.stderr == "error: of 4 words, 0 stand at least 5 times; give more text, or --min-count 1\n"


def test_vectors_without_bounds_end_the_training_with_what_to_do(tmp_path: Path) -> None:
    write_planted(tmp_path / "text.txt", 100)
    done = run("word2vec.py", "text.txt", *SMALL, "--rate", "1e20", folder=tmp_path, status=1)
    assert done.stderr.endswith(
        "error: the vectors have no bounds any more; try a smaller --rate, or fewer --batch-pairs\n"
    )
