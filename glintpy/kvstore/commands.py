"""Commands to servers: functions that run where the keys' values lie; and who is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from glintpy import BigMatrix, BigVector, Client, ConfigError
from glintpy.kvstore.directory import Directory
from glintpy.kvstore.forms import Key, check_key
from glintpy.kvstore.integers import integer_of
from glintpy.kvstore.roles import SERVERS, WORKERS

BY_CELL = frozenset(
    {"sum", "mean", "min", "max", "argmax", "count_nonzero", "histogram", "scale", "fill", "clip"}
)
"""Functions that come to the same however a key's cells are cut into rows."""

ZEROS_DO_NOTHING = frozenset({"sum", "count_nonzero", "scale"})
"""Those of them that come to the same with zeros behind the key's cells, and leave these zeros."""

_registered: dict[int, str] = {}


def register(head: int, function: str) -> None:
    """Give a function a number in this process.

    Raises:
        ConfigError: no int, or no name.
    """
    number = integer_of(head)
    if number is None or type(function) is not str:
        raise ConfigError(
            f"a command is an int and the name of a function, not {head!r:.80} and {function!r:.80}"
        )
    _registered[number] = function


def run(
    head: int | str,
    body: str,
    directory: Directory,
    handle: Callable[[int], BigVector | BigMatrix],
) -> dict[Key, Any]:
    """Run a command, and return what came of it for each key.

    Args:
        head: the function's name, or its number.
        body: JSON.
        directory: says where keys lie.
        handle: returns that of a model.

    Raises:
        ConfigError: no such function, number or key; or it would see how the key lies. Nothing was run.
        RemoteFailure: the function raised.
    """
    function = _function_of(head)
    numbers = _numbers_of(body)
    chosen = _chosen(numbers.pop("keys", None), directory)
    for key in chosen:
        if key not in directory.places:
            raise ConfigError(f"the command {head!r} names key {key!r}, which was never initialised")
    calls: list[tuple[Key, BigVector | BigMatrix, slice | None, dict[str, Any]]] = []
    for key in chosen:
        place = directory.places[key]
        model = handle(place.model)
        if directory.models[place.model].kind == "matrix":
            calls.append((key, model, None, numbers))
        elif isinstance(model, BigMatrix):
            cut = _of_cut(key, place.spec.size, model.num_cols, function, numbers)
            first = place.offset // model.num_cols
            calls.append((key, model, slice(first, first + -(-place.spec.size // model.num_cols)), cut))
        else:
            calls.append((key, model, slice(place.offset, place.offset + place.spec.size), numbers))
    futures = {key: model.call(function, rows=rows, **given) for key, model, rows, given in calls}
    return {key: future.result() for key, future in futures.items()}


def _chosen(keys: Any, directory: Directory) -> list[Key]:
    """Return the keys that a command names, one or a list; None: all."""
    if keys is None:
        return list(directory.places)
    try:
        return list(dict.fromkeys(map(check_key, keys if isinstance(keys, list) else [keys])))
    except TypeError as error:
        raise ConfigError(f"the keys of a command are a key or a list of them: {error}") from None


def _of_cut(key: Key, size: int, num_cols: int, function: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers for a key whose cells are cut into rows, the last of them filled up with zeros.

    Args:
        key: whose cells these are.
        size: of the key.
        num_cols: of the model.
        function: its name.
        numbers: as they were given.

    Raises:
        ConfigError: what came would be of the rows, or of the zeros.
    """
    is_full = size % num_cols == 0
    suits = function in (BY_CELL if is_full else ZEROS_DO_NOTHING)
    if function == "scale" and not is_full:
        by = numbers.get("by", 1.0)
        suits = not isinstance(by, float) or math.isfinite(by)  # 0 times infinity is NaN
    if not suits or numbers.get("axis") == 1:
        known = ", ".join(sorted(BY_CELL if is_full else ZEROS_DO_NOTHING))
        filled = "" if is_full else f", with {num_cols - size % num_cols} zeros behind them"
        raise ConfigError(
            f"in a store in rounds the {size} cells of key {key!r} lie in rows of {num_cols}{filled}: there run "
            f"{known}, of all cells, and not {function!r} with {numbers}. Pull the key and compute it here; to store "
            "values, init the key again"
        )
    # Along a vector there are all its cells.
    return {**numbers, "axis": None} if numbers.get("axis") == 0 else numbers


def num_dead(client: Client, group: str, node_id: int) -> int:
    """Return how many servers and workers are lost.

    Args:
        client: to the cluster.
        group: the workers'.
        node_id: a sum of 1 (scheduler), 2 (servers) and 4 (workers).

    Raises:
        ConfigError: another number.
        MasterUnreachable: the scheduler is, which nobody else can tell.
    """
    group_of_nodes = integer_of(node_id)
    if group_of_nodes is None or not 0 < group_of_nodes <= 7:
        raise ConfigError(
            f"node_id is 1 (scheduler), 2 (servers), 4 (workers) or a sum of these, not {node_id!r:.80}"
        )
    status = client.status(timeout_s=0)
    found = 0
    if group_of_nodes & SERVERS:
        found += sum(server["state"] == "lost" for server in status["servers"])
    if group_of_nodes & WORKERS:
        found += sum(entry["num_losses"] for entry in status["groups"] if entry["name"] == group)
    return found


def _function_of(head: int | str) -> str:
    if isinstance(head, str):
        return head
    number = integer_of(head)
    if number is None or number not in _registered:
        known = ", ".join(map(str, sorted(_registered))) or "none"
        raise ConfigError(
            f"no function has the number {head!r:.80}; there are {known}: register_command(number, name) gives one"
        )
    return _registered[number]


def _numbers_of(body: str) -> dict[str, Any]:
    try:
        numbers = json.loads(body) if body else {}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a command's body is JSON, not {body!r:.80}: {error}") from None
    if not isinstance(numbers, dict):
        raise ConfigError(f"a command's body is a JSON object of the function's numbers, not {body!r:.80}")
    return numbers
