"""What MXNet's users fall into, and what happens here: a test for each trap, named after it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import KVStore, RowSparse, create
from glintpy.updaters import SGD, Momentum, Updater
from tests.cluster.helpers import until
from tests.kvstore.conftest import RunWorkers


def test_push_and_then_pull_into_other_arrays_overwrites_the_pushed_one(kv: KVStore) -> None:
    """Here the pushed array is copied."""
    kv.init("w", np.zeros(3))
    kv.set_optimizer("sgd", learning_rate=1.0)
    gradient, weights = np.ones(3), np.zeros(3)
    kv.push("w", gradient)
    gradient[:] = 7  # the caller's again as soon as the call returns
    kv.pull("w", out=weights)
    assert weights.tolist() == [-1, -1, -1]
    assert gradient.tolist() == [7, 7, 7]


def test_two_workers_that_initialise_names_in_another_order_read_each_other_s_arrays(
    run_workers: RunWorkers,
) -> None:
    """Here names are names, whatever the order."""

    def work(kv: KVStore) -> Any:
        names = ["a", "b", "c"] if kv.rank == 0 else ["c", "a", "b"]
        for name in names:
            kv.init(name, np.full(2, float(ord(name))))
        return [array.tolist() for array in kv.pull(["a", "b", "c"])]

    assert run_workers(work) == [[[97, 97], [98, 98], [99, 99]]] * 2


def test_a_second_init_of_a_key_is_applied_as_a_gradient(kv: KVStore) -> None:
    """Here it sets the value."""
    for key in (3, "three"):
        kv.init(key, np.ones(2))
    kv.set_optimizer("sgd", learning_rate=0.5)
    for key in (3, "three"):
        kv.init(key, np.full(2, 5.0))
        assert kv.pull(key).tolist() == [5, 5]


def test_a_new_learning_rate_has_no_effect_on_servers(kv: KVStore) -> None:
    """Here it has, at once, and keeps what the optimiser has learnt."""
    kv.init("w", np.zeros(2))
    kv.set_optimizer("sgd", learning_rate=1.0, momentum=0.5)
    kv.push("w", np.ones(2))
    kv.set_learning_rate(0.1)
    kv.push("w", np.ones(2))
    assert np.allclose(kv.pull("w"), -1 - 0.1 * 1.5)


def test_sending_the_optimizer_again_resets_its_momentum(kv: KVStore) -> None:
    """Here the same optimiser with other numbers goes on; another one begins anew."""
    kv.init("w", np.zeros(2))
    kv.set_optimizer("sgd", learning_rate=1.0, momentum=0.5)
    kv.push("w", np.ones(2))
    kv.set_optimizer("sgd", learning_rate=0.1, momentum=0.5)
    kv.push("w", np.ones(2))
    assert np.allclose(kv.pull("w"), -1 - 0.1 * 1.5)
    kv.set_optimizer("sgd", learning_rate=1.0)
    kv.push("w", np.ones(2))
    assert np.allclose(kv.pull("w"), -1 - 0.1 * 1.5 - 1)
    kv.set_optimizer("sgd", learning_rate=1.0, momentum=0.5)
    kv.push("w", np.ones(2))
    assert np.allclose(kv.pull("w"), -1 - 0.1 * 1.5 - 2)


def test_an_optimizer_of_the_program_s_own_file_fails_on_servers_without_a_word(dist: KVStore) -> None:
    """Here it is refused by the call, and the store is as it was."""
    mine = type("Mine", (SGD,), {"__module__": "__main__"})
    dist.init("w", np.zeros(2))
    with pytest.raises(glintpy.ConfigError, match="move it into a module"):
        dist.set_optimizer(mine())
    dist.push("w", np.ones(2))
    assert dist.pull("w").tolist() == [1, 1]


def test_an_error_in_an_updater_is_printed_and_the_push_acknowledged() -> None:
    """Here it is raised where the push was made, and nothing has changed."""

    def updater(key: Any, pushed: Any, stored: Any) -> None:
        stored += pushed
        raise ValueError(f"no {key}")

    kv = create("local")
    kv.init("w", np.zeros(2))
    kv.set_updater(updater)
    with pytest.raises(ValueError, match="no w"):
        kv.push("w", np.ones(2))
    assert kv.pull("w").tolist() == [0, 0]


class Failing(SGD):
    """An updater that fails where it is used."""

    def update(self, *_: Any) -> tuple[Any, ...]:
        raise ValueError("this updater fails")


def test_an_error_in_an_updater_on_a_server_is_not_heard_of(job: str) -> None:
    """Here the push's future raises it, and so does the next call; the server goes on."""
    with (
        glintpy.LocalCluster(1, scheme="local", allow=[__name__]) as cluster,
        cluster.client() as client,
        create("dist_async", client, job=job) as kv,
    ):
        kv.set_optimizer(Failing())
        kv.init("w", np.ones(2))
        with pytest.raises(glintpy.GlintError, match="this updater fails"):
            kv.push("w", np.ones(2)).result()
        unseen = kv.push("w", np.ones(2))
        while not unseen.done():
            time.monotonic()
        with pytest.raises(glintpy.GlintError, match="this updater fails"):
            kv.pull("w")
        assert kv.pull("w").tolist() == [1, 1]


def test_dist_async_without_an_optimizer_ends_the_server(dist: KVStore) -> None:
    """Here what is pushed replaces what is stored."""
    dist.init("w", np.zeros(2))
    dist.push("w", np.ones(2))
    assert dist.pull("w").tolist() == [1, 1]


def test_pulling_an_uninitialised_key_ends_the_server(kv: KVStore) -> None:
    """Here it is an error that names the keys."""
    kv.init(1, np.zeros(2))
    with pytest.raises(glintpy.ModelNotFound, match="key 2 was never initialised; the store has 1"):
        kv.pull(2)
    assert kv.pull(1).tolist() == [0, 0]


def test_initialising_with_a_row_sparse_array_of_zeros_ends_the_server(kv: KVStore) -> None:
    """Here it is an array of zeros."""
    kv.init("e", RowSparse([], np.zeros((0, 3)), (4, 3)))
    assert kv.pull("e").tolist() == np.zeros((4, 3)).tolist()


def test_an_integer_dtype_ends_the_server(kv: KVStore) -> None:
    """Here counts are counted."""
    kv.init("n", np.zeros(3, "int64"))
    kv.set_optimizer("add")
    for _ in range(3):
        kv.push("n", np.array([1, 2**40, 3]))
    assert kv.pull("n").tolist() == [3, 3 * 2**40, 9]


def test_a_row_beyond_the_end_ends_the_server(kv: KVStore) -> None:
    """Here it is an error before anything is sent."""
    kv.init("e", np.ones((5, 2)))
    with pytest.raises(glintpy.KeyRangeError, match="row 5 of key 'e', which has 5 rows"):
        kv.row_sparse_pull("e", row_ids=[0, 5])
    assert kv.row_sparse_pull("e", row_ids=[4]).tolist() == [[1, 1]]


@pytest.mark.parametrize("key", [300001, 2**31, 2**40 + 1, 10**30, -5])
def test_large_keys_overflow(kv: KVStore, key: int) -> None:
    """Here an int is an int."""
    kv.init([key, 0, "0"], [np.ones(2), np.zeros(2), np.full(2, 5.0)])
    kv.push(key, np.full(2, 3.0))
    assert [array.tolist() for array in kv.pull([key, 0, "0"])] == [[3, 3], [0, 0], [5, 5]]


def test_a_second_distributed_store_in_a_process_hangs(cluster: glintpy.LocalCluster, job: str) -> None:
    """Here there are as many as one likes, each with keys of its own."""
    with cluster.client() as client, create("dist_async", client, job=job) as one:
        with (
            create("dist_async", client, job=job) as two,
            create("dist_async", client, job=job + "x") as three,
        ):
            for number, kv in enumerate((one, two, three)):
                kv.init("w", np.full(2, float(number)))
            assert [kv.pull("w").tolist() for kv in (one, two, three)] == [[0, 0], [1, 1], [2, 2]]
        assert one.pull("w").tolist() == [0, 0]


def test_the_end_of_a_server_hangs_its_workers(job: str) -> None:
    """Here they get an error that names it, or go on when it is back."""
    with (
        glintpy.LocalCluster(2, scheme="local") as cluster,
        cluster.client(on_server_lost="raise") as client,
        create("dist_async", client, job=job) as kv,
    ):
        kv.init("w", np.ones(100_000))
        cluster.kill_server(0)
        with pytest.raises(glintpy.ServerLost, match="server"):
            kv.pull("w")
        cluster.restart_server(0)

        def is_back() -> bool:
            try:
                return bool(kv.pull("w").sum() == 100_000)
            except glintpy.ServerLost:
                return False

        until(is_back, "the server is back, with what it held")


def test_the_end_of_a_worker_hangs_the_others(cluster: glintpy.LocalCluster, job: str) -> None:
    """Here they hear of it at the barrier, and go on without it."""
    with cluster.client() as client, cluster.client() as other:
        kv, lost = (create("dist_async", it, job=job, on_worker_lost="raise") for it in (client, other))
        kv.init("w", np.ones(2))
        other.close()
        with pytest.raises(glintpy.WorkerLost):
            kv.barrier()
        kv.barrier()
        assert kv.pull("w").tolist() == [1, 1]
        kv.close()
        assert lost.rank == 1


def test_a_replacement_of_rank_0_pushes_its_initial_value_as_a_gradient(
    cluster: glintpy.LocalCluster, job: str
) -> None:
    """Here it finds the key as it is, and goes on."""
    with cluster.client() as stayer:
        first = cluster.client()
        kv = create("dist_async", first, job=job)
        kv.set_optimizer("sgd", learning_rate=1.0)
        kv.init("w", np.ones(2))
        other = create("dist_async", stayer, job=job)
        kv.push("w", np.ones(2)).result()
        first.close()
        with pytest.raises(glintpy.GlintError):
            kv.pull("w")
        with cluster.client() as again:
            replaced = create("dist_async", again, job=job)
            while replaced.rank:  # the lost one's place is free a second after its connection has ended
                replaced.close()
                replaced = create("dist_async", again, job=job)
            replaced.set_optimizer("sgd", learning_rate=1.0)
            replaced.init("w", np.full(2, 9.0))
            assert replaced.pull("w").tolist() == other.pull("w").tolist() == [0, 0]
            replaced.close()
        other.close()


def test_arrays_beyond_two_gigabytes_overflow() -> None:
    """Here places are counted in 64 bits."""
    from glintpy.kvstore.directory import Directory, keys_entry, model_entry
    from glintpy.kvstore.forms import Spec

    directory = Directory()
    specs: dict[int | str, Spec] = {
        "w": Spec((2**33, 3), np.dtype("float32")),
        "v": Spec((2**36,), np.dtype("int8")),
    }
    makings, places = directory.placed(specs)
    assert [(making.kind, making.size) for making in makings] == [("matrix", 2**33), ("vector", 2**36)]
    for entry in [*map(model_entry, makings), keys_entry(places, specs)]:
        directory.apply(entry)
    assert directory.places["v"].spec.size == 2**36


def test_optimizers_are_pickled_to_every_server(dist: KVStore) -> None:
    """Here names and numbers travel; what is neither is refused."""

    class Own(Updater):
        def update(self, *arguments: Any) -> tuple[Any, ...]:
            return arguments

    for given in (Own(), object(), lambda: None):
        with pytest.raises(glintpy.ConfigError):
            dist.set_optimizer(given)
    with pytest.raises(glintpy.ConfigError, match="where no function travels to"):
        dist.set_updater(lambda *_: None)
    dist.set_optimizer(Momentum())


def test_an_unknown_kind_of_store_silently_becomes_local() -> None:
    """Here it is an error that lists the kinds."""
    with pytest.raises(
        glintpy.ConfigError, match=r"there is no kind of store 'foo'; there is local, .*dist_async"
    ):
        create("foo")


def test_a_command_with_an_unknown_number_is_acknowledged_and_ignored(dist: KVStore) -> None:
    """Here it is refused, and one that has a function reaches it."""
    dist.init(["a", "big"], [np.ones(3), np.ones((300, 300))])
    with pytest.raises(glintpy.ConfigError, match="no function has the number 77; there are none"):
        dist.send_command_to_servers(77, "")
    assert dist.send_command_to_servers("scale", '{"by": 3}') == {"a": None, "big": None}
    assert dist.send_command_to_servers("sum") == {"a": 9, "big": 270_000}
    assert dist.send_command_to_servers("max", '{"keys": ["a"]}') == {"a": 3}
    for head, body, said in [
        ("sum", "[1]", "JSON object"),
        ("sum", "{", "body is JSON"),
        ("sum", '{"keys": ["b"]}', "names key 'b'"),
        ("nothing", "", "there is no function 'nothing'"),
    ]:
        with pytest.raises(glintpy.ConfigError, match=said):
            dist.send_command_to_servers(head, body)
