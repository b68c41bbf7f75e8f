"""Whatever a caller gets wrong is refused by the call, with the numbers, and nothing is sent or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from glintpy import (
    Client,
    LocalCluster,
)
from glintpy.errors import (
    DTypeError,
    GlintError,
    KeyRangeError,
    ShapeError,
)
from glintpy.models.dense import BigModel

ROWS, COLS = 20, 6


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(2, scheme="local") as made:
        yield made


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as made:
        yield made


class Models:
    """A model of each kind that the tables need; what they hold is never changed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.f = client.matrix(ROWS, COLS, dtype="float32", init=2)
        self.finite = client.matrix(ROWS, COLS, dtype="float32", init=2, finite=True)
        self.i = client.matrix(ROWS, COLS, dtype="int32", init=2)
        self.u = client.matrix(ROWS, COLS, dtype="uint8", init=2)
        self.b = client.matrix(ROWS, COLS, dtype="bool", init=0)
        self.v = client.vector(ROWS, init=2)
        self.vi = client.vector(ROWS, dtype="int64", init=2)
        self.empty = client.matrix(0, COLS)
        self.all: list[BigModel] = [self.f, self.finite, self.i, self.u, self.b, self.v, self.vi]

    def num_requests(self) -> int:
        return sum(server["holds"]["requests"] for server in self._client.status()["servers"])

    def check_unchanged(self) -> None:
        for model in self.all:
            np.testing.assert_array_equal(np.asarray(model), 0 if model is self.b else 2)


@pytest.fixture(scope="module")
def models(client: Client) -> Models:
    return Models(client)


Call = Callable[[Models], object]
Row = tuple[Call, type[GlintError], type[Exception], tuple[str, ...]]

NAN = float("nan")
TEN = np.ones(10, np.float32)

SHAPES: dict[str, Row] = {
    "rows and cols": (
        lambda m: m.f.pull([1, 2, 3], [1, 2]),
        ShapeError,
        ValueError,
        ("length 3", "length 2"),
    ),
    "cols and values": (
        lambda m: m.f.push([1, 2, 3], [1, 2], cols=[1, 2, 3]),
        ShapeError,
        ValueError,
        ("(2,)", "(3,)"),
    ),
    "rows and values": (
        lambda m: m.f.push([1, 2], np.ones((3, COLS))),
        ShapeError,
        ValueError,
        ("(3, 6)", "(2, 6)"),
    ),
    "one column too few": (
        lambda m: m.f.push([1, 2], np.ones((2, 5))),
        ShapeError,
        ValueError,
        ("(2, 5)", "(2, 6)"),
    ),
    "a dimension too many": (
        lambda m: m.f.push(1, np.ones((1, COLS))),
        ShapeError,
        ValueError,
        ("(1, 6)", "(6,)"),
    ),
    "values of a vector": (lambda m: m.v.push([1, 2], [1, 2, 3]), ShapeError, ValueError, ("(3,)", "(2,)")),
    "a row and columns": (
        lambda m: m.f.pull(1, [1, 2]),
        ShapeError,
        ValueError,
        ("rows is a single integer", "2"),
    ),
    "uneven lists": (lambda m: m.f.push([1, 2], [[1] * 6, [1] * 5]), ShapeError, ValueError, ("values",)),
    "uneven lists of rows": (lambda m: m.f.pull([[1], [2, 3]]), ShapeError, ValueError, ("rows",)),
    "rows in a square": (
        lambda m: m.f.pull([[1, 2], [3, 4]]),
        ShapeError,
        ValueError,
        ("2 dimensions", "(2, 2)"),
    ),
    "a short mask": (lambda m: m.f.pull(np.ones(5, bool)), ShapeError, ValueError, ("length 5", "length 20")),
    "a short mask of columns": (lambda m: m.f.pull(cols=[True] * 7), ShapeError, ValueError, ("7", "6")),
    "step 0": (lambda m: m.f.pull(slice(0, 9, 0)), ShapeError, ValueError, ("step",)),
    "out too short": (
        lambda m: m.f.pull([1, 2], out=np.empty((1, COLS), "f4")),
        ShapeError,
        ValueError,
        ("(1, 6)", "(2, 6)"),
    ),
    "out in Fortran's order": (
        lambda m: m.f.pull([1, 2], out=np.empty((2, COLS), "f4", order="F")),
        ShapeError,
        ValueError,
        ("strides",),
    ),
    "push_pull's out": (
        lambda m: m.v.push_pull([1], [1], out=np.empty(2)),
        ShapeError,
        ValueError,
        ("(2,)", "(1,)"),
    ),
    "values for nothing": (
        lambda m: m.f.push([], np.ones((3, COLS))),
        ShapeError,
        ValueError,
        ("(3, 6)", "(0, 6)"),
    ),
}

RANGES: dict[str, Row] = {
    "row -1": (
        lambda m: m.f.pull([3, -1]),
        KeyRangeError,
        IndexError,
        ("-1 at position 1", "[0, 20)", "m[...]"),
    ),
    "row 20": (lambda m: m.f.push([20, 3], 1), KeyRangeError, IndexError, ("20 at position 0", "[0, 20)")),
    "a single row": (lambda m: m.f.pull(20), KeyRangeError, IndexError, ("20", "[0, 20)")),
    "column 6": (
        lambda m: m.f.push([1, 2], 1, cols=[0, 6]),
        KeyRangeError,
        IndexError,
        ("6 at position 1", "[0, 6)"),
    ),
    "column -1": (lambda m: m.f.pull(cols=[-1]), KeyRangeError, IndexError, ("-1 at position 0",)),
    "key -1": (lambda m: m.v.push([-1], 1), KeyRangeError, IndexError, ("keys: -1",)),
    "key 20": (lambda m: m.v.push_pull([0, 20], 1), KeyRangeError, IndexError, ("20 at position 1",)),
    "a range beyond": (lambda m: m.f.pull(range(15, 25)), KeyRangeError, IndexError, ("20 at position 5",)),
    "uint64 beyond int64": (
        lambda m: m.f.pull(np.array([1, 2**63], np.uint64)),
        KeyRangeError,
        IndexError,
        (str(2**63), "position 1"),
    ),
    "beyond 64 bits": (lambda m: m.f.pull([2**70]), KeyRangeError, IndexError, (str(2**70),)),
    "the first bad one": (lambda m: m.f.pull([1, 99, 98]), KeyRangeError, IndexError, ("99 at position 1",)),
    "m[20]": (lambda m: m.f[20], KeyRangeError, IndexError, ("20", "[-20, 20)")),
    "m[-21]": (lambda m: m.f[-21], KeyRangeError, IndexError, ("-21",)),
    "m[3, 6]": (lambda m: m.f[3, 6], KeyRangeError, IndexError, ("6", "[-6, 6)")),
    "m[1, 2, 3]": (lambda m: m.f[1, 2, 3], KeyRangeError, IndexError, ("3 indices", "pull(rows, cols)")),
    "m[None]": (lambda m: m.f[None], KeyRangeError, IndexError, ("pull(rows, cols)",)),
    "m[1.5]": (lambda m: m.f[1.5], KeyRangeError, IndexError, ("float64", "pull(rows, cols)")),
    "v[1, 2]": (lambda m: m.v[1, 2], KeyRangeError, IndexError, ("2 indices", "pull(keys)")),
    "a row of nothing": (lambda m: m.empty.pull(0), KeyRangeError, IndexError, ("[0, 0)",)),
}

KEYS: dict[str, Row] = {
    "floats": (lambda m: m.f.pull([1.0, 2.0]), DTypeError, TypeError, ("float64",)),
    "a float": (lambda m: m.f.pull(1.0), DTypeError, TypeError, ("1.0",)),
    "a bool": (lambda m: m.f.pull(True), DTypeError, TypeError, ("bool",)),
    "text": (lambda m: m.f.pull("12"), DTypeError, TypeError, ("'12'",)),
    "texts": (lambda m: m.f.pull(["a"]), DTypeError, TypeError, ("rows",)),
    "objects": (lambda m: m.f.pull(np.array([1, None])), DTypeError, TypeError, ("object",)),
    "complex": (lambda m: m.f.pull([1j]), DTypeError, TypeError, ("complex",)),
    "dates": (lambda m: m.f.pull(np.array(["2020"], "M8[Y]")), DTypeError, TypeError, ("datetime64",)),
    "masked": (
        lambda m: m.f.pull(np.ma.array([1, 2], mask=[False, True])),
        DTypeError,
        TypeError,
        ("masked",),
    ),
    "a slice of floats": (lambda m: m.f.pull(slice(0.5, 3)), DTypeError, TypeError, ("0.5",)),
    "column floats": (lambda m: m.f.push([1], 1, cols=[0.0]), DTypeError, TypeError, ("cols",)),
    "a dict": (lambda m: m.v.pull({1: 2}), DTypeError, TypeError, ("keys",)),  # type: ignore[arg-type]
}

VALUES: dict[str, Row] = {
    "float to int": (lambda m: m.i.push([1], 1.5), DTypeError, TypeError, ("1.5", "int32")),
    "whole float to int": (lambda m: m.i.push([1], 1.0), DTypeError, TypeError, ("1.0", "round")),
    "floats to int": (
        lambda m: m.i.push([1], np.ones(COLS)),
        DTypeError,
        TypeError,
        ("float64", "int32", "astype"),
    ),
    "too large for int32": (
        lambda m: m.i.push([1], 2**31),
        DTypeError,
        TypeError,
        (str(2**31), str(2**31 - 1)),
    ),
    "an int64 that int32 can't hold": (
        lambda m: m.i.push([1, 2], np.full((2, COLS), -(2**40))),
        DTypeError,
        TypeError,
        (str(-(2**40)), "(0, 0)"),
    ),
    "-1 to uint8": (lambda m: m.u.push([1], -1), DTypeError, TypeError, ("-1", "0 to 255")),
    "256 to uint8": (
        lambda m: m.u.push([1], [[0, 1, 2, 256, 4, 5]]),
        DTypeError,
        TypeError,
        ("256", "(0, 3)"),
    ),
    "negatives to uint8": (
        lambda m: m.u.push([1], np.array([-1] * COLS)),
        DTypeError,
        TypeError,
        ("-1", "uint8"),
    ),
    "2 to bool": (lambda m: m.b.push([1], 2), DTypeError, TypeError, ("2", "bool")),
    "float to bool": (lambda m: m.b.push([1], 0.5), DTypeError, TypeError, ("0.5",)),
    "complex": (lambda m: m.f.push([1], 1j), DTypeError, TypeError, ("complex",)),
    "too large for float32": (lambda m: m.f.push([1], 1e39), DTypeError, TypeError, ("1e+39", "float32")),
    "a float64 that turns infinite": (
        lambda m: m.f.push([1], np.full(COLS, 1e39)),
        DTypeError,
        TypeError,
        ("1e+39", "position 0"),
    ),
    "10**400": (lambda m: m.v.push([1], 10**400), DTypeError, TypeError, ("float64",)),
    "None": (lambda m: m.f.push([1], None), DTypeError, TypeError, ("values",)),  # type: ignore[arg-type]
    "text": (lambda m: m.f.push([1], "1"), DTypeError, TypeError, ("values",)),
    "texts": (lambda m: m.f.push([1], ["1"] * COLS), DTypeError, TypeError, ("values",)),
    "objects": (lambda m: m.f.push([1], np.array([None] * COLS)), DTypeError, TypeError, ("object",)),
    "dates": (lambda m: m.vi.push([1], np.array(["2020"], "M8[Y]")), DTypeError, TypeError, ("datetime64",)),
    "masked": (
        lambda m: m.v.push([1, 2], np.ma.array([1, 2], mask=[False, True])),
        DTypeError,
        TypeError,
        ("masked",),
    ),
    "NaN": (lambda m: m.finite.push([1], NAN), DTypeError, TypeError, ("nan", "finite=True")),
    "a NaN among many": (
        lambda m: m.finite.push([1, 2], [[0] * 6, [0, 0, NAN, 0, 0, 0]]),  # type: ignore[arg-type]
        DTypeError,
        TypeError,
        ("(1, 2)", "finite"),
    ),
    "infinity": (lambda m: m.finite.push_pull([1], -np.inf), DTypeError, TypeError, ("-inf",)),
    "out of another dtype": (
        lambda m: m.f.pull([1], out=np.empty((1, COLS))),
        DTypeError,
        TypeError,
        ("<f8", "<f4"),
    ),
    "out of another byte order": (
        lambda m: m.f.pull([1], out=np.empty((1, COLS), ">f4")),
        DTypeError,
        TypeError,
        (">f4",),
    ),
    "out as a list": (lambda m: m.f.pull([1], out=[0] * COLS), DTypeError, TypeError, ("list",)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(
    ("call", "error", "builtin", "words"),
    [*SHAPES.values(), *RANGES.values(), *KEYS.values(), *VALUES.values()],
    ids=[*SHAPES, *RANGES, *(f"keys: {name}" for name in KEYS), *(f"values: {name}" for name in VALUES)],
)
def test_a_mistake_is_raised_by_the_call_and_nothing_is_sent(
    models: Models, call: Call, error: type[GlintError], builtin: type[Exception], words: tuple[str, ...]
) -> None:
    before = models.num_requests()
    with pytest.raises(error) as raised:
        call(models)
    assert isinstance(raised.value, builtin)
    for word in words:
        assert word in str(raised.value)
    assert models.num_requests() == before
    models.check_unchanged()


# --- what looks like a mistake and is none ------------------------------------------------------------------

NOTHING: dict[str, Callable[[Models], object]] = {
    "no rows": lambda m: m.f.push([], 1).result(),
    "no rows, no values": lambda m: m.f.push([], np.empty((0, COLS))).result(),
    "an empty slice": lambda m: m.f.push(slice(5, 5), 1).result(),
    "a mask of nothing": lambda m: m.f.push(np.zeros(ROWS, bool), 1).result(),
    "no elements": lambda m: m.f.push([], [], cols=[]).result(),
    "no columns": lambda m: m.f.push(None, 1, cols=[]).result(),
    "no keys": lambda m: m.v.push((), ()).result(),
    "an empty model": lambda m: m.empty.push(None, 1).result(),
    "pulled": lambda m: np.testing.assert_array_equal(m.f.pull([]).result(), np.empty((0, COLS))),
    "pulled and pushed": lambda m: np.testing.assert_array_equal(m.v.push_pull([], 1).result(), np.empty(0)),
}


@pytest.mark.parametrize("call", NOTHING.values(), ids=NOTHING)
def test_nothing_is_done_at_once_and_without_a_message(
    models: Models, call: Callable[[Models], object]
) -> None:
    before = models.num_requests()
    assert call(models) is None
    assert models.num_requests() == before
    models.check_unchanged()


ONE = np.arange(COLS, dtype=np.float32)

LEGAL: dict[str, Any] = {
    "big-endian": ONE.astype(">f8"),
    "every other": np.repeat(ONE, 2)[::2],
    "backward": ONE[::-1].copy()[::-1],
    "Fortran's order": np.asfortranarray(np.tile(ONE, (2, 1))),
    "unaligned": np.frombuffer(b"x" + ONE.tobytes(), np.uint8)[1:].view(np.float32),
    "float64": ONE.astype(np.float64),
    "float16": ONE.astype(np.float16),
    "int8": ONE.astype(np.int8),
    "a list": ONE.tolist(),
    "a tuple of ints": tuple(range(COLS)),
    "numpy's own scalars": list(ONE),
    "read-only": np.broadcast_to(ONE, (2, COLS)),
    "a range": range(COLS),
}


@pytest.mark.parametrize("values", LEGAL.values(), ids=LEGAL)
def test_whatever_holds_the_same_numbers_adds_the_same(models: Models, values: Any) -> None:
    models.f.push([3, 17], values).result()
    np.testing.assert_array_equal(models.f.pull([17, 3]).result(), np.tile(2 + ONE, (2, 1)))
    models.f.push([3, 17], -ONE).result()
    models.check_unchanged()


def test_repeats_all_count_and_scalars_go_everywhere(models: Models) -> None:
    models.f.push([4, 4, 19, 4], np.array(1)).result()
    np.testing.assert_array_equal(models.f.pull([4, 19, 5], [0, 0, 0]).result(), [5, 3, 2])
    models.f.push([4, 19], [[-3.0], [-1.0]]).result()
    models.check_unchanged()


def test_integers_wrap_as_numpys_do(models: Models) -> None:
    models.u.push([1], 255).result()
    assert models.u[1, 0] == 1
    models.u.push([1], 1).result()
    models.check_unchanged()


def test_an_array_may_be_changed_as_soon_as_push_returns(models: Models) -> None:
    rows, values = np.arange(ROWS), np.ones((ROWS, COLS), np.float32)
    pushed = models.f.push(rows, values)
    rows[:] = 0
    values[:] = 99
    pushed.result()
    np.testing.assert_array_equal(models.f[...], 3)
    models.f.push(None, -1).result()
    models.check_unchanged()


def test_numpys_other_ways_in_are_closed_with_a_word(models: Models) -> None:
    for model in (models.f, models.v):
        with pytest.raises(TypeError, match="push"):
            model[3] = 5
        with pytest.raises(TypeError, match="push"):
            model[3] += 5
        with pytest.raises(TypeError, match="pull"):
            assert 2 in model
        with pytest.raises(TypeError, match="truth value"):
            bool(model)
        with pytest.raises(ValueError, match="copy"):
            np.asarray(model, copy=False)
    models.check_unchanged()
