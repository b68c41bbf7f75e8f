"""An updater's numbers in a segment, where they can be changed at once; knows no updater and no model.

Two *banks*, of which the newer whole one counts. A change writes the other bank, its version last, in one store. So
whoever opens the file after a kill finds the old numbers or the new ones. A bank is::

    0   u64  version, from 1; 0: empty          12  u32  CRC-32 of the text
    8   u32  bytes of the text                  16       the text
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

from glintpy.errors import ConfigError
from glintpy.protocol.spec import NUMBERS_MAX

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUMBERS = "numbers"
"""The extent's name."""

_HEAD = struct.Struct("<QII")
_BANK_BYTES = -(-(_HEAD.size + NUMBERS_MAX) // 64) * 64
NUMBERS_BYTES = 2 * _BANK_BYTES
"""Of the extent."""


class Numbers:
    """The numbers of one model, as its segment has them.

    Args:
        memory: (NUMBERS_BYTES,) uint8, aligned to 8 bytes; zeros if there are none yet.
    """

    def __init__(self, memory: NDArray[Any]) -> None:
        self._banks = [memory[:_BANK_BYTES].data, memory[_BANK_BYTES:].data]

    def read(self) -> tuple[int, str]:
        """Return the version and the text; 0 and nothing, if none was ever written."""
        found = [_read(bank) for bank in self._banks]
        return max(found)

    def write(self, version: int, text: str) -> None:
        """Replace what there is.

        Args:
            version: higher than that.
            text: ASCII, of at most ``NUMBERS_MAX`` characters.

        Raises:
            ConfigError: too long.
        """
        data = text.encode("ascii")
        if len(data) > NUMBERS_MAX:
            raise ConfigError(f"an updater's numbers take {len(data)} bytes; {NUMBERS_MAX} are the most")
        versions = [_read(bank)[0] for bank in self._banks]
        bank = self._banks[versions.index(min(versions))]
        flag = bank[:8].cast("Q")
        flag[0] = 0
        bank[_HEAD.size : _HEAD.size + len(data)] = data
        _HEAD.pack_into(bank, 0, 0, len(data), zlib.crc32(data))
        flag[0] = version


def _read(bank: memoryview) -> tuple[int, str]:
    version, length, checksum = _HEAD.unpack_from(bank)
    data = bytes(bank[_HEAD.size : _HEAD.size + min(length, NUMBERS_MAX)])
    if not version or length > NUMBERS_MAX or zlib.crc32(data) != checksum:
        return 0, ""
    return version, data.decode("ascii")
