"""Twenty thousand hostile transport messages: each is decoded or is one precise error, and none costs memory.

``tests/fuzz/fuzz_wire.py`` looks further, guided by coverage, for as long as one lets it.
"""

from __future__ import annotations

import random
import tracemalloc

import pytest

from glintpy import config
from glintpy.errors import RemoteProtocolError
from glintpy.protocol import wire
from tests.unit.wire_cases import mutated, random_frames, same

NUM_INPUTS = 5_000


def survives(frames: list[bytes]) -> bool:
    """Decode foreign frames, and whatever comes out of it encode again; tell whether they were messages."""
    request_id = wire.request_id_of(frames)
    assert request_id is None or 0 <= request_id < 2**63
    try:
        messages = wire.decode_all(frames)
    except RemoteProtocolError as error:
        refusal = str(error)
    else:
        # What was let in is allowed to go out, and comes back the same.
        again = [message for found in messages for message in wire.decode_all(wire.encode(found))]
        assert all(same(one, other) for one, other in zip(messages, again, strict=True))
        return True
    assert len(refusal) < 500, "a peer must not fill the log"
    return False


def test_random_bytes(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(NUM_INPUTS):
        survives([source.randbytes(source.choice([0, 1, 3, 17, 60])) for _ in range(source.randint(1, 4))])


def test_random_bytes_behind_the_start_of_a_header(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(NUM_INPUTS):
        start = bytes([0x94, 1, source.choice([*range(1, 12), *range(20, 27), 40, 48])])
        start += bytes([0x90 + source.randint(0, 12)])
        survives([start + source.randbytes(source.randint(0, 60)), source.randbytes(16)])


def test_mutated_messages(seed: int) -> None:
    source = random.Random(seed)
    num_taken = sum(survives(mutated(random_frames(source), source)) for _ in range(NUM_INPUTS))
    # Neither all refused nor all taken: the inputs lie on both sides of the border.
    assert NUM_INPUTS // 50 < num_taken < NUM_INPUTS // 2


def test_frames_of_several_messages_shuffled_and_cut(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(NUM_INPUTS):
        frames = [*random_frames(source), *random_frames(source)]
        source.shuffle(frames)
        survives(frames[: source.randint(0, len(frames))])


def test_what_is_not_mutated_is_taken(seed: int) -> None:
    source = random.Random(seed)
    assert all(survives(random_frames(source)) for _ in range(500))


@pytest.mark.parametrize("kind", [b"\x03", b"\x04", b"\x1a"])
def test_the_worst_inputs_cost_little_memory(seed: int, kind: bytes) -> None:
    source = random.Random(seed)
    nests = [
        b"\x90",
        b"\x91",
        b"\x80",
        b"\xdc\x00\x40",
        b"\xdd\x00\x00\x00\x40",
        b"\xa1a",
        b"\xcb" + bytes(8),
    ]
    for _ in range(300):
        header = b"\x94\x01" + kind
        while len(header) < config.HEADER_BYTES_MAX:
            header += source.choice(nests) * source.choice([1, 2, 60, 500])
        frames = [header[: config.HEADER_BYTES_MAX]] * config.MERGED_MESSAGES_MAX
        tracemalloc.start()
        try:
            survives(frames)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2 * config.MIB
