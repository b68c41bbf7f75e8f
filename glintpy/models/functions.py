"""Functions on servers as users call them; knows no message and no socket."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glintpy import functions
from glintpy.errors import ConfigError, DTypeError, ShapeError
from glintpy.functions import Changing, Function, Reading, Selected
from glintpy.models.asking import Cutting
from glintpy.models.calling import ChangingCall, ReadingCall
from glintpy.models.indexing import Keys, parse_pull
from glintpy.models.values import as_array, parse_values

if TYPE_CHECKING:
    from glintpy.futures import Future
    from glintpy.models.dispatch import Target
    from glintpy.protocol.spec import ModelSpec
    from glintpy.ties import Tie

Rows = ArrayLike | slice | None


class HasFunctions:
    """What matrices and vectors can have computed where their values lie.

    Functions that read see every push that this client issued before. A large model is read in pieces of about 2 MiB:
    each is one moment, and between them others' pushes may come. Each method returns a future, and can raise, before
    anything is sent, ``ShapeError``, ``DTypeError``, ``KeyRangeError`` and ``ConfigError``. The futures of those that
    read raise what those of ``pull`` do, of those that change what those of ``push`` do.

    ``rows`` is everywhere as in ``pull``: None for all. A row that is named twice is read twice, and changed once. Of a
    vector they are its keys, and each is a row of one cell.
    """

    _tie: Tie
    _spec: ModelSpec
    _target: Target

    if TYPE_CHECKING:

        def _check_exists(self) -> None:
            """Refuse a model that was destroyed."""

        def _wait_for_others(self) -> None:
            """Let a read go when no worker of the group is too far behind."""

    def call(
        self,
        function: str | Function,
        *arrays: ArrayLike,
        rows: Rows = None,
        other: HasFunctions | None = None,
        **numbers: Any,
    ) -> Future[Any]:
        """Have the servers run a function on some rows, or on all.

        A function that changes values is a push: each part of it is applied exactly once, and after a server's restart
        the rest goes on. Over more than one part it is not atomic: others see it half done, and a failure may leave it
        so.

        Args:
            function: the name of a built-in one, the import path of one that was given to ``functions.bring``, or a
                function with its numbers.
            arrays: its arguments, in the order of its ``takes``.
            rows: which rows it runs on.
            other: a second model of the same cluster, for functions of two.
            numbers: its numbers, by name.

        Returns:
            A future of what the function says; None if it changes values.

        Raises:
            ConfigError: no such function or number, or a model of another cluster.
            ShapeError, DTypeError, KeyRangeError: arguments or rows that don't fit.
            ModelNotFound: it was destroyed through this handle.

        The future raises:
            ModelNotFound, ModelLost, ServerLost: of the servers.
            RemoteFailure, ConfigError: the function failed there, or isn't allowed.
            PullFailed: the deadline passed, of a function that reads.
            PushRefused, PushOutcomeUnknown: of one that changes; see ``BigMatrix.push``.

        Threads:
            Safe from any thread; waits only for other workers, as ``pull`` does under ``consistency="ssp(k)"``.
        """
        self._check_exists()
        found = function_of(function, numbers)
        keys = self._keys_of(rows)
        if isinstance(found, Changing):
            keys = _each_once(found, keys)
        second = None if other is None else self._second(other)
        selected = _selected(self._target, keys, _selected(second or self._target))
        given = tuple(as_array(array, what=f"array {number}") for number, array in enumerate(arrays))
        found.check_takes(selected, given)
        prepared = found.prepare(selected, given)
        for name, array in zip(found.takes, prepared, strict=True):
            if array.dtype.kind not in "biuf" or array.ndim not in {1, 2}:
                raise DTypeError(
                    f"{name} is {array.dtype} of shape {array.shape}; one or two dimensions travel"
                )
        runtime = self._tie.runtime()
        cutting = Cutting(found, self._target, keys, selected, prepared, other=second)
        if isinstance(found, Reading):
            self._wait_for_others()
            return ReadingCall(runtime, self._target, second, found, cutting).start()
        assert isinstance(found, Changing), "a function reads or changes"
        return ChangingCall(runtime, self._target, second, found, cutting).start()

    # --- reading --------------------------------------------------------------------------------------------------

    def sum(self, axis: int | None = None, *, rows: Rows = None) -> Future[Any]:
        """Add up all cells, each column (``axis=0``) or each row (``axis=1``).

        In int64 (of unsigned integers uint64), where it wraps, or in float64. Of nothing it is 0.
        """
        return self.call("sum", rows=rows, axis=axis)

    def mean(self, axis: int | None = None, *, rows: Rows = None) -> Future[Any]:
        """Return the mean of all cells, each column or each row, in float64; of nothing it is NaN."""
        return self.call("mean", rows=rows, axis=axis)

    def min(self, axis: int | None = None, *, rows: Rows = None) -> Future[Any]:
        """Return the least of all cells, of each column or of each row; NaN where there is one."""
        return self.call("min", rows=rows, axis=axis)

    def max(self, axis: int | None = None, *, rows: Rows = None) -> Future[Any]:
        """Return the largest of all cells, of each column or of each row; NaN where there is one."""
        return self.call("max", rows=rows, axis=axis)

    def argmax(self, *, rows: Rows = None) -> Future[Any]:
        """Return where the largest cell stands, counted row by row as numpy does; of equal ones the first."""
        return self.call("argmax", rows=rows)

    def count_nonzero(self, axis: int | None = None, *, rows: Rows = None) -> Future[Any]:
        """Count the cells that are not 0: all, of each column or of each row."""
        return self.call("count_nonzero", rows=rows, axis=axis)

    def histogram(
        self, bins: int = 10, *, low: float, high: float, rows: Rows = None
    ) -> Future[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Count the cells in bins of equal width between two limits, as ``np.histogram`` does.

        Args:
            bins: how many.
            low: where the first one begins.
            high: where the last one ends, itself included.
            rows: as everywhere.

        Returns:
            A future of (bins,) counts and (bins + 1,) edges. Cells outside, and NaNs, are in none.
        """
        return self.call("histogram", rows=rows, bins=bins, low=low, high=high)

    def norms(self, *, rows: Rows = None) -> Future[NDArray[np.float64]]:
        """Return the Euclidean norm of each row, (n,) in float64."""
        return self.call("norms", rows=rows)

    def dot(self, rows_a: Rows, rows_b: ArrayLike, other: HasFunctions | None = None) -> Future[NDArray[Any]]:
        """Multiply pairs of rows.

        Pairs whose rows lie on one server are multiplied there. Of the others one side's rows travel, or both, whatever
        are fewer; so models that are to be multiplied should be partitioned alike.

        Args:
            rows_a: (n,) rows of this model.
            rows_b: (n,) integers: the row to go with each of them.
            other: the model that ``rows_b`` are of; None: this one.

        Returns:
            A future of (n,) products in float64, of integers in int64 (uint64 if both are unsigned), where they wrap.
        """
        return self.call("dot", rows_b, rows=rows_a, other=other)

    def top_k(
        self,
        query: ArrayLike,
        k: int = 10,
        *,
        metric: Literal["dot", "cosine"] = "dot",
        rows: Rows = None,
    ) -> Future[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Find the rows that are nearest to a vector.

        Args:
            query: (num_cols,) numbers.
            k: how many rows, at most 65,536.
            metric: by the product with the row, or by the cosine of the angle (0 for rows of zeros).
            rows: among which.

        Returns:
            A future of (k,) rows and (k,) scores, the best first; fewer if there are fewer rows. Of equal scores the
            row that stands first is the better one; NaN is the worst.
        """
        return self.call("top_k", query, rows=rows, k=k, metric=metric)

    def sample(
        self, n: int, *, seed: int | None = None, power: float = 1.0, rows: Rows = None
    ) -> Future[NDArray[np.int64]]:
        """Draw rows with repeats, each as likely as its weight to a power says.

        The weight of a vector's entry is its value, that of a matrix's row its Euclidean norm.

        Args:
            n: how many, at most 1,048,576.
            seed: the same one draws the same rows from the same values on the same servers; None: another each time.
            power: 0: all rows whose weight isn't 0 are equally likely; 0.75 is what word2vec draws negatives with.
            rows: among which.

        Returns:
            A future of (n,) rows.

        The future raises:
            ModelError: a weight that is negative, NaN or infinite, or none above 0.
        """
        chosen = secrets.randbits(62) if seed is None else seed
        return self.call("sample", rows=rows, n=n, seed=chosen, power=power)

    # --- changing -------------------------------------------------------------------------------------------------

    def scale(self, by: float, *, rows: Rows = None) -> Future[None]:
        """Multiply cells by a number, each exactly once.

        A push in parts of about 2 MiB: not atomic over several, see ``call``. Integers take whole numbers, and wrap.
        What the updater keeps beside the values stays as it is.
        """
        return self.call("scale", rows=rows, by=by)

    def fill(self, value: float, *, rows: Rows = None) -> Future[None]:
        """Store a number in cells; as ``scale`` otherwise."""
        return self.call("fill", rows=rows, value=value)

    def put(self, values: ArrayLike, *, rows: Rows = None) -> Future[None]:
        """Store values in cells, whatever the updater makes of pushes; as ``scale`` otherwise.

        Args:
            values: (n, num_cols), of a vector (n,), or what broadcasts to that; numbers that the dtype can hold, as of
                ``push``.
            rows: as everywhere, but none twice.
        """
        keys, spec = self._keys_of(rows), self._spec
        shape = (len(keys),) if spec.num_cols is None else (len(keys), spec.num_cols)
        given = parse_values(values, shape=shape, dtype=self._target.dtype, finite=spec.finite)
        return self.call("put", given, rows=rows)

    def clip(self, low: float | None = None, high: float | None = None, *, rows: Rows = None) -> Future[None]:
        """Bring cells between two limits; NaN stays. As ``scale`` otherwise.

        Args:
            low: what is below becomes this; None: nothing is too low.
            high: what is above becomes this; None: nothing is too high.
            rows: as everywhere.
        """
        return self.call("clip", rows=rows, low=low, high=high)

    # --- for all of them ------------------------------------------------------------------------------------------

    def _keys_of(self, rows: Any) -> Keys:
        asked = parse_pull(rows, None, num_rows=self._spec.num_rows, num_cols=self._spec.num_cols)
        keys = asked.rows
        if asked.flip_rows and isinstance(keys, range):
            return np.arange(keys.start, keys.stop, keys.step, dtype=np.int64)[::-1].copy()
        return keys

    def _second(self, other: HasFunctions) -> Target:
        if not isinstance(other, HasFunctions):
            raise ConfigError(f"other is a model, not a {type(other).__name__}")
        other._check_exists()
        if other._tie.address != self._tie.address:
            raise ConfigError(f"the other model lies on another cluster, that of {other._tie.address}")
        return other._target


def _selected(target: Target, keys: Keys | None = None, other: Selected | None = None) -> Selected:
    """Return what a function may know of some rows of a model; None: of all."""
    spec = target.info.spec
    whole = keys is None or (isinstance(keys, range) and keys == range(spec.num_rows))
    return Selected(
        spec.num_rows if keys is None else len(keys),
        spec.num_cols,
        spec.numpy_dtype,
        spec.finite,
        other,
        target.layout.interleaved if whole else 0,
    )


def _each_once(function: Changing, keys: Keys) -> Keys:
    """Return keys without repeats: within one part a row would be changed once, over two parts twice."""
    if isinstance(keys, range):
        return keys
    once = np.unique(keys)
    if len(once) == len(keys):
        return keys
    if function.by_row:
        raise ShapeError(
            f"{len(keys) - len(once)} rows are named twice, with {', '.join(function.by_row)} for each"
        )
    return once


def function_of(function: str | Function, numbers: dict[str, Any]) -> Function:
    """Return the function that was asked for.

    Args:
        function: its name, or itself.
        numbers: its numbers, if it is a name.

    Raises:
        ConfigError: there is no such function or number.
    """
    if isinstance(function, str):
        return functions.named(function, numbers)
    if not isinstance(function, Function):
        raise ConfigError(f"a function is a name or an instance of Function, not a {type(function).__name__}")
    if numbers:
        raise ConfigError(f"{function!r} has its numbers already; {sorted(numbers)} came with it")
    functions.name_of(function)  # whether servers could import it
    return function
