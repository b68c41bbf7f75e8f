"""What a node's process is told goes through its text unchanged, and what is none ends the process with one line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from glintpy.config import MembershipSettings, ServerSettings
from glintpy.errors import ConfigError
from glintpy.process.__main__ import run
from glintpy.process.orders import MasterOrder, ServerOptions, ServerOrder, order_of, text_of

AT = "tcp://127.0.0.1:0"

SERVER = ServerOrder(
    master="tcp://127.0.0.1:5",
    name="server-0",
    address=AT,
    data_dir=Path("/somewhere/server-0"),
    insecure=True,
    options=ServerOptions(
        settings=ServerSettings(allow=("one", "two.three"), durability="disk", memory_limit=5),
        membership=MembershipSettings(beat_s=0.5),
        advertise="127.0.0.1:7",
        watchdog_s=10.0,
        failpoints="push.applied=kill",
        plant="no-dedupe",
    ),
    log_level="error",
    parent=7,
    private=Path("/somewhere"),
)

MASTER = MasterOrder(address=AT, membership=MembershipSettings(silent_s=1.0, tick_s=0.01))


@pytest.mark.parametrize(
    ("role", "order"),
    [
        ("server", SERVER),
        ("server", ServerOrder(master=AT, address=AT)),
        # The usual settings of a library, which are not those of a server that a program starts.
        (
            "server",
            ServerOrder(master=AT, address=AT, options=ServerOptions(membership=MembershipSettings())),
        ),
        ("master", MASTER),
        ("master", MasterOrder(address=AT, data_dir=Path("relative"))),
    ],
)
def test_an_order_is_what_its_text_says(role: str, order: MasterOrder | ServerOrder) -> None:
    assert asdict(order_of(role, text_of(order))) == asdict(order)


def test_a_text_says_what_somebody_chose() -> None:
    assert json.loads(text_of(ServerOrder(master=AT, name="server-0", address=AT))) == {
        "address": AT,
        "master": AT,
        "name": "server-0",
    }
    assert json.loads(text_of(MASTER))["membership"] == {"silent_s": 1.0, "tick_s": 0.01}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "it takes a role and JSON; use glintpy --help"),
        (["local", "{}"], "'local' is neither master nor server"),
        (["server", "--port"], "--port is not what a server is told"),
        (["server", "[]"], "[] is not what a server is told"),
        (["server", '{"address": "tcp://127.0.0.1:0"}'], "master"),
        (["master", '{"address": "tcp://127.0.0.1:0", "colour": 1}'], "colour"),
        (["master", '{"address": "tcp://127.0.0.1:0", "membership": {"colour": 1}}'], "colour"),
    ],
)
def test_what_is_no_order_ends_the_process_with_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_windows_fit_into_one_another() -> None:
    with pytest.raises(ConfigError, match=r"window_bytes_min \(65536\) is at most window_bytes_max \(1\)"):
        ServerOptions(settings=ServerSettings(window_bytes_max=1))
    with pytest.raises(ConfigError, match=r"at most budget_bytes \(99\)"):
        ServerOptions(settings=ServerSettings(budget_bytes=99))
