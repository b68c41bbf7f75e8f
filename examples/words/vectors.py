"""Vectors of words on servers, split by columns; and the vectors as a matrix that others can use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import glintpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glintpy.updaters import Updater

    from .text import Pairs

__all__ = ["SlicedVectors", "gradients_of", "loss_of", "make_vectors", "running_sums"]

NEGATIVES_POWER = 0.75
"""word2vec's: between drawing words as often as they are, and all alike."""

_BLOCK_WORDS = 4096


@dataclass(frozen=True)
class SlicedVectors:
    """Input and output vectors of all words, a slice of the columns on each server. Handles can be pickled.

    Attributes:
        slices: row ``word * parts + part`` is a slice of the word's input vector; the output vectors follow in the same
            order, so each server has slice ``part`` of all vectors.
        table: entry ``word * parts + part`` is the sum of the weights of the words up to this one: each server has a
            copy of the table, from which it draws negatives.
        parts: servers.
    """

    slices: glintpy.BigMatrix
    table: glintpy.BigVector
    parts: int

    @classmethod
    def create(
        cls,
        client: glintpy.Client,
        counts: NDArray[np.int64],
        updater: Updater,
        *,
        parts: int,
        dim: int,
        seed: int,
    ) -> SlicedVectors:
        """Make vectors, and the table of weights.

        Args:
            client: of the cluster.
            counts: (words,) of each word.
            updater: what servers do with gradients.
            parts: servers of the cluster.
            dim: columns, a multiple of ``parts``.
            seed: of the values.
        """
        slices = make_vectors(client, len(counts), updater, parts=parts, dim=dim, seed=seed)
        table = client.vector(len(counts) * parts, dtype="float64", partitioner="cyclic")
        table.push(None, np.repeat(running_sums(counts), parts)).result()
        return cls(slices, table, parts)

    @property
    def num_words(self) -> int:
        """Words that have vectors."""
        return len(self.table) // self.parts

    @property
    def dim(self) -> int:
        """Columns of a vector."""
        return self.slices.num_cols * self.parts

    def products(self, pairs: Pairs, *, seed: int, negatives: int) -> glintpy.Future[NDArray[np.float32]]:
        """Ask for the products of each pair's vectors, and of its input with negatives.

        Args:
            pairs: of words.
            seed: of the negatives.
            negatives: of each pair.

        Returns:
            A future of (n, 1 + negatives), the pairs' own first.
        """
        return self.slices.call(
            "dot_negative", pairs.inputs, pairs.outputs, other=self.table, seed=seed, negatives=negatives
        )

    def adjust(
        self, pairs: Pairs, gradients: NDArray[np.float32], *, seed: int, negatives: int
    ) -> glintpy.Future[None]:
        """Change the vectors of pairs and negatives.

        Args:
            pairs: as in ``products``.
            gradients: (n, 1 + negatives), those of the loss by each product.
            seed: as in ``products``.
            negatives: as in ``products``.
        """
        return self.slices.call(
            *("adjust", pairs.inputs, pairs.outputs, gradients),
            other=self.table,
            seed=seed,
            negatives=negatives,
        )

    def as_matrix(self, client: glintpy.Client, *, name: str | None = None) -> glintpy.BigMatrix:
        """Copy the input vectors into a matrix with a word a row, for ``top_k`` and for others.

        Args:
            client: of the cluster.
            name: of the matrix.
        """
        vectors = client.matrix(self.num_words, self.dim, dtype="float32", partitioner="cyclic", name=name)
        for first in range(0, self.num_words, _BLOCK_WORDS):
            last = min(first + _BLOCK_WORDS, self.num_words)
            # The slices of a word are neighbours, so that its vector is one piece of memory.
            block = self.slices.pull(slice(first * self.parts, last * self.parts)).result()
            vectors.push(slice(first, last), block.reshape(last - first, self.dim))
        vectors.flush()
        return vectors

    def destroy(self) -> None:
        """Give the memory back."""
        self.slices.destroy()
        self.table.destroy()


def make_vectors(
    client: glintpy.Client, num_words: int, updater: Updater, *, parts: int, dim: int, seed: int
) -> glintpy.BigMatrix:
    """Make a model of input and output vectors, each in so many rows: inputs are random and short, outputs are 0.

    Args:
        client: of the cluster.
        num_words: words that have vectors.
        updater: what servers do with gradients.
        parts: rows of a vector.
        dim: columns of a vector, a multiple of ``parts``.
        seed: of the values.
    """
    vectors = client.matrix(
        2 * num_words * parts,
        dim // parts,
        dtype="float32",
        partitioner="cyclic",
        init=("uniform", -0.5 / dim, 0.5 / dim),
        seed=seed,
        updater=updater,
    )
    vectors.fill(0, rows=slice(num_words * parts, None)).result()
    return vectors


def running_sums(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the running sums of the weights by which negatives are drawn."""
    return np.asarray(np.cumsum(counts.astype(np.float64) ** NEGATIVES_POWER))


def gradients_of(products: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the gradients of the loss by the products: below 0 for pairs, above for negatives.

    Args:
        products: (n, 1 + negatives).
    """
    # tanh has no overflow, whatever the product; a negative that is none has -inf, and gets 0.
    gradients = 0.5 * (1 + np.tanh(0.5 * products))
    gradients[:, 0] -= 1
    return np.asarray(gradients, np.float32)


def loss_of(products: NDArray[np.float32]) -> float:
    """Return the sum of the pairs' losses: minus the log of how likely the pairs are, and their negatives aren't.

    It is not finite if the vectors have lost all bounds.

    Args:
        products: (n, 1 + negatives).
    """
    signed = products.astype(np.float64)
    signed[:, 0] *= -1
    with np.errstate(invalid="ignore"):
        return float(np.logaddexp(0, signed).sum())
