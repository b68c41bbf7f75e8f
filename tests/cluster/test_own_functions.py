"""Functions of one's own, which servers import only from where they were told to; and functions through kills."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glintpy import Client, LocalCluster, config, functions
from glintpy.errors import ConfigError, PushOutcomeUnknown, RemoteFailure, ShapeError
from tests.cluster.helpers import holders_of, paused

MODULE = '''
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glintpy.functions import Changing, Reading


@dataclass(frozen=True)
class Between(Reading):
    """The keys of rows whose first cell lies between two numbers."""

    low: float
    high: float

    def read(self, piece):
        first = piece.matrix[:, 0]
        return (np.flatnonzero((first >= self.low) & (first < self.high)),)

    def combine(self, asking, answers):
        return np.sort(np.concatenate([asking.keys(ask.positions)[found] for ask, (found,) in answers]))


@dataclass(frozen=True)
class Normalise(Changing):
    """Divides each row by its sum, times a number for each row."""

    takes = ("factors",)
    by_row = ("factors",)

    def change(self, values, arrays):
        return values / values.sum(1, keepdims=True) * arrays[0][:, np.newaxis].astype(values.dtype)


@dataclass(frozen=True)
class SlotSum(Reading):
    """The sum of a slot."""

    slot: str

    def read(self, piece):
        return (np.array([piece.slot(self.slot).sum()], np.float64),)

    def combine(self, asking, answers):
        return sum(float(found[0]) for _, (found,) in answers)


@dataclass(frozen=True)
class Wrong(Reading):
    """Does what it is told, and nothing of it is right."""

    what: str

    def read(self, piece):
        if self.what == "exit":
            raise SystemExit(3)
        if self.what == "write":
            piece.values[:] = 7
        if self.what == "raise":
            raise ZeroDivisionError("by nothing")
        return {
            "no tuple": piece.values,
            "four arrays": (piece.values,) * 4,
            "a list": ([1, 2],),
            "complex": (np.zeros(2, complex),),
            "three dimensions": (np.zeros((1, 1, 1)),),
            "no dimension": (np.zeros(()),),
            "big-endian": (np.zeros(2, ">f8"),),
            "too much": (np.zeros(2**22 + 1),),
        }[self.what]

    def combine(self, asking, answers):
        raise AssertionError("nothing comes back")


@dataclass(frozen=True)
class WrongAtHome(Reading):
    """Fails at the client's."""

    def read(self, piece):
        return ()

    def combine(self, asking, answers):
        if len(answers) == 1:
            raise SystemExit(3)
        raise ZeroDivisionError("by nothing")


@dataclass(frozen=True)
class WrongChange(Changing):
    """Makes what can't be the values."""

    what: str

    def change(self, values, arrays):
        values[...] = 7
        if self.what == "raise":
            raise ZeroDivisionError("by nothing")
        return {"shape": values[:1], "dtype": values.astype("float64"), "list": [1]}[self.what]
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module, where this process and those that it starts can import it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_functions.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder))
        yield importlib.import_module("my_functions")
    sys.modules.pop("my_functions", None)


@pytest.fixture(scope="module")
def cluster(own: Any) -> Iterator[LocalCluster]:
    with LocalCluster(2, allow=[own.__name__]) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as client:
        yield client


# --- functions of one's own -----------------------------------------------------------------------------------


def test_a_class_in_a_module_becomes_a_function_where_servers_allow_it(own: Any, client: Client) -> None:
    with client.matrix(50, 4, dtype="float32", partitioner="cyclic", updater="adagrad") as matrix:
        matrix.fill(1)
        matrix.fill(5, rows=[7, 31, 32])
        assert matrix.call(own.Between(4, 6)).result().tolist() == [7, 31, 32]
        assert functions.bring(own.Between) == "my_functions.Between"
        assert matrix.call("my_functions.Between", low=4, high=6, rows=[1, 32, 7]).result().tolist() == [
            7,
            32,
        ]
        factors = np.arange(50.0)
        matrix.call(own.Normalise(), factors).result()
        np.testing.assert_allclose(matrix.sum(1).result(), factors, rtol=1e-6)
        matrix.push([3, 48], 2.0)
        (slot,) = matrix.slots
        held = matrix.pull_slot(slot).result().sum()
        assert matrix.call(own.SlotSum(slot)).result() == pytest.approx(float(held))
        with pytest.raises(ConfigError, match="keeps no slot 'speed'"):
            matrix.call(own.SlotSum("speed")).result()
        with pytest.raises(ShapeError, match=r"factors has shape \(2,\) for 50 rows"):
            matrix.call(own.Normalise(), [1.0, 2.0])
        with pytest.raises(ShapeError, match="1 rows are named twice, with factors for each"):
            matrix.call(own.Normalise(), [1.0, 2.0, 3.0], rows=[1, 2, 1])
        with pytest.raises(ConfigError, match="has its numbers already"):
            matrix.call(own.Between(1, 2), low=1)


WRONG = {
    "exit": "SystemExit",
    "write": "read-only",
    "raise": "ZeroDivisionError: by nothing",
    "no tuple": "a tuple of at most 3 arrays, not ndarray",
    "four arrays": "a tuple of at most 3 arrays",
    "a list": "not list",
    "complex": "not complex128",
    "three dimensions": r"\(1, 1, 1\)",
    "no dimension": r"not float64 \(\)",
    "big-endian": "not >f8",
    "too much": "33554440 bytes; 16777216 travel",
}


def test_a_function_that_does_wrong_fails_alone(own: Any, client: Client) -> None:
    with client.vector(10, dtype="float32", init=2) as vector:
        for what, message in WRONG.items():
            with pytest.raises(RemoteFailure, match=message):
                vector.call(own.Wrong(what)).result()
        for what, message in {"shape": "float32 .1,. of", "dtype": "float64", "list": "list"}.items():
            with pytest.raises(Exception, match=message):
                vector.call(own.WrongChange(what)).result()
        with pytest.raises(Exception, match="ZeroDivisionError"):
            vector.call(own.WrongChange("raise")).result()
        with pytest.raises(ZeroDivisionError):
            vector.call(own.WrongAtHome()).result()
        with pytest.raises(SystemExit):
            vector.call(own.WrongAtHome(), rows=1).result()
        assert vector.pull().result().tolist() == [2] * 10
        assert {server["state"] for server in client.servers()} == {"alive"}


def test_a_server_that_was_not_told_imports_nothing(own: Any) -> None:
    with LocalCluster(1) as cluster, cluster.client() as client, client.vector(10) as vector:
        with pytest.raises(ConfigError, match=r"glintpy server --allow my_functions"):
            vector.call(own.Between(0, 1)).result()
        with pytest.raises(Exception, match=r"glintpy server --allow my_functions"):
            vector.call(own.WrongChange("list")).result()
        assert vector.sum().result() == 0


# --- through kills --------------------------------------------------------------------------------------------


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process cut models of 20,000 cells into a hundred parts and more."""
    monkeypatch.setattr(config, "PART_BYTES", 1024)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("durability", "kills"), [("process", (0, 1)), ("disk", (1,))])
def test_a_change_goes_on_where_a_killed_server_was_and_counts_once(
    durability: config.Durability, kills: tuple[int, ...], tmp_path: Path
) -> None:
    with LocalCluster(2, data_dir=tmp_path) as cluster, cluster.client() as client:
        vector = client.vector(20_001, init=1, durability=durability)
        assert vector.sum().result() == 20_001
        expected = np.ones(20_001)
        for index in kills:
            with paused(cluster.servers[index].pid):
                # Some of it arrives, and none of it is answered, before the kill.
                futures = [vector.scale(2), vector.push(None, 1), vector.scale(2, rows=slice(0, None, 2))]
            waiting = vector.sum()
            cluster.kill_server(index)
            cluster.restart_server(index)
            expected = 2 * expected + 1
            expected[::2] *= 2
            assert waiting.result() == expected.sum()
            assert [future.result() for future in futures] == [None] * 3
            np.testing.assert_array_equal(vector.pull().result(), expected)


@pytest.mark.usefixtures("small_parts")
def test_what_a_change_left_undone_is_told(tmp_path: Path) -> None:
    with LocalCluster(2, data_dir=tmp_path) as cluster, cluster.client() as client:
        vector = client.vector(2_000, init=1)
        assert vector.sum().result() == 2_000
        lost = cluster.servers[holders_of(vector, cluster)[0]]
        with paused(lost.pid):
            change = vector.with_options(timeout_s=1.5).scale(2)
            with pytest.raises(
                PushOutcomeUnknown, match=r"function 'scale' of .* some parts may be in"
            ) as caught:
                change.result()
        counts = caught.value.parts
        assert counts is not None
        assert len(counts) == 2
        assert [count["applied"] > 0 for address, count in counts.items() if address != lost.address] == [
            True
        ]
        assert counts[lost.address]["unknown"] > 0
        # What was given up is passed over, so each part is in once or not at all.
        assert set(vector.pull().result().tolist()) <= {1.0, 2.0}


def test_what_is_under_way_when_the_client_ends_fails(cluster: LocalCluster) -> None:
    client = cluster.client()
    vector = client.vector(2_000, init=1)
    assert vector.sum().result() == 2_000
    with paused(cluster.servers[0].pid), paused(cluster.servers[1].pid):
        waiting = [vector.sum(), vector.dot([0], [1999]), vector.sample(3)]
        client.close()
        assert [future.done() for future in waiting] == [True] * 3
    for future in waiting:
        assert future.exception() is not None
