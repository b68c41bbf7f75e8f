"""What must be known to read the table: what is fair about it, who is missing, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from benchmarks.results import Results

HOW_TO_READ = (
    "Each cell: the median of all rounds, and their range. 'x' is glintpy's figure over that cell's, the median of "
    "the rounds' ratios. An arrow says which direction is better. In each round all systems are measured one after "
    "the other, all of them running. MB/s counts values only (10^6 bytes). With several clients latencies are their "
    "mean, rates their sum."
)

ABOUT = {
    "socket": "raw stream sockets, TCP_NODELAY, a thread a connection: as many bytes each way as selection and "
    "values have, received into memory that was used before, nothing looked at.",
    "zmq": "bare pyzmq, DEALER and ROUTER, blocking, headers of 48 and 24 bytes and frames as glintpy has them, parts "
    "of 2 MiB, the same window, nothing looked at, nothing copied out of the frames.",
    "memcpy": "np.copyto of the same values between two warm arrays.",
    "numpy": "the same selection in an array of the calling process: np.take, a[rows] += v (np.add.at where keys "
    "repeat), a[i:j].copy(), a[:, j].copy().",
    "redis": "redis-server --save '' --appendonly no, redis-py with hiredis, a connection a server, rows as binary "
    "values: MGET and pipelined SET, which overwrites; single numbers by HMGET and HSET. Names of keys and rows as "
    "bytes are made before the time runs; what comes is put into one array.",
    "redis add": "the same with HINCRBYFLOAT or HINCRBY a number, pipelined: Redis's only way to add, over tcp.",
    "ray": "one actor a server that holds a numpy array; rows are split among actors before the time runs; what is "
    "larger than 100 kB goes through Ray's shared memory, so it has no tcp or ipc of its own.",
    "mxnet": "KVStore dist_async (ps-lite), row_sparse arrays, an SGD that adds, OMP_NUM_THREADS=1, over tcp. NDArrays "
    "are made before the time runs, but for keys, whose repeats it can't carry: a program sums them for each push. A "
    "push is waited for by waiting for all that is under way.",
}
"""What each reference is."""


def notes(results: Results) -> Iterator[str]:
    """Yield the notes of a table.

    Args:
        results: of a run.
    """
    yield HOW_TO_READ
    taking_part = {entry.system for figure in results.figures for entry in figure.entries}
    for system, text in ABOUT.items():
        if system in taking_part:
            yield f"{system}: {text}"
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in results.left_out:
        grouped[entry.system, entry.reason].append(entry.where)
    for (system, reason), places in grouped.items():
        yield f"{system} is left out of {', '.join(places)}: {reason}"
