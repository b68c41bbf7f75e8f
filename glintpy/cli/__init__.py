"""The ``glintpy`` command; knows only what programs know: the public names, and how nodes are started.

Everything that takes time to import (numpy, ZeroMQ, the tables) is imported by the command that needs it,
so that ``glintpy --help`` and a mistyped option are answered at once.
"""

from __future__ import annotations

from glintpy.cli.app import main

__all__ = ["main"]
