"""What all handles share: a model's name, settings and life; knows no key and no server's inside."""

from __future__ import annotations

import copy
import sys
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from glintpy import updaters
from glintpy.errors import ConfigError, ModelNotFound
from glintpy.models.consistency import ASYNC, BSP, Gate, check_group, check_made_for, gate_of
from glintpy.models.requests import AnyTarget
from glintpy.protocol import wire
from glintpy.protocol.messages_master import ConfigureModel
from glintpy.protocol.spec import ModelInfo, ModelSpec
from glintpy.scalars import plain
from glintpy.ties import Tie
from glintpy.updaters import Updater

if TYPE_CHECKING:
    from glintpy.models.group import Group

ANSWER_S = 2.0
"""How long past the caller's deadline the master's answer may take, which says who is missing."""

WAIT_MS_MAX = 600_000
"""The longest wait that is asked for at once; the master gives less."""

_KEEP: Any = object()
"""Where None is a value, this says that nothing was given."""


class Handle(ABC):
    """A handle to a model of any kind; the values lie on servers.

    A handle pickles: in another process it connects when it is first used, one connection a process
    however many handles. Two handles to the same model are equal and hash alike.

    Threads:
        Safe from any thread.
    """

    def __init__(self, tie: Tie, info: ModelInfo, updater: Updater | None = None) -> None:
        """Bind a handle; who derives from it has its layout by now."""
        self._tie = tie
        self._info = info
        self._spec = info.spec
        self._updater = updaters.named(info.spec.updater, info.spec.numbers) if updater is None else updater
        self._timeout_s = tie.settings.timeout_s
        self._on_server_lost = tie.settings.on_server_lost
        self._destroyed = False
        self._gate: Gate | None = None
        self._group: Group | None = None
        self._target = self._make_target()

    @abstractmethod
    def _make_target(self) -> AnyTarget:
        """Return the model as requests see it, with this handle's options."""

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

    def __bool__(self) -> bool:
        raise TypeError("a model has no truth value; use len(model) > 0, or model.pull(rows).result().any()")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Handle):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[str, int]:
        return (self._tie.address, self._info.model_id)

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
        check_group(group)
        view = copy.copy(self)
        if consistency is not _KEEP:
            view._gate = gate_of(consistency, group)  # noqa: SLF001 - a copy of this class
            check_made_for(self._spec, consistency, group)
            if consistency != ASYNC and group is not None:
                group.follow(self._tie, in_rounds=consistency == BSP)
            if consistency == BSP:
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
        wait_ms = WAIT_MS_MAX if limit_s is None else min(WAIT_MS_MAX, round(limit_s * 1000))
        told = runtime.ask_master(
            lambda request_id: ConfigureModel(
                request_id, self._info.model_id, wait_ms, wire.document(content)
            ),
            # Who is away is told of a moment later than asked for, in place of a master that didn't answer.
            timeout_s=None if limit_s is None else limit_s + ANSWER_S,
            doing=f"configuring {self.name!r}",
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
        runtime.destroy_model(self._info.model_id, self.name, timeout_s=limit_s)
        self._destroyed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if not self._destroyed:
            # After an error nobody should wait long for pushes to a model that ends.
            flush_s = self._timeout_s if kind is None else self._tie.settings.close_timeout_s
            self._destroy(self._timeout_s, flush_s=flush_s)

    # --- for subclasses -------------------------------------------------------------------------------------------

    def _check_slot(self, name: str) -> None:
        if name not in self.slots:
            has = f"it has {', '.join(self.slots)}" if self.slots else "it keeps none"
            raise ConfigError(
                f"updater {self._updater.name!r} of model {self.name!r} has no slot {name!r}; {has}"
            )

    def _wait_for_others(self) -> None:
        """Let a read go when no worker of the group is too far behind."""
        if self._gate is not None:
            self._gate.wait(self._timeout_s)

    def _check_exists(self) -> None:
        if self._destroyed:
            raise ModelNotFound(f"model {self.name!r} was destroyed")


def check_timeout(timeout_s: Any) -> float | None:
    """Return a deadline in seconds.

    Raises:
        ConfigError: not a positive number or None.
    """
    timeout_s = plain(timeout_s)
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
