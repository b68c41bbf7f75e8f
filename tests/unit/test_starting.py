"""What a process needs when it starts: no more modules than its role has, cheap classes, and a port that is kept."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from glintpy.cluster.ports import keep_port, port_of
from glintpy.records import record
from glintpy.transport import listen

ROOT = Path(__file__).parents[2]

LOADED = """
import sys
import glintpy.process.__main__, glintpy.nodes.{role}, glintpy.transport.zeromq
print(*({{{names}}} & set(sys.modules)))
"""

NOT_A_NODES = ["typer", "pydantic", "rich", "asyncio", "ssl", "numba", "fsspec", "glintpy.client"]


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("server", [*NOT_A_NODES, "sqlite3", "glintpy.actors.master"]),
        ("master", [*NOT_A_NODES, "glintpy.actors.server", "glintpy.updaters", "glintpy.functions"]),
    ],
)
def test_a_node_loads_nothing_that_it_does_not_need(role: str, names: list[str]) -> None:
    code = LOADED.format(role=role, names=", ".join(map(repr, names)))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


@record
class Thing:
    """Holds two numbers."""

    one: int
    other: int = 2


def test_a_record_tells_what_it_holds_and_is_equal_to_itself_only() -> None:
    thing = Thing(1)
    assert repr(thing) == "Thing(one=1, other=2)"
    assert thing == thing  # noqa: PLR0124 - that is what is asked
    assert thing != Thing(1)
    assert not hasattr(thing, "__dict__")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems can't keep a port so")
def test_a_port_is_kept_for_whoever_asks_for_a_shared_address() -> None:
    end = keep_port()
    assert end is not None
    with end, socket.socket() as other:
        where = ("127.0.0.1", port_of(end))
        with pytest.raises(OSError, match="in use"):
            other.bind(where)
        for _ in range(2):
            listener = listen(f"tcp://127.0.0.1:{where[1]}")
            assert keep_port(where[1]) is None  # somebody listens
            listener.close()
        with pytest.raises(ConnectionRefusedError):
            other.connect(where)
