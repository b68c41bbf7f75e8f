"""Updaters of one's own: a class in a module, which servers import only from where they were told to."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glintpy import LocalCluster
from glintpy.errors import ConfigError, DTypeError, PushRefused
from glintpy.updaters import schedules
from tests.cluster.helpers import PATIENCE_S

MODULE = '''
from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from glintpy.updaters import Slot, Updater


@dataclass(frozen=True)
class Signed(Updater):
    """Steps by the sign of a mean of gradients."""

    slots: ClassVar = (Slot("mean"),)
    learning_rate: float = 0.5

    def rates(self, steps):
        return (self.learning_rate,)

    def update(self, values, deltas, slots, rates, numbers):
        mean = (slots[0] + deltas) / 2
        return values - rates[0] * np.sign(mean), mean


@dataclass(frozen=True)
class Wrong(Signed):
    how: str = "no tuple"

    def update(self, values, deltas, slots, rates, numbers):
        new, mean = super().update(values, deltas, slots, rates, numbers)
        return {
            "no tuple": new,
            "no slot": (new,),
            "narrow": (new[:, :1], mean),
            "complex": (new * 1j, mean),
            "list": [new, mean],
        }[self.how]


@dataclass(frozen=True)
class Leaving(Signed):
    where: str = "update"

    def prepare(self, deltas):
        return self.leave("prepare", deltas)

    def update(self, values, deltas, slots, rates, numbers):
        return self.leave("update", super().update(values, deltas, slots, rates, numbers), deltas)

    def leave(self, where, result, deltas=None):
        if where == self.where and ((result if deltas is None else deltas) < 0).any():
            sys.exit(3)
        return result
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, where this process and those that it starts can import it."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    (tmp_path / "my_package" / "updating.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield importlib.import_module("my_package.updating")
    for name in ("my_package.updating", "my_package"):
        sys.modules.pop(name, None)


def test_what_a_formula_returns_is_looked_at_before_it_is_stored(own: Any) -> None:
    with (
        LocalCluster(1, scheme="local", allow=["my_package.updating"]) as cluster,
        cluster.client() as client,
    ):
        for how, said in (
            (
                "no tuple",
                r"returned ndarray; update returns a tuple \(values, mean\) of 2 arrays of shape \(2, 2\)",
            ),
            ("no slot", r"returned float64 \(2, 2\); "),
            ("narrow", r"returned float64 \(2, 1\), float64 \(2, 2\); "),
            ("complex", r"returned complex128 \(2, 2\), float64 \(2, 2\); .* that float64 holds"),
        ):
            with client.matrix(4, 2, updater=own.Wrong(how=how)) as m:
                with pytest.raises(PushRefused, match=r"updater 'my_package.updating.Wrong' " + said):
                    m.push([1, 2], [[1, 2], [30, 40]]).result()
                assert not m.pull().result().any()
                assert not m.pull_slot("mean").result().any()
        with client.matrix(4, 2, updater=own.Wrong(how="list")) as m:
            m.push([1, 2], 1.0).result()
            assert m.pull_slot("mean").result()[:, 0].tolist() == [0, 0.5, 0.5, 0]


@pytest.mark.parametrize("where", ["update", "prepare"])
def test_an_updater_that_would_end_the_server_ends_its_push(own: Any, where: str, tmp_path: Path) -> None:
    with (
        LocalCluster(1, scheme="local", allow=["my_package.updating"], data_dir=tmp_path / "kept") as cluster,
        cluster.client(timeout_s=PATIENCE_S) as client,
    ):
        m = client.matrix(4, 2, updater=own.Leaving(where=where))
        # The second entry of a cell is taken in a round of its own: the first one is in by then, and taken back.
        with pytest.raises(PushRefused, match=r"'my_package.updating.Leaving' ended by SystemExit\(3\)"):
            m.push([1, 2, 1], [[1, 1], [1, 1], [-1, -9]]).result()
        m.push([3], 1.0).result()
        assert m.pull().result()[:, 0].tolist() == [0, 0, 0, -0.5]
        assert m.pull_slot("mean").result()[:, 0].tolist() == [0, 0, 0, 0.5]


def test_a_class_without_a_name_is_called_by_its_path(own: Any) -> None:
    updater = own.Signed()
    assert updater.name == "my_package.updating.Signed"
    with pytest.raises(DTypeError, match=r"updater 'my_package.updating.Signed' computes with fractions"):
        updater.check_dtype(np.dtype("int32"))
    with pytest.raises(ConfigError, match=r"'my_package.updating.Signed' has no number 'lr'"):
        updater.configured(lr=0.1)
    with pytest.raises(ConfigError, match=r"'my_package.updating.Signed' was made without a schedule"):
        updater.configured(learning_rate=schedules.Constant(1.0))


def test_a_class_in_a_module_becomes_an_updater_where_servers_allow_it(own: Any, tmp_path: Path) -> None:
    updater = own.Signed(learning_rate=0.25)
    kept = tmp_path / "kept"
    with LocalCluster(2, allow=["my_package.updating"], data_dir=kept) as cluster, cluster.client() as client:
        m = client.matrix(10, 3, dtype="float32", updater=updater, name="signed")
        m.push([1, 9, 1], 1.0).result()
        assert m.pull([1, 9]).result().tolist() == [[-0.25] * 3] * 2
        assert m.pull_slot("mean", [1, 9]).result().tolist() == [[1.0] * 3, [0.5] * 3]
        cluster.kill_server(0)
        cluster.restart_server(0)
        m.push([1], -4.0).result()
        assert m.pull(1).result().tolist() == [0.0] * 3
        m.save(str(tmp_path / "saved"))
        with client.load(str(tmp_path / "saved"), name="again") as loaded:
            assert loaded.updater == updater
            np.testing.assert_array_equal(np.asarray(loaded), np.asarray(m))


def test_a_server_that_was_not_told_imports_nothing(own: Any) -> None:
    with LocalCluster(1) as cluster, cluster.client() as client:
        with pytest.raises(ConfigError, match=r"glintpy server --allow my_package\.updating"):
            client.vector(10, updater=own.Signed(), name="signed")
        assert client.models() == []
        client.vector(10).push([1], 1).result()
