"""How commands reach a cluster, and fail at once where nobody is there; knows no model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glintpy.cli.output import Failed
from glintpy.cli.reach import listens

if TYPE_CHECKING:
    from glintpy.client import Client


@contextmanager
def connected(master: str, *, timeout_s: float, name: str) -> Iterator[Client]:
    """Yield a client of the cluster at an address.

    Args:
        master: its address.
        timeout_s: deadline of each request.
        name: what the master shows others of this client.

    Raises:
        Failed: nobody listens there.
        GlintError: whoever listens is no master, or doesn't answer.
    """
    check_listens(master)
    from glintpy.client import Client  # noqa: PLC0415 - loads numpy and ZeroMQ

    with Client(master, timeout_s=timeout_s, name=name) as client:
        yield client


def check_listens(master: str) -> None:
    """Refuse an address at which nobody listens.

    Raises:
        Failed: it says so.
        ConfigError: not an address.
    """
    from glintpy.transport import scheme_of  # noqa: PLC0415 - loads ZeroMQ

    if scheme_of(master) == "tcp" and not listens(master):
        raise Failed(
            f"the master is down: nothing listens at {master}; start one with: glintpy master, "
            "or name another with --master"
        )
