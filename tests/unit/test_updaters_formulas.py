"""What each updater makes of some pushes: against PyTorch, the papers' formulas in plain Python, and numpy.

The numbers of PyTorch are those of version 2.14 in float64, made with::

    w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([w], 0.1, betas=(0.8, 0.95), eps=0.03, weight_decay=0.05)
    for gradient in GRADIENTS:
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        print([round(x, 15) for x in w.tolist()])

and ``SGD([w], 0.1, weight_decay=0.05)``, the same with ``momentum=0.8`` and with ``nesterov=True``, ``Adagrad([w], 0.1,
eps=0.03, weight_decay=0.05)``, ``RMSprop([w], 0.1, alpha=0.8, eps=0.03, weight_decay=0.05)`` and ``AdamW`` as ``Adam``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glintpy.updaters import (
    DCASGD,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Assign,
    Ftrl,
    Max,
    Mean,
    Min,
    Momentum,
    Nesterov,
    RMSprop,
    Updater,
    schedules,
)
from glintpy.updaters.base import Array
from tests.unit.updater_cases import pushed

START = [1.0, -2.0, 0.5]
GRADIENTS = [[0.5, -1.0, 0.0], [0.25, 2.0, -0.5], [-1.5, 0.125, 0.75], [1.0, -0.375, 0.0]]

PYTORCH: list[tuple[Updater, list[list[float]]]] = [
    (
        SGD(0.1, weight_decay=0.05),
        [
            [0.945, -1.89, 0.4975],
            [0.915275, -2.08055, 0.5450125],
            [1.060698625, -2.08264725, 0.4672874375],
            [0.955395131875, -2.03473401375, 0.4649510003125],
        ],
    ),
    (
        Momentum(0.1, 0.8, weight_decay=0.05),
        [
            [0.945, -1.89, 0.4975],
            [0.871275, -1.99255, 0.5430125],
            [0.957938625, -2.07712725, 0.5017074375],
            [0.922479831875, -2.09690341375, 0.4661548503125],
        ],
    ),
    (
        Nesterov(0.1, 0.8, weight_decay=0.05),
        [
            [0.901, -1.802, 0.4955],
            [0.812691, -2.075382, 0.5794405],
            [1.028333581, -2.145117162, 0.4683599355],
            [0.894843407571, -2.112400765142, 0.4375980064805],
        ],
    ),
    (
        Adagrad(0.1, 0.03, weight_decay=0.05),
        [
            [0.905172413793103, -1.902654867256637, 0.454545454545455],
            [0.860042511854287, -1.9880878173302, 0.548510274108577],
            [0.950253892384946, -1.989235699082097, 0.466031925747917],
            [0.895977167529768, -1.968429597992908, 0.463560601012211],
        ],
    ),
    (
        RMSprop(0.1, 0.8, 0.03, weight_decay=0.05),
        [
            [0.800701153290709, -1.789245769160121, 0.439291418991932],
            [0.699073546104678, -1.98202352043238, 0.635193370571884],
            [0.901465193189922, -1.984934567977489, 0.452789888401251],
            [0.771950510108554, -1.927632763366699, 0.446934621597614],
        ],
    ),
    (
        Adam(0.1, 0.8, 0.95, 0.03, weight_decay=0.05),
        [
            [0.905172413793103, -1.902654867256637, 0.454545454545455],
            [0.817940835935102, -1.93834464642996, 0.522794193541329],
            [0.85499210842763, -1.965252358178169, 0.493080476942967],
            [0.843199907397934, -1.971369726893637, 0.468594337422569],
        ],
    ),
    (
        AdamW(0.1, 0.8, 0.95, 0.03, weight_decay=0.05),
        [
            [0.900660377358491, -1.892912621359223, 0.4975],
            [0.810632794991016, -1.9245178015194, 0.566594114286564],
            [0.847870570742356, -1.948682536891054, 0.538127197183205],
            [0.83622891971287, -1.953508403661343, 0.515782942035542],
        ],
    ),
]


def trajectory(
    updater: Updater, pushes: Any, start: Any, dtype: str = "float64", first_step: int = 1
) -> list[Array]:
    """Return the values after each push to one row."""
    values = np.array([start], dtype)
    slots = tuple(np.full_like(values, slot.init) for slot in updater.slots)
    found = []
    for step, deltas in enumerate(pushes, first_step):
        steps = np.array([float(step)]) if updater.counts_steps else None
        values, *after = pushed(updater, values, np.array([deltas], dtype), slots, steps)
        slots = tuple(after)
        found.append(values[0])
    return found


# --- gradients ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("updater", "expected"), PYTORCH, ids=[case[0].name for case in PYTORCH])
def test_steps_are_those_of_pytorch(updater: Updater, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(trajectory(updater, GRADIENTS, START), expected, rtol=1e-12)
    in_float32 = trajectory(updater, GRADIENTS, START, "float32")
    np.testing.assert_allclose(in_float32, np.array(expected), rtol=2e-6)
    assert {values.dtype.name for values in in_float32} == {"float32"}


def test_the_defaults_are_those_of_pytorch_where_it_has_the_updater() -> None:
    assert (Adagrad().learning_rate, Adagrad().epsilon) == (0.01, 1e-10)
    assert (RMSprop().learning_rate, RMSprop().decay, RMSprop().epsilon) == (0.01, 0.99, 1e-8)
    assert (Adam().learning_rate, Adam().beta1, Adam().beta2, Adam().epsilon) == (0.001, 0.9, 0.999, 1e-8)
    assert (Adam().weight_decay, AdamW().weight_decay, SGD().weight_decay) == (0.0, 0.01, 0.0)


def test_a_row_that_is_rarely_pushed_to_is_corrected_by_its_own_count() -> None:
    """Both rows take the same first step, however often the other one was pushed to."""
    first = pushed(
        Adam(0.1), np.zeros((2, 1)), np.ones((2, 1)), (np.zeros((2, 1)),) * 2, np.array([1.0, 5000.0])
    )[0]
    assert first[0, 0] == pytest.approx(-0.1, rel=1e-6)
    assert first[1, 0] == pytest.approx(-0.1 * math.sqrt(10), rel=0.01)  # what one count for all would do


@pytest.mark.parametrize("kind", [SGD, Momentum, Nesterov, Adagrad, RMSprop, Adam, AdamW, DCASGD])
def test_a_schedule_gives_each_step_its_rate(kind: Any) -> None:
    halving = kind(schedules.InverseTime(0.2, 0.5))
    for step in (1, 2, 5):
        rate = 0.2 / (1 + 0.5 * (step - 1))
        with_schedule = trajectory(halving, [START], START, first_step=step)
        with_number = trajectory(kind(rate), [START], START, first_step=step)
        np.testing.assert_allclose(with_schedule, with_number, rtol=1e-14)


def test_with_entries_of_one_push_at_different_steps_each_has_its_own_rate() -> None:
    updater = SGD(schedules.InverseTime(1.0, 1.0))
    after = pushed(updater, np.zeros((3, 2)), np.ones((3, 2)), (), np.array([1.0, 2.0, 4.0]))[0]
    np.testing.assert_array_equal(after, [[-1, -1], [-0.5, -0.5], [-0.25, -0.25]])


@pytest.mark.parametrize(
    "updater",
    [
        kind(0.1, clip_gradient=0.5)
        for kind in (SGD, Momentum, Nesterov, Adagrad, RMSprop, Adam, AdamW, DCASGD, Ftrl)
    ],
    ids=lambda updater: updater.name,
)
def test_gradients_are_clipped_before_anything_else(updater: Any) -> None:
    clipped = trajectory(updater, [[3.0, -3.0, 0.25, np.nan]], [1.0, 1.0, 1.0, 1.0])
    expected = trajectory(
        updater.configured(clip_gradient=None), [[0.5, -0.5, 0.25, np.nan]], [1.0, 1.0, 1.0, 1.0]
    )
    np.testing.assert_array_equal(clipped, expected)


def test_clipping_keeps_the_dtype_and_its_argument() -> None:
    deltas = np.array([[2.0, -0.5]], np.float32)
    found = SGD(clip_gradient=1).prepare(deltas)
    assert found.dtype == np.float32
    assert found.tolist() == [[1.0, -0.5]]
    assert deltas.tolist() == [[2.0, -0.5]]
    assert SGD().prepare(deltas) is deltas


# --- delay compensation ---------------------------------------------------------------------------------------


def test_dcasgd_is_mxnets_which_keeps_the_value_before_the_last_push() -> None:
    rate, decay, compensation = 0.1, 0.05, 0.4
    weight, previous = START[0], START[0]
    expected = []
    for gradient, *_ in GRADIENTS:
        change = -rate * (
            gradient + decay * weight + compensation * gradient * gradient * (weight - previous)
        )
        previous = weight
        weight += change
        expected.append(weight)
    found = trajectory(DCASGD(rate, compensation, weight_decay=decay), GRADIENTS, START)
    np.testing.assert_allclose([values[0] for values in found], expected, rtol=1e-14)
    without = trajectory(DCASGD(rate, 0, weight_decay=decay), GRADIENTS, START)
    assert abs(without[-1][0] - expected[-1]) > 1e-4, "the compensation did nothing"


# --- FTRL -----------------------------------------------------------------------------------------------------


class PaperFtrl:
    """Algorithm 1 of McMahan et al. (2013): weights are computed when they are needed, from z and n."""

    def __init__(self, alpha: float, beta: float, l1: float, l2: float) -> None:
        self.numbers = alpha, beta, l1, l2
        self.z: dict[int, float] = {}
        self.n: dict[int, float] = {}

    def weight(self, i: int) -> float:
        alpha, beta, l1, l2 = self.numbers
        z, n = self.z.get(i, 0.0), self.n.get(i, 0.0)
        if abs(z) <= l1:
            return 0.0
        sign = 1.0 if z > 0 else -1.0
        return -(((beta + math.sqrt(n)) / alpha + l2) ** -1) * (z - sign * l1)

    def update(self, i: int, gradient: float) -> None:
        alpha = self.numbers[0]
        n, weight = self.n.get(i, 0.0), self.weight(i)
        sigma = (math.sqrt(n + gradient**2) - math.sqrt(n)) / alpha
        self.z[i] = self.z.get(i, 0.0) + gradient - sigma * weight
        self.n[i] = n + gradient**2


def test_ftrl_learns_what_the_papers_algorithm_learns_and_has_exact_zeros(seed: int) -> None:
    random = np.random.default_rng(seed)
    num_features, wanted = 40, np.zeros(40)
    wanted[:4] = [2.0, -2.0, 1.5, -1.0]
    numbers = 0.3, 1.0, 1.0, 0.1
    paper, updater = PaperFtrl(*numbers), Ftrl(*numbers)
    weights, z, n = (np.zeros((num_features, 1)) for _ in range(3))
    for _ in range(400):
        features = random.choice(num_features, 5, replace=False)
        label = float(random.random() < 1 / (1 + math.exp(-wanted[features].sum())))
        gradient = 1 / (1 + math.exp(-weights[features].sum())) - label
        after = pushed(updater, weights[features], np.full((5, 1), gradient), (z[features], n[features]))
        for array, changed in zip((weights, z, n), after, strict=True):
            array[features] = changed
        for i in features.tolist():
            paper.update(i, gradient)
        expected = [paper.weight(i) for i in range(num_features)]
        np.testing.assert_allclose(weights[:, 0], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(weights[:, 0] == 0, np.array(expected) == 0)
    touched = n[:, 0] > 0
    assert touched.all()
    assert 5 < np.count_nonzero(weights == 0) < num_features - 4, "most noise is zero, and not all is"
    assert np.all(np.sign(weights[:4, 0]) == np.sign(wanted[:4]))
    assert not np.signbit(weights[weights == 0]).any()


# --- the rest -------------------------------------------------------------------------------------------------


def test_a_mean_is_of_all_that_was_pushed_and_not_of_what_was_there_before() -> None:
    found = trajectory(Mean(), GRADIENTS, [1e30, np.inf, np.nan])
    for number in range(1, len(GRADIENTS) + 1):
        np.testing.assert_allclose(found[number - 1], np.mean(GRADIENTS[:number], axis=0), atol=1e-15)
    assert found[0].tolist() == GRADIENTS[0]


def test_each_cell_has_its_own_mean() -> None:
    after = pushed(Mean(), np.array([[4.0, 9.0]]), np.array([[1.0, 1.0]]), (np.array([[2.0, 0.0]]),))
    assert [array.tolist() for array in after] == [[[3.0, 1.0]], [[3.0, 1.0]]]


VALUES: Any = st.sampled_from(["float32", "int8", "uint64", "bool"]).flatmap(
    lambda dtype: st.tuples(arrays(dtype, (3, 2)), arrays(dtype, (3, 2)))
)


@given(VALUES)
def test_max_and_min_are_numpys(two: tuple[Array, Array]) -> None:
    values, deltas = two
    for updater, rule in ((Max(), np.maximum), (Min(), np.minimum)):
        (found,) = updater.update(values, deltas, (), (), ())
        np.testing.assert_array_equal(found, rule(values, deltas), strict=True)


@given(VALUES)
def test_assign_stores_what_is_pushed(two: tuple[Array, Array]) -> None:
    (found,) = Assign().update(*two, (), (), ())
    np.testing.assert_array_equal(found, two[1], strict=True)


def test_of_two_zeros_max_and_min_keep_the_stored_one() -> None:
    values, deltas = np.array([[0.0, -0.0]]), np.array([[-0.0, 0.0]])
    for updater in (Max(), Min()):
        (found,) = updater.update(values, deltas, (), (), ())
        assert np.signbit(found).tolist() == [[False, True]]
        by_loop = values.ravel().copy()
        assert updater.loop is not None
        updater.loop(by_loop, np.array([0]), 2, deltas.ravel(), np.zeros((1, 0)), np.zeros(0))
        assert np.signbit(by_loop).tolist() == [False, True]
