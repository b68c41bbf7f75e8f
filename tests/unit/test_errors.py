"""The tree of errors is the one that is drawn, and each error survives its journeys."""

from __future__ import annotations

import builtins
import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from glintpy import errors
from glintpy.protocol import failures

ALL = [getattr(errors, name) for name in errors.__all__]
BY_NAME = {kind.__name__: kind for kind in ALL}

by_error = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)


def drawing() -> list[str]:
    """Return the lines of the tree at the top of the module."""
    text = inspect.getdoc(errors) or ""
    return re.findall(r"^    (GlintError|[│├└ ].*)$", text.split("::\n", 1)[1], re.MULTILINE)


def drawn(kind: type[Exception], prefix: str = "", mark: str = "") -> list[str]:
    """Draw a class and those below it, in the order of their definition."""
    builtin = [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins"]
    described = f" ({', '.join(builtin)})" if builtin and kind is not errors.GlintError else ""
    lines = [f"{prefix}{mark}{kind.__name__}{described}"]
    below = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    inner = prefix + {"": "", "├── ": "│   ", "└── ": "    "}[mark]
    for child in below:
        lines += drawn(child, inner, "└── " if child is below[-1] else "├── ")
    return lines


def test_the_drawing_is_the_tree() -> None:
    assert drawing() == drawn(errors.GlintError)


def test_all_errors_are_exported() -> None:
    defined = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    assert sorted(kind.__name__ for kind in defined) == sorted(errors.__all__)


@by_error
def test_every_error_is_a_glint_error_and_documented(kind: type[errors.GlintError]) -> None:
    assert issubclass(kind, errors.GlintError)
    assert inspect.getdoc(kind)
    assert kind.__doc__ != Exception.__doc__


@by_error
def test_every_error_says_its_message(kind: type[errors.GlintError]) -> None:
    assert str(kind("row 12 is outside [0, 10)")) == "row 12 is outside [0, 10)"


@pytest.mark.pickles
@by_error
def test_every_error_survives_pickling_and_copying(kind: type[errors.GlintError]) -> None:
    error = kind("row 12 is outside [0, 10)")
    if isinstance(error, errors.RequestError):
        error.model, error.attempts, error.outcome = "weights", 3, "partial"
        error.parts = {"tcp://10.0.0.1:4000": {"applied": 1, "refused": 0, "unknown": 2}}
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - made in this line
        assert type(other) is kind
        assert str(other) == str(error)
        assert vars(other) == vars(error)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ModelNotFound, LookupError),
        (errors.ShapeError, ValueError),
        (errors.DTypeError, TypeError),
        (errors.KeyRangeError, IndexError),
        (errors.PullFailed, TimeoutError),
        (errors.ServerLost, ConnectionError),
        (errors.NotEnoughMemory, MemoryError),
        (errors.WorkersMissing, TimeoutError),
        (errors.AccessDenied, PermissionError),
        (errors.CheckpointNotFound, FileNotFoundError),
    ],
)
def test_errors_that_a_builtin_means_already_are_caught_as_it(
    kind: type[errors.GlintError], builtin: type[Exception]
) -> None:
    assert getattr(builtins, builtin.__name__) is builtin
    with pytest.raises(builtin, match="told"):
        raise kind("told")


def test_a_request_error_carries_its_facts() -> None:
    error = errors.PushOutcomeUnknown(
        "some parts may be in",
        model="weights",
        address="tcp://10.0.0.1:4000",
        attempts=2,
        outcome="unknown",
        parts={"tcp://10.0.0.1:4000": {"applied": 0, "refused": 0, "unknown": 1}},
    )
    facts: dict[str, Any] = vars(error)
    assert facts == {
        "model": "weights",
        "address": "tcp://10.0.0.1:4000",
        "attempts": 2,
        "outcome": "unknown",
        "parts": {"tcp://10.0.0.1:4000": {"applied": 0, "refused": 0, "unknown": 1}},
    }


def test_errors_of_requests_do_not_share_their_parts() -> None:
    first, second = errors.PullFailed("a"), errors.PullFailed("b")
    first.parts["x"] = {"applied": 1}
    assert second.parts == {}


def test_what_is_worth_trying_again_says_so() -> None:
    requests = [kind for kind in ALL if issubclass(kind, errors.RequestError)]
    retriable = {kind.__name__ for kind in requests if kind.retriable}
    assert retriable == {"PullFailed", "ServerLost", "Overloaded"}


# --- errors that travel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", failures.BY_CODE)
def test_a_failure_is_the_same_error_on_the_other_side(code: int) -> None:
    kind = failures.BY_CODE[code]
    assert failures.code_of(kind("told")) == code
    found = failures.error_of(code, "told")
    assert type(found) is kind
    assert str(found) == "told"


def test_no_failure_has_the_code_of_an_outcome() -> None:
    assert not {failures.APPLIED, failures.PASSED_OVER} & set(failures.BY_CODE)
    assert all(0 < code < 255 for code in failures.BY_CODE)


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), KeyError("k"), errors.PushRefused("x")])
def test_an_error_without_a_code_is_a_remote_failure(error: Exception) -> None:
    assert failures.BY_CODE[failures.code_of(error)] is errors.RemoteFailure


def test_a_child_travels_under_its_nearest_parent() -> None:
    class WrongRows(errors.ShapeError):
        pass

    assert failures.BY_CODE[failures.code_of(WrongRows())] is errors.ShapeError


def test_an_unknown_code_keeps_its_number_and_text() -> None:
    error = failures.error_of(200, "from the future")
    assert type(error) is errors.RemoteFailure
    assert "200" in str(error)
    assert "from the future" in str(error)
