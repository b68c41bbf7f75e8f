"""The benchmarks run, each workload in its smallest form, and leave nothing behind; how fast is not asked here."""

from __future__ import annotations

import ast
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import command, reach, results, tables, workloads
from benchmarks.arena import Arena, Run
from benchmarks.client import Client
from benchmarks.draws import Draw, draw_all, zipf_keys
from benchmarks.floors.memory import Copying
from benchmarks.peers import environments
from benchmarks.processes import ROOT, ChildError
from benchmarks.results import Entry, Figure, Results
from benchmarks.sizes import SMALLEST
from benchmarks.steps import Model, Step, step_from
from benchmarks.store import Store
from benchmarks.system import Opening, Setup, System, Unavailable
from benchmarks.table import number, ratio_text
from tests.cluster.helpers import until

SCRIPT = str(ROOT / "benchmarks" / "run.py")

TIMEOUT_S = 280
"""For a run of all workloads on a machine that does other things, too."""

HAS_REDIS = shutil.which("redis-server") is not None and find_spec("redis") is not None

OLD_PYTHON = ("steps", "draws", "store", "loops", "client", "peers/__init__", "peers/mxnet_store")
"""What client processes run under Python 3.8."""

TABLE = Model("table", 1_000, 4, "float32")


# --- a whole run -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, str, str]:
    """All workloads once, as a user runs them: what was measured, what was printed, and the Markdown."""
    folder = tmp_path_factory.mktemp("benchmarks")
    every = [part for name in command.NAMES for part in ("--only", name)]
    done = subprocess.run(
        [
            *(sys.executable, SCRIPT, "--size", "smallest", "--peers", "redis", *every),
            *("--json", str(folder / "run.json"), "--markdown", str(folder / "run.md")),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    found = results.read(folder / "run.json")
    return found, done.stdout, (folder / "run.md").read_text(encoding="utf-8")


@pytest.mark.soak
@pytest.mark.parametrize("name", command.NAMES)
def test_each_workload_gives_figures_of_glintpy_with_all_their_rounds(
    whole_run: tuple[Results, str, str], name: str
) -> None:
    found, printed, markdown = whole_run
    figures = list(found.find(name))
    assert figures
    for figure in figures:
        ours = [entry for entry in figure.entries if entry.system == "glintpy"]
        assert ours, f"{figure.step}, {figure.quantity}"
        for entry in figure.entries:
            assert len(entry.samples) == SMALLEST.repeats
            assert all(math.isfinite(sample) and sample >= 0 for sample in entry.samples)
    assert name in printed
    assert f"**{name}" in markdown


@pytest.mark.soak
@pytest.mark.parametrize("name", [*workloads.SHARED, workloads.SIZES])
def test_floors_stand_beside_glintpy_over_tcp_and_ipc(whole_run: tuple[Results, str, str], name: str) -> None:
    for figure in whole_run[0].find(name):
        for scheme in ("tcp", "ipc"):
            for system in ("glintpy", "socket", "zmq", "memcpy", "numpy"):
                entry = figure.of(system, scheme)
                assert entry is not None, f"{figure.step}: no {system} beside {scheme}"
                assert entry.median > 0


@pytest.mark.soak
def test_redis_takes_part_or_it_is_said_why_it_does_not(whole_run: tuple[Results, str, str]) -> None:
    found, printed, _ = whole_run
    pulls = next(found.find("one-row", step="pull", quantity="p50"))
    pushes = next(found.find("one-row", step="push", quantity="p50"))
    if HAS_REDIS:
        assert pulls.of("redis", "tcp") is not None
        assert pushes.of("redis add") is not None
    else:
        assert any(entry.system.startswith("redis") for entry in found.left_out)
    assert "redis add tcp is left out of" in printed


@pytest.mark.soak
def test_what_was_written_can_be_shown_again_and_drawn(
    whole_run: tuple[Results, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    whole_run[0].write(tmp_path / "run.json")
    assert command.main(["--read", str(tmp_path / "run.json"), "--plot", str(tmp_path / "plots")]) == 0
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"throughput.png"}
    assert "thousand-rows" in capsys.readouterr().out


# --- nothing is left ---------------------------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A run that measures, with servers and clients; and the mark in the environment of all of them."""
    mark = f"GLINTPY_TEST={uuid.uuid4().hex}"
    key, _, value = mark.partition("=")
    process = subprocess.Popen(
        [
            sys.executable,
            SCRIPT,
            "--size",
            "smallest",
            "--seconds",
            "60",
            "--only",
            "one-row",
            "--peers",
            "redis",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, key: value, "TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip().endswith("one-row"):
                break
        until(lambda: len(_marked(mark)) > 10, "servers and clients run")
        yield process, mark
    finally:
        process.kill()
        process.communicate()


@pytest.mark.soak
def test_control_c_ends_every_process_and_leaves_no_file(
    started: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, mark = started
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == command.EXIT_INTERRUPTED, said
    assert _marked(mark) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
def test_no_process_outlives_a_benchmark_that_was_killed(
    started: tuple[subprocess.Popen[str], str],
) -> None:
    process, mark = started
    process.kill()
    process.wait()
    until(lambda: not _marked(mark), "all children have gone")


def _marked(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


# --- who takes part ------------------------------------------------------------------------------------------------


class Broken(System):
    """A system that doesn't start, or whose clients don't."""

    name = "broken"

    def __init__(self, error: Exception | None, *, may_fail: bool) -> None:
        super().__init__()
        self._error = error
        self.may_fail = may_fail
        self.is_stopped = False

    def start(self, setup: Setup) -> Opening:
        del setup
        if self._error is not None:
            raise self._error
        return Opening("benchmarks.floors.nowhere", {})

    def stop(self) -> None:
        self.is_stopped = True


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unavailable("there is none"), "there is none"),
        (ChildError("its port is taken"), "it did not start: its port is taken"),
        (None, "it did not start: ModuleNotFoundError: No module named 'benchmarks.floors.nowhere'"),
    ],
    ids=["unavailable", "no server", "no client"],
)
def test_a_peer_that_does_not_start_is_left_out_with_its_reason(error: Exception | None, reason: str) -> None:
    run = Run(SMALLEST, Results({}), lambda _: None)
    peer = Broken(error, may_fail=True)
    with Arena([peer, Copying()], Setup(1, 1), run) as arena:
        arena.measure(workloads.one_row(SMALLEST))
    assert peer.is_stopped
    assert [entry.reason for entry in run.results.left_out] == [reason]
    assert all([entry.system for entry in figure.entries] == ["memcpy"] for figure in run.results.figures)


def test_what_may_not_fail_ends_the_run() -> None:
    run = Run(SMALLEST, Results({}), lambda _: None)
    ours = Broken(ChildError("no memory"), may_fail=False)
    with pytest.raises(ChildError, match="no memory"):
        Arena([Copying(), ours], Setup(1, 1), run)
    assert ours.is_stopped


def test_a_peer_without_its_environment_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match="--install-peers"):
        environments.interpreter("ray")


class Forgetful(Store):
    """A store that is fast because it does nothing."""

    def attach(self, model: Model, *, rank: int) -> None:
        pass

    def prepare(self, step: Step, draws: list[Draw]) -> list[Any]:
        return [np.zeros((step.num, step.model.cols)) for _ in draws]

    def issue(self, request: Any) -> Any:
        return request

    def finish(self, pending: Any) -> Any:
        return pending

    def close(self) -> None:
        pass


def test_a_store_that_loses_pushes_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match=r"pushed 1 to table: it was 0\.0 and is 0\.0"):
        Client(Forgetful(), 0).check({"name": "table", "rows": 1_000, "cols": 4, "dtype": "float32"})


@pytest.mark.parametrize("name", OLD_PYTHON)
def test_what_runs_beside_old_peers_is_python_3_8(name: str) -> None:
    text = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    # Annotations may say what 3.8 doesn't know, since they are never evaluated there.
    postponed = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    assert postponed or not [node for node in tree.body if not isinstance(node, ast.Expr)]
    keywords = {
        keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords
    }
    assert not keywords & {"strict", "slots", "kw_only"}, "Python 3.8 doesn't know these"


# --- requests ------------------------------------------------------------------------------------------------------


def test_rows_of_a_request_are_distinct_and_the_same_for_every_system(seed: int) -> None:
    step = Step("push", "rows", TABLE, 100)
    draws, again, other = draw_all(step, seed), draw_all(step, seed), draw_all(step, seed + 1)
    for draw, same in zip(draws, again, strict=True):
        assert draw.rows is not None
        assert draw.values is not None
        assert len(set(draw.rows.tolist())) == 100
        assert draw.values.shape == (100, 4)
        assert same.rows is not None
        assert draw.rows.tolist() == same.rows.tolist()
    assert draws[0].rows is not None
    assert other[0].rows is not None
    assert draws[0].rows.tolist() != other[0].rows.tolist()


def test_keys_repeat_as_words_do_and_lie_everywhere(seed: int) -> None:
    keys = zipf_keys(10_000, size=1_000_000, rng=np.random.default_rng(seed))
    _, counts = np.unique(keys, return_counts=True)
    assert keys.min() >= 0
    assert keys.max() < 1_000_000
    assert counts.max() > 500
    assert 1_000 < len(counts) < 9_000
    assert len(set((keys // 100_000).tolist())) == 10


def test_a_step_survives_the_way_to_a_client() -> None:
    step = Step("pull", "rows", TABLE, 10, window=64, into=True, num_models=3, pool=2, label="pull")
    assert step_from(json.loads(json.dumps(step.as_json()))) == step


def test_bytes_of_requests_are_those_of_selection_and_values() -> None:
    pull, push = Step("pull", "rows", TABLE, 10), Step("push", "rows", TABLE, 10)
    assert (pull.request_bytes, pull.answer_bytes) == (40, 160)
    assert (push.request_bytes, push.answer_bytes) == (200, 0)
    both = replace(push, verb="push_pull", what="all", num=TABLE.rows)
    assert (both.request_bytes, both.answer_bytes) == (24 + 16_000, 16_000)


# --- what is told ---------------------------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The machine was slow in the second round, for both: the ratio of the medians would be 1.
    ours, theirs = Entry("glintpy", "tcp", [1, 8, 3]), Entry("zmq", "tcp", [2, 16, 3])
    assert ours.over(theirs) == 0.5


def _figure(quantity: str, unit: str, better: results.Better, ours: list[float], zmq: list[float]) -> Figure:
    entries = [Entry("glintpy", "tcp", ours), Entry("zmq", "tcp", zmq)]
    return Figure("one-row", str(Setup(1, 1)), "pull", quantity, unit, better, entries)


def test_a_goal_is_reached_on_its_side_of_the_limit_only() -> None:
    def lines(p50: float, p99: float) -> dict[str, reach.Line]:
        p50s = _figure("p50", "us", "low", [p50], [100])
        p99s = _figure("p99", "us", "low", [p99], [200])
        return {line.what: line for line in reach.lines_of(Results({}, [p50s, p99s]))}

    near, far = lines(140, 400), lines(160, 700)
    assert [line.is_reached for line in near.values()] == [True, True]
    assert [line.is_reached for line in far.values()] == [False, False]
    assert far["one-row pull: p50 over zmq's"].found == 1.6
    assert far["one-row pull: p99 over p50, over zmq's own"].found == pytest.approx(4.375 / 2)


def test_a_peer_is_judged_by_where_it_is_the_nearest() -> None:
    figures = []
    for step, ours, theirs in (("pull", 10.0, 30.0), ("push", 10.0, 5.0)):
        entries = [Entry("glintpy", "tcp", [ours]), Entry("ray", "", [theirs])]
        figures.append(Figure("bulk", "1 server, 1 client", step, "values", "MB/s", "high", entries))
    (line,) = reach.lines_of(Results({}, figures))
    assert line.found == pytest.approx(1 / 3)
    assert "bulk pull" in line.what
    assert not line.is_reached


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.5, "1.50"), (12.34, "12.3"), (1234.5, "1,234"), (2.5e6, "2,500,000")],
)
def test_numbers_are_shown_with_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.00123, "0.0012"), (0.5, "0.50"), (9.99, "9.99"), (1234, "1,234")]
)
def test_ratios_are_shown_with_two_digits_that_count(ratio: float, text: str) -> None:
    assert ratio_text(ratio) == text


@pytest.mark.parametrize(
    "arguments", [["--repeats", "0"], ["--seconds", "0"], ["--only", "nothing"], ["--peers", "x"]]
)
def test_bad_options_are_refused_before_anything_starts(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(arguments)
    assert raised.value.code == 2
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("key_dtype", tables.KEY_DTYPES)
def test_tables_are_measured_beside_matrices(key_dtype: str) -> None:
    found = tables.measure(3_000, 700, key_dtype)
    assert list(found) == ["new keys", "pushes", "pulls", "memory"]
    assert all(times > 0 for times in found.values())
