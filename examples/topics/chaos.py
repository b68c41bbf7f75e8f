"""Trouble on purpose: kills the servers of a running fit, one after another, and restarts them.

It knows the cluster and nothing of topics. That the fit goes on, and its proof holds, is the servers' business: what
they have acknowledged survives ``kill -9``, and a worker's requests wait for them to come back.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    import glintpy

__all__ = ["Chaos"]

PAUSE_S = (0.5, 3.0)
"""Between a restart and the next kill."""

DOWN_S = (0.0, 0.5)
"""Between a kill and the restart."""


class Chaos:
    """Kills and restarts servers from a thread, while the block runs; a context manager.

    At least one server is killed, however short the block, and when it ends all servers run.

    Args:
        cluster: whose servers; nobody else starts or stops them meanwhile.
        console: where each kill and restart is told.
        seed: where chance starts.

    Attributes:
        num_kills: how many servers were killed so far.
    """

    def __init__(self, cluster: glintpy.LocalCluster, console: Console, *, seed: int) -> None:
        self.num_kills = 0
        self._cluster = cluster
        self._console = console
        self._source = random.Random(seed)  # noqa: S311 - no secret
        self._is_over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="chaos")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._is_over.is_set() or not self.num_kills:
                self._strike(self._source.randrange(len(self._cluster.servers)))
                self._is_over.wait(self._source.uniform(*PAUSE_S))
        except Exception as error:  # noqa: BLE001 - whoever trains gets it
            self._error = error

    def _strike(self, index: int) -> None:
        self._cluster.kill_server(index)
        self.num_kills += 1
        self._tell(f"kill -9 server-{index}")
        self._is_over.wait(self._source.uniform(*DOWN_S))
        began_s = time.monotonic()
        self._cluster.restart_server(index)
        self._tell(f"restarted server-{index} in {time.monotonic() - began_s:.2f} s")

    def _tell(self, text: str) -> None:
        self._console.print(f"chaos: {text}", highlight=False, soft_wrap=True)
