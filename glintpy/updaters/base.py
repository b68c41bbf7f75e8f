"""What an updater is: a name, numbers, slots and a formula; knows no storage, no message and no compiler.

An updater is one frozen dataclass in one file. Its fields are its numbers, which may be changed on a live model.
``update`` is its formula on plain arrays. ``loop`` is the same formula written cell by cell, for a compiler: it may
be left out, and then a server computes with ``update``, which takes a few times as long. Both give the same bits, save
which of the many NaNs a NaN is: so both do the same operations in the same order.

Entries of a push are applied in order, one after the other. So that repeats of one push count as one step, whoever
sends them sums them up before (``combine``).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import ConfigError, DTypeError
from glintpy.scalars import make_plain, plain
from glintpy.updaters.schedules import NUMBER_MAX, Schedule

Array = NDArray[Any]
Rate = float | NDArray[np.float64]
"""A number for all entries of a push, or (k,) one for each."""

Loop = Callable[..., None]
Combined = tuple[Array, Array]

STEPS = "steps"
"""The slot that counts how often a row was pushed to; (num_rows,) uint32."""

_TAKEN = {"values", "rows", "sums", "pushers", "tags", "keys", "used", "texts", "touches", "touched", STEPS}

POSITIVE_MIN = 1e-30
"""The least of numbers that are divided by: more than 0 in float32, too."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An array of the values' shape that an updater keeps beside them.

    Attributes:
        name: lower-case letters and underscores; not the name of another array that a model may have.
        init: what each cell begins with.
    """

    name: str
    init: float = 0.0

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            ConfigError: another name, or no finite number.
        """
        if not re.fullmatch(r"[a-z_]{1,40}", self.name) or self.name in _TAKEN:
            raise ConfigError(
                "a slot's name has up to 40 lower-case letters and underscores, and is none of "
                f"{', '.join(sorted(_TAKEN))}, which {self.name!r:.80} is not"
            )
        check_number(f"init of slot {self.name!r}", self.init, low=-NUMBER_MAX)


@dataclass(frozen=True)
class Updater(ABC):
    """The rule by which a server applies a push; frozen dataclasses derive from it.

    Attributes:
        name: by which it travels: names and numbers cross the wire, never code. One that a program brings itself is
            named by its import path, ``package.module.Class``, whatever this says; if it says nothing, it is that path.
        kinds: the kinds of dtype (numpy's letters) whose models it can be of.
        slots: what it keeps for each cell, in the order of ``update``'s arguments.
        combines: whether repeats of a key in one push are made one (``combine``); otherwise they are applied one after
            the other, as they come.
        is_associative: whether repeats leave the same applied one after the other as combined: then only who gathers
            pushes combines them, to send less.
        loop: ``loop(values, *slots, starts, width, deltas, rates, numbers)``, or None. Plain Python for numba, a static
            method. ``values`` and the slots are flat, (cells,), and changed in place; entry ``e`` of the push
            is the ``width`` cells from ``starts[e]`` on; ``deltas`` is flat, entry behind entry; ``rates`` is (k, R),
            or (1, R) if all entries share them; ``numbers`` is (N,). All floats are of one dtype, so that nothing
            is computed in another: literals belong into ``numbers``, and what needs powers into ``rates``. It divides
            as numpy does, without a look at zeros.
    """

    name: ClassVar[str]
    kinds: ClassVar[str] = "f"
    slots: ClassVar[tuple[Slot, ...]] = ()
    combines: ClassVar[bool] = True
    is_associative: ClassVar[bool] = False
    loop: ClassVar[Loop | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = f"{cls.__module__}.{cls.__qualname__}"

    def __post_init__(self) -> None:
        """Make NumPy's numbers Python's; those that check theirs call this first."""
        make_plain(self)

    @abstractmethod
    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return what the values and each slot become; the formula.

        A cell's depend on no other cell's: which cells come together in an entry follows from how they were asked for.
        Callers have numpy's warnings of overflows and the like switched off.

        Args:
            values: (k, width) as they are, of the dtype that is computed in; not to be changed.
            deltas: (k, width) what is pushed.
            slots: (k, width) each, as they are.
            rates: what ``rates`` returned, each of that dtype, () or (k, 1).
            numbers: what ``numbers`` returned, each of that dtype.

        Returns:
            The new values and the new slots, (k, width) each. The values may be ``deltas`` themselves.
        """

    def prepare(self, deltas: Array) -> Array:
        """Return what ``update`` and ``loop`` are given for what was pushed: here the same array.

        Args:
            deltas: of any shape, of the dtype that is computed in; not to be changed.

        Returns:
            As many, of the same dtype, each a function of its one delta.
        """
        return deltas

    def combine(self, keys: Array, values: Array) -> Combined:
        """Make one update of all updates to the same key.

        Args:
            keys: (n,) integers in any order; repeats are what this is for.
            values: (n, ...) the update of each key.

        Returns:
            (k,) keys, rising and without repeats, and the (k, ...) update of each, of the same dtypes; both are new
            and the caller's to change. If it doesn't combine: copies.
        """
        return sum_repeats(keys, values) if self.combines else (keys.copy(), values.copy())

    def rates(self, steps: NDArray[np.float64] | None) -> tuple[Rate, ...]:
        """Return the numbers that may differ from entry to entry.

        Args:
            steps: (k,) how often each entry's row was pushed to, this push included; None unless ``counts_steps``.
        """
        del steps
        return ()

    def numbers(self) -> tuple[float, ...]:
        """Return the numbers that all entries share."""
        return ()

    @property
    def counts_steps(self) -> bool:
        """Whether the pushes to each row are counted: if a number follows a schedule."""
        return any(isinstance(getattr(self, entry.name), Schedule) for entry in fields(self))

    @property
    def sums(self) -> bool:
        """Whether pushes to one cell count as their sum, as gradients do."""
        return self.combines and type(self).combine is Updater.combine

    @property
    def joins_cells(self) -> bool:
        """Whether pushes to single cells that travel as one leave, bit for bit, what they leave one after the other.

        True of all whose steps are not counted, since entries are applied in order. Where they are, two pushes to cells
        of one row would count as one step. Pushes to whole rows may always travel as one.
        """
        return not self.counts_steps

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The names of all that is kept beside the values."""
        return (*(slot.name for slot in self.slots), *([STEPS] if self.counts_steps else []))

    def check_dtype(self, dtype: np.dtype[Any]) -> None:
        """Refuse a model's dtype.

        Raises:
            DTypeError: this updater can't work with it.
        """
        if dtype.kind not in self.kinds:
            raise DTypeError(
                f"updater {self.name!r} computes with fractions, which a model of {dtype.name} doesn't hold; "
                "make it of float32 or float64"
            )

    def check_numbers(self) -> None:
        """Refuse numbers that ``update`` can't be given: here rather than on every server.

        Raises:
            ConfigError: ``numbers`` or ``rates`` return something else.
            Exception: what they raise themselves, being somebody's own.
        """
        steps = np.ones(1) if self.counts_steps else None
        for what, found in (("numbers", self.numbers()), ("rates", self.rates(steps))):
            for number in found:
                array = np.asarray(number)
                if array.dtype.kind not in "biuf" or array.shape not in {(), (1,)}:
                    raise ConfigError(
                        f"{what}() of updater {self.name!r} returns {number!r:.80}, which is no number"
                    )

    def configured(self, **numbers: Any) -> Self:
        """Return one with other numbers, for the same slots.

        Raises:
            ConfigError: it has no such number, or one is out of its range, or other slots would be needed.
        """
        known = [entry.name for entry in fields(self)]
        unknown = sorted(set(numbers) - set(known))
        if unknown:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"updater {self.name!r} has no number {unknown[0]!r}; {has}")
        changed = replace(self, **numbers)
        self.check_slots(changed)
        changed.check_numbers()
        return changed

    def check_slots(self, changed: Updater) -> None:
        """Refuse what can't take this one's place on a live model.

        Raises:
            ConfigError: it has other slots.
        """
        if changed.slot_names == self.slot_names:
            return
        raise ConfigError(
            f"updater {self.name!r} was made without a schedule, and so nobody has counted the steps; a live model "
            "can get other numbers, not other slots"
            if changed.counts_steps
            else f"updater {self.name!r} counts steps for a schedule; a live model keeps its slots: use "
            "schedules.Constant for one number"
        )

    def to_content(self) -> dict[str, Any]:
        """Return its numbers as plain data."""
        return {
            entry.name: value.to_content()
            if isinstance(value := getattr(self, entry.name), Schedule)
            else plain(value)
            for entry in fields(self)
        }

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Return the updater of these numbers; those that are missing have their defaults.

        Raises:
            ConfigError: it has no such number, or one is out of its range.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(content) - known)
        if unknown:
            raise ConfigError(
                f"updater {cls.name!r} has no number {unknown[0]!r:.80}; it has {sorted(known)}"
            )
        return cls(
            **{
                name: Schedule.from_content(value) if isinstance(value, Mapping) else value
                for name, value in content.items()
            }
        )


def arithmetic_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that a model's updates are computed in, and its slots kept in."""
    return np.dtype("float32") if dtype == np.float16 else dtype


def sum_repeats(keys: Array, values: Array) -> Combined:
    """Sum the updates of each key; see ``Updater.combine``.

    Integers wrap and booleans are or-ed, as numpy's own addition does.
    """
    return reduce_repeats(np.add, keys, values)


def reduce_repeats(rule: np.ufunc, keys: Array, values: Array) -> Combined:
    """Bring together the updates of each key, in the order in which they came.

    Args:
        rule: of two updates one.
        keys: see ``Updater.combine``.
        values: see ``Updater.combine``.
    """
    if keys.shape[0] == 0:
        return keys.copy(), values.copy()
    # Stable, so that floats are summed in the order in which they were pushed.
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], sorted_keys[1:] != sorted_keys[:-1])))
    with np.errstate(all="ignore"):
        # The dtype is named because numpy sums small integers and bools as int64 unless told.
        reduced = rule.reduceat(values[order], starts, axis=0, dtype=values.dtype)
    return sorted_keys[starts], reduced


def last_of_repeats(keys: Array, values: Array) -> Combined:
    """Keep the last update of each key; see ``Updater.combine``."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    is_last = (
        np.concatenate((sorted_keys[1:] != sorted_keys[:-1], [True])) if len(keys) else np.zeros(0, bool)
    )
    return sorted_keys[is_last], values[order[is_last]]


def check_number(name: str, value: Any, *, low: float, high: float = NUMBER_MAX) -> None:
    """Refuse what is not a number in its range.

    Args:
        name: of the number, for the message.
        value: anything.
        low: the least.
        high: all are below.

    Raises:
        ConfigError: with the value and the range.
    """
    # Compared, not asked whether it is finite: an int may be too long to be made a float.
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value < high:
        raise ConfigError(f"{name} is a number of at least {low:g} and below {high:g}, not {value!r:.80}")


def check_rate(name: str, value: Any) -> None:
    """Refuse what is neither a number of at least 0 nor a schedule.

    Raises:
        ConfigError: with the value.
    """
    if not isinstance(value, Schedule):
        check_number(name, value, low=0)


def at(rate: float | Schedule, steps: NDArray[np.float64] | None) -> Rate:
    """Return a number, or what its schedule says for each entry."""
    if not isinstance(rate, Schedule):
        return rate
    assert steps is not None, "a schedule has steps counted"
    return rate(steps)
