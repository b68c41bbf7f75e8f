"""What users may import: exactly these names, each documented and typed, and none by accident."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

import pytest

import glintpy
from glintpy import errors, kvstore

ROOT = Path(__file__).parents[1]

PROMISED = {
    # clusters and clients
    "Client": "glintpy.client",
    "LocalCluster": "glintpy.cluster.local_cluster",
    "local": "glintpy.cluster.local_cluster",
    # models
    "BigMatrix": "glintpy.models.matrix",
    "BigTable": "glintpy.models.table",
    "BigVector": "glintpy.models.vector",
    # workers
    "Group": "glintpy.models.group",
    "Received": "glintpy.models.group_messages",
    # futures
    "Future": "glintpy.futures",
    "gather": "glintpy.futures",
    # iterators and buffers
    "RowIterator": "glintpy.models.iterators",
    "RowBlockIterator": "glintpy.models.iterators",
    "ColumnIterator": "glintpy.models.iterators",
    "PushBuffer": "glintpy.models.buffered",
}

ERRORS = (
    "AccessDenied",
    "CheckpointCorrupt",
    "CheckpointError",
    "CheckpointMismatch",
    "CheckpointNotFound",
    "ClusterError",
    "ConfigError",
    "DTypeError",
    "Expelled",
    "GlintError",
    "KeyRangeError",
    "LocalProtocolError",
    "MasterUnreachable",
    "ModelError",
    "ModelExists",
    "ModelLost",
    "ModelNotFound",
    "NotEnoughMemory",
    "NotEnoughServers",
    "Overloaded",
    "ProtocolError",
    "ProtocolMismatch",
    "PullFailed",
    "PushFailed",
    "PushOutcomeUnknown",
    "PushRefused",
    "RemoteFailure",
    "RemoteProtocolError",
    "RequestError",
    "ServerLost",
    "ShapeError",
    "WorkerLost",
    "WorkersMissing",
)

KVSTORE = (
    "SCHEDULER",
    "SERVERS",
    "WORKERS",
    "KVServer",
    "KVStore",
    "KVStoreBase",
    "KVWorker",
    "Optimizer",
    "Postoffice",
    "RowSparse",
    "SimpleApp",
    "SimpleData",
    "create",
    "create_optimizer",
)
"""What ``glintpy.kvstore`` has."""

KVWORKER = {
    "push": ["keys", "vals", "lens", "cmd", "callback", "priority"],
    "pull": ["keys", "vals", "lens", "cmd", "callback", "priority"],
    "pushpull": ["keys", "vals", "outs", "lens", "cmd", "callback", "priority"],
    "wait": ["timestamp", "timeout_s"],
    "values": ["timestamp", "timeout_s"],
    "set_slicer": ["fn"],
}
"""Its methods, and what may be given by position, which is ps-lite's order."""

NOT_CLASSES = {"__version__", "functions", "partitioning", "updaters"}

SIGNATURES = {
    "Client.matrix": ["rows", "cols"],
    "Client.vector": ["size"],
    "Client.open": ["name", "wait_s"],
    "Client.models": [],
    "Client.load": ["url"],
    "Client.servers": [],
    "Client.clients": [],
    "Client.status": [],
    "Client.wait_for_servers": ["n", "timeout_s"],
    "Client.join": ["name", "num_workers"],
    "Client.flush": ["timeout_s"],
    "Client.close": [],
    "LocalCluster.add_server": [],
    "LocalCluster.kill_server": ["index"],
    "LocalCluster.restart_server": ["index"],
    "LocalCluster.stop": [],
    "BigMatrix.pull": ["rows", "cols"],
    "BigMatrix.push": ["rows", "values"],
    "BigMatrix.push_pull": ["rows", "values"],
    "BigMatrix.save": ["url"],
    "BigMatrix.destroy": [],
    "BigMatrix.flush": [],
    "BigMatrix.with_options": [],
    "BigMatrix.call": ["function"],
    "BigMatrix.sum": ["axis"],
    "BigMatrix.dot": ["rows_a", "rows_b", "other"],
    "BigMatrix.top_k": ["query", "k"],
    "BigMatrix.sample": ["n"],
    "BigMatrix.scale": ["by"],
    "BigMatrix.fill": ["value"],
    "BigMatrix.clip": ["low", "high"],
    "BigVector.pull": ["keys"],
    "BigVector.push": ["keys", "values"],
    "BigVector.push_pull": ["keys", "values"],
    "BigVector.save": ["url"],
    "BigVector.destroy": [],
    "Group.tick": [],
    "Group.wait": ["staleness", "timeout_s"],
    "Group.barrier": ["timeout_s"],
    "Group.leave": [],
    "PushBuffer.push": [],
    "PushBuffer.flush": [],
    "RowIterator.futures": [],
    "ColumnIterator.futures": [],
    "RowBlockIterator.futures": [],
}
"""Methods, and the parameters that may be given by position, in order; more may follow."""

KEYWORDS = {
    "Client": {"timeout_s", "on_server_lost"},
    "Client.matrix": {
        "dtype",
        "partitioner",
        "partitions_per_server",
        "name",
        "exist_ok",
        "init",
        "seed",
        "updater",
        "finite",
    },
    "Client.vector": {"dtype", "partitioner", "partitions_per_server", "name", "exist_ok", "init", "seed"},
    "Client.join": {"on_worker_lost", "timeout_s"},
    "LocalCluster": {"data_dir", "scheme"},
    "local": {"data_dir"},
    "BigMatrix.pull": {"out"},
    "BigMatrix.push": {"cols"},
    "BigMatrix.push_pull": {"cols", "out"},
    "BigMatrix.call": {"rows", "other"},
    "BigMatrix.top_k": {"metric", "rows"},
    "BigMatrix.sample": {"seed", "power", "rows"},
    "BigMatrix.save": {"overwrite"},
    "RowIterator": {"block_rows", "depth", "start", "stop"},
    "RowBlockIterator": {"depth"},
    "ColumnIterator": {"depth"},
    "PushBuffer": {"max_bytes"},
}

by_name = pytest.mark.parametrize("name", [*PROMISED, *ERRORS])


def named(path: str) -> Any:
    found: Any = glintpy
    for part in path.split("."):
        found = getattr(found, part)
    return found


def test_the_public_names_are_exactly_those_promised() -> None:
    assert sorted(glintpy.__all__) == sorted([*PROMISED, *ERRORS, *NOT_CLASSES])
    assert len(glintpy.__all__) == len(set(glintpy.__all__))


def test_every_error_is_public() -> None:
    assert sorted(errors.__all__) == sorted(ERRORS)


def test_star_import_brings_the_public_names_and_nothing_else() -> None:
    space: dict[str, Any] = {}
    exec("from glintpy import *", space)  # noqa: S102 - a star import is allowed at the top of a module only
    assert set(space) - {"__builtins__"} == set(glintpy.__all__)


def test_nothing_else_looks_public() -> None:
    public = {name for name, value in vars(glintpy).items() if not name.startswith("_") and _is_ours(value)}
    assert public <= set(glintpy.__all__), "give it an underscore, or a place in __all__ and in this test"


def _is_ours(value: object) -> bool:
    # Submodules are there once they are imported, by anybody.
    return not isinstance(value, types.ModuleType) and getattr(value, "__module__", "").startswith("glintpy")


@by_name
def test_every_name_says_what_it_is_and_where_it_lives(name: str) -> None:
    value = getattr(glintpy, name)
    assert inspect.getdoc(value)
    assert value.__doc__ is not None, "it has the docstring of its parent"
    home = PROMISED.get(name, "glintpy.errors")
    assert value.__module__ == home
    assert getattr(importlib.import_module(home), name) is value


@pytest.mark.parametrize("name", PROMISED)
def test_every_public_method_is_documented_and_typed(name: str) -> None:
    value = getattr(glintpy, name)
    members = [value] if inspect.isfunction(value) else _own_members(value)
    for member in members:
        assert inspect.getdoc(member), f"{name}.{member.__name__} has no docstring"
        hints = typing.get_type_hints(member)
        parameters = [entry for entry in inspect.signature(member).parameters if entry != "self"]
        missing = {*parameters, "return"} - set(hints)
        assert not missing - {"cls"}, f"{name}.{member.__name__} has no type for {missing}"


def test_the_names_of_the_kvstore_are_exactly_those_promised_and_documented() -> None:
    assert sorted(kvstore.__all__) == sorted(KVSTORE)
    for name in KVSTORE:
        value = getattr(kvstore, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
            for member in [value] if inspect.isfunction(value) else _own_members(value):
                assert inspect.getdoc(member), f"{name}.{member.__name__} has no docstring"


@pytest.mark.parametrize("name", KVWORKER)
def test_a_kvworker_takes_what_ps_lite_s_does_in_its_order(name: str) -> None:
    parameters = inspect.signature(getattr(kvstore.KVWorker, name)).parameters
    assert [entry for entry in parameters if entry != "self"] == KVWORKER[name]


def _own_members(value: type) -> list[Any]:
    found: list[Any] = []
    for name, member in vars(value).items():
        if name.startswith("_"):
            continue
        unwrapped = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if inspect.isfunction(unwrapped):
            found.append(unwrapped)
    return found


@pytest.mark.parametrize("path", SIGNATURES)
def test_methods_take_what_was_promised(path: str) -> None:
    positional = [
        entry.name
        for entry in inspect.signature(named(path)).parameters.values()
        if entry.kind in {entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD} and entry.name != "self"
    ]
    assert positional[: len(SIGNATURES[path])] == SIGNATURES[path]


@pytest.mark.parametrize("path", KEYWORDS)
def test_settings_are_given_by_name(path: str) -> None:
    parameters = inspect.signature(named(path)).parameters
    keywords = {name for name, entry in parameters.items() if entry.kind is entry.KEYWORD_ONLY}
    assert keywords >= KEYWORDS[path]


def test_partitioners_are_reached_through_the_package() -> None:
    assert inspect.isclass(glintpy.partitioning.Partitioner)
    assert glintpy.partitioning.Partitioner.__doc__


def test_the_version_is_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert glintpy.__version__ == project["version"]


def test_the_types_are_shipped() -> None:
    assert (ROOT / "glintpy" / "py.typed").read_bytes() == b""


def test_the_command_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["glintpy"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_importing_loads_nothing_heavy_that_is_needed_later_if_at_all() -> None:
    heavy = ["typer", "rich", "fsspec", "numba", "sklearn", "hypothesis", "pytest"]
    program = f"import sys, glintpy; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert ast.literal_eval(result.stdout) == []


def test_importing_starts_nothing() -> None:
    program = "import threading, glintpy; print(threading.active_count())"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.strip() == "1"
    assert result.stderr == ""
