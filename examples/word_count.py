"""Words of many files, counted by several processes into one vector on the servers.

``python examples/word_count.py [FILES]`` counts the given text files, or the standard library of the Python
that runs it. Every process pushes the counts of its own files and waits for none of them; the totals are
compared with ``collections.Counter`` over all files, and must be equal to the last word.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np

import glintpy

_WORD = re.compile(r"[a-z]+")


def words_of(path: Path) -> list[str]:
    """Cut a file into lower-case words.

    Args:
        path: a text file; letters that aren't UTF-8 don't count.

    Returns:
        Its words in order.
    """
    return _WORD.findall(path.read_text(encoding="utf-8", errors="replace").lower())


def find_words(paths: list[Path]) -> set[str]:
    """Find which words some files have; the first task of a worker.

    Args:
        paths: the worker's files.

    Returns:
        The words.
    """
    return {word for path in paths for word in words_of(path)}


def push_counts(paths: list[Path], number_of: dict[str, int], counts: glintpy.BigVector) -> int:
    """Count some files into the shared vector; the second task of a worker.

    Args:
        paths: the worker's files.
        number_of: the keys of words in the vector.
        counts: the shared vector.

    Returns:
        How many words were counted.
    """
    futures, num_words = [], 0
    for path in paths:
        frequency = Counter(words_of(path))
        keys = [number_of[word] for word in frequency]
        # Nobody waits here: the next file is read while this one's counts travel.
        futures.append(counts.push(keys, list(frequency.values())))
        num_words += frequency.total()
    glintpy.gather(*futures).result()  # raises what failed: a count that is silently short is worthless
    return num_words


def count(client: glintpy.Client, paths: list[Path], *, num_workers: int) -> Counter[str]:
    """Count all files with several processes.

    Args:
        client: of the cluster that holds the vector.
        paths: the files.
        num_workers: how many processes count.

    Returns:
        The totals, pulled from the servers.
    """
    shares = [paths[worker::num_workers] for worker in range(num_workers)]
    # Spawned, not forked: this process has threads, and a fork copies their locks as they stand.
    with multiprocessing.get_context("spawn").Pool(num_workers) as pool:
        words = sorted(set().union(*pool.map(find_words, shares)))
        number_of = {word: number for number, word in enumerate(words)}
        with client.vector(len(words), dtype="int64") as counts:
            tasks = [(share, number_of, counts) for share in shares]
            num_words = sum(pool.starmap(push_counts, tasks))
            totals = counts.pull().result()
    print(f"{num_words:,} words of {len(paths):,} files counted by {num_workers} processes")
    return Counter(dict(zip(words, totals.tolist(), strict=True)))


def main() -> int:
    """Count, compare and print.

    Returns:
        The exit status: 0, or 1 where a count is wrong.
    """
    parser = argparse.ArgumentParser(description="Count words of files with several processes.")
    parser.add_argument("files", nargs="*", type=Path, help="text files; else the standard library's modules")
    parser.add_argument("--workers", type=int, default=2, help="processes that count")
    parser.add_argument("--servers", type=int, default=2, help="server processes that hold the counts")
    options = parser.parse_args()
    paths = options.files or sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    if missing := [str(path) for path in paths if not path.is_file()]:
        parser.error(f"no such file: {', '.join(missing)}")
    with glintpy.local(servers=options.servers) as client:
        totals = count(client, paths, num_workers=options.workers)
    expected = Counter(word for path in paths for word in words_of(path))
    if totals != expected:
        wrong = [word for word in expected.keys() | totals.keys() if totals[word] != expected[word]]
        word = min(wrong)
        print(f"{len(wrong):,} counts are wrong; first: {word!r} is {totals[word]:,}, not {expected[word]:,}")
        return 1
    print(f"all {np.count_nonzero(list(totals.values())):,} counts are equal to collections.Counter's")
    for word, number in sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:10]:
        print(f"{number:10,}  {word}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
