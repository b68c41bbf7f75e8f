"""The project's habits, as tests: sizes, homes, purity, docstrings, and what must never stand in it."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "glintpy"

LINES_MAX = 500
LINES_WARNED = 400
FUNCTION_LINES_MAX = 70

Function = ast.FunctionDef | ast.AsyncFunctionDef


# --- what there is ----------------------------------------------------------------------------------------


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return the project's files: all but what .gitignore names. Works without git and its history."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = [line.strip("/") for line in lines if line and not line.startswith("#")] + [".git"]

    def walk(folder: Path) -> Iterator[Path]:
        for entry in sorted(folder.iterdir()):
            if any(fnmatch.fnmatch(entry.name, pattern) for pattern in ignored) or entry.is_symlink():
                continue
            if entry.is_dir():
                yield from walk(entry)
            else:
                yield entry

    return tuple(walk(ROOT))


@dataclass(frozen=True)
class Module:
    """A Python file, read once."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def label(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def name(self) -> str:
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def at(self, node: ast.AST) -> str:
        return f"{self.label}:{getattr(node, 'lineno', 1)}"

    def imports(self) -> Iterator[tuple[ast.stmt, str]]:
        """Yield each imported module, and each name taken from one, as a dotted name."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._base_of(node)
                yield node, base
                yield from ((node, f"{base}.{alias.name}") for alias in node.names)

    def _base_of(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        package = parts if self.path.name == "__init__.py" else parts[:-1]
        package = package[: len(package) - node.level + 1]
        return ".".join([*package, *([node.module] if node.module else [])])


@cache
def python_files() -> tuple[Module, ...]:
    found = [path for path in tracked_files() if path.suffix == ".py"]
    texts = [(path, path.read_text(encoding="utf-8")) for path in found]
    return tuple(Module(path, text, ast.parse(text)) for path, text in texts)


def package_files(*folders: str) -> list[Module]:
    """Return the modules of the package, or of these parts of it."""
    tops = tuple(f"glintpy/{folder}" for folder in folders) or ("glintpy/",)
    return [module for module in python_files() if module.label.startswith(tops)]


def functions_of(module: Module) -> Iterator[Function]:
    return (node for node in ast.walk(module.tree) if isinstance(node, Function))


def shipped_files() -> list[Module]:
    """Return the modules that run in servers and clients: all but the suites for other people's tests."""
    return [module for module in package_files() if not module.label.startswith("glintpy/testing/")]


def report(found: list[str], advice: str) -> None:
    assert not found, f"{advice}\n  " + "\n  ".join(found)


# --- sizes ------------------------------------------------------------------------------------------------


def test_no_module_is_too_long() -> None:
    lengths = {module.label: len(module.text.splitlines()) for module in python_files()}
    found = [f"{label}: {lines} lines" for label, lines in lengths.items() if lines > LINES_MAX]
    near = [f"{label} ({lines})" for label, lines in lengths.items() if LINES_WARNED < lines <= LINES_MAX]
    report(found, f"split what has more than {LINES_MAX} lines by concept; soon to follow: {', '.join(near)}")


def test_no_function_is_too_long() -> None:
    found = []
    for module in python_files():
        for function in functions_of(module):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                found.append(f"{module.at(function)}: {function.name} has {lines} lines")
    report(found, f"a function has at most {FUNCTION_LINES_MAX} lines: keep the branching, move the work out")


# --- no code travels --------------------------------------------------------------------------------------

FORBIDDEN_MODULES = {
    "pickle": "names and numbers cross the wire, never code: use protocol/wire.py",
    "cPickle": "see pickle",
    "_pickle": "see pickle",
    "dill": "see pickle",
    "cloudpickle": "see pickle",
    "joblib": "its files are pickles",
    "marshal": "see pickle",
    "shelve": "its files are pickles: use storage/",
    "msgpack_numpy": "it unpickles what peers send: arrays travel as frames of their own",
}

FORBIDDEN_CALLS = {
    "eval": "it runs foreign text",
    "exec": "it runs foreign text",
    "recv_pyobj": "it unpickles what peers send",
    "send_pyobj": "its receiver unpickles",
    "yaml.load": "it makes any object: there is json and tomllib",
}


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` of a name or attribute; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return ""


def test_nothing_that_runs_foreign_code_is_imported() -> None:
    found = [
        f"{module.at(node)}: {name}: {FORBIDDEN_MODULES[name.split('.')[0]]}"
        for module in shipped_files()
        for node, name in module.imports()
        if name.split(".")[0] in FORBIDDEN_MODULES
    ]
    report(found, "no code travels")


def test_nothing_that_runs_foreign_code_is_called() -> None:
    found = []
    for module in package_files():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                name = dotted(node.func)
                last = name.rpartition(".")[2]
                # A method that happens to be called eval runs nothing foreign.
                reason = FORBIDDEN_CALLS.get(name) or (FORBIDDEN_CALLS.get(last) if "pyobj" in last else None)
                if reason:
                    found.append(f"{module.at(node)}: {name}: {reason}")
                found.extend(
                    f"{module.at(node)}: allow_pickle=True: a saved array must not run code"
                    for keyword in node.keywords
                    if keyword.arg == "allow_pickle"
                    and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
                )
    report(found, "no code travels")


# --- each library has one home, and decisions are pure ------------------------------------------------------

HOMES = {
    "zmq": "glintpy/transport/",
    "msgpack": "glintpy/protocol/wire.py",
    "pykka": "glintpy/actors/",
    "fsspec": "glintpy/storage/",
    "numba": "glintpy/storage/kernels.py",
}

PURE = ("protocol/", "partitioning/", "storage/", "updaters/", "functions/")
IMPURE = {
    "threading",
    "_thread",
    "socket",
    "time",
    "zmq",
    "asyncio",
    "select",
    "selectors",
    "multiprocessing",
}


@pytest.mark.parametrize(("library", "home"), HOMES.items(), ids=HOMES)
def test_each_library_has_one_home(library: str, home: str) -> None:
    found = [
        f"{module.at(node)}: {name}"
        for module in package_files()
        for node, name in module.imports()
        if name.split(".")[0] == library and not module.label.startswith(home)
    ]
    report(sorted(set(found)), f"{library} is imported in {home} only; its errors are mapped at that border")


def test_decisions_have_no_thread_socket_or_clock() -> None:
    found = [
        f"{module.at(node)}: {name}"
        for module in package_files(*PURE)
        for node, name in module.imports()
        if name.split(".")[0] in IMPURE
    ]
    report(found, f"{', '.join(PURE)} are pure: time is an argument, and whoever has threads calls them")


def test_only_monotonic_clocks_are_read() -> None:
    found = [
        f"{module.at(node)}: {dotted(node.func)}"
        for module in package_files()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and dotted(node.func) in WALL_CLOCKS
    ]
    report(
        [entry for entry in found if entry.split(":")[0] not in WALL_CLOCK_READERS],
        "the wall clock jumps: use time.monotonic",
    )


WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow"}

WALL_CLOCK_READERS = {
    "glintpy/storage/checkpoint_format.py": "a saved model says when it was saved",
    "glintpy/storage/checkpoint_marks.py": "machines tell one another since when they save",
}
"""Modules that need the date itself, each with its reason."""


def test_only_commands_and_their_processes_print() -> None:
    found = [
        f"{module.at(node)}"
        for module in package_files()
        if not module.label.startswith(("glintpy/cli", "glintpy/process"))
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]
    report(found, "a library logs (logging.getLogger('glintpy.<layer>')); only cli/ and process/ print")


# --- nothing is left undone, nothing is dead ----------------------------------------------------------------

# Put together here, so that this file has none of them.
MARKS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b")


def text_files() -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file that is text."""
    for path in tracked_files():
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{label}:{number}: {line.strip()[:80]}"
        for label, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_marked_as_undone() -> None:
    report(lines_with(MARKS), "finish it, or say in prose what is not there and why")


def test_nothing_raises_not_implemented_but_abstract_methods() -> None:
    found = []
    for module in package_files():
        abstract = {
            id(inner)
            for function in functions_of(module)
            if any(dotted(decorator).endswith("abstractmethod") for decorator in function.decorator_list)
            for inner in ast.walk(function)
        }
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Raise) and node.exc is not None and id(node) not in abstract:
                raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                if dotted(raised) == "NotImplementedError":
                    found.append(module.at(node))
    report(found, "mark the method @abstractmethod, or write it")


ENTRY_POINTS = (
    "glintpy",
    "glintpy.__main__",
    "glintpy.cli",
    "glintpy.process.__main__",
    "glintpy.testing",
    "glintpy.kvstore",
    "glintpy.integrations",
)
"""Modules that users, the shell or the interpreter import; of the last three everything inside, too."""


def test_no_module_is_dead() -> None:
    modules = {module.name: module for module in package_files()}
    used = {name for module in modules.values() for _, name in module.imports() if name != module.name}
    # The package's own names may be imported when first used, by the names of their modules.
    root = modules["glintpy"]
    texts = [node.value for node in ast.walk(root.tree) if isinstance(node, ast.Constant)]
    used |= {
        text if text.startswith("glintpy") else f"glintpy{text}" for text in texts if isinstance(text, str)
    }
    found = [
        name
        for name, module in modules.items()
        if name not in used
        and name not in ENTRY_POINTS
        and not name.startswith(tuple(f"{entry}." for entry in ENTRY_POINTS[3:]))
        # A package lives by its modules.
        and not (module.path.name == "__init__.py" and any(other.startswith(f"{name}.") for other in used))
    ]
    report(found, "nobody imports these: use them or delete them")


def test_no_machine_and_no_package_host_is_named() -> None:
    homes = "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers", "fa" + "rm"])
    machine = rf"(?<![\w.~-])/(?:{homes})/"
    hosts = "|".join(
        [
            "index" + "-url",
            r"py" + r"pi\.org",
            "python" + "hosted",
            r"registry\.np" + "mjs",
            r"debian\." + "org",
        ]
    )
    pattern = re.compile(f"{machine}|{hosts}|/tmp/bash" + "_jobs|" + r"\.lib" + "rary|" + r"\.\./sha" + "red")
    report(
        lines_with(pattern),
        "the project knows no machine: take paths from the caller, packages from pip's settings",
    )


# --- docstrings ---------------------------------------------------------------------------------------------


def test_every_module_says_what_it_is() -> None:
    found = [module.label for module in python_files() if not ast.get_docstring(module.tree)]
    report(
        [label for label in found if not label.endswith("__init__.py") or label.startswith("glintpy/")],
        "a module's docstring says what it is, and what it must not know",
    )


def public_functions(module: Module) -> Iterator[Function]:
    """Yield the functions and methods that others may call."""

    def inside(body: list[ast.stmt]) -> Iterator[Function]:
        for node in body:
            if isinstance(node, Function) and not node.name.startswith("_"):
                decorators = {dotted(decorator).rpartition(".")[2] for decorator in node.decorator_list}
                if not decorators & {"overload", "setter", "override"}:
                    yield node
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from inside(node.body)

    yield from inside(module.tree.body)


def parameters_of(function: Function) -> list[str]:
    arguments = function.args
    names = [entry.arg for entry in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [entry.arg for entry in (arguments.vararg, arguments.kwarg) if entry is not None]
    return [name for name in names if name not in {"self", "cls"} and not name.startswith("_")]


def test_every_public_function_and_class_has_a_docstring() -> None:
    found = [
        f"{module.at(node)}: {node.name}"
        for module in package_files()
        for node in [
            *public_functions(module),
            *(node for node in module.tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"),
        ]
        if not ast.get_docstring(node)
    ]
    report(found, "a docstring says what it does and, where it may fail, how")


ARGS_FROM = 4
"""So many parameters want an Args section; fewer may be explained in the summary that names them."""


def test_docstrings_explain_the_parameters() -> None:
    modules = package_files()
    # What an interface explains, its implementations need not explain again.
    explained = {
        (function.name, tuple(parameters_of(function)))
        for module in modules
        for function in public_functions(module)
        if "Args:" in (ast.get_docstring(function) or "")
    }
    found = []
    for module in modules:
        for function in public_functions(module):
            names, text = parameters_of(function), ast.get_docstring(function) or ""
            if (function.name, tuple(names)) in explained and "Args:" not in text:
                continue
            if "Args:" in text:
                missing = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)]
                found += [
                    f"{module.at(function)}: {function.name} doesn't explain {name}" for name in missing
                ]
            elif len(names) >= ARGS_FROM:
                found.append(
                    f"{module.at(function)}: {function.name} has {len(names)} parameters and no Args"
                )
    report(found, "Args has an entry for each parameter; arrays start with their shape and dtype")


# --- the tests' own manners ---------------------------------------------------------------------------------


POLLERS = {
    "tests/cluster/helpers.py": "another process has no event to wait on: it asks again until a deadline"
}
"""Files that may sleep, each with its reason."""


def test_no_test_sleeps_or_asserts_nothing() -> None:
    found = []
    for module in python_files():
        if not module.label.startswith("tests/"):
            continue
        for node in ast.walk(module.tree):
            sleeps = isinstance(node, ast.Call) and dotted(node.func) in {"time.sleep", "sleep"}
            if sleeps and module.label not in POLLERS:
                found.append(f"{module.at(node)}: wait for the event, with a deadline, instead of a time")
            if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant):
                found.append(f"{module.at(node)}: an assertion of a constant can't fail")
    report(found, "tests depend on facts")


def test_every_ignored_rule_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[tool.ruff.lint]", 1)[1].split("\n[", 1)[0].split("ignore = [", 1)[1]
    found = [line.strip() for line in section.splitlines() if '"' in line and "#" not in line]
    report(found, "an ignored rule has its reason on its line")


def test_suppressions_have_their_reasons() -> None:
    bare = re.compile(r"#\s*(?:noqa: [A-Z0-9, ]+|type: ignore\[[a-z-]+\]|pragma: no cover)\s*$")
    found = [
        f"{module.label}:{number}: {line.strip()[-60:]}"
        for module in package_files()
        for number, line in enumerate(module.text.splitlines(), 1)
        if bare.search(line)
    ]
    report(found, "say why behind it: '# noqa: X - the reason'")
