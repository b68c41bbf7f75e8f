"""The same steps with vectors that travel: what they cost in bytes, and whether both ways come to the same vectors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from .text import Pairs, Text, pairs_of
from .vectors import SlicedVectors, gradients_of, make_vectors, running_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    import glintpy
    from glintpy.updaters import Updater

    from .training import Settings

__all__ = ["Compared", "compare", "num_bytes_of"]

_BATCHES = 10

_WORDS_MAX = 20_000
"""Rarer words are left out: with them more different vectors would travel, and both models would be large."""


@dataclass(frozen=True)
class Compared:
    """Some steps, made twice.

    Attributes:
        num_pairs: of these steps.
        scalars_bytes: a pair, in all frames to and from the servers, where one number a pair travels.
        vectors_bytes: the same where vectors travel, each once a step and way.
        difference: the largest between two cells of the vectors, and ...
        size: ... the largest cell.
    """

    num_pairs: int
    scalars_bytes: float
    vectors_bytes: float
    difference: float
    size: float


def num_bytes_of(client: glintpy.Client) -> int:
    """Return the bytes of all frames that the servers have had from clients and sent to them."""
    held = [server["holds"] for server in client.status()["servers"]]
    return sum(holds["bytes_in"] + holds["bytes_out"] for holds in held if holds is not None)


def compare(
    client: glintpy.Client, text: Text, settings: Settings, updater: Updater, *, parts: int, dim: int
) -> Compared:
    """Make the first steps of a training with scalars on the wire, and with vectors.

    Args:
        client: of the cluster; nobody else uses it meanwhile.
        text: of which the pairs are.
        settings: of the training.
        updater: what servers do with gradients.
        parts: servers.
        dim: columns of a vector.
    """
    text = text.most_frequent(_WORDS_MAX)
    batches = list(
        islice(
            pairs_of(
                text.counts,
                text.words,
                window=settings.window,
                subsample=settings.subsample,
                batch_pairs=settings.batch_pairs,
                seed=[settings.seed, 0, 0, 0],
            ),
            _BATCHES,
        )
    )
    num_pairs = sum(map(len, batches))
    vectors = SlicedVectors.create(client, text.counts, updater, parts=parts, dim=dim, seed=settings.seed)
    # A cell's first value follows from its number, and both models number theirs alike.
    whole = make_vectors(client, vectors.num_words, updater, parts=1, dim=dim, seed=settings.seed)
    shape = 2 * vectors.num_words, dim
    try:

        def by_scalars(pairs: Pairs, seed: int) -> None:
            products = vectors.products(pairs, seed=seed, negatives=settings.negatives).result()
            gradients = gradients_of(products)
            vectors.adjust(pairs, gradients, seed=seed, negatives=settings.negatives)

        scalars = _counted(client, batches, by_scalars)
        sums = running_sums(text.counts)
        travelling = _counted(
            client, batches, lambda pairs, seed: _step(whole, pairs, sums, settings, seed=seed)
        )
        found = vectors.slices.pull().result().reshape(shape)
        expected = whole.pull().result()
    finally:
        whole.destroy()
        vectors.destroy()
    return Compared(
        num_pairs,
        scalars / num_pairs,
        travelling / num_pairs,
        float(np.abs(found - expected).max()),
        float(np.abs(expected).max()),
    )


def _counted(client: glintpy.Client, batches: Sequence[Pairs], step: Callable[[Pairs, int], None]) -> int:
    before = num_bytes_of(client)
    for seed, pairs in enumerate(batches):
        step(pairs, seed)
    client.flush()
    return num_bytes_of(client) - before


def _step(
    vectors: glintpy.BigMatrix,
    pairs: Pairs,
    sums: NDArray[np.float64],
    settings: Settings,
    *,
    seed: int,
) -> None:
    """Pull the vectors of a batch, change them here, and push the changes."""
    num_words = len(sums)
    targets = np.empty((len(pairs), 1 + settings.negatives), np.int64)
    targets[:, 0] = pairs.outputs
    targets[:, 1:] = _drawn(sums, len(pairs) * settings.negatives, seed).reshape(len(pairs), -1)
    # Each row once, however often it occurs.
    rows, places = np.unique(
        np.concatenate([pairs.inputs, num_words + targets.reshape(-1)]), return_inverse=True
    )
    held = vectors.pull(rows).result()
    of_inputs, of_targets = places[: len(pairs)], places[len(pairs) :]
    inputs, outputs = held[of_inputs], held[of_targets].reshape(*targets.shape, -1)
    products = np.einsum("nd,nkd->nk", inputs, outputs)
    # A negative that is the pair's own output word is none.
    products[:, 1:][targets[:, 1:] == targets[:, :1]] = -np.inf
    gradients = gradients_of(products)
    changes = np.zeros_like(held)
    np.add.at(changes, of_inputs, np.einsum("nk,nkd->nd", gradients, outputs))
    np.add.at(
        changes, of_targets, (gradients[:, :, np.newaxis] * inputs[:, np.newaxis]).reshape(-1, held.shape[1])
    )
    vectors.push(rows, changes)


def _drawn(sums: NDArray[np.float64], num: int, seed: int) -> NDArray[np.int64]:
    """Draw the words that the servers draw; see ``docs/protocol.md``."""
    raw = np.asarray(np.random.PCG64(seed).random_raw(num))
    points = (raw >> np.uint64(11)) * 2.0**-53 * sums[-1]
    return np.asarray(np.minimum(np.searchsorted(sums, points, side="right"), len(sums) - 1))
