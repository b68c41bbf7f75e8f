"""Every transport passes the suite; the ones of the network also live with what strangers send."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from glintpy import config
from glintpy.errors import ConfigError
from glintpy.testing.transports import Ends, TransportTests
from glintpy.testing.waiting import deliver, receive, receive_from, until
from glintpy.transport import Delivery, Listener, connect, listen, scheme_of

_names = itertools.count()

STRANGERS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100f4010000f00303") + bytes(200),
    "random": random.Random(3).randbytes(10_000),
    "half-greeting": b"\xff\x00\x00\x00",
    "zmtp-without-peer": b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48) + b"\xff" * 64,
    "old-zmtp-huge-length": b"\xff" + b"\x7f" * 8 + b"\x7f" * 64,
    "nothing": b"",
}
"""What a port scanner, a browser or a broken program sends."""


class TestLocal(TransportTests):
    def new_address(self, folder: Path) -> str:
        return f"local://{folder.name}-{next(_names)}"


class OverZeroMQ(TransportTests):
    """What the network's transports have in common beyond the suite."""

    def test_a_frame_beyond_the_limit_drops_its_connection_only(self, ends: Ends) -> None:
        listener, connection, _ = ends.pair()
        other = ends.connect(listener.address)
        assert connection.changes() == []
        too_long = bytes(config.FRAME_BYTES_MAX + 1)
        assert connection.send([b"header", too_long]) is Delivery.SENT
        seen: list[bool] = []

        def is_back() -> bool:
            seen.extend(connection.changes())
            return True in seen

        until(is_back, connection, what="reconnect")
        assert seen[0] is False
        deliver(other, [b"unharmed"])
        assert receive_from(listener)[1] == [b"unharmed"]
        # The sender's connection is a new one, and good for everything up to the limit.
        deliver(connection, [too_long[1:]])
        assert receive_from(listener)[1] == [too_long[1:]]
        assert other.changes() == []


class TestTCP(OverZeroMQ):
    def new_address(self, folder: Path) -> str:
        del folder
        return "tcp://127.0.0.1:0"

    @pytest.mark.parametrize("sent", STRANGERS.values(), ids=STRANGERS)
    def test_strangers_harm_nobody(self, ends: Ends, sent: bytes) -> None:
        listener, connection, peer = ends.pair()
        host, _, port = listener.address.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as stranger:
            stranger.sendall(sent)
            for number in range(50):
                name = [str(number).encode()]
                assert connection.send(name) is Delivery.SENT
                assert _receive_from(listener, lambda found: found == peer) == name
                assert listener.send(peer, name) is Delivery.SENT
                assert receive(connection) == name
        fresh = ends.connect(listener.address)
        deliver(fresh, [b"fresh"])
        assert _receive_from(listener, lambda found: found != peer) == [b"fresh"]
        assert connection.changes() == []

    def test_a_port_that_is_not_ours_is_refused(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(ConfigError, match=address):
                listen(address)


class TestIPC(OverZeroMQ):
    def new_address(self, folder: Path) -> str:
        path = folder / f"{next(_names)}.sock"
        assert len(str(path)) < 100, "a socket's path has at most 107 bytes; give pytest a shorter --basetemp"
        return f"ipc://{path}"

    def test_a_file_that_a_killed_process_left_is_taken_over(self, ends: Ends) -> None:
        path = ends.address.removeprefix("ipc://")
        left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        left.bind(path)
        left.close()  # the file stays, and nobody listens
        listener, connection, peer = ends.pair()
        assert listener.address == ends.address
        assert listener.send(peer, [b"x"]) is Delivery.SENT
        assert receive(connection) == [b"x"]

    def test_no_file_is_left(self, ends: Ends) -> None:
        path = Path(ends.address.removeprefix("ipc://"))
        listener, _, _ = ends.pair()
        assert path.exists()
        ends.close(listener)
        assert not path.exists()


def _receive_from(listener: Listener, is_ours: Callable[[bytes], bool]) -> list[bytes]:
    # libzmq takes what doesn't greet for ZMTP 1.0, a length and a name chosen by the sender, and hands on what
    # follows as that peer's messages: bytes for the decoder to refuse, which nobody here answers.
    while True:
        peer, frames = receive_from(listener)
        if is_ours(peer) and not any(len(frame) > 10 for frame in frames):
            return frames


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:1",
        "udp://127.0.0.1:1",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://:5",
        "tcp://127.0.0.1:x",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:65536",
        "ipc://",
        "local://",
        "LOCAL://x",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_opened(address: str) -> None:
    for refuses in (scheme_of, listen, connect):
        with pytest.raises(ConfigError, match="one looks like"):
            refuses(address)
