"""Which partition and which server owns a key; arithmetic on arrays that knows no model and no network."""

from __future__ import annotations

from glintpy.errors import ConfigError
from glintpy.partitioning.base import Partitioner
from glintpy.partitioning.cyclic import CyclicPartitioner
from glintpy.partitioning.layout import Layout, Share
from glintpy.partitioning.range import RangePartitioner

__all__ = ["CyclicPartitioner", "Layout", "Partitioner", "RangePartitioner", "Share", "named"]

_BY_NAME: dict[str, type[Partitioner]] = {kind.name: kind for kind in (RangePartitioner, CyclicPartitioner)}


def named(name: str, num_keys: int, num_partitions: int) -> Partitioner:
    """Make one of the partitioners that every client has.

    Args:
        name: ``"range"`` or ``"cyclic"``.
        num_keys: keys of the model.
        num_partitions: parts to spread them over.

    Raises:
        ConfigError: an unknown name, or a number of partitions below 1.
        ShapeError: a number of keys that no model has.
    """
    kind = _BY_NAME.get(name)
    if kind is None:
        raise ConfigError(
            f"there is no partitioner named {name!r}; there are {', '.join(map(repr, _BY_NAME))}. "
            "A partitioner of your own is passed as an instance, by every client that opens the model"
        )
    return kind(num_keys, num_partitions)
