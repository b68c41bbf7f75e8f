"""The command line of ``word2vec.py``: texts in, vectors trained, neighbours out; the work is in its neighbours."""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import glintpy
from glintpy.updaters import Adagrad

from .counting import compare, num_bytes_of
from .text import Text, number_words, read_words
from .training import Report, Settings, train
from .vectors import SlicedVectors

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

NEIGHBOURS = 6
"""Of each word that is shown."""

SHOWN = 10
"""Words whose neighbours are shown, if none are named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example.

    Args:
        arguments: the command line without the program's name; None for this process's own.

    Returns:
        The exit status: 0, or 1 for an error that was printed.
    """
    options = _parse(arguments)
    try:
        if options.output is not None:
            options.output.open("a").close()  # a mistake is told before the training, not after it
        words = chain.from_iterable(map(read_words, options.files))
        text = number_words(words, count_min=options.min_count, words_max=options.max_words)
        with glintpy.local(servers=options.servers) as client:
            _run(client, text, options)
    except (OSError, ValueError, glintpy.GlintError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(client: glintpy.Client, text: Text, options: argparse.Namespace) -> None:
    dim = -(-options.dim // options.servers) * options.servers
    settings = Settings(
        window=options.window,
        subsample=options.subsample,
        negatives=options.negatives,
        num_epochs=options.epochs,
        batch_pairs=options.batch_pairs,
        num_workers=options.workers,
        seed=options.seed,
    )
    print(
        f"{len(text.words):,} words, {len(text.vocabulary):,} different ones; vectors of {dim} columns, "
        f"{dim // options.servers} on each of {options.servers} servers; {options.workers} workers",
        flush=True,
    )
    updater = Adagrad(learning_rate=options.rate)
    _print_bytes(client, text, settings, updater, parts=options.servers, dim=dim)
    vectors = SlicedVectors.create(
        client, text.counts, updater, parts=options.servers, dim=dim, seed=options.seed
    )
    num_bytes, num_pairs = num_bytes_of(client), 0

    def tell(report: Report) -> None:
        nonlocal num_pairs
        num_pairs += report.num_pairs
        print(f"{report.share:6.0%}  loss {report.loss:.4f}", flush=True)

    duration_s = train(client, text, vectors, settings, tell=tell)
    num_bytes = num_bytes_of(client) - num_bytes
    print(
        f"{num_pairs:,} pairs in {duration_s:.1f} s, processes' start included; "
        f"{num_bytes / max(1, num_pairs):.0f} bytes a pair",
        flush=True,
    )
    matrix = vectors.as_matrix(client)
    vectors.destroy()
    _print_neighbours(matrix, text, options.words)
    if options.output is not None:
        _write(options.output, text, matrix)


def _print_bytes(
    client: glintpy.Client, text: Text, settings: Settings, updater: Adagrad, *, parts: int, dim: int
) -> None:
    found = compare(client, text, settings, updater, parts=parts, dim=dim)
    print(
        f"bytes a pair, counted by the servers over {found.num_pairs:,} pairs: "
        f"{found.vectors_bytes:,.0f} where vectors are pulled and pushed, {found.scalars_bytes:,.0f} where they stay, "
        f"{found.vectors_bytes / found.scalars_bytes:.1f} times fewer; "
        f"the vectors are the same but for {found.difference:.0e}, of {found.size:.0e}",
        flush=True,
    )


def _print_neighbours(matrix: glintpy.BigMatrix, text: Text, named: Sequence[str]) -> None:
    number_of = {word: number for number, word in enumerate(text.vocabulary)}
    missing = [word for word in named if word not in number_of]
    if missing:
        print(f"not in the text, or too rare: {', '.join(missing)}")
    # Frequent words, but not the most frequent, which stand beside everything.
    ranks = np.geomspace(max(1, min(100, len(number_of) // 10)), len(number_of) // 2, SHOWN).astype(int)
    numbers = [number_of[word] for word in named if word in number_of] if named else np.unique(ranks).tolist()
    queries = matrix.pull(numbers).result()
    print("nearest words, by the cosine of the angle:")
    asked = [matrix.top_k(query, NEIGHBOURS + 1, metric="cosine") for query in queries]
    for number, future in zip(numbers, asked, strict=True):
        rows, scores = future.result()
        found = [
            f"{text.vocabulary[row]} {score:.2f}"
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
            if row != number
        ]
        print(f"  {text.vocabulary[number]}: {', '.join(found[:NEIGHBOURS])}")


def _write(path: Path, text: Text, matrix: glintpy.BigMatrix) -> None:
    """Write the vectors as word2vec's own program does, in text: gensim and others read it."""
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{matrix.num_rows} {matrix.num_cols}\n")
        for word, row in zip(text.vocabulary, matrix, strict=True):
            file.write(f"{word} {' '.join(f'{cell:.6g}' for cell in row.tolist())}\n")
    print(f"vectors: {path}")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number < np.inf:
        raise ValueError(text)
    return number


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="word2vec.py",
        description="Vectors of a text's words, by skip-gram with negative sampling.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    # What argparse calls them in its errors.
    _positive.__name__, _natural.__name__ = "positive integer", "integer of at least 0"
    _share.__name__ = "number of at least 0"
    add = parser.add_argument
    add("files", nargs="+", type=Path, help="texts, plain, .gz or .bz2; of .csv the column with most text")
    add("--dim", type=_positive, default=100, help="columns of a vector; rounded up to a multiple of servers")
    add("--window", type=_positive, default=5, help="words on either side, at most")
    add("--negatives", type=_positive, default=5, help="words drawn for each pair")
    add("--min-count", type=_positive, default=5, help="words that are rarer are left out")
    add("--max-words", type=_positive, help="only so many words, the most frequent ones")
    add(
        "--subsample",
        type=_share,
        default=1e-4,
        help="words of a larger share are left out at times; 0: none",
    )
    add("--rate", type=_share, default=0.05, help="the learning rate, of Adagrad")
    add("--epochs", type=_positive, default=1)
    add("--batch-pairs", type=_positive, default=1000, help="pairs of one step")
    add("--workers", type=_positive, default=2, help="processes that train")
    add("--servers", type=_positive, default=2, help="server processes that hold the vectors")
    add("--seed", type=_natural, default=0, help="of all that is random")
    add(
        "--words",
        nargs="*",
        default=[],
        metavar="WORD",
        help="whose neighbours to print; else some are chosen",
    )
    add("--output", type=Path, metavar="FILE", help="write the vectors, in word2vec's text format")
    return parser.parse_args(arguments)
