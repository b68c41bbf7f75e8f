"""Examples as their readers run them: as programs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GLINTPY_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
RUN_TIMEOUT_S = 240.0


def command_of(example: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(REPOSITORY / "examples" / example), *map(str, arguments)]


def run(
    example: str, *arguments: str | Path, folder: Path, status: int = 0
) -> subprocess.CompletedProcess[str]:
    # The examples find the package as an installed one; this makes it the one that is tested.
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error::ResourceWarning"}
    done = subprocess.run(
        command_of(example, *arguments),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
