"""No code comes from outside: nothing in the package runs, unpickles or imports what bytes or files say.

Handles can be pickled by whoever uses them, for their own processes; that is Python's protocol and needs no
pickle in the package. Run the suite with ``--no-pickle`` to see that nothing unpickles while it runs.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glintpy.storage import kernels
from glintpy.updaters import Add
from tests.unpickling import GUARD, environment_with_guard

ROOT = Path(__file__).resolve().parents[1]

MODULES = frozenset(
    {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
) | frozenset({"jsonpickle", "msgpack_numpy", "code", "codeop", "runpy"})
"""Modules that make objects or run code of what they read."""

SUBMODULES = frozenset(
    f"multiprocessing.{name}" for name in ("connection", "managers", "queues", "Pipe", "Queue")
)
"""What unpickles whatever comes through it."""

BUILTINS = ("eval", "exec", "compile", "__import__")

CALLS = frozenset({*BUILTINS, *(f"builtins.{name}" for name in BUILTINS)}) | frozenset(
    {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle", "torch.load"}
)

METHODS = frozenset({"recv_pyobj", "send_pyobj", "exec_module", "load_module"})
"""Of whatever object."""

SAME_CONSTANTS_ONLY = frozenset(
    {
        "numpy.dtype",
        "importlib.import_module",
        "numba.from_dtype",
    }
)
"""What turns a text into an object: harmless for a text that stands there, a small language for a stranger's."""

EXCEPTIONS = {
    (
        "glintpy/testing/partitioners.py",
        "import pickle",
    ): "a conformance suite: it unpickles what it pickled itself",
    (
        "glintpy/testing/models.py",
        "import pickle",
    ): "a conformance suite: it unpickles what it pickled itself",
    ("glintpy/testing/models.py", "numpy.dtype(...)"): "names that the suite's own class lists",
    ("glintpy/testing/partitioners.py", "numpy.dtype(...)"): "a class of numpy's, named in place",
    ("glintpy/__init__.py", "importlib.import_module(...)"): "the package's own table of its public names",
    ("glintpy/nodes/__init__.py", "importlib.import_module(...)"): "its own table of its public names",
    (
        "glintpy/cli/machine.py",
        "importlib.import_module(...)",
    ): "the command's own table of libraries to look for",
    (
        "glintpy/protocol/dtypes.py",
        "numpy.dtype(...)",
    ): "the one border where a dtype's name becomes a dtype: what "
    "is not in its table is refused; names from the wire and from files are looked up in the table",
    ("glintpy/storage/compiled.py", "numpy.dtype(...)"): "a class of numpy's, named in place",
    ("glintpy/storage/journal.py", "numpy.dtype(...)"): "a layout that stands there, with one length in it",
    ("glintpy/storage/kernels.py", "numba.from_dtype(...)"): "a model's dtype, from the table",
    (
        "glintpy/brought.py",
        "importlib.import_module(...)",
    ): "custom updaters, below the prefixes that whoever started the process named; none unless told",
}
"""Where what is forbidden stands all the same: file and finding, and why it is harmless."""


# --- the look ---------------------------------------------------------------------------------------------------


def findings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of everything forbidden in a module's text."""
    tree = ast.parse(text)
    names = dict(_names(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    if alias.name.split(".")[0] in MODULES or alias.name in SUBMODULES:
                        yield node.lineno, f"import {alias.name.split('.')[0]}"
            case ast.ImportFrom(module=str(module)) if node.level == 0:
                if {module, *(f"{module}.{alias.name}" for alias in node.names)} & SUBMODULES:
                    yield node.lineno, f"import of {module}"
                if module.split(".")[0] in MODULES:
                    yield node.lineno, f"import {module.split('.')[0]}"
                for alias in node.names:
                    if f"{module}.{alias.name}" in CALLS:
                        yield node.lineno, f"{module}.{alias.name}"
            case ast.Attribute() if node.attr in METHODS:
                yield node.lineno, node.attr
            case ast.Name() | ast.Attribute() if _dotted(node, names) in CALLS:
                # Not only where it is called: a function can be handed on.
                yield node.lineno, _dotted(node, names)
            case ast.Call():
                yield from _in_call(node, _dotted(node.func, names))
            case ast.Constant(value="__reduce__" | "__reduce_ex__"):
                yield node.lineno, "a name of pickle's"


def _names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield what a module calls things, and what they are: ``np`` is ``numpy``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value, names)
        # numba is handed about as an object, since only one module may import it.
        return f"{'numba' if before in {'self._numba', 'numba'} else before}.{node.attr}"
    return "?"


def _in_call(call: ast.Call, name: str) -> Iterator[tuple[int, str]]:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    allow = keywords.get("allow_pickle")
    allows = allow is not None and not (isinstance(allow, ast.Constant) and allow.value is False)
    if allows or (None in keywords and name in {"numpy.load", "numpy.save"}):
        yield call.lineno, "allow_pickle"
    elif name in {"numpy.load", "numpy.lib.format.read_array", "numpy.lib.npyio.NpzFile"} and allow is None:
        yield call.lineno, f"{name} without allow_pickle=False"
    if name in SAME_CONSTANTS_ONLY and not all(isinstance(given, ast.Constant) for given in call.args):
        yield call.lineno, f"{name}(...)"


def test_nothing_in_the_package_makes_code_of_what_it_reads() -> None:
    found, used = [], set()
    for path in sorted((ROOT / "glintpy").rglob("*.py")):
        label = path.relative_to(ROOT).as_posix()
        for line, what in findings(path.read_text(encoding="utf-8")):
            if (label, what) in EXCEPTIONS:
                used.add((label, what))
            else:
                found.append(f"{label}:{line}: {what}")
    assert found == [], "no code from outside; an exception needs a reason in EXCEPTIONS"
    assert used == set(EXCEPTIONS), "an exception that nothing needs is a hole that nobody watches"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import cPickle",
        "from _pickle import loads",
        "import dill as json",
        "from cloudpickle import loads",
        "def f():\n    import marshal",
        "import shelve",
        "import joblib.numpy_pickle",
        "import msgpack_numpy",
        "import multiprocessing.connection",
        "from multiprocessing.connection import Listener",
        "from multiprocessing import Pipe",
        "from multiprocessing import connection as c",
        "from msgpack_numpy import decode",
        "eval(text)",
        "exec(text)",
        "compile(text, 'name', 'exec')",
        "run = eval",
        "map(eval, texts)",
        "import builtins\nbuiltins.exec(text)",
        "from builtins import eval as parse",
        "__import__(name)",
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module as get\nget(name)",
        "socket.recv_pyobj()",
        "socket.send_pyobj(array)",
        "receive = self.socket.recv_pyobj",
        "import yaml\nyaml.load(text)",
        "from yaml import load",
        "import yaml as y\ny.load(text)",
        "import numpy as np\nnp.load(file)",
        "from numpy import load\nload(file)",
        "import numpy\nnumpy.load(file, allow_pickle=True)",
        "import numpy as np\nnp.load(file, allow_pickle=yes)",
        "import numpy as np\nnp.load(file, **options)",
        "import numpy as np\nnp.lib.format.read_array(file, allow_pickle=1)",
        "import numpy as np\nnp.dtype(name)",
        "import numpy as np\nnp.dtype([('a', kind)])",
        "from numpy import dtype\ndtype(header['descr'])",
    ],
)
def test_each_forbidden_thing_is_found(text: str) -> None:
    assert list(findings(text))


@pytest.mark.parametrize(
    "text",
    [
        "import re\nre.compile('a')",
        "dispatcher.compile(signature)",
        "model.eval()",
        "import numpy as np\nnp.load(file, allow_pickle=False)",
        "import numpy as np\nnp.dtype('<i8')",
        "import yaml\nyaml.safe_load(text)",
        "import json\njson.load(file)",
        "checkpoint.load(url)",
        "from multiprocessing import util",
        "from .loops import load\nload(name)",
    ],
)
def test_what_only_looks_alike_is_not_found(text: str) -> None:
    assert list(findings(text)) == []


# --- the switch -------------------------------------------------------------------------------------------------

ATTEMPTS = {
    "pickle.loads": "import pickle; pickle.loads(data)",
    "pickle.load": "import io, pickle; pickle.load(io.BytesIO(data))",
    "_pickle.loads": "import _pickle; _pickle.loads(data)",
    "pickle.Unpickler": "import io, pickle; pickle.Unpickler(io.BytesIO(data)).load()",
    "pickle._Unpickler": "import io, pickle; pickle._Unpickler(io.BytesIO(data)).load()",
    "an unpickler of one's own": "import io, pickle; type('Mine', (pickle.Unpickler,), {})(io.BytesIO(data)).load()",
    "numpy": "import io, numpy; numpy.load(io.BytesIO(data), allow_pickle=True)",
    "multiprocessing": "from multiprocessing.reduction import ForkingPickler; ForkingPickler.loads(data)",
    "a name taken before": "loads(data)",
}


@pytest.mark.pickles
@pytest.mark.parametrize("text", ATTEMPTS.values(), ids=ATTEMPTS)
def test_under_the_switch_a_process_that_unpickles_fails(tmp_path: Path, text: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"from pickle import loads\ndata = {pickle.dumps([1, 2])!r}\n{text}\nprint('unpickled')\n"
    )
    plain = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert plain.stdout == "unpickled\n"
    guarded = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, env=environment_with_guard()
    )
    assert guarded.returncode != 0
    assert guarded.stdout == ""
    assert "Unpickled" in guarded.stderr


@pytest.mark.parametrize(("mode", "owner"), [(0o777, None), (0o1777, None), (0o757, None), (0o755, 12345)])
def test_loops_are_not_read_from_a_folder_that_strangers_may_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: int | None
) -> None:
    class Compiler:
        def folder(self, _: object) -> str:
            return str(tmp_path)

    if owner is not None:
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder to somebody else")
        os.chown(tmp_path, owner, -1)
    tmp_path.chmod(mode)
    monkeypatch.setattr(kernels, "_Compiler", lambda *_, **__: Compiler())
    mine = kernels.Kernels(np.dtype("f8"), 1, Add())
    with pytest.raises(PermissionError, match="numba runs what lies there"):
        list(mine._compile_with(None, on_disk=True))


@pytest.mark.soak
def test_under_the_switch_numba_may_read_its_own_cache(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numba, sys\n"
        "@numba.njit(cache=True)\n"
        "def double(number):\n"
        "    return 2 * number\n"
        "assert double(21) == 42\n"
        "print(sum(double.stats.cache_hits.values()))\n"
    )
    environment = environment_with_guard() | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    hits = [
        subprocess.run(
            [sys.executable, script], capture_output=True, text=True, check=True, env=environment
        ).stdout
        for _ in range(2)
    ]
    assert hits == ["0\n", "1\n"]


def test_the_guard_is_in_the_processes_that_a_cluster_starts() -> None:
    script = (
        "import glintpy, json, pathlib\n"
        "with glintpy.LocalCluster(1, scheme='ipc') as cluster:\n"
        "    pids = [cluster.master_pid, cluster.servers[0].pid]\n"
        "    print(json.dumps([pathlib.Path(f'/proc/{pid}/environ').read_text() for pid in pids]))\n"
    )
    environment = environment_with_guard() | {"PYTHONPATH": f"{GUARD}{os.pathsep}{ROOT}"}
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    for environ in json.loads(found.stdout):
        paths = dict(entry.split("=", 1) for entry in environ.split("\0") if "=" in entry)["PYTHONPATH"]
        assert str(GUARD) in paths.split(os.pathsep)
