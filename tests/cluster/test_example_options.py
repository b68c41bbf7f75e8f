"""What an example can't do it says at once, and without a traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.example_runs import run

TEXT = "to be or not to be that is the question " * 3
ROWS = "+1 1:1\n-1 2:1\n"


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("ftrl.py ROWS --seed -1", 2, "--seed: invalid integer of at least 0 value: '-1'"),
        ("word2vec.py TEXT --seed -1", 2, "--seed: invalid integer of at least 0 value: '-1'"),
        ("word2vec.py TEXT --min-count 1 --max-words 1", 1, "error: vectors of 1 word have no neighbours"),
        (
            "word2vec.py TEXT --output no/such/folder",
            1,
            "error: .*No such file or directory: 'no/such/folder'",
        ),
        ("word2vec.py TEXT --min-count 50", 1, "error: of 30 words, 0 stand at least 50 times"),
        ("matrix_factorization.py --seed -1", 2, "--seed: invalid integer of at least 0 value: '-1'"),
        ("matrix_factorization.py --synthetic 1", 1, "error: 1 ratings: one is held out"),
        ("topic_model.py --seed -1", 2, "--seed: -1 is less than 0"),
        ("logistic_regression.py ROWS --seed -1", 2, "--seed: invalid integer of at least 0 value: '-1'"),
        ("logistic_regression.py ROWS --workers 0", 2, "--workers: invalid positive integer value: '0'"),
        ("logistic_regression.py ROWS --learning-rate nan", 2, "--learning-rate: invalid number above 0"),
        ("logistic_regression.py missing", 1, "error: .*missing"),
    ],
)
def test_what_can_t_be_is_said_at_once(tmp_path: Path, command: str, status: int, said: str) -> None:
    (tmp_path / "TEXT").write_text(TEXT)
    (tmp_path / "ROWS").write_text(ROWS)
    program, *options = command.split()
    done = run(program, *options, folder=tmp_path, status=status)
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
