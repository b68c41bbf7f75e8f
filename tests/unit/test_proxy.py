"""A proxy passes everything on, in order, until it is told to spoil it; and each toxic does what it says."""

from __future__ import annotations

import contextlib
import math
import random
import select
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy.errors import ConfigError
from glintpy.testing.proxy import Proxy, Toxics
from glintpy.testing.proxy_pipe import WAITING_BYTES_MAX, Pipe

WAIT_S = 30.0

pytestmark = pytest.mark.leaks


class Ends:
    """Both ends of links through one proxy to a target of our own."""

    def __init__(self, seed: int) -> None:
        self.target = socket.create_server(("127.0.0.1", 0))
        self.target.settimeout(WAIT_S)
        self.proxy = Proxy(f"127.0.0.1:{self.target.getsockname()[1]}", seed=seed)
        self._open: list[socket.socket] = []

    def link(self) -> tuple[socket.socket, socket.socket]:
        """Return the near and the far end of a new link."""
        near = self.connect()
        far, _ = self.target.accept()
        far.settimeout(WAIT_S)
        self._open.append(far)
        return near, far

    def connect(self) -> socket.socket:
        near = socket.create_connection(("127.0.0.1", int(self.proxy.host_port.rpartition(":")[2])), WAIT_S)
        self._open.append(near)
        return near

    def close(self) -> None:
        self.proxy.stop()
        for end in (*self._open, self.target):
            end.close()


@pytest.fixture
def ends(seed: int) -> Iterator[Ends]:
    made = Ends(seed)
    try:
        yield made
    finally:
        made.close()


def receive(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return data


def is_silent(end: socket.socket) -> bool:
    """Whether nothing has come in a while: a look, not a proof; proofs count what was passed on."""
    return not select.select([end], [], [], 0.05)[0]


def until_reset(end: socket.socket) -> bytes:
    """Return what comes before the reset; fail if the stream ends in another way."""
    data = b""
    try:
        while more := end.recv(65536):
            data += more
    except ConnectionResetError:
        return data
    pytest.fail("the stream ended in good order")


# --- links ------------------------------------------------------------------------------------------------


def test_bytes_pass_in_both_directions_and_so_does_the_end(ends: Ends) -> None:
    near, far = ends.link()
    data = random.Random(1).randbytes(3_000_000)
    near.settimeout(None)
    up = memoryview(data)
    received = b""
    while up:
        up = up[near.send(up[:100_000]) :]
        received += far.recv(200_000)
    near.shutdown(socket.SHUT_WR)
    while more := far.recv(200_000):
        received += more
    assert received == data
    far.sendall(b"and back")  # one direction has ended, the other one goes on
    assert receive(near, 8) == b"and back"
    far.close()
    assert near.recv(1) == b""
    assert ends.proxy.num_bytes("up") == len(data)
    assert ends.proxy.num_bytes("down") == 8


def test_links_are_reset_at_both_ends(ends: Ends) -> None:
    links = [ends.link() for _ in range(3)]
    for near, far in links:
        near.sendall(b"x")
        assert receive(far, 1) == b"x"
    assert ends.proxy.reset_all() == 3
    for link in links:
        for end in link:
            assert until_reset(end) == b""
    near, far = ends.link()  # the next one is as good as new
    near.sendall(b"y")
    assert receive(far, 1) == b"y"
    assert (ends.proxy.num_links, ends.proxy.num_accepted) == (1, 4)


def test_a_reset_by_one_end_is_passed_on(ends: Ends) -> None:
    near, far = ends.link()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    assert until_reset(near) == b""


def test_a_blackhole_passes_nothing_until_it_is_healed(ends: Ends) -> None:
    near, far = ends.link()
    near.sendall(b"before")
    assert receive(far, 6) == b"before"
    ends.proxy.blackhole()
    near.sendall(b"within")
    far.sendall(b"answer")
    late = ends.connect()  # accepted, as if somebody were there
    late.sendall(b"late")
    assert is_silent(far)
    assert is_silent(near)
    assert (ends.proxy.num_bytes("up"), ends.proxy.num_bytes("down")) == (6, 0)
    ends.proxy.heal()
    assert receive(far, 6) == b"within"
    assert receive(near, 6) == b"answer"
    late_far, _ = ends.target.accept()
    with late_far:
        late_far.settimeout(WAIT_S)
        assert receive(late_far, 4) == b"late"


def test_one_direction_may_be_dead_while_the_other_one_lives(ends: Ends) -> None:
    near, far = ends.link()
    ends.proxy.set("down", is_blackhole=True)
    far.sendall(b"never")
    near.sendall(b"hello")
    assert receive(far, 5) == b"hello"
    assert is_silent(near)
    assert ends.proxy.num_bytes("down") == 0


def test_a_link_is_cut_after_so_many_bytes(ends: Ends) -> None:
    ends.proxy.set("up", cut_after_bytes=1000)
    near, far = ends.link()
    near.sendall(bytes(5000))
    assert len(until_reset(far)) <= 1000  # a reset may overtake what has arrived and was not read
    assert ends.proxy.num_bytes("up") == 1000
    until_reset(near)
    ends.proxy.heal()
    near, far = ends.link()
    near.sendall(bytes(5000))
    assert len(receive(far, 5000)) == 5000


def test_a_stream_is_cut_in_pieces(ends: Ends) -> None:
    ends.proxy.set(piece_bytes=8, piece_gap_s=0.0)
    near, far = ends.link()
    data = random.Random(2).randbytes(2000)
    near.sendall(data)
    assert receive(far, 2000) == data


def test_an_end_is_said_in_one_direction_while_the_sender_goes_on(ends: Ends) -> None:
    near, far = ends.link()
    near.sendall(b"x")
    assert receive(far, 1) == b"x"
    assert ends.proxy.half_close_all("up") == 1
    assert far.recv(1) == b""
    far.sendall(b"still here")
    assert receive(near, 10) == b"still here"


def test_latency_holds_what_is_sent_and_healing_lets_it_go(ends: Ends) -> None:
    near, far = ends.link()
    ends.proxy.set(latency_s=3600.0)
    near.sendall(b"slow")
    assert is_silent(far)
    ends.proxy.heal()
    assert receive(far, 4) == b"slow"
    ends.proxy.set("up", latency_s=0.05)
    began = time.monotonic()
    near.sendall(b"late")
    assert receive(far, 4) == b"late"
    assert time.monotonic() - began >= 0.05


def test_a_target_can_be_missing_and_change(ends: Ends) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = closed.getsockname()[1]
    for target in (None, f"tcp://127.0.0.1:{nowhere}"):
        ends.proxy.lead_to(target)
        with contextlib.suppress(ConnectionResetError):  # it may come before the connection is known to be up
            assert until_reset(ends.connect()) == b""
    target = f"127.0.0.1:{ends.target.getsockname()[1]}"
    ends.proxy.lead_to(f"tcp://{target}")
    assert ends.proxy.target == target
    near, far = ends.link()
    near.sendall(b"z")
    assert receive(far, 1) == b"z"


def test_a_proxy_ends_once_and_says_so_afterwards(ends: Ends) -> None:
    near, far = ends.link()
    ends.proxy.stop()
    ends.proxy.stop()
    for end in (near, far):
        until_reset(end)
    with pytest.raises(ConfigError, match="is stopped"):
        ends.proxy.reset_all()
    with pytest.raises(ConnectionRefusedError):
        ends.connect()


def test_what_can_not_be_is_refused_in_words() -> None:
    for target in ("nothing", "127.0.0.1:", ":5", "127.0.0.1:70000", "ipc:///a/b"):
        with pytest.raises(ConfigError, match="HOST:PORT"):
            Proxy(target)
    with Proxy() as proxy:
        with pytest.raises(ConfigError, match="in use"), socket.create_server(("127.0.0.1", 0)) as taken:
            Proxy(port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="latency_s"):
            proxy.set(latency_s=-1)
        with pytest.raises(ConfigError, match="piece_bytes"):
            proxy.set(piece_bytes=0)
        with pytest.raises(ConfigError, match="bytes_per_s"):
            proxy.set(bytes_per_s=0)
        with pytest.raises(ConfigError, match="cut_after_bytes"):
            proxy.set(cut_after_bytes=-1)
        with pytest.raises(TypeError, match="speed"):
            proxy.set(speed=3)


# --- one direction, on virtual time -----------------------------------------------------------------------


def drained(pipe: Pipe, now: float = 0.0) -> tuple[bytes, float, list[int]]:
    """Return what a pipe passes on, when it is done, and the sizes of its pieces."""
    passed, sizes = b"", []
    while pipe.due() < math.inf and not pipe.is_cut and not pipe.is_over(now):
        now = max(now, pipe.due())
        while (piece := pipe.piece(now)) is not None:
            passed += bytes(piece)
            sizes.append(len(piece))
            pipe.passed(len(piece), now)
    return passed, now, sizes


TOXICS = st.builds(
    Toxics,
    latency_s=st.floats(0, 1),
    jitter_s=st.floats(0, 1),
    bytes_per_s=st.one_of(st.just(math.inf), st.floats(10, 1000)),
    piece_bytes=st.one_of(st.none(), st.integers(1, 50)),
    close_delay_s=st.floats(0, 1),
)


@given(before=TOXICS, after=TOXICS, chunks=st.lists(st.binary(min_size=1, max_size=100)), seed=st.integers())
def test_whatever_a_direction_suffers_its_bytes_arrive_in_order(
    before: Toxics, after: Toxics, chunks: list[bytes], seed: int
) -> None:
    pipe = Pipe(before, random.Random(seed))
    for number, chunk in enumerate(chunks):
        pipe.put(chunk, number * 0.1)
        if number == len(chunks) // 2:
            pipe.change(after, number * 0.1)
    pipe.end(len(chunks) * 0.1)
    passed, end, _ = drained(pipe)
    assert passed == b"".join(chunks)
    assert pipe.is_over(end)


@given(cut=st.integers(0, 300), chunks=st.lists(st.binary(min_size=1, max_size=100)))
def test_a_cut_comes_after_exactly_so_many_bytes(cut: int, chunks: list[bytes]) -> None:
    pipe = Pipe(Toxics(cut_after_bytes=cut, piece_bytes=7), random.Random(0))
    for chunk in chunks:
        pipe.put(chunk, 0.0)
    data = b"".join(chunks)
    assert drained(pipe)[0] == data[:cut]
    assert pipe.is_cut == (len(data) >= cut)


def test_bandwidth_latency_and_pieces_are_what_they_are_said_to_be() -> None:
    pipe = Pipe(Toxics(bytes_per_s=1000.0), random.Random(0))
    pipe.put(bytes(5000), 0.0)
    passed, end, sizes = drained(pipe)
    assert len(passed) == 5000
    assert end == pytest.approx(4.95)  # the last step begins 50 ms before the end
    assert max(sizes) == 50
    pipe = Pipe(Toxics(latency_s=0.5, jitter_s=0.2), random.Random(0))
    dues = []
    for number in range(100):
        pipe.put(b"x", number)
        dues.append(drained(pipe, number)[1] - number)
    assert 0.3 <= min(dues) < 0.4
    assert 0.6 < max(dues) <= 0.7
    pipe = Pipe(Toxics(piece_bytes=10), random.Random(0))
    pipe.put(bytes(5000), 0.0)
    sizes = drained(pipe)[2]
    assert (min(sizes), max(sizes)) == (1, 19)


def test_a_direction_holds_back_only_so_much() -> None:
    pipe = Pipe(Toxics(latency_s=1.0), random.Random(0))
    assert pipe.wants_more
    pipe.put(bytes(WAITING_BYTES_MAX), 0.0)
    assert not pipe.wants_more
    drained(pipe)
    assert pipe.wants_more


def test_the_same_seed_spoils_in_the_same_way() -> None:
    def sizes(seed: int) -> list[int]:
        pipe = Pipe(Toxics(piece_bytes=10), random.Random(seed))
        pipe.put(bytes(500), 0.0)
        return drained(pipe)[2]

    assert sizes(3) == sizes(3)
    assert sizes(3) != sizes(4)
