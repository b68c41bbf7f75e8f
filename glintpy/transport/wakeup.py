"""A descriptor that one thread sets to wake another out of its poll; knows nothing else."""

from __future__ import annotations

import os
import socket
import threading


class Wakeup:
    """An ``eventfd`` where the system has it, a socket pair elsewhere.

    Threads:
        ``set`` is safe from any thread, and after ``close`` it does nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._closed = False
        self._pair: tuple[socket.socket, socket.socket] | None = None
        if hasattr(os, "eventfd"):
            self._fileno = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._pair = socket.socketpair()
            self._pair[0].setblocking(False)
            self._fileno = self._pair[0].fileno()

    def fileno(self) -> int:
        """Return the descriptor to poll for reading."""
        return self._fileno

    def set(self) -> None:
        """Make the descriptor readable until ``clear``."""
        with self._lock:
            if self._is_set or self._closed:
                return
            self._is_set = True
            if self._pair is None:
                os.eventfd_write(self._fileno, 1)
            else:
                self._pair[1].send(b"\0")

    def clear(self) -> None:
        """Make the descriptor quiet. Look for work *after* this, or a wake-up is missed."""
        with self._lock:
            if not self._is_set or self._closed:
                return
            self._is_set = False
            if self._pair is None:
                os.eventfd_read(self._fileno)
            else:
                self._pair[0].recv(16)

    def close(self) -> None:
        """Release the descriptor."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._pair is None:
                os.close(self._fileno)
            else:
                for end in self._pair:
                    end.close()
