"""word2vec, skip-gram with negative sampling: workers send numbers of words, servers keep and change the vectors.

``python examples/word2vec.py FILE`` reads a text and trains with several processes that never wait for each other.
Vectors are split by columns over the servers, which multiply and change them by their functions ``dot_negative`` and
``adjust``: for each pair of words a few numbers travel, and no vector. Where to read on:

- ``words/text.py``: files become numbered words, and these become pairs;
- ``words/vectors.py``: slices of vectors on servers, what is asked of them, and the vectors as a matrix;
- ``words/training.py``: the workers, and the loss as it falls;
- ``words/counting.py``: the same steps with vectors that travel, bytes counted;
- ``words/command.py``: options, and what is printed.
"""

from __future__ import annotations

import sys

# Found through the script's own folder, which type checkers that start above it don't see.
from words.command import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    sys.exit(main())
