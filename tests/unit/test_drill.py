"""A drill's plan is drawn from its seed and has some of everything; its report holds only if all of it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy.cli.app import run
from glintpy.config import MembershipSettings
from glintpy.errors import ConfigError
from glintpy.process.orders import ServerOptions
from glintpy.process.planted import RECEIPTS, planted
from glintpy.testing.drill_client import Order, Told, whole_counts
from glintpy.testing.drill_plan import ALL, MASTER, Action, draw_plan
from glintpy.testing.drill_report import DrillReport, DrillSettings
from glintpy.testing.ledger import Audit


@given(seed=st.integers(0, 2**31), duration_s=st.floats(0.5, 300), num_servers=st.integers(1, 8))
def test_a_plan_has_some_of_everything_in_order(seed: int, duration_s: float, num_servers: int) -> None:
    plan = draw_plan(seed, duration_s, num_servers)
    assert plan == draw_plan(seed, duration_s, num_servers)
    assert [step.at_s for step in plan] == sorted(step.at_s for step in plan)
    assert {(step.action, step.member == MASTER) for step in plan} == {
        (Action.KILL, False),
        (Action.STOP, False),
        (Action.RESET, False),
        (Action.KILL, True),
    }
    assert {step.member for step in plan} <= {ALL, MASTER, *range(num_servers)}
    assert all(0 <= step.at_s <= duration_s for step in plan)
    assert all((step.length_s > 0) is (step.action is not Action.RESET) for step in plan)


def test_another_seed_is_another_plan_of_as_many_faults(seed: int) -> None:
    plans = [draw_plan(number, 60, 3) for number in (seed, seed + 1)]
    assert plans[0] != plans[1]
    for plan in plans:
        actions = [step.action for step in plan]
        counts = [actions.count(action) for action in (Action.KILL, Action.STOP, Action.RESET)]
        assert counts == [24, 12, 120]
        # Some stand still for longer than the master waits for a heartbeat, most don't.
        lengths = [step.length_s for step in plan if step.action is Action.STOP]
        assert 0 < sum(length > MembershipSettings().silent_s for length in lengths) <= 3


def test_a_plan_needs_time_and_servers() -> None:
    for duration_s, num_servers in ((0, 3), (-1, 3), (5, 0)):
        with pytest.raises(ConfigError, match="takes some time and servers"):
            draw_plan(1, duration_s, num_servers)


def test_servers_are_told_of_defects_and_failpoints_only_where_there_are_some() -> None:
    assert DrillSettings(5).server_options() == ServerOptions()
    both = DrillSettings(5, plant="no-dedupe", failpoints="push.applied=kill")
    assert both.server_options() == ServerOptions(plant="no-dedupe", failpoints="push.applied=kill")


def test_a_report_holds_only_if_everything_does() -> None:
    report = DrillReport(DrillSettings(5))
    assert report.explain() == "the ledger could not be read"
    report.audit = Audit("drill", 3)
    assert report.explain() == "nothing was pushed, so nothing was shown"
    assert not report.holds
    report.audit.num_issued = 5
    assert report.explain() == ""
    assert report.holds
    report.num_wrong_counts = 2
    assert not report.holds
    assert "2 of 600,000 counts are wrong" in report.explain()
    report.num_wrong_counts, report.audit.num_wrong_cells, report.audit.num_lost = 0, 1, 1
    assert not report.holds
    assert "1 lost" in report.explain()
    assert report.as_dict()["num_wrong_cells"] == 1
    report.audit.num_wrong_cells = 0
    report.problems.append("server-1 died unasked")
    assert not report.holds
    assert report.explain() == "server-1 died unasked"


def test_counts_may_be_what_outcomes_allow_and_nothing_else() -> None:
    told = [Told(counts_in=3, counts_unknown=1), Told(counts_in=2)]
    assert whole_counts(told, np.array([5, 6, 5])) == 0
    assert whole_counts(told, np.array([4, 5, 6, 7])) == 2


def test_a_client_s_order_and_what_it_tells_travel_as_text(tmp_path: Path) -> None:
    command = Order("tcp://127.0.0.1:1", "drill", 2, 100.0, "a file").command()
    assert command[1:3] == ["-m", "glintpy.testing.drill_client"]
    (tmp_path / "told").write_text('{"counts_in": 4, "problems": ["one"]}')
    told = Told.load(tmp_path / "told")
    assert (told.counts_in, told.problems, told.longest_read_s) == (4, ["one"], 0.0)


def test_a_defect_that_nobody_planted_is_named() -> None:
    assert planted("no-dedupe") is RECEIPTS["no-dedupe"]
    with pytest.raises(ConfigError, match="no planted defect 'typo'; there are no-dedupe"):
        planted("typo")


@pytest.mark.usefixtures("logging_as_before")
def test_what_can_not_be_drilled_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments, words in (
        (("--for", "soon"), "'soon' is not a duration"),
        (("--for", "0"), "is not a duration"),
        (("--servers", "0"), "'--servers'"),
        (("--plant", "typo"), "no planted defect 'typo'"),
        (("--failpoints", "typo=kill"), "no failpoint 'typo'"),
        (("--failpoints", "push.half_applied=raise:0.1"), "chaos takes kill and sleep"),
        (("--json", "/nonexistent/report.json"), "can't write the report to /nonexistent/report.json"),
    ):
        assert run(["chaos", *arguments]) in {1, 2}
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.out == ""
