"""Makes unpickling fail in every Python process that has this folder in its PYTHONPATH; see ``tests/unpickling.py``.

Python imports a module of this name by itself when it starts, before the program. So names that a library takes
from ``pickle`` are guarded ones. What was taken before, or goes past them, still meets the audit hook as soon as it
looks for a class or a function, without which a pickle is mere data.

Two are let through. multiprocessing is how users' programs talk to their own workers; the package itself may not use
its connections, which ``tests/test_no_pickle.py`` looks for. And numba: a server's compiled loops are kept in files
that numba pickles. They lie beside the package's own bytecode, or where NUMBA_CACHE_DIR says.
"""

from __future__ import annotations

import _pickle  # the C twin, which some take their functions from directly
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

LOG = "UNPICKLED_LOG"
"""The environment's name of a file that gets a line for each attempt: one that somebody swallows is seen there."""

ALLOWED = ("numba.", "multiprocessing.")

_HERE = __name__
_FRAMES_SHOWN = 12


class Unpickled(BaseException):
    """Something read a pickle. No handler for errors catches it."""


def check() -> None:
    """Fail, unless somebody asks who may."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in {_HERE, "pickle", "_pickle"}:
        frame = frame.f_back
    asking = "" if frame is None else str(frame.f_globals.get("__name__"))
    if asking.startswith(ALLOWED):
        return
    path = os.environ.get(LOG)
    if path:
        stack = "".join(traceback.format_stack(limit=_FRAMES_SHOWN))
        with open(path, "a", encoding="utf-8") as log:  # noqa: PTH123 - pathlib need not be there yet
            log.write(f"{asking} in process {os.getpid()} of {sys.argv[:3]}\n{stack}\n")
    raise Unpickled(f"{asking} unpickles, in a process that must not")


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        check()
        return function(*args, **kwargs)

    return guarded


def _on_event(event: str, _: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        check()


def install() -> None:
    """Guard this process, for good."""

    class Unpickler(_pickle.Unpickler):
        def load(self) -> Any:
            check()
            return super().load()

    in_python: Any = pickle._Unpickler
    in_python.load = _guarded(in_python.load)
    load, loads = _guarded(_pickle.load), _guarded(_pickle.loads)
    modules: list[Any] = [pickle, _pickle]
    for module in modules:
        module.load, module.loads, module.Unpickler = load, loads, Unpickler
    sys.addaudithook(_on_event)


install()
