"""Compiled loops give numpy's bits, are there only for big models, and never get in anybody's way."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glintpy.protocol.selection import Selection, axis_indices, slices_of
from glintpy.protocol.spec import ModelSpec
from glintpy.storage import compiled, kernels, loops
from glintpy.storage.kernels import COMPILED_BYTES_MIN, Kernels, kernels_of
from glintpy.storage.shard import Shard
from glintpy.updaters import Add
from tests.cluster.helpers import until
from tests.unit.kernel_cases import DTYPES, Array, bits, cases, is_compiled, prepared, ready

ROOT = Path(__file__).parents[2]


def new_kernels(dtype: str = "float32", ndim: int = 1, add: loops.Loops = loops.ADD) -> Kernels:
    return Kernels(np.dtype(dtype), ndim, Add(), compilable=True, add=add)


@pytest.fixture
def numba(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """numba, with an empty cache."""
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"), raising=False)
    return numba


# --- the same bits ----------------------------------------------------------------------------------------


FEW = ("float32", "float64", "int64", "uint8", "bool")
"""What is compiled in each run of the tests, some seconds each; the others differ by their width alone."""


@pytest.mark.parametrize(
    "dtype",
    [pytest.param(dtype, marks=[] if dtype.name in FEW else [pytest.mark.soak]) for dtype in DTYPES],
    ids=str,
)
@settings(max_examples=40)
@given(data=st.data())
def test_compiled_loops_give_the_bits_that_numpy_gives(dtype: np.dtype[Any], data: st.DataObject) -> None:
    values, selection, deltas = data.draw(cases(dtype, exact=False))
    found = ready(dtype, values.ndim)
    out = np.empty_like(deltas)
    assert found.gather(values, selection, out) is out
    assert bits(out) == bits(kernels.gather(values, selection))
    assert bits(found.gather(values, selection, None)) == bits(out)
    expected = values.copy()
    kernels.scatter_add(expected, selection, deltas)
    found.scatter(values, selection, deltas)
    assert bits(values) == bits(expected)


PLAIN_VECTORS = compiled.Ways(
    compiled.gather_of_vectors(loops.take_keys),
    compiled.scatter_of_vectors(loops.add_keys, reference=kernels.scatter_add),
)
PLAIN_MATRICES = compiled.Ways(
    compiled.gather_of_matrices(pairs=loops.take_pairs, grid=loops.take_grid),
    compiled.scatter_of_matrices(
        rows=loops.add_rows, pairs=loops.add_pairs, grid=loops.add_grid, reference=kernels.scatter_add
    ),
)


@given(cases(exact=False))
def test_the_loops_as_plain_python_give_them_too(case: tuple[Array, Selection, Array]) -> None:
    values, selection, deltas = case
    plain = PLAIN_VECTORS if values.ndim == 1 else PLAIN_MATRICES
    assert bits(plain.gather(values, selection, None)) == bits(kernels.gather(values, selection))
    expected = values.copy()
    kernels.scatter_add(expected, selection, deltas)
    with np.errstate(all="ignore"):
        plain.scatter(values, selection, deltas)
    assert bits(values) == bits(expected)


@pytest.mark.parametrize("size", [127, 128, 1000])
@pytest.mark.parametrize("index", ["<u4", "<i8"])
@pytest.mark.parametrize("kind", ["rows", "pairs", "grid", "keys", "slices by indices"])
def test_many_of_a_kind_are_read_and_added_in_order(seed: int, size: int, index: str, kind: str) -> None:
    random = np.random.default_rng(seed)
    rows = random.integers(0, 50, size).astype(index)
    cols = random.integers(0, 20, size).astype(index)
    selection = {
        "rows": Selection(rows),
        "keys": Selection(rows),
        "pairs": Selection(rows, cols, paired=True),
        "grid": Selection(rows, cols[:5]),
        "slices by indices": Selection(slices_of((0, 50, 3), (2, 9, 1)), cols),
    }[kind]
    num_cols = None if kind == "keys" else 20
    values = random.normal(size=(50,) if num_cols is None else (50, 20)).astype(np.float32)
    deltas = random.normal(size=selection.shape(num_cols)).astype(np.float32)
    found = ready(values.dtype, values.ndim)
    expected = values.copy()
    # One after the other in numpy's own float32: what any other order or width of sums would not give.
    cells = np.arange(values.size).reshape(values.shape)
    flat = kernels.gather(cells, selection).reshape(-1)
    assert bits(found.gather(values, selection, None)) == bits(values.reshape(-1)[flat].reshape(deltas.shape))
    for cell, delta in zip(flat.tolist(), deltas.reshape(-1), strict=True):
        expected.reshape(-1)[cell] += delta
    found.scatter(values, selection, deltas)
    assert bits(values) == bits(expected)


def test_arrays_of_any_layout_and_address_are_taken() -> None:
    values = np.zeros((6, 4), np.float32)
    found = ready(values.dtype, 2)
    rows, cols = np.arange(12, dtype=np.uint32)[::2] % 6, np.arange(12, dtype=np.int64)[::-2] % 4
    deltas = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(6, 4))
    odd = np.frombuffer(b"\x00" * 3 + deltas.tobytes(), np.float32, offset=3).reshape(6, 4)
    expected = values.copy()
    for selection, entries in [
        (Selection(rows), deltas),
        (Selection(rows), odd),
        (Selection(rows, cols, paired=True), np.arange(12, dtype=np.float32)[::2]),
        (Selection(rows, cols), np.zeros((12, 6), np.float32)[::2]),
    ]:
        found.scatter(values, selection, entries)
        kernels.scatter_add(expected, selection, entries)
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(
            found.gather(values, selection, None), kernels.gather(values, selection)
        )


def test_a_swap_in_mid_stream_cannot_be_seen(seed: int) -> None:
    random = np.random.default_rng(seed)
    spec = ModelSpec("m", 700, 128, "float32")
    plain, swapped = (Shard(1, spec, 1, np.zeros((700, 128), np.float32)) for _ in range(2))
    plain.kernels = Kernels(spec.numpy_dtype, 2, Add())
    swapped.kernels = new_kernels("float32", 2)
    steps = swapped.kernels.prepare()
    for _ in range(20):
        until(lambda: next(steps, True), "the other's turn ends")
        selection = Selection(random.integers(0, 700, 200).astype(np.uint32))
        deltas = random.normal(size=(200, 128)).astype(np.float32)
        plain.push(selection, deltas)
        swapped.push(selection, deltas)
        assert bits(plain.pull(selection)) == bits(swapped.pull(selection))
    assert is_compiled(swapped.kernels)


# --- for whom ---------------------------------------------------------------------------------------------


def test_big_models_of_a_kind_share_their_loops_and_small_ones_have_none() -> None:
    big = kernels_of(np.zeros((COMPILED_BYTES_MIN // 16, 4), np.int32), Add())
    same = kernels_of(np.zeros((COMPILED_BYTES_MIN, 1), np.int32), Add())
    vector = kernels_of(np.zeros(COMPILED_BYTES_MIN, np.int32), Add())
    small = kernels_of(np.zeros((COMPILED_BYTES_MIN // 16 - 1, 4), np.int32), Add())
    assert big is same
    assert vector is not big
    assert big.wants_preparing
    assert not small.wants_preparing


@pytest.mark.parametrize("shape", [(2**32,), (2**32, 1), (1, 2**32)])
def test_arrays_that_uint32_cannot_index_stay_with_numpy(shape: tuple[int, ...]) -> None:
    huge = np.broadcast_to(np.zeros((), np.int8), shape)
    assert not kernels_of(huge, Add()).wants_preparing


def test_what_numba_cannot_add_stays_with_numpy() -> None:
    for values in (np.zeros(10**6, np.float16), np.zeros(10**6, ">f4")):
        found = kernels_of(values, Add())
        assert list(found.prepare()) == []
        assert not is_compiled(found)


UNUSED = """
import sys
import numpy as np
import glintpy, glintpy.nodes.server, glintpy.client
from glintpy.actors import preparing
from glintpy.actors.shelf import Shelf
from glintpy.protocol.selection import Selection
from glintpy.protocol.spec import ModelSpec
shelf = Shelf(None)
spec = ModelSpec("m", 100, 4, "float32")
list(shelf.create(1, spec, routing=1, num_rows=100, extents=np.empty((0, 4), np.int64), slice_cells=1000))
shelf.shard(1).push(Selection(np.array([1])), np.ones((1, 4), np.float32))
assert not preparing._preparing.is_busy
assert "numba" not in sys.modules, "numba was imported"
"""


def test_a_server_without_big_models_never_imports_numba() -> None:
    subprocess.run([sys.executable, "-c", UNUSED], check=True, timeout=60, cwd=ROOT)


# --- whatever goes wrong, numpy stays ------------------------------------------------------------------------


def test_without_numba_numpy_stays_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "glintpy.storage")
    monkeypatch.setattr(kernels, "_missing", set())
    monkeypatch.setitem(sys.modules, "numba", None)
    for _ in range(2):
        found = prepared(new_kernels())
        assert not is_compiled(found)
        assert not found.wants_preparing
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "stays with numpy" in caplog.text
    assert "numba" in caplog.text


def test_where_numba_is_told_not_to_compile_numpy_stays(
    monkeypatch: pytest.MonkeyPatch, numba: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "glintpy.storage")
    monkeypatch.setattr(kernels, "_missing", set())
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert not is_compiled(prepared(new_kernels()))
    assert "NUMBA_DISABLE_JIT" in caplog.text


def add_too_much(values: Array, keys: Array, deltas: Array) -> None:
    for i in range(keys.size):
        values[keys[i]] += deltas[i] + deltas[i]


def cannot_be_compiled(values: Array, keys: Array, deltas: Array) -> None:
    values[keys[0]] = {"no": "such type"}[deltas[0]]


@pytest.mark.parametrize(
    ("loop", "reason"), [(add_too_much, "doesn't give what numpy gives"), (cannot_be_compiled, "Error")]
)
@pytest.mark.usefixtures("numba")
def test_a_loop_that_fails_or_gives_other_numbers_is_not_used(
    caplog: pytest.LogCaptureFixture, loop: loops.Loop, reason: str
) -> None:
    found = prepared(new_kernels(add=loops.ADD._replace(keys=loop)))
    assert not is_compiled(found)
    assert not found.wants_preparing
    assert "float32 vectors under 'add' stay with numpy" in caplog.text
    assert reason in caplog.text


# --- the cache on disk ------------------------------------------------------------------------------------


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.nbc"))


@pytest.mark.usefixtures("numba")
def test_what_was_compiled_once_is_found_on_disk(tmp_path: Path) -> None:
    assert is_compiled(prepared(new_kernels()))
    first = [(path, path.stat().st_mtime_ns) for path in cached(tmp_path)]
    assert len(first) == 3
    assert is_compiled(prepared(new_kernels()))
    assert [(path, path.stat().st_mtime_ns) for path in cached(tmp_path)] == first
    assert is_compiled(prepared(new_kernels("int16")))
    assert len(cached(tmp_path)) == 6


@pytest.mark.usefixtures("numba")
def test_a_damaged_cache_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "glintpy.storage")
    prepared(new_kernels())
    for path in cached(tmp_path):
        path.write_bytes(b"\x00" * 100)
    assert is_compiled(prepared(new_kernels()))
    assert "without a cache on disk" in caplog.text


@pytest.mark.usefixtures("numba")
def test_files_that_were_exchanged_are_noticed(tmp_path: Path) -> None:
    # What two processes without a lock can do to each other: one signature's code under the other's number.
    prepared(new_kernels("float32"))
    prepared(new_kernels("int32"))
    by_loop: dict[str, list[Path]] = {}
    for path in cached(tmp_path):
        by_loop.setdefault(path.name.split("-")[0], []).append(path)
    for first, second in by_loop.values():
        kept = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(kept)
    found = prepared(new_kernels("float32"))
    values = np.array([1.5, 2.5], np.float32)
    found.scatter(values, Selection(np.array([0, 0])), np.array([0.25, 0.25], np.float32))
    assert values.tolist() == [2.0, 2.5]


@pytest.fixture
def locked(numba: ModuleType, tmp_path: Path) -> Iterator[int]:
    """The lock of the cache, held as by another process."""
    folder = Path(str(numba.njit(cache=True)(loops.add_keys).stats.cache_path))
    assert folder.is_relative_to(tmp_path)
    descriptor = os.open(folder / kernels._LOCK_NAME, os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield descriptor
    os.close(descriptor)


def test_while_another_process_compiles_this_one_waits_its_turn(locked: int) -> None:
    found = new_kernels()
    steps = found.prepare()
    assert next(steps)  # the import
    assert [next(steps) for _ in range(3)] == [False] * 3
    fcntl.flock(locked, fcntl.LOCK_UN)
    assert next(steps)
    with pytest.raises(BlockingIOError):
        fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert all(steps)
    assert is_compiled(found)
    fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it was let go of


def test_a_caller_that_leaves_midway_leaves_no_lock(locked: int) -> None:
    fcntl.flock(locked, fcntl.LOCK_UN)
    found = new_kernels()
    steps = found.prepare()
    assert next(steps)
    assert next(steps)
    steps.close()
    fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not is_compiled(found)
    assert found.wants_preparing


def test_nobody_is_waited_for_for_ever(
    locked: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    del locked
    caplog.set_level(logging.INFO, "glintpy.storage")
    monkeypatch.setattr(kernels, "_TURNS_MAX", 3)
    found = new_kernels()
    assert list(found.prepare()).count(False) == 3
    assert is_compiled(found)
    assert "without a cache on disk: TimeoutError" in caplog.text
    assert cached(tmp_path) == []


PREPARES = """
import sys
import numpy as np
from glintpy.storage import kernels
from glintpy.updaters import Add
found = kernels.Kernels(np.dtype("float64"), 2, Add(), compilable=True)
print("begins", kernels.__file__, flush=True)
sys.stdin.readline()
assert len(list(found.prepare())) > 2
assert found.gather is not kernels.gather, "not compiled"
"""


def start_preparing(folder: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PREPARES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,  # where a program given as text looks for modules first
        env={**os.environ, **environment},
    )


def test_two_processes_that_compile_at_once_both_get_their_loops(tmp_path: Path) -> None:
    both = [start_preparing(NUMBA_CACHE_DIR=str(tmp_path / "cache")) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("begins")
    for process in both:
        process.communicate("now\n", timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    assert len(cached(tmp_path)) == 6


def test_where_no_folder_can_be_written_to_loops_are_compiled_all_the_same(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "glintpy", tmp_path / "glintpy", ignore=shutil.ignore_patterns("__pycache__"))
    # Files where folders should be: nobody, not even root, can write into them.
    (tmp_path / "glintpy" / "storage" / "__pycache__").touch()
    (tmp_path / "file").touch()
    process = start_preparing(
        tmp_path,
        PYTHONDONTWRITEBYTECODE="1",
        HOME=str(tmp_path / "file"),
        XDG_CACHE_HOME=str(tmp_path / "file"),
        NUMBA_CACHE_DIR=str(tmp_path / "file"),
    )
    told, _ = process.communicate("now\n", timeout=60)
    assert told == f"begins {tmp_path / 'glintpy' / 'storage' / 'kernels.py'}\n"
    assert process.returncode == 0
    assert not list(tmp_path.rglob("*.nbc"))


def test_indices_are_written_out_once() -> None:
    assert compiled._indices(slices_of((1, 8, 3))).tolist() == axis_indices(slices_of((1, 8, 3))).tolist()
    rows = np.arange(5, dtype=np.uint32)
    assert compiled._indices(rows) is rows
