"""Whole clusters in virtual time: over a thousand seeds by default, more in a soak and by ``tests.trials.seeds``.

A failure names its seed and kind; ``run_seed(seed, kind=...)`` shows it again, as does ``pytest --seed=SEED``,
which begins there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import pytest

from glintpy import config
from glintpy.testing.simulated_work import KINDS, Kind
from glintpy.testing.simulation import Report, run_seed

SEEDS_A_KIND = 60
SOAK_SEEDS_A_KIND = 800


def run_many(first: int, count: int, kind: Kind) -> Counter[str]:
    totals: Counter[str] = Counter()
    for number in range(first, first + count):
        report = run_seed(number, kind=kind)
        totals.update({name: value for name, value in asdict(report).items() if name.startswith("num_")})
    return totals


@pytest.mark.parametrize("kind", KINDS)
def test_every_push_is_in_exactly_once_and_no_promise_is_broken(seed: int, kind: Kind) -> None:
    totals = run_many(seed, SEEDS_A_KIND, kind)
    # What never went wrong has shown nothing: the accidents that a kind is named after must have happened.
    assert totals["num_applied"] > 20 * SEEDS_A_KIND
    assert totals["num_refused"] > SEEDS_A_KIND
    assert totals["num_probes"] > 0
    assert totals["num_bundles"] > 4 * SEEDS_A_KIND
    if kind not in {"clean", "pauses"}:
        assert totals["num_mixed"] > 0  # under pauses one in some hundred seeds, which the soak has
        assert totals["num_payload_resends"] > SEEDS_A_KIND
    if "kills" in kind:
        assert totals["num_kills"] > 3 * SEEDS_A_KIND
    if "hostile" in kind:
        assert totals["num_lost"] > 10 * SEEDS_A_KIND
        assert totals["num_gaps"] > 5 * SEEDS_A_KIND
        assert totals["num_unknown"] > 0
        assert totals["num_repeats"] > 5 * SEEDS_A_KIND


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_soak(seed: int, kind: Kind) -> None:
    totals = run_many(seed, SOAK_SEEDS_A_KIND, kind)
    if kind != "clean":
        assert totals["num_mixed"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_runs_alike(seed: int, kind: Kind) -> None:
    assert run_seed(seed, kind=kind) == run_seed(seed, kind=kind)


def test_a_drawn_kind_is_the_one_that_is_reported() -> None:
    drawn = [run_seed(number) for number in range(12)]
    assert len({report.kind for report in drawn}) > 3
    assert run_seed(3, kind=drawn[3].kind) == drawn[3]


def test_a_clean_network_carries_two_messages_a_part_and_one_round_trip(seed: int) -> None:
    for number in range(seed, seed + 40):
        report = run_seed(number, kind="clean")
        greetings = 2 * 5 * 3  # of at most five clients at three servers
        asked = report.num_parts + report.num_pulls + report.num_probes
        assert report.num_messages <= 2 * asked + greetings
        assert report.num_payload_resends == 0


def test_the_run_leaves_the_limits_as_they_were() -> None:
    before = config.PART_BYTES
    assert isinstance(run_seed(1), Report)
    assert before == config.PART_BYTES
