"""The calls of a store, of every kind, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import KVStore, RowSparse, create
from glintpy.updaters import SGD, Adagrad, Adam, schedules


def ones(*shape: int, dtype: str = "float32") -> Any:
    return np.ones(shape, dtype)


# --- keys, values and outputs -------------------------------------------------------------------------------


def test_what_was_initialised_is_pulled(kv: KVStore) -> None:
    kv.init("w", np.arange(6, dtype="float32").reshape(2, 3))
    found = kv.pull("w")
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    found += 1  # the caller's to change
    assert kv.pull("w").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_every_shape_and_dtype_can_be_stored(kv: KVStore) -> None:
    values = {
        f"{shape} {dtype}": (np.arange(np.prod(shape, dtype=int)) % 2).astype(dtype).reshape(shape)
        for shape in [(), (1,), (0,), (3, 0), (2, 3, 4), (300, 300), (70_000,)]
        for dtype in ["float32", "float64", "float16", "int32", "int64", "uint8", "bool"]
    }
    keys = list(values)
    kv.init(keys, [np.zeros_like(value) for value in values.values()])
    kv.push(keys, list(values.values()))
    for key, found in zip(keys, kv.pull(keys), strict=True):
        assert found.dtype == values[key].dtype, key
        assert found.shape == values[key].shape, key
        assert (found == values[key]).all(), key


def test_without_an_optimizer_what_is_pushed_replaces_what_is_stored(kv: KVStore) -> None:
    kv.init("w", ones(3))
    kv.push("w", 8 * ones(3))
    assert kv.pull("w").tolist() == [8, 8, 8]


def test_a_key_has_this_machine_s_byte_order(kv: KVStore) -> None:
    kv.init(["f", "i"], [np.arange(3, dtype=">f4"), np.arange(3, dtype=">i2")])
    kv.set_optimizer("add")
    kv.push(["f", "i"], [np.arange(3, dtype=">f4"), np.arange(3, dtype=">i2")])
    out = np.zeros(3, ">f4")
    kv.pull("f", out=out)
    found = kv.pull(["f", "i"])
    assert [(array.dtype, array.tolist()) for array in found] == [
        ("float32", [0, 2, 4]),
        ("int16", [0, 2, 4]),
    ]
    assert all(array.dtype.isnative for array in found)
    assert out.tolist() == [0, 2, 4]


def test_lists_of_keys_take_lists_of_values(kv: KVStore) -> None:
    keys = ["a", 5, "c"]
    kv.init(keys, [ones(2), ones(3), ones(2, 2)])
    kv.push(keys, [2 * ones(2), 3 * ones(3), 4 * ones(2, 2)])
    found = kv.pull(keys[::-1])
    assert [array.sum() for array in found] == [16, 9, 4]


def test_values_of_several_devices_are_summed(kv: KVStore) -> None:
    kv.init(["a", "b"], [ones(2), ones(2)])
    kv.push("a", [ones(2), 2 * ones(2), 4 * ones(2)])
    assert kv.pull("a").tolist() == [7, 7]
    kv.push(["a", "b"], [[ones(2), ones(2)], [3 * ones(2)]])
    assert [array.tolist() for array in kv.pull(["a", "b"])] == [[2, 2], [3, 3]]


def test_a_key_that_repeats_in_a_list_has_its_values_summed(kv: KVStore) -> None:
    kv.init(3, ones(2))
    kv.push([3, 3, 3], [ones(2), [ones(2), ones(2)], ones(2)])
    assert kv.pull(3).tolist() == [4, 4]
    assert [array.tolist() for array in kv.pull([3, 3])] == [[4, 4], [4, 4]]


def test_outputs_of_several_devices_are_filled(kv: KVStore) -> None:
    kv.init(["a", "b"], [ones(2), 2 * ones(2)])
    outs = [[np.zeros(2), np.zeros(2, "float32")], [np.zeros(2, "float32")]]
    kv.pull(["a", "b"], out=outs)
    assert [[out.tolist() for out in row] for row in outs] == [[[1, 1], [1, 1]], [[2, 2]]]


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (70_000,), (300, 300)], ids=str)
def test_a_value_is_received_where_it_is_wanted(kv: KVStore, shape: tuple[int, ...]) -> None:
    value = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    kv.init(["a", "b"], [value, value + 1])
    out, other = np.zeros(shape, "float32"), np.zeros(shape, "float32")
    assert kv.pull("a", out=out) is out
    np.testing.assert_array_equal(out, value)
    found = kv.pull(["b", "a", "b"], out=[out, other, out])
    assert found[0] is out
    np.testing.assert_array_equal(out, value + 1)
    np.testing.assert_array_equal(other, value)
    # What lies elsewhere, or is of another dtype, is written to.
    strided, wide = np.zeros((*shape, 2), "float32")[..., 0], np.zeros(shape, "float64")
    np.testing.assert_array_equal(kv.pull("a", out=[strided, wide]), value)
    np.testing.assert_array_equal(strided, value)
    np.testing.assert_array_equal(wide, value)
    # And what is given is the caller's to change.
    kv.push("a", strided)
    strided[...] = 77
    np.testing.assert_array_equal(kv.pull("a"), value)


def test_an_output_for_two_keys_has_the_later_one_s_value(kv: KVStore) -> None:
    kv.init(["a", "b"], [ones(70_000), 2 * ones(70_000)])
    out = np.zeros(70_000, "float32")
    kv.pull(["a", "b"], out=[out, out])
    np.testing.assert_array_equal(out, 2 * ones(70_000))


def test_what_is_pushed_stays_as_it_is(kv: KVStore) -> None:
    kv.init("a", ones(4))
    kv.set_optimizer("sgd", learning_rate=1.0, rescale_grad=0.5)
    one, sparse = ones(4), RowSparse([0], [2.0])
    kv.push("a", one)
    kv.push("a", [one, one])
    kv.push("a", sparse)
    assert kv.pull("a").tolist() == [-1.5, -0.5, -0.5, -0.5]
    if kv.type != "local":
        kv.set_gradient_compression({"type": "2bit", "threshold": 0.25})
        kv.push("a", one)
    assert (one.tolist(), sparse.values.tolist()) == ([1, 1, 1, 1], [2.0])


def test_pushpull_writes_into_the_value_where_no_output_is_given(kv: KVStore) -> None:
    kv.init("a", ones(2))
    value = [3 * ones(2), 4 * ones(2)]
    kv.pushpull("a", value)
    assert [array.tolist() for array in value] == [[7, 7], [7, 7]]
    out = np.zeros(2, "float32")
    kept = 5 * ones(2)
    assert kv.pushpull("a", kept, out=out).tolist() == [5, 5]
    assert (out.tolist(), kept.tolist()) == ([5, 5], [5, 5])


def test_outputs_may_be_what_is_pushed_under_other_keys(kv: KVStore) -> None:
    size = 200_000  # several parts
    for step in range(3):
        first, second = np.full(size, 1.0 + step), np.full(size, 2.0 + step)
        kv.init([f"a{step}", f"b{step}"], [np.zeros(size)] * 2)
        found = kv.pushpull([f"a{step}", f"b{step}"], [first, second], out=[second, first])
        assert [set(array.tolist()) for array in found] == [{1.0 + step}, {2.0 + step}]
        for key, value in (("a", 1.0), ("b", 2.0)):
            assert set(kv.pull(f"{key}{step}").tolist()) == {value + step}
    both = np.arange(size + 1000, dtype=np.float64)
    kv.init("c", np.zeros(size))
    kv.pushpull("c", both[:size], out=both[1000:])
    np.testing.assert_array_equal(kv.pull("c"), np.arange(size))
    np.testing.assert_array_equal(both[1000:], np.arange(size))


def test_broadcast_initialises_and_fills(kv: KVStore) -> None:
    outs = [np.zeros(2, "float32"), np.zeros(2, "float32")]
    kv.broadcast("a", 3 * ones(2), out=outs)
    assert [out.tolist() for out in outs] == [[3, 3], [3, 3]]
    kv.broadcast("a", 4 * ones(2), out=outs)
    assert [out.tolist() for out in outs] == [[4, 4], [4, 4]]


def test_anything_that_numpy_makes_an_array_of_is_a_value(kv: KVStore) -> None:
    kv.init("a", [[1.0, 2.0], [3.0, 4.0]])
    kv.push("a", np.float64(1) * np.ones((2, 2)))
    assert kv.pull("a").dtype == np.float64


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda kv: kv.pull("b"), glintpy.ModelNotFound, "key 'b' was never initialised; the store has 'a'"),
        (lambda kv: kv.push("b", ones(2)), glintpy.ModelNotFound, "never initialised"),
        (
            lambda kv: kv.push("a", ones(3)),
            glintpy.ShapeError,
            r"shape \(3,\) for key 'a', which holds float32",
        ),
        (lambda kv: kv.push("a", ones(2) * 1j), glintpy.DTypeError, "array of numbers"),
        (lambda kv: kv.push(["a"], ones(2)), glintpy.ShapeError, "a list of 1 keys takes a list of values"),
        (lambda kv: kv.push(["a", "a"], [ones(2)]), glintpy.ShapeError, "2 keys and 1 values"),
        (lambda kv: kv.push("a", []), glintpy.ShapeError, "an empty list of values"),
        (lambda kv: kv.pull("a", out=ones(3)), glintpy.ShapeError, r"out has shape \(3,\)"),
        (lambda kv: kv.pull("a", out=np.ones(2, int)), glintpy.DTypeError, "out is of int64"),
        (lambda kv: kv.pull("a", out=3), glintpy.DTypeError, "out is an array to write into, not int"),
        (
            lambda kv: kv.pushpull("s", np.float32(4)),
            glintpy.DTypeError,
            "not float32, for key 's'; .*: pass out=",
        ),
        (lambda kv: kv.pushpull("s", 4.0), glintpy.DTypeError, "not float, for key 's'; .*: pass out="),
        (lambda kv: kv.pull(1.5), TypeError, "a key is an int or a str, not 1.5"),
        (lambda kv: kv.init(["x", "x"], [ones(1)] * 2), glintpy.ShapeError, "'x' stands twice"),
        (
            lambda kv: kv.init("x", np.ones(2, np.longdouble)),
            glintpy.DTypeError,
            "a key holds one of bool, int8",
        ),
        (lambda kv: kv.init("x", "text"), glintpy.DTypeError, "array of numbers"),
        (lambda kv: kv.init("a", ones(3)), glintpy.ShapeError, "key 'a' holds float32"),
        (
            lambda kv: kv.row_sparse_pull("a", row_ids=[2]),
            glintpy.KeyRangeError,
            "row 2 of key 'a', which has 2 rows",
        ),
        (
            lambda kv: kv.row_sparse_pull("a", row_ids=np.array([1, 2**64 - 1], "uint64")),
            glintpy.KeyRangeError,
            "row 18446744073709551615 is beyond",
        ),
        (lambda kv: kv.row_sparse_pull("a", row_ids=[1e30]), glintpy.KeyRangeError, r"row 1e\+30 is beyond"),
        (lambda kv: kv.row_sparse_pull("a", row_ids=[-np.inf]), glintpy.KeyRangeError, "row -inf is beyond"),
        (lambda kv: kv.row_sparse_pull("a"), glintpy.ShapeError, "row_ids says which rows"),
        (lambda kv: kv.delete("b"), glintpy.ModelNotFound, "never initialised"),
        (lambda kv: kv.configure(learning_rate=1), glintpy.ConfigError, "no optimiser yet"),
        (lambda kv: kv.set_optimizer("sgdd"), glintpy.ConfigError, "there is no optimiser 'sgdd'; there is"),
        (lambda kv: kv.set_optimizer(print), glintpy.ConfigError, "no code travels to servers"),
    ],
)
def test_what_doesn_t_fit_is_said_and_changes_nothing(kv: KVStore, call: Any, kind: type, said: str) -> None:
    kv.init(["a", "s"], [ones(2), np.float32(1)])
    with pytest.raises(kind, match=said):
        call(kv)
    assert [array.tolist() for array in kv.pull(["a", "s"])] == [[1, 1], 1]


@pytest.mark.parametrize(
    ("dtype", "pushed", "said"),
    [
        ("int8", np.array([300, -129]), "key 'a' has -129; int8 holds -128 to 127"),
        ("int8", np.array([128, 1], "uint8"), "has 128; int8 holds"),
        ("int64", np.array([2**63, 1], "uint64"), "has 9223372036854775808; int64 holds"),
        ("float16", np.array([1.0, 1e6]), "has 1000000.0; float16 holds -65504 to 65504"),
        ("float32", [np.ones(2), np.array([1.0, -1e300])], r"has -1e\+300; float32"),
        ("int8", RowSparse([1], np.array([200])), "has 200; int8"),
    ],
)
def test_what_a_key_can_t_hold_is_never_pushed(kv: KVStore, dtype: str, pushed: Any, said: str) -> None:
    kv.init(["a", "b"], [np.ones(2, dtype)] * 2)
    with pytest.raises(glintpy.DTypeError, match=said):
        kv.push(["b", "a"], [np.zeros(2, dtype), pushed])
    assert [array.tolist() for array in kv.pull(["a", "b"])] == [[1, 1], [1, 1]]


def test_other_dtypes_of_a_kind_are_taken_where_they_fit(kv: KVStore) -> None:
    kv.init(["i", "f"], [np.ones(2, "int8"), np.ones(2, "float16")])
    kv.push(["i", "f"], [np.array([-128, 127]), np.array([0.1, np.inf])])
    assert kv.pull("i").tolist() == [-128, 127]
    assert kv.pull("f").tolist() == [np.float16(0.1), np.inf]


def test_an_output_gets_what_it_can_hold(kv: KVStore) -> None:
    kv.init(["a", "f"], [np.array([300, 1]), np.array([1e300, 1.0])])
    narrow, wide = np.zeros(2, "int8"), np.zeros(2, "int16")
    assert kv.pull("a", out=wide).tolist() == wide.tolist() == [300, 1]
    with pytest.raises(glintpy.DTypeError, match="what out gets has 300; int8 holds -128 to 127"):
        kv.pull("a", out=narrow)
    with pytest.raises(glintpy.DTypeError, match=r"1e\+300; float32 holds"):
        kv.pull("f", out=np.zeros(2, "float32"))
    with pytest.raises(glintpy.DTypeError, match="300; int8"):
        kv.row_sparse_pull("a", out=np.zeros(1, "int8"), row_ids=[0])
    assert narrow.tolist() == [0, 0]


# --- rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (1000, 80), (7,), (300, 20, 20)])
def test_rows_are_pulled_in_any_order_and_with_repeats(kv: KVStore, shape: tuple[int, ...]) -> None:
    value = np.arange(np.prod(shape), dtype="float64").reshape(shape)
    kv.init("e", value)
    ids = np.array([3, 0, 3, 4, 1, 0])
    assert (kv.row_sparse_pull("e", row_ids=ids) == value[ids]).all()
    out = np.zeros((6, *shape[1:]))
    kv.row_sparse_pull("e", out=out, row_ids=[ids])
    assert (out == value[ids]).all()
    into = RowSparse([], np.zeros((0, *shape[1:])))
    kv.row_sparse_pull("e", out=into, row_ids=ids)
    assert into.indices.tolist() == [0, 1, 3, 4]
    whole = np.zeros(shape)
    whole[[0, 1, 3, 4]] = value[[0, 1, 3, 4]]
    assert (into.todense() == whole).all()
    assert kv.row_sparse_pull("e", row_ids=[]).shape == (0, *shape[1:])


def test_rows_of_several_keys_are_one_call(kv: KVStore) -> None:
    kv.init(["a", "b"], [np.arange(8.0).reshape(4, 2), np.arange(3.0)])
    a, b = kv.row_sparse_pull(["a", "b"], row_ids=[[3, 1], [2]])
    assert (a.tolist(), b.tolist()) == ([[6, 7], [2, 3]], [2])
    a, b = kv.row_sparse_pull(["a", "b"], row_ids=np.array([2]))
    assert (a.tolist(), b.tolist()) == ([[4, 5]], [2])


@pytest.mark.parametrize("shape", [(5, 3), (1000, 80)])
def test_rows_are_pushed_with_repeats_summed(kv: KVStore, shape: tuple[int, int]) -> None:
    kv.init("e", np.zeros(shape))
    kv.set_optimizer(Adagrad(learning_rate=1.0))
    kv.push(
        "e", [RowSparse([3, 1, 3], np.ones((3, shape[1]))), RowSparse([4], 5 * np.ones((1, shape[1])), shape)]
    )
    found = kv.pull("e")
    assert np.allclose(found[[1, 3, 4]], -1)
    assert not found[[0, 2]].any()
    with pytest.raises(glintpy.KeyRangeError, match="row 5000 of key 'e'"):
        kv.push("e", RowSparse([5000], np.ones((1, shape[1]))))
    with pytest.raises(glintpy.ShapeError, match="dense and row-sparse values together"):
        kv.push("e", [RowSparse([1], np.ones((1, shape[1]))), np.ones(shape)])


# --- updates --------------------------------------------------------------------------------------------------


def test_an_optimizer_makes_steps(kv: KVStore) -> None:
    kv.init("w", ones(3))
    kv.set_optimizer("sgd", learning_rate=0.5, wd=0.1, rescale_grad=0.25)
    kv.push("w", [2 * ones(3), 2 * ones(3)])
    assert np.allclose(kv.pull("w"), 1 - 0.5 * (1 + 0.1))
    kv.init("late", ones(2))
    kv.push("late", 4 * ones(2))
    assert np.allclose(kv.pull("late"), 1 - 0.5 * (1 + 0.1))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("sgd", {"momentum": 0.9}),
        ("nag", {"momentum": 0.8}),
        ("adam", {"learning_rate": 0.1, "beta1": 0.8}),
        ("adamw", {"wd": 0.1}),
        ("adagrad", {"eps": 1e-4}),
        ("rmsprop", {"gamma1": 0.8}),
        ("ftrl", {"lamda1": 0.05, "wd": 0.1}),
        ("dcasgd", {"lamda": 0.1}),
        ("sgd", {"learning_rate": schedules.InverseTime(0.5, 1.0)}),
    ],
)
def test_each_optimizer_does_the_same_in_a_process_and_on_servers(
    kv: KVStore, name: str, numbers: dict[str, Any], seed: int
) -> None:
    reference = glintpy.kvstore.create("local")
    rng = np.random.default_rng(seed)
    start = rng.normal(size=(3, 4)).astype("float32")
    for store in (kv, reference):
        store.init("w", start)
        store.set_optimizer(name, **numbers)
    for _ in range(3):
        gradient = rng.normal(size=(3, 4)).astype("float32")
        kv.push("w", gradient)
        reference.push("w", gradient)
    assert np.allclose(kv.pull("w"), reference.pull("w"), rtol=1e-6)
    assert not np.allclose(kv.pull("w"), start)


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        ("sgd", {"rate": 1}, "has no number 'rate'"),
        ("sgd", {"wd": 1, "weight_decay": 2}, "under both of its names"),
        ("sgd", {"lr_scheduler": object()}, "give learning_rate a schedule"),
        ("sgd", {"multi_precision": True}, "multi_precision=False here"),
        ("rmsprop", {"centered": True}, "centered=False here"),
        ("dcasgd", {"momentum": 0.9}, "dcasgd has no momentum here"),
        ("lamb", {}, "there is no optimiser 'lamb'"),
        ("sgd", {"rescale_grad": "x"}, "rescale_grad is a number"),
    ],
)
def test_what_has_no_counterpart_is_refused(
    kv: KVStore, name: str, numbers: dict[str, Any], said: str
) -> None:
    with pytest.raises(glintpy.ConfigError, match=said):
        kv.set_optimizer(name, **numbers)


def test_an_optimizer_that_can_t_work_with_a_key_is_refused(kv: KVStore) -> None:
    kv.init("n", np.zeros(3, int))
    with pytest.raises(glintpy.DTypeError, match="computes with fractions"):
        kv.set_optimizer("sgd")
    kv.push("n", np.full(3, 4))
    assert kv.pull("n").tolist() == [4, 4, 4]
    kv.set_optimizer("add")
    kv.push("n", np.full(3, 4))
    assert kv.pull("n").tolist() == [8, 8, 8]
    with pytest.raises(glintpy.DTypeError, match="holds int64"):
        kv.push("n", np.full(3, 0.5))


def test_an_updater_of_glintpy_is_an_optimizer(kv: KVStore) -> None:
    kv.set_optimizer(SGD(learning_rate=0.5))
    kv.init("w", np.zeros(2))
    kv.push("w", np.ones(2))
    assert kv.pull("w").tolist() == [-0.5, -0.5]
    assert kv.optimizer is not None
    assert kv.optimizer.updater == SGD(learning_rate=0.5)


def test_states_are_saved_and_loaded(kv: KVStore, tmp_path: Any) -> None:
    keys = ["w", "big", "table"]
    kv.init(keys, [np.zeros(2), np.zeros(70_000), np.zeros((300, 300))])
    kv.set_optimizer(Adam(learning_rate=0.1))
    kv.push(keys, [np.ones(2), np.ones(70_000), np.ones((300, 300))])
    kv.save_optimizer_states(tmp_path / "states", dump_optimizer=True)
    step = kv.pull("w")[0]
    kv.push(keys, [np.ones(2), np.ones(70_000), np.ones((300, 300))])
    second = kv.pull(keys)
    kv.push("w", -100 * np.ones(2))
    kv.configure(learning_rate=0.7)
    kv.init(keys, [np.full(2, step), np.full(70_000, step), np.full((300, 300), step)])
    kv.load_optimizer_states(tmp_path / "states")
    assert all(np.allclose(array, step) for array in kv.pull(keys))
    kv.push(keys, [np.ones(2), np.ones(70_000), np.ones((300, 300))])
    for found, wanted in zip(kv.pull(keys), second, strict=True):
        assert np.allclose(found, wanted, rtol=1e-12)


def test_a_key_that_comes_after_states_were_loaded_begins_anew(
    kv: KVStore, cluster: glintpy.LocalCluster, job: str, tmp_path: Any
) -> None:
    kv.set_optimizer("sgd", learning_rate=1.0, momentum=0.9)
    kv.init(["a", "b"], [np.zeros(3), np.zeros(3)])
    kv.push(["a", "b"], [np.ones(3), np.full(3, 7.0)])
    kv.pull(["a", "b"])
    kv.save_optimizer_states(tmp_path / "states")
    with cluster.client() as client, create(kv.type, client, job=f"{job}-other", num_workers=1) as other:
        other.set_optimizer("sgd", learning_rate=1.0, momentum=0.9)
        other.init("a", np.zeros(3))
        other.load_optimizer_states(tmp_path / "states")
        other.init(["c", "d"], [np.zeros(3), np.ones(3)])
        assert other.pull("c").tolist() == [0, 0, 0]
        other.push(["a", "c", "d"], [np.zeros(3), np.ones(3), np.ones(3)])
        found = other.pull(["a", "c", "d"])
    assert [array[0] for array in found] == [-0.9, -1, 0]


def test_states_of_another_optimizer_are_refused(kv: KVStore, tmp_path: Any) -> None:
    with pytest.raises(glintpy.ConfigError, match="no optimiser yet"):
        kv.save_optimizer_states(tmp_path / "states")
    kv.set_optimizer("adam")
    kv.init("w", np.zeros(2))
    kv.save_optimizer_states(tmp_path / "states")
    kv.set_optimizer("adagrad")
    with pytest.raises(glintpy.CheckpointMismatch, match="has what adam keeps"):
        kv.load_optimizer_states(tmp_path / "states")
    with pytest.raises(glintpy.CheckpointNotFound):
        kv.load_optimizer_states(tmp_path / "nothing")


# --- the life of keys ---------------------------------------------------------------------------------------


def test_a_deleted_key_is_gone_and_can_be_made_anew(kv: KVStore) -> None:
    kv.init(["a", "b", "big"], [ones(2), ones(2), ones(70_000)])
    kv.delete(["a", "big"])
    assert kv.keys() == ["b"]
    with pytest.raises(glintpy.ModelNotFound, match="the store has 'b'"):
        kv.pull("a")
    kv.init(["a", "big"], [np.zeros((2, 2), int), ones(3)])
    assert kv.pull("a").tolist() == [[0, 0], [0, 0]]
    assert kv.pull("big").tolist() == [1, 1, 1]
    assert kv.pull("b").tolist() == [1, 1]


def test_a_key_that_repeats_is_deleted_once(kv: KVStore) -> None:
    kv.init(["a", "b"], [ones(2), ones(2)])
    kv.delete(["a", "a"])
    kv.init("a", 2 * ones(3))
    assert kv.keys() == ["b", "a"]
    assert kv.pull("a").tolist() == [2, 2, 2]


def test_what_a_store_is_can_be_asked(kv: KVStore) -> None:
    assert kv.type in {"local", "device", "dist_async", "dist_sync"}
    assert (kv.rank, kv.num_workers) == (0, 1)
    assert kv.is_capable("optimizer")
    assert not kv.is_capable("flight")
    assert kv.num_dead_node(6) == 0
    kv.barrier()
