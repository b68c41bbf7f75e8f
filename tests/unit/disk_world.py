"""A server of level ``disk`` on a disk that loses what was not synced, and clients that know what they were told.

All in one thread and from one seed. The real actor, receipts, shelf, log and snapshots run; only the disk under log
and snapshots, the network and the master are made up. Journal and segments are real mapped files: a kill leaves them
as they are, and a power cut leaves rubbish in them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from glintpy import config, failpoints
from glintpy.actors.durable import Durable
from glintpy.actors.mailbox import Idle
from glintpy.actors.outlet import Outlet
from glintpy.actors.server import Admitted, FromMaster, ServerActor
from glintpy.actors.shelf import Shelf
from glintpy.protocol import wire
from glintpy.protocol.failures import APPLIED, PASSED_OVER
from glintpy.protocol.messages import CreateShard, DestroyShard, Done, Message
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.journal import Journal
from glintpy.testing.simulated_servers import SimulatedInbox
from tests.unit.disk_clients import KEY_RANGE, NUM_COLS, NUM_ROWS, NUM_SHARED, Clients
from tests.unit.power_loss import LossyFiles, PowerCut, nothing

LOG = Path("/server/log")
PLACES = ("push.before_undo", "push.flag_set", "push.half_applied", "push.applied", "push.recorded")


class World(Clients):
    """A server, its disk and its clients."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        disk: LossyFiles | None = None,
        durable: type[Durable] = Durable,
        num_clients: int = 3,
    ) -> None:
        super().__init__(random.Random(seed), num_clients)
        self.disk = disk or LossyFiles()
        self.folder = folder
        self.durable_kind = durable
        self.boot = 1
        self.told: list[Message] = []
        self.num_crashes = 0
        folder.mkdir(exist_ok=True)
        self.start()

    # --- the server -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        path = self.folder / "server.journal"
        journal = Journal.open(path) if path.exists() else Journal.create(path, "server", 8)
        try:
            durable = self.durable_kind(
                LOG, journal, log_bytes_max=48 * config.KIB, files=self.disk, boot=self.boot
            )
            shelf = Shelf(
                self.folder / "models",
                journal=journal,
                durable=durable,
                free_bytes=lambda: 2**40,
                prepare=lambda _: None,
            )
            try:
                shelf.recover(self.now)
            except BaseException:
                durable.close(clean=False)
                shelf.close(clean=False)
                raise
        except BaseException:
            journal.close(clean=False)
            raise
        self.actor = ServerActor(
            SimulatedInbox(),
            Outlet(self, bytes_max=2**30),
            journal=journal,
            shelf=shelf,
            settings=config.ServerSettings(sessions_max=8),
            control=_Master(self.told),
            clock=lambda: self.now,
        )
        self.actor.on_receive(Admitted(frozenset(self.models)))

    def end(self, *, power: bool) -> None:
        """End the process as it stands, or the machine."""
        failpoints.disarm()
        self.disk.before = nothing
        self.num_crashes += 1
        self.disk.is_off = True
        self.actor.durable.close(clean=False)
        self.actor.shelf.close(clean=False)
        self.actor.journal.close(clean=False)
        self.disk.kill()
        if power:
            self.cut_power()
        for client in self.clients:
            client.is_welcome = False

    def cut_power(self) -> None:
        self.boot += 1
        self.disk.cut_power(self.source)
        for path in [*self.folder.glob("*.*"), *self.folder.glob("models/*")]:
            _spoil(path, self.source)

    def stop(self) -> None:
        self.actor.close_state()
        for client in self.clients:
            client.is_welcome = False

    def come_back(self) -> None:
        """Start the server again, which may be killed, or meet a power cut, in coming back, too."""
        for _ in range(self.source.choice([0, 0, 1, 2])):
            power = self.source.random() < 0.5
            try:
                with self.trouble(self.source.randrange(40)):
                    self.start()
            except PowerCut:
                failpoints.disarm()
                self.disk.before = nothing
                self.disk.kill()
                if power:
                    self.cut_power()
            else:
                self.end(power=power)
        self.start()

    @contextmanager
    def trouble(self, call: int) -> Iterator[None]:
        """Stop at a call to the disk, or at a place in the middle of a push."""

        def countdown(left: int) -> Callable[..., None]:
            def count(*_: object) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    self.disk.is_off = True
                    raise PowerCut

            return count

        self.disk.before = countdown(call)
        if self.source.random() < 0.5:
            failpoints.arm_with(self.source.choice(PLACES), countdown(self.source.randrange(25)))
        try:
            yield
        finally:
            failpoints.disarm()
            self.disk.before = nothing

    # --- the master -------------------------------------------------------------------------------------------------

    def create(self, model_id: int, *, durability: config.Durability = "disk") -> None:
        self.create_of(
            model_id,
            ModelSpec(
                f"m{model_id}", NUM_ROWS + NUM_SHARED, NUM_COLS, "int64", durability=durability, init=model_id
            ),
        )

    def create_of(self, model_id: int, spec: ModelSpec) -> None:
        self._request_id += 1
        request = CreateShard(
            self._request_id,
            model_id=model_id,
            routing=1,
            num_rows=spec.num_rows,
            reserve_only=False,
            spec=wire.document(spec.to_content()),
            extents=np.empty((0, 4), np.int64),
        )
        before = len(self.told)
        self._ask(request)
        if any(isinstance(answer, Done) for answer in self.told[before:]):
            self.models[model_id] = spec.durability == "disk"
            self.num_rows_used.setdefault(model_id, 0)
            self.seen.setdefault(model_id, set())

    def destroy(self, model_id: int) -> None:
        del self.models[model_id]
        self._ask(DestroyShard(self._next_id(), model_id=model_id))

    def _ask(self, request: Message) -> None:
        self.actor.on_receive(FromMaster([bytes(frame) for frame in wire.encode(request)]))
        self.settle()

    def settle(self) -> None:
        """Let the server do all that it has to do."""
        for _ in range(1000):
            if not self.actor.inbox.has_work:
                return
            self.actor.on_receive(Idle())
        raise AssertionError("the server always has work")

    # --- what must hold -------------------------------------------------------------------------------------

    def check(self) -> None:
        """Settle everything; then each push is in once if it was applied, and else not at all."""
        for client in list(self.clients):
            self.finish(client)
        if self.complaint is not None:
            raise self.complaint
        for model_id in [model_id for model_id, on_disk in self.models.items() if on_disk]:
            values = self.actor.shelf.shard(model_id).values - model_id
            shared = np.zeros((NUM_SHARED, NUM_COLS), np.int64)
            for push in (push for push in self.issued if push.model_id == model_id):
                found = set(values[push.own_row].tolist())
                assert found in ({0}, {1}), f"push {push.own_row} of {model_id} is torn or doubled: {found}"
                is_in = found == {1}
                what = (
                    f"push {push.message.sequence} of {push.message.session.hex()[:4]}, told {push.outcome}"
                )
                if push.outcome is not None:
                    assert is_in is (push.outcome == APPLIED), (
                        f"{what}, and it is{'' if is_in else ' not'} in"
                    )
                if push.is_bad:
                    assert push.outcome in {None, KEY_RANGE, PASSED_OVER}, what
                if is_in:
                    for row, numbers in zip(
                        push.message.rows[1:].tolist(), push.message.values[1:], strict=True
                    ):
                        shared[row - NUM_ROWS] += numbers
            np.testing.assert_array_equal(values[NUM_ROWS:], shared)
            for row in self.seen[model_id]:
                assert values[row, 0] == 1, f"somebody saw row {row} of {model_id}, and it is gone"


class _Master:
    def __init__(self, told: list[Message]) -> None:
        self._told = told

    def send(self, frames: list[wire.Buffer]) -> None:
        self._told += wire.decode_all([bytes(frame) for frame in frames])


def _spoil(path: Path, source: random.Random) -> None:
    """Have a mapped file look as after a power cut: of another boot, its body rubbish."""
    with path.open("r+b") as file:
        file.seek(12)
        file.write(struct.pack("<I", 2))
        file.seek(56)
        file.write(struct.pack("<Q", 999))
        file.seek(0, 2)
        size = file.tell()
        if size > 4096:
            file.seek(source.randrange(4096, size))
            file.write(source.randbytes(16)[: size - file.tell()])


def run(world: World, *, num_crashes: int, kills: float) -> None:
    """Let a world go on, with crashes, and check it after each.

    Args:
        world: new.
        num_crashes: how often to crash it.
        kills: the share of crashes that only kill the process.
    """
    source = world.source
    world.create(1)
    world.create(2)
    world.create(3, durability="process")
    for crash in range(num_crashes):
        power = source.random() >= kills
        is_down = False
        try:
            with world.trouble(source.randrange(120)):
                for _ in range(60):
                    world.step()
        except PowerCut:
            is_down = True
        if not is_down and source.random() < 0.3:
            world.stop()
            if source.random() < 0.5:
                world.boot += 1
        else:
            world.end(power=power)
        world.come_back()
        world.check()
        if crash % 2:
            world.create(10 + crash)
        if 9 + crash in world.models:
            world.destroy(9 + crash)
