"""What all tests share: one seed, steady hypothesis settings, and a look at what a test leaves behind."""

from __future__ import annotations

import gc
import logging
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.leftovers import Leftovers
from tests.unpickling import guard_everything

DEFAULT_SEED = 13370

CHECKED_FOLDERS = ("cluster", "models")
"""Folders whose tests use real parts: each of them is checked for what it leaves behind."""

# A thousand processes are started here. Without compiled files beside the sources each would compile them anew, and
# spend a third of its start on it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_seed_key = pytest.StashKey[int]()
_log_key = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed",
        default=str(DEFAULT_SEED),
        help="of everything random in the tests: a number, or 'random' to draw one (shown in the report)",
    )
    parser.addoption(
        "--no-pickle",
        action="store_true",
        help="fail wherever this process, or one that it starts, unpickles; leaves out tests of users' own pickles",
    )


def pytest_configure(config: pytest.Config) -> None:
    asked = config.getoption("--seed")
    if asked == "random":
        number = random.SystemRandom().randrange(2**32)
    elif asked.isdecimal():
        number = int(asked)
    else:
        raise pytest.UsageError(f"--seed is a number or 'random', not {asked!r}")
    config.stash[_seed_key] = number
    # No deadlines: the machine is shared, and how fast an example runs is not what is tested.
    settings.register_profile(
        "steady",
        deadline=None,
        print_blob=True,
        # Always the same few by default; who draws a seed searches further.
        derandomize=asked != "random",
        max_examples=200 if asked == "random" else 60,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("steady")

    if config.getoption("--no-pickle"):
        if config.getoption("numprocesses", None):
            raise pytest.UsageError("--no-pickle watches this process: run it with -n 0")
        config.stash[_log_key] = Path(tempfile.mkdtemp(prefix="glintpy-no-pickle-")) / "unpickled.log"
        guard_everything(config.stash[_log_key])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what unpickles by intent, where nothing may."""
    if not config.getoption("--no-pickle"):
        return
    # The shipped suites can't carry a mark of ours: other projects' pytest would not know it.
    by_name = {"test_it_pickles", "test_a_destroyed_model_is_gone_for_every_handle"}
    left_out = [
        item
        for item in items
        if item.get_closest_marker("pickles") or getattr(item, "originalname", "") in by_name
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish() -> None:
    """Keep thousands of collected tests out of every collection of garbage that looks for what a test has left."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes run tests: one more than there are cores, as some only wait."""
    del config
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run in which something unpickled, also where that was swallowed."""
    log = session.config.stash.get(_log_key, None)
    if log is not None and log.exists() and not exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what unpickled."""
    log = config.stash.get(_log_key, None)
    if log is not None:
        found = log.read_text(encoding="utf-8") if log.exists() else "nothing\n"
        terminalreporter.section("what unpickled")
        terminalreporter.write(found)
        shutil.rmtree(log.parent, ignore_errors=True)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.stash[_seed_key]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append(("seed", f"again with: --seed={item.config.stash[_seed_key]}"))
    return report


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The number that everything random in a test starts from."""
    return request.config.stash[_seed_key]


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Undo what a command that runs in this process does to logging."""
    root, ours = logging.getLogger(), logging.getLogger("glintpy")
    handlers, level, our_level = list(root.handlers), root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


# --- what a test leaves behind ----------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def nothing_left_by_the_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail if a module's tests and shared fixtures together leave something behind."""
    # Set up before every other fixture of the module, so it looks when those are gone.
    if not _is_checked_path(request.path):
        yield
        return
    before = Leftovers.now()
    gc.freeze()  # nor what earlier modules have brought
    yield
    before.check(f"the tests of {request.path.name}")


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail if a test leaves threads, descriptors or child processes behind.

    Only where it owns all that it uses: what it opens through a fixture that it shares with others, a cluster
    for the whole module, say, is looked at when that fixture has gone.
    """
    is_checked = _is_checked_path(request.path) or request.node.get_closest_marker("leaks") is not None
    if not is_checked or _shares_fixtures(request):
        yield
        return
    before = Leftovers.now()
    yield
    before.check(request.node.name)


def _is_checked_path(path: Path) -> bool:
    return path.is_relative_to(Path(__file__).parent) and path.relative_to(Path(__file__).parent).parts[
        0
    ] in (CHECKED_FOLDERS)


def _shares_fixtures(request: pytest.FixtureRequest) -> bool:
    ours = str(Path(__file__).parent)
    for name in request.fixturenames:
        for definition in request.node._fixtureinfo.name2fixturedefs.get(name, ()):
            made_here = definition.func.__code__.co_filename.startswith(ours)
            if made_here and definition.scope != "function" and name != nothing_left_by_the_module.__name__:
                return True
    return False
