"""One model on one server: pull, push, and the moments that saves read; no thread, socket or clock.

Everything is checked before the first write, so that an exception leaves the values as they were: a bad
index or a bad number is its sender's problem and nobody else's. Where values outlive their process, the old
ones are written down first, so that a process may be killed in the middle of a push.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from glintpy import config, failpoints
from glintpy.errors import ConfigError, DTypeError, ModelError, RemoteProtocolError, ShapeError
from glintpy.protocol.rounds import STEP, Turn
from glintpy.protocol.selection import Selection
from glintpy.protocol.spec import numbers_text
from glintpy.storage import kernels
from glintpy.storage.arrays import arrays_of, kept_arrays
from glintpy.storage.cut import Moment
from glintpy.storage.deltas import check_finite, halves_of
from glintpy.storage.gathering import Ending, Gathering, together
from glintpy.storage.updating import Updating
from glintpy.updaters import Add, Updater, named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from glintpy.protocol.spec import ModelSpec
    from glintpy.storage.undo import Pending, Undo

NOBODY = bytes(16)
"""The session of what no client pushed: none has it, so none has a receipt of it."""


class Shard:
    """The rows of one model that lie on this server.

    Attributes:
        model_id: the model's, never used again.
        spec: what was asked for when the model was made.
        routing: the version under which requests name this server's rows.
        values: (num_rows, num_cols), or (num_rows,) for a vector, C-contiguous, of the model's dtype.
        arrays: the values, and what the updater keeps beside them, see ``storage.arrays``.
        updater: the rule by which pushes are applied.
        numbers_version: how often the updater's numbers have been changed; given by the master.
        round_version: of the last step that has ended, since the process began; given by the master.
        live: a bit for each rank of the group whose pushes a round with a tag waits for; 0: not known yet.
        live_version: of these, as of the step.
        cuts: the moments that are being read, by their ids.
        kernels: how the values are read and changed; may be prepared to be faster.
        undo: where old values are written down; None: the values go with their process.
    """

    def __init__(
        self,
        model_id: int,
        spec: ModelSpec,
        routing: int,
        values: NDArray[Any],
        *,
        slots: Sequence[NDArray[Any]] = (),
        updater: Updater | None = None,
        undo: Undo | None = None,
    ) -> None:
        """Put a model over arrays.

        Args:
            model_id: the model's.
            spec: what was asked for.
            routing: its version.
            values: the first array.
            slots: the others, in order.
            updater: the spec's; None: one of those that come with the package.
            undo: of the server whose files the arrays lie in.

        Raises:
            ShapeError, DTypeError: arrays that can't be the model's.
        """
        updater = named(spec.updater, spec.numbers) if updater is None else updater
        if values.ndim == 0 or values.shape[1:] != spec.row_shape:
            raise ShapeError(f"rows of shape {spec.row_shape} don't lie in an array of shape {values.shape}")
        if values.dtype != spec.numpy_dtype:
            raise DTypeError(f"a model of {spec.dtype} doesn't lie in an array of {values.dtype.name}")
        if not values.flags.c_contiguous or not values.flags.writeable:
            raise ShapeError("a shard's array is C-contiguous and can be written to")
        self.model_id = model_id
        self.spec = spec
        self.routing = routing
        self.updater = updater
        self.numbers_version = 0
        self.undo = undo
        self.cuts: dict[int, Moment] = {}
        self._bind(values, slots)
        # Of a model that follows a group, pushes change only the last arrays until their round ends.
        self._gathering = Gathering(*self.arrays[len(self._kept) :]) if spec.group else None
        self.round_version = 0
        self.live = self.live_version = 0
        self._dtypes = [array.dtype for array in self.arrays]
        found = [(array.dtype, array.shape[1:]) for array in self.arrays]
        if found != [(array.dtype, array.row_shape) for array in arrays_of(spec, updater)]:
            raise ShapeError(
                f"model {spec.name!r} has other arrays under updater {spec.updater!r} than {found}"
            )
        # What each request asks for, so that none has to ask the spec for it.
        self._num_cols = spec.num_cols
        self._dtype = values.dtype
        self._checks_finite = spec.finite and spec.numpy_dtype.kind == "f"

    def _bind(self, values: NDArray[Any], others: Sequence[NDArray[Any]]) -> None:
        """Take these arrays for the model's."""
        self.values = values
        self.arrays = (values, *others)
        self._num_rows = int(values.shape[0])
        self.kernels = kernels.kernels_of(values, self.updater)
        # The others are for open rounds, or are a table's keys.
        self._kept = self.arrays[: len(kept_arrays(self.spec, self.updater))]
        # A table that tracks its rows keeps more than its updater does.
        own = self._kept[: 1 + len(self.updater.slot_names)]
        self._updating = None if type(self.updater) is Add else Updating(self.updater, own, self.kernels)

    def configure(self, updater: Updater, version: int) -> None:
        """Apply pushes by other numbers from now on.

        Args:
            updater: with the slots that there are.
            version: of the numbers.

        Raises:
            ConfigError: it has other slots.
        """
        self.updater.check_slots(updater)
        self.spec = replace(self.spec, updater_numbers=numbers_text(updater.to_content()))
        self.updater, self.numbers_version = updater, version
        if self._updating is not None:
            self._updating.updater = updater

    @property
    def num_rows(self) -> int:
        """This server's rows."""
        return self._num_rows

    @property
    def num_bytes(self) -> int:
        """Bytes of this server's values and of what its updater keeps."""
        return sum(int(array.nbytes) for array in self.arrays)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the array that has the widest ones."""
        widths: list[int] = [array.dtype.itemsize * math.prod(array.shape[1:]) for array in self.arrays]
        return max(widths)

    def check_pull(self, selection: Selection, bytes_max: int | None, *, array: int = 0) -> tuple[int, ...]:
        """Return the shape of what a selection would read.

        Args:
            selection: server rows.
            bytes_max: what an answer can carry; None: anything.
            array: which of the model's.

        Raises:
            KeyRangeError, ShapeError: a selection that doesn't fit, or no such array.
            RemoteProtocolError: it reads more.
        """
        shape = self._check(selection, array)
        if bytes_max is not None:
            num_bytes = self._dtypes[array].itemsize
            for length in shape:
                num_bytes *= length
            if num_bytes > bytes_max:
                raise RemoteProtocolError(
                    f"a part asks for {num_bytes} bytes, more than {bytes_max}; ask in parts of {config.PART_BYTES}"
                )
        return shape

    def pull(
        self,
        selection: Selection,
        *,
        array: int = 0,
        out: NDArray[Any] | None = None,
        bytes_max: int | None = None,
    ) -> NDArray[Any]:
        """Copy what is selected.

        Args:
            selection: server rows.
            array: which of the model's; 0 its values.
            bytes_max: refuse to read more; see ``check_pull``.
            out: C-contiguous, of the selection's shape and the array's dtype, to be overwritten, so that its
                memory is used again; None: a new array is made.

        Returns:
            ``out``, or a new C-contiguous array, of the selection's shape; a later push doesn't change it.

        Raises:
            KeyRangeError, ShapeError: a selection that doesn't fit, or an ``out`` that doesn't fit it.
            RemoteProtocolError: a selection of more than ``bytes_max``.
            DTypeError: an ``out`` of another dtype.
        """
        shape = self.check_pull(selection, bytes_max, array=array)
        if out is not None:
            self._check_fits(out, shape, array)
            if not out.flags.c_contiguous or not out.flags.writeable:
                raise ShapeError("an array to pull into is C-contiguous and can be written to")
        return self._gather(self.arrays[array], selection, out)

    def check_push(
        self,
        selection: Selection,
        deltas: NDArray[Any],
        *,
        assign: bool,
        array: int = 0,
        turn: Turn = STEP,
    ) -> tuple[int, ...]:
        """Return the shape of what a push would change.

        Args:
            selection: as of ``push``.
            deltas: as of ``push``.
            assign: as of ``push``.
            array: as of ``push``.
            turn: as of ``push``.

        Raises:
            KeyRangeError, ShapeError, DTypeError, ConfigError: it would be refused.
        """
        shape = self._check(selection, array)
        self._check_fits(deltas, shape, array)
        if array and not assign:
            raise ShapeError(
                "only the values can be pushed to; what an updater keeps beside them can be assigned"
            )
        if self._checks_finite and not assign:
            check_finite(deltas, self.spec.name)
        if self._gathering is not None and not assign:
            self._gathering.check(selection, turn)
        elif turn.tag:
            raise ConfigError(
                f"model {self.spec.name!r} gathers nothing, so no push to it belongs to a round"
            )
        return shape

    def push(
        self,
        selection: Selection,
        deltas: NDArray[Any],
        *,
        assign: bool = False,
        array: int = 0,
        turn: Turn = STEP,
    ) -> range:
        """Apply values to what is selected, or gather them for the open round; all or, by an exception, none.

        Args:
            selection: server rows; repeats all count.
            deltas: of the selection's shape and the model's dtype.
            assign: store the values as they are, whatever the updater. Then ``spec.finite`` is not asked:
                what a finite model held when it was saved may have overflowed, and must load again.
            array: which of the model's arrays; other than 0 only with ``assign``.
            turn: of a model that follows a group: to which round it belongs; ends rounds to which it is the last one.

        Returns:
            Rows among which are all whose round has ended by it.

        Raises:
            KeyRangeError, ShapeError: a selection that doesn't fit, or values that don't fit it.
            DTypeError: values of another dtype, or NaN and infinities for a model that refuses them.
            ConfigError: rows that are in another round.
            MemoryError: no room for a cut's copy of what this push would change, or for its undo record.
        """
        shape = self.check_push(selection, deltas, assign=assign, array=array, turn=turn)
        if self._gathering is not None and not assign:
            return self._push_gathered(self._gathering, selection, shape, deltas, turn)
        if not assign and self._add_saving(selection, shape, deltas):
            return range(0)
        # What an updater keeps beside the values changes with them.
        self._remember(selection, shape, range(array, array + 1) if assign else range(len(self.arrays)))
        self._apply(selection, deltas, assign_to=array if assign else None)
        return range(0)

    def _apply(self, selection: Selection, deltas: NDArray[Any], *, assign_to: int | None) -> None:
        # Cells of one row are one step of it: such a push has no halves.
        has_halves = assign_to is not None or not (selection.paired and self.updater.counts_steps)
        if failpoints.is_armed("push.half_applied") and has_halves:
            # With a place in the middle where a drill may strike.
            first, second = halves_of(selection, deltas)
            self._change(*first, assign_to=assign_to)
            failpoints.hit("push.half_applied")
            self._change(*second, assign_to=assign_to)
        else:
            self._change(selection, deltas, assign_to=assign_to)
        failpoints.hit("push.applied")

    # --- rounds -----------------------------------------------------------------------------------------------

    def is_open(self, selection: Selection, turn: Turn) -> bool:
        """Whether a worker's round still waits for others in some of these rows."""
        return self._gathering is not None and self._gathering.is_open(selection, turn)

    def pieces_of_round(self, ending: Ending) -> Iterator[tuple[int, int]]:
        """Yield the ranges of rows in which rounds are to be ended, one after the other."""
        if self._gathering is not None:
            yield from self._gathering.pieces(max(1, config.PART_BYTES // max(1, self.row_bytes)), ending)

    def end_round(self, first: int, stop: int, ending: Ending) -> None:
        """Apply what some rows have gathered, each row once; all of them or, by an exception, none.

        Again does nothing, unless they were pushed to meanwhile; nor does it where nothing is gathered.

        Args:
            first: the first row.
            stop: the row behind the last one.
            ending: which of their rounds are to end.

        Raises:
            MemoryError: as of ``push``.
        """
        gathering = self._gathering
        rows = np.empty(0, np.int64) if gathering is None else gathering.ending(first, stop, ending)
        if gathering is None or not rows.size:
            return
        selection = together(rows)
        if self.undo is not None:
            self.undo.begin(NOBODY, 0)
        self._remember(selection, (rows.size, *self.spec.row_shape), range(len(self.arrays) - 1))
        self._apply_gathered(gathering, selection, gathering.sums_of(selection))
        if self.undo is not None:
            self.undo.clear()

    def _push_gathered(
        self,
        gathering: Gathering,
        selection: Selection,
        shape: tuple[int, ...],
        deltas: NDArray[Any],
        turn: Turn,
    ) -> range:
        closing = gathering.closing(selection, turn, self.live)
        # Last of the arrays are who pushed and to which round, and then the sums.
        kept, sums = len(self._kept), len(self.arrays) - 1
        total = gathering.total(selection, deltas, closing) if closing.size else None
        if total is not None:
            self._remember(selection, shape, range(sums))
            failpoints.hit("push.half_applied")
            self._apply_gathered(gathering, selection, total)
        elif not closing.size and gathering.is_fresh(selection):
            self._tell_cuts(selection, range(sums, sums + 1))
            self._remember(selection, shape, range(kept, sums))
            gathering.store(selection, deltas, turn)
            failpoints.hit("push.half_applied")
        else:
            self._remember(selection, shape, range(0 if closing.size else kept, sums + 1))
            gathering.add(selection, deltas, self.kernels, turn)
            failpoints.hit("push.half_applied")
            if closing.size:
                ending = together(closing)
                self._apply_gathered(gathering, ending, gathering.sums_of(ending))
        failpoints.hit("push.applied")
        return range(int(closing[0]), int(closing[-1]) + 1) if closing.size else range(0)

    def _apply_gathered(self, gathering: Gathering, selection: Selection, sums: NDArray[Any]) -> None:
        if self._updating is None:
            self.kernels.scatter(self.values, selection, sums)
        else:
            self._updating.apply(selection, sums)
        failpoints.hit("round.half_applied")
        gathering.clear(selection)
        failpoints.hit("round.applied")

    def _remember(self, selection: Selection, shape: tuple[int, ...], changes: range) -> None:
        """Keep what is about to change, for the moments that are read and for who opens the files after a kill.

        Args:
            selection: checked.
            shape: of what it selects of the values.
            changes: the arrays that change.
        """
        self._tell_cuts(selection, changes)
        undo = self.undo
        if undo is None:
            return
        failpoints.hit("push.before_undo")
        kinds = [(shape if self._is_wide(index) else shape[:1], self._dtypes[index]) for index in changes]
        places = undo.room(self.model_id, selection, kinds, first_array=changes.start)
        for index, place in zip(changes, places, strict=True):
            self._gather(self.arrays[index], self._within(selection, index), place)
        failpoints.hit("push.undo_written")
        undo.arm()
        failpoints.hit("push.flag_set")

    def _add_saving(self, selection: Selection, shape: tuple[int, ...], deltas: NDArray[Any]) -> bool:
        """Add to single cells, writing down each one's old value just before it changes; False: it takes two passes."""
        undo, saving = self.undo, self.kernels.saving_of(selection)
        if undo is None or saving is None or len(self.arrays) > 1 or failpoints.is_armed("push.half_applied"):
            return False
        self._tell_cuts(selection, range(1))
        failpoints.hit("push.before_undo")
        (old,) = undo.room(self.model_id, selection, [(shape, self._dtype)])
        saved = undo.saved()
        failpoints.hit("push.undo_written")
        undo.arm()
        failpoints.hit("push.flag_set")
        saving(self.values, selection, deltas, old, saved)
        failpoints.hit("push.applied")
        return True

    def _tell_cuts(self, selection: Selection, changes: range) -> None:
        for cut in self.cuts.values():
            cut.before_push(selection, changes)

    def _change(self, selection: Selection, deltas: NDArray[Any], *, assign_to: int | None) -> None:
        if assign_to is not None:
            kernels.assign(self.arrays[assign_to], selection, deltas)
        elif self._updating is None:
            self.kernels.scatter(self.values, selection, deltas)
        else:
            self._updating.apply(selection, deltas)

    def put_back(self, pending: Pending) -> None:
        """Undo a push that was under way; again does no harm.

        Args:
            pending: what the undo record of this server holds, and of this model.

        Raises:
            KeyRangeError, ShapeError, ValueError: a record that doesn't fit this model.
        """
        changes = range(pending.first_array, pending.first_array + pending.num_arrays)
        selections = [self._within(pending.selection, index) for index in changes]
        kinds = [
            (self._check(selection, index), self._dtypes[index])
            for index, selection in zip(changes, selections, strict=True)
        ]
        for index, selection, old in zip(changes, selections, pending.values(kinds), strict=True):
            kernels.assign(self.arrays[index], selection, old)

    def _is_wide(self, array: int) -> bool:
        """Whether one of the arrays has what the values have for each row, rather than one number."""
        return self.arrays[array].ndim == self.values.ndim

    def _within(self, selection: Selection, array: int) -> Selection:
        """Return what a selection of the values is in one of the arrays."""
        if selection.cols is None or self._is_wide(array):
            return selection
        return Selection(selection.rows)

    def _gather(self, array: NDArray[Any], selection: Selection, out: NDArray[Any] | None) -> NDArray[Any]:
        # The compiled ways are for the values' dtype and number of dimensions.
        same = array.dtype == self._dtype and array.ndim == self.values.ndim
        return (self.kernels.gather if same else kernels.gather)(array, selection, out)

    def _check(self, selection: Selection, array: int) -> tuple[int, ...]:
        """Return the shape of a selection of one of the arrays.

        Raises:
            KeyRangeError, ShapeError: it doesn't fit, or there is no such array.
        """
        if array >= len(self.arrays):
            raise ShapeError(f"model {self.spec.name!r} has {len(self.arrays)} arrays, and no number {array}")
        return selection.check(self._num_rows, self._num_cols if self._is_wide(array) else None)

    def _check_fits(self, given: NDArray[Any], shape: tuple[int, ...], array: int) -> None:
        if given.shape != shape:
            raise ShapeError(f"values of shape {given.shape} for a selection of shape {shape}")
        dtype = self._dtypes[array]
        if given.dtype != dtype:
            raise DTypeError(f"values of {given.dtype.name} for a model of {dtype.name}; convert them first")

    def begin_cut(self, cut_id: int, *, slice_rows: int) -> Moment:
        """Hold this moment, to be read in slices while pushes go on.

        Args:
            cut_id: chosen by the caller, not in use.
            slice_rows: rows of one slice, at least one.

        Raises:
            ModelError: the id is in use.
            ShapeError: a slice without rows.
        """
        if cut_id in self.cuts:
            raise ModelError(f"cut {cut_id} of model {self.spec.name!r} is there already")
        cut = self.cuts[cut_id] = Moment(self.arrays, slice_rows)
        return cut

    def end_cut(self, cut_id: int) -> None:
        """Let go of a moment and of what was copied for it.

        Raises:
            ModelError: there is no such cut.
        """
        if self.cuts.pop(cut_id, None) is None:
            raise ModelError(f"model {self.spec.name!r} has no cut {cut_id}; it has {sorted(self.cuts)}")
