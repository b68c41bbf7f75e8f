"""The loops that are timed; know no system.

Python 3.8 and an old numpy read this module too.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.store import Store


def run(store: Store, requests: list[Any], *, window: int, seconds: float, first: int) -> dict[str, float]:
    """Make requests for a while, each behind the one before or with several in flight.

    Args:
        store: whom to ask.
        requests: what for, round and round.
        window: requests in flight; 1 waits for each.
        seconds: when the time is over the request that runs is the last; there is always one.
        first: the number of the request to begin with.

    Returns:
        began, ended (of the monotonic clock, which all processes share), num, and with a window of 1 p50_s, p99_s.
    """
    if window > 1:
        return _in_flight(store, requests, window, seconds, first)
    return _one_by_one(store, requests, seconds, first)


def _one_by_one(store: Store, requests: list[Any], seconds: float, first: int) -> dict[str, float]:
    clock, issue, finish, num = time.perf_counter, store.issue, store.finish, len(requests)
    latencies: list[float] = []
    index = first
    began = now = clock()
    end = began + seconds
    while True:
        finish(issue(requests[index % num]))
        then = clock()
        latencies.append(then - now)
        now = then
        index += 1
        if now >= end:
            break
    p50, p99 = np.percentile(latencies, [50, 99])
    return {"began": began, "ended": now, "num": len(latencies), "p50_s": float(p50), "p99_s": float(p99)}


def _in_flight(
    store: Store, requests: list[Any], window: int, seconds: float, first: int
) -> dict[str, float]:
    clock, issue, finish, num = time.perf_counter, store.issue, store.finish, len(requests)
    pending: deque[Any] = deque()
    index = first
    began = clock()
    end = began + seconds
    while True:
        pending.append(issue(requests[index % num]))
        index += 1
        if len(pending) >= window:
            finish(pending.popleft())
            if clock() >= end:
                break
    while pending:
        finish(pending.popleft())
    return {"began": began, "ended": clock(), "num": index - first}
