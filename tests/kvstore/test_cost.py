"""What calls cost in requests: a thousand small keys are as cheap as one array of their size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from glintpy.kvstore import KVStore


def requests_of(kv: Any, call: Callable[[], Any]) -> int:
    """Return how many requests servers count for a call."""

    def count() -> int:
        return sum(server["holds"]["requests"] for server in kv.client.status(timeout_s=30)["servers"])

    before = count()
    call()
    return count() - before


def test_a_thousand_keys_are_as_few_requests_as_one_array(dist: KVStore) -> None:
    keys = list(range(1000))
    small = [np.ones(1000, "float32") for _ in keys]
    big = np.ones(1_000_000, "float32")
    dist.set_optimizer("sgd", learning_rate=0.1)
    dist.init(keys, small)
    dist.init("big", big)
    idle = requests_of(dist, lambda: None)
    for one, many in [
        (lambda: dist.push("big", big).result(), lambda: dist.push(keys, small).result()),
        (lambda: dist.pull("big"), lambda: dist.pull(keys[::-1])),
    ]:
        assert requests_of(dist, many) - idle <= requests_of(dist, one) - idle + 2


def test_few_small_keys_use_all_servers(dist: KVStore) -> None:
    dist.init(list(range(4)), [np.ones(2000, "float32")] * 4)
    held = [server["holds"]["requests"] for server in dist.client.status(timeout_s=30)["servers"]]  # type: ignore[attr-defined]
    for _ in range(20):
        dist.push(list(range(4)), [np.ones(2000, "float32")] * 4).result()
    after = [server["holds"]["requests"] for server in dist.client.status(timeout_s=30)["servers"]]  # type: ignore[attr-defined]
    assert all(later - before >= 20 for before, later in zip(held, after, strict=True))
