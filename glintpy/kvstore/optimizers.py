"""MXNet's optimisers by their names and numbers, as this library's updaters; pure.

Where MXNet has a number under another name, both names are taken. What has no counterpart is refused: a job that
silently learns otherwise is worse than one that doesn't start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from glintpy import ConfigError, updaters
from glintpy.updaters import Updater

ALIASES = {
    "wd": "weight_decay",
    "eps": "epsilon",
    "gamma1": "decay",
    "rho": "decay",
    "lamda1": "l1",
    "lamda": "compensation",
}
"""MXNet's names of numbers."""

IGNORED = {
    "begin_num_update": 0,
    "lazy_update": True,
    "multi_precision": False,
    "param_idx2name": None,
    "sym": None,
    "param_dict": None,
    "aggregate_num": 0,
    "use_fused_step": True,
    "centered": False,
    "correct_bias": True,
    "lr_scheduler": None,
    "clip_weights": None,
}
"""Numbers of MXNet that have one possible value here; others are refused."""

DEFAULTS: dict[str, dict[str, float]] = {
    "adagrad": {"epsilon": 1e-7},
    "adamw": {"weight_decay": 0.0, "epsilon": 1e-6},
    "rmsprop": {"learning_rate": 0.001, "decay": 0.9},
    "ftrl": {"l1": 0.01},
}
"""MXNet's numbers where the updaters' own defaults are others."""


@dataclass(frozen=True)
class Optimizer:
    """An updater, and what gradients are multiplied by before they are pushed.

    Attributes:
        updater: the rule that servers apply.
        rescale_grad: a factor, 1 / batch size for example.
    """

    updater: Updater
    rescale_grad: float = 1.0


def create_optimizer(name: str, **numbers: Any) -> Optimizer:
    """Return an optimiser by MXNet's name and numbers.

    Args:
        name: ``sgd``, ``nag``, ``adam``, ``adamw``, ``adagrad``, ``rmsprop``, ``ftrl``, ``dcasgd``, or the name of
            any updater of glintpy; case doesn't matter.
        numbers: ``learning_rate``, ``momentum``, ``wd``, ``rescale_grad``, ``clip_gradient`` and the like, under
            MXNet's names or glintpy's. ``learning_rate`` may be one of ``glintpy.updaters.schedules``.

    Raises:
        ConfigError: there is no such optimiser or number.
    """
    kind = name.lower()
    given = renamed(numbers)
    rescale = _rescale(given.pop("rescale_grad", 1.0))
    for key, value in IGNORED.items():
        if key in given and key not in _numbers_of(kind) and given.pop(key) != value:
            hint = (
                "; give learning_rate a schedule of glintpy.updaters.schedules"
                if key == "lr_scheduler"
                else ""
            )
            raise ConfigError(f"optimiser {name!r} has {key}={value!r} here, and nothing else{hint}")
    prepare = _KINDS.get(kind)
    if prepare is not None:
        kind = prepare(given)
    elif kind not in updaters_by_name():
        known = ", ".join(sorted({*_KINDS, *updaters_by_name()}))
        raise ConfigError(f"there is no optimiser {name!r:.80}; there is {known}, or an updater of your own")
    return Optimizer(updaters.named(kind, _plain({**DEFAULTS.get(kind, {}), **given})), rescale)


def optimizer_of(given: Any, numbers: dict[str, Any]) -> Optimizer:
    """Return the optimiser that was given to ``set_optimizer``.

    Args:
        given: a name, an updater or an optimiser.
        numbers: that came with a name.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(given, str):
        return create_optimizer(given, **numbers)
    if isinstance(given, Updater | Optimizer):
        rescale = numbers.pop("rescale_grad", None)
        if numbers:
            raise ConfigError(f"{given!r} has its numbers already; {sorted(numbers)} came with it")
        found = given if isinstance(given, Optimizer) else Optimizer(given)
        return found if rescale is None else Optimizer(found.updater, _rescale(rescale))
    raise ConfigError(
        "an optimiser is a name with numbers, set_optimizer('sgd', learning_rate=0.1), or one of glintpy.updaters, "
        f"not {type(given).__name__}: no code travels to servers"
    )


def renamed(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return numbers under the names that they have here.

    Args:
        numbers: under these, or MXNet's.

    Raises:
        ConfigError: one stands there under both of its names.
    """
    given = {ALIASES.get(key, key): value for key, value in numbers.items()}
    if len(given) < len(numbers):
        raise ConfigError(f"a number is given twice, under both of its names: {', '.join(sorted(numbers))}")
    clip = given.get("clip_gradient")
    if isinstance(clip, Real) and clip == -1:
        given["clip_gradient"] = None  # MXNet's way to say that nothing is clipped
    return given


def _rescale(factor: Any) -> float:
    is_number = isinstance(factor, Real) and not isinstance(factor, bool)
    if not is_number or not abs(factor) < 1e30:
        raise ConfigError(f"rescale_grad is a number, not {factor!r:.80}")
    return float(factor)


def updaters_by_name() -> dict[str, type[Updater]]:
    """Return glintpy's updaters by their names."""
    kinds = [getattr(updaters, name) for name in updaters.__all__]
    return {
        kind.name: kind
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, Updater) and isinstance(vars(kind).get("name"), str)
    }


def _numbers_of(kind: str) -> set[str]:
    found = updaters_by_name().get(kind)
    return set() if found is None else {entry.name for entry in fields(found)}


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.to_content() if hasattr(value, "to_content") else value for name, value in numbers.items()
    }


def _sgd(numbers: dict[str, Any]) -> str:
    if numbers.get("momentum"):
        return "momentum"
    numbers.pop("momentum", None)
    return "sgd"


def _nag(numbers: dict[str, Any]) -> str:
    return "nesterov" if numbers.get("momentum") else _sgd(numbers)


def _ftrl(numbers: dict[str, Any]) -> str:
    if "weight_decay" in numbers:
        if "l2" in numbers:
            raise ConfigError("ftrl's wd is its l2: give one of them")
        numbers["l2"] = numbers.pop("weight_decay")
    return "ftrl"


def _dcasgd(numbers: dict[str, Any]) -> str:
    if numbers.pop("momentum", 0):
        raise ConfigError("dcasgd has no momentum here; leave it out, or use sgd with momentum")
    return "dcasgd"


def _rmsprop(numbers: dict[str, Any]) -> str:
    # Of a centred one, which is refused; MXNet's defaults do nothing in the other.
    for name in ("gamma2", "momentum"):
        if (given := numbers.pop(name, 0.9)) != 0.9:
            raise ConfigError(
                f"rmsprop has {name}=0.9 here, and nothing else: it is not centred; not {given!r:.80}"
            )
    return "rmsprop"


_KINDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "sgd": _sgd,
    "nag": _nag,
    "ftrl": _ftrl,
    "dcasgd": _dcasgd,
    "adam": lambda _: "adam",
    "adamw": lambda _: "adamw",
    "adagrad": lambda _: "adagrad",
    "rmsprop": _rmsprop,
}
