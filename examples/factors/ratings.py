"""Ratings: read from a file, made up, and cut into batches; plain numpy."""

from __future__ import annotations

import bz2
import gzip
import math
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import IO

    from numpy.typing import NDArray

__all__ = ["SYNTHETIC_NOISE", "Ratings", "batches_of", "make_ratings", "read_ratings"]

SYNTHETIC_RANK = 4
SYNTHETIC_NOISE = 0.5
_SEPARATOR = re.compile(r"\s*(?:::|[,;\t ])\s*")


@dataclass(frozen=True)
class Ratings:
    """Who rated what, and how.

    Attributes:
        users: (n,) int64 from 0.
        items: (n,) int64 from 0.
        values: (n,) float32.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    values: NDArray[np.float32]

    def select(self, which: NDArray[np.int64]) -> Ratings:
        """Take some.

        Args:
            which: (k,) int64 positions.

        Returns:
            These, in this order.
        """
        return Ratings(self.users[which], self.items[which], self.values[which])


def read_ratings(path: Path) -> Ratings:
    """Read a file of ratings. Users and items may have any names.

    Args:
        path: the file; ``.gz`` and ``.bz2`` are decompressed. A first line whose third word is no number is a header.

    Returns:
        The ratings; users and items are numbered as they come.

    Raises:
        OSError: the file can't be read.
        ValueError: a line isn't of this form, or there are fewer than ten.
    """
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    rows: list[tuple[int, int]] = []
    values: list[float] = []
    opened: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open}
    with opened.get(path.suffix, open)(path, "rt", encoding="utf-8-sig", errors="replace") as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                user, item, value = [*_SEPARATOR.split(line.strip())[:3], "", "", ""][:3]
                rating = _number(value)
                if rating is None and number == 1 and item:
                    continue
                if rating is None or not (user and item):
                    raise ValueError(f"{path}, line {number}: {line.strip()!r:.80} is not USER ITEM RATING")
                rows.append((users.setdefault(user, len(users)), items.setdefault(item, len(items))))
                values.append(rating)
        except (EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged or cut off: {error}") from error
    if len(rows) < 10:
        raise ValueError(f"{path}: {len(rows)} ratings are too few to hold some out")
    both = np.array(rows, dtype=np.int64)
    return Ratings(both[:, 0], both[:, 1], np.array(values, dtype=np.float32))


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def make_ratings(num_users: int, num_items: int, num_ratings: int, seed: int) -> Ratings:
    """Make ratings of a matrix that is known, and noise.

    Args:
        num_users: rows of the matrix.
        num_items: columns.
        num_ratings: how many of its cells are rated; some may be rated twice.
        seed: of all that is random.

    Returns:
        The ratings: around 3.5, with biases, four factors and noise of a standard deviation of 0.5.
    """
    rng = np.random.default_rng(seed)
    factors = [rng.normal(0, 0.6, (num, SYNTHETIC_RANK)) for num in (num_users, num_items)]
    biases = [rng.normal(0, 0.4, num) for num in (num_users, num_items)]
    # Some items are rated often and most are not.
    users = rng.integers(0, num_users, num_ratings)
    items = (num_items * rng.random(num_ratings) ** 2).astype(np.int64)
    values = 3.5 + biases[0][users] + biases[1][items] + np.sum(factors[0][users] * factors[1][items], axis=1)
    return Ratings(users, items, (values + rng.normal(0, SYNTHETIC_NOISE, num_ratings)).astype(np.float32))


def batches_of(
    ratings: Ratings, *, num_epochs: int, batch_ratings: int, seed: list[int]
) -> Iterator[Ratings]:
    """Yield batches in a random order.

    Args:
        ratings: all.
        num_epochs: how often each comes.
        batch_ratings: how many at once.
        seed: of the order.

    Yields:
        Ratings.
    """
    rng = np.random.default_rng(seed)
    for _ in range(num_epochs):
        order = rng.permutation(len(ratings.values))
        for start in range(0, len(order), batch_ratings):
            yield ratings.select(order[start : start + batch_ratings])
