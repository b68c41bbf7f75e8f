"""What a model is (``ModelSpec``), where it lies (``ModelInfo``), both as documents; knows no socket."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.errors import ConfigError, DTypeError, GlintError, RemoteProtocolError, ShapeError
from glintpy.protocol import dtypes, texts
from glintpy.scalars import make_plain

Init = int | float | tuple[str, float, float]
"""A number; or ("uniform", low, high); or ("normal", mean, std)."""

_INIT_FORMS = 'a number, ("uniform", low, high) or ("normal", mean, std)'
_NAME = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{config.MODEL_NAME_MAX}}}")
"""Neither control characters nor halves of surrogate pairs, which UTF-8 can't hold."""

_UPDATER = re.compile(r"(?=.{1,200}\Z)[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
KEY_DTYPES = ("int64", "uint64")
"""What the keys of a table can be, besides texts; see ``protocol.texts``."""

ADMIT_AFTER_MAX = 255
"""Pushes; servers count them in a byte."""

NUMBERS_MAX = 4096
"""Characters of an updater's numbers."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What was asked for when the model was made; two programs that ask for equal specs share it.

    Attributes:
        name: unique in the cluster.
        num_rows: rows of a matrix, or the size of a vector.
        num_cols: columns of a matrix; None for a vector.
        dtype: a name from ``protocol.dtypes``.
        partitioner: ``"range"``, ``"cyclic"`` or a custom one's name.
        partitions_per_server: asked for; fewer where there are fewer keys.
        init: the initial values.
        seed: of random initial values.
        updater: how pushes are applied: a name, or the import path of a custom one.
        updater_numbers: its numbers, as a JSON object; only who has the updater can tell whether they are right.
        finite: whether NaN and infinities are refused.
        durability: what an acknowledged push survives, see ``config.Durability``; empty: the servers' own level.
        group: the workers whose rounds it follows: pushes are gathered until all have finished a step; empty: pushes
            are applied as they come.
        keys: of a table, whose keys nobody declared: what they are, one of ``KEY_DTYPES`` or like ``"str63"``; then
            ``num_rows`` is how many there may be, 0 any number. Empty: a matrix or vector.
        track: of a table: whether it is kept how often and when each row was pushed to, so that rows can be evicted.
        admit_after: of a table: in how many pushes a key has to be to get a row; 0: in one.
    """

    name: str
    num_rows: int
    num_cols: int | None
    dtype: str
    partitioner: str = "range"
    partitions_per_server: int = 1
    init: Init = 0
    seed: int = 0
    updater: str = "add"
    updater_numbers: str = "{}"
    finite: bool = False
    durability: config.Durability | Literal[""] = ""
    group: str = ""
    keys: str = ""
    track: bool = False
    admit_after: int = 0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ShapeError, DTypeError, ConfigError: with the number that is wrong.
        """
        make_plain(self)
        check_name(self.name)
        _check_size("rows", self.num_rows)
        if self.num_cols is not None:
            _check_size("cols", self.num_cols)
        # Before anything asks numpy: np.dtype reads a foreign text as a small language, errors included.
        if self.dtype not in dtypes.NAMES:
            raise DTypeError(
                f"a model can't have dtype {self.dtype!r:.80}; it has one of {', '.join(dtypes.NAMES)}"
            )
        if self.num_bytes > 2**62:
            raise ShapeError(f"{self.num_rows} x {self.num_cols} cells of {self.dtype} can't be addressed")
        if type(self.partitions_per_server) is not int or not 1 <= self.partitions_per_server <= 4096:
            raise ConfigError(f"partitions_per_server is 1 to 4096, not {self.partitions_per_server!r}")
        if type(self.seed) is not int or not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"seed is a 64-bit integer, not {self.seed!r}")
        if type(self.partitioner) is not str or not 1 <= len(self.partitioner) <= 200:
            raise ConfigError(f"a partitioner's name has 1 to 200 characters, not {self.partitioner!r}")
        if type(self.updater) is not str or not _UPDATER.fullmatch(self.updater):
            raise ConfigError(
                f"an updater has a name, or an import path of at most 200 characters, not {self.updater!r:.80}"
            )
        _check_numbers(self.updater_numbers)
        if type(self.finite) is not bool:
            raise ConfigError(f"finite is True or False, not {self.finite!r}")
        if self.durability not in {"", *config.DURABILITIES}:
            levels = ", ".join(map(repr, config.DURABILITIES))
            raise ConfigError(
                f"durability is one of {levels}, or None for the cluster's, not {self.durability!r:.80}"
            )
        _check_group(self.group)
        self._check_table()
        _check_init(self.init, self.numpy_dtype)

    def _check_table(self) -> None:
        if type(self.track) is not bool:
            raise ConfigError(f"track is True or False, not {self.track!r:.80}")
        if type(self.admit_after) is not int or not 0 <= self.admit_after <= ADMIT_AFTER_MAX:
            raise ConfigError(f"admit_after is 0 to {ADMIT_AFTER_MAX} pushes, not {self.admit_after!r:.80}")
        if self.keys == "":
            if self.track or self.admit_after:
                raise ConfigError(f"model {self.name!r} is no table: its rows don't come and go")
            return
        if type(self.keys) is not str or not (self.keys in KEY_DTYPES or texts.bytes_of(self.keys)):
            raise ConfigError(
                f"key_dtype is one of {', '.join(map(repr, KEY_DTYPES))}, 'str', or 'str1' to 'str{texts.BYTES_MAX}' "
                f"for texts of so many bytes, not {self.keys!r:.80}"
            )
        # What an updater keeps of float16 is twice as wide.
        widest = self.row_bytes * (2 if self.dtype == "float16" else 1)
        if self.num_cols is None or not 1 <= widest <= config.PART_BYTES:
            raise ShapeError(
                f"a row of a table has 1 to {config.PART_BYTES} bytes, not {self.num_cols} cells of {self.dtype}"
            )
        if 0 < self.num_rows < config.TABLE_PARTITIONS:
            raise ConfigError(
                f"a table that may have {self.num_rows} keys; it has room for one in each of its "
                f"{config.TABLE_PARTITIONS} partitions at least: more max_bytes"
            )
        if self.group:
            raise ConfigError(
                f"table {self.name!r} can't follow a group's rounds: they are for matrices and vectors"
            )

    @property
    def numpy_dtype(self) -> dtypes.DTypeAny:
        """The dtype as numpy's own object, little-endian."""
        return dtypes.BY_NAME[self.dtype]

    @property
    def has_texts(self) -> bool:
        """Whether it is a table whose keys are texts."""
        return self.keys.startswith("str")

    @property
    def counts_pushes(self) -> bool:
        """Whether it matters in how many pushes a key is."""
        return self.track or self.admit_after > 1

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row: (num_cols,), or () for a vector."""
        return () if self.num_cols is None else (self.num_cols,)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return (1 if self.num_cols is None else self.num_cols) * dtypes.BY_NAME[self.dtype].itemsize

    @property
    def num_bytes(self) -> int:
        """Bytes of all values."""
        return self.num_rows * self.row_bytes

    @property
    def numbers(self) -> dict[str, Any]:
        """The updater's numbers."""
        found: dict[str, Any] = json.loads(self.updater_numbers)
        return found

    @property
    def init_depends_on_row(self) -> bool:
        """Whether the initial values are random, and so need to know which row they are for; a table's go by key."""
        return isinstance(self.init, tuple) and not self.keys

    def to_content(self) -> dict[str, Any]:
        """Return plain data for a document."""
        return asdict(self)

    @classmethod
    def from_content(cls, content: Any) -> ModelSpec:
        """Return the spec in a foreign document.

        Raises:
            RemoteProtocolError: other fields than a spec's.
            ShapeError, DTypeError, ConfigError: a field that is wrong.
        """
        names = {entry.name for entry in fields(cls)}
        if not isinstance(content, dict) or set(content) != names:
            raise RemoteProtocolError(f"a model's spec has the fields {sorted(names)}")
        if isinstance(content["init"], list):
            content = {**content, "init": tuple(content["init"])}
        try:
            return cls(**content)
        except GlintError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise RemoteProtocolError(f"a model's spec with a field of the wrong type: {error}") from error

    def difference(self, other: ModelSpec) -> str:
        """Return the fields in which two specs differ, as text; empty if they are equal."""
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(
            f"{key} {mine[key]!r} != {theirs[key]!r}" for key in mine if mine[key] != theirs[key]
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that exists: its spec and its routing.

    Attributes:
        model_id: never used again, so a model made anew under an old name is another.
        routing: the version of ``owners``.
        servers: (id, address) of each server that holds a part.
        owners: for each partition, its server's index in ``servers``.
    """

    model_id: int
    spec: ModelSpec
    routing: int
    servers: tuple[tuple[str, str], ...]
    owners: tuple[int, ...]

    def owners_array(self) -> NDArray[np.int64]:
        """Return the owners as (P,) int64."""
        return np.array(self.owners, dtype=np.int64)

    def to_content(self) -> dict[str, Any]:
        """Return plain data for a document."""
        return {
            "model_id": self.model_id,
            "spec": self.spec.to_content(),
            "routing": self.routing,
            "servers": [list(server) for server in self.servers],
            "owners": list(self.owners),
        }

    @classmethod
    def from_content(cls, content: Any) -> ModelInfo:
        """Return the info in a foreign document.

        Raises:
            RemoteProtocolError: fields or types that aren't a model's.
        """
        try:
            servers = [(identity, address) for identity, address in content["servers"]]
            found = cls(
                model_id=content["model_id"],
                spec=ModelSpec.from_content(content["spec"]),
                routing=content["routing"],
                servers=tuple(servers),
                owners=tuple(content["owners"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RemoteProtocolError(f"a model's description lacks something: {error!r:.80}") from error
        texts = [text for server in servers for text in server]
        # Two letters are a pair to Python, too.
        if {type(entry) for entry in content["servers"]} - {list} or {type(text) for text in texts} - {str}:
            raise RemoteProtocolError("a model's description whose servers are not pairs of texts")
        if not all(type(number) is int and number >= 0 for number in (found.model_id, found.routing)):
            raise RemoteProtocolError("a model's description whose model_id or routing is not a number")
        if not all(type(owner) is int and 0 <= owner < len(servers) for owner in found.owners):
            raise RemoteProtocolError(f"a model's description with owners outside its {len(servers)} servers")
        return found


def check_name(name: Any, *, whose: str = "a model's") -> None:
    """Refuse what can't be a name: it travels in headers, and stands in lists and logs.

    Args:
        name: anything.
        whose: for the message.

    Raises:
        ConfigError: with the name, or its beginning.
    """
    if type(name) is not str or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{whose} name has 1 to {config.MODEL_NAME_MAX} printable characters, not {name!r:.80}"
        )


def numbers_text(numbers: dict[str, Any]) -> str:
    """Return an updater's numbers as a spec has them: equal ones give equal texts, 1 and 1.0, too.

    Raises:
        ConfigError: JSON has no word for one of them.
    """
    try:
        return json.dumps(_plain(numbers), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"an updater's numbers are finite numbers, texts, and lists of such: {error}"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    # Up to there every whole number is a float, and the other way round.
    is_whole = type(value) is float and value.is_integer() and abs(value) < 2**53
    return int(value) if is_whole else value


def num_partitions(*, num_keys: int, partitions_per_server: int, num_servers: int) -> int:
    """Return how many partitions a model has: at least one, so that an empty model has a home."""
    return max(1, min(num_keys, partitions_per_server * num_servers))


def _check_size(what: str, size: Any) -> None:
    if type(size) is not int:
        raise ShapeError(f"{what} is an integer, not {size!r}")
    if not 0 <= size < 2**62:
        raise ShapeError(f"{what} is {size}; it is at least 0 and below 2**62")


def _check_numbers(text: Any) -> None:
    if type(text) is not str or len(text) > NUMBERS_MAX:
        raise ConfigError(f"an updater's numbers are a JSON text of at most {NUMBERS_MAX} characters")
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"an updater's numbers are a JSON text, not {text!r:.80}") from error
    if not isinstance(numbers, dict):
        raise ConfigError(f"an updater's numbers have names, unlike {text!r:.80}")


def _check_group(name: Any) -> None:
    if name != "":
        check_name(name, whose="a group's")


def _check_init(init: Any, dtype: dtypes.DTypeAny) -> None:
    if isinstance(init, tuple):
        _check_random_init(init, dtype)
        return
    if type(init) not in {int, float, bool}:
        raise ConfigError(f"init is {_INIT_FORMS}, not {init!r:.80}")
    if dtype.kind == "f":
        # Only an infinity may become one; a number that the dtype rounds is what was asked for.
        if _is_finite(init) and not _fits_float(init, dtype):
            raise DTypeError(f"init {init!r:.80} is beyond the largest {dtype.name}")
        return
    low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    if not _is_finite(init) or init != int(init) or not low <= init <= high:
        raise DTypeError(
            f"init {init!r:.80} can't be stored as {dtype.name}: it holds integers {low} to {high}"
        )


def _check_random_init(init: tuple[Any, ...], dtype: dtypes.DTypeAny) -> None:
    if len(init) != 3 or type(init[0]) is not str or init[0] not in {"uniform", "normal"}:
        raise ConfigError(f"init is {_INIT_FORMS}, not {init!r:.80}")
    if dtype.kind != "f":
        raise DTypeError(f"random initial values are floats; this model's dtype is {dtype.name}")
    kind, first, second = init
    for number in (first, second):
        if type(number) not in {int, float} or not _is_finite(number) or not _fits_float(number, dtype):
            raise ConfigError(
                f"init {init!r:.80} has a parameter that is not a finite number of {dtype.name}"
            )
    if kind == "uniform" and (first > second or not math.isfinite(float(second) - float(first))):
        raise ConfigError(f"init {init!r:.80}: low is at most high, and their distance is a finite number")
    if kind == "normal" and second < 0:
        raise ConfigError(f"init {init!r:.80} has a negative standard deviation")


def _is_finite(number: float) -> bool:
    # math.isfinite turns an integer into a float first, and a large one doesn't fit.
    return type(number) is int or math.isfinite(number)


def _fits_float(number: float, dtype: dtypes.DTypeAny) -> bool:
    return abs(number) <= float(np.finfo(dtype).max)
