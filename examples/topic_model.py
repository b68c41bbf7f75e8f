"""Topics of the Python standard library, sampled by several processes that share counts through glintpy.

``python examples/topic_model.py`` starts a small cluster, fits 30 topics and prints their words; ``--help``
lists what can be changed, and ``--chaos`` kills servers all the while. Where to read on, in the order of the story:

- ``topics/corpus.py``: source files become documents of words;
- ``topics/training.py``: the shared counts on the servers, the workers, a barrier after each sweep;
- ``topics/worker.py``: pulls word blocks ahead of use, samples, pushes the moves and waits for none;
- ``topics/sampler.py``: the sampling itself, plain numpy;
- ``topics/proof.py``: after each sweep the servers' counts must equal the workers' assignments;
- ``topics/chaos.py``: servers killed and restarted on purpose, which changes nothing of that.
"""

from __future__ import annotations

import sys

# Found through the script's own folder, which type checkers that start above it don't see.
from topics.command import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    sys.exit(main())
