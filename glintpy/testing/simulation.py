"""A whole cluster in one thread, in virtual time, from one seed: ``run_seed``.

The real client half (requests, parts, sessions), the real wire and the real server half (actor, receipts,
journal, segments) run over a simulated network that loses, repeats, reorders, breaks and stands still, while
servers stop and come back. Afterwards every cell is looked at: each push is in exactly once, or not at all
where its future said so. The same seed gives the same run, so a failure is found once and seen for ever.
Knows no socket, thread or sleep.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from glintpy import config
from glintpy.testing.simulated_history import Violation
from glintpy.testing.simulated_servers import Build
from glintpy.testing.simulated_work import KINDS, Kind, plan_of
from glintpy.testing.simulated_world import Report, World

__all__ = ["KINDS", "Build", "Kind", "Report", "Violation", "run_seed"]


def run_seed(seed: int, *, kind: Kind | None = None, build: Build | None = None) -> Report:
    """Run one small cluster from its beginning to rest, and check everything that is promised of it.

    Not safe from several threads: ``config.PART_BYTES`` is made small meanwhile, so that small pushes have
    several parts.

    Args:
        seed: of everything random; the same seed runs alike.
        kind: of network and accidents; None: drawn from the seed.
        build: classes to put in the place of the real ones; None: the real ones.

    Returns:
        What happened, in numbers.

    Raises:
        Violation: a promise was broken; the message has the seed and the kind that show it again.
    """
    plan = plan_of(seed, kind)
    again = f"seed {seed} ({plan.kind}): again with run_seed({seed}, kind={plan.kind!r})"
    with _part_bytes(plan.part_bytes), _errors_logged() as logged, _folder(on_disk=plan.on_disk) as folder:
        world = World(plan, folder, build or Build())
        try:
            try:
                world.run()
            except Violation as error:
                raise Violation(f"{again}: {error}") from error
            broken = [*world.judge(), *(f"a server logged an error: {text}" for text in logged)]
            if broken:
                raise Violation(
                    f"{again}: {len(broken)} promises were broken:\n  " + "\n  ".join(broken[:12])
                )
            return world.report()
        finally:
            world.close()


@contextlib.contextmanager
def _part_bytes(num_bytes: int) -> Iterator[None]:
    before, config.PART_BYTES = config.PART_BYTES, num_bytes
    try:
        yield
    finally:
        config.PART_BYTES = before


@contextlib.contextmanager
def _folder(*, on_disk: bool) -> Iterator[Path | None]:
    if not on_disk:
        yield None
        return
    memory = Path("/dev/shm")  # noqa: S108 - a file system in memory, where there is one; the folder is private
    folder = Path(tempfile.mkdtemp(prefix="glintpy-simulation-", dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@contextlib.contextmanager
def _errors_logged() -> Iterator[list[str]]:
    """Collect what servers log as errors: an actor swallows its exceptions, and says so there."""
    collector = _Collector()
    logger = logging.getLogger("glintpy.actors")
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield collector.texts
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagates
