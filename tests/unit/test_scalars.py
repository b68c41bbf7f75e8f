"""NumPy's numbers are as good as Python's wherever a number is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from glintpy.errors import ConfigError
from glintpy.functions.changes import Scale
from glintpy.functions.reductions import Histogram
from glintpy.protocol.spec import ModelSpec
from glintpy.scalars import plain
from glintpy.updaters import Adam, Ftrl, Updater, schedules
from glintpy.updaters.base import check_number

HALF: Any = np.float32(0.5)
INT: Any = np.int64


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.1), 0.10000000149011612),
        (np.int64(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (("normal", np.float64(1), np.float16(2)), ("normal", 1.0, 2.0)),
        (0.5, 0.5),
        ("text", "text"),
        (None, None),
    ],
)
def test_plain(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(found, tuple):
        assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("made", "same"),
    [
        (Adam(learning_rate=HALF, beta1=HALF), Adam(learning_rate=0.5, beta1=0.5)),
        (Ftrl(l1=INT(2)), Ftrl(l1=2)),
        (Scale(by=INT(3)), Scale(by=3)),
        (
            Histogram(bins=INT(4), low=HALF, high=np.float64(1)),
            Histogram(bins=4, low=0.5, high=1.0),
        ),
    ],
)
def test_updaters_and_functions_hold_plain_numbers(made: Any, same: Any) -> None:
    assert made == same
    assert made.to_content() == same.to_content()
    assert {type(value) for value in made.to_content().values()} <= {int, float, type(None)}


def test_schedules_hold_plain_numbers() -> None:
    made = schedules.Stepwise(HALF, factor=np.float64(0.1), num_steps=INT(10))
    assert made.to_content() == schedules.Stepwise(0.5, 0.1, 10).to_content()
    assert type(made.initial) is float
    assert Adam(learning_rate=made).to_content()["learning_rate"] == made.to_content()
    assert Adam().configured(learning_rate=HALF) == Adam(learning_rate=0.5)


def test_a_spec_holds_plain_numbers() -> None:
    made = ModelSpec("m", 3, 2, "float32", partitions_per_server=INT(2), seed=INT(7), init=HALF)
    same = ModelSpec("m", 3, 2, "float32", partitions_per_server=2, seed=7, init=0.5)
    assert made.to_content() == same.to_content()
    drawn = ModelSpec("m", 3, 2, "float32", init=("uniform", -HALF, HALF))
    assert drawn.init == ("uniform", -0.5, 0.5)


@dataclass(frozen=True)
class Own(Updater):
    """One that checks its numbers and has forgotten the others'."""

    name: ClassVar[str] = ""
    rate: float = 0.1

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ConfigError("rate is above 0")

    def update(
        self, values: Any, deltas: Any, slots: Any, rates: Any, numbers: Any
    ) -> tuple[np.ndarray[Any, Any], ...]:
        del slots, rates, numbers
        return (values + self.rate * deltas,)


def test_what_travels_is_plain_also_of_one_that_does_not_care() -> None:
    content = Own(HALF).to_content()
    assert content == {"rate": 0.5}
    assert type(content["rate"]) is float


@pytest.mark.parametrize("value", [np.bool_(True), np.float32(np.nan), np.float32(-1), np.str_("1")])
def test_what_is_no_number_stays_none(value: Any) -> None:
    with pytest.raises(ConfigError, match="is a number"):
        Adam(learning_rate=value)
    with pytest.raises(ConfigError, match="is a number"):
        check_number("x", plain(value), low=0)
