"""Making models and opening them: from a spec to a handle; knows no server's inside."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from glintpy import config
from glintpy.errors import ConfigError, ModelExists, NotEnoughServers, ShapeError
from glintpy.models.dense import BigModel
from glintpy.models.matrix import BigMatrix
from glintpy.models.requests import Target
from glintpy.models.table import BigTable
from glintpy.models.table_requests import TableTarget
from glintpy.models.vector import BigVector
from glintpy.partitioning import Layout, Partitioner, named
from glintpy.partitioning.keyed import NUM_PARTITIONS, KeyedLayout
from glintpy.protocol import wire
from glintpy.protocol.messages_master import ClusterState, CreateModel, OpenModel, PublishModel
from glintpy.protocol.spec import ModelInfo, ModelSpec, num_partitions, numbers_text
from glintpy.ties import Tie
from glintpy.updaters import Updater, is_known, name_of
from glintpy.updaters import named as named_updater

Model = TypeVar("Model", bound=BigModel)
Fill = Callable[[Target], None]
TableFill = Callable[[TableTarget], None]


def make_model(
    tie: Tie,
    kind: type[Model],
    spec: ModelSpec,
    partitioner: str | Partitioner,
    updater: Updater,
    *,
    exist_ok: bool = False,
    fill: Fill | None = None,
) -> Model:
    """Make a model on all servers or none.

    Args:
        tie: to the cluster.
        kind: of handle.
        spec: what to make.
        partitioner: a name, or an instance for this number of rows.
        updater: the spec's.
        exist_ok: return the model of this name if its spec is equal.
        fill: stores values in the new model before anybody can find it; None: it has its initial values.

    Raises:
        ShapeError, ConfigError, ModelExists, NotEnoughServers, NotEnoughMemory, MasterUnreachable: see
            ``Client.matrix``.
        GlintError: from filling; the model is then destroyed.
    """
    partitioner = _partitioner_for(tie, spec, partitioner)
    layout = Layout(partitioner, np.zeros(partitioner.num_partitions, np.int64))
    extents = layout.affine_extents()
    if extents is None and spec.init_depends_on_row and fill is None:
        fill = _random_fill(tie)
    token = os.urandom(16)

    def build(request_id: int) -> CreateModel:
        return CreateModel(
            request_id,
            token,
            exist_ok and fill is None,
            fill is None,
            tie.runtime().member_id,
            wire.document(spec.to_content()),
            layout.sizes(),
            np.empty((0, 2), np.int64) if extents is None else extents,
        )

    try:
        info = ModelInfo.from_content(_ask(tie, build))
        if fill is not None:
            _fill(tie, info, partitioner, updater, fill)
    except ModelExists:
        # One that is still to be filled must not be mixed up with one that is there: so it is looked up apart.
        if fill is None or not exist_ok:
            raise
        info = ModelInfo.from_content(_ask(tie, lambda request_id: OpenModel(request_id, 0, spec.name)))
        if difference := spec.difference(info.spec):
            raise ModelExists(f"there is a model {spec.name!r} that differs: {difference}") from None
    # One that was there may have been given other numbers, or been made when there were other servers.
    same = updater if numbers_text(updater.to_content()) == info.spec.updater_numbers else None
    if info.spec.partitioner == partitioner.signature and len(info.owners) == partitioner.num_partitions:
        return kind(tie, info, partitioner, same)
    return kind(tie, info, updater=same)


def make_table(
    tie: Tie, spec: ModelSpec, updater: Updater, *, exist_ok: bool = False, fill: TableFill | None = None
) -> BigTable:
    """Make a table on all servers or none.

    Args:
        tie: to the cluster.
        spec: what to make.
        updater: the spec's.
        exist_ok: return the table of this name if its spec is equal.
        fill: stores rows in the new table before anybody can find it.

    Raises:
        ConfigError, ModelExists, NotEnoughServers, NotEnoughMemory, MasterUnreachable: see ``Client.table``.
        GlintError: from filling; the table is then destroyed.
    """
    token = os.urandom(16)

    def build(request_id: int) -> CreateModel:
        return CreateModel(
            request_id,
            token,
            exist_ok,
            fill is None,
            tie.runtime().member_id,
            wire.document(spec.to_content()),
            spec.num_rows // NUM_PARTITIONS + (np.arange(NUM_PARTITIONS) < spec.num_rows % NUM_PARTITIONS),
            np.empty((0, 2), np.int64),
        )

    info = ModelInfo.from_content(_ask(tie, build))
    # One that was there may have been given other numbers.
    same = updater if numbers_text(updater.to_content()) == info.spec.updater_numbers else None
    table = BigTable(tie, info, same)
    if fill is not None:
        try:
            layout = KeyedLayout(info.owners_array(), len(info.servers))
            fill(TableTarget(info, layout, tie.settings.timeout_s, updater=updater))
            _ask(tie, lambda request_id: PublishModel(request_id, info.model_id))
        except BaseException:
            tie.runtime().destroy_model(info.model_id, info.spec.name, timeout_s=tie.settings.timeout_s)
            raise
    return table


def with_updater(spec: ModelSpec, updater: str | Updater) -> tuple[ModelSpec, Updater]:
    """Return a spec with an updater, and the updater itself.

    Args:
        spec: any.
        updater: a name, or an instance.

    Raises:
        ConfigError: there is none of that name, or others couldn't find it, or its numbers are none.
        DTypeError: it can't work with the spec's dtype.
    """
    if not isinstance(updater, str | Updater):
        raise ConfigError(
            f"updater is a name or an instance of glintpy.updaters.Updater, not {updater!r:.80}"
        )
    found = named_updater(updater) if isinstance(updater, str) else updater
    found.check_dtype(spec.numpy_dtype)
    found.check_numbers()
    return replace(spec, updater=name_of(found), updater_numbers=numbers_text(found.to_content())), found


def check_row_bytes(spec: ModelSpec, updater: Updater) -> None:
    """Refuse rows that pushes can't bring as one: a longer row travels in several parts, and each would be a step.

    Args:
        spec: the model's, its group included: what is gathered for a round is applied as one.
        updater: the spec's.

    Raises:
        ShapeError: with the row's bytes and the limit.
    """
    if spec.group or spec.row_bytes <= config.PART_BYTES or not updater.counts_steps:
        return
    raise ShapeError(
        f"updater {updater.name!r} counts the steps of each row, and so a push to a row is one message: a row of model "
        f"{spec.name!r} has {spec.row_bytes} bytes, and may have {config.PART_BYTES}; make it of more and shorter "
        "rows, or a vector"
    )


def handle_of(
    tie: Tie,
    info: ModelInfo,
    partitioner: Partitioner | None,
    *,
    allowed: Mapping[str, type[Partitioner]],
) -> BigMatrix | BigVector | BigTable:
    """Return a handle to a model that exists.

    Args:
        tie: to the cluster.
        info: the model's.
        partitioner: an instance for a model with a custom one; None: as the model says.
        allowed: custom partitioners that may be used, by name.

    Raises:
        ConfigError: it has a custom partitioner that was not given, or another one, or a custom updater that this
            process doesn't know.
    """
    if info.spec.keys:
        _check_known(info)
        return BigTable(tie, info)
    name = info.spec.partitioner.partition("@")[0]
    if partitioner is None and name in allowed:
        partitioner = allowed[name](info.spec.num_rows, len(info.owners))
    found = (info.spec.partitioner, info.spec.num_rows, len(info.owners))
    if partitioner is not None:
        given = (partitioner.signature, partitioner.num_keys, partitioner.num_partitions)
        if given != found:
            raise ConfigError(
                f"model {info.spec.name!r} has partitioner, keys, partitions {found}, not {given}: it must put every "
                "key where the one did that the model was made with"
            )
    elif info.spec.partitioner.startswith("custom:"):
        raise ConfigError(
            f"model {info.spec.name!r} has the custom partitioner {info.spec.partitioner}: open it with "
            "partitioner=..., or name its class in Client(allow=[...])"
        )
    _check_known(info)
    kind = BigVector if info.spec.num_cols is None else BigMatrix
    return kind(tie, info, partitioner)


def _check_known(info: ModelInfo) -> None:
    if not is_known(info.spec.updater):
        raise ConfigError(
            f"model {info.spec.name!r} has the custom updater {info.spec.updater}: name its class in "
            "Client(allow=[...])"
        )


def _partitioner_for(tie: Tie, spec: ModelSpec, partitioner: str | Partitioner) -> Partitioner:
    if isinstance(partitioner, Partitioner):
        if partitioner.num_keys != spec.num_rows:
            raise ShapeError(
                f"the partitioner is for {partitioner.num_keys} keys; the model has {spec.num_rows} rows"
            )
        return partitioner
    named(partitioner, 1, 1)  # an unknown name is an error even where there is no server
    alive = sum(server["state"] == "alive" for server in _ask(tie, ClusterState)["servers"])
    if not alive:
        raise NotEnoughServers(f"there is no server; start one with: glintpy server --master {tie.address}")
    count = num_partitions(
        num_keys=spec.num_rows, partitions_per_server=spec.partitions_per_server, num_servers=alive
    )
    return named(partitioner, spec.num_rows, count)


def _random_fill(tie: Tie) -> Fill:
    from glintpy.models.saving import fill_model, random_blocks  # noqa: PLC0415 - rarely needed

    return lambda target: fill_model(tie.runtime(), target, random_blocks(target.info))


def _fill(tie: Tie, info: ModelInfo, partitioner: Partitioner, updater: Updater, fill: Fill) -> None:
    layout = Layout(partitioner, info.owners_array(), len(info.servers))
    try:
        fill(Target(info, layout, tie.settings.timeout_s, updater=updater))
        _ask(tie, lambda request_id: PublishModel(request_id, info.model_id))
    except BaseException:
        tie.runtime().destroy_model(info.model_id, info.spec.name, timeout_s=tie.settings.timeout_s)
        raise


def _ask(tie: Tie, build: Callable[[int], Any]) -> Any:
    return tie.runtime().ask_master(build, timeout_s=tie.settings.timeout_s)
