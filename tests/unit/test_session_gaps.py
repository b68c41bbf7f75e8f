"""A pull that came too early goes out again behind the pushes that it needs, and not again and again."""

from __future__ import annotations

from glintpy.protocol.messages import Gap, Message, Pull, Push
from tests.unit.session_talk import WINDOW, Talk


def kinds(messages: list[Message]) -> list[tuple[str, int]]:
    """Return what was sent, pushes with their numbers and pulls with the number that they follow."""
    return [
        ("push", message.sequence) if isinstance(message, Push) else ("pull", message.after)
        for message in messages
        if isinstance(message, Push | Pull)
    ]


def test_a_pull_that_came_before_its_pushes_goes_out_again_once_behind_them() -> None:
    talk = Talk.opened()
    talk.push()
    talk.push()
    pull = talk.pull()
    talk.said()
    for _ in range(3):  # a network that repeats messages
        talk.hear(Gap(pull, 0, 1, WINDOW))
    assert kinds(talk.said()) == [("push", 1), ("push", 2), ("pull", 2)]
    # The pushes are lost again: an answer for each question would go to and fro without pause.
    for _ in range(3):
        talk.hear(Gap(pull, 0, 1, WINDOW))
        assert kinds(talk.said()) == []


def test_each_of_several_pulls_goes_out_again_once() -> None:
    talk = Talk.opened()
    talk.push()
    pulls = [talk.pull() for _ in range(3)]
    talk.said()
    for pull in pulls:
        talk.hear(Gap(pull, 0, 1, WINDOW))
    assert kinds(talk.said()) == [("push", 1)] + [("pull", 1)] * 3
    for pull in pulls:
        talk.hear(Gap(pull, 0, 1, WINDOW))
    assert kinds(talk.said()) == []


def test_a_pull_that_is_too_early_again_for_another_push_goes_out_again() -> None:
    talk = Talk.opened()
    talk.push()
    talk.push()
    pull = talk.pull()
    talk.said()
    talk.hear(Gap(pull, 0, 1, WINDOW))
    talk.said()
    talk.hear(Gap(pull, 0, 2, WINDOW))  # the first one arrived
    assert kinds(talk.said()) == [("push", 2), ("pull", 2)]


def test_what_a_gap_leaves_open_is_asked_for_by_a_probe() -> None:
    talk = Talk.opened()
    talk.push()
    pull = talk.pull()
    talk.said()
    talk.hear(Gap(pull, 0, 1, WINDOW))
    talk.said()
    talk.hear(Gap(pull, 0, 1, WINDOW))
    assert kinds(talk.said()) == []
    talk.report(talk.probe(), 0, [])
    assert kinds(talk.said()) == [("push", 1), ("pull", 1)]
