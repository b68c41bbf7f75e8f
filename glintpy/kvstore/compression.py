"""One or two bits a gradient, with what was left out added to the next one; pure.

Two bits (MXNet's ``2bit``): with what is left from before, a value at or above the threshold becomes the threshold, one
at or below minus the threshold becomes that, any other 0. One bit: above the threshold 1, else -1. Only the sums over
many pushes are those of the gradients: a threshold far above them delays them, one far below cuts them off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import ConfigError, DTypeError

Key = int | str

THRESHOLD = 0.5
"""MXNet's default for two bits; for one bit it is 0."""


@dataclass(slots=True, eq=False)
class Compressor:
    """What one worker has left out, by key.

    Attributes:
        bits: 1 or 2.
        threshold: more than 0 for two bits.
        left: what compression has left out of each key so far.
    """

    bits: int
    threshold: float
    left: dict[Key, NDArray[Any]] = field(default_factory=dict)

    def levels(self, factor: float = 1.0) -> tuple[float, ...]:
        """Return all values that are pushed.

        Args:
            factor: by which ``compress`` multiplied them.
        """
        step = self.step * factor
        return (-step, step) if self.bits == 1 else (-step, 0.0, step)

    @property
    def step(self) -> float:
        """The largest that a gradient becomes."""
        return 1.0 if self.bits == 1 else self.threshold

    def compress(
        self, values: Mapping[Key, NDArray[Any]], factor: float = 1.0
    ) -> tuple[dict[Key, NDArray[Any]], dict[Key, NDArray[Any]]]:
        """Return what is pushed in place of gradients, and the differences: for ``keep``, once it has been.

        Args:
            values: by key, of any shape, of floats; only read.
            factor: what is pushed is multiplied by it; the threshold and the differences are of gradients as they are
                given, as in MXNet, whose servers multiply.

        Raises:
            DTypeError: integers; NaN or infinities, which would stay in what is left; or a dtype that can't hold the
                threshold.
        """
        sent: dict[Key, NDArray[Any]] = {}
        left: dict[Key, NDArray[Any]] = {}
        for key, value in values.items():
            if value.dtype.kind != "f":
                raise DTypeError(
                    f"key {key!r} is of {value.dtype.name}; gradients of floats can be compressed"
                )
            before = self.left.get(key)
            with np.errstate(over="ignore"):
                total = value if before is None or before.shape != value.shape else np.asarray(value + before)
                if not np.isfinite(value.dtype.type(self.threshold)):
                    raise DTypeError(
                        f"key {key!r} is of {value.dtype.name}, which can't hold {self.threshold:g}"
                    )
            wrong = ~np.isfinite(total)
            if wrong.any():
                raise DTypeError(
                    f"the gradient of key {key!r}, with what compression left out of earlier ones, has "
                    f"{total[wrong][0]!s} in {int(wrong.sum())} of {total.size} cells, which no later push would make "
                    "up for: nothing was pushed; push finite ones"
                )
            kept = quantised(total, self.bits, self.threshold)
            left[key] = np.asarray(total - kept)
            if factor != 1.0:
                # Of the sign, so that it is a level to the bit.
                kept = np.asarray(np.sign(kept) * kept.dtype.type(self.step * factor))
            sent[key] = kept
        return sent, left

    def keep(self, left: Mapping[Key, NDArray[Any]]) -> None:
        """Have what a push left out come with the next one of the key."""
        self.left |= left

    def forget(self, keys: Iterable[Key]) -> None:
        """Drop what was left out of some keys."""
        for key in keys:
            self.left.pop(key, None)


def quantised(values: NDArray[Any], bits: int, threshold: float) -> NDArray[Any]:
    """Return values of one or two bits, of the same dtype.

    Args:
        values: finite floats of any shape.
        bits: 1 or 2.
        threshold: see above.
    """
    limit = values.dtype.type(threshold)
    one = values.dtype.type(1)
    if bits == 1:
        return np.asarray(np.where(values > limit, one, -one))
    zero = values.dtype.type(0)
    return np.asarray(np.where(values >= limit, limit, np.where(values <= -limit, -limit, zero)))


def compressor_of(parameters: Mapping[str, Any]) -> Compressor | None:
    """Return the compressor that MXNet's parameters speak of; None for ``{"type": "none"}``.

    Raises:
        ConfigError: there is no such type, parameter or threshold.
    """
    if not isinstance(parameters, Mapping):
        raise ConfigError(f'compression is {{"type": "2bit", "threshold": 0.5}}, not {parameters!r:.80}')
    unknown = sorted(set(map(str, parameters)) - {"type", "threshold"})
    if unknown:
        raise ConfigError(f"compression has a type and a threshold, no {unknown[0]!r:.80}")
    kind = parameters.get("type")
    if kind == "none":
        return None
    if kind not in {"1bit", "2bit"}:
        raise ConfigError(f"compression is of type 1bit, 2bit or none, not {kind!r:.80}")
    bits = int(kind[0])
    threshold = parameters.get("threshold", THRESHOLD if bits == 2 else 0.0)
    is_number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if not is_number or not math.isfinite(threshold) or (bits == 2 and threshold <= 0):
        raise ConfigError(
            f"the threshold of {kind} is a finite number{' above 0' if bits == 2 else ''}, not {threshold!r:.80}"
        )
    return Compressor(bits, float(threshold))
