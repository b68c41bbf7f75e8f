"""One and two bits a gradient: what is sent, what is kept, and that nothing is lost on the way."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import RowSparse, create
from glintpy.kvstore.compression import compressor_of, quantised
from glintpy.kvstore.store import KVStore
from tests.cluster.helpers import until
from tests.kvstore.conftest import RunWorkers


def test_two_bits_send_the_threshold_or_nothing() -> None:
    values = np.array([0.5, 0.49, -0.5, -0.7, 3, 0], "float32")
    assert quantised(values, 2, 0.5).tolist() == [0.5, 0, -0.5, -0.5, 0.5, 0]


def test_one_bit_sends_a_sign() -> None:
    assert quantised(np.array([0.1, -0.1, 0.0]), 1, 0.0).tolist() == [1, -1, -1]
    assert quantised(np.array([0.1, 0.3]), 1, 0.2).tolist() == [-1, 1]


@pytest.mark.parametrize("kind", ["1bit", "2bit"])
@pytest.mark.parametrize("store", ["device", "dist_async"])
def test_what_is_left_out_of_one_push_comes_with_the_next(
    kind: str, store: str, cluster: glintpy.LocalCluster, job: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    with cluster.client() as client, create(store, client, job=job) as kv:
        kv.set_gradient_compression({"type": kind, "threshold": 0.25})
        kv.set_optimizer("add")
        kv.init("w", np.zeros(50))
        total = np.zeros(50)
        for _ in range(200):
            gradient = rng.uniform(-0.25, 0.25, 50)
            total += gradient
            kv.push("w", gradient)
        # Sums of what was sent and of what was given differ by what is still left, and no more.
        assert np.abs(kv.pull("w") - total).max() <= (2.0 if kind == "1bit" else 0.5)


@pytest.mark.parametrize("store", ["dist_sync", "dist_async"])
@pytest.mark.parametrize(("kind", "times"), [("1bit", 31), ("2bit", 15.5)])
def test_bits_travel_and_not_values(store: str, kind: str, times: float, job: str, seed: int) -> None:
    def bytes_in() -> int:
        return sum(server["holds"]["bytes_in"] for server in client.status()["servers"])

    def traffic(value: np.ndarray[Any, Any]) -> int:
        before = bytes_in()
        kv.push("w", value).result()
        return bytes_in() - before

    gradient = np.random.default_rng(seed).normal(size=1_048_576).astype("float32")
    with (
        glintpy.LocalCluster(2, scheme="local") as cluster,
        cluster.client() as client,
        create(store, client, job=job, num_workers=1) as kv,
    ):
        kv.init("w", np.zeros_like(gradient))
        kv.set_optimizer("add")
        plain = traffic(gradient)
        kv.set_gradient_compression({"type": kind, "threshold": 0.5})
        assert traffic(gradient) < plain / times
        expected = gradient + quantised(gradient, int(kind[0]), 0.5)
        np.testing.assert_array_equal(kv.pull("w"), expected)


@pytest.mark.parametrize("kind", ["1bit", "2bit"])
def test_arrays_of_any_size_side_by_side_are_compressed(
    kind: str, cluster: glintpy.LocalCluster, job: str
) -> None:
    sizes = [1, 7, 64, 65, 3000]
    with cluster.client() as client, create("dist_sync", client, job=job, num_workers=1) as kv:
        kv.init(list(range(5)), [np.zeros(size, "float32") for size in sizes])
        kv.set_optimizer("add")
        kv.set_gradient_compression({"type": kind, "threshold": 1})
        kv.push(list(range(5)), [np.full(size, 3, "float32") for size in sizes])
        assert [pulled.tolist() for pulled in kv.pull(list(range(5)))] == [[1.0] * size for size in sizes]


@pytest.mark.parametrize("kind", ["1bit", "2bit"])
@pytest.mark.parametrize("factor", [1 / 3, -0.1, 0.0, 1e-30])
@pytest.mark.parametrize("store", ["device", "dist_sync", "dist_async"])
def test_the_threshold_is_of_gradients_as_they_are_given(
    store: str, factor: float, kind: str, cluster: glintpy.LocalCluster, job: str
) -> None:
    """As in MXNet, whose servers multiply with ``rescale_grad`` what was compressed."""
    gradients = [np.array([0.7, -0.4, 0.1, -2.0], "float32"), np.array([0.0, -0.4, 0.1, 0.3], "float32")]
    with cluster.client() as client, create(store, client, job=job, num_workers=1) as kv:
        kv.set_gradient_compression({"type": kind, "threshold": 0.6 if kind == "2bit" else 0})
        kv.set_optimizer("add", rescale_grad=factor)
        kv.init(["w", "v"], [np.zeros(4, "float32"), np.zeros(4, "float16")])
        for gradient in gradients:
            kv.push(["w", "v"], [gradient, gradient.astype("float16")])
        signs = np.array([1, -1, 0, -2]) if kind == "2bit" else np.array([0, 0, 0, -2])
        step = (0.6 if kind == "2bit" else 1.0) * factor
        np.testing.assert_allclose(kv.pull("w"), signs * np.float32(step), rtol=1e-6)
        np.testing.assert_allclose(kv.pull("v"), (signs * step).astype("float16"), rtol=2e-3)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"type": "3bit"}, "of type 1bit, 2bit or none, not '3bit'"),
        ({"type": "2bit", "threshold": 0}, "a finite number above 0, not 0"),
        ({"type": "1bit", "threshold": float("nan")}, "a finite number, not nan"),
        ({"type": "2bit", "treshold": 1}, "no 'treshold'"),
        ({}, "not None"),
        ("2bit", "compression is"),
    ],
)
def test_what_can_t_be_is_said(parameters: Any, said: str) -> None:
    with pytest.raises(glintpy.ConfigError, match=said):
        create("device").set_gradient_compression(parameters)


def test_a_local_store_has_nothing_to_compress() -> None:
    with pytest.raises(glintpy.ConfigError, match="a local store sends nothing"):
        create("local").set_gradient_compression({"type": "2bit"})


@pytest.mark.parametrize(
    "refused", [np.ones(2, "int32"), RowSparse([1], [1.0]), np.ones(3), [1, np.nan], [-np.inf, 0]]
)
def test_a_push_that_is_refused_leaves_what_was_left_out(refused: Any) -> None:
    kv = create("device")
    value = refused if isinstance(refused, np.ndarray) and refused.dtype.kind == "i" else np.zeros(2)
    kv.init(["w", "other"], [np.zeros(2), np.zeros_like(value)])
    kv.set_optimizer("add")
    kv.set_gradient_compression({"type": "2bit", "threshold": 1.0})
    given = np.array(refused) if isinstance(refused, list) else refused
    with pytest.raises((glintpy.DTypeError, glintpy.ShapeError, glintpy.ConfigError)):
        kv.push(["w", "other"], [np.full(2, 0.75), given])
    if value.dtype.kind == "f":
        kv.push("other", np.full(2, 0.5))
        kv.push("other", np.full(2, 0.5))
        assert kv.pull("other").tolist() == [1, 1]
    kv.push("w", np.full(2, 0.75))
    assert kv.pull("w").tolist() == [0, 0]


def test_a_sum_of_what_was_left_out_that_is_no_number_is_said() -> None:
    kv = create("device")
    kv.init("w", np.zeros(2, "float16"))
    kv.set_gradient_compression({"type": "2bit", "threshold": 0.5})
    kv.push("w", np.full(2, 6e4, "float16"))
    with pytest.raises(glintpy.DTypeError, match=r"'w', with what .*, has inf in 2 of 2 cells"):
        kv.push("w", np.full(2, 6e4, "float16"))


def test_compression_ends_and_is_for_whole_arrays_of_floats() -> None:
    kv = create("device")
    kv.init(["w", "n"], [np.zeros(2), np.zeros(2, int)])
    kv.set_gradient_compression({"type": "2bit", "threshold": 0.5})
    with pytest.raises(glintpy.DTypeError, match="key 'n' is of int64"):
        kv.push("n", np.ones(2, int))
    with pytest.raises(glintpy.ConfigError, match="rows of key 'w' can't be compressed"):
        kv.push("w", RowSparse([1], [1.0]))
    kv.set_gradient_compression({"type": "none"})
    kv.push("w", np.full(2, 0.1))
    assert kv.pull("w").tolist() == [0.1, 0.1]
    assert compressor_of({"type": "none"}) is None


def left_of(kv: KVStore) -> dict[Any, list[float]]:
    assert kv._compressor is not None
    return {key: np.ravel(value).tolist() for key, value in kv._compressor.left.items()}


def test_a_push_that_is_refused_late_leaves_what_was_left_out_too(
    cluster: glintpy.LocalCluster, job: str
) -> None:
    with cluster.client() as client, create("dist_async", client, job=job, num_workers=1) as kv:
        kv.init(["w", "v"], [np.zeros(1), np.zeros(70_000)])
        kv.set_gradient_compression({"type": "2bit", "threshold": 1.0})
        kv.push("w", np.array([0.75])).result()
        client.destroy(f"kv/{job}/0/model-0")  # of the large array
        kv.push("v", np.ones(70_000))
        with pytest.raises(glintpy.ModelNotFound):
            kv.barrier()
        kv.push("v", np.ones(70_000))
        before = left_of(kv)
        until(lambda: not client._tie.runtime().is_busy, "its failure is there")
        with pytest.raises(glintpy.ModelNotFound):
            kv.push("w", np.array([0.5]))
        assert left_of(kv) == before
        kv.push("w", np.array([0.5])).result()
        assert kv.pull("w").tolist() == [1.0]
    with pytest.raises(glintpy.ConfigError, match="closed"):
        kv.push("w", np.array([0.5]))


@pytest.mark.parametrize("store", ["device", "dist_async"])
def test_pushes_of_several_threads_lose_and_double_nothing(
    store: str, cluster: glintpy.LocalCluster, job: str
) -> None:
    with cluster.client() as client, create(store, client, job=job, num_workers=1) as kv:
        kv.init("w", np.zeros(3))
        kv.set_gradient_compression({"type": "2bit", "threshold": 0.5})
        kv.set_optimizer("add")

        def push() -> None:
            for _ in range(100):
                kv.push("w", np.full(3, 0.375))

        threads = [threading.Thread(target=push) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (kv.pull("w") + left_of(kv)["w"]).tolist() == [150.0] * 3


@pytest.mark.parametrize("size", [1, 3])
def test_a_key_that_begins_anew_has_nothing_left_out(run_workers: RunWorkers, size: int) -> None:
    def work(kv: KVStore) -> Any:
        kv.set_gradient_compression({"type": "2bit", "threshold": 1.0})
        kv.set_optimizer("add")
        kv.init("w", np.zeros(1))
        kv.push("w", np.array([0.75]))
        kv.barrier()
        if kv.rank == 0:
            kv.delete("w")
            kv.init("w", np.zeros(size))
        kv.barrier()
        if kv.rank == 1:
            kv.push("w", np.full(size, 0.5))
            assert left_of(kv)["w"] == [0.5] * size
        kv.barrier()
        return kv.pull("w").tolist()

    assert run_workers(work, 2) == [[0.0] * size] * 2


@pytest.mark.parametrize("store", ["device", "dist_sync", "dist_async"])
def test_numbers_without_a_dimension_stay_arrays(store: str, cluster: glintpy.LocalCluster, job: str) -> None:
    with cluster.client() as client, create(store, client, job=job, num_workers=1) as kv:
        kv.init(["s", "v"], [np.zeros(()), np.zeros(2)])
        kv.set_optimizer("add", rescale_grad=0.5)
        kv.set_gradient_compression({"type": "2bit", "threshold": 1.0})
        for expected in (0.0, 0.5):
            outs = [np.zeros(()), np.zeros(2)]
            found = kv.pushpull(["s", "v"], [np.array(0.75), np.full(2, 0.75)], out=outs)
            assert [value.tolist() for value in found] == [expected, [expected] * 2]


def test_a_threshold_that_a_key_can_t_hold_is_refused() -> None:
    kv = create("device")
    kv.init("w", np.zeros(2, "float16"))
    kv.set_gradient_compression({"type": "2bit", "threshold": 1e6})
    with pytest.raises(glintpy.DTypeError, match=r"key 'w' is of float16, which can't hold 1e\+06"):
        kv.push("w", np.ones(2, "float16"))
