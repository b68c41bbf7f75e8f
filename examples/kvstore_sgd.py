"""A small network learns handwritten digits by several processes that share its weights through a KVStore.

``python examples/kvstore_sgd.py --kv dist_sync --workers 2`` starts servers and workers by itself; so does ``glintpy
launch -n 2 -s 2 python examples/kvstore_sgd.py``, where each worker is this program. Each batch is split among the
workers. Under ``dist_sync`` servers make one step of what all push, as if one process had the whole batch; under
``dist_async`` each push is a step. What they reach is compared with the same network in one process. The digits are
scikit-learn's, 8 x 8 pixels; gradients are NumPy's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

import glintpy
from glintpy.kvstore import KVStore, create, create_optimizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

HIDDEN = 48
CLASSES = 10
HELD_OUT_SHARE = 0.2
KEYS = ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]


class Digits(NamedTuple):
    """Images and what they show: (n, 64) float32 in [0, 1] and (n,) integers."""

    images: Array
    labels: NDArray[np.int64]


def read_digits(seed: int) -> tuple[Digits, Digits]:
    """Return digits to train on, and others.

    Args:
        seed: of what is held out.
    """
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    scaled = (images[order] / 16).astype(np.float32)
    num_held_out = int(HELD_OUT_SHARE * len(labels))
    return (
        Digits(scaled[num_held_out:], labels[order][num_held_out:]),
        Digits(scaled[:num_held_out], labels[order][:num_held_out]),
    )


def initial_weights(num_pixels: int, seed: int) -> list[Array]:
    """Return weights to begin with, in the order of ``KEYS``.

    Args:
        num_pixels: of an image.
        seed: of the random ones.
    """
    rng = np.random.default_rng(seed)
    hidden = rng.normal(0, num_pixels**-0.5, (num_pixels, HIDDEN))
    output = rng.normal(0, HIDDEN**-0.5, (HIDDEN, CLASSES))
    return [array.astype(np.float32) for array in (hidden, np.zeros(HIDDEN), output, np.zeros(CLASSES))]


def activations_of(weights: list[Array], images: Array) -> tuple[Array, Array]:
    """Return the hidden layer, (n, HIDDEN), and the probability of each class, (n, CLASSES)."""
    hidden_weight, hidden_bias, output_weight, output_bias = weights
    hidden = np.maximum(images @ hidden_weight + hidden_bias, 0)
    scores = hidden @ output_weight + output_bias
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    return hidden, exponentials / exponentials.sum(1, keepdims=True)


def gradients_of(weights: list[Array], batch: Digits) -> list[Array]:
    """Return the gradients of a batch's cross entropy, summed over its images, in the order of ``KEYS``."""
    hidden, errors = activations_of(weights, batch.images)
    errors[np.arange(len(batch.labels)), batch.labels] -= 1
    below = (errors @ weights[2].T) * (hidden > 0)
    return [batch.images.T @ below, below.sum(0), hidden.T @ errors, errors.sum(0)]


def accuracy_of(weights: list[Array], digits: Digits) -> float:
    """Return the share of digits that the network reads."""
    return float((activations_of(weights, digits.images)[1].argmax(1) == digits.labels).mean())


def train(kv: KVStore, digits: Digits, options: argparse.Namespace) -> list[Array]:
    """Train as one of the store's workers, and return the weights.

    Args:
        kv: the store.
        digits: the same for all workers.
        options: the command line's.
    """
    kv.set_optimizer(
        "sgd",
        learning_rate=options.learning_rate,
        momentum=options.momentum,
        rescale_grad=1 / options.batch,
    )
    # Each worker has other random numbers; those of rank 0 count.
    kv.init(KEYS, initial_weights(digits.images.shape[1], options.seed + kv.rank))
    weights = kv.pull(KEYS)
    rng = np.random.default_rng(options.seed)
    for _ in range(options.epochs):
        order = rng.permutation(len(digits.labels))  # the same in all workers
        for start in range(0, len(order) - options.batch + 1, options.batch):
            # So each worker has a part of each batch, and all push equally often.
            mine = order[start : start + options.batch][kv.rank :: kv.num_workers]
            kv.push(KEYS, gradients_of(weights, Digits(digits.images[mine], digits.labels[mine])))
            kv.pull(KEYS, out=weights)
    kv.barrier()
    return list(kv.pull(KEYS))


def work(options: argparse.Namespace, address: str | None = None) -> None:
    """Be a worker; the first one says what came out.

    Args:
        options: the command line's.
        address: the master's; None: the environment says it.
    """
    trained, held_out = read_digits(options.seed)
    num_workers = options.workers if address is not None else None
    client = None if address is None else glintpy.Client(address)
    with create(options.kv, client, num_workers=num_workers) as kv:
        if options.compress:
            kv.set_gradient_compression({"type": options.compress, "threshold": options.threshold})
        weights = train(kv, trained, options)
        if kv.rank == 0:
            workers = "1 process" if kv.num_workers == 1 else f"{kv.num_workers} workers"
            print(
                f"{options.kv}, {workers}: {accuracy_of(weights, held_out):.3f} of held-out digits are read"
            )
        if kv.rank == 0 and options.kv != "local":
            alone = train(create("local"), trained, options)
            print(f"local, 1 process: {accuracy_of(alone, held_out):.3f} of held-out digits are read")
        kv.barrier()
    if client is not None:
        client.close()


def check(options: argparse.Namespace) -> None:
    """Refuse options that can't be, before workers start.

    Args:
        options: the command line's.

    Raises:
        ConfigError: with the number, and what it may be.
    """
    create_optimizer("sgd", learning_rate=options.learning_rate, momentum=options.momentum)
    if options.compress:
        # A store of this process checks the threshold as those of the workers will.
        create("device").set_gradient_compression({"type": options.compress, "threshold": options.threshold})
    num_digits = len(read_digits(options.seed)[0].labels)
    if options.batch > num_digits:
        raise glintpy.ConfigError(
            f"--batch is {options.batch}, and there are {num_digits} digits to train on: no batch would be full"
        )


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


def main() -> int:
    """Read the options and run.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        description="A small network on scikit-learn's digits, data-parallel through a KVStore.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    # What argparse calls them in its errors.
    _positive.__name__, _natural.__name__ = "positive integer", "integer of at least 0"
    parser.add_argument("--kv", choices=["local", "dist_sync", "dist_async"], default="dist_sync")
    parser.add_argument(
        "--workers", type=_positive, default=2, help="without glintpy launch: processes that train"
    )
    parser.add_argument(
        "--servers", type=_positive, default=2, help="without glintpy launch: server processes"
    )
    parser.add_argument("--epochs", type=_positive, default=20)
    parser.add_argument(
        "--batch", type=_positive, default=64, help="images of all workers together in a step"
    )
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument(
        "--compress", choices=["2bit"], help="two bits a value: minus the threshold, 0 or the threshold"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.32,
        help="of --compress; about the size of a gradient's values, before they are divided by --batch",
    )
    parser.add_argument("--seed", type=_natural, default=0, help="of all that is random")
    options = parser.parse_args()
    try:
        check(options)
        # Started by glintpy launch, or by a tracker of dmlc.
        is_worker = any(os.environ.get(name) for name in ("GLINTPY_MASTER", "DMLC_PS_ROOT_URI"))
        if options.kv == "local" or is_worker:
            work(options)
            return 0
        # Spawned, not forked: this process has threads, and a fork copies their locks as they stand.
        context = multiprocessing.get_context("spawn")
        with glintpy.LocalCluster(options.servers) as cluster:
            workers = [
                context.Process(target=work, args=(options, cluster.address)) for _ in range(options.workers)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        return max(1 if worker.exitcode else 0 for worker in workers)
    except glintpy.GlintError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
