"""A worker of a KVStore, MXNet's or ours: one loop, timed; run by ``benchmarks.kvstore``, under Python 3.8 for MXNet.

The first argument is a JSON text: ``system``, ``kind``, ``sizes`` (cells of each key), ``optimizer`` (or null),
``op`` (``push_pull``, ``pushpull`` or ``push``), ``iterations``, ``compress``, and for ours ``address``, ``job`` and
``workers``. It prints the seconds that the loop took, all workers having begun together.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def mxnet_worker(options: dict[str, Any]) -> float:
    """Return the seconds of MXNet's loop."""
    import mxnet as mx  # noqa: PLC0415 - the other system's environment hasn't got it

    kv = mx.kv.create(options["kind"])
    keys = list(range(len(options["sizes"])))
    values = [mx.nd.ones(size) for size in options["sizes"]]
    outs = [mx.nd.zeros(size) for size in options["sizes"]]
    if options["compress"]:
        kv.set_gradient_compression({"type": "2bit", "threshold": 0.5})
    kv.init(keys, values)
    if options["optimizer"]:
        kv.set_optimizer(mx.optimizer.create(options["optimizer"], learning_rate=1e-9))
    kv.pull(keys, out=outs)
    mx.nd.waitall()

    def step() -> None:
        if options["op"] == "pushpull":
            kv.pushpull(keys, values, out=outs)
        else:
            kv.push(keys, values)
            if options["op"] != "push":
                kv.pull(keys, out=outs)
        if options["op"] != "push":
            mx.nd.waitall()

    for _ in range(options["iterations"]):
        step()
    mx.nd.waitall()
    kv._barrier()  # noqa: SLF001 - it has no other
    begin = time.perf_counter()
    for _ in range(options["iterations"]):
        step()
    kv.pull(keys, out=outs)
    mx.nd.waitall()
    return time.perf_counter() - begin


def our_worker(options: dict[str, Any]) -> float:
    """Return the seconds of our loop."""
    import glintpy  # noqa: PLC0415 - not in MXNet's environment
    from glintpy import kvstore  # noqa: PLC0415 - not in MXNet's environment

    with glintpy.Client(options["address"]) as client:
        kv = kvstore.create(options["kind"], client, job=options["job"], num_workers=options["workers"])
        try:
            return our_loop(kv, options)
        finally:
            kv.close()


def our_loop(kv: Any, options: dict[str, Any]) -> float:
    """Return the seconds of the loop, with a store."""
    import numpy as np  # noqa: PLC0415 - MXNet's worker has its own

    keys = list(range(len(options["sizes"])))
    values = [np.ones(size, np.float32) for size in options["sizes"]]
    outs = [np.zeros(size, np.float32) for size in options["sizes"]]
    if options["compress"]:
        kv.set_gradient_compression({"type": "2bit", "threshold": 0.5})
    kv.init(keys, values)
    if options["optimizer"]:
        kv.set_optimizer(options["optimizer"], learning_rate=1e-9)
    kv.pull(keys, out=outs)

    def step() -> None:
        if options["op"] == "pushpull":
            kv.pushpull(keys, values, out=outs)
            return
        kv.push(keys, values)
        if options["op"] != "push":
            kv.pull(keys, out=outs)

    for _ in range(options["iterations"]):
        step()
    kv.barrier()
    begin = time.perf_counter()
    for _ in range(options["iterations"]):
        step()
    kv.pull(keys, out=outs)
    seconds = time.perf_counter() - begin
    kv.barrier()
    return seconds


if __name__ == "__main__":
    found = json.loads(sys.argv[1])
    seconds = mxnet_worker(found) if found["system"] == "mxnet" else our_worker(found)
    print(json.dumps({"content": seconds}), flush=True)
