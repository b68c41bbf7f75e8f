"""What simulated clients do and what goes wrong meanwhile, drawn from a seed; knows no session and no server."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.models.indexing import Asked, parse_pull
from glintpy.protocol.spec import ModelInfo, ModelSpec, num_partitions
from glintpy.testing.simulated_history import PUSHES_MAX
from glintpy.testing.simulated_network import Faults

Kind = Literal[
    "clean", "pauses", "resets", "restarts", "kills", "hostile", "hostile restarts", "hostile kills", "expiry"
]
"""A network and its accidents: the first five are faithful, as TCP; the last four lose, repeat and reorder."""

KINDS: tuple[Kind, ...] = get_args(Kind)

WORK_S = 1.5
"""All work is issued in this time; accidents end a second later."""

BUNDLED = 0.15
"""Share of pushes and pulls that are several small ones, travelling together."""

MEMBERS_MAX = 3
"""Of a bundle: each adds two to a cell at most, and so they are counted by four bits as one push's repeats are."""

REPEATS_MAX = 3
"""A push names a cell so often at most: four bits hold that twice, weighed by two."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One simulated world.

    Attributes:
        seed: what all of it is drawn from.
        kind: of accidents.
        faults: of the network.
        num_clients: programs that work.
        part_bytes: what takes the place of ``config.PART_BYTES``.
        settings: of the servers.
        client_settings: of the clients.
        on_disk: whether servers keep segments and a journal, and so can be restarted.
        num_resets: connections that break.
        num_restarts: servers that are stopped and started again.
        kill: share of the places inside a server's work at which it is killed.
        num_kills: servers that are killed between two messages.
        num_pauses: clients and servers that stand still for a while.
        close: share of clients that end while work goes on.
    """

    seed: int
    kind: Kind
    faults: Faults
    num_clients: int
    part_bytes: int
    settings: config.ServerSettings
    client_settings: config.ClientSettings
    on_disk: bool
    num_resets: int
    num_restarts: int
    kill: float
    num_kills: int
    num_pauses: int
    close: float


def plan_of(seed: int, kind: Kind | None) -> Plan:
    """Draw a world; ``kind`` None draws that too."""
    source = random.Random(seed)  # noqa: S311 - drawn again from the same seed, and no secret
    drawn = source.choice(KINDS)
    kind = drawn if kind is None else kind
    is_fifo = kind in {"clean", "pauses", "resets", "restarts", "kills"}
    has_kills = "kills" in kind
    is_lossy = source.random() < 0.8
    faults = Faults(
        is_fifo=is_fifo,
        drop=0.0 if is_fifo else source.uniform(0.0, 0.3),
        repeat=0.0 if is_fifo else source.uniform(0.0, 0.3),
        late=0.0 if is_fifo or not is_lossy else source.uniform(0.0, 0.2),
        delay_max_s=source.choice([0.002, 0.02, 0.1]),
        busy=source.choice([0.0, 0.0, 0.2]),
    )
    settings = config.ServerSettings(
        window_bytes_max=source.choice([1024, 4096, 32 * config.MIB]),
        window_bytes_min=512,
        budget_bytes=source.choice([4096, 256 * config.MIB]),
        answers_bytes_max=source.choice([2048, 64 * config.MIB]),
        sessions_max=2 if kind == "expiry" and source.random() < 0.4 else 12,
        session_expiry_s=source.choice([0.4, 1.0, 3600.0]) if kind == "expiry" else 3600.0,
    )
    return Plan(
        seed=seed,
        kind=kind,
        faults=faults,
        num_clients=source.randint(1, 4),
        part_bytes=source.choice([64, 256, 256, 1024, 8192]),
        settings=settings,
        client_settings=config.ClientSettings(timeout_s=None),
        on_disk="restarts" in kind or has_kills,
        num_resets=source.randint(1, 8) if kind in {"resets", "restarts", "kills", "expiry"} else 0,
        num_restarts=source.randint(1, 3) if "restarts" in kind else 0,
        kill=source.choice([0.003, 0.01, 0.05]) if has_kills else 0.0,
        num_kills=source.randint(0, 3) if has_kills else 0,
        num_pauses=source.randint(1, 6) if kind in {"pauses", "resets", "expiry"} else 0,
        close=source.choice([0.0, 0.5]),
    )


def draw_models(source: random.Random, servers: list[tuple[str, str]]) -> list[ModelInfo]:
    """Draw a matrix, a vector and at times a second matrix, of int64."""
    num_rows, num_cols = source.randint(1, 30), source.choice([1, 3, 7, 20])
    shapes: list[tuple[int, int | None]] = [(num_rows, num_cols), (source.randint(1, 80), None)]
    if source.random() < 0.2:
        shapes.append((source.randint(1, 4), 40))  # a row of it is more than some parts
    infos = []
    for model_id, (rows, cols) in enumerate(shapes, 1):
        spec = ModelSpec(
            f"model-{model_id}",
            rows,
            cols,
            "int64",
            source.choice(["range", "cyclic"]),
            partitions_per_server=source.randint(1, 3),
        )
        count = num_partitions(
            num_keys=rows, partitions_per_server=spec.partitions_per_server, num_servers=len(servers)
        )
        owners = tuple(partition % len(servers) for partition in range(count))
        infos.append(ModelInfo(model_id, spec, 1, tuple(servers), owners))
    return infos


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One thing that a client does.

    Attributes:
        at_s: when, from the beginning.
        client: who.
        what: does it.
        model: to which model, as its index.
        place: the push's field in that model.
        timeout_s: when it is given up; None: never.
        num_members: of how many small requests a bundle is made; 0: it is one request, of any size.
    """

    at_s: float
    client: int
    what: Literal["push", "push_pull", "pull", "stale", "bad rows", "close"]
    model: int = 0
    place: int = -1
    timeout_s: float | None = None
    num_members: int = 0


def draw_ops(source: random.Random, plan: Plan, num_models: int) -> list[Op]:
    """Draw what clients do, by time."""
    ops = []
    for model in range(num_models):
        for place in range(source.randint(6, PUSHES_MAX)):
            what = source.choices(
                ["push", "push_pull", "stale", "bad rows"], weights=[0.7, 0.14, 0.04, 0.12]
            )[0]
            ops.append(_op(source, plan, what, model, place))
        ops += [_op(source, plan, "pull", model, -1) for _ in range(source.randint(2, 6))]
    for client in range(plan.num_clients):
        if source.random() < plan.close:
            ops.append(Op(source.uniform(0.3, 1.2) * WORK_S, client, "close"))
    return sorted(ops, key=lambda op: op.at_s)


def _op(source: random.Random, plan: Plan, what: Any, model: int, place: int) -> Op:
    at_s = source.uniform(0.0, WORK_S)
    if source.random() < 0.6:
        at_s = round(at_s * 3) / 3  # bursts: what is issued in one moment travels together
    timeout_s = source.uniform(0.01, 0.5) if source.random() < 0.1 else None
    num_members = 0
    if what in {"push", "pull"} and source.random() < BUNDLED:
        num_members = source.randint(1, MEMBERS_MAX)
    return Op(at_s, source.randrange(plan.num_clients), what, model, place, timeout_s, num_members)


def draw_members(source: random.Random, info: ModelInfo, num_members: int) -> list[Asked]:
    """Draw the requests of a bundle: all of them rows or keys, one or a few, or all of them elements."""
    num_rows, num_cols = info.spec.num_rows, info.spec.num_cols
    is_paired = num_cols is not None and source.random() < 0.3
    members = []
    for _ in range(num_members):
        count = source.randint(1, min(4, num_rows))
        # No repeats in one of them: together they must fit into the field, and once more.
        rows: Any = source.sample(range(num_rows), count)
        if not is_paired and source.random() < 0.3:
            rows = rows[0]
        cols = [source.randrange(num_cols) for _ in range(count)] if is_paired and num_cols else None
        members.append(parse_pull(rows, cols, num_rows=num_rows, num_cols=num_cols))
    return members


def draw_selection(source: random.Random, info: ModelInfo) -> Asked:
    """Draw what a request touches: elements, rows, slices, columns or all, with repeats at times."""
    num_rows, num_cols = info.spec.num_rows, info.spec.num_cols
    rows = _draw_axis(source, num_rows)
    if num_cols is None:
        return parse_pull(rows, num_rows=num_rows, num_cols=None)
    form = source.choice(["rows", "rows", "elements", "columns"])
    cols: Any = None
    if form == "elements":
        pool = [(row, col) for row in range(num_rows) for col in range(num_cols)] * source.randint(
            1, REPEATS_MAX
        )
        pairs = source.sample(pool, source.randint(1, min(12, len(pool))))
        rows, cols = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    elif form == "columns":
        rows, cols = None, source.sample(range(num_cols), source.randint(1, min(4, num_cols)))
    return parse_pull(rows, cols, num_rows=num_rows, num_cols=num_cols)


def _draw_axis(source: random.Random, size: int) -> Any:
    forms: list[Callable[[], Any]] = [
        lambda: None,
        lambda: source.randrange(size),
        lambda: slice(source.randrange(size), size, source.randint(1, 3)),
        lambda: source.sample(range(size), source.randint(1, size)),
    ]
    if source.random() < 0.5:
        pool = list(range(size)) * REPEATS_MAX
        return source.sample(pool, source.randint(1, min(8, len(pool))))
    return source.choice(forms)()


def draw_weights(source: random.Random, asked: Asked) -> NDArray[np.int64]:
    """Return (wire shape) int64 ones and twos: what lands in the wrong place has the wrong weight."""
    return np.random.default_rng(source.getrandbits(64)).integers(1, 3, size=asked.wire_shape)


def counts_of(asked: Asked, weights: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return (shape) int64: what a push adds to its field, as numpy does it.

    Args:
        asked: what it touches.
        weights: (wire shape) int64.
        shape: the model's.
    """
    grid = np.zeros(shape, dtype=np.int64)
    rows = np.asarray(asked.rows)
    if asked.cols is None:
        np.add.at(grid, rows, weights)
    elif asked.paired:
        np.add.at(grid, (rows, np.asarray(asked.cols)), weights)
    else:
        np.add.at(grid, (rows[:, None], np.asarray(asked.cols)[None, :]), weights)
    return grid


def read_of(whole: NDArray[np.int64], asked: Asked) -> NDArray[np.int64]:
    """Return (wire shape) int64: what numpy reads of a whole model."""
    read: NDArray[np.int64] = whole[np.asarray(asked.rows)]
    if asked.cols is None:
        return read
    cols = np.asarray(asked.cols)
    picked: NDArray[np.int64] = (
        np.take_along_axis(read, cols[:, None], axis=1)[:, 0] if asked.paired else read[:, cols]
    )
    return picked
