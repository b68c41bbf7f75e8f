"""Models under every updater, through clients and servers, against the plain way in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy import PushBuffer
from glintpy.errors import ConfigError, DTypeError, ShapeError
from glintpy.models.dense import BigModel
from glintpy.models.matrix import BigMatrix
from glintpy.testing.reference import partitioner_of
from glintpy.testing.updated import Updated
from glintpy.updaters import (
    DCASGD,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Add,
    Assign,
    Ftrl,
    Max,
    Mean,
    Min,
    Momentum,
    Nesterov,
    RMSprop,
    Total,
    Updater,
    schedules,
)
from tests.models.raw_peer import Served

NUM_ROWS, NUM_COLS = 23, 5

UPDATERS: dict[str, Updater] = {
    "add": Add(),
    "assign": Assign(),
    "total": Total(),
    "max": Max(),
    "min": Min(),
    "mean": Mean(),
    "sgd": SGD(learning_rate=0.5, weight_decay=0.25),
    "sgd by a schedule": SGD(learning_rate=schedules.InverseTime(0.5, 0.5), clip_gradient=1.0),
    "momentum": Momentum(learning_rate=0.1),
    "nesterov": Nesterov(learning_rate=0.1),
    "adagrad": Adagrad(learning_rate=0.1),
    "rmsprop": RMSprop(learning_rate=0.1),
    "adam": Adam(learning_rate=0.1),
    "adamw by a schedule": AdamW(learning_rate=schedules.Cosine(0.1, 10)),
    "ftrl": Ftrl(learning_rate=0.1, l1=0.5),
    "dcasgd": DCASGD(learning_rate=0.1),
}


def eighths(random: np.random.Generator, shape: Any, dtype: str) -> NDArray[Any]:
    """Numbers whose sums are exact in any order."""
    found: NDArray[Any] = (random.integers(-16, 17, shape) / 8).astype(dtype)
    return found


def push_anything(random: np.random.Generator, model: Any, reference: Updated) -> None:
    """Push to rows, to cells, or to all, here and there."""
    num_rows, *row_shape = model.shape
    dtype = model.dtype.name
    what = random.integers(0, 4)
    rows = random.integers(0, num_rows, random.integers(1, 12))
    if what == 0 and row_shape:
        cols = random.integers(0, row_shape[0], len(rows))
        deltas = eighths(random, len(rows), dtype)
        model.push(rows, deltas, cols=cols)
        reference.push(rows, deltas, cols)
        return
    if what == 1:
        deltas = eighths(random, (num_rows, *row_shape), dtype)
        model.push(slice(None), deltas)
        reference.push(np.arange(num_rows), deltas)
        return
    deltas = eighths(random, (len(rows), *row_shape), dtype)
    if what == 2:
        found = model.push_pull(rows, deltas).result()
        reference.push(rows, deltas)
        np.testing.assert_array_equal(found, reference.values[rows])
        return
    model.push(rows, deltas)
    reference.push(rows, deltas)


def check_equal(model: BigModel, reference: Updated) -> None:
    pulled: Any = model
    np.testing.assert_array_equal(pulled.pull().result(), reference.values, strict=True)
    assert set(model.slots) == set(reference.slots)
    for name in model.slots:
        np.testing.assert_array_equal(pulled.pull_slot(name).result(), reference.slots[name], strict=True)


@pytest.mark.parametrize("partitioner", ["range", "cyclic", "custom"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", UPDATERS)
def test_pushes_leave_what_the_plain_way_leaves(
    served: Served, name: str, dtype: str, partitioner: str, seed: int
) -> None:
    random = np.random.default_rng([seed, *map(ord, name + dtype)])
    updater = UPDATERS[name]
    client = served.client
    matrix = client.matrix(
        NUM_ROWS,
        NUM_COLS,
        dtype=dtype,
        partitioner=partitioner_of(partitioner, NUM_ROWS),
        partitions_per_server=2,
        init=0.25,
        updater=updater,
    )
    vector = client.vector(
        NUM_ROWS, dtype=dtype, partitioner=partitioner_of(partitioner, NUM_ROWS), updater=updater
    )
    with matrix, vector:
        for model in (matrix, vector):
            assert model.updater == updater
            reference = Updated(np.full(model.shape, 0.25 if model is matrix else 0, dtype), updater)
            for _ in range(15):
                push_anything(random, model, reference)
            check_equal(model, reference)


@pytest.mark.parametrize("name", ["assign", "max", "min"])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_what_needs_no_fractions_works_with_integers_too(
    served: Served, name: str, dtype: str, seed: int
) -> None:
    random = np.random.default_rng([seed, *map(ord, name + dtype)])
    with served.client.matrix(NUM_ROWS, NUM_COLS, dtype=dtype, updater=name) as m:
        reference = Updated(np.zeros(m.shape, dtype), UPDATERS[name])
        for _ in range(10):
            rows = random.integers(0, NUM_ROWS, 9)
            deltas = random.integers(0, 2 if dtype == "bool" else 100, (9, NUM_COLS)).astype(dtype)
            m.push(rows, deltas)
            reference.push(rows, deltas)
        check_equal(m, reference)


def test_what_needs_fractions_is_refused_for_integers_before_anything_is_made(served: Served) -> None:
    with pytest.raises(DTypeError, match=r"'adam' computes with fractions.*int64.*float32 or float64"):
        served.client.matrix(3, 3, dtype="int64", updater="adam", name="ints")
    assert "ints" not in served.client.models()


def test_repeats_in_one_push_are_one_step_and_two_pushes_are_two(served: Served) -> None:
    with served.client.vector(4, updater=Adagrad(learning_rate=1.0)) as v:
        v.push([1, 1], [1.0, 2.0]).result()
        assert v.pull_slot(v.slots[0], [1]).result() == [9.0]
        v.push([2], [1.0])
        v.push([2], [2.0])
        assert v.pull_slot(v.slots[0], [2]).result() == [5.0]


def test_many_small_pushes_that_travel_together_stay_apart(served: Served) -> None:
    with served.client.matrix(50, 3, dtype="float32", updater="adagrad") as m:
        reference = Updated(np.zeros((50, 3), np.float32), m.updater)
        random = np.random.default_rng(3)
        for _ in range(400):
            rows = random.integers(0, 50, 2)
            deltas = eighths(random, (2, 3), "float32")
            m.push(rows, deltas)
            reference.push(rows, deltas)
        check_equal(m, reference)


def test_columns_that_repeat_are_one_step_too(served: Served) -> None:
    with served.client.matrix(3, 4, updater=Adagrad(learning_rate=1.0)) as m:
        found = m.push_pull(None, np.ones((3, 3)), cols=[2, 0, 2]).result()
        slot = m.pull_slot(m.slots[0]).result()
        assert slot[0].tolist() == [1.0, 0.0, 4.0, 0.0]
        np.testing.assert_array_equal(found, m.pull().result()[:, [2, 0, 2]])


def test_a_push_pull_with_repeats_fills_the_callers_array(served: Served) -> None:
    with served.client.matrix(6, 2, updater=SGD(learning_rate=1.0)) as m:
        out = np.zeros((3, 2))
        assert m.push_pull([5, 1, 5], 1.0, out=out).result() is out
        assert out.tolist() == [[-2, -2], [-1, -1], [-2, -2]]


def test_slots_are_named_and_nothing_else_can_be_read(served: Served) -> None:
    with served.client.matrix(6, 2, updater="adam") as m, served.client.matrix(6, 2) as plain:
        assert m.slots == ("mean", "variance", "steps")
        assert m.pull_slot("steps", 3).result() == 0
        assert m.pull_slot("mean", [1], [1]).result().shape == (1,)
        assert m.pull_slot("steps", []).result().shape == (0,)
        with pytest.raises(ShapeError, match="counted by row"):
            m.pull_slot("steps", [1], [1])
        with pytest.raises(ConfigError, match=r"no slot 'momentum'; it has mean, variance, steps"):
            m.pull_slot("momentum")
        with pytest.raises(ConfigError, match="it keeps none"):
            plain.pull_slot("values")


@pytest.mark.parametrize("partitioner", ["range", "custom"])
def test_slots_are_saved_with_the_values_and_loaded_on_any_partitioner(
    served: Served, tmp_path: Path, partitioner: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    updater = Adam(learning_rate=schedules.Exponential(0.1, 0.9, 3))
    placed = partitioner_of(partitioner, NUM_ROWS)
    with served.client.matrix(NUM_ROWS, NUM_COLS, dtype="float16", partitioner=placed, updater=updater) as m:
        reference = Updated(np.zeros(m.shape, np.float16), updater)
        for _ in range(5):
            push_anything(random, m, reference)
        m.save(str(tmp_path / "saved"))
        with served.client.load(str(tmp_path / "saved"), name="again", partitioner="cyclic") as loaded:
            assert loaded.updater == updater
            check_equal(loaded, reference)
            for _ in range(5):
                push_anything(random, loaded, reference)
            check_equal(loaded, reference)
        assert len(list((tmp_path / "saved").glob("variance-*.npy"))) == len(
            list((tmp_path / "saved").glob("values-*.npy"))
        )


def test_a_saved_model_may_go_on_under_another_updater(served: Served, tmp_path: Path) -> None:
    with served.client.matrix(6, 2, updater=Momentum(learning_rate=1.0)) as m:
        m.push([1], 1.0).result()
        m.save(str(tmp_path))
    with served.client.load(str(tmp_path), updater="adagrad") as other:
        assert isinstance(other, BigMatrix)
        assert other.pull([1]).result().tolist() == [[-1, -1]]
        assert not other.pull_slot(other.slots[0]).result().any()


def test_bad_names_and_numbers_are_refused_in_the_call(served: Served) -> None:
    with pytest.raises(ConfigError, match=r"no updater 'adagard'; there is"):
        served.client.matrix(3, 3, updater="adagard")
    a_class: Any = Adagrad
    with pytest.raises(ConfigError, match="instance of"):
        served.client.matrix(3, 3, updater=a_class)
    with pytest.raises(ConfigError, match="learning_rate"):
        served.client.matrix(3, 3, updater=Adagrad(learning_rate=-1))


def test_a_program_may_make_what_is_there_already_if_the_numbers_agree(served: Served) -> None:
    client = served.client
    with client.matrix(3, 3, name="shared", updater=Adagrad(learning_rate=0.5)) as m:
        assert client.matrix(3, 3, name="shared", updater=Adagrad(learning_rate=0.5), exist_ok=True) == m
        with pytest.raises(Exception, match="updater_numbers"):
            client.matrix(3, 3, name="shared", updater="adagrad", exist_ok=True)
        opened = client.open("shared")
        assert opened.updater == Adagrad(learning_rate=0.5)


@pytest.mark.parametrize("name", ["assign", "max", "mean"])
@pytest.mark.parametrize("max_bytes", [1, 4096])
def test_a_buffer_keeps_the_order_and_the_updaters_own_rule(
    served: Served, name: str, max_bytes: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    with served.client.matrix(9, 4, dtype="float32", updater=UPDATERS[name]) as m:
        reference = Updated(np.zeros((9, 4), np.float32), UPDATERS[name])
        with PushBuffer(m, max_bytes=max_bytes) as buffer:
            for turn in range(60):
                rows = random.integers(0, 9, 3)
                cols = random.integers(0, 4, 3) if turn % 7 == 0 else None
                deltas = eighths(random, 3 if cols is not None else (3, 4), "float32")
                buffer.push(rows, deltas, cols=cols)
                reference.push(rows, deltas, cols)
        check_equal(m, reference)


def test_gradients_that_were_gathered_are_one_step(served: Served) -> None:
    with served.client.vector(4, updater=Adagrad(learning_rate=1.0)) as v:
        with PushBuffer(v) as buffer:
            for _ in range(4):
                buffer.push([2], 0.5)
        assert v.pull_slot("sum_of_squares").result().tolist() == [0, 0, 4.0, 0]
