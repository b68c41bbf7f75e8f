"""What BigMatrix and BigVector share: a handle to rows that were declared; knows no server's inside."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import config, partitioning
from glintpy.errors import ConfigError, ShapeError
from glintpy.futures import Future, completed
from glintpy.models.base import Handle
from glintpy.models.bundles import pull, push
from glintpy.models.combining import Combined, without_repeats
from glintpy.models.consistency import check_pushes
from glintpy.models.functions import HasFunctions
from glintpy.models.indexing import Asked, parse_item
from glintpy.models.requests import Finish, Requester, Target
from glintpy.models.values import check_out, coded_by, parse_values
from glintpy.partitioning import Layout, Partitioner
from glintpy.protocol.rounds import turn_of
from glintpy.protocol.spec import ModelInfo
from glintpy.ties import Tie
from glintpy.updaters import Updater


class BigModel(Handle, HasFunctions):
    """A handle; the values lie on servers.

    A handle pickles: in another process it connects when it is first used, one connection a process
    however many handles. Two handles to the same model are equal and hash alike.

    Threads:
        Safe from any thread.
    """

    _target: Target

    def __init__(
        self,
        tie: Tie,
        info: ModelInfo,
        partitioner: Partitioner | None = None,
        updater: Updater | None = None,
    ) -> None:
        """Bind a handle; programs get theirs from a client."""
        if partitioner is None:
            partitioner = partitioning.named(info.spec.partitioner, info.spec.num_rows, len(info.owners))
        self._layout = Layout(partitioner, info.owners_array(), len(info.servers))
        super().__init__(tie, info, updater)

    @property
    def num_bytes(self) -> int:
        """Bytes of all values, on all servers together."""
        return self._spec.num_bytes

    @property
    def partitioner(self) -> Partitioner:
        """The function from keys to partitions."""
        return self._layout.partitioner

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, as numpy has it."""
        return (self._spec.num_rows, *self._spec.row_shape)

    def __len__(self) -> int:
        return self._spec.num_rows

    def __contains__(self, value: object) -> bool:
        raise TypeError(
            "`in` would pull the whole model; pull what you need and look there: x in model.pull(rows).result()"
        )

    def __repr__(self) -> str:
        lost = ", destroyed" if self._destroyed else ""
        return (
            f"{type(self).__name__}({self.name!r}, shape={self.shape}, dtype={self.dtype.name}, "
            f"partitioner={self.partitioner.name}, servers={len(self._info.servers)}{lost})"
        )

    def save(self, url: str, *, overwrite: bool = False, progress: bool | None = None) -> None:
        """Save the model: a manifest and one plain ``.npy`` file a partition and slot, readable with numpy alone.

        This process writes. The save holds every push that this client issued before it; each server's
        part is one moment, across servers a push in progress may be in one and not in another.

        Args:
            url: a directory at any fsspec URL: a path, ``s3://...``, ``memory://...``.
            overwrite: replace a model that is saved there; until this one is complete the old one stays.
            progress: show a bar; None: if a terminal is watching.

        Raises:
            CheckpointError: there is one already, or the place can't be written.
            ModelNotFound, ServerLost: of the servers.
        """
        from glintpy.models.saving import save_model  # noqa: PLC0415 - loads fsspec, which few programs need

        self._check_exists()
        save_model(self._tie.runtime(), self._target, url, overwrite=overwrite, progress=progress)

    # --- reading --------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        """Read as numpy does, sending just that selection."""
        asked = parse_item(key, num_rows=self._spec.num_rows, num_cols=self._spec.num_cols)
        values = self._pull(asked, None).result()
        return values[()] if asked.shape == () else values

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(
            "model[...] = x and model[...] += x would not be atomic: between the read and the write others push. "
            "Use model.push(rows, delta), which adds on the server"
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the values lie on servers: there is no array without a copy")
        values: NDArray[Any] = self[...]
        return values if dtype is None else values.astype(dtype, copy=False)

    # --- for subclasses -------------------------------------------------------------------------------------------

    def _pull(self, asked: Asked, out: NDArray[Any] | None, tag: int | None = None) -> Future[NDArray[Any]]:
        self._check_exists()
        target = self._target if tag is None else self._in_round(tag)
        if out is not None:
            check_out(out, shape=asked.shape, dtype=self._target.dtype)
        if asked.empty:
            return completed(self._nothing(asked, out))
        self._wait_for_others()
        return pull(self._tie.runtime(), target, asked, out)

    def _push(self, asked: Asked, values: Any, tag: int | None = None, levels: Any = None) -> Future[None]:
        target = self._target_of_push(asked, tag)
        parsed = self._parsed(asked, values)
        coded = None if levels is None else coded_by(levels, parsed, finite=self._spec.finite)
        if asked.empty:
            return completed(None)
        once = self._without_repeats(asked, parsed)
        if once is not None:
            asked, parsed = once.asked, once.values  # sums of levels are no levels
        elif coded is not None:
            runtime = self._tie.runtime()
            runtime.outbox.issue()  # what was pushed before comes before
            requester = Requester(runtime, target.with_levels(coded.levels), asked, kind="push")
            return requester.push(asked.to_wire(coded.codes))
        return push(self._tie.runtime(), target, asked, parsed)

    def _push_pull(
        self, asked: Asked, values: Any, out: NDArray[Any] | None, tag: int | None = None
    ) -> Future[NDArray[Any]]:
        target = self._target_of_push(asked, tag)
        parsed = self._parsed(asked, values)
        if out is not None:
            check_out(out, shape=asked.shape, dtype=self._target.dtype)
        if asked.empty:
            return completed(self._nothing(asked, out))
        self._wait_for_others()
        runtime = self._tie.runtime()
        runtime.outbox.issue()  # what was asked for before comes before
        once = self._without_repeats(asked, parsed)
        if once is not None:
            requester = Requester(runtime, target, once.asked, kind="push")
            return requester.push(
                once.values, finish=lambda values: _written_to(out, asked, once.spread(values))
            )
        into = None if out is None else asked.to_wire(out)
        finish: Finish = asked.finish if out is None else lambda _: out
        if out is not None and _overlap(parsed, out):
            parsed = parsed.copy()  # else the first answers would come into what is still to be sent
        requester = Requester(runtime, target, asked, kind="push")
        return requester.push(asked.to_wire(parsed), into=into, finish=finish)

    def _target_of_push(self, asked: Asked, tag: int | None) -> Target:
        self._check_exists()
        if tag is None:
            return self._target
        target = self._in_round(tag)
        if asked.cols is not None:
            raise ConfigError(
                "a push to a round is of whole rows, since the round ends for whole rows; leave cols out"
            )
        if target.row_bytes > config.PART_BYTES:
            raise ShapeError(
                f"a push to a round is of whole rows, each in one message: a row of {self.name!r} has "
                f"{target.row_bytes} bytes, and may have {config.PART_BYTES}; push without a round, to the step"
            )
        return target

    def _without_repeats(self, asked: Asked, parsed: NDArray[Any]) -> Combined | None:
        return without_repeats(
            asked,
            parsed,
            self._updater,
            num_cols=self._spec.num_cols,
            joins_cells=self._target.joins_cells,
        )

    def _pull_slot(self, name: str, asked: Asked) -> Future[NDArray[Any]]:
        self._check_exists()
        target = self._target.of_array(1 + self.slots.index(name))
        if asked.empty:
            return completed(asked.finish(np.empty(asked.wire_shape, dtype=target.dtype)))
        self._wait_for_others()
        return pull(self._tie.runtime(), target, asked, None)

    def _parsed(self, asked: Asked, values: Any) -> NDArray[Any]:
        check_pushes(self._spec, self._group)
        return parse_values(values, shape=asked.shape, dtype=self._target.dtype, finite=self._spec.finite)

    def _nothing(self, asked: Asked, out: NDArray[Any] | None) -> NDArray[Any]:
        """Return the values of no cell."""
        return asked.finish(np.empty(asked.wire_shape, dtype=self._target.dtype)) if out is None else out

    def _in_round(self, tag: int) -> Target:
        group = self._group
        if group is None:
            raise ConfigError(
                f'round={tag!r:.80} is for handles with consistency="bsp" and a group, see `with_options`'
            )
        return self._target.in_round(turn_of(tag, group.rank, group.size))

    def _make_target(self) -> Target:
        return Target(
            self._info,
            self._layout,
            self._timeout_s,
            updater=self._updater,
            is_hasty=self._on_server_lost == "raise",
        )


def _overlap(values: NDArray[Any], out: NDArray[Any]) -> bool:
    """Tell whether two arrays of a shape share memory otherwise than each cell with its own."""
    if not np.may_share_memory(values, out):
        return False
    return values.ctypes.data != out.ctypes.data or values.strides != out.strides


def _written_to(out: NDArray[Any] | None, asked: Asked, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of the wire shape as the caller asked for them, in ``out`` if there is one."""
    if out is None:
        return asked.finish(values)
    asked.to_wire(out)[...] = values
    return out
