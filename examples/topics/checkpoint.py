"""A fit on disk or at any URL: the shared counts, every worker's assignments, and what belongs together.

One small file, replaced in one step, names the folder that is valid; a crash while saving leaves the
previous checkpoint as it was. It knows no sampler and no processes.

::

    topic-model/
      topic-model.json      what the fit is, and the folder that holds it
      sweep-000050-7f3a/    n_wk/  n_k/  assignments-0.npy  assignments-1.npy
"""

from __future__ import annotations

import io
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import fsspec
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Description",
    "ResumeError",
    "commit",
    "load_assignments",
    "new_folder",
    "read",
    "save_assignments",
]

_INDEX = "topic-model.json"


class ResumeError(Exception):
    """A checkpoint that isn't there, is damaged, or belongs to another corpus or number of topics."""


@dataclass(frozen=True)
class Description:
    """What a checkpoint holds.

    Attributes:
        folder: the folder's name below the checkpoint's URL.
        sweep: sweeps done.
        num_workers: files of assignments.
        num_topics: the number of topics.
        document_topic: the prior of topics in documents.
        topic_word: the prior of words in topics.
        fingerprint: the corpus's.
    """

    folder: str
    sweep: int
    num_workers: int
    num_topics: int
    document_topic: float
    topic_word: float
    fingerprint: str


def new_folder(url: str, *, sweep: int) -> str:
    """Make an empty folder for a checkpoint's files.

    Args:
        url: the checkpoint's URL.
        sweep: sweeps done.

    Returns:
        The folder's name below ``url``.
    """
    name = f"sweep-{sweep:06d}-{secrets.token_hex(2)}"
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.makedirs(f"{root}/{name}", exist_ok=False)
    return name


def save_assignments(
    folder_url: str, *, number: int, positions: NDArray[np.int64], topics: NDArray[np.int32]
) -> None:
    """Write one worker's assignments.

    Args:
        folder_url: the folder's URL.
        number: the worker's number.
        positions: (tokens,) int64 where the tokens stand in the corpus.
        topics: (tokens,) int32 their topics.
    """
    with fsspec.open(f"{folder_url}/assignments-{number}.npy", "wb") as file:
        file.write(_npy_bytes(np.stack((positions, topics.astype(np.int64)))))


def commit(url: str, description: Description) -> None:
    """Make a folder the valid one, then delete the one before.

    Args:
        url: the checkpoint's URL.
        description: what the new folder holds; all its files are written.
    """
    filesystem, root = fsspec.core.url_to_fs(url)
    before = read(url).folder if filesystem.exists(f"{root}/{_INDEX}") else None
    # A transaction writes beside and moves into place: there is no moment without a valid index.
    with filesystem.transaction, filesystem.open(f"{root}/{_INDEX}", "wb") as file:
        file.write(json.dumps(vars(description), indent=2).encode())
    if before is not None and before != description.folder and filesystem.exists(f"{root}/{before}"):
        filesystem.rm(f"{root}/{before}", recursive=True)


def read(url: str) -> Description:
    """Read what a checkpoint holds.

    Args:
        url: the checkpoint's URL.

    Returns:
        Its description.

    Raises:
        ResumeError: there is none, or it can't be read.
    """
    filesystem, root = fsspec.core.url_to_fs(url)
    try:
        return Description(**json.loads(filesystem.cat_file(f"{root}/{_INDEX}")))
    except FileNotFoundError as error:
        raise ResumeError(f"there is no {_INDEX} at {url}; run once without --resume") from error
    except (TypeError, ValueError) as error:
        raise ResumeError(f"{url}/{_INDEX} is damaged ({error}); run again without --resume") from error


def load_assignments(url: str, description: Description, *, num_tokens: int) -> NDArray[np.int32]:
    """Put the workers' assignments together again; the number of workers may be another afterwards.

    Args:
        url: the checkpoint's URL.
        description: what it holds.
        num_tokens: the size of the corpus.

    Returns:
        (tokens,) int32 topics in the corpus's order.

    Raises:
        ResumeError: a file is missing or damaged, or the tokens aren't those of the corpus.
    """
    filesystem, root = fsspec.core.url_to_fs(url)
    parts = []
    for number in range(description.num_workers):
        path = f"{root}/{description.folder}/assignments-{number}.npy"
        try:
            parts.append(np.load(io.BytesIO(filesystem.cat_file(path)), allow_pickle=False))
        except (OSError, ValueError) as error:
            raise ResumeError(f"{path} can't be read ({error}); run again without --resume") from error
    positions, topics = np.concatenate(parts, axis=1)
    if not np.array_equal(np.sort(positions), np.arange(num_tokens)):
        raise ResumeError(
            f"{url} has assignments of {len(positions):,} tokens that aren't the corpus's {num_tokens:,}"
        )
    if topics.min(initial=0) < 0 or topics.max(initial=0) >= description.num_topics:
        raise ResumeError(
            f"{url} has topics from {topics.min()} to {topics.max()}, not 0 to {description.num_topics - 1}"
        )
    ordered = np.empty(num_tokens, dtype=np.int32)
    ordered[positions] = topics
    return ordered


def _npy_bytes(array: NDArray[np.int64]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
