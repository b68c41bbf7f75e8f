"""Messages between the workers of a group: written down, in order, until who they are for has them; pure.

A message has a number in its group and stands in the inbox of each worker that it is for. It stays there until that
worker asks for what comes behind it, so an answer that is lost is given again, and one that is repeated is known by
its numbers. A worker that asks when there is nothing is parked: one request a worker, since whoever asks again has
given up the one before. What waits for a worker ends with it.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from glintpy.actors.group import Group, Worker
from glintpy.actors.writing import Settle, Writing
from glintpy.config import MESSAGE_BYTES_MAX, MIB, GroupSettings
from glintpy.errors import ConfigError, Expelled, Overloaded, RemoteProtocolError
from glintpy.protocol.messages_master import ReceiveMessages, SendMessage
from glintpy.records import record

ANSWER_MESSAGES = 64
"""Messages in one answer."""

ANSWER_BYTES = 2 * MIB
"""The same in bytes of their bodies, as long as it is more than one message."""


@dataclass(slots=True, eq=False)
class _Letter:
    """A message.

    Attributes:
        group: its group's name.
        number: its own, in the group.
        sender: the token of who sent it.
        sent: its number among those of its sender.
        rank: of the sender; ``member``: its number among those that ever joined.
        body: in base64, as it is written down and as it travels; None: all have got it.
        to: for whom it is: token, rank and member.
        pending: of these, who has not got it yet.
        is_last: whether its sender has not sent another one: until then the sender may ask again to whom it went.
    """

    group: str
    number: int
    sender: bytes
    sent: int
    rank: int
    member: int
    head: int
    body: str | None
    num_bytes: int
    to: list[tuple[bytes, int, int]]
    pending: set[bytes] = field(default_factory=set)
    is_last: bool = True

    @property
    def key(self) -> str:
        """Its name on the disk: in the order of the numbers."""
        return f"{self.group}/{self.number:019d}"

    def to_row(self) -> dict[str, Any]:
        """Return plain data for the registry; who has got it is not in it, and asks with a number behind it."""
        return {
            "group": self.group,
            "number": self.number,
            "sender": self.sender.hex(),
            "sent": self.sent,
            "rank": self.rank,
            "member": self.member,
            "head": self.head,
            "body": self.body,
            "num_bytes": self.num_bytes,
            "to": [[token.hex(), rank, member] for token, rank, member in self.to],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> _Letter:
        """Return a message from the registry, for which nobody waits yet."""
        to = [(bytes.fromhex(token), rank, member) for token, rank, member in row["to"]]
        plain = {**row, "sender": bytes.fromhex(row["sender"]), "to": to}
        return cls(**plain)

    def to_content(self) -> dict[str, Any]:
        """Return plain data for who it is for."""
        return {
            "number": self.number,
            "head": self.head,
            "rank": self.rank,
            "member": self.member,
            "body": self.body,
        }


@dataclass(slots=True, eq=False)
class _Inbox:
    """What waits for one worker."""

    letters: deque[_Letter] = field(default_factory=deque)
    num_bytes: int = 0


@record
class _Waiting:
    """A worker that waits for a message, or for news of who has gone."""

    departures: int
    deadline: float
    settle: Settle


class Post:
    """The messages of all groups.

    Args:
        writing: where rows and answers go.
        settings: the limits.
    """

    def __init__(self, writing: Writing, settings: GroupSettings) -> None:
        self._writing = writing
        self._settings = settings
        self._letters: dict[str, _Letter] = {}
        self._last: dict[bytes, _Letter] = {}
        self._inboxes: dict[bytes, _Inbox] = {}
        self._waiting: dict[bytes, _Waiting] = {}
        self._num_bytes = 0

    def restore(self, rows: Iterable[dict[str, Any]], groups: Mapping[str, Group]) -> None:
        """Take what an earlier master had saved, for those workers that are there."""
        for row in rows:
            letter = _Letter.from_row(row)
            group = groups.get(letter.group)
            workers: Mapping[bytes, Worker] = {} if group is None else group.workers
            waiting = [token for token, _, _ in letter.to if token in workers]
            self._put(letter, waiting if letter.body is not None else [])
            self._forget_last(letter.sender)
            letter.is_last = letter.sender in workers
            if letter.is_last:
                self._last[letter.sender] = letter
            self._let_go(letter)

    def row(self, key: str) -> dict[str, Any] | None:
        """Return what is to be written of a message."""
        letter = self._letters.get(key)
        return None if letter is None else letter.to_row()

    def num_messages(self) -> dict[bytes, int]:
        """Return how many messages wait for workers."""
        return {token: len(inbox.letters) for token, inbox in self._inboxes.items()}

    def is_waiting(self, token: bytes) -> bool:
        """Whether a worker waits for a message."""
        return token in self._waiting

    # --- sending --------------------------------------------------------------------------------------------------

    def send(self, group: Group, worker: Worker, message: SendMessage, settle: Settle) -> None:
        """Take a message, for all that it is for or for none.

        Args:
            group: the worker's.
            worker: who sends it.
            message: the request.
            settle: hears the answer.

        Raises:
            Overloaded: too much waits for one of them, or altogether; nothing was changed.
            ConfigError: its body is too long.
            RemoteProtocolError: ranks that are slices.
        """
        if message.number <= worker.sent:
            self._answer_sent(group, worker, message.number, settle)
            return
        if message.body.size > MESSAGE_BYTES_MAX:
            raise ConfigError(f"a message has at most {MESSAGE_BYTES_MAX} bytes, not {message.body.size}")
        to = self._addressed(group, worker, message)
        if isinstance(to, list):
            self._writing.answer(settle, {"state": "missing", "size": group.size, "ranks": to})
            return
        self._check_room(group, to, int(message.body.size))
        worker.sent = message.number
        self._writing.note("workers", worker.token.hex())
        self._forget_last(worker.token)
        if to:
            self._take(group, worker, message, to)
        self._answer_sent(group, worker, message.number, settle)

    def _addressed(
        self, group: Group, worker: Worker, message: SendMessage
    ) -> tuple[Worker, ...] | list[int]:
        """Return whom a message is for; or the ranks that nobody has, if there are any."""
        if message.ranks is None:
            others = [other for other in group.workers.values() if other is not worker]
            return tuple(sorted(others, key=lambda other: other.rank))
        if message.ranks.ndim != 1:
            raise RemoteProtocolError("the ranks that a message is for are a list")
        by_rank = {other.rank: other for other in group.workers.values()}
        ranks = list(dict.fromkeys(int(rank) for rank in message.ranks))
        absent = [rank for rank in ranks if rank not in by_rank]
        return absent or tuple(by_rank[rank] for rank in ranks)

    def _check_room(self, group: Group, to: Iterable[Worker], num_bytes: int) -> None:
        limits = self._settings
        for other in to:
            inbox = self._inboxes.get(other.token)
            if inbox is None:
                continue
            if (
                len(inbox.letters) >= limits.messages_max
                or inbox.num_bytes + num_bytes > limits.messages_bytes_max
            ):
                raise Overloaded(
                    f"{len(inbox.letters)} messages of {inbox.num_bytes} bytes wait for worker {other.rank} of group "
                    f"{group.name!r} ({other.name}), which has not received them; at most {limits.messages_max} of "
                    f"{limits.messages_bytes_max} bytes may. Nothing was sent to anybody"
                )
        if self._num_bytes + num_bytes > limits.all_messages_bytes_max:
            raise Overloaded(
                f"messages of {self._num_bytes} bytes wait for workers of all groups; at most "
                f"{limits.all_messages_bytes_max} may. Nothing was sent to anybody"
            )

    def _take(self, group: Group, worker: Worker, message: SendMessage, to: tuple[Worker, ...]) -> None:
        group.num_messages += 1
        letter = _Letter(
            group.name,
            group.num_messages,
            worker.token,
            message.number,
            worker.rank,
            worker.member,
            message.head,
            base64.b64encode(message.body.tobytes()).decode(),
            int(message.body.size),
            [(other.token, other.rank, other.member) for other in to],
        )
        self._last[worker.token] = letter
        self._put(letter, [other.token for other in to])
        self._writing.note("groups", group.name)
        self._writing.note("messages", letter.key)
        for other in to:
            waiting = self._waiting.pop(other.token, None)
            if waiting is not None:
                self._answer_with_news(group, other.token, waiting)

    def _answer_sent(self, group: Group, worker: Worker, number: int, settle: Settle) -> None:
        last = self._last.get(worker.token)
        to = last.to if last is not None and last.sent == number else []
        content = {"state": "done", "size": group.size, "to": [[rank, member] for _, rank, member in to]}
        self._writing.answer(settle, content)

    def _put(self, letter: _Letter, tokens: Iterable[bytes]) -> None:
        self._letters[letter.key] = letter
        self._num_bytes += letter.num_bytes
        for token in tokens:
            inbox = self._inboxes.setdefault(token, _Inbox())
            inbox.letters.append(letter)
            inbox.num_bytes += letter.num_bytes
            letter.pending.add(token)

    # --- receiving ------------------------------------------------------------------------------------------------

    def receive(
        self, group: Group, worker: Worker, message: ReceiveMessages, now: float, settle: Settle
    ) -> None:
        """Let go of what a worker has, and give it what comes behind, now or later.

        Args:
            group: the worker's.
            worker: who asks.
            message: the request.
            now: the moment.
            settle: hears the answer.

        Raises:
            RemoteProtocolError: it has what was never sent.
        """
        if message.received > group.num_messages or message.departures > group.num_departures:
            raise RemoteProtocolError(
                f"it has message {message.received} and heard of {message.departures} departures in a group with "
                f"{group.num_messages} and {group.num_departures}"
            )
        self._drop(worker.token, up_to=message.received)
        before = self._waiting.pop(worker.token, None)
        if before is not None:
            self._answer_with_news(group, worker.token, before)
        deadline = now + min(message.wait_ms / 1000, self._settings.wait_s)
        waiting = _Waiting(message.departures, deadline, settle)
        has_news = worker.token in self._inboxes or message.departures < group.num_departures
        if has_news or deadline <= now:
            self._answer_with_news(group, worker.token, waiting)
        else:
            self._waiting[worker.token] = waiting

    def _answer_with_news(self, group: Group, token: bytes, waiting: _Waiting) -> None:
        inbox = self._inboxes.get(token)
        told: list[dict[str, Any]] = []
        num_bytes = 0
        for letter in inbox.letters if inbox is not None else ():
            num_bytes += letter.num_bytes
            if told and (len(told) == ANSWER_MESSAGES or num_bytes > ANSWER_BYTES):
                break
            told.append(letter.to_content())
        members = None
        # Behind all that those who have gone had said: an answer of theirs must not come after the news.
        if waiting.departures < group.num_departures and (inbox is None or len(told) == len(inbox.letters)):
            members = [worker.member for worker in group.workers.values()]
        content = {
            "size": group.size,
            "messages": told,
            "departures": group.num_departures,
            "members": members,
        }
        self._writing.answer(waiting.settle, content)

    def _drop(self, token: bytes, *, up_to: int) -> None:
        inbox = self._inboxes.get(token)
        while inbox is not None and inbox.letters and inbox.letters[0].number <= up_to:
            letter = inbox.letters.popleft()
            inbox.num_bytes -= letter.num_bytes
            letter.pending.discard(token)
            self._let_go(letter)
        if inbox is not None and not inbox.letters:
            del self._inboxes[token]

    # --- who goes, and time -----------------------------------------------------------------------------------------

    def departed(self, group: Group, worker: Worker, error: Expelled) -> None:
        """A worker is one no more: what waits for it ends, and the others hear of it."""
        waiting = self._waiting.pop(worker.token, None)
        if waiting is not None:
            self._writing.answer(waiting.settle, error)
        self._drop(worker.token, up_to=group.num_messages)
        self._forget_last(worker.token)
        for token in group.workers:
            waiting = self._waiting.pop(token, None)
            if waiting is not None:
                self._answer_with_news(group, token, waiting)

    def tick(self, group: Group, now: float) -> None:
        """Answer who has waited long enough in a group."""
        for token in group.workers:
            waiting = self._waiting.get(token)
            if waiting is not None and now >= waiting.deadline:
                del self._waiting[token]
                self._answer_with_news(group, token, waiting)

    def _forget_last(self, token: bytes) -> None:
        letter = self._last.pop(token, None)
        if letter is not None:
            letter.is_last = False
            self._let_go(letter)

    def _let_go(self, letter: _Letter) -> None:
        """Forget a message that nobody waits for; of a sender's last one only what it says."""
        if letter.pending or letter.key not in self._letters:
            return
        if not letter.is_last:
            del self._letters[letter.key]
        elif letter.body is None:
            return
        self._num_bytes -= letter.num_bytes
        letter.body, letter.num_bytes = None, 0
        # Written with what is written next: whoever has got a message says so again if this is lost.
        self._writing.note("messages", letter.key)
