"""An updater's numbers: which are refused, how they travel, and which a live model may get; and slots."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy.errors import ConfigError, DTypeError
from glintpy.protocol.spec import numbers_text
from glintpy.updaters import (
    SGD,
    Adagrad,
    Adam,
    Add,
    Ftrl,
    Mean,
    Slot,
    Updater,
    arithmetic_dtype,
    named,
    schedules,
)
from glintpy.updaters.names import BUILT_IN
from tests.unit.updater_cases import UPDATERS

LEAST = {"epsilon": 1e-30, "clip_gradient": 1e-30, "beta": 1e-30}
"""Numbers that are divided by, or that would make nothing of every gradient."""

BELOW_ONE = {"momentum", "decay", "beta1", "beta2"}

NUMBERS = [(kind, entry.name) for kind in BUILT_IN.values() for entry in fields(kind)]


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=lambda value: getattr(value, "name", value))
def test_every_number_has_a_range_and_an_error_that_says_so(kind: type[Updater], name: str) -> None:
    low = 1e-30 if (kind, name) == (Ftrl, "learning_rate") else LEAST.get(name, 0)
    high = 1 if name in BELOW_ONE else 1e30
    text = rf"{name} is a number of at least {low:g} and below {high:g}, not ".replace("+", r"\+")
    wrong: list[Any] = [-1e-9, low - 1e-31, high, -math.inf, math.inf, math.nan, 10**400, True, "0.1", [0.1]]
    if name != "clip_gradient":
        wrong.append(None)
    for value in wrong:
        with pytest.raises(ConfigError, match=text):
            kind.from_content({name: value})
    for value in (low, 0.5, high * 0.99):
        assert getattr(kind.from_content({name: value}), name) == value


def test_a_long_wrong_number_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        SGD("0" * 9999)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("kind", "name"),
    [case for case in NUMBERS if case[1] != "learning_rate"] + [(Ftrl, "learning_rate")],
    ids=lambda value: getattr(value, "name", value),
)
def test_only_learning_rates_follow_schedules(kind: type[Updater], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is a number"):
        kind.from_content({name: schedules.Constant(0.1).to_content()})


@pytest.mark.parametrize("name", UPDATERS)
@given(st.data())
def test_an_updater_goes_through_json(name: str, data: st.DataObject) -> None:
    updater = data.draw(UPDATERS[name])
    content = json.loads(json.dumps(updater.to_content()))
    assert named(name, content) == updater
    assert type(updater).from_content(content) == updater


def test_what_is_missing_has_its_default() -> None:
    assert Adagrad.from_content({"epsilon": 0.5}) == Adagrad(0.01, 0.5)
    assert named("adagrad", {}) == named("adagrad") == Adagrad()


def test_an_unknown_number_is_refused_with_those_that_exist() -> None:
    with pytest.raises(
        ConfigError, match=r"updater 'sgd' has no number 'learnin_rate'; it has .*'learning_rate'"
    ):
        named("sgd", {"learnin_rate": 0.1})
    with pytest.raises(ConfigError, match=r"updater 'add' has no number 'learning_rate'; it has \[\]"):
        named("add", {"learning_rate": 0.1})
    with pytest.raises(ConfigError, match=r"updater 'sgd' has no number 'lr'; it has learning_rate, "):
        SGD().configured(lr=1)
    with pytest.raises(ConfigError, match=r"updater 'add' has no number 'lr'; it has none"):
        Add().configured(lr=1)


def test_what_is_not_a_rate_is_keyword_only_so_that_positions_never_change_their_meaning() -> None:
    assert SGD(0.5).learning_rate == 0.5
    for kind in (SGD, Adagrad, Adam):
        positional = [entry.name for entry in fields(kind) if not entry.kw_only]
        assert positional[0] == "learning_rate"
        assert not {"weight_decay", "clip_gradient"} & set(positional)


# --- on a live model ------------------------------------------------------------------------------------------


def test_a_live_model_gets_other_numbers() -> None:
    found = Adagrad(0.1, 0.5, weight_decay=0.25).configured(learning_rate=0.2, clip_gradient=3)
    assert found == Adagrad(0.2, 0.5, weight_decay=0.25, clip_gradient=3)
    with pytest.raises(ConfigError, match="learning_rate is a number"):
        found.configured(learning_rate=-1)


def test_a_live_model_without_counted_steps_gets_no_schedule() -> None:
    with pytest.raises(ConfigError, match=r"'sgd' was made without a schedule, and so nobody has counted"):
        SGD(0.1).configured(learning_rate=schedules.InverseTime(0.1, 0.1))


def test_a_live_model_with_counted_steps_keeps_them() -> None:
    scheduled = SGD(schedules.InverseTime(0.1, 0.1))
    with pytest.raises(ConfigError, match=r"'sgd' counts steps for a schedule; .* use schedules.Constant"):
        scheduled.configured(learning_rate=0.1)
    assert scheduled.configured(learning_rate=schedules.Constant(0.1)).counts_steps


def test_adam_counts_anyway_and_so_gets_either() -> None:
    scheduled = Adam().configured(learning_rate=schedules.Constant(0.1))
    assert scheduled.configured(learning_rate=0.2) == Adam(0.2)
    assert scheduled.slot_names == Adam().slot_names == ("mean", "variance", "steps")


def test_pushes_join_unless_steps_are_counted() -> None:
    assert SGD().joins_cells
    assert Add().joins_cells
    assert not SGD(schedules.Constant(0.1)).joins_cells
    assert not Adam().joins_cells


# --- dtypes and slots -----------------------------------------------------------------------------------------


def test_updaters_of_gradients_refuse_integers() -> None:
    for kind in BUILT_IN.values():
        if kind.kinds == "f":
            for dtype in ("int32", "uint8", "bool"):
                with pytest.raises(DTypeError, match=rf"updater '{kind.name}' computes with fractions"):
                    kind().check_dtype(np.dtype(dtype))
            kind().check_dtype(np.dtype("float16"))
    assert {name for name, kind in BUILT_IN.items() if kind.kinds != "f"} == {
        "add",
        "assign",
        "max",
        "min",
        "total",
    }


def test_float16_is_computed_with_in_float32() -> None:
    assert arithmetic_dtype(np.dtype("float16")) == np.float32
    for dtype in ("float32", "float64", "int8", "bool"):
        assert arithmetic_dtype(np.dtype(dtype)) == dtype


@pytest.mark.parametrize("name", ["values", "rows", "steps", "", "Sum", "sum2", "a/b", "a" * 41, "sum\n"])
def test_a_slots_name_can_be_a_files(name: str) -> None:
    with pytest.raises(ConfigError, match="a slot's name has up to 40 lower-case letters and underscores"):
        Slot(name)


@pytest.mark.parametrize("init", [math.nan, math.inf, -math.inf, "0", None, True])
def test_a_slot_begins_with_a_number(init: Any) -> None:
    with pytest.raises(ConfigError, match="init of slot 'sum' is a number"):
        Slot("sum", init)
    assert Slot("sum", -1.5).init == -1.5


# --- repeats --------------------------------------------------------------------------------------------------

KEYS = np.array([5, 2, 5, 2, 5, 9])
PUSHED = np.array([[1.0], [2.0], [-4.0], [3.0], [2.5], [0.5]], np.float32)

COMBINED = {
    "assign": [3.0, 2.5, 0.5],
    "max": [3.0, 2.5, 0.5],
    "min": [2.0, -4.0, 0.5],
}
SUMS = [5.0, -0.5, 0.5]


@pytest.mark.parametrize("name", [name for name, kind in BUILT_IN.items() if kind.combines])
def test_repeats_become_one_by_the_updaters_own_rule(name: str) -> None:
    keys, values = named(name).combine(KEYS, PUSHED)
    assert keys.tolist() == [2, 5, 9]
    assert values.ravel().tolist() == COMBINED.get(name, SUMS)
    assert values.dtype == np.float32


def test_a_mean_counts_every_repeat() -> None:
    assert not Mean.combines
    keys, values = Mean().combine(KEYS, PUSHED)
    np.testing.assert_array_equal(keys, KEYS)
    np.testing.assert_array_equal(values, PUSHED)
    assert not np.shares_memory(keys, KEYS)
    assert not np.shares_memory(values, PUSHED)


@pytest.mark.parametrize("name", ["assign", "max", "min", "sgd"])
def test_nothing_combines_to_nothing(name: str) -> None:
    for dtype in ("int64", "bool"):
        keys, values = named(name).combine(np.zeros(0, np.int64), np.zeros((0, 3), dtype))
        assert keys.shape == (0,)
        assert values.shape == (0, 3)
        assert values.dtype == dtype


def test_nan_wins_among_repeats_of_max_and_min() -> None:
    for name in ("max", "min"):
        _, values = named(name).combine(np.array([1, 1, 1]), np.array([1.0, np.nan, 2.0]))
        assert np.isnan(values).all()


def test_an_updater_may_do_without_slots_numbers_and_a_loop() -> None:
    @dataclass(frozen=True)
    class Halve(Updater):
        name: ClassVar[str] = "halve"

        def update(self, values: Any, deltas: Any, slots: Any, rates: Any, numbers: Any) -> Any:
            del deltas, slots
            assert (rates, numbers) == ((), ())
            return (values / 2,)

    updater = Halve()
    assert (updater.rates(None), updater.numbers(), updater.slot_names, updater.loop) == ((), (), (), None)
    deltas = np.ones(3)
    assert updater.prepare(deltas) is deltas


@dataclass(frozen=True)
class Own(Updater):
    """One whose numbers may be anything."""

    number: Any = 1.0
    rate: Any = 1.0

    def numbers(self) -> tuple[Any, ...]:
        return (self.number, True)

    def rates(self, steps: Any) -> tuple[Any, ...]:
        return (self.rate if steps is None else self.rate * steps,)

    def update(self, values: Any, deltas: Any, slots: Any, rates: Any, numbers: Any) -> Any:
        del slots
        return (values + numbers[0] * rates[0] * deltas,)


@pytest.mark.parametrize("wrong", ["x", None, [1, 2], {}, 1j, np.ones((1, 1))])
def test_what_is_no_number_is_refused_before_a_server_has_it(wrong: Any) -> None:
    Own().check_numbers()
    with pytest.raises(ConfigError, match=r"numbers\(\) of updater '.*Own' returns .*, which is no number$"):
        Own(number=wrong).check_numbers()
    with pytest.raises(ConfigError, match=r"rates\(\) of updater '.*Own' returns .*, which is no number$"):
        Own(rate=wrong).check_numbers()
    with pytest.raises(ConfigError, match="returns"):
        Own().configured(number=wrong)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, {1}, np.ones(2)])
def test_what_json_has_no_word_for_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="finite numbers, texts, and lists of such"):
        numbers_text(Own(number=wrong).to_content())


@pytest.mark.parametrize("name", UPDATERS)
@given(data=st.data())
def test_the_numbers_of_all_that_the_package_has_are_numbers(name: str, data: st.DataObject) -> None:
    data.draw(UPDATERS[name]).check_numbers()
