"""Real servers killed at random instants and inside their work, clients that push meanwhile, and a ledger of it all."""

from __future__ import annotations

import pytest

from tests.trials.kills import run


def test_a_dozen_kills_lose_and_double_nothing(seed: int) -> None:
    trial = run(num_kills=12, seed=seed)
    assert not trial.wrong, f"seed {seed}: {trial}"
    assert trial.num_kills >= 12
    assert trial.num_pushes >= 12


@pytest.mark.soak
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_hundreds_of_kills_lose_and_double_nothing(seed: int, durability: str) -> None:
    trial = run(num_kills=300, seed=seed, durability=durability)  # type: ignore[arg-type]  # it is one of them
    assert not trial.wrong, f"seed {seed}: {trial}"
    assert trial.num_inside > 50
    assert trial.num_pushes > 10_000
