"""Who belongs to the cluster and who is alive; pure: time is an argument.

A member is alive while it beats. A server that is killed is noticed at once, because its connection ends;
one that is stopped or cut off, when its beats stay out; one whose data actor hangs, because the progress
count in its beats stands still. A lost server stays on the list, since its models may come back with it;
a lost client is forgotten.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from glintpy.config import MembershipSettings
from glintpy.errors import Expelled
from glintpy.protocol.messages_master import Beat, Join
from glintpy.records import record

logger = logging.getLogger("glintpy.master")

State = Literal["alive", "hung", "lost", "stopped"]


@dataclass(slots=True)
class Member:
    """A server or client.

    Attributes:
        peer: the connection that its last message came over.
        order: counts first joins; the list of servers is in this order.
    """

    member_id: str
    is_server: bool
    name: str
    address: str
    incarnation: int
    pid: int
    host: str
    order: int
    peer: bytes = b""
    state: State = "lost"
    last_beat: float = 0.0
    progress: int = -1
    progress_at: float = 0.0
    joined_at: float = field(default=0.0)

    def to_content(self, now: float) -> dict[str, Any]:
        """Return plain data for a document."""
        return {
            "id": self.member_id,
            "name": self.name,
            "address": self.address,
            "state": self.state,
            "incarnation": self.incarnation,
            "pid": self.pid,
            "host": self.host,
            "last_beat_s": round(now - self.last_beat, 3) if self.joined_at else None,
        }


@record
class Departure:
    """A client that is no longer there.

    Attributes:
        may_return: whether only its connection ended, so that it may be back in a moment.
    """

    client_id: str
    reason: str
    may_return: bool


class Membership:
    """The list of members."""

    def __init__(self, settings: MembershipSettings) -> None:
        self._settings = settings
        self._members: dict[str, Member] = {}
        self._next_order = 0
        self.changes = 0
        """Counts what changed where a server is or whether it lives."""
        self.departures: deque[Departure] = deque()
        """Clients that are no longer there; whoever has something to do with them takes them off."""

    def remember(self, member_id: str, *, name: str, address: str, incarnation: int, host: str) -> None:
        """Note a server that an earlier master knew; it is lost until it joins again.

        Args:
            member_id: the server's own id.
            name: for people to read.
            address: where it was reached.
            incarnation: the last one known.
            host: where it ran.
        """
        self._members[member_id] = Member(
            member_id, True, name, address, incarnation, 0, host, order=self._next_order
        )
        self._next_order += 1

    def join(self, message: Join, peer: bytes, now: float) -> Member:
        """Take a member, new or returning.

        Raises:
            Expelled: an older incarnation of a server that was replaced, a second process with a living
                server's identity, or a client with a server's or the other way round.
        """
        known = self._members.get(message.member_id)
        if known is not None:
            self._refuse_impostor(known, message)
        order = known.order if known is not None else self._next_order
        self._next_order = max(self._next_order, order + 1)
        member = Member(
            message.member_id,
            message.is_server,
            message.name,
            message.address,
            message.incarnation,
            message.pid,
            message.host,
            order,
            peer=peer,
            state="alive",
            last_beat=now,
            progress_at=now,
            joined_at=now,
        )
        self._members[message.member_id] = member
        kind = "server" if message.is_server else "client"
        logger.info(
            "%s %s joined (%s, pid %d)", kind, message.name, message.address or message.host, message.pid
        )
        if message.is_server:
            self.changes += 1
        return member

    def beat(self, message: Beat, peer: bytes, now: float) -> bool:
        """Note a heartbeat; False if the member isn't known, and must join."""
        member = self._members.get(message.member_id)
        if member is None or member.incarnation != message.incarnation or member.state in {"lost", "stopped"}:
            return False
        member.peer, member.last_beat = peer, now
        if message.progress != member.progress:
            member.progress, member.progress_at = message.progress, now
            if member.state == "hung":
                self._set_state(member, "alive", "answers again")
        return True

    def leave(self, member_id: str) -> None:
        """A member goes in good order."""
        member = self._members.get(member_id)
        if member is None:
            return
        if member.is_server:
            self._set_state(member, "stopped", "stopped")
        else:
            logger.info("client %s left", member.name)
            del self._members[member_id]
            self.departures.append(Departure(member_id, "its client was closed", may_return=False))

    def lost_connection(self, peer: bytes) -> None:
        """A member's connection ended without a word: its process is dead, or it will join again."""
        for member in list(self._members.values()):
            if member.peer != peer or member.state in {"lost", "stopped"}:
                continue
            self._lose(member, "its connection ended", may_return=True)

    def tick(self, now: float, workers: Collection[str] = ()) -> None:
        """Look at who has been silent.

        Args:
            now: the moment.
            workers: clients that others wait for: they are missed as soon as servers are.
        """
        for member in list(self._members.values()):
            if member.state in {"lost", "stopped"}:
                continue
            silence_s = now - member.last_beat
            is_needed = member.is_server or member.member_id in workers
            limit_s = self._settings.silent_s if is_needed else self._settings.client_gone_s
            if silence_s > limit_s:
                self._lose(member, f"no heartbeat for {silence_s:.1f} s", may_return=False)
            elif member.is_server and member.state == "alive":
                still_s = now - member.progress_at
                if still_s > self._settings.hung_s:
                    self._set_state(member, "hung", f"beats, but has handled nothing for {still_s:.1f} s")

    def servers(self) -> list[Member]:
        """Return all servers, lost ones too, in the order in which they first joined."""
        return sorted((m for m in self._members.values() if m.is_server), key=lambda member: member.order)

    def alive_servers(self) -> list[Member]:
        """Return the servers that new models may use."""
        return [member for member in self.servers() if member.state == "alive"]

    def clients(self) -> list[Member]:
        """Return all clients."""
        return sorted((m for m in self._members.values() if not m.is_server), key=lambda member: member.order)

    def server(self, member_id: str) -> Member | None:
        """Return a server by its id."""
        member = self._members.get(member_id)
        return member if member is not None and member.is_server else None

    def client(self, member_id: str) -> Member | None:
        """Return a client that is alive, by its id."""
        member = self._members.get(member_id)
        return member if member is not None and not member.is_server else None

    def forget(self, member_id: str) -> None:
        """Drop a server that holds no model from the list."""
        if self._members.pop(member_id, None) is not None:
            self.changes += 1

    def _refuse_impostor(self, known: Member, message: Join) -> None:
        if known.is_server != message.is_server:
            kind = "server" if known.is_server else "client"
            raise Expelled(f"{message.member_id} is the {kind} {known.name}; join under an id of its own")
        if not known.is_server:
            return
        if message.incarnation < known.incarnation:
            raise Expelled(
                f"server {message.name} (incarnation {message.incarnation}) was replaced by incarnation "
                f"{known.incarnation}; stop this process"
            )
        same_process = (message.pid, message.host) == (known.pid, known.host)
        if known.state == "alive" and message.incarnation == known.incarnation and not same_process:
            raise Expelled(
                f"another process (pid {known.pid} on {known.host}) is server {message.name} already"
            )

    def _lose(self, member: Member, reason: str, *, may_return: bool) -> None:
        if member.is_server:
            self._set_state(member, "lost", reason)
        else:
            logger.info("client %s is gone: %s", member.name, reason)
            del self._members[member.member_id]
            self.departures.append(Departure(member.member_id, reason, may_return))

    def _set_state(self, member: Member, state: State, reason: str) -> None:
        member.state = state
        self.changes += 1
        log = logger.info if state in {"alive", "stopped"} else logger.warning
        log("server %s is %s: %s", member.name, state, reason)
