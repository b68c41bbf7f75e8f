"""Small requests in any order and over several models equal numpy to the bit, travelling together or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import glintpy
from glintpy.models.bundles import Bundle
from tests.holding import WAIT_S, still_client
from tests.models.bundling import COLS, ROWS, Pair, a_pair, two_servers

Array = NDArray[Any]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "pull", "pull", "push_pull", "large", "wait", "flush"]),
        st.integers(0, 2),  # which handle
        st.sampled_from(["rows", "rows", "single", "slice", "elements", "columns"]),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=60,
)


class Mirror:
    """Two models by three handles, and the arrays that they must equal, to the bit."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        again = pair.client.open(pair.matrix.name)
        self._handles: list[Any] = [pair.matrix, pair.vector, again]
        self.arrays: list[Array] = [np.zeros((ROWS, COLS), np.float32), np.zeros(ROWS, np.int64)]
        self.arrays.append(self.arrays[0])
        self._open: list[tuple[glintpy.Future[Any], Array | None]] = []

    def step(self, what: str, which: int, form: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        handle, array = self._handles[which], self.arrays[which]
        if what == "wait":
            if self._open:
                self._check(*self._open.pop(int(rng.integers(len(self._open)))))
            return
        if what == "flush":
            handle.flush()
            return
        rows, cols = self._selection(form, rng, large=what == "large", is_vector=array.ndim == 1)
        of_rows: Any = slice(None) if rows is None else rows
        index: Any = of_rows if cols is None else (of_rows, cols)
        named = {} if cols is None else {"cols": cols}
        if what == "pull":
            self._open.append((handle.pull(rows, **named), array[index].copy()))
            return
        shape = array[index].shape
        # Sums of such numbers depend on the order in which they are added.
        values = (
            rng.standard_normal(shape).astype(array.dtype)
            if array.dtype.kind == "f"
            else rng.integers(-99, 99, shape)
        )
        if what == "push_pull":
            np.add.at(array, index, values)
            self._open.append((handle.push_pull(rows, values, **named), array[index].copy()))
            return
        np.add.at(array, index, values)
        self._open.append((handle.push(rows, values, **named), None))
        if isinstance(values, np.ndarray):
            values[...] = 77

    def _selection(
        self, form: str, rng: np.random.Generator, *, large: bool, is_vector: bool
    ) -> tuple[Any, Any]:
        size = 3000 if large else int(rng.integers(1, 6))
        rows = rng.integers(0, ROWS, size)
        if form == "slice":
            first = int(rng.integers(0, ROWS - 1))
            stop, step = int(rng.integers(first + 1, ROWS)), int(rng.integers(1, 4))
            return slice(first, stop, step) if rng.integers(2) else slice(stop, first, -step), None
        if form == "single" and not large:
            return int(rows[0]), None
        if is_vector or form in {"rows", "single"}:
            return rows, None
        if form == "columns":
            return None, [int(rng.integers(COLS))]
        return rows, rng.integers(0, COLS, size)

    def finish(self) -> None:
        for future, expected in self._open:
            self._check(future, expected)
        for handle, array in zip(self._handles, self.arrays, strict=True):
            same(handle.pull().result(), array)
        self._handles[0].push(None, -self.arrays[0]).result()
        self._handles[1].push(None, -self.arrays[1]).result()

    def _check(self, future: glintpy.Future[Any], expected: Array | None) -> None:
        found = future.result()
        if expected is None:
            assert found is None
        else:
            same(found, expected)


def same(found: Any, expected: Array) -> None:
    assert np.shape(found) == expected.shape
    assert np.asarray(found).dtype == expected.dtype
    assert np.asarray(found).tobytes() == expected.tobytes()


@pytest.fixture(scope="module", params=["quiet", "still"])
def mirrored(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A pair for all examples: with a network's thread that comes by, and with one that doesn't."""
    with pytest.MonkeyPatch.context() as monkeypatch, two_servers() as (address, servers):
        if request.param == "still":
            with (
                still_client(monkeypatch, lambda: glintpy.Client(address, timeout_s=WAIT_S)) as client,
                a_pair(client, servers) as pair,
            ):
                yield pair
        else:
            with glintpy.Client(address, timeout_s=WAIT_S) as client, a_pair(client, servers) as pair:
                yield pair


@settings(max_examples=60)
@given(steps=STEPS, is_held=st.booleans())
def test_any_interleaving_equals_numpy_to_the_bit(mirrored: Pair, steps: list[Any], is_held: bool) -> None:
    mirror = Mirror(mirrored)
    if is_held and not any(what in {"wait", "flush"} for what, *_ in steps):
        with mirrored.held() as gate:
            for step in steps:
                mirror.step(*step)
            gate.open()
            mirror.finish()
        return
    for step in steps:
        mirror.step(*step)
    mirror.finish()


def test_bundles_are_what_is_tested_here(monkeypatch: pytest.MonkeyPatch) -> None:
    # Steps must make bundles of several requests, or all of the above has shown nothing.
    sizes: list[int] = []
    join = Bundle.join

    def noting(self: Bundle, *arguments: Any) -> Any:
        sizes.append(len(self._members) + 1)
        return join(self, *arguments)

    monkeypatch.setattr(Bundle, "join", noting)
    with (
        two_servers() as (address, servers),
        still_client(monkeypatch, lambda: glintpy.Client(address, timeout_s=WAIT_S)) as client,
        a_pair(client, servers) as pair,
    ):
        mirror = Mirror(pair)
        with pair.held() as gate:
            for seed in range(40):
                mirror.step("push" if seed % 10 else "pull", seed // 10 % 3, "rows", seed)
            gate.open()
            mirror.finish()
    assert max(sizes) >= 8
