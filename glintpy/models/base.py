"""What BigMatrix and BigVector share: a handle to a model that lies on servers; knows no server's inside."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from glintpy import partitioning, updaters
from glintpy.errors import ConfigError, ModelNotFound
from glintpy.futures import Future, completed
from glintpy.models.bundles import pull, push
from glintpy.models.combining import Combined, without_repeats
from glintpy.models.consistency import BSP, Gate, check_made_for, check_pushes, gate_of
from glintpy.models.functions import HasFunctions
from glintpy.models.indexing import Asked, parse_item
from glintpy.models.requests import Finish, Requester, Target
from glintpy.models.values import check_out, parse_values
from glintpy.partitioning import Layout, Partitioner
from glintpy.protocol import wire
from glintpy.protocol.messages_master import ConfigureModel
from glintpy.protocol.rounds import turn_of
from glintpy.protocol.spec import ModelInfo, ModelSpec
from glintpy.ties import Tie
from glintpy.updaters import Updater

if TYPE_CHECKING:
    from glintpy.models.group import Group

_KEEP: Any = object()
"""Where None is a value, this says that nothing was given."""


class BigModel(HasFunctions):
    """A handle; the values lie on servers.

    A handle pickles: in another process it connects when it is first used, one connection a process
    however many handles. Two handles to the same model are equal and hash alike.

    Threads:
        Safe from any thread.
    """

    def __init__(
        self,
        tie: Tie,
        info: ModelInfo,
        partitioner: Partitioner | None = None,
        updater: Updater | None = None,
    ) -> None:
        """Bind a handle; programs get theirs from a client."""
        self._tie = tie
        self._info = info
        self._spec = info.spec
        if partitioner is None:
            partitioner = partitioning.named(info.spec.partitioner, info.spec.num_rows, len(info.owners))
        self._updater = updaters.named(info.spec.updater, info.spec.numbers) if updater is None else updater
        self._layout = Layout(partitioner, info.owners_array(), len(info.servers))
        self._timeout_s = tie.settings.timeout_s
        self._on_server_lost = tie.settings.on_server_lost
        self._destroyed = False
        self._gate: Gate | None = None
        self._group: Group | None = None
        self._target = self._make_target()

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name, unique in the cluster."""
        return self._spec.name

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of its values."""
        return self._spec.numpy_dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of all values, on all servers together."""
        return self._spec.num_bytes

    @property
    def partitioner(self) -> Partitioner:
        """The function from keys to partitions."""
        return self._layout.partitioner

    @property
    def spec(self) -> ModelSpec:
        """All that it was made with."""
        return self._spec

    @property
    def finite(self) -> bool:
        """Whether NaN and infinities are refused."""
        return self._spec.finite

    @property
    def updater(self) -> Updater:
        """How pushes are applied, with its numbers."""
        return self._updater

    @property
    def group(self) -> Group | None:
        """The workers among whom this handle pushes, of a model with ``consistency="bsp"``; else None."""
        return self._group

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of what the updater keeps beside the values; see ``pull_slot``."""
        return self._updater.slot_names

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, as numpy has it."""
        return (self._spec.num_rows, *self._spec.row_shape)

    def __len__(self) -> int:
        return self._spec.num_rows

    def __bool__(self) -> bool:
        raise TypeError("a model has no truth value; use len(model) > 0, or model.pull(rows).result().any()")

    def __contains__(self, value: object) -> bool:
        raise TypeError(
            "`in` would pull the whole model; pull what you need and look there: x in model.pull(rows).result()"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BigModel):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[str, int]:
        return (self._tie.address, self._info.model_id)

    def __repr__(self) -> str:
        lost = ", destroyed" if self._destroyed else ""
        return (
            f"{type(self).__name__}({self.name!r}, shape={self.shape}, dtype={self.dtype.name}, "
            f"partitioner={self.partitioner.name}, servers={len(self._info.servers)}{lost})"
        )

    # --- its life -------------------------------------------------------------------------------------------------

    def with_options(
        self,
        *,
        timeout_s: float | None = _KEEP,
        on_server_lost: Literal["wait", "raise"] = _KEEP,
        consistency: str = _KEEP,
        group: Group | None = None,
    ) -> Self:
        """Return a view of the same model with other settings; it costs nothing.

        Args:
            timeout_s: deadline of a request from its call on, in seconds; None waits for ever.
            on_server_lost: whether requests to a lost server wait for its return, or fail at once.
            consistency: ``"async"``: pulls go at once; ``"ssp(k)"``: the first pull after a tick waits, in the call,
                until no worker of the group is more than k steps behind this one; ``"bsp"``, only of a model that was
                made so: pushes count when all workers of the group have ticked.
            group: this program's place among the workers, from ``client.join``.

        Raises:
            ConfigError: a setting out of its range, or a consistency that the model wasn't made for.
            GlintError: the group was left, or belongs to another process.
        """
        view = copy.copy(self)
        if consistency is not _KEEP:
            view._gate = gate_of(consistency, group)  # noqa: SLF001 - a copy of this class
            check_made_for(self._spec, consistency, group)
            if consistency == BSP and group is not None:
                group.follow()
                view._group = group  # noqa: SLF001 - a copy of this class
        if timeout_s is not _KEEP:
            view._timeout_s = check_timeout(timeout_s)  # noqa: SLF001 - a copy of this class
        if on_server_lost is not _KEEP:
            view._on_server_lost = check_on_server_lost(on_server_lost)  # noqa: SLF001 - a copy of this class
        view._target = view._make_target()  # noqa: SLF001 - a copy of this class
        return view

    def flush(self, timeout_s: float | None = None) -> None:
        """Return when every push to this model that this process issued before has its outcome.

        Args:
            timeout_s: seconds to wait; None waits until their own deadlines.

        Raises:
            TimeoutError: not all had one in time; they go on.
            PushFailed: the first failure that nobody has looked at; others are its notes.
        """
        runtime = self._tie.current()
        if runtime is not None:
            runtime.pushes.flush(timeout_s, self._info.model_id)

    def destroy(self, timeout_s: float | None = _KEEP) -> None:
        """End the model on all servers; from then on everything on it raises ``ModelNotFound``, everywhere.

        Pushes to it that this process issued before get their outcome first; others' may fail.

        Args:
            timeout_s: seconds to wait for those pushes, and then for the master; the client's setting if not given.

        Raises:
            ModelNotFound: it was destroyed before.
            MasterUnreachable: the master did not answer.
        """
        limit_s = self._timeout_s if timeout_s is _KEEP else timeout_s
        self._destroy(limit_s, flush_s=limit_s)

    def configure(self, timeout_s: float | None = _KEEP, **numbers: Any) -> None:
        """Change numbers of the updater on all servers; values and slots stay as they are.

        ::

            model.configure(learning_rate=0.01)

        Returns when every server has them and keeps them. What this process pushed before was applied by the old ones;
        others' pushes that are under way meanwhile by the old or the new ones. Handles that were there before go on to
        show the old ones.

        Args:
            timeout_s: seconds to wait for pushes under way, and then for the master; the client's setting if not given.
            numbers: of the updater's, by their names.

        Raises:
            ConfigError: it has no such number, or one out of its range, or one that needs other slots.
            ModelNotFound: it was destroyed.
            ServerLost: a server is away; it gets them when it is back, as the others have by now.
            MasterUnreachable: the master did not answer.
        """
        self._check_exists()
        limit_s = self._timeout_s if timeout_s is _KEEP else timeout_s
        changed = self._updater.configured(**numbers).to_content()
        content = {name: changed[name] for name in numbers}
        runtime = self._tie.runtime()
        runtime.pushes.wait(limit_s, self._info.model_id)
        told = runtime.ask_master(
            lambda request_id: ConfigureModel(request_id, self._info.model_id, wire.document(content)),
            timeout_s=limit_s,
        )
        info = ModelInfo.from_content(told)
        self._updater = updaters.named(info.spec.updater, info.spec.numbers)
        self._spec = info.spec
        self._info = replace(self._info, spec=info.spec)
        self._target = self._make_target()

    def _destroy(self, limit_s: float | None, *, flush_s: float | None) -> None:
        self._check_exists()
        runtime = self._tie.runtime()
        # Pushes go to the servers and this goes by the master: it would overtake those that nobody waited for, and
        # they'd fail, in some parts or all, though they were issued first.
        runtime.pushes.wait(flush_s, self._info.model_id)
        runtime.destroy_model(self._info.model_id, timeout_s=limit_s)
        self._destroyed = True

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if not self._destroyed:
            # After an error nobody should wait long for pushes to a model that ends.
            flush_s = self._timeout_s if kind is None else self._tie.settings.close_timeout_s
            self._destroy(self._timeout_s, flush_s=flush_s)

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
        if self._gate is not None:
            self._gate.wait(self._timeout_s)
        return pull(self._tie.runtime(), target, asked, out)

    def _push(self, asked: Asked, values: Any, tag: int | None = None) -> Future[None]:
        self._check_exists()
        target = self._target if tag is None else self._in_round(tag)
        if tag is not None and asked.cols is not None:
            raise ConfigError(
                "a push to a round is of whole rows, since the round ends for whole rows; leave cols out"
            )
        parsed = self._parsed(asked, values)
        if asked.empty:
            return completed(None)
        once = self._without_repeats(asked, parsed)
        if once is not None:
            asked, parsed = once.asked, once.values
        return push(self._tie.runtime(), target, asked, parsed)

    def _push_pull(self, asked: Asked, values: Any, out: NDArray[Any] | None) -> Future[NDArray[Any]]:
        self._check_exists()
        parsed = self._parsed(asked, values)
        if out is not None:
            check_out(out, shape=asked.shape, dtype=self._target.dtype)
        if asked.empty:
            return completed(self._nothing(asked, out))
        if self._gate is not None:
            self._gate.wait(self._timeout_s)
        runtime = self._tie.runtime()
        runtime.outbox.issue()  # what was asked for before comes before
        once = self._without_repeats(asked, parsed)
        if once is not None:
            requester = Requester(runtime, self._target, once.asked, kind="push")
            return requester.push(
                once.values, finish=lambda values: _written_to(out, asked, once.spread(values))
            )
        into = None if out is None else asked.to_wire(out)
        finish: Finish = asked.finish if out is None else lambda _: out
        requester = Requester(runtime, self._target, asked, kind="push")
        return requester.push(asked.to_wire(parsed), into=into, finish=finish)

    def _without_repeats(self, asked: Asked, parsed: NDArray[Any]) -> Combined | None:
        return without_repeats(asked, parsed, self._updater, num_cols=self._spec.num_cols)

    def _pull_slot(self, name: str, asked: Asked) -> Future[NDArray[Any]]:
        self._check_exists()
        target = self._target.of_array(1 + self.slots.index(name))
        if asked.empty:
            return completed(asked.finish(np.empty(asked.wire_shape, dtype=target.dtype)))
        return pull(self._tie.runtime(), target, asked, None)

    def _check_slot(self, name: str) -> None:
        if name not in self.slots:
            has = f"it has {', '.join(self.slots)}" if self.slots else "it keeps none"
            raise ConfigError(
                f"updater {self._updater.name!r} of model {self.name!r} has no slot {name!r}; {has}"
            )

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
        return self._target.in_round(turn_of(tag, group.rank))

    def _make_target(self) -> Target:
        return Target(
            self._info,
            self._layout,
            self._timeout_s,
            updater=self._updater,
            is_hasty=self._on_server_lost == "raise",
        )

    def _check_exists(self) -> None:
        if self._destroyed:
            raise ModelNotFound(f"model {self.name!r} was destroyed")


def _written_to(out: NDArray[Any] | None, asked: Asked, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of the wire shape as the caller asked for them, in ``out`` if there is one."""
    if out is None:
        return asked.finish(values)
    asked.to_wire(out)[...] = values
    return out


def check_timeout(timeout_s: Any) -> float | None:
    """Return a deadline in seconds.

    Raises:
        ConfigError: not a positive number or None.
    """
    if timeout_s is None:
        return None
    largest_s = sys.float_info.max  # an int may be larger, and then it is no float
    if (
        isinstance(timeout_s, bool)
        or not isinstance(timeout_s, int | float)
        or not 0 < timeout_s <= largest_s
    ):
        raise ConfigError(f"timeout_s is a positive number of seconds, or None for ever; not {timeout_s!r}")
    return float(timeout_s)


def check_on_server_lost(choice: Any) -> Literal["wait", "raise"]:
    """Return what to do when a server is lost.

    Raises:
        ConfigError: neither "wait" nor "raise".
    """
    if choice == "wait":
        return "wait"
    if choice == "raise":
        return "raise"
    raise ConfigError(f'on_server_lost is "wait" or "raise", not {choice!r}')
