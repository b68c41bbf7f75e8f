"""Skip-gram with negative sampling in plain numpy, in one process, a pair at a time: what servers are held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import BigMatrix, BigVector, Client


class Reference:
    """Vectors of all words, and what a step makes of them.

    Args:
        inputs: (words, dim) float64.
        outputs: (words, dim) float64.
        weights: (words,) by which negatives are drawn.
    """

    def __init__(
        self, inputs: NDArray[np.float64], outputs: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None:
        self.inputs, self.outputs = inputs.copy(), outputs.copy()
        self.sums = np.cumsum(weights)

    def negatives(self, num_pairs: int, *, seed: int, negatives: int) -> list[list[int]]:
        # Not as the servers do it: numpy's own generator, and a search from the left.
        draws = np.random.default_rng(seed).random((num_pairs, negatives)) * self.sums[-1]
        return [[int(np.flatnonzero(self.sums > draw)[0]) for draw in row] for row in draws]

    def products(
        self, inputs: list[int], outputs: list[int], *, seed: int, negatives: int
    ) -> NDArray[np.float64]:
        drawn = self.negatives(len(inputs), seed=seed, negatives=negatives)
        found = np.full((len(inputs), 1 + negatives), -np.inf)
        for pair, (word, output) in enumerate(zip(inputs, outputs, strict=True)):
            found[pair, 0] = self.inputs[word] @ self.outputs[output]
            for place, negative in enumerate(drawn[pair], start=1):
                if negative != output:
                    found[pair, place] = self.inputs[word] @ self.outputs[negative]
        return found

    def adjust(
        self, inputs: list[int], outputs: list[int], gradients: NDArray[Any], *, seed: int, negatives: int
    ) -> None:
        drawn = self.negatives(len(inputs), seed=seed, negatives=negatives)
        old_inputs, old_outputs = self.inputs.copy(), self.outputs.copy()
        for pair, (word, output) in enumerate(zip(inputs, outputs, strict=True)):
            for place, target in enumerate([output, *drawn[pair]]):
                if place and target == output:
                    continue
                self.inputs[word] += gradients[pair, place] * old_outputs[target]
                self.outputs[target] += gradients[pair, place] * old_inputs[word]


@dataclass(frozen=True)
class Sliced:
    """The same vectors on servers."""

    slices: BigMatrix
    table: BigVector
    parts: int

    @classmethod
    def of(
        cls, client: Client, reference: Reference, *, parts: int, dtype: str = "float64", **more: Any
    ) -> Sliced:
        """Make models of a reference's values: ``parts`` partitions in all."""
        num_words, dim = reference.inputs.shape
        slices = client.matrix(2 * num_words * parts, dim // parts, dtype=dtype, partitioner="cyclic", **more)
        both = np.concatenate([reference.inputs, reference.outputs])
        slices.push(None, both.reshape(2 * num_words * parts, dim // parts).astype(dtype))
        more.pop("finite", None)
        table = client.vector(num_words * parts, dtype="float64", partitioner="cyclic", **more)
        table.push(None, np.repeat(reference.sums, parts))
        return cls(slices, table, parts)

    def values(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the input and the output vectors."""
        both = self.slices.pull().result()
        num_words = len(both) // (2 * self.parts)
        vectors = both.reshape(2 * num_words, -1)
        return vectors[:num_words], vectors[num_words:]

    def end(self) -> None:
        self.slices.destroy()
        self.table.destroy()


def some_reference(random: np.random.Generator, *, num_words: int, dim: int) -> Reference:
    """Vectors that are not small, and weights of which some are 0."""
    weights = random.integers(0, 9, num_words).astype(np.float64) ** 0.75
    weights[-1] = 0
    weights[0] = 3
    shape = num_words, dim
    return Reference(random.normal(size=shape), random.normal(size=shape), weights)


def some_pairs(random: np.random.Generator, num_pairs: int, num_words: int) -> tuple[list[int], list[int]]:
    """Pairs of few different words, so that they repeat, and some of a word with itself."""
    found = random.integers(0, num_words, (2, num_pairs))
    found[1, ::5] = found[0, ::5]
    inputs: list[int]
    outputs: list[int]
    inputs, outputs = found.tolist()
    return inputs, outputs
