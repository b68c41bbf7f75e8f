"""A list of entries that one worker adds to and all follow, kept in vectors of bytes on the servers.

A vector begins with how many bytes of it are in use; lines of JSON follow. The number is written last, and alone, so
who reads finds whole lines. When a vector is full its last line says so, and the list goes on in the next.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from glintpy import BigVector, Client, ConfigError

FIRST_BYTES = 1 << 20
"""Bytes of the first vector: some ten thousand keys. Each next one has twice as many."""

HEAD_BYTES = 8

NEXT = b'{"entry": "next"}\n'
"""The last line of a full vector."""


class Log:
    """The list, as one worker sees it.

    Threads:
        Belongs to one thread at a time.
    """

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._number = 0
        self._read = 0
        self._vector = self._open()

    def news(self) -> list[dict[str, Any]]:
        """Return the entries that were added since the last look.

        Raises:
            GlintError: the servers don't answer.
        """
        found: list[dict[str, Any]] = []
        while True:
            used = int.from_bytes(self._vector.pull(slice(0, HEAD_BYTES)).result().tobytes(), "little")
            if used <= self._read:
                return found
            start = HEAD_BYTES + self._read
            text = self._vector.pull(slice(start, HEAD_BYTES + used)).result().tobytes()
            self._read = used
            entries = [json.loads(line) for line in text.splitlines()]
            if not entries or entries[-1] != {"entry": "next"}:
                return found + entries
            found += entries[:-1]
            self._number += 1
            self._read = 0
            self._vector = self._open()

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add entries behind all that there are; by one worker at a time, and after ``news``.

        Raises:
            ConfigError: too many at once.
            GlintError: the servers don't answer; they may be in or not.
        """
        lines = [json.dumps(entry).encode() + b"\n" for entry in entries]
        text = b"".join(lines)
        if self._read + len(text) + len(NEXT) > len(self._vector) - HEAD_BYTES:
            if len(text) + len(NEXT) > self._bytes_of(self._number + 1) - HEAD_BYTES:
                raise ConfigError(
                    f"{len(text)} bytes of names and shapes are too many for one list; initialise the keys in two calls"
                )
            self._write(NEXT)
            self._number += 1
            self._read = 0
            self._vector = self._open()
        self._write(text)
        self._read += len(text)

    def _write(self, text: bytes) -> None:
        start = HEAD_BYTES + self._read
        self._vector.push(slice(start, start + len(text)), np.frombuffer(text, np.uint8)).result()
        used = (self._read + len(text)).to_bytes(HEAD_BYTES, "little")
        self._vector.push(slice(0, HEAD_BYTES), np.frombuffer(used, np.uint8)).result()

    def _open(self) -> BigVector:
        return self._client.vector(
            self._bytes_of(self._number),
            dtype="uint8",
            updater="assign",
            name=f"{self._prefix}directory-{self._number}",
            exist_ok=True,
        )

    @staticmethod
    def _bytes_of(number: int) -> int:
        return FIRST_BYTES << number
