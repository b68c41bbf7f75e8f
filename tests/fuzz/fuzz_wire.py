"""The decoder under atheris, for as long as one lets it: ``python tests/fuzz/fuzz_wire.py [corpus folder]``.

Wants the extra ``fuzz`` and the repository's root as the working directory. Not collected by pytest: the
seeded inputs of ``tests/unit/test_fuzz_wire.py`` are the part of it that runs each time.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["glintpy.protocol"]):
    from glintpy.protocol import wire

from tests.unit.test_fuzz_wire import survives  # noqa: E402 - found through the path set above
from tests.unit.wire_cases import mutated, random_frames  # noqa: E402 - as above


def one_input(data: bytes) -> None:
    """Decode what the fuzzer made: raw frames, or a mutated message with one of its frames replaced."""
    provider = atheris.FuzzedDataProvider(data)
    if provider.ConsumeIntInRange(0, 31):  # making a message to mutate takes fifty times as long as decoding
        num_frames = provider.ConsumeIntInRange(1, 5)
        frames = [provider.ConsumeBytes(provider.ConsumeIntInRange(0, 5000)) for _ in range(num_frames)]
    else:
        source = random.Random(provider.ConsumeIntInRange(0, 2**32 - 1))
        frames = mutated(random_frames(source), source)
        if frames:
            frames[source.randrange(len(frames))] = provider.ConsumeBytes(provider.remaining_bytes())
    survives(frames)


def main() -> None:
    """Run until something escapes."""
    assert callable(wire.decode_all)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
