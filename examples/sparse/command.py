"""The command line of ``ftrl.py``: a file in, a model trained, its figures out; the work is in its neighbours."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import glintpy
from glintpy.updaters import Ftrl

from .numbering import Numbering
from .rows import SparseRows, area_under_curve, log_loss, read_libsvm
from .training import KEY_BYTES, Fitted, Settings, fit, score

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

HELD_OUT_SHARE = 0.2

PENALTIES = (0.01, 0.1, 1.0)
"""scikit-learn's C, of which the best on the held-out rows counts: to its favour."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example.

    Args:
        arguments: the command line without the program's name; None for this process's own.

    Returns:
        The exit status: 0, or 1 for an error that was printed.
    """
    options = _parse(arguments)
    if options.compare and find_spec("sklearn") is None:
        print("error: --compare needs scikit-learn", file=sys.stderr)
        return 1
    try:
        trained, held_out = _split(options)
        num_features = max(trained.num_features, held_out.num_features)
        numbering = Numbering(num_features, pairs=options.pairs, buckets=options.buckets)
        settings = Settings(
            Ftrl(learning_rate=options.alpha, beta=options.beta, l1=options.l1, l2=options.l2),
            num_workers=options.workers,
            num_epochs=options.epochs,
            batch_rows=options.batch_rows,
            seed=options.seed,
        )
        with glintpy.local(servers=options.servers) as client:
            fitted = fit(client, trained, numbering, settings)
        area, loss = score(held_out, numbering, fitted.weights)
    except (OSError, ValueError, glintpy.GlintError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{len(trained.labels):,} rows to train on, {len(held_out.labels):,} held out, {num_features:,} features"
    )
    print(f"area under the ROC curve on held-out rows: {area:.4f}, log loss {loss:.4f}")
    _print_sizes(fitted, numbering, settings)
    if options.compare:
        _print_comparison(trained, held_out, numbering)
    return 0


def _split(options: argparse.Namespace) -> tuple[SparseRows, SparseRows]:
    rows = read_libsvm(options.file)
    if options.test is not None:
        return rows, read_libsvm(options.test)
    order = np.random.default_rng(options.seed).permutation(len(rows.labels))
    num_held_out = int(HELD_OUT_SHARE * len(order))
    return rows.select(order[num_held_out:]), rows.select(order[:num_held_out])


def _print_sizes(fitted: Fitted, numbering: Numbering, settings: Settings) -> None:
    num_touched, num_keys = int(fitted.touched.sum()), numbering.num_keys
    num_zeros = int((fitted.touched & (fitted.weights == 0)).sum())
    print(f"{num_keys:,} keys, {num_touched:,} of them touched; L1 left {num_zeros:,} of these exactly 0")
    value_bytes = fitted.weights.itemsize
    # A pull sends keys and gets values; a push sends both.
    sparse = 2 * (KEY_BYTES + value_bytes) * fitted.num_keys_pulled / fitted.num_rows
    dense = 2 * value_bytes * num_keys * fitted.num_batches / fitted.num_rows
    print(
        f"pulled and pushed {sparse:,.0f} bytes a row, "
        f"{fitted.num_keys_pulled / fitted.num_batches:,.0f} keys a batch of {settings.batch_rows}; "
        f"all of the model for each batch would be {dense:,.0f} ({sparse / dense:.1%})"
    )
    print(
        f"{fitted.num_rows / fitted.duration_s:,.0f} rows/s by {settings.num_workers} workers, "
        f"{settings.num_epochs} epochs in {fitted.duration_s:.1f} s"
    )


def _print_comparison(trained: SparseRows, held_out: SparseRows, numbering: Numbering) -> None:
    """Print what scikit-learn's batch solution reaches with the same features."""
    # Imported here: only a comparison needs it, and it takes a second.
    from scipy.sparse import csr_matrix  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    def matrix(rows: SparseRows) -> csr_matrix:
        expanded = numbering.expand(rows)
        return csr_matrix(
            (expanded.values, expanded.features, expanded.starts),
            shape=(len(rows.labels), numbering.num_keys),
        )

    train, test = matrix(trained), matrix(held_out)
    found = []
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, solver="liblinear", max_iter=300)
        scores = model.fit(train, trained.labels).decision_function(test)
        found.append((area_under_curve(held_out.labels, scores), log_loss(held_out.labels, scores), penalty))
    area, loss, penalty = max(found)
    print(f"scikit-learn, all rows at once, the best of C = {', '.join(map(str, PENALTIES))}:")
    print(f"area under the ROC curve on held-out rows: {area:.4f}, log loss {loss:.4f}, C = {penalty:g}")


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


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Sparse logistic regression by FTRL-Proximal on a LIBSVM file.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    # What argparse calls them in its errors.
    _positive.__name__, _natural.__name__ = "positive integer", "integer of at least 0"
    parser.add_argument("file", type=Path, help="a LIBSVM file, plain, .gz or .bz2")
    parser.add_argument("--test", type=Path, metavar="FILE", help="held-out rows; else a fifth of FILE's")
    parser.add_argument("--pairs", action="store_true", help="a row has all pairs of its features, too")
    parser.add_argument("--buckets", type=_positive, metavar="N", help="hash all keys to N; else number them")
    parser.add_argument("--alpha", type=float, default=0.03, help="FTRL's learning rate")
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--l1", type=float, default=4.0)
    parser.add_argument("--l2", type=float, default=0.0)
    parser.add_argument("--workers", type=_positive, default=2, help="processes that train")
    parser.add_argument("--servers", type=_positive, default=2, help="server processes that hold the weights")
    parser.add_argument("--epochs", type=_positive, default=4)
    parser.add_argument("--batch-rows", type=_positive, default=64)
    parser.add_argument(
        "--seed", type=_natural, default=0, help="of the rows that are held out, and their order"
    )
    parser.add_argument("--compare", action="store_true", help="fit scikit-learn's batch solution, too")
    return parser.parse_args(arguments)
