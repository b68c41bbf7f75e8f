"""A server in this process: its files, socket, actor and heart put together; knows no other server."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glintpy import config
from glintpy.actors.home import Home
from glintpy.actors.mailbox import SocketMailbox
from glintpy.actors.outlet import Outlet
from glintpy.actors.receipts import Receipts
from glintpy.actors.server import Admitted, FromMaster, ServerActor
from glintpy.errors import ConfigError, GlintError, MasterUnreachable, RemoteFailure
from glintpy.heart import Frames, Heart, Identity, Listeners
from glintpy.nodes.node import Node, check_reach
from glintpy.protocol.spec import check_name
from glintpy.transport import Listener, UnreadLimits, listen, scheme_of

logger = logging.getLogger("glintpy.nodes")

RETURN_S = 2.0
"""How long a server that comes back waits for the master before it says that it is ready."""


def start_server(
    master: str = config.DEFAULT_ADDRESS,
    *,
    address: str = "tcp://127.0.0.1:0",
    advertise: str | None = None,
    name: str | None = None,
    data_dir: str | Path | None = None,
    insecure: bool = False,
    settings: config.ServerSettings | None = None,
    membership: config.MembershipSettings | None = None,
    on_refused: Callable[[GlintError], None] | None = None,
    keep_trying: Callable[[], bool] = lambda: True,
    receipts: type[Receipts] | None = None,
) -> Node:
    """Start a server in this process and join the master.

    Args:
        master: the master's address.
        address: where to listen; port 0 takes the one that this folder's server had before, or any free one.
        advertise: the address that others are told; None: the one listened at.
        name: for people to read; None: made from its id.
        data_dir: where values and receipts lie; None: a private folder, which goes when the server is stopped in
            good order, or nothing at all at level ``memory``.
        insecure: allow an address that others than this machine's programs can reach.
        settings: limits.
        membership: heartbeats and the time to join.
        on_refused: called when the master refuses the server after it had joined; None: log it.
        keep_trying: asked now and then while the master doesn't answer; False gives up.
        receipts: the class that counts pushes, where a drill puts a defective one in; None: the real one.

    Raises:
        AccessDenied: an address beyond loopback without ``insecure``.
        ConfigError: the address is taken, or the directory can't be used.
        MasterUnreachable: nobody answered at ``master`` in time. A server that comes back doesn't wait for the master:
            clients that know it are served meanwhile.
        Expelled: another process is this server.
    """
    check_reach(address, insecure=insecure)
    _check_names(master, name)
    membership = membership or config.MembershipSettings()
    settings = settings or config.ServerSettings()
    folder = None if data_dir is None else Path(data_dir)
    home = Home.open(folder, settings, wait_s=membership.lock_wait_s, keep_trying=keep_trying)
    control = _Control()
    actor, listener = _build_server(
        home, address, settings, control, tick_s=membership.tick_s, receipts=receipts or Receipts
    )
    reached_at = _advertised(listener, advertise)
    heart = control.heart = _build_heart(
        actor,
        home,
        master=master,
        name=name,
        address=reached_at,
        membership=membership,
        refused=on_refused or _log_refusal,
    )
    node = Node(actor, reached_at, heart=heart)
    # Ready means ready: the actor answers before anybody is told its address.
    actor.launch()
    try:
        heart.start()
        _wait_joined(heart, home, membership, master, keep_trying)
    except BaseException:  # a signal, too: what is open must be closed in good order
        node.stop()
        raise
    return node


def _build_heart(
    actor: ServerActor,
    home: Home,
    *,
    master: str,
    name: str | None,
    address: str,
    membership: config.MembershipSettings,
    refused: Callable[[GlintError], None],
) -> Heart:
    journal, shelf = actor.journal, actor.shelf
    identity = Identity(
        journal.server_id,
        name or f"server-{journal.server_id[:6]}",
        is_server=True,
        address=address,
        incarnation=journal.incarnation,
        cluster_id=home.cluster_id,
        era=home.era,
    )
    return Heart(
        master,
        identity,
        settings=membership,
        progress=lambda: actor.progress,
        highest_model=lambda: shelf.highest_model,
        listeners=Listeners(
            joined=lambda content: _joined(actor, home, content),
            arrived=lambda frames: actor.tell(FromMaster(frames)),
            refused=refused,
        ),
    )


def _build_server(
    home: Home,
    address: str,
    settings: config.ServerSettings,
    control: _Control,
    *,
    tick_s: float,
    receipts: type[Receipts],
) -> tuple[ServerActor, Listener]:
    """Open a server's models and socket and put its actor over them, not yet running."""
    journal = home.journal
    try:
        listener = _listen_again(home, address, UnreadLimits.of(settings))
    except GlintError:
        # As it was found: after a kill it says no more than the kernel has, which a power cut may yet take.
        journal.close(clean=journal.was_clean)
        home.remove_if_private()
        raise
    try:
        shelf = home.open_shelf(settings)
        home.last_address = listener.address
    except GlintError:
        listener.close()
        journal.close(clean=False)
        home.remove_if_private()
        raise
    mailbox = SocketMailbox(listener, tick_s=tick_s)
    actor = ServerActor(
        mailbox,
        Outlet(listener, bytes_max=settings.answers_bytes_max),
        journal=journal,
        shelf=shelf,
        settings=settings,
        control=control,
        clock=time.monotonic,
        receipts=receipts(journal, settings),
    )
    actor.at_stop.extend([listener.close, mailbox.close])
    actor.at_stop.append(lambda: None if actor.is_killed else home.remove_if_private())
    return actor, listener


def _listen_again(home: Home, address: str, limits: UnreadLimits) -> Listener:
    """Listen where this folder's server did before, if any port will do: clients find it without asking."""
    before = home.last_address
    host, _, port = address.rpartition(":")
    if port == "0" and before.rpartition(":")[0] == host:
        try:
            return listen(before, limits=limits)
        except ConfigError as error:
            logger.info("listens at another port than before: %s", error)
    return listen(address, limits=limits)


def _wait_joined(
    heart: Heart,
    home: Home,
    membership: config.MembershipSettings,
    master: str,
    keep_trying: Callable[[], bool],
) -> None:
    logger.debug("joining the master at %s", master)
    if not home.cluster_id:
        heart.wait_joined(membership.join_timeout_s, keep_trying=keep_trying)
        home.say_where()
        return
    try:
        heart.wait_joined(min(RETURN_S, membership.join_timeout_s), keep_trying=keep_trying)
    except MasterUnreachable:
        logger.warning(
            "no master answers at %s yet; clients that know this server are served meanwhile", master
        )
    except RemoteFailure as error:
        # Its disk is full, perhaps as this one is: it is asked again with each beat.
        logger.warning("the master can't admit this server yet; clients that know it are served: %s", error)


def _joined(actor: ServerActor, home: Home, content: dict[str, Any]) -> None:
    try:
        home.cluster_id, home.era = str(content["cluster_id"]), str(content["era"])
    except ConfigError as error:
        # A disk that is full for now: the next master's start says it again.
        logger.error("can't note which cluster this server belongs to: %s", error)  # noqa: TRY400 - a disk's fault, not ours
    actor.tell(Admitted(frozenset(int(model_id) for model_id in content["models"])))


def _check_names(master: str, name: str | None) -> None:
    scheme_of(master)
    if name is not None:
        check_name(name, whose="a server's")


class _Control:
    """The heart, once there is one: the actor is built first."""

    heart: Heart | None = None

    def send(self, frames: Frames) -> None:
        if self.heart is not None:
            self.heart.send(frames)


def _log_refusal(error: GlintError) -> None:
    logger.error("the master refused this server: %s", error)


def _advertised(listener: Listener, advertise: str | None) -> str:
    if advertise is not None:
        if "://" in advertise:
            scheme_of(advertise)
            return advertise
        port = listener.address.rpartition(":")[2]
        return f"tcp://{advertise}" if ":" in advertise else f"tcp://{advertise}:{port}"
    host, _, port = listener.address.removeprefix("tcp://").rpartition(":")
    if listener.address.startswith("tcp://") and host.strip("[]") in {"0.0.0.0", "::", "*"}:  # noqa: S104 - told apart, not bound
        return f"tcp://{socket.gethostname()}:{port}"
    return listener.address
