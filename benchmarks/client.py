"""What a client process does: it reads commands, a JSON line each, from standard input and answers in kind.

It knows its system by the name of a module only. Python 3.8 and an old numpy read this module too. It ends when
its input does, so it never outlives who started it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import loops
from benchmarks.draws import Draw, draw_all
from benchmarks.steps import Model, Step, step_from

if TYPE_CHECKING:
    from benchmarks.store import Store

CHECK_NUM = 3


class Client:
    """One client: its store, and the requests that it has prepared.

    Args:
        store: its system.
        rank: its number among the clients.
    """

    def __init__(self, store: Store, rank: int) -> None:
        self._store = store
        self._rank = rank
        self._prepared: dict[str, list[Any]] = {}
        self._windows: dict[str, int] = {}

    def attach(self, model: dict[str, Any]) -> None:
        """Make a model, or find it.

        Args:
            model: as JSON says it.
        """
        self._store.attach(Model(**model), rank=self._rank)

    def check(self, model: dict[str, Any]) -> None:
        """Fail unless a push arrives: what is fast because it does nothing must not be measured.

        Args:
            model: to push to, as JSON says it.
        """
        if not self._store.holds_values:
            return
        target = Model(**model)
        what = "rows" if target.cols else "keys"
        shape = (CHECK_NUM, target.cols) if target.cols else (CHECK_NUM,)
        pull, push = (Step(verb, what, target, CHECK_NUM) for verb in ("pull", "push"))
        before = self._ask(pull, None) if self._store.adds else np.zeros(shape)
        self._ask(push, np.ones(shape, dtype=target.dtype))
        after = self._ask(pull, None)
        if after.shape != shape or not np.allclose(after - before, 1):
            raise RuntimeError(f"pushed 1 to {target.name}: it was {before.mean()} and is {after.mean()}")

    def _ask(self, step: Step, values: Any) -> Any:
        draw = Draw(np.arange(1, CHECK_NUM + 1), None, 0, 0, values)
        (request,) = self._store.prepare(step, [draw])
        return np.array(self._store.values_of(self._store.finish(self._store.issue(request))), copy=True)

    def prepare(self, key: str, step: dict[str, Any], seed: int) -> None:
        """Make the requests of a step.

        Args:
            key: names them.
            step: as JSON says it.
            seed: for all clients the same; each draws other requests from it.
        """
        asked = step_from(step)
        self._prepared[key] = self._store.prepare(asked, draw_all(asked, seed + 1000 * self._rank))
        self._windows[key] = asked.window

    def run(self, key: str, seconds: float, at: float, first: int) -> dict[str, float]:
        """Make requests for a while.

        Args:
            key: of the step.
            seconds: for how long.
            at: when to begin, by the monotonic clock, so that all clients begin together.
            first: the number of the request to begin with.
        """
        time.sleep(max(0.0, at - time.perf_counter()))
        requests = self._prepared[key]
        return loops.run(self._store, requests, window=self._windows[key], seconds=seconds, first=first)

    def drop(self, model: dict[str, Any], keys: list[str]) -> None:
        """Let go of a model and of requests.

        Args:
            model: as JSON says it.
            keys: of the steps.
        """
        for key in keys:
            self._prepared.pop(key, None)
        if self._rank == 0:
            self._store.drop(Model(**model))

    def close(self) -> None:
        """End the connection."""
        self._store.close()


def main() -> None:
    """Serve commands until the input ends."""
    # Libraries print what they like to standard output; the answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, rank = sys.argv[1], int(sys.argv[2])
    client = None
    for line in sys.stdin:
        message = json.loads(line)
        command, arguments = message.pop("command"), message
        try:
            if command == "open":
                client = Client(importlib.import_module(module).make(arguments["opening"]), rank)
                content = None
            else:
                content = getattr(client, command)(**arguments)
            answer = {"content": content}
        except Exception:  # noqa: BLE001 - told to who asked, who decides
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if command == "close":
            break
    answers.close()


if __name__ == "__main__":
    main()
