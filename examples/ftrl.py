"""Sparse logistic regression by FTRL-Proximal: workers push gradients, servers keep the optimiser's state.

``python examples/ftrl.py FILE`` reads a LIBSVM file and trains with several processes that never wait for each other;
``--pairs`` adds all pairs of a row's features, ``--compare`` fits scikit-learn's batch solution, too. Where to read on:

- ``sparse/rows.py``: the file becomes sparse rows; the area under the ROC curve;
- ``sparse/numbering.py``: features and pairs become keys of the model, numbered or hashed;
- ``sparse/training.py``: a vector under the updater ``ftrl``, the workers, their gradients;
- ``sparse/command.py``: options, and what is printed.
"""

from __future__ import annotations

import sys

# Found through the script's own folder, which type checkers that start above it don't see.
from sparse.command import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    sys.exit(main())
