"""The guard against pickles: how it comes into this process and into all that it starts; knows no test."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

GUARD = Path(__file__).resolve().parent / "no_pickle"
"""A folder that guards each Python process which has it in its PYTHONPATH."""

LOG = "UNPICKLED_LOG"


def environment_with_guard(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment, this process's if none is given, under which Python guards itself."""
    found = dict(os.environ if environment is None else environment)
    paths = found.get("PYTHONPATH", "").split(os.pathsep)
    if str(GUARD) not in paths:
        found["PYTHONPATH"] = os.pathsep.join([str(GUARD), *filter(None, paths)])
    return found


def guard_everything(log: Path) -> None:
    """Guard this process and, whatever environment is chosen for them, those that it starts; for good.

    Args:
        log: gets what each attempt to unpickle was; nothing else makes the file.
    """
    os.environ[LOG] = str(log)
    os.environ.update(environment_with_guard())  # for those that are started in another way than below
    start: Callable[..., None] = subprocess.Popen.__init__

    def start_guarded(self: Any, *args: Any, env: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        environment = environment_with_guard(env)
        environment[LOG] = str(log)
        start(self, *args, env=environment, **kwargs)

    subprocess.Popen.__init__ = start_guarded  # type: ignore[method-assign,assignment]  # that is the point
    spec = importlib.util.spec_from_file_location("glintpy_tests_guard", GUARD / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
