"""Updaters by name: built in, brought by a program, or imported from where that is allowed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from glintpy import updaters
from glintpy.errors import ConfigError
from glintpy.updaters import Adagrad, Adam, Updater, base, bring, name_of, named, names

ROOT = Path(__file__).parents[2]

HALVING = """
    from dataclasses import dataclass
    from typing import ClassVar
    from glintpy.updaters import SGD, Adagrad, Slot, Updater

    @dataclass(frozen=True)
    class Halving(Updater):
        name: ClassVar[str] = "halving"
        by: float = 2.0
        def update(self, values, deltas, slots, rates, numbers):
            return (values / self.by,)
"""

Write = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin with no class brought, and forget the modules that it imported."""
    monkeypatch.setattr(names.KINDS, "brought", {})


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write modules into a package of this test's own; each is importable at once."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def module(name: str, text: str) -> None:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / "__init__.py").touch()
        path.write_text(textwrap.dedent(text), encoding="utf-8")

    yield module
    for name in set(sys.modules) - before:
        if name.split(".")[0].startswith("mine"):
            del sys.modules[name]


# --- built in -------------------------------------------------------------------------------------------------


def test_every_built_in_updater_has_one_name() -> None:
    assert sorted(names.BUILT_IN) == (
        [
            "adagrad",
            "adam",
            "adamw",
            "add",
            "assign",
            "dcasgd",
            "ftrl",
            "max",
            "mean",
            "min",
            "momentum",
            "nesterov",
            "rmsprop",
            "sgd",
            "total",
        ]
    )
    for name, kind in names.BUILT_IN.items():
        assert kind.name == name
        assert type(named(name)) is kind
        assert name_of(named(name)) == name
        assert getattr(updaters, kind.__name__) is kind
        assert kind.__name__ in updaters.__all__


def test_a_name_and_numbers_make_an_updater() -> None:
    assert named("adagrad", {"learning_rate": 0.5}) == Adagrad(0.5)
    with pytest.raises(ConfigError, match=r"^learning_rate is a number"):
        named("adagrad", {"learning_rate": "fast"})


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"no updater 'adda'; there is 'adagrad', 'adam', .*'total'$"):
        named("adda", allow=["adda"])


# --- brought --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Brought(Updater):
    """An updater of a program's own; its name is one that is taken."""

    name: ClassVar[str] = "adagrad"
    by: float = 2.0

    def update(self, values: Any, deltas: Any, slots: Any, rates: Any, numbers: Any) -> Any:
        del deltas, slots, rates, numbers
        return (values / self.by,)


@dataclass(frozen=True)
class Inherited(Adam):
    """One that has a built-in one's name by inheritance."""


class WithoutFormula(Updater):
    """One that can't be made."""


class Outer:
    @dataclass(frozen=True)
    class Inner(Brought):
        """One that is found by no import."""


@pytest.mark.parametrize("kind", [Brought, Inherited])
def test_an_updater_of_a_programs_own_is_named_by_its_path(kind: type[Updater]) -> None:
    path = name_of(kind())
    assert path == f"{__name__}.{kind.__name__}"
    assert type(named(path)) is kind
    assert named(path, kind().to_content()) == kind()


def test_what_was_brought_needs_no_leave_and_what_was_not_does() -> None:
    path = f"{__name__}.Brought"
    with pytest.raises(ConfigError, match="may not be imported here"):
        named(path)
    assert bring(Brought) == path
    assert named(path, {"by": 4}) == Brought(4)
    assert bring(Brought) == path


def test_only_classes_that_servers_can_import_are_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Local(Brought):
        pass

    for kind in (Local, Outer.Inner):
        with pytest.raises(ConfigError, match=r"can't be imported by servers; define it at the top level"):
            name_of(kind())

    hidden = type("Hidden", (Brought,), {"__module__": __name__})
    with pytest.raises(ConfigError, match=r"\.Hidden can't be imported by servers"):
        bring(hidden)

    in_program = type("InProgram", (Brought,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "InProgram", in_program, raising=False)
    with pytest.raises(ConfigError, match=r"InProgram is defined in the program's own file"):
        bring(in_program)


def test_what_is_brought_is_an_updater() -> None:
    with pytest.raises(ConfigError, match=r"Path is no updater: derive it from glintpy.updaters.Updater"):
        bring(Path)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"\.WithoutFormula has no update"):
        bring(WithoutFormula)  # type: ignore[type-abstract]


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("slots", [base.Slot("a")], "slots of updater .* are a tuple of Slot"),
        ("slots", ("sum",), "slots of updater .* are a tuple of Slot"),
        ("slots", (base.Slot("a"), base.Slot("b"), base.Slot("a")), "have different names, unlike"),
        ("kinds", "fc", "are some of the letters biuf, not 'fc'"),
        ("kinds", "", "are some of the letters biuf, not ''"),
        ("kinds", ("f",), r"are some of the letters biuf, not \('f',\)"),
    ],
)
def test_what_is_brought_says_what_it_keeps_and_for_which_dtypes(
    monkeypatch: pytest.MonkeyPatch, attribute: str, value: Any, message: str
) -> None:
    monkeypatch.setattr(Brought, attribute, value, raising=False)
    with pytest.raises(ConfigError, match=message):
        bring(Brought)


# --- imported -------------------------------------------------------------------------------------------------

ALLOWED = [
    ("mine.updaters.Halving", "mine.updaters"),
    ("mine.updaters.Halving", "mine"),
    ("mine.updaters.Halving", "mine.updaters.Halving"),
    ("mine.updaters.sub.Halving", "mine.updaters"),
]
NOT_ALLOWED = [
    ("mine.updaters2.Halving", "mine.updaters"),
    ("mine.updaters.Halving", "mine.updaters.Halv"),
    ("mine.updaters.Halving", "mine.updaters.sub"),
    ("mine.updaters.Halving", "updaters"),
    ("mine.updaters.Halving", ""),
    ("mine.updaters.Halving", "mine."),
    ("mine.updaters.Halving", "mine.updaters.*"),
]


@pytest.mark.parametrize(("path", "prefix"), ALLOWED)
def test_a_path_below_what_is_allowed_is_imported(write: Write, path: str, prefix: str) -> None:
    write(path.rpartition(".")[0], HALVING)
    found = named(path, {"by": 4}, allow=["other", prefix])
    assert found.to_content() == {"by": 4}
    assert name_of(found) == path
    assert named(path, {"by": 8}).to_content() == {"by": 8}, "it is known by now"


@pytest.mark.parametrize(("path", "prefix"), NOT_ALLOWED)
def test_any_other_path_is_not_even_looked_at(write: Write, path: str, prefix: str) -> None:
    write(path.rpartition(".")[0], "raise SystemExit('this ran')")
    module = path.rpartition(".")[0]
    with pytest.raises(ConfigError, match=rf"may not be imported here; .* glintpy server --allow {module}$"):
        named(path, allow=["other", prefix])
    assert not any(name.split(".")[0] == "mine" for name in sys.modules)


@pytest.mark.parametrize(
    "path",
    [
        "mine.updaters..Halving",
        ".mine.Halving",
        "mine.updaters.Halving.",
        "mine.updaters/../x.Halving",
        "mine.updaters.__main__.Halving",
        "mine.updaters.Hal ving",
        "mine.1.Halving",
        ".",
    ],
)
def test_a_path_is_made_of_names(write: Write, path: str) -> None:
    write("mine.updaters.__main__", HALVING)
    with pytest.raises(ConfigError, match=r"an updater's import path is package.module.Class, not"):
        named(path, allow=["mine", "", "."])
    assert not any(name.split(".")[0] == "mine" for name in sys.modules)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mine.updaters.Nothing", "can't be imported: mine.updaters has no Nothing"),
        ("mine.updaters.dataclass", "mine.updaters.dataclass is no updater"),
        ("mine.updaters.Slot", "mine.updaters.Slot is no updater"),
        ("mine.updaters.number", "mine.updaters.number is no updater"),
        ("mine.updaters.Updater", "updater mine.updaters.Updater has no update"),
        ("mine.updaters.Unfinished", "updater mine.updaters.Unfinished has no update"),
        ("mine.updaters.Adagrad", "is defined as glintpy.updaters.adagrad.Adagrad: call it so"),
        ("mine.updaters.Alias", "is defined as mine.updaters.Halving: call it so"),
        ("mine.missing.Halving", "can't be imported: ModuleNotFoundError: No module named 'mine.missing'"),
        ("mine.broken.Halving", "can't be imported: ZeroDivisionError: division by zero"),
        ("mine.ending.Halving", "can't be imported: SystemExit: good bye"),
        ("mine.wrong.Halving", "can't be imported: SyntaxError: "),
    ],
)
def test_what_is_imported_is_a_concrete_updater_or_an_error_says_why_not(
    write: Write, path: str, message: str
) -> None:
    write(
        "mine.updaters",
        textwrap.dedent(HALVING) + "\nnumber = 1\nAlias = Halving\nclass Unfinished(Updater): ...\n",
    )
    write("mine.broken", "1 / 0")
    write("mine.ending", "raise SystemExit('good bye')")
    write("mine.wrong", "class")
    with pytest.raises(ConfigError, match=message):
        named(path, allow=["mine"])
    with pytest.raises(ConfigError, match="may not be imported here"):
        named(path)


def test_an_error_has_its_cause(write: Write) -> None:
    write("mine.broken", "1 / 0")
    with pytest.raises(ConfigError) as caught:
        named("mine.broken.Halving", allow=["mine"])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_updater_that_can_not_be_made_is_refused(write: Write) -> None:
    write("mine.updaters", textwrap.dedent(HALVING) + "    def __post_init__(self):\n        1 / self.by\n")
    with pytest.raises(
        ConfigError, match=r"'mine.updaters.Halving' refuses the numbers \{'by': 0\}: ZeroDivisionError"
    ):
        named("mine.updaters.Halving", {"by": 0}, allow=["mine"])
    with pytest.raises(ConfigError, match=r"has no number 'of'"):
        named("mine.updaters.Halving", {"of": 0}, allow=["mine"])
    with pytest.raises(ConfigError) as caught:
        named("mine.updaters.Halving", {"by": "0" * 9999}, allow=["mine"])
    assert len(str(caught.value)) < 400


def test_another_process_finds_it_by_name_and_numbers(write: Write, tmp_path: Path) -> None:
    write("mine.updaters", HALVING)
    here = named("mine.updaters.Halving", {"by": 4}, allow=["mine"])
    script = (
        "import json, sys\n"
        "from glintpy.updaters import name_of, named\n"
        "name, numbers = json.loads(sys.argv[1])\n"
        "print(repr(named(name, numbers, allow=['mine.updaters'])))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, json.dumps([name_of(here), here.to_content()])],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )
    assert found.stdout == "Halving(by=4)\n"
