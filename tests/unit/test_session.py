"""The client's half of a session, fed by hand: what it sends, when, and what it makes of each answer."""

from __future__ import annotations

import numpy as np

from glintpy.errors import Expelled, GlintError, KeyRangeError, ProtocolMismatch
from glintpy.protocol.failures import APPLIED, PASSED_OVER, code_of
from glintpy.protocol.messages import (
    Applied,
    Gap,
    Hello,
    Probe,
    Pull,
    Push,
    Welcome,
)
from glintpy.protocol.session import IN_FLIGHT_MAX, PULLS_IN_FLIGHT_MAX
from tests.unit.session_talk import SESSION, WINDOW, Talk, applied, failure

# --- opening ------------------------------------------------------------------------------------------------


def test_nothing_but_a_greeting_is_sent_before_the_welcome() -> None:
    talk = Talk()
    talk.push()
    assert talk.said() == []
    talk.session.connected(talk.now)
    (hello,) = talk.said()
    assert isinstance(hello, Hello)
    assert (hello.session, hello.floor) == (b"", 1)
    talk.hear(Welcome(hello.request_id, 1, "", "server", 1, SESSION, WINDOW, 0))
    assert talk.pushes() == [1]


def test_a_greeting_without_an_answer_is_repeated_ever_more_slowly() -> None:
    talk = Talk()
    talk.session.connected(talk.now)
    moments = []
    for _ in range(3000):
        moments += [talk.now for message in talk.said() if isinstance(message, Hello)]
        talk.now += 0.01
        talk.session.tick(talk.now)
    waits = np.diff(moments)
    assert (waits[1:4] > 1.2 * waits[:3]).all()
    assert waits.max() < 6.1


def test_a_peer_of_another_version_fails_everything() -> None:
    talk = Talk()
    number = talk.push()
    talk.session.connected(talk.now)
    (hello,) = talk.said()
    talk.hear(failure(hello.request_id, ProtocolMismatch("this server speaks 2")))
    assert talk.failed(number).fate == "unsent"
    assert isinstance(talk.failed(number).error, ProtocolMismatch)


# --- order, floor and windows -------------------------------------------------------------------------------


def test_pushes_are_numbered_as_issued_and_carry_the_oldest_open_number() -> None:
    talk = Talk.opened()
    first, second, third = talk.push(), talk.push(), talk.push()
    assert talk.pushes() == [1, 2, 3]
    talk.hear(applied(second))
    talk.push()
    (push,) = talk.said()
    assert isinstance(push, Push)
    assert (push.sequence, push.floor) == (4, 1)
    talk.hear(applied(first))
    talk.hear(applied(third))
    assert talk.session.floor == 4


def test_a_pull_names_the_last_push_to_its_own_model() -> None:
    talk = Talk.opened()
    talk.push(model_id=1)
    talk.push(model_id=2)
    talk.pull(model_id=1)
    talk.pull(model_id=2)
    talk.pull(model_id=3)
    assert [message.after for message in talk.said() if isinstance(message, Pull)] == [1, 2, 0]


def test_what_is_under_way_fits_into_the_granted_window_and_follows_it() -> None:
    talk = Talk.opened(window_bytes=100)
    numbers = [talk.push(cost_bytes=40) for _ in range(5)]
    assert talk.pushes() == [1, 2]
    talk.hear(Applied(numbers[0], 0, 200))
    assert talk.pushes() == [3, 4, 5]
    assert talk.session.in_flight_bytes == 160


def test_a_call_larger_than_the_window_goes_alone() -> None:
    talk = Talk.opened(window_bytes=100)
    big, _ = talk.push(cost_bytes=1000), talk.push(cost_bytes=1)
    assert talk.pushes() == [1]
    talk.hear(Applied(big, 0, 100))
    assert talk.pushes() == [2]


def test_numbers_under_way_never_outrun_the_servers_ring() -> None:
    talk = Talk.opened()
    numbers = [talk.push(cost_bytes=0) for _ in range(IN_FLIGHT_MAX + 5)]
    assert len(talk.pushes()) == IN_FLIGHT_MAX
    talk.hear(applied(numbers[1]))
    assert talk.pushes() == []
    talk.hear(applied(numbers[0]))
    assert talk.pushes() == [IN_FLIGHT_MAX + 1, IN_FLIGHT_MAX + 2]


def test_pulls_under_way_are_bounded_too() -> None:
    talk = Talk.opened()
    for _ in range(PULLS_IN_FLIGHT_MAX + 3):
        talk.pull(cost_bytes=0)
    assert len(talk.said()) == PULLS_IN_FLIGHT_MAX


# --- silence ------------------------------------------------------------------------------------------------


def test_probes_are_small_and_back_off_up_to_their_limit() -> None:
    talk = Talk.opened()
    talk.push()
    talk.said()
    moments = []
    for _ in range(6000):
        talk.now += 0.01
        talk.session.tick(talk.now)
        for frames in talk.session.outgoing(talk.now):
            moments.append(talk.now)
            assert sum(map(len, frames)) < 100
    waits = np.diff(moments)
    growth = waits[1:5] / waits[:4]
    assert ((growth > 1.1) & (growth < 2.1)).all()
    assert 3.9 < waits[-3:].min() <= waits.max() < 6.1
    assert talk.session.num_payload_resends == 0


def test_nobody_probes_while_nothing_is_open() -> None:
    talk = Talk.opened()
    for _ in range(100):
        talk.now += 1.0
        talk.session.tick(talk.now)
    assert talk.said() == []


def test_a_report_sends_only_what_is_missing() -> None:
    talk = Talk.opened()
    first, _, pulled = talk.push(), talk.push(), talk.pull()
    talk.said()
    talk.report(talk.probe(), 1, [APPLIED])
    assert isinstance(talk.results[first], Applied)
    again = talk.said()
    assert [type(message) for message in again] == [Push, Pull]
    assert talk.session.num_payload_resends == 1
    assert pulled not in talk.results


def test_a_report_says_nothing_of_what_was_sent_after_its_probe() -> None:
    talk = Talk.opened()
    talk.push()
    talk.said()
    probe = talk.probe()
    talk.push()
    talk.said()
    talk.report(probe, 0, [])
    assert talk.pushes() == [1]


def test_a_report_tells_refusals_and_numbers_without_a_record() -> None:
    talk = Talk.opened()
    refused, forgotten = talk.push(), talk.push()
    talk.said()
    talk.report(talk.probe(), 2, [code_of(KeyRangeError()), PASSED_OVER])
    assert talk.failed(refused).fate == "refused"
    assert isinstance(talk.failed(refused).error, KeyRangeError)
    assert talk.failed(forgotten).fate == "unknown"


def test_one_gap_sends_all_from_there_once() -> None:
    talk = Talk.opened()
    numbers = [talk.push() for _ in range(4)]
    talk.said()
    for number in numbers[2:]:
        talk.hear(Gap(number, 0, 2, WINDOW))
    assert talk.pushes() == [2, 3, 4]
    talk.hear(Gap(numbers[3], 0, 2, WINDOW))
    assert talk.pushes() == []


# --- connections --------------------------------------------------------------------------------------------


def test_after_a_reconnect_only_what_has_no_outcome_goes_out_again_in_order() -> None:
    talk = Talk.opened()
    first = talk.push()
    talk.push()
    talk.push()
    talk.said()
    hello = talk.reconnect(applied=1)
    assert (hello.session, hello.floor) == (SESSION, 1)
    messages = talk.said()
    assert [message.sequence for message in messages if isinstance(message, Push)] == [2, 3]
    (probe,) = [message for message in messages if isinstance(message, Probe)]
    talk.report(probe, 1, [APPLIED])
    assert isinstance(talk.results[first], Applied)


def test_nothing_is_sent_while_there_is_no_connection() -> None:
    talk = Talk.opened()
    talk.push()
    talk.said()
    talk.session.disconnected(talk.now)
    talk.push()
    talk.now += 60.0
    talk.session.tick(talk.now)
    assert talk.said() == []


# --- giving up ----------------------------------------------------------------------------------------------


def test_a_push_given_up_under_way_is_unknown_and_its_number_is_passed_over() -> None:
    talk = Talk.opened()
    number = talk.push(deadline=talk.now + 1.0)
    talk.said()
    talk.now += 1.0
    talk.session.tick(talk.now)
    failed = talk.failed(number)
    assert (failed.fate, failed.timed_out) == ("unknown", True)
    assert talk.session.in_flight_bytes == 0
    talk.push()
    (push,) = [message for message in talk.said() if isinstance(message, Push)]
    assert (push.sequence, push.floor) == (2, 2)


def test_a_push_given_up_before_it_left_has_no_number() -> None:
    talk = Talk()
    number = talk.push(deadline=talk.now + 1.0)
    talk.push()
    talk.now += 2.0
    talk.session.tick(talk.now)
    assert talk.failed(number).fate == "unsent"
    talk.session.connected(talk.now)
    talk.welcome()
    assert talk.pushes() == [1]


def test_a_server_that_says_no_to_a_number_given_up_does_not_end_the_session() -> None:
    talk = Talk.opened()
    given_up = talk.push(deadline=talk.now + 1.0)
    kept = talk.push()
    talk.said()
    talk.now += 1.0
    talk.session.tick(talk.now)
    talk.hear(failure(given_up, Expelled("was given up by its client")))
    talk.hear(applied(kept))
    assert isinstance(talk.results[kept], Applied)
    assert talk.session.session == SESSION


def test_failing_everything_tells_what_was_sent_from_what_was_not() -> None:
    talk = Talk.opened(window_bytes=8)
    sent, waiting = talk.push(), talk.push()
    talk.said()
    talk.session.fail_all(GlintError("closed"))
    assert (talk.failed(sent).fate, talk.failed(waiting).fate) == ("unknown", "unsent")
    assert talk.session.num_waiting == 0
