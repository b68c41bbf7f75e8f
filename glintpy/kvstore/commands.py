"""Commands to servers: functions that run where the keys' values lie; and who is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from glintpy import BigMatrix, BigVector, Client, ConfigError
from glintpy.kvstore.directory import Place
from glintpy.kvstore.forms import Key, check_key
from glintpy.kvstore.roles import SERVERS, WORKERS

_registered: dict[int, str] = {}


def register(head: int, function: str) -> None:
    """Give a function a number in this process.

    Raises:
        ConfigError: no int, or no name.
    """
    if type(head) is not int or type(function) is not str:
        raise ConfigError(
            f"a command is an int and the name of a function, not {head!r:.80} and {function!r:.80}"
        )
    _registered[head] = function


def run(
    head: int | str,
    body: str,
    places: Mapping[Key, Place],
    handle: Callable[[int], BigVector | BigMatrix],
) -> dict[Key, Any]:
    """Run a command, and return what came of it for each key.

    Args:
        head: the function's name, or its number.
        body: JSON.
        places: of all keys.
        handle: returns that of a model.

    Raises:
        ConfigError: no such function, number or key.
        RemoteFailure: the function raised.
    """
    function = _function_of(head)
    numbers = _numbers_of(body)
    keys = numbers.pop("keys", None)
    chosen = list(places) if keys is None else [check_key(key) for key in keys]
    for key in chosen:
        if key not in places:
            raise ConfigError(f"the command {head!r} names key {key!r}, which was never initialised")
    futures = {}
    for key in chosen:
        place = places[key]
        model = handle(place.model)
        rows = None if isinstance(model, BigMatrix) else slice(place.offset, place.offset + place.spec.size)
        futures[key] = model.call(function, rows=rows, **numbers)
    return {key: future.result() for key, future in futures.items()}


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
    if type(node_id) is not int or not 0 < node_id <= 7:
        raise ConfigError(
            f"node_id is 1 (scheduler), 2 (servers), 4 (workers) or a sum of these, not {node_id!r:.80}"
        )
    status = client.status(timeout_s=0)
    found = 0
    if node_id & SERVERS:
        found += sum(server["state"] == "lost" for server in status["servers"])
    if node_id & WORKERS:
        found += sum(entry["num_losses"] for entry in status["groups"] if entry["name"] == group)
    return found


def _function_of(head: int | str) -> str:
    if isinstance(head, str):
        return head
    if head not in _registered:
        known = ", ".join(map(str, sorted(_registered))) or "none"
        raise ConfigError(
            f"no function has the number {head!r:.80}; there are {known}: register_command(number, name) gives one"
        )
    return _registered[head]


def _numbers_of(body: str) -> dict[str, Any]:
    try:
        numbers = json.loads(body) if body else {}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a command's body is JSON, not {body!r:.80}: {error}") from None
    if not isinstance(numbers, dict):
        raise ConfigError(f"a command's body is a JSON object of the function's numbers, not {body!r:.80}")
    return numbers
