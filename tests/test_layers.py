"""Imports point downward: the contract in pyproject.toml holds, and would notice if it didn't."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
"""What the command ``lint-imports`` does; in a process of its own, since it finds packages by the folder."""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contract of the project in a folder."""
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and its contract, to be spoilt."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "glintpy", tmp_path / "glintpy", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def plant(module: Path, line: str) -> None:
    """Add an import behind the future ones of a module."""
    module.write_text(module.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")


def test_imports_point_downward() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert "2 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "reported"),
    [
        ("protocol/wire.py", "from glintpy import transport", "glintpy.protocol is not allowed to import"),
        ("partitioning/base.py", "import glintpy.rpc", "glintpy.partitioning is not allowed to import"),
        ("actors/base.py", "from glintpy.models import matrix", "glintpy.actors is not allowed to import"),
        ("errors.py", "from glintpy import config", "glintpy.errors is not allowed to import"),
        ("storage/shard.py", "from glintpy.actors import base", "glintpy.storage is not allowed to import"),
        ("kvstore/environment.py", "from glintpy import config", "glintpy.kvstore is not allowed to import"),
    ],
    ids=lambda value: value if value.endswith(".py") else "",
)
def test_an_import_that_points_upward_is_reported(copy: Path, module: str, line: str, reported: str) -> None:
    plant(copy / "glintpy" / module, line)
    result = lint(copy)
    assert result.returncode == 1, result.stderr
    assert reported in result.stdout


def test_an_import_for_types_only_is_reported_too(copy: Path) -> None:
    plant(
        copy / "glintpy" / "protocol" / "dtypes.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from glintpy import rpc",
    )
    assert "glintpy.protocol is not allowed to import glintpy.rpc" in lint(copy).stdout


def test_a_module_without_a_place_is_reported(copy: Path) -> None:
    (copy / "glintpy" / "helpers.py").write_text('"""Nobody said where this belongs."""\n', encoding="utf-8")
    result = lint(copy)
    assert result.returncode == 1, result.stderr
    assert "helpers" in result.stdout
