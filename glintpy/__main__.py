"""``python -m glintpy`` is the ``glintpy`` command."""

from glintpy.cli import main

main()
