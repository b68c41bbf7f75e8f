"""The example of matrix factorisation, in a small form, against its noise and itself without servers."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from examples.factors.ratings import SYNTHETIC_NOISE, make_ratings, read_ratings
from tests.cluster.example_runs import run


def errors_of(output: str) -> tuple[float, float, float]:
    """What one process, the workers and the mean reach."""
    found = re.findall(r"^  (\d+\.\d{4})  ", output, flags=re.MULTILINE)
    alone, together, mean = map(float, found[:3])
    return alone, together, mean


def test_workers_come_as_close_to_the_noise_as_one_process_does(tmp_path: Path) -> None:
    arguments = ("--synthetic", "30000", "--users", "200", "--items", "150", "--rank", "5", "--epochs", "10")
    done = run("matrix_factorization.py", *arguments, "--batch-ratings", "256", folder=tmp_path)
    alone, together, mean = errors_of(done.stdout)
    assert mean > 0.9
    assert SYNTHETIC_NOISE * 0.95 < together < SYNTHETIC_NOISE * 1.15
    assert abs(together - alone) < 0.02
    assert "27,000 ratings of 150 items by 200 users, 3,000 held out" in done.stdout
    assert "0.5000  the noise" in done.stdout


def test_a_file_of_ratings_is_learnt_by_sgd_too(tmp_path: Path) -> None:
    ratings = make_ratings(100, 60, 12_000, seed=4)
    lines = [
        f"u{user}\ti{item}\t{value:.3f}\t881250949"
        for user, item, value in zip(ratings.users, ratings.items, ratings.values, strict=True)
    ]
    path = tmp_path / "ratings.tsv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    arguments = ("--updater", "sgd", "--learning-rate", "0.01", "--batch-ratings", "128")
    done = run("matrix_factorization.py", path, *arguments, folder=tmp_path)
    alone, together, mean = errors_of(done.stdout)
    assert together < 0.75 * mean
    assert abs(together - alone) < 0.05
    assert "the noise" not in done.stdout


@pytest.mark.parametrize("separator", [" ", "\t", ",", ";", "::", ", "])
def test_ratings_are_read_with_any_separator_and_any_names(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "ratings"
    rows = [("anna", "it's", "4.5"), ("7", "it's", "-1"), ("anna", "b", "3")] * 4
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n\n")
    found = read_ratings(path)
    assert found.users[:3].tolist() == [0, 1, 0]
    assert found.items[:3].tolist() == [0, 0, 1]
    assert found.values[:3].tolist() == [4.5, -1.0, 3.0]
    path.write_text(separator.join(("userId", "movieId", "rating")) + "\n" + path.read_text())
    assert len(read_ratings(path).values) == 12


@pytest.mark.parametrize("line", ["1,2", "1,2,three", "1,2,nan", ",2,3", "1,,3", "1"])
def test_a_rating_that_is_wrong_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(f"1,2,3\n1,3,4\n{line}\n")
    with pytest.raises(
        ValueError, match=rf"ratings\.csv, line 3: '{re.escape(line)}' is not USER ITEM RATING"
    ):
        read_ratings(path)


def test_what_is_no_file_of_ratings_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("user,item,rating\n1,2,3\n")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"1,2,3\n" * 1000)[:-12])
    for name, reason in (("short.csv", "1 ratings are too few"), ("cut.csv.gz", "damaged or cut off")):
        with pytest.raises(ValueError, match=reason):
            read_ratings(tmp_path / name)
    done = run("matrix_factorization.py", "nowhere", folder=tmp_path, status=1)
    assert done.stderr == "error: [Errno 2] No such file or directory: 'nowhere'\n"


def test_made_up_ratings_are_those_of_their_seed() -> None:
    first, again, other = (make_ratings(50, 20, 1000, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
