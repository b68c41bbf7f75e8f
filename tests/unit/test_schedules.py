"""Schedules against plain formulas and MXNet's own loop, as plain data, and with wrong numbers."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from glintpy.errors import ConfigError
from glintpy.updaters.schedules import (
    _BY_NAME,
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    Schedule,
    Stepwise,
)
from tests.unit.updater_cases import SCHEDULES

STEPS = np.arange(1.0, 31.0)

EXAMPLES = (Constant(0.5), InverseTime(1, 0.1), Exponential(1, 0.9, 3), Stepwise(1, 0.5, 4), Cosine(1, 9))


def test_a_constant_is_one_number_at_every_step() -> None:
    assert Constant(3)(STEPS).tolist() == [3.0] * 30


def test_inverse_time_and_exponential_are_their_formulas() -> None:
    inverse = [2.0 / (1 + 0.25 * n) for n in range(30)]
    np.testing.assert_allclose(InverseTime(2.0, 0.25)(STEPS), inverse, rtol=1e-15)
    np.testing.assert_allclose(
        Exponential(2.0, 0.5, 4)(STEPS), [2.0 * 0.5 ** (n / 4) for n in range(30)], rtol=1e-15
    )
    assert Exponential(1.0, 0.5)(STEPS)[:3].tolist() == [1.0, 0.5, 0.25]


def test_stepwise_is_mxnets_factor_scheduler() -> None:
    """Its loop: whenever an update is more than ``step`` behind the last change, the rate changes."""
    rate, count, expected = 2.0, 0, []
    for update in range(1, 31):
        while update > count + 5:
            count += 5
            rate = max(rate * 0.5, 0.3)
        expected.append(rate)
    assert Stepwise(2.0, 0.5, 5, 0.3)(STEPS).tolist() == expected
    assert expected[4:6] == [2.0, 1.0]
    assert expected[-1] == 0.3


def test_cosine_falls_along_half_a_wave_and_stays() -> None:
    found = Cosine(2.0, 20, 0.5)(STEPS)
    waves = [0.5 + 1.5 * (1 + math.cos(math.pi * n / 20)) / 2 for n in range(21)]
    np.testing.assert_allclose(found[:21], waves, rtol=1e-14)
    assert found[0] == 2.0
    assert found[20:].tolist() == [0.5] * 10


def test_before_it_falls_a_cosine_may_rise() -> None:
    found = Cosine(2.0, 10, 0.0, warmup=4)(STEPS)
    assert found[:5].tolist() == [0.5, 1.0, 1.5, 2.0, 2.0]
    np.testing.assert_array_equal(found[4:], Cosine(2.0, 10)(STEPS)[:26])


@given(SCHEDULES)
def test_a_schedule_goes_through_plain_data(schedule: Schedule) -> None:
    content = json.loads(json.dumps(schedule.to_content()))
    assert Schedule.from_content(content) == schedule
    rates = schedule(STEPS)
    assert rates.shape == STEPS.shape
    assert rates.dtype == np.float64
    assert np.all(np.isfinite(rates))


def test_every_schedule_is_found_by_its_name() -> None:
    assert {type(example) for example in EXAMPLES} == set(_BY_NAME.values()) == set(Schedule.__subclasses__())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, 1e31, 10**400, True, "1", None])
def test_every_number_of_a_schedule_is_checked(example: Any, value: object) -> None:
    for entry in fields(example):
        content = {**example.to_content(), entry.name: value}
        with pytest.raises(ConfigError, match=rf"{entry.name} of schedule '{example.name}' is a number from"):
            Schedule.from_content(content)


def test_counts_of_steps_are_at_least_one_and_factors_at_most() -> None:
    with pytest.raises(
        ConfigError, match=r"num_steps of schedule 'cosine' is a number from 1 to 1e\+30, not 0.5"
    ):
        Cosine(1.0, 0.5)
    for kind in (Exponential, Stepwise):
        with pytest.raises(ConfigError, match=r"factor of schedule '\w+' is a number from 0 to 1, not 1.01"):
            kind(1.0, 1.01, 5)
        assert kind(1.0, 1.0, 5)(STEPS)[-1] == 1.0


@pytest.mark.parametrize("content", [{}, {"schedule": "constnat"}, {"schedule": ["constant"]}, {"value": 1}])
def test_an_unknown_schedule_is_refused_with_those_that_exist(content: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"there is no schedule .*; there is constant, cosine, exponential,"
    ):
        Schedule.from_content(content)


@pytest.mark.parametrize("numbers", [{}, {"value": 1, "decay": 1}, {"decay": 1}])
def test_a_schedule_with_other_numbers_is_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"schedule 'constant' has the numbers \['value'\], not"):
        Schedule.from_content({"schedule": "constant", **numbers})
