"""A session that the server forgot, and pushes whose values were lost: what is known, and what is asked again."""

from __future__ import annotations

import pytest

from glintpy.errors import Expelled, GlintError, PushOutcomeUnknown
from glintpy.protocol.failures import APPLIED
from glintpy.protocol.messages import (
    Pull,
    Push,
    Values,
)
from tests.unit.session_talk import OTHER, VALUES, WINDOW, Talk, applied, failure

# --- a session that is gone ---------------------------------------------------------------------------------


def test_an_expelled_session_makes_sent_pushes_unknown_and_asks_pulls_again() -> None:
    talk = Talk.opened(window_bytes=24)
    pushed, pulled, waiting = talk.push(), talk.pull(cost_bytes=16), talk.push()
    talk.said()
    talk.hear(failure(pushed, Expelled("not known")))
    assert talk.failed(pushed).fate == "unknown"
    assert isinstance(talk.failed(pushed).error, PushOutcomeUnknown)
    assert talk.welcome(OTHER).session == b""
    pull, push = talk.said()
    assert isinstance(pull, Pull)
    assert (pull.request_id, pull.after, pull.session) == (pulled, 0, OTHER)
    assert isinstance(push, Push)
    assert (push.request_id, push.sequence) == (waiting, 1)


def test_a_new_session_is_asked_for_under_another_id() -> None:
    # Under the old one the server gave the old session back: number 1 had its outcome, and a new push was
    # acknowledged and lost.
    talk = Talk.opened()
    pushed = talk.push()
    talk.said()
    talk.hear(failure(pushed, Expelled("not known")))
    first = talk.welcome(OTHER)
    assert first.client_id != bytes(16)
    assert len(first.client_id) == 16


def test_a_late_answer_to_the_session_before_does_not_end_the_new_one() -> None:
    talk = Talk.opened()
    pushed, other = talk.push(), talk.push()
    talk.said()
    talk.hear(failure(pushed, Expelled("not known")))
    talk.welcome(OTHER)
    talk.hear(failure(other, Expelled("not known")))
    assert (talk.session.session, talk.session.phase) == (OTHER, "open")


def test_a_reconnect_to_a_server_that_forgot_the_session_begins_anew() -> None:
    talk = Talk.opened()
    pushed = talk.push()
    talk.said()
    talk.session.disconnected(talk.now)
    talk.session.connected(talk.now)
    (hello,) = talk.said()
    talk.hear(failure(hello.request_id, Expelled("not known")))
    assert talk.failed(pushed).fate == "unknown"
    assert talk.welcome(OTHER).session == b""


# --- push_pull ----------------------------------------------------------------------------------------------


def values(number: int) -> Values:
    return Values(number, 0, WINDOW, VALUES)


def test_a_push_pull_whose_answer_was_lost_reads_instead_of_pushing_again() -> None:
    talk = Talk.opened()
    number = talk.push(reads=True)
    talk.said()
    talk.report(talk.probe(), 1, [APPLIED])
    (pull,) = talk.said()
    assert isinstance(pull, Pull)
    assert (pull.request_id, pull.after, pull.floor) == (number, 1, 2)
    talk.hear(values(number))
    assert isinstance(talk.results[number], Values)
    assert talk.session.in_flight_bytes == 0
    assert talk.session.num_payload_resends == 0


@pytest.mark.parametrize("times", [1, 2])
def test_a_receipt_without_values_has_them_read(times: int) -> None:
    talk = Talk.opened()
    number = talk.push(reads=True)
    talk.said()
    for _ in range(times):
        talk.hear(applied(number))
    assert number not in talk.results
    assert [type(message) for message in talk.said()] == [Pull]


def test_a_push_that_is_in_was_not_refused_though_its_values_can_not_be_read() -> None:
    talk = Talk.opened()
    number = talk.push(reads=True)
    talk.said()
    talk.hear(applied(number))
    talk.said()
    talk.hear(failure(number, GlintError("no memory for an answer")))
    assert talk.failed(number).fate == "unknown"
