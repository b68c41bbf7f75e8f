"""A directory at any fsspec URL, local or on an object store; knows nothing of what its files mean.

The only importer of fsspec. Whatever its file systems raise becomes a ``CheckpointError`` here: each
brings exceptions of its own (botocore's, aiohttp's, plain ``OSError``), and callers know none of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from glintpy.errors import CheckpointCorrupt, CheckpointError, CheckpointNotFound, GlintError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_CREDENTIALS = re.compile(r"//[^/@\s]*@")
_NO_FSYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class Directory:
    """Files by name in one directory.

    Attributes:
        url: for messages, credentials left out.
        is_local: whether files can be renamed atomically and synced; elsewhere one put is atomic.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Find the file system; touches no file.

        Args:
            url: a path, or a URL that fsspec knows.

        Raises:
            CheckpointError: an unknown scheme, or one whose package is not installed.
        """
        text = os.fspath(url)
        self.url = _redacted(text)
        if not text:
            raise CheckpointError("the URL of a checkpoint is empty; it is a directory")
        with self._mapped("opening", None):
            import fsspec  # noqa: PLC0415 - takes as long to import as the rest of the package
            from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415 - the same

            self._files, path = fsspec.url_to_fs(text)
            self.is_local = isinstance(self._files, LocalFileSystem)
        self._path: str = path.rstrip("/")

    def make(self) -> bool:
        """Make the directory and those above it; return whether it is new.

        Raises:
            CheckpointError: it can't be made.
        """
        with self._mapped("making", None):
            is_new = not self._files.exists(self._path)
            self._files.makedirs(self._path, exist_ok=True)
            if self.is_local and is_new:
                _sync_directory(Path(self._path).parent)
        return is_new

    def remove_itself(self) -> None:
        """Remove the directory if it is empty and the store has directories."""
        # Somebody else's files in it are the usual reason why it must stay, and a good one.
        with contextlib.suppress(CheckpointError), self._mapped("removing", None):
            self._files.rmdir(self._path)

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of this name.

        Raises:
            CheckpointError: it can't be known; fsspec's own ``exists`` would call that False.
        """
        with self._mapped("looking for", name):
            self._files.invalidate_cache(self._path)
            try:
                self._files.info(self._join(name))
            except FileNotFoundError:
                return False
            return True

    def sizes(self) -> dict[str, int | None]:
        """Return the names and sizes of what lies here; a size is None where the store doesn't tell.

        Raises:
            CheckpointError: it can't be listed.
        """
        with self._mapped("listing", None):
            self._files.invalidate_cache(self._path)
            try:
                found = self._files.ls(self._path or "/", detail=True)
            except FileNotFoundError:
                return {}
            return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry.get("size") for entry in found}

    def create(self, name: str) -> IO[bytes]:
        """Open a new file for ``append``; ``finish`` must end it.

        Raises:
            CheckpointError: it can't be created.
        """
        with self._mapped("creating", name):
            file: IO[bytes] = self._files.open(self._join(name), "wb")
        return file

    def append(self, file: IO[bytes], name: str, data: bytes | memoryview) -> None:
        """Append to a file that ``create`` opened.

        Raises:
            CheckpointError: no space, no permission, an error of the device or the network.
        """
        with self._mapped("writing", name):
            file.write(data)

    def finish(self, file: IO[bytes], name: str) -> None:
        """Sync and close a file that ``create`` opened.

        Raises:
            CheckpointError: what was written didn't arrive. It is not tried again: after a failed fsync the
                system may have dropped the pages and report success.
        """
        with self._mapped("finishing", name):
            if self.is_local:
                file.flush()
                _sync(file.fileno())
            file.close()

    def write(self, name: str, data: bytes) -> None:
        """Write a whole new file and sync it.

        Raises:
            CheckpointError: it can't be written.
        """
        file = self.create(name)
        try:
            self.append(file, name, data)
        except CheckpointError:
            # The file is broken and to be deleted; why is known already.
            with contextlib.suppress(Exception):
                file.close()
            raise
        self.finish(file, name)

    def stage(self, temporary: str, data: bytes) -> None:
        """Prepare ``publish``: on a local disk everything that can fail for lack of space happens here.

        Raises:
            CheckpointError: the data can't be written.
        """
        if self.is_local:
            self.write(temporary, data)
            # The part files' names must be on the disk before a manifest that names them is.
            with self._mapped("syncing", None):
                _sync_directory(Path(self._path))

    def publish(self, temporary: str, name: str, data: bytes) -> None:
        """Replace a file by staged data, at one instant.

        Raises:
            CheckpointError: it failed; except on a local disk before its last sync it may have happened.
        """
        if not self.is_local:
            with self._mapped("replacing", name):
                self._files.pipe_file(self._join(name), data)
            return
        with self._mapped("replacing", name):
            Path(self._join(temporary)).replace(self._join(name))
        with self._mapped("in place, but perhaps not after a power failure: syncing the new", name):
            _sync_directory(Path(self._path))

    def remove(self, name: str) -> None:
        """Delete a file; one that isn't there is no error.

        Raises:
            CheckpointError: it can't be deleted.
        """
        with self._mapped("deleting", name), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._join(name))

    def read(self, name: str, bytes_max: int) -> bytes:
        """Return a small file.

        Raises:
            CheckpointNotFound: it isn't there.
            CheckpointCorrupt: it is longer than it can be.
            CheckpointError: it can't be read.
        """
        with self.open(name) as file:
            data = file.read(bytes_max + 1)
        if len(data) > bytes_max:
            raise CheckpointCorrupt(f"{name} at {self.url} has more than {bytes_max} bytes")
        return data

    def open(self, name: str) -> ReadFile:
        """Open a file for reading.

        Raises:
            CheckpointNotFound: it isn't there.
            CheckpointError: it can't be opened.
        """
        with self._mapped("opening", name):
            try:
                file: IO[bytes] = self._files.open(self._join(name), "rb")
            except NotADirectoryError as error:
                raise FileNotFoundError(str(error)) from error
        return ReadFile(self, name, file)

    def _join(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextlib.contextmanager
    def _mapped(self, doing: str, name: str | None) -> Iterator[None]:
        where = self.url if name is None else f"{name} at {self.url}"
        try:
            yield
        except (GlintError, MemoryError):
            raise
        except FileNotFoundError as error:
            raise CheckpointNotFound(f"{doing} {where}: it isn't there") from error
        except Exception as error:
            text = _redacted(f"{type(error).__name__}: {error}")
            raise CheckpointError(f"{doing} {where} failed: {text}") from error


class ReadFile:
    """A file being read from its beginning to its end; a context manager."""

    def __init__(self, directory: Directory, name: str, file: IO[bytes]) -> None:
        self._directory = directory
        self._name = name
        self._file = file
        self._position = 0

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes; fewer only at the file's end.

        Raises:
            CheckpointError: an error of the device or the network.
        """
        blocks = []
        with self._directory._mapped("reading", self._name):  # noqa: SLF001 - the same border, one file
            # fsspec's memory files are one object for all who open them, position and all.
            self._file.seek(self._position)
            while num_bytes and (block := self._file.read(num_bytes)):
                blocks.append(block)
                num_bytes -= len(block)
                self._position += len(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._directory._mapped("closing", self._name):  # noqa: SLF001 - the same border, one file
            self._file.close()


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE mounts have no fsync. Any other error means that data may be lost.
        if error.errno not in _NO_FSYNC:
            raise


def _sync_directory(path: Path) -> None:
    if os.name == "nt":  # Windows opens no directories, and its journal keeps renames in order.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _redacted(text: Any) -> str:
    return _CREDENTIALS.sub("//***@", str(text))
