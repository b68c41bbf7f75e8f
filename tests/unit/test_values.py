"""Values as users type them: what a dtype can hold goes in exactly, the rest is refused by name."""

from __future__ import annotations

import enum
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from glintpy.errors import DTypeError, ShapeError
from glintpy.models.values import check_out, parse_values
from glintpy.protocol import dtypes

NUMERIC = [name for name in dtypes.NAMES if name != "bool"]
INTEGERS = [name for name in NUMERIC if not name.startswith("float")]
FLOATS = [name for name in NUMERIC if name.startswith("float")]


class Tensor:
    """An object that numpy reads as an array, as other libraries' tensors are."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.array


class DlpackTensor:
    """An object that can only be read through DLPack."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __dlpack__(self, **_options: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class Colour(enum.IntEnum):
    RED = 3


def parsed(
    values: Any, dtype: str = "float64", shape: tuple[int, ...] | None = None, *, finite: bool = False
) -> NDArray[Any]:
    """Parse into a shape, by default the values' own, and check what holds for every result."""
    model_dtype = dtypes.model_dtype(dtype)
    shape = np.shape(values) if shape is None else shape
    result = parse_values(values, shape=shape, dtype=model_dtype, finite=finite)
    assert type(result) is np.ndarray
    assert result.dtype == model_dtype
    assert result.dtype.str[0] in "<|"
    assert result.shape == shape
    assert result.flags.aligned
    assert result.flags.c_contiguous or 0 in result.strides
    return result


def assert_same(found: NDArray[Any], expected: Any) -> None:
    assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")


# --- the usual path ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("finite", [False, True])
@pytest.mark.parametrize("dtype", dtypes.NAMES)
def test_an_array_that_fits_is_returned_as_it_is(dtype: str, finite: bool) -> None:
    values = np.ones((3, 2), dtype=dtype)
    assert parse_values(values, shape=(3, 2), dtype=dtypes.model_dtype(dtype), finite=finite) is values


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ((), (4, 3)),
        ((3,), (4, 3)),
        ((1, 3), (4, 3)),
        ((4, 1), (4, 3)),
        ((1,), (0,)),
        ((), ()),
        ((3,), (0, 3)),
    ],
)
def test_smaller_values_repeat_without_being_written_out(
    given: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    values = np.arange(math.prod(given), dtype=np.float64).reshape(given)
    result = parsed(values, shape=shape)
    assert_same(result, np.broadcast_to(values, shape))
    assert not result.size or np.shares_memory(result, values)
    assert_same(parsed(values.tolist(), shape=shape), np.broadcast_to(values, shape))


def test_a_broadcast_beyond_memory_costs_nothing() -> None:
    shape = (2**30, 2**20)
    assert parsed(0.5, "float32", shape).strides == (0, 0)
    once = np.broadcast_to(np.arange(4, dtype=np.int64), (2**40, 4))
    result = parsed(once, "float32", once.shape, finite=True)
    assert result.strides == (0, 4)
    assert result[-1].tolist() == [0, 1, 2, 3]
    assert parsed(once, "int64", once.shape).strides == (0, 8)


@pytest.mark.parametrize("given", [(3,), (2, 1, 2), (2, 3), (0, 2), (1, 1, 2)])
@pytest.mark.parametrize("as_list", [False, True])
def test_values_that_do_not_broadcast_are_refused_with_both_shapes(
    given: tuple[int, ...], as_list: bool
) -> None:
    values: Any = np.zeros(given)
    if as_list:
        values = values.tolist()
        given = np.shape(values)
    with pytest.raises(ShapeError, match=r"values of shape .* can't be broadcast to the") as caught:
        parsed(values, shape=(4, 2))
    assert str(given) in str(caught.value)
    assert "(4, 2)" in str(caught.value)


def test_uneven_lists_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"^values can't be read as one array"):
        parsed([[1.0], [2.0, 3.0]], shape=(2, 2))


# --- weak numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: ((value,),)])
@pytest.mark.parametrize(
    ("value", "dtypes_that_hold_it"),
    [
        (0, dtypes.NAMES),
        (1, dtypes.NAMES),
        (True, dtypes.NAMES),
        (False, dtypes.NAMES),
        (2, NUMERIC),
        (Colour.RED, NUMERIC),
        (-1, ["int8", "int16", "int32", "int64", *FLOATS]),
        (127, NUMERIC),
        (128, [name for name in NUMERIC if name != "int8"]),
        (-129, ["int16", "int32", "int64", *FLOATS]),
        (2**31, ["int64", "uint32", "uint64", "float32", "float64"]),
        (2**63, ["uint64", "float32", "float64"]),
        (2**64 - 1, ["uint64", "float32", "float64"]),
        (2**64, ["float32", "float64"]),
        (-(2**63), ["int64", "float32", "float64"]),
        (-(2**63) - 1, ["float32", "float64"]),
        (65519, [name for name in NUMERIC if name not in {"int8", "uint8", "int16"}]),
        (65520, ["int32", "int64", "uint16", "uint32", "uint64", "float32", "float64"]),
        (10**100, ["float64"]),
        (10**400, []),
        (1.0, FLOATS),
        (0.1, FLOATS),
        (-65519.0, FLOATS),
        (65520.0, ["float32", "float64"]),
        (1e300, ["float64"]),
        (math.inf, FLOATS),
        (-math.inf, FLOATS),
        (math.nan, FLOATS),
    ],
)
def test_a_python_number_goes_where_it_fits(value: Any, dtypes_that_hold_it: list[str], wrap: Any) -> None:
    for dtype in dtypes.NAMES:
        if dtype in dtypes_that_hold_it:
            expected = (
                np.float64(value).astype(dtype) if dtype in FLOATS else np.array(int(value), dtype=dtype)
            )
            assert_same(parsed(wrap(value), dtype), np.broadcast_to(expected, np.shape(wrap(value))))
        else:
            with pytest.raises(DTypeError) as caught:
                parsed(wrap(value), dtype)
            message = str(caught.value)
            assert dtype in message
            assert (repr(value) if isinstance(value, bool | float) else str(int(value))) in message


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (300, "uint8", "^values is 300; uint8 holds 0 to 255$"),
        ([[1, 2], [3, -4]], "uint8", r"^values at position \(1, 1\) is -4; uint8 holds 0 to 255$"),
        ([1, 2, 300], "uint8", "at position 2 is 300;"),
        ([0, 1, 2], "bool", "at position 2 is 2; bool holds 0 to 1"),
        (1.0, "int32", "is the float 1.0, and the model holds int32: convert first"),
        ([1, 2.0, 3.0], "int32", "at position 1 is the float 2.0"),
        ([True, 1.0], "bool", "at position 1 is the float 1.0"),
        ([[1], [math.nan]], "int64", r"at position \(1, 0\) is the float nan"),
        ([-1, 2**63], "uint64", "at position 0 is -1"),
        ([-1, 2**63], "int64", f"at position 1 is {2**63}"),
        ([1, 2**64], "int64", f"at position 1 is {2**64}"),
        ([0, 10**400], "float64", "at position 1 is 1000"),
        ([1.0, 1e39], "float32", r"at position 1 is 1e\+39; float32 holds -3.4028235e\+38 to 3.4028235e\+38"),
        ([1, 70000], "float16", "at position 1 is 70000; float16 holds -65504 to 65504"),
        (1j, "float64", "complex128"),
        ([1, 1j], "float64", "complex128"),
        (None, "float64", "object"),
        ([1, None], "float64", "at position 1 is a NoneType"),
        ([1, "2"], "float64", "<U"),
        ("1", "float64", "<U1"),
        ([b"1"], "uint8", "S1"),
        ({1: 2}, "float64", "values, a dict, can.t be read"),
        ([np.ma.array([1.0, 2.0], mask=[True, False])], "float64", "masked array in it"),
    ],
)
def test_a_bad_number_is_named_with_its_position(values: Any, dtype: str, message: str) -> None:
    with pytest.raises(DTypeError, match=message) as caught:
        parsed(values, dtype)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([], "int32", []),
        ([[], []], "bool", [[], []]),
        ((), "float16", []),
        ([True, 2, 3], "int8", [1, 2, 3]),
        ([1, 2.5], "float32", [1, 2.5]),
        ([1, 0, True], "bool", [True, False, True]),
        ([2**64, 1.5, -1], "float64", [float(2**64), 1.5, -1]),
        ([-1, 2**63], "float64", [-1, float(2**63)]),
        ([np.int64(1), np.uint64(2)], "int64", [1, 2]),
        ([np.float32(0.1), 1], "float32", [np.float32(0.1), 1]),
        ([np.array([1, 2]), [3, 4]], "uint8", [[1, 2], [3, 4]]),
        (range(4), "float32", [0, 1, 2, 3]),
    ],
)
def test_lists_of_numbers_are_weak(values: Any, dtype: str, expected: Any) -> None:
    assert_same(parsed(values, dtype), expected)


# --- arrays -----------------------------------------------------------------------------------------------

KINDS = {"bool": 0, "uint": 1, "int": 1, "float": 2}


def kind_of(dtype: str) -> int:
    return KINDS[dtype.rstrip("0123456789")]


@pytest.mark.parametrize("target", dtypes.NAMES)
@pytest.mark.parametrize("source", dtypes.NAMES)
def test_arrays_convert_within_their_kind_and_upward(source: str, target: str) -> None:
    values = np.array([[0, 1]], dtype=source)
    for form in (values, values[0, 1], Tensor(values), values.astype(values.dtype.newbyteorder(">"))):
        shape = np.shape(form.array if isinstance(form, Tensor) else form)
        if kind_of(source) <= kind_of(target):
            assert_same(parsed(form, target, shape), np.asarray(form).astype(target))
        else:
            with pytest.raises(DTypeError, match=rf"{source} can't go into a model of {target} unasked"):
                parsed(form, target, shape)


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (
            np.array([[5, 6], [-7, 300]]),
            "uint8",
            r"^values at position \(1, 0\) is -7; uint8 holds 0 to 255$",
        ),
        (np.array([5, 300, -7]), "uint8", "at position 1 is 300"),
        (np.array([-1], dtype=np.int8), "uint64", "at position 0 is -1"),
        (np.array([1, 2**31]), "int32", f"at position 1 is {2**31}; int32 holds {-(2**31)} to {2**31 - 1}"),
        (np.array([2**63], dtype=np.uint64), "int64", f"at position 0 is {2**63}"),
        (np.array([255], dtype=np.uint8), "int8", "at position 0 is 255"),
        (np.int64(-1), "uint8", "^values is -1; uint8"),
        (np.array(128), "int8", "^values is 128; int8"),
        (np.array([1, 1e39, math.inf]), "float32", r"at position 1 is 1e\+39; float32"),
        (np.array([math.inf, math.nan, -70000.0]), "float16", "at position 2 is -70000.0; float16"),
        (np.array([1, 70000]), "float16", "at position 1 is 70000; float16"),
        (np.float64(1e39), "float32", r"^values is 1e\+39"),
        (np.array([5, 300])[::-1], "uint8", "at position 0 is 300"),
    ],
)
def test_an_array_value_that_would_change_is_named(values: Any, dtype: str, message: str) -> None:
    with pytest.raises(DTypeError, match=message):
        parsed(values, dtype)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([0, 255]), "uint8"),
        (np.array([-128, 127]), "int8"),
        (np.array([2**63 - 1], dtype=np.uint64), "int64"),
        (np.array([65519, -65519]), "float16"),
        (np.array([math.inf, -math.inf, math.nan, 3e38]), "float32"),
        (np.array([], dtype=np.int64), "uint8"),
        (np.array([2**63 - 1]), "float32"),
        (np.array([1e-300]), "float32"),
    ],
)
def test_an_array_value_at_the_edge_goes_in(values: NDArray[Any], dtype: str) -> None:
    assert_same(parsed(values, dtype), values.astype(dtype))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ma.array([1.0, 2.0], mask=[False, True]), "masked array"),
        (np.array([1.0, 2.0], dtype=object), "object"),
        (np.array(["1", "2"]), "<U1"),
        (np.array([1j, 2j]), "complex128.*convert first"),
        (np.array([1, 2], dtype="m8[s]"), "timedelta64"),
        (np.array([1, 2], dtype="M8[s]"), "datetime64"),
        (np.zeros(2, dtype=[("a", "f8")]), "'a'"),
        (np.timedelta64(1, "s"), "timedelta64"),
        ({1, 2}, r"values, a set, can't be read as an array; make a list of it"),
        ({1: 2, 3: 4}.values(), "a dict_values"),
        ((number for number in range(2)), "a generator"),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_arrays_of_other_kinds_are_refused(values: Any, message: str, dtype: str) -> None:
    with pytest.raises(DTypeError, match=message):
        parsed(values, dtype, (2,))


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_any_layout_goes_in(dtype: str) -> None:
    plain = np.arange(12, dtype=np.int64 if dtype == "uint8" else np.float64).reshape(3, 4).astype(dtype)
    unaligned = np.frombuffer(b"x" + plain.tobytes(), dtype=dtype, offset=1).reshape(3, 4)
    for values in (
        np.asfortranarray(plain),
        np.repeat(plain, 2, axis=1)[:, ::2],
        plain[::-1].copy()[::-1],
        plain.astype(plain.dtype.newbyteorder(">")),
        unaligned,
        plain.view(np.matrix),
        Tensor(plain),
        DlpackTensor(plain),
    ):
        assert_same(parsed(values, dtype, (3, 4)), plain)


def test_an_object_that_refuses_to_be_read_says_why() -> None:
    class OnDevice:
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
            raise TypeError("copy it to host memory first")

    with pytest.raises(DTypeError, match="OnDevice, can't be read as an array: copy it to host memory first"):
        parsed(OnDevice(), "float64", ())


# --- finite -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_finite_refuses_the_first_that_is_not(bad: float, dtype: str) -> None:
    for values, place in (
        (bad, "^values is"),
        ([0.0, bad], "at position 1 is"),
        (np.array([[0, 1], [bad, bad]], dtype=dtype), r"at position \(1, 0\) is"),
        (np.array([[0, 1], [bad, bad]], dtype=np.float64).T, r"at position \(0, 1\) is"),
    ):
        with pytest.raises(DTypeError, match=rf"{place} {bad}; the model was made with finite=True"):
            parsed(values, dtype, finite=True)
        parsed(values, dtype, finite=False)


# --- properties -------------------------------------------------------------------------------------------

ARRAYS = hnp.arrays(
    st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(),
        hnp.unsigned_integer_dtypes(),
        hnp.floating_dtypes(sizes=(16, 32, 64)),
    ),
    hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4),
)


@settings(max_examples=400, deadline=None)
@given(ARRAYS, st.sampled_from(dtypes.NAMES))
def test_an_array_goes_in_exactly_when_no_value_changes_its_meaning(values: NDArray[Any], dtype: str) -> None:
    with np.errstate(all="ignore"):
        expected = values.astype(dtype)
    allowed = kind_of(values.dtype.name) <= kind_of(dtype)
    if dtype in FLOATS:
        unharmed = bool(np.array_equal(np.isinf(expected), np.isinf(values.astype(np.float64))))
    else:
        unharmed = [int(value) for value in expected.ravel().tolist()] == values.ravel().tolist()
    if allowed and unharmed:
        assert_same(parsed(values, dtype), expected)
    else:
        with pytest.raises(DTypeError):
            parsed(values, dtype)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(-300, 300) | st.integers(-(2**65), 2**65) | st.booleans(), max_size=5), st.data())
def test_a_list_of_integers_goes_in_exactly_when_each_fits(values: list[int], data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["bool", *INTEGERS]))
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    bad = [place for place, value in enumerate(values) if not low <= value <= high]
    if bad:
        with pytest.raises(DTypeError, match=f"at position {bad[0]} is {values[bad[0]]};"):
            parsed(values, dtype)
    else:
        assert [int(value) for value in parsed(values, dtype).tolist()] == [int(value) for value in values]


@settings(max_examples=200, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3), st.data())
def test_shapes_broadcast_as_numpy_does(shapes: hnp.BroadcastableShapes, data: st.DataObject) -> None:
    given_shape, shape = shapes.input_shapes
    shape = data.draw(st.sampled_from([shape, shapes.result_shape]))
    values = np.arange(math.prod(given_shape), dtype=np.float64).reshape(given_shape)
    try:
        expected = np.broadcast_to(values, shape)
    except ValueError:
        with pytest.raises(ShapeError):
            parsed(values, shape=shape)
        return
    assert_same(parsed(values, shape=shape), expected)


# --- out --------------------------------------------------------------------------------------------------


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def test_out_takes_a_plain_array_that_matches(tmp_path: Any) -> None:
    float32 = np.dtype("<f4")
    check_out(np.empty((3, 2), np.float32), shape=(3, 2), dtype=float32)
    check_out(np.empty((), np.float32), shape=(), dtype=float32)
    check_out(np.empty((0, 2), np.float32), shape=(0, 2), dtype=float32)
    mapped = np.memmap(tmp_path / "out", dtype=np.float32, mode="w+", shape=(3, 2))
    check_out(mapped, shape=(3, 2), dtype=float32)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([[0.0, 0.0]], DTypeError, r"plain numpy array of float32, shape \(3, 2\), not a list"),
        (np.ma.zeros((3, 2), np.float32), DTypeError, "not a MaskedArray"),
        (np.zeros((3, 2), np.float32).view(np.matrix), DTypeError, "not a matrix"),
        (np.zeros((3, 2)), DTypeError, "out has dtype <f8 and the model <f4"),
        (np.zeros((3, 2), ">f4"), DTypeError, "out has dtype >f4 and the model <f4"),
        (np.zeros((2, 3), np.float32), ShapeError, r"out has shape \(2, 3\) and the result \(3, 2\)"),
        (np.zeros(6, np.float32), ShapeError, r"out has shape \(6,\) and the result \(3, 2\)"),
        (np.zeros((2, 3), np.float32).T, ShapeError, r"strides \(4, 12\).*C order"),
        (np.zeros((6, 2), np.float32)[::2], ShapeError, "C order"),
        (read_only(np.zeros((3, 2), np.float32)), ShapeError, "read-only"),
        (np.frombuffer(bytearray(25), np.float32, 6, 1).reshape(3, 2), ShapeError, "not aligned"),
    ],
)
def test_out_that_does_not_match_is_refused_with_both(out: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_out(out, shape=(3, 2), dtype=np.dtype("<f4"))
