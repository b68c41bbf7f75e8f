"""What an optimiser keeps for the keys of a store, saved and read: models' own checkpoints, and where each key lies."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from glintpy import BigMatrix, BigVector, CheckpointCorrupt, CheckpointMismatch, Client, updaters
from glintpy.kvstore.directory import Directory, Entry, Place, changed_entry, moved_entry
from glintpy.kvstore.forms import DTYPES, Key, Spec
from glintpy.kvstore.models import Models
from glintpy.kvstore.optimizers import Optimizer
from glintpy.updaters import Updater

FORMAT = "glintpy store states 1"


@dataclass(slots=True, eq=False)
class Saved:
    """What lies at a URL.

    Attributes:
        updater_name: whose slots these are.
        slots: their names.
        updater: with its numbers, if these were saved, too.
        rescale_grad: if the numbers were saved.
        places: where each key lies in the saved models.
        models: entries of these by the numbers that they had.
    """

    updater_name: str
    slots: tuple[str, ...]
    updater: Updater | None
    rescale_grad: float | None = None
    places: dict[Key, Place] = field(default_factory=dict)
    models: dict[int, Entry] = field(default_factory=dict)

    def models_of(self, directory: Directory) -> list[int]:
        """Return the saved models in which a key of a directory lies."""
        return sorted({place.model for key, place in self.places.items() if key in directory.places})


def save(
    client: Client,
    url: str,
    directory: Directory,
    handle: Callable[[int], BigVector | BigMatrix],
    optimizer: Optimizer,
    *,
    with_numbers: bool,
    prefix: str,
) -> None:
    """Save all models in which keys lie, and the places of the keys last.

    Args:
        client: to the cluster.
        url: a directory at any fsspec URL.
        directory: of the store.
        handle: returns that of a model.
        optimizer: of the store, with the numbers that it has now.
        with_numbers: whether these are saved, too.
        prefix: of the store's models.

    Raises:
        CheckpointError: the place can't be written.
    """
    numbers = sorted({place.model for place in directory.places.values()})
    for number in numbers:
        handle(number).save(f"{url}/model-{number}", overwrite=True, progress=False)
    about = {
        "format": FORMAT,
        "updater": updaters.name_of(optimizer.updater),
        "numbers": optimizer.updater.to_content() if with_numbers else None,
        "rescale_grad": optimizer.rescale_grad if with_numbers else None,
        "slots": optimizer.updater.slot_names,
        "models": [directory.model_entry(number) for number in numbers],
        "keys": [
            [key, place.model, place.offset, place.spec.shape, place.spec.dtype.name]
            for key, place in directory.places.items()
        ],
    }
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    # As a model: then it lies wherever models can be saved to.
    with client.vector(len(text), dtype="uint8", updater="assign", name=_temporary(prefix)) as vector:
        vector.push(None, text).result()
        vector.save(f"{url}/directory", overwrite=True, progress=False)


def read(client: Client, url: str, prefix: str) -> Saved:
    """Return what is saved at a URL.

    Raises:
        CheckpointNotFound, CheckpointCorrupt: nothing, or something else.
    """
    with client.load(f"{url}/directory", name=_temporary(prefix), progress=False) as vector:
        text = vector.pull().result().tobytes()
    try:
        about = json.loads(text)
        assert about["format"] == FORMAT, about["format"]
        numbers = about["numbers"]
        saved = Saved(
            about["updater"],
            tuple(about["slots"]),
            None if numbers is None else updaters.named(about["updater"], numbers),
            about.get("rescale_grad"),
        )
        for key, model, offset, shape, dtype in about["keys"]:
            saved.places[key] = Place(model, offset, Spec(tuple(shape), DTYPES[dtype]), 0)
        saved.models = {entry["number"]: entry for entry in about["models"]}
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise CheckpointCorrupt(f"{url} holds no optimiser's states: {error!r:.200}") from error
    return saved


def check(saved: Saved, directory: Directory, updater: Updater, url: str) -> None:
    """Refuse what can't be taken up.

    Args:
        saved: what is saved.
        directory: of the store.
        updater: of its models.
        url: where it is saved, for messages.

    Raises:
        CheckpointMismatch: of another optimiser, or a key of another shape or dtype.
    """
    if saved.updater_name != updaters.name_of(updater) or saved.slots != updater.slot_names:
        raise CheckpointMismatch(
            f"{url} has what {saved.updater_name} keeps ({_listed(saved.slots)}); the store's optimiser is {updater!r}"
        )
    for key, place in saved.places.items():
        held = directory.places.get(key)
        if held is not None and held.spec != place.spec:
            raise CheckpointMismatch(
                f"{url} has key {key!r} as {place.spec}; the store has it as {held.spec}"
            )


def taken_up(saved: Saved, url: str, directory: Directory, models: Models, updater: Updater) -> list[Entry]:
    """Load what is saved as new models, with the values that keys have now, and return what is to be published.

    Args:
        saved: what is saved.
        url: where.
        directory: of the store, which has an optimiser.
        models: of the store.
        updater: theirs, with the numbers that hold from now on.

    Raises:
        CheckpointError: it can't be read.
    """
    numbers = {old: directory.num_models + n for n, old in enumerate(saved.models_of(directory))}
    entries: list[Entry] = []
    for old, number in numbers.items():
        models.load(f"{url}/model-{old}", number, updater)
        # Full from the first: its other cells have what keys had that were saved, slots too.
        entries.append({**saved.models[old], "number": number, "used": saved.models[old]["size"]})
    places = [
        (key, numbers[place.model], place.offset)
        for key, place in saved.places.items()
        if key in directory.places
    ]
    values = models.pull([key for key, _, _ in places])
    models.put(
        {key: Place(model, offset, directory.places[key].spec, 0) for key, model, offset in places}, values
    )
    assert directory.optimizer is not None, "states are an optimiser's"
    if saved.updater is None:
        return [*entries, moved_entry(places)]
    models.configure({name: getattr(updater, name) for name in updater.to_content()})
    return [*entries, moved_entry(places), changed_entry(directory.optimizer, updater, saved.rescale_grad)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _temporary(prefix: str) -> str:
    return f"{prefix}passing-{uuid.uuid4().hex[:12]}"
