"""What all tests share: one seed, steady hypothesis settings, and a look at what a test leaves behind."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

DEFAULT_SEED = 13370

CHECKED_FOLDERS = ("cluster", "models")
"""Folders whose tests use real parts: each of them is checked for what it leaves behind."""

LASTING_THREADS = ("glintpy-callbacks",)
"""Threads that outlive a test by design: daemons, one a process."""

LASTING_PROCESSES = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Children that multiprocessing keeps for the life of the process."""

SETTLE_S = 5.0
"""How long a thread, descriptor or child that is ending may take; nothing waits when nothing is left."""

_seed_key = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed",
        default=str(DEFAULT_SEED),
        help="of everything random in the tests: a number, or 'random' to draw one (shown in the report)",
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
        derandomize=asked != "random",
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("steady")


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


# --- what a test leaves behind ----------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def nothing_left_by_the_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail if a module's tests and shared fixtures together leave something behind."""
    # Set up before every other fixture of the module, so it looks when those are gone.
    if not _is_checked_path(request.path):
        yield
        return
    before = Leftovers.now()
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


class Leftovers:
    """The threads, descriptors and children of this process at one moment."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.descriptors = _descriptors()
        self.children = _children()

    @classmethod
    def now(cls) -> Leftovers:
        """Return what there is, once per process that lasts included."""
        _open_what_lasts()
        gc.collect()
        return cls()

    def check(self, who: str) -> None:
        """Fail if there is more now than there was, after what is ending has had time to end."""
        deadline = time.monotonic() + SETTLE_S
        for thread in self._new_threads():
            thread.join(max(0.0, deadline - time.monotonic()))
        gc.collect()
        left = self._left()
        # zmq closes its descriptors on a thread of its own, and a killed child is a zombie until it is waited
        # for: both have no event to wait on.
        while left and time.monotonic() < deadline:
            threading.Event().wait(0.02)
            left = self._left()
        if left:
            pytest.fail(f"{who} left behind: {'; '.join(left)}", pytrace=False)

    def _left(self) -> list[str]:
        threads = [f"thread {thread.name}" for thread in self._new_threads()]
        opened = {
            number: target for number, target in _descriptors().items() if number not in self.descriptors
        }
        descriptors = [f"descriptor {number} ({target})" for number, target in sorted(opened.items())]
        children = [
            f"process {pid} ({name})" for pid, name in _children().items() if pid not in self.children
        ]
        return [*threads, *descriptors, *children]

    def _new_threads(self) -> list[threading.Thread]:
        found = [thread for thread in threading.enumerate() if thread not in self.threads]
        return [thread for thread in found if not thread.name.startswith(LASTING_THREADS)]


def _open_what_lasts() -> None:
    """Make the parts that live as long as the process, so that no test is blamed for them."""
    try:
        from glintpy.transport import connect
    except ImportError:
        return
    # zmq's context has threads and descriptors, and is made with the first connection.
    connect("tcp://127.0.0.1:9").close()


def _descriptors() -> dict[int, str]:
    return dict(_readable(Path("/proc/self/fd"), lambda entry: (int(entry.name), str(entry.readlink()))))


def _children() -> dict[int, str]:
    found = _readable(Path("/proc"), _child)
    return {pid: name for pid, name in found if not any(lasting in name for lasting in LASTING_PROCESSES)}


def _child(folder: Path) -> tuple[int, str]:
    """Return a child's number and command line; LookupError for any other process."""
    if not folder.name.isdecimal():
        raise LookupError(folder)
    # The second field is the command in parentheses and may have spaces; the parent is the fourth.
    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    if parent != os.getpid():
        raise LookupError(folder)
    return int(folder.name), (folder / "cmdline").read_text().replace(
        "\0", " "
    ).strip() or "ended, not waited for"


def _readable(folder: Path, read: Callable[[Path], tuple[int, str]]) -> list[tuple[int, str]]:
    """Return what can be read of each entry; entries come and go while one looks. Empty without /proc."""
    found = []
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        try:
            found.append(read(entry))
        except (OSError, LookupError):
            continue
    return found
