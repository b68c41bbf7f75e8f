"""Client: a program's way to a cluster, its models and members; knows no server's inside."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, SupportsIndex, TypeVar

from glintpy import config
from glintpy.errors import ConfigError, GlintError, NotEnoughServers
from glintpy.models.base import check_on_server_lost, check_timeout
from glintpy.models.consistency import check_sums, group_of
from glintpy.models.dense import BigModel
from glintpy.models.group import Group, join_group
from glintpy.models.indexing import size_of
from glintpy.models.making import check_row_bytes, make_model, with_updater
from glintpy.models.matrix import BigMatrix
from glintpy.models.naming import generated_name
from glintpy.models.opening import OpensModels
from glintpy.models.table_making import MakesTables
from glintpy.models.vector import BigVector
from glintpy.partitioning import Partitioner
from glintpy.protocol import dtypes
from glintpy.protocol.messages_master import ClusterState, OpenModel
from glintpy.protocol.spec import Init, ModelSpec, check_name
from glintpy.scalars import plain
from glintpy.ties import Tie, share
from glintpy.updaters import Updater, bring

logger = logging.getLogger("glintpy.client")

Model = TypeVar("Model", bound=BigModel)

POLL_S = 0.05
"""Between two looks at the master while waiting for something to appear."""


class Client(MakesTables, OpensModels):
    """A connection to a cluster, made at once.

    Args:
        address: the master's.
        timeout_s: deadline of a request from its call on, in seconds; None waits for ever.
        on_server_lost: ``"wait"``: requests to a lost server wait for its return until their deadline;
            ``"raise"``: they fail at once.
        queued_bytes_max: bytes accepted and not yet answered for each server; a push beyond waits in the call.
        allow: classes of one's own, partitioners and updaters, that models made by others may have; they are found by
            their names.
        name: for people to read in ``glintpy status``.

    Raises:
        ConfigError: a setting out of its range, or no address.
        MasterUnreachable: nobody answered in time.
        ProtocolMismatch: the master speaks other versions.

    Threads:
        Safe from any thread. A forked or unpickled copy connects anew when it is first used.
    """

    def __init__(
        self,
        address: str = config.DEFAULT_ADDRESS,
        *,
        timeout_s: float | None = 30.0,
        on_server_lost: Literal["wait", "raise"] = "wait",
        queued_bytes_max: int = 64 * config.MIB,
        allow: Sequence[type[Partitioner | Updater]] = (),
        name: str | None = None,
    ) -> None:
        queued_bytes_max = plain(queued_bytes_max)
        if type(queued_bytes_max) is not int or queued_bytes_max < 1:
            raise ConfigError(f"queued_bytes_max is a positive number of bytes, not {queued_bytes_max!r}")
        if name is not None:
            check_name(name, whose="a client's")
        settings = config.ClientSettings(
            timeout_s=check_timeout(timeout_s),
            on_server_lost=check_on_server_lost(on_server_lost),
            queued_bytes_max=queued_bytes_max,
        )
        self._allowed = {kind.name: kind for kind in allow if issubclass(kind, Partitioner)}
        for kind in allow:
            if issubclass(kind, Updater):
                bring(kind)
        self._tie = Tie(address, settings)
        self._at_close: list[Callable[[], None]] = []
        self._tie.runtime(name)
        share(self._tie)

    # --- models ---------------------------------------------------------------------------------------------------

    def matrix(
        self,
        rows: SupportsIndex,
        cols: SupportsIndex,
        *,
        dtype: Any = "float64",
        partitioner: str | Partitioner = "range",
        partitions_per_server: int = 1,
        name: str | None = None,
        exist_ok: bool = False,
        init: Init = 0,
        seed: int = 0,
        updater: str | Updater = "add",
        finite: bool = False,
        durability: config.Durability | None = None,
        consistency: str = "async",
        group: Group | None = None,
    ) -> BigMatrix:
        """Make a matrix on the cluster's servers.

        Args:
            rows: number of rows, at least 0; may be fewer than there are servers.
            cols: number of columns, at least 0.
            dtype: an integer, unsigned or float of 8 to 64 bits, or bool.
            partitioner: ``"range"``, ``"cyclic"`` (dense ids by descending frequency balance), or an instance.
            partitions_per_server: how finely rows are dealt out.
            name: unique in the cluster; None: a random one.
            exist_ok: return the model of this name if its spec is equal.
            init: a number, ``("uniform", low, high)`` or ``("normal", mean, std)``.
            seed: of random values: the same on any number of servers and under any partitioner.
            updater: how pushes are applied: a name (``"add"``, ``"adagrad"``), or an instance with its numbers
                (``Adagrad(learning_rate=0.1)``) of a class in ``glintpy.updaters`` or of one's own.
            finite: refuse NaN and infinities.
            durability: what an acknowledged push survives: ``"memory"``: nothing; ``"process"``: the end of its
                server's process; ``"disk"``: a power cut. None: the cluster's level.
            consistency: ``"async"``: pulls and pushes go as they come; ``"ssp(k)"``: this handle's pulls wait for
                others, see ``BigMatrix.with_options``; ``"bsp"``: servers gather pushes, and apply their sum to each
                row once when all workers of the group have ticked; pulls read what the last step has left.
            group: for ``"ssp(k)"`` and ``"bsp"``: this program's place among the workers.

        Returns:
            A handle; used as a context manager it destroys the model at the end.

        Raises:
            ShapeError: sizes that aren't integers of at least 0; rows of more than 2 MiB under an updater that counts
                steps, unless servers gather its pushes.
            DTypeError: another dtype, initial values that it can't hold, or one that the updater can't work with.
            ConfigError: an unknown partitioner, updater, init or durability; a level that a server doesn't offer.
            ModelExists: the name is taken; with ``exist_ok``, by a model that differs.
            NotEnoughServers: there is no server.
            NotEnoughMemory: it doesn't fit; nothing was allocated anywhere.
            MasterUnreachable: the master did not answer.
        """
        return self._make(
            BigMatrix,
            name if name is not None else generated_name("matrix"),
            num_rows=size_of("rows", rows),
            num_cols=size_of("cols", cols),
            dtype=dtype,
            partitioner=partitioner,
            exist_ok=exist_ok,
            partitions_per_server=partitions_per_server,
            init=init,
            seed=seed,
            updater=updater,
            finite=finite,
            durability=durability or "",
            consistency=consistency,
            group=group,
        )

    def vector(
        self,
        size: SupportsIndex,
        *,
        dtype: Any = "float64",
        partitioner: str | Partitioner = "range",
        partitions_per_server: int = 1,
        name: str | None = None,
        exist_ok: bool = False,
        init: Init = 0,
        seed: int = 0,
        updater: str | Updater = "add",
        finite: bool = False,
        durability: config.Durability | None = None,
        consistency: str = "async",
        group: Group | None = None,
    ) -> BigVector:
        """Make a vector on the cluster's servers.

        Args:
            size: its length, at least 0.
            dtype: as of ``matrix``.
            partitioner: as of ``matrix``.
            partitions_per_server: as of ``matrix``.
            name: as of ``matrix``.
            exist_ok: as of ``matrix``.
            init: as of ``matrix``.
            seed: as of ``matrix``.
            updater: as of ``matrix``.
            finite: as of ``matrix``.
            durability: as of ``matrix``.
            consistency: as of ``matrix``.
            group: as of ``matrix``.

        Raises:
            What ``matrix`` raises.
        """
        return self._make(
            BigVector,
            name if name is not None else generated_name("vector"),
            num_rows=size_of("size", size),
            num_cols=None,
            dtype=dtype,
            partitioner=partitioner,
            exist_ok=exist_ok,
            partitions_per_server=partitions_per_server,
            init=init,
            seed=seed,
            updater=updater,
            finite=finite,
            durability=durability or "",
            consistency=consistency,
            group=group,
        )

    def models(self) -> list[str]:
        """Return the names of all models.

        Raises:
            MasterUnreachable: the master did not answer.
        """
        return [content["spec"]["name"] for content in self._state()["models"]]

    def destroy(self, name: str) -> None:
        """End a model by its name, whatever its partitioner; see ``BigMatrix.destroy``.

        Args:
            name: the model's.

        Raises:
            ModelNotFound: there is no such model.
            MasterUnreachable: the master did not answer.
        """
        model_id = self._ask(lambda request_id: OpenModel(request_id, 0, name))["model_id"]
        self._tie.runtime().pushes.wait(self._tie.settings.timeout_s, model_id)
        self._tie.runtime().destroy_model(model_id, name, timeout_s=self._tie.settings.timeout_s)

    # --- members --------------------------------------------------------------------------------------------------

    def servers(self) -> list[dict[str, Any]]:
        """Return the servers: id, name, address, state (alive, hung, lost, stopped) and more.

        Raises:
            MasterUnreachable: the master did not answer.
        """
        found: list[dict[str, Any]] = self._state()["servers"]
        return found

    def clients(self) -> list[dict[str, Any]]:
        """Return the clients: id, name, host, pid and more.

        Raises:
            MasterUnreachable: the master did not answer.
        """
        found: list[dict[str, Any]] = self._state()["clients"]
        return found

    def status(self, timeout_s: float = 2.0) -> dict[str, Any]:
        """Return the cluster's state: master, servers with what each holds and has done, clients, groups, models.

        Args:
            timeout_s: seconds to wait for the servers; one that doesn't answer has ``holds`` None.

        Raises:
            MasterUnreachable: the master did not answer.
        """
        return self._tie.runtime().cluster_status(timeout_s, master_s=self._tie.settings.timeout_s)

    def wait_for_servers(self, n: int, timeout_s: float | None = None) -> None:
        """Return when at least ``n`` servers are alive.

        Args:
            n: how many.
            timeout_s: seconds to wait; None: the client's own setting.

        Raises:
            NotEnoughServers: fewer were alive when the time was over.
            MasterUnreachable: the master did not answer.
        """
        limit_s = self._tie.settings.timeout_s if timeout_s is None else check_timeout(timeout_s)
        end = None if limit_s is None else time.monotonic() + limit_s
        while True:
            alive = sum(server["state"] == "alive" for server in self.servers())
            if alive >= n:
                return
            if end is not None and time.monotonic() >= end:
                raise NotEnoughServers(
                    f"{alive} of {n} servers are alive after {limit_s:g} s; start more with: "
                    f"glintpy server --master {self.address}"
                )
            time.sleep(POLL_S)

    @property
    def address(self) -> str:
        """The master's address."""
        return self._tie.address

    # --- workers --------------------------------------------------------------------------------------------------

    def join(
        self,
        name: str,
        num_workers: int | None = None,
        *,
        rank: int | None = None,
        on_worker_lost: Literal["shrink", "raise"] = "shrink",
        timeout_s: float | None = None,
    ) -> Group:
        """Become a worker of a group, with a rank, a clock and barriers; returns at once, without the others.

        Args:
            name: the group's; the first worker makes the group, and the last one to go ends it.
            num_workers: how many there are to be: barriers and clocks wait until so many have joined. None: whoever
                is there at the moment.
            rank: the one to have; None: the lowest free one, which nobody ever had as long as not all have joined.
                One that a live worker has is refused after 5 s: so long one that is dead and not yet missed may hold
                it. Who takes over a rank counts once with those that had it before.
            on_worker_lost: ``"shrink"``: the others go on without a worker that is lost; ``"raise"``: each of them
                hears of it by ``WorkerLost``, in ``wait`` or ``barrier``.
            timeout_s: seconds; None: the client's own setting.

        Raises:
            ConfigError: the group has all its workers, or one of that rank, or was made with other settings; or what
                can't be a setting.
            Overloaded: there are too many groups, or workers in this one.
            MasterUnreachable: the master did not answer.
        """
        return join_group(
            self._tie, name, num_workers, rank=rank, on_worker_lost=on_worker_lost, timeout_s=timeout_s
        )

    # --- its life -------------------------------------------------------------------------------------------------

    def flush(self, timeout_s: float | None = None) -> None:
        """Return when every push that this process issued before has its outcome.

        Args:
            timeout_s: seconds to wait; None waits until their own deadlines.

        Raises:
            TimeoutError: not all had one in time; they go on.
            PushFailed: the first failure that nobody has looked at; others are its notes.
        """
        self._tie.flush(timeout_s)

    def close(self) -> None:
        """Flush, then end the connections; what is pending raises. Again does nothing.

        Raises:
            PushFailed: a push failed and nobody has looked at it.
        """
        self._close(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is None:
            self._close(None)
            return
        try:
            self._close(self._tie.settings.close_timeout_s)
        except (GlintError, TimeoutError) as failure:
            # The exception under way says more than this one, which must not hide it.
            told = "; ".join([str(failure), *getattr(failure, "__notes__", ())])
            logger.error("while leaving after an error: %s", told)  # noqa: TRY400 - its traceback says nothing

    def _close(self, flush_s: float | None) -> None:
        try:
            self._tie.flush(flush_s)
        finally:
            self._tie.close()
            closers, self._at_close = self._at_close, []
            for close in closers:
                close()

    def _close_with(self, close: Callable[[], None]) -> None:
        self._at_close.append(close)

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    # --- inside ---------------------------------------------------------------------------------------------------

    def _ask(self, build: Callable[[int], Any]) -> Any:
        return self._tie.runtime().ask_master(build, timeout_s=self._tie.settings.timeout_s)

    def _state(self) -> Any:
        return self._ask(ClusterState)

    def _make(
        self,
        kind: type[Model],
        name: str,
        *,
        num_rows: int,
        num_cols: int | None,
        dtype: Any,
        partitioner: str | Partitioner,
        exist_ok: bool,
        updater: str | Updater,
        consistency: str,
        group: Group | None,
        **options: Any,
    ) -> Model:
        name_of_group = group_of(consistency, group)  # a mistake is told before anything is made
        spec, updater = with_updater(
            ModelSpec(
                name,
                num_rows,
                num_cols,
                dtypes.model_dtype(dtype).name,
                partitioner.signature if isinstance(partitioner, Partitioner) else partitioner,
                group=name_of_group,
                **options,
            ),
            updater,
        )
        if name_of_group:
            check_sums(updater)
        check_row_bytes(spec, updater)
        made = make_model(self._tie, kind, spec, partitioner, updater, exist_ok=exist_ok)
        return made if consistency == "async" else made.with_options(consistency=consistency, group=group)
