"""Where peers live that need a Python environment of their own, and how one is made; knows no peer's inside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.system import Unavailable

INSTALL = "python benchmarks/run.py --install-peers"

RAY = ("ray", "numpy")
MXNET = ("mxnet==1.9.1", "numpy<1.20")
"""The last release; it uses names that numpy took away in 1.20, and there are wheels up to Python 3.8."""


def folder() -> Path:
    """Return where the environments lie: they are large, and none of the project's business."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "glintpy-benchmarks"


def interpreter(name: str) -> str:
    """Return the Python of a peer's environment.

    Args:
        name: of the environment.

    Raises:
        Unavailable: it was not made.
    """
    found = folder() / name / "bin" / "python"
    if not found.exists():
        raise Unavailable(f"there is no environment for it; make one with: {INSTALL}")
    return str(found)


def install() -> list[str]:
    """Make the environments that can be made here.

    Returns:
        A line for each peer that says what became of it.
    """
    lines = [_made("ray", sys.executable, RAY)]
    python = python_3_8()
    if python is None:
        lines.append("mxnet: there is no Python 3.8 here, and its last release needs it")
    else:
        lines.append(_made("mxnet", python, MXNET))
    return lines


def python_3_8() -> str | None:
    """Return a Python 3.8 of this machine, from the path or from pyenv; None if there is none."""
    candidates = [shutil.which("python3.8")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(found) for found in sorted(pyenv.glob("3.8*/bin/python"))]
    for candidate in candidates:
        # pyenv puts a name on the path for each version that it has, which fails if that one isn't chosen.
        if candidate is not None and _runs(candidate):
            return candidate
    return None


def _runs(python: str) -> bool:
    command = [python, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 8))"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - a Python of the machine


def _made(name: str, python: str, packages: tuple[str, ...]) -> str:
    target = folder() / name
    try:
        subprocess.run([python, "-m", "venv", str(target)], check=True)  # noqa: S603 - a Python of the machine
        pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(pip, check=True)  # noqa: S603 - the environment's own pip
    except (OSError, subprocess.CalledProcessError) as error:
        # Half an environment would be found and used.
        shutil.rmtree(target, ignore_errors=True)
        return f"{name}: {error}"
    return f"{name}: in {target}"
