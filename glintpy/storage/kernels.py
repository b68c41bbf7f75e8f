"""Gather and scatter of a server's models, compiled where that pays; the only importer of numba, knows no thread.

numpy's ways are always there (``numpy_kernels``). ``Kernels.prepare`` compiles the loops for one dtype, in steps
that whoever has a thread to spare takes, and puts them in numpy's place when they are done. Both give the same
bits, so nobody can tell when. numba costs 0.2 to 0.4 s to import and 125 MB (two thirds of them pages of LLVM's
file), so it is imported by that method only: neither by an import of this module nor inside a request.

What pays was measured, see ``docs/decisions/performance.md``: adding anything but slices; reading many single
cells; every other updater's formula. Whole rows are read as fast by numpy's ``take``, and slices are numpy's own.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import stat
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from glintpy.protocol.dtypes import DTypeAny
from glintpy.protocol.selection import Selection
from glintpy.storage import loops
from glintpy.storage.compiled import (
    INDEX_MAX,
    Gather,
    Saving,
    Scatter,
    Ways,
    can_save,
    gather_of_matrices,
    gather_of_vectors,
    prove,
    prove_update,
    saving_of_matrices,
    saving_of_vectors,
    scatter_of_matrices,
    scatter_of_vectors,
)
from glintpy.storage.numpy_kernels import Array, assign, gather, scatter_add
from glintpy.updaters import Add, Updater, arithmetic_dtype
from glintpy.updaters.base import Loop

if sys.platform != "win32":
    import fcntl

__all__ = [
    "COMPILED_BYTES_MIN",
    "Gather",
    "Kernels",
    "Scatter",
    "assign",
    "gather",
    "kernels_of",
    "scatter_add",
]

logger = logging.getLogger("glintpy.storage")

Steps = Generator[bool, None, None]

COMPILED_BYTES_MIN = 256 * 1024
"""Smaller shards stay with numpy: they fit into a core's caches, and their requests are few cells each."""

_TURNS_MAX = 600
"""How often another process's turn is waited for, at 50 ms each; it needs about one second."""

_LOCK_NAME = "glintpy-loops.lock"


class Kernels:
    """How values of one dtype and number of dimensions are read and changed.

    Attributes:
        gather: copies what is selected, see ``numpy_kernels.gather``.
        scatter: adds, see ``numpy_kernels.scatter_add``.
        update_loop: the loop of another updater, see ``Updater.loop``; None: it computes with its formula.
        wants_preparing: there are loops to compile, and they are not.
    """

    def __init__(
        self,
        dtype: DTypeAny,
        ndim: int,
        updater: Updater,
        *,
        compilable: bool = False,
        add: loops.Loops = loops.ADD,
    ) -> None:
        """Start with numpy's ways.

        Args:
            dtype: of the values.
            ndim: 1 for vectors, 2 for matrices.
            updater: how pushes are applied; with any numbers.
            compilable: whether there is anything to compile; False: numpy's ways for good.
            add: the loops of the updater ``add``.
        """
        self.dtype = dtype
        self.ndim = ndim
        self.gather: Gather = gather
        self.scatter: Scatter = scatter_add
        self.update_loop: Loop | None = None
        self._saving: Saving | None = None
        self._updater = updater
        self._add = add
        self.wants_preparing = compilable

    def saving_of(self, selection: Selection) -> Saving | None:
        """Return what adds to a selection and writes down what it changes in one pass; None: it takes two.

        Args:
            selection: checked.
        """
        return self._saving if self._saving is not None and can_save(selection, self.ndim) else None

    def prepare(self) -> Steps:
        """Compile the loops and put them in numpy's place, a step at a time.

        Whatever goes wrong is logged, and numpy's ways stay. Nothing is left behind by a caller that doesn't
        take all steps.

        Yields:
            Whether the step got something done; False: another process is at it, wait a little.
        """
        if not self.wants_preparing:
            return
        what = f"{self.dtype.name} {'vectors' if self.ndim == 1 else 'matrices'} under {self._updater.name!r}"
        try:
            ways, update_loop = yield from self._compile()
        except ImportError as error:
            self.wants_preparing = False
            _log_missing(str(error))
        except Exception as error:  # noqa: BLE001 - numba's errors share no class, and numpy does the work too
            self.wants_preparing = False
            logger.warning(
                "server: %s stay with numpy, numba failed: %s: %s", what, type(error).__name__, error
            )
        else:
            self.gather, self.scatter, self._saving = ways
            self.update_loop = update_loop
            self.wants_preparing = False
            logger.info("server: the compiled loops of %s are ready", what)

    def _compile(self) -> Generator[bool, None, _Compiled]:
        import numba  # noqa: PLC0415 - not before a model wants it: see the module's docstring

        if getattr(numba.config, "DISABLE_JIT", 0):
            raise ImportError("NUMBA_DISABLE_JIT is set")
        yield True
        try:
            return (yield from self._compile_with(numba, on_disk=True))
        except Exception as error:  # noqa: BLE001 - a full disk, no folder to write to, a damaged file
            logger.info("server: compiles without a cache on disk: %s: %s", type(error).__name__, error)
        return (yield from self._compile_with(numba, on_disk=False))

    def _compile_with(self, numba: Any, *, on_disk: bool) -> Generator[bool, None, _Compiled]:
        _teach_order()
        compiler = _Compiler(numba, self.dtype, on_disk=on_disk)
        loop = None if type(self._updater) is Add else self._updater.loop
        # One process at a time: numba numbers the files of its cache without a lock, so that two could give
        # one number to two signatures. Whoever comes second finds the first one's work.
        with contextlib.ExitStack() as stack:
            if on_disk:
                for folder in sorted({compiler.folder(each) for each in (self._add.keys, loop) if each}):
                    _check_trusted(Path(folder))
                    lock = yield from _take_turn(Path(folder))
                    stack.callback(lock.release)
            ways = yield from self._ways(compiler)
            compiled = None if loop is None else compiler.compile_update(loop, len(self._updater.slots))
        prove(ways, Ways(gather, scatter_add), dtype=self.dtype, ndim=self.ndim)
        if compiled is not None:
            prove_update(compiled, self._updater, self.dtype)
        return ways, compiled

    def _ways(self, compiler: _Compiler) -> Generator[bool, None, Ways]:
        changed_by = self._add if type(self._updater) is Add else None
        if self.ndim == 1:
            take = compiler.compile(loops.take_keys, values=1, axes=1, entries=1)
            yield True
            if changed_by is None:
                return Ways(gather_of_vectors(take), scatter_add)
            change = compiler.compile(changed_by.keys, values=1, axes=1, entries=1, changes=True)
            yield True
            saving = compiler.compile(
                changed_by.keys_saving, values=1, axes=1, entries=1, changes=True, saves=True
            )
            return Ways(
                gather_of_vectors(take),
                scatter_of_vectors(change, reference=scatter_add),
                saving_of_vectors(saving),
            )
        take_pairs = compiler.compile(loops.take_pairs, values=2, axes=2, entries=1)
        yield True
        take_grid = compiler.compile(loops.take_grid, values=2, axes=2, entries=2)
        yield True
        taken = gather_of_matrices(pairs=take_pairs, grid=take_grid)
        if changed_by is None:
            return Ways(taken, scatter_add)
        rows = compiler.compile(changed_by.rows, values=2, axes=1, entries=2, changes=True)
        yield True
        pairs = compiler.compile(changed_by.pairs, values=2, axes=2, entries=1, changes=True)
        yield True
        grid = compiler.compile(changed_by.grid, values=2, axes=2, entries=2, changes=True)
        yield True
        saving = compiler.compile(
            changed_by.pairs_saving, values=2, axes=2, entries=1, changes=True, saves=True
        )
        changed = scatter_of_matrices(rows=rows, pairs=pairs, grid=grid, reference=scatter_add)
        return Ways(taken, changed, saving_of_matrices(saving))


_Compiled = tuple[Ways, Loop | None]


def kernels_of(values: Array, updater: Updater) -> Kernels:
    """Return how an array's values are read and changed; big ones of a kind share it.

    Args:
        values: (num_rows, num_cols) or (num_rows,), C-contiguous.
        updater: how pushes are applied.
    """
    # numba has no arithmetic of float16 outside GPUs.
    fits = values.dtype != np.float16 and values.dtype.isnative and max(values.shape) < INDEX_MAX
    is_formula = type(updater) is not Add and updater.loop is None
    if not fits or values.nbytes < COMPILED_BYTES_MIN or is_formula:
        return Kernels(values.dtype, values.ndim, updater)
    kind = (values.dtype.name, values.ndim, type(updater))
    # Both of two threads that come at once get the one that is kept.
    return _SHARED.setdefault(kind, Kernels(values.dtype, values.ndim, updater, compilable=True))


_SHARED: dict[tuple[str, int, type[Updater]], Kernels] = {}
"""The kernels of big models: the loops of a kind are compiled once a process."""

_missing: set[str] = set()


def _log_missing(reason: str) -> None:
    if reason not in _missing:
        _missing.add(reason)
        logger.info("server: stays with numpy, whose loops take up to five times as long: %s", reason)


# --- numba ----------------------------------------------------------------------------------------------------


class _Compiler:
    """Compiles loops for one dtype, each by one explicit signature, so that no call ever compiles."""

    def __init__(self, numba: Any, dtype: DTypeAny, *, on_disk: bool) -> None:
        self._numba = numba
        self._dtype = dtype
        self._on_disk = on_disk

    def _jit(self, loop: loops.Loop, **options: Any) -> Any:
        # No fastmath: sums are numpy's, bit for bit. The GIL is let go of, for long pushes and a second server.
        return self._numba.njit(nogil=True, cache=self._on_disk, **options)(loop)

    def folder(self, loop: loops.Loop) -> str:
        """Return where numba keeps what it compiles of a loop."""
        return str(self._jit(loop).stats.cache_path)

    def compile(
        self,
        loop: loops.Loop,
        *,
        values: int,
        axes: int,
        entries: int,
        changes: bool = False,
        saves: bool = False,
    ) -> loops.Loop:
        """Compile one loop.

        Args:
            loop: ``loop(values, *axes, entries)``.
            values: dimensions of the values.
            axes: how many index arrays there are.
            entries: dimensions of the deltas, or of what is taken.
            changes: it changes the values; False: it reads them into the entries.
            saves: it has two more arguments, see ``loops.add_keys_saving``.
        """
        item = self._numba.from_dtype(self._dtype)
        signature = self._numba.void(
            self._array(item, values, written=changes),
            *[self._array(self._numba.uint32, 1)] * axes,
            self._array(item, entries, written=not changes),
            *(
                [self._array(item, 1, written=True), self._array(self._numba.uint64, 1, written=True)]
                if saves
                else []
            ),
        )
        return self._compiled(self._jit(loop), signature)

    def compile_update(self, loop: Loop, num_slots: int) -> Loop:
        """Compile the loop of an updater.

        Args:
            loop: ``loop(values, *slots, starts, width, deltas, rates, numbers)``.
            num_slots: how many slots there are.
        """
        numba = self._numba
        item, computed_in = numba.from_dtype(self._dtype), numba.from_dtype(arithmetic_dtype(self._dtype))
        signature = numba.void(
            self._array(item, 1, written=True),
            *[self._array(computed_in, 1, written=True)] * num_slots,
            self._array(numba.int64, 1),
            numba.int64,
            self._array(item, 1),
            self._array(computed_in, 2),
            self._array(computed_in, 1),
        )
        # Numbers are divided as numpy divides them, by zero too.
        return self._compiled(self._jit(loop, error_model="numpy"), signature)

    @staticmethod
    def _compiled(dispatcher: Any, signature: Any) -> Loop:
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        compiled: Loop = dispatcher
        return compiled

    def _array(self, item: Any, ndim: int, *, written: bool = False) -> Any:
        # What arrives in messages is read-only and lies at any address; arrays that are better fit, too.
        return self._numba.types.Array(item, ndim, "C", readonly=not written, aligned=False)


@functools.cache
def _teach_order() -> None:
    """Tell numba what ``loops.in_order`` means."""
    from numba import extending, types  # noqa: PLC0415 - as in Kernels

    @extending.intrinsic
    def fence(_: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
            # For the compiler only: the processor lets no instruction of a killed process be seen without those before.
            builder.fence("seq_cst", "singlethread")
            return context.get_dummy_value()

        return types.void(), generate

    @extending.overload(loops.in_order)
    def in_order() -> Any:
        return lambda: fence()  # type: ignore[call-arg]  # noqa: PLW0108 - numba wants a function of Python's


class _Turn:
    """The right to write into a folder of numba's."""

    def __init__(self, path: Path) -> None:
        if sys.platform == "win32":
            raise OSError("files can't be locked here")
        self._file = path.open("ab")

    def is_mine(self) -> bool:
        if sys.platform == "win32":
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        if sys.platform != "win32":
            # Not by closing alone: a child forked meanwhile has the file open, too.
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


def _check_trusted(folder: Path) -> None:
    """Refuse a folder that strangers may write to: numba unpickles what lies there, and a pickle can be any program.

    Raises:
        PermissionError: its owner is neither root, nor this process's user, nor whoever owns the package, or
            everybody may write to it.
    """
    if sys.platform == "win32":
        return
    status, trusted = folder.stat(), {0, os.geteuid(), Path(__file__).stat().st_uid}
    if status.st_uid not in trusted or status.st_mode & stat.S_IWOTH:
        raise PermissionError(f"others may write to {folder}, and numba runs what lies there")


def _take_turn(folder: Path) -> Generator[bool, None, _Turn]:
    turn = _Turn(folder / _LOCK_NAME)
    with contextlib.ExitStack() as stack:
        stack.callback(turn.release)
        for _ in range(_TURNS_MAX):
            if turn.is_mine():
                stack.pop_all()
                return turn
            yield False
    raise TimeoutError(f"another process has been compiling into {folder} for too long")
