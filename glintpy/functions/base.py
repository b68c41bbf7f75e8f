"""What a function on the server is: a name, numbers, a server's part and a client's part; knows no message or socket.

A function is one frozen dataclass; its fields are its numbers, which travel as JSON. One that reads gets pieces of a
model, each of some whole rows on one server, and makes a few small arrays of each; its client's part says what to ask,
and makes one result of the answers. One that changes makes new values of old ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import ConfigError, DTypeError, ShapeError
from glintpy.records import record
from glintpy.scalars import make_plain, plain

Array = NDArray[Any]
Positions = NDArray[np.int64] | slice
Answer = tuple[Array, ...]

ARRAYS_MAX = 3
"""Arrays that go along with a message, and that come back with its answer."""

INT_MAX = 2**63 - 1


@record
class Selected:
    """What a function runs on, as far as a client knows it.

    Attributes:
        num_rows: selected rows.
        num_cols: None: of a vector.
        dtype: of the values.
        finite: whether the model refuses NaN and infinities.
        other: all of the second model's rows; None: there is no second model.
        interleaved: the number P of partitions, if all rows are selected and row k lies in partition k mod P at row
            k // P; else 0.
    """

    num_rows: int
    num_cols: int | None
    dtype: np.dtype[Any]
    finite: bool = False
    other: Selected | None = None
    interleaved: int = 0

    @property
    def width(self) -> int:
        """Cells of a row."""
        return 1 if self.num_cols is None else self.num_cols


def _no_slot(name: str) -> Array:
    raise ConfigError(f"there is no slot {name!r}")


@dataclass(slots=True, eq=False)
class Piece:
    """Some rows of a model on one server, as a reading function sees them.

    Attributes:
        values: (n, num_cols), or (n,) of a vector. Read-only: they may be the server's own.
        arrays: the arguments for these rows; of one that chooses, what it chose with them.
        others: (n, ...) rows of the second model, or of this one, one for each of ``values``; None: none were named.
        slot: returns what the updater keeps beside ``values`` under a name, (n, ...).
    """

    values: Array
    arrays: tuple[Array, ...] = ()
    others: Array | None = None
    slot: Callable[[str], Array] = _no_slot

    @property
    def matrix(self) -> Array:
        """The values as (n, width)."""
        return self.values if self.values.ndim == 2 else self.values[:, np.newaxis]


@dataclass(slots=True, eq=False)
class Ask:
    """What is asked of one server in one message.

    Attributes:
        server: its index, see ``Asking``.
        rows: (n,) or (k, 3) server rows.
        positions: where in the selection each stands.
        arrays: the arguments for these rows.
        function: which one; None: the one whose ``steps`` this is.
        others: server rows of the second model (or of the same, if there is none), as many as ``rows``; of a function
            that chooses, any one run of them.
        of_other: whether ``rows`` are those of the second model.
        touches: at most so many rows, of a function that chooses; None: all.
    """

    server: int
    rows: Array
    positions: Positions
    arrays: tuple[Array, ...] = ()
    function: Reading | None = None
    others: Array | None = None
    of_other: bool = False
    touches: int | None = None


class Asking(Protocol):
    """What a function's client's part knows of the call.

    Servers are counted from 0, those of both models together.

    Attributes:
        selected: what it runs on.
        arrays: the arguments, as ``prepare`` left them.
    """

    selected: Selected
    arrays: tuple[Array, ...]

    def asks(self, *, in_order: bool = False) -> list[Ask]:
        """Cut the selection into asks: none touches more than a part does, unless one row alone does.

        Args:
            in_order: the rows of each ask are in the order of their keys.
        """
        ...

    def keys(self, positions: Positions | None = None) -> NDArray[np.int64]:
        """Return the keys at positions of the selection; None: at all."""
        ...

    def places(
        self, keys: NDArray[np.int64], *, of_other: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the server and the server row of each key, (n,) each."""
        ...

    @property
    def rows_max(self) -> int:
        """Rows that an ask may have."""
        ...


Steps = Generator[Sequence[Ask], list[Answer], Any]


@dataclass(frozen=True)
class Function:
    """What both kinds share.

    Attributes:
        name: by which it travels. One that a program brings itself is named by its import path, whatever this says; if
            it says nothing, it is that path.
        kinds: the kinds of dtype (numpy's letters) whose models it can be of.
        takes: the names of its array arguments, in order.
        by_row: those of them that have an entry for each selected row, and are split with the rows; the others go
            along with each piece.
    """

    name: ClassVar[str] = ""
    kinds: ClassVar[str] = "biuf"
    takes: ClassVar[tuple[str, ...]] = ()
    by_row: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = f"{cls.__module__}.{cls.__qualname__}"

    def __post_init__(self) -> None:
        """Make NumPy's numbers Python's; those that check theirs call this first."""
        make_plain(self)

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """Check what was asked for, before anything is sent, and return the arguments as they travel.

        Args:
            selected: what it runs on.
            arrays: the arguments, of any dtype; their number is checked.

        Raises:
            ShapeError, DTypeError, ConfigError: what doesn't fit.
        """
        del selected
        return arrays

    def check(self, selected: Selected, arrays: tuple[Array, ...]) -> None:
        """Refuse what can't be, on either side: the server has it from anybody.

        Args:
            selected: what it runs on; here the rows of one piece.
            arrays: the arguments for them.

        Raises:
            ShapeError, DTypeError: what doesn't fit.
        """
        self.check_takes(selected, arrays)

    def check_takes(self, selected: Selected, arrays: tuple[Array, ...]) -> None:
        """Refuse another dtype, other arguments than ``takes`` says, or some that don't go with the rows.

        Args:
            selected: what it runs on.
            arrays: the arguments.

        Raises:
            ShapeError, DTypeError: what doesn't fit.
        """
        if selected.dtype.kind not in self.kinds:
            raise DTypeError(f"function {self.name!r} is not for values of {selected.dtype.name}")
        if len(arrays) != len(self.takes):
            wanted = f"the arrays {', '.join(self.takes)}" if self.takes else "no arrays"
            raise ShapeError(f"function {self.name!r} takes {wanted}; {len(arrays)} came")
        for name, array in zip(self.takes, arrays, strict=True):
            if name in self.by_row and array.shape[:1] != (selected.num_rows,):
                raise ShapeError(f"{name} has shape {array.shape} for {selected.num_rows} rows")

    def to_content(self) -> dict[str, Any]:
        """Return its numbers as plain data."""
        return {entry.name: plain(getattr(self, entry.name)) for entry in fields(self)}

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Return the function of these numbers; those that are missing have their defaults.

        Raises:
            ConfigError: it has no such number, one is missing that has no default, or one is out of its range.
        """
        known = [entry.name for entry in fields(cls)]
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise ConfigError(f"function {cls.name!r} has no number {unknown[0]!r:.80}; it has {known}")
        try:
            return cls(**content)
        except TypeError as error:
            raise ConfigError(f"function {cls.name!r}: {error}") from error


class Choosing(Function, ABC):
    """A function whose arguments say which rows it works on, of one run of rows; it reads or changes, too.

    Its asks are of one slice of step 1, however long: nothing is copied of what isn't chosen.
    """

    @abstractmethod
    def choose(
        self, num_rows: int, arrays: tuple[Array, ...], others: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """Choose rows, on the server.

        Args:
            num_rows: rows of the run.
            arrays: the arguments, after ``check``.
            others: the second model's rows that were asked for, read-only; None: none were.

        Returns:
            (n,) int64 places in the run, rising if they are changed; and what ``read`` or ``change`` gets in place of
            the arguments.

        Raises:
            GlintError: it can't.
        """


class Reading(Function, ABC):
    """A function that reads.

    Attributes:
        in_order: each piece has its rows in the order of their keys; else in any.
        by_place: its result says where something stands in the selection; so it is nothing for tables.
    """

    in_order: ClassVar[bool] = False
    by_place: ClassVar[bool] = False

    @property
    def names_rows(self) -> Literal["", "each", "some"]:
        """Whether its result has something for each row, or names some by ``Asking.keys``; of tables these are keys."""
        return ""

    @abstractmethod
    def read(self, piece: Piece) -> Answer:
        """The server's part: return at most three arrays of one or two dimensions, and of a megabyte or two at most.

        numpy's warnings of overflows and the like are switched off.

        Args:
            piece: at least one row.
        """

    def steps(self, asking: Asking) -> Steps:
        """The client's part: yield what to ask, be sent an answer for each ask, and return the result.

        Runs on whichever thread receives: it must be short and never wait.

        Args:
            asking: the call.
        """
        asks = asking.asks(in_order=self.in_order)
        answers = yield asks
        return self.combine(asking, list(zip(asks, answers, strict=True)))

    def combine(self, asking: Asking, answers: list[tuple[Ask, Answer]]) -> Any:
        """Make one result of the answers of one round; here their list.

        Args:
            asking: the call.
            answers: what was asked, and what came; none for an empty selection.
        """
        del asking
        return [answer for _, answer in answers]


class Changing(Function, ABC):
    """A function that changes values.

    Attributes:
        by_cell: cells don't depend on the others of their row, so that very wide rows may come in pieces.
        pushes: what it makes is pushed, so that the model's updater applies it; else it is stored.
    """

    by_cell: ClassVar[bool] = False
    pushes: ClassVar[bool] = False

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """See ``Function``."""
        self.check(selected, arrays)
        return arrays

    def asks(self, asking: Asking) -> Sequence[Ask]:
        """Return what to ask, in this order; not asked where ``by_cell``.

        Args:
            asking: the call.
        """
        return asking.asks()

    @abstractmethod
    def change(self, values: Array, arrays: tuple[Array, ...]) -> Array:
        """Return what some rows become, or what is pushed to them.

        numpy's warnings of overflows and the like are switched off.

        Args:
            values: (n, num_cols), or (n,) of a vector; a copy, which may be changed and returned.
            arrays: the arguments for these rows.

        Returns:
            As many, of the same dtype.
        """


def check_int(name: str, value: Any, *, low: int, high: int = INT_MAX) -> None:
    """Refuse what is not an int in [low, high].

    Args:
        name: of the number, for the message.
        value: anything.
        low: the least.
        high: the largest.

    Raises:
        ConfigError: with the value and the range.
    """
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} is an int from {low} to {high}, not {value!r:.80}")


def check_float(name: str, value: Any, *, low: float = -np.inf) -> None:
    """Refuse what is not a number, or lies below.

    Raises:
        ConfigError: with the value.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not (value >= low and value < np.inf):
        raise ConfigError(f"{name} is a finite number of at least {low:g}, not {value!r:.80}")
