"""Sessions and receipts of one server, in one recoverable file or in memory; no thread, socket or clock.

Beside the file lies the undo record: an outcome and the change that it is about count together or not at all.

A session is one client at one server. Its receipt is a counter, the highest sequence number that has an
outcome, and a ring of the last outcomes: 0 applied, 255 passed over, else the code of a failure. The table
has a fixed number of rows, written in place, so that it survives its process as the values do: receipts
that lived longer than their data, or shorter, would double pushes or lose them.

Whoever is killed in here leaves every row whole: a row counts once ``in_use`` is stored, an outcome once
``applied`` is, and each of these is a single store, made last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from glintpy import config
from glintpy.errors import ConfigError
from glintpy.protocol.failures import PASSED_OVER
from glintpy.storage.mapped import MappedFile
from glintpy.storage.undo import Undo

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_ID_BYTES = 16


class Observer(Protocol):
    """Who hears of sessions before they change; an exception of its leaves them as they are."""

    def opened(self, session_id: bytes, client_id: bytes) -> None:
        """A session is about to begin."""

    def ended(self, session_id: bytes) -> None:
        """A session is about to be forgotten."""


class _JournalFile(MappedFile):
    MAGIC = b"glintjnl"


class Session:
    """One client at this server, and what became of its pushes.

    Every change is written through to the journal's table. Once the session has ended any use of it is a
    ``ValueError`` (its memory belongs to the next one), so whoever keeps one asks ``Journal.find`` anew.

    Attributes:
        session_id: 16 random bytes.
        client_id: 16 bytes that the client chose.
        applied: the highest number that has an outcome; all below have one too.
        highest_request: for the server's own use; in memory only, 0 after a restart.
    """

    __slots__ = (
        "_applied",
        "_heard",
        "_num_receipts",
        "_ring",
        "applied",
        "client_id",
        "highest_request",
        "row",
        "session_id",
    )

    def __init__(self, row: int, memory: memoryview, layout: np.dtype[np.void]) -> None:
        """Bind a row of the table.

        Args:
            row: its index.
            memory: the row's bytes.
            layout: where its fields lie.
        """
        self.row = row
        self.session_id = bytes(_field(memory, layout, "session_id"))
        self.client_id = bytes(_field(memory, layout, "client_id"))
        # Memory views and not numpy: they store one number in 20 ns instead of 32, and can be released.
        self._applied = _field(memory, layout, "applied").cast("Q")
        self._heard = _field(memory, layout, "last_heard").cast("d")
        self._ring = _field(memory, layout, "ring")
        self._num_receipts = len(self._ring)
        self.applied: int = self._applied[0]
        self.highest_request = 0

    @property
    def last_heard(self) -> float:
        """When the client was last heard of, as told by the caller, in wall seconds."""
        return self._heard[0]

    @last_heard.setter
    def last_heard(self, now: float) -> None:
        self._heard[0] = now

    def record(self, sequence: int, code: int) -> None:
        """Remember the outcome of the next push.

        Args:
            sequence: ``applied + 1``.
            code: 0 applied, else of a failure.
        """
        assert sequence == self.applied + 1, f"outcome of push {sequence} after push {self.applied}"
        self._ring[sequence % self._num_receipts] = code
        self._applied[0] = sequence
        self.applied = sequence

    def advance(self, floor: int) -> None:
        """Pass over the numbers below a floor that have no outcome: their client has given them up.

        Args:
            floor: the oldest number whose outcome the client doesn't know. It never undoes anything: a
                floor at or below ``applied + 1`` changes nothing.
        """
        last = floor - 1
        if last <= self.applied:
            return
        # A floor may be far away; the ring only holds the last ones.
        for sequence in range(max(self.applied + 1, last - self._num_receipts + 1), last + 1):
            self._ring[sequence % self._num_receipts] = PASSED_OVER
        self._applied[0] = last
        self.applied = last

    def outcome(self, sequence: int) -> int | None:
        """Return what became of a push.

        Returns:
            0 applied, 255 passed over, else the code of its failure; None if it has no outcome yet or was
            so long ago that it is forgotten.
        """
        if not max(0, self.applied - self._num_receipts) < sequence <= self.applied:
            return None
        return self._ring[sequence % self._num_receipts]

    def outcomes(self, first: int) -> tuple[int, NDArray[np.uint8]]:
        """Return what became of the pushes from a number on.

        Args:
            first: the number asked for.

        Returns:
            The first number remembered that is not below ``first``, and (n,) uint8 outcomes of it and its
            successors up to ``applied``; none if ``first`` is above.
        """
        start = max(first, 1, self.applied - self._num_receipts + 1)
        numbers = np.arange(start, max(start, self.applied + 1))
        return start, np.frombuffer(self._ring, dtype=np.uint8)[numbers % self._num_receipts]

    def release(self) -> None:
        """Let go of the row; for the journal only."""
        for memory in (self._applied, self._heard, self._ring):
            memory.release()


class Journal:
    """The sessions of one server.

    Attributes:
        server_id: chosen when the journal was made, and kept with it.
        incarnation: how often it was opened, making it included.
        was_clean: whether the process before this one closed it in order.
        has_survived: whether it is what the process before this one left, receipts and values alike. If not, because
            the machine stopped, the sessions are gone: receipts that outlived their values would lie.
        was_whole: whether it has survived, and a process had served with it since it was last begun anew: what a power
            cut took from it was back by then. Never of one that was just made.
        undo: the undo record; None for a journal in memory.
        sessions_max: rows of the table.
        observer: hears of every session that begins or ends; None: nobody.
    """

    def __init__(
        self,
        file: MappedFile | None,
        memory: memoryview,
        *,
        server_id: str,
        layout: np.dtype[np.void],
        undo: Undo | None = None,
    ) -> None:
        """Bind a table; use ``create`` or ``open``."""
        self.server_id = server_id
        self.incarnation = 1 if file is None else file.incarnation
        self.was_clean = file is not None and file.was_clean
        self.has_survived = file is not None and file.has_survived
        self.was_whole = file is not None and file.has_survived and file.is_filled
        self.undo = undo
        self.observer: Observer | None = None
        self.sessions_max = len(memory) // layout.itemsize
        self._file = file
        self._memory = memory
        self._layout = layout
        self._free: list[int] = []
        self._sessions: dict[bytes, Session] = {}
        for row in reversed(range(self.sessions_max)):
            if _field(self._row(row), layout, "in_use")[0]:
                session = Session(row, self._row(row), layout)
                self._sessions[session.session_id] = session
            else:
                self._free.append(row)

    @classmethod
    def create(cls, path: Path | None, server_id: str, sessions_max: int) -> Journal:
        """Make an empty journal.

        Args:
            path: of a file that doesn't exist; None: in memory, gone with its process.
            server_id: to keep.
            sessions_max: how many sessions it has room for, at least one.

        Raises:
            NotEnoughMemory: no room for the file.
            ConfigError: the path is taken, in use or can't be written; or no room for a session.
        """
        if sessions_max < 1:
            raise ConfigError(f"sessions_max is at least 1, not {sessions_max}")
        layout = _layout_of(config.RECEIPTS)
        num_bytes = sessions_max * layout.itemsize
        if path is None:
            return cls(None, memoryview(bytearray(num_bytes)), server_id=server_id, layout=layout)
        description = {"server_id": server_id, "sessions_max": sessions_max, "receipts": config.RECEIPTS}
        file = _JournalFile.create(path, description, num_bytes)
        try:
            # Else a power cut soon after might leave a file of zeros, which nobody could start from.
            file.secure()
        except BaseException:
            file.delete()
            raise
        return cls._with_undo(file, server_id, layout)

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open a journal that exists, under the next incarnation.

        It keeps the numbers of rows and receipts with which it was made.

        Raises:
            ConfigError: missing, damaged or of another version.
            FileInUse: another process has it.
        """
        file = _JournalFile.open(path)
        try:
            server_id, layout = _read_description(file)
            if not file.has_survived:
                # Before the file says that it is of this boot: who dies right behind that must not leave what it found
                # to the next one, who would take it for what survived. The undo record need not even be whole.
                file.mark_filled(is_filled=False)
                file.body[:] = bytes(len(file.body))
                path.with_suffix(".undo").unlink(missing_ok=True)
            file.mark_open()
        except BaseException:
            file.close(clean=False)
            raise
        return cls._with_undo(file, server_id, layout)

    @classmethod
    def _with_undo(cls, file: MappedFile, server_id: str, layout: np.dtype[np.void]) -> Journal:
        path = file.path.with_suffix(".undo")
        try:
            undo = Undo.open(path)
        except BaseException:
            file.close(clean=False)
            raise
        return cls(file, file.body, server_id=server_id, layout=layout, undo=undo)

    def sessions(self) -> list[Session]:
        """Return all sessions."""
        return list(self._sessions.values())

    def find(self, session_id: bytes) -> Session | None:
        """Return the session of this id, or None: it never was, has ended or was expelled."""
        return self._sessions.get(session_id)

    def find_client(self, client_id: bytes) -> Session | None:
        """Return the session of a client, or None; of several the one that was heard last."""
        found = (session for session in self._sessions.values() if session.client_id == client_id)
        return max(found, key=lambda session: session.last_heard, default=None)

    @property
    def num_sessions(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    def num_alive(self, now: float, *, within_s: float) -> int:
        """Return how many sessions were heard of in the last ``within_s`` seconds."""
        return sum(now - session.last_heard <= within_s for session in self._sessions.values())

    def open_session(self, session_id: bytes, client_id: bytes, now: float) -> Session:
        """Begin a session; where there is no row left, the one that was silent longest is expelled for it.

        Args:
            session_id: 16 random bytes that no session has.
            client_id: 16 bytes that the client chose.
            now: wall seconds, comparable with those of other processes.
        """
        assert len(session_id) == _ID_BYTES, "a session's id has 16 bytes"
        assert len(client_id) == _ID_BYTES, "a client's id has 16 bytes"
        assert session_id not in self._sessions, "a session's id is used once"
        if not self._free:
            self.end(min(self._sessions.values(), key=lambda session: session.last_heard).session_id)
        if self.observer is not None:
            self.observer.opened(session_id, client_id)
        row = self._free.pop()
        memory = self._row(row)
        _field(memory, self._layout, "session_id")[:] = session_id
        _field(memory, self._layout, "client_id")[:] = client_id
        # The ring may keep what was in it: outcomes are looked up in 1 to applied only.
        _field(memory, self._layout, "applied").cast("Q")[0] = 0
        session = Session(row, memory, self._layout)
        session.last_heard = now
        _field(memory, self._layout, "in_use")[0] = 1
        self._sessions[session_id] = session
        return session

    def end(self, session_id: bytes) -> None:
        """Forget a session and its receipts; one that isn't there is forgotten already."""
        session = self._sessions.get(session_id)
        if session is None:
            return
        if self.observer is not None:
            self.observer.ended(session_id)
        del self._sessions[session_id]
        _field(self._row(session.row), self._layout, "in_use")[0] = 0
        session.release()
        self._free.append(session.row)

    def expire(self, now: float, older_than_s: float) -> list[bytes]:
        """Forget the sessions that were silent for longer, and return their ids.

        A wall clock that was set back makes silences shorter, never longer: nobody is expelled by it.
        """
        silent = [
            session.session_id
            for session in self._sessions.values()
            if now - session.last_heard > older_than_s
        ]
        for session_id in silent:
            self.end(session_id)
        return silent

    def secure(self) -> None:
        """Bring the file's name and header to the disk, so that it is found after a power cut; its rows are not.

        Raises:
            ConfigError: the file system fails.
        """
        if self._file is not None:
            self._file.secure()

    def mark_whole(self) -> None:
        """Note that it holds all that it should: from here on it is served with."""
        if self._file is not None:
            self._file.mark_filled()

    def settle(self) -> None:
        """The push under way has its receipt: there is nothing to undo any more."""
        if self.undo is not None and self.undo.is_armed:
            self.undo.clear()

    def has_receipt(self, session_id: bytes, sequence: int) -> bool:
        """Tell whether a push has an outcome."""
        session = self._sessions.get(session_id)
        return session is not None and sequence <= session.applied

    def close(self, *, clean: bool) -> None:
        """Let go of the table and of all sessions; again does nothing.

        Args:
            clean: whether no push is half applied in any model of this server.

        Raises:
            ConfigError: the file system fails; the journal then counts as not closed in order.
        """
        for session in self._sessions.values():
            session.release()
        self._sessions.clear()
        self._free.clear()
        self._memory = memoryview(b"")
        if self.undo is not None:
            self.undo.close(clean=clean)
        if self._file is not None:
            self._file.close(clean=clean)

    def _row(self, row: int) -> memoryview:
        return self._memory[row * self._layout.itemsize : (row + 1) * self._layout.itemsize]


def _layout_of(num_receipts: int) -> np.dtype[np.void]:
    """Return a row's fields; the numbers lie on multiples of 8, so that each is stored at once."""
    return np.dtype(
        {
            "names": ["applied", "last_heard", "session_id", "client_id", "in_use", "ring"],
            "formats": ["<u8", "<f8", ("u1", _ID_BYTES), ("u1", _ID_BYTES), "u1", ("u1", num_receipts)],
            "offsets": [0, 8, 16, 32, 48, 64],
            "itemsize": 64 + -(-num_receipts // 8) * 8,
        }
    )


def _field(memory: memoryview, layout: np.dtype[np.void], name: str) -> memoryview:
    """Return the bytes of one field of a row."""
    assert layout.fields is not None
    kind, offset = layout.fields[name][:2]
    return memory[offset : offset + kind.itemsize]


def _read_description(file: MappedFile) -> tuple[str, np.dtype[np.void]]:
    """Return the server's id and the layout of the rows, both as the file was made with."""
    try:
        server_id = str(file.description["server_id"])
        sessions_max, num_receipts = int(file.description["sessions_max"]), int(file.description["receipts"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file.path} lacks something in its description: {error!r}") from error
    if sessions_max < 1 or num_receipts < 1:
        raise ConfigError(f"{file.path} is for {sessions_max} sessions of {num_receipts} receipts")
    layout = _layout_of(num_receipts)
    if len(file.body) != sessions_max * layout.itemsize:
        raise ConfigError(
            f"{file.path} has {len(file.body)} bytes for {sessions_max} sessions of {layout.itemsize} bytes"
        )
    return server_id, layout
