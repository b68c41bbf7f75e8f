"""The parent's side of the worker processes: starting them, asking all at once, ending them.

It is the barrier: an answer from every worker means that every worker stands still with its pushes done.
It knows nothing of topics.
"""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Self

from .worker import Failed, Report, Save, Stop, Sweep, work

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from types import TracebackType

    from .worker import Command, Count, Reply, Share

__all__ = ["Team", "WorkerError"]

STOP_TIMEOUT_S = 10.0
"""How long a worker that was asked to stop may take; it then has nothing left to do but close."""


class WorkerError(Exception):
    """A worker process ended, or met an error that it reported."""


class Team:
    """Worker processes, one a share; a context manager that ends them.

    Args:
        shares: what each worker works on.
    """

    def __init__(self, shares: Sequence[Share]) -> None:
        self._members: list[tuple[SpawnProcess, Connection[Command, Reply]]] = []
        # Spawned, not forked: the parent has threads, and a fork copies their locks as they stand.
        context = multiprocessing.get_context("spawn")
        # Ctrl-C reaches every process of a terminal. The workers inherit that it is held back and leave it
        # to the parent, which ends them; blocked and not ignored, the parent still hears it afterwards.
        # The tracker comes first: multiprocessing starts it with the first process, and then unblocks SIGINT.
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for share in shares:
                ours, theirs = context.Pipe()
                process = context.Process(target=work, args=(theirs, share), daemon=True)
                process.start()
                theirs.close()  # so that a worker's death closes the pipe and is seen here
                self._members.append((process, ours))
        except BaseException:
            self._end(orderly=False)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(orderly=error is None)

    def report(self, command: Count | Sweep) -> list[Report]:
        """Ask every worker for a report; return when all stand at the barrier.

        Args:
            command: what to do before reporting.

        Returns:
            The reports in the workers' order.

        Raises:
            WorkerError: a worker ended or failed.
        """
        return [reply for reply in self._ask_all(command) if isinstance(reply, Report)]

    def save(self, folder: str) -> None:
        """Have every worker write its assignments.

        Args:
            folder: the URL of an existing folder.

        Raises:
            WorkerError: a worker ended or failed.
        """
        self._ask_all(Save(folder))

    def _ask_all(self, command: Command) -> list[Reply]:
        for number, (_, connection) in enumerate(self._members):
            try:
                connection.send(command)
            except OSError as error:
                raise self._lost(number) from error
        replies: dict[int, Reply] = {}
        while len(replies) < len(self._members):
            awaited = [number for number in range(len(self._members)) if number not in replies]
            # A dead worker's pipe is ready too: what it said last can be read, and then its end.
            ready = wait([self._members[number][1] for number in awaited])
            for number in awaited:
                if self._members[number][1] in ready:
                    replies[number] = self._receive(number)
        return [replies[number] for number in range(len(self._members))]

    def _receive(self, number: int) -> Reply:
        try:
            reply = self._members[number][1].recv()
        except (EOFError, OSError) as error:
            raise self._lost(number) from error
        if isinstance(reply, Failed):
            raise WorkerError(f"worker {number} failed:\n{reply.reason}")
        return reply

    def _lost(self, number: int) -> WorkerError:
        process = self._members[number][0]
        process.join(STOP_TIMEOUT_S)
        return WorkerError(
            f"worker {number} (process {process.pid}) ended with exit code {process.exitcode}; "
            "start again with --resume to go on from the last checkpoint"
        )

    def _end(self, *, orderly: bool) -> None:
        for process, connection in self._members:
            if orderly:
                with suppress(OSError):  # it has gone already, and that is what was wanted
                    connection.send(Stop())
            else:
                process.terminate()
        for process, connection in self._members:
            process.join(STOP_TIMEOUT_S)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()
