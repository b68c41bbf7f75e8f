"""A load counts the calls that have no outcome, at one peer and over all of them."""

from __future__ import annotations

import pytest

from glintpy.errors import GlintError
from glintpy.protocol.calls import Call, Failed, Load, Result, Stamp
from glintpy.protocol.messages import Done, Message


def build(stamp: Stamp) -> Message:
    raise AssertionError(f"nothing is sent here: {stamp}")


class Noted:
    """A call, and what it was settled with."""

    def __init__(self, cost_bytes: int) -> None:
        self.results: list[Result] = []
        self.seen: list[tuple[int, int]] = []
        self.call = Call(1, build, self._settle, cost_bytes=cost_bytes)

    def _settle(self, result: Result) -> None:
        self.results.append(result)
        load = self.call.load
        assert load is not None
        self.seen.append((load.num_open, load.num_bytes))


def counts(load: Load) -> tuple[int, int]:
    return load.num_open, load.num_bytes


FAILED = Failed(GlintError("failed"), "unknown")


def test_a_call_counts_until_it_is_settled() -> None:
    load = Load()
    first, second = Noted(100), Noted(0)
    load.add(first.call)
    load.add(second.call)
    assert counts(load) == (2, 100)
    first.call.finish(Done(1, b""))  # type: ignore[arg-type]  # what it carries doesn't matter here
    assert counts(load) == (1, 0)
    second.call.finish(FAILED)
    assert counts(load) == (0, 0)


def test_a_call_that_is_finished_again_is_not_counted_again() -> None:
    load = Load()
    noted = Noted(7)
    load.add(noted.call)
    noted.call.finish(FAILED)
    noted.call.finish(FAILED)
    assert counts(load) == (0, 0)
    assert noted.results == [FAILED]


def test_the_total_is_the_sum_of_all_peers() -> None:
    total = Load()
    near, far = Load(total), Load(total)
    calls = [Noted(cost_bytes).call for cost_bytes in (1, 10, 100)]
    near.add(calls[0])
    near.add(calls[1])
    far.add(calls[2])
    assert (counts(near), counts(far), counts(total)) == ((2, 11), (1, 100), (3, 111))
    calls[1].finish(FAILED)
    assert (counts(near), counts(far), counts(total)) == ((1, 1), (1, 100), (2, 101))
    calls[2].finish(FAILED)
    calls[0].finish(FAILED)
    assert (counts(near), counts(far), counts(total)) == ((0, 0), (0, 0), (0, 0))


def test_who_is_settled_counts_no_more_and_who_waits_for_room_hears_of_it() -> None:
    load = Load()
    noted = Noted(7)
    heard: list[tuple[int, int]] = []
    load.add(noted.call)
    load.on_release = lambda: heard.append(counts(load))
    noted.call.finish(FAILED)
    # So a callback that looks whether anything is under way sees no trace of the call that made it run.
    assert noted.seen == [(0, 0)]
    assert heard == [(0, 0)]


def test_a_call_that_was_never_counted_may_finish() -> None:
    results: list[Result] = []
    call = Call(1, build, results.append, cost_bytes=5)
    call.finish(FAILED)
    assert results == [FAILED]
    with pytest.raises(AssertionError, match="settled twice"):
        call.settle(FAILED)
