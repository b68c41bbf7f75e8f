"""Small requests wait in the outbox for as long as they may, and no longer; there is no network here."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy import config
from glintpy.errors import GlintError, Overloaded, PushOutcomeUnknown, PushRefused, ServerLost
from glintpy.futures import Future
from glintpy.models.bundles import pull, push
from glintpy.models.dispatch import Target
from glintpy.models.indexing import parse_item, parse_pull
from glintpy.outbox import Outbox
from glintpy.partitioning import Layout, named
from glintpy.protocol.calls import Call, Failed, Stamp
from glintpy.protocol.messages import Applied, Message, Pull, Push, Values
from glintpy.protocol.selection import axis_indices
from glintpy.protocol.spec import ModelInfo, ModelSpec
from glintpy.pushes import OpenPushes
from glintpy.runtime import Runtime
from glintpy.updaters import Add

WAIT_S = 30.0
NUM_ROWS, NUM_COLS = 40, 3
SERVERS = (("one", "local://one"), ("two", "local://two"))
HALF = NUM_ROWS // 2


# --- the outbox itself ------------------------------------------------------------------------------------


class Noted:
    """A bundle that notes that it was issued."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.num_issued = 0
        self._during = during

    def issue(self) -> None:
        self._during()
        self.num_issued += 1


def opened(outbox: Outbox, bundle: Noted) -> Noted:
    with outbox.lock:
        outbox.open = bundle
    return bundle


def test_what_is_open_is_issued_once_and_then_nothing_is_open() -> None:
    outbox = Outbox()
    bundle = opened(outbox, Noted())
    outbox.issue()
    outbox.issue()
    assert bundle.num_issued == 1
    assert outbox.open is None
    assert not outbox.is_closed


def test_closing_issues_for_the_last_time() -> None:
    outbox = Outbox()
    bundle = opened(outbox, Noted())
    outbox.close()
    outbox.close()
    assert bundle.num_issued == 1
    assert outbox.is_closed
    assert outbox.open is None


def test_who_comes_while_a_bundle_is_being_issued_waits_until_it_is() -> None:
    # Else a large pull would overtake the small push before it, and a flush would not know of it.
    outbox = Outbox()
    order: list[str] = []
    has_passed = threading.Event()

    def come_by() -> None:
        outbox.issue()
        order.append("passed")
        has_passed.set()

    other = threading.Thread(target=come_by)

    def during() -> None:
        other.start()
        assert not has_passed.wait(0.2)  # only who doesn't wait makes it true
        order.append("issued")

    opened(outbox, Noted(during))
    outbox.issue()
    other.join(WAIT_S)
    assert order == ["issued", "passed"]


def test_a_bundle_whose_issue_is_interrupted_is_neither_lost_nor_does_the_lock_stay_taken() -> None:
    outbox = Outbox()
    interrupts = [KeyboardInterrupt()]

    def during() -> None:
        if interrupts:
            raise interrupts.pop()

    bundle = opened(outbox, Noted(during))
    with pytest.raises(KeyboardInterrupt):
        outbox.issue()
    assert not outbox.lock.locked()
    outbox.issue()
    assert bundle.num_issued == 1


# --- with small requests ----------------------------------------------------------------------------------


class StillRuntime:
    """What requests need of a runtime: notes what is submitted, in order, and settles it when told to."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.pushes = OpenPushes(before_wait=self.outbox.issue)
        self.is_busy = True
        self.room_bytes = 10 * config.MIB
        self.calls: list[tuple[str, Call]] = []
        self.waits: list[bool] = []
        self.num_pokes = 0
        self.refuses: GlintError | None = None
        self.breaks: BaseException | None = None
        self._ids = itertools.count(1)

    def new_request_id(self) -> int:
        return next(self._ids)

    def deadline(self, timeout_s: float | None) -> float | None:
        return timeout_s

    def link(self, server_id: str, address: str) -> None:
        assert (server_id, address) in SERVERS
        if self.breaks is not None:
            raise self.breaks

    def has_room(self, num_bytes: int) -> bool:
        return num_bytes < self.room_bytes

    def poke(self) -> None:
        self.num_pokes += 1

    def expect_others(self) -> None:
        pass

    def wait_for(self, is_done: Callable[[], bool], timeout_s: float | None) -> None:
        del timeout_s
        self.outbox.issue()
        self.answer()
        assert is_done()

    def submit(self, server_id: str, call: Call, *, waits_for_room: bool = False) -> None:
        self.waits.append(waits_for_room)
        self.calls.append((server_id, call))
        if self.refuses is not None:
            call.finish(Failed(self.refuses, "unsent"))

    @property
    def messages(self) -> list[Push | Pull]:
        built = [call.build(Stamp()) for _, call in self.calls]
        assert all(isinstance(message, Push | Pull) for message in built)
        return cast("list[Push | Pull]", built)

    @property
    def kinds(self) -> list[tuple[str, int]]:
        """What was sent, as kind and number of rows."""
        return [(type(message).__name__, len(axis_indices(message.rows))) for message in self.messages]

    def answer(self) -> None:
        """Settle everything: values are ten times the server's row, plus a hundred at the second server."""
        for server_id, call in self.calls:
            if not call.is_settled:
                call.finish(answer_to(call.build(Stamp()), base=100 if server_id == "two" else 0))


def answer_to(message: Message, *, base: int) -> Message:
    assert isinstance(message, Push | Pull)
    if isinstance(message, Push):
        return Applied(message.request_id, message.part, 0)
    rows = axis_indices(message.rows) * 10 + base
    if message.paired:
        assert message.cols is not None
        return values_of(message, rows + axis_indices(message.cols))
    num_cols = NUM_COLS if message.model_id == 1 else None
    return values_of(message, rows if num_cols is None else rows[:, None] + np.arange(num_cols))


def values_of(message: Pull, values: NDArray[np.int64]) -> Values:
    return Values(message.request_id, message.part, 0, values)


def target_of(model_id: int, num_cols: int | None) -> Target:
    spec = ModelSpec(f"model-{model_id}", NUM_ROWS, num_cols, "int64", "range")
    info = ModelInfo(model_id, spec, 1, SERVERS, (0, 1))
    return Target(info, Layout(named("range", NUM_ROWS, 2), info.owners_array(), 2), 30.0, updater=Add())


class Client:
    """A still runtime, a matrix and a vector, and short ways to ask for their rows."""

    def __init__(self) -> None:
        self.still = StillRuntime()
        self.runtime = cast("Runtime", self.still)
        self.matrix, self.vector = target_of(1, NUM_COLS), target_of(2, None)

    def pull(self, rows: Any, cols: Any = None, target: Target | None = None) -> Future[Any]:
        target = target or self.matrix
        return pull(
            self.runtime,
            target,
            parse_pull(rows, cols, num_rows=NUM_ROWS, num_cols=target.num_cols),
            None,
        )

    def push(self, rows: Any, cols: Any = None, target: Target | None = None) -> Future[Any]:
        target = target or self.matrix
        asked = parse_pull(rows, cols, num_rows=NUM_ROWS, num_cols=target.num_cols)
        return push(self.runtime, target, asked, np.ones(asked.shape, np.int64))


@pytest.fixture
def client() -> Client:
    return Client()


def test_with_nothing_under_way_each_is_sent_at_once(client: Client) -> None:
    client.still.is_busy = False
    for row in range(3):
        client.push([row])
    client.pull([3])
    assert client.still.kinds == [("Push", 1)] * 3 + [("Pull", 1)]
    assert client.still.outbox.open is None
    assert client.still.num_pokes == 0


def test_while_something_is_under_way_they_are_put_off_and_travel_as_one(client: Client) -> None:
    futures = [client.push([row, row + 1]) for row in range(4)]
    assert client.still.kinds == []
    assert client.still.num_pokes == 1  # once for all of them: somebody comes by soon
    client.still.outbox.issue()
    assert client.still.kinds == [("Push", 8)]
    assert not any(future.done() for future in futures)
    client.still.answer()
    assert [future.result(0) for future in futures] == [None] * 4


def test_an_open_bundle_is_issued_when_nothing_is_under_way_any_more(client: Client) -> None:
    client.push([0])
    client.still.is_busy = False
    client.push([1])
    assert client.still.kinds == [("Push", 2)]


def test_who_waits_issues_it(client: Client) -> None:
    futures = [client.pull(row) for row in (7, 30, 7)]
    assert client.still.kinds == []
    assert futures[1].result().tolist() == [200, 201, 202]
    assert [future.done() for future in futures] == [True] * 3
    assert futures[0].result().tolist() == futures[2].result().tolist() == [70, 71, 72]
    assert client.still.kinds == [("Pull", 2), ("Pull", 1)]  # one request to each server


def test_a_flush_issues_it_and_knows_of_all_of_them(client: Client) -> None:
    client.push([0])
    client.push([1])
    with pytest.raises(TimeoutError, match="2 pushes have no outcome after 0 s"):
        client.still.pushes.flush(0)
    client.still.answer()
    client.still.pushes.flush(0)


def test_it_is_issued_when_it_has_as_many_requests_as_it_may(client: Client) -> None:
    for _ in range(config.BUNDLE_REQUESTS):
        assert client.still.kinds == []
        client.push([5])
    assert client.still.kinds == [("Push", config.BUNDLE_REQUESTS)]
    client.push([5])  # the first of the next
    assert len(client.still.kinds) == 1


def test_it_is_issued_when_it_has_as_many_bytes_as_it_may(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_bytes = 8 * NUM_COLS + 8
    monkeypatch.setattr(config, "BUNDLE_BYTES", 3 * row_bytes)
    for _ in range(3):
        assert client.still.kinds == []
        client.pull([5])
    assert client.still.kinds == [("Pull", 3)]


@pytest.mark.parametrize("is_push", [True, False])
def test_a_request_that_is_not_small_goes_by_itself_behind_what_is_open(
    client: Client, monkeypatch: pytest.MonkeyPatch, *, is_push: bool
) -> None:
    monkeypatch.setattr(config, "SMALL_BYTES", 2 * (8 * NUM_COLS + 8))
    ask = client.push if is_push else client.pull
    client.push([1])
    client.push([1, 2])
    ask([1, 2, 3])
    assert client.still.kinds == [("Push", 3), ("Push" if is_push else "Pull", 3)]
    assert client.still.outbox.open is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda client: client.push([1]), lambda client: client.pull([1])),
        (lambda client: client.pull([1]), lambda client: client.push([1])),
        (lambda client: client.push([1]), lambda client: client.push([1], target=client.vector)),
        (lambda client: client.push([1]), lambda client: client.push([1], [2])),
        (lambda client: client.pull([1], [2]), lambda client: client.pull([1])),
        (lambda client: client.push([1]), lambda client: client.push([1], target=target_of(1, NUM_COLS))),
    ],
    ids=["kind", "kind back", "model", "rows and elements", "elements and rows", "handle"],
)
def test_what_can_not_join_is_behind_what_is_open(
    client: Client, first: Callable[[Client], Any], second: Callable[[Client], Any]
) -> None:
    first(client)
    first(client)
    second(client)
    assert [num_rows for _, num_rows in client.still.kinds] == [2]
    client.still.outbox.issue()
    assert [num_rows for _, num_rows in client.still.kinds] == [2, 1]


@pytest.mark.parametrize("key", [slice(1, 3), slice(None), (slice(None), 0), (2, slice(0, 2))])
def test_long_slices_and_columns_go_by_themselves(
    client: Client, key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "SMALL_SLICE_ROWS", 1)
    client.pull([1])
    asked = parse_item(key, num_rows=NUM_ROWS, num_cols=NUM_COLS)
    pull(client.runtime, client.matrix, asked, None)
    assert client.still.kinds[0] == ("Pull", 1)
    assert len(client.still.kinds) > 1
    assert client.still.outbox.open is None


def test_elements_are_paired_with_their_own_columns(client: Client) -> None:
    asked = parse_item((5, 2), num_rows=NUM_ROWS, num_cols=NUM_COLS)
    first, second = client.pull([3, 30], [2, 0]), client.pull([4], [1])
    single = pull(client.runtime, client.matrix, asked, None)
    assert first.result().tolist() == [32, 200]
    assert second.result().tolist() == [41]
    assert single.result() == 52


def test_keys_of_a_vector_join_too_and_an_int_has_no_axis(client: Client) -> None:
    first, second, third = (client.pull(rows, target=client.vector) for rows in (3, [39, 3], 20))
    assert first.result().shape == ()
    assert first.result() == 30
    assert second.result().tolist() == [290, 30]
    assert third.result() == 100
    assert client.still.kinds == [("Pull", 2), ("Pull", 2)]


def test_a_closed_outbox_is_not_opened_again(client: Client) -> None:
    client.push([1])
    client.still.outbox.close()
    assert client.still.kinds == [("Push", 1)]
    client.push([2])
    assert client.still.kinds == [("Push", 1), ("Push", 1)]
    assert client.still.outbox.open is None


# --- room -------------------------------------------------------------------------------------------------


def test_a_push_without_room_goes_by_itself_and_waits_and_a_bundle_never_waits(client: Client) -> None:
    client.push([1])
    client.push([2])
    client.still.room_bytes = 0
    client.push([3])
    assert client.still.kinds == [("Push", 2), ("Push", 1)]
    assert client.still.waits == [False, True]  # who issues a bundle may be who receives


def test_a_bundle_is_issued_before_it_is_more_than_there_is_room_for(client: Client) -> None:
    client.still.room_bytes = 2 * (8 * NUM_COLS + 8) + 1
    for row in range(3):
        client.push([row])
    assert client.still.kinds == [("Push", 3)]


# --- what goes wrong --------------------------------------------------------------------------------------


def test_each_has_an_error_of_its_own_by_its_own_servers(client: Client) -> None:
    good, bad, both = client.push([1]), client.push([30]), client.push([2, 31])
    client.still.outbox.issue()
    cause = Overloaded("too much")
    for server_id, call in client.still.calls:
        result: Any = Failed(cause, "refused")
        call.finish(answer_to(call.build(Stamp()), base=0) if server_id == "one" else result)
    assert good.result(0) is None
    refused, partial = bad.exception(0), both.exception(0)
    assert isinstance(refused, PushRefused)
    assert refused.outcome == "none"
    assert refused.parts == {"local://two": {"applied": 0, "refused": 1, "unknown": 0}}
    assert isinstance(partial, PushOutcomeUnknown)
    assert partial.outcome == "partial"
    assert partial.parts == {
        "local://one": {"applied": 1, "refused": 0, "unknown": 0},
        "local://two": {"applied": 0, "refused": 1, "unknown": 0},
    }
    assert refused.__cause__ is partial.__cause__ is cause


def test_an_error_of_the_server_s_is_each_future_s_own_copy(client: Client) -> None:
    futures = [client.pull([30]), client.pull([31])]
    client.still.outbox.issue()
    for _, call in client.still.calls:
        call.finish(Failed(ServerLost("it is lost", address="local://two"), "refused"))
    first, second = (future.exception(0) for future in futures)
    assert first is not second
    assert isinstance(first, ServerLost)
    assert isinstance(second, ServerLost)
    assert first.address == second.address == "local://two"
    assert not first.__suppress_context__
    first.add_note("noted once")
    assert not hasattr(second, "__notes__")


def test_a_pull_that_touches_the_good_server_alone_has_its_values(client: Client) -> None:
    good, bad = client.pull([3, 1]), client.pull([2, 31])
    client.still.outbox.issue()
    for server_id, call in client.still.calls:
        if server_id == "one":
            call.finish(answer_to(call.build(Stamp()), base=0))
        else:
            call.finish(Failed(ServerLost("it is lost"), "unknown"))
    assert good.result(0).tolist() == [[30, 31, 32], [10, 11, 12]]
    with pytest.raises(ServerLost):
        bad.result(0)


def test_what_is_refused_while_it_is_issued_is_told_by_the_futures_and_by_flush(client: Client) -> None:
    client.still.refuses = ServerLost("lost long ago")
    futures = [client.push([1]), client.push([2])]
    client.still.outbox.issue()
    assert all(future.done() for future in futures)
    with pytest.raises(ServerLost) as caught:
        client.still.pushes.flush(0)
    assert len(caught.value.__notes__) == 1


@pytest.mark.parametrize("error", [OSError("no descriptor is left"), MemoryError()])
def test_a_bundle_that_can_not_be_sent_fails_all_its_futures_and_is_told_to_flush(
    client: Client, error: Exception
) -> None:
    client.still.breaks = error
    futures = [client.push([1]), client.push([2])]
    client.still.outbox.issue()
    assert [future.done() for future in futures] == [True, True]
    with pytest.raises(type(error)):
        client.still.pushes.flush(0)
    assert [type(future.exception(0)) for future in futures] == [type(error)] * 2
    client.still.breaks = None
    client.push([3])
    client.still.outbox.issue()
    assert client.still.kinds == [("Push", 1)]


def test_ctrl_c_reaches_its_thread_and_no_future_is_left_open(client: Client) -> None:
    client.still.breaks = KeyboardInterrupt()
    future = client.push([1])
    with pytest.raises(KeyboardInterrupt):
        client.still.outbox.issue()
    assert isinstance(future.exception(0), KeyboardInterrupt)
    client.still.breaks = None
    client.still.pushes.flush(0)
    after = client.push([2])
    client.still.outbox.issue()
    assert client.still.kinds == [("Push", 1)]
    client.still.answer()
    assert after.result(0) is None
