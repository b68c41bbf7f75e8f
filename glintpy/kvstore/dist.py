"""A store on servers, shared by the workers of a job: keys in models, found by a directory that rank 0 writes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import (
    ConfigError,
    Future,
    ModelNotFound,
    PullFailed,
    PushFailed,
    ShapeError,
    WorkersMissing,
    updaters,
)
from glintpy.kvstore import commands, states
from glintpy.kvstore.directory import Directory, Entry, Place, keys_entry, moved_entry
from glintpy.kvstore.exchange import Exchange
from glintpy.kvstore.forms import Array, Given, Key, Spec
from glintpy.kvstore.inits import Inits
from glintpy.kvstore.leading import Leading
from glintpy.kvstore.local import continues
from glintpy.kvstore.log import Log
from glintpy.kvstore.membership import Membership
from glintpy.kvstore.models import Models
from glintpy.kvstore.optimizers import Optimizer
from glintpy.kvstore.rounds import Rounds
from glintpy.kvstore.store import KVStore, Prepared
from glintpy.updaters import Updater

logger = logging.getLogger("glintpy.kvstore")


class DistKVStore(KVStore):
    """A store on servers, of the kinds ``dist_async`` and ``dist_sync`` and their aliases.

    Under ``dist_async`` pushes are applied as they come, each exactly once and in the order in which this worker made
    them. A pull sees what its own worker has pushed before.

    Under ``dist_sync`` all workers push the same keys equally often. A worker's *n*-th push of a key belongs to the
    key's round *n*; when all workers have made theirs, the sum is applied as one push. A pull behind a push waits for
    that, and so does the next push of the key. A worker that is lost is not waited for.
    """

    def __init__(self, kind: str, membership: Membership, name: str | None, *, in_rounds: bool) -> None:
        super().__init__(kind)
        self._membership = membership
        self.client = membership.client
        self._group = membership.group
        self._prefix = f"{membership.prefix}{membership.next_name() if name is None else name}/"
        self._lock = threading.RLock()
        self._directory = Directory(in_rounds=in_rounds)
        self._models = Models(
            self.client, self._prefix, self._directory, membership.group if in_rounds else None
        )
        self._rounds = Rounds() if in_rounds else None
        self._exchange = Exchange(self._models, self._rounds, who=self._who_waits)
        self._num_optimizers = 0
        self._is_closed = False
        log = Log(self.client, self._prefix)
        self._leading = Leading(membership, log, self._directory, self._models, have_ended=self._have_ended)
        self._leading.follow()
        comes_late = not membership.is_new
        self._inits = Inits(self._directory, comes_late=comes_late)
        self._num_found = self._directory.generation if comes_late else 0

    # --- what it is -------------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """This worker's number, from 0."""
        return self._group.rank

    @property
    def num_workers(self) -> int:
        """How many workers the job has."""
        return self._group.size

    @property
    def optimizer(self) -> Optimizer | None:
        """See ``KVStore``."""
        with self._lock:
            entry = self._directory.optimizer
            return None if entry is None else Optimizer(self._live_updater(), entry["rescale_grad"])

    @property
    def rescale_grad(self) -> float:
        """See ``KVStore``."""
        entry = self._directory.optimizer
        return 1.0 if entry is None else float(entry["rescale_grad"])

    def keys(self) -> list[Key]:
        """Return all keys that this worker has heard of."""
        return list(self._directory.places)

    # --- workers ----------------------------------------------------------------------------------------------

    def barrier(self) -> None:
        """See ``KVStore``.

        Raises:
            PushFailed: a push of this worker failed.
            WorkersMissing, WorkerLost, Expelled: see ``Group.barrier``.
        """
        with self._lock:
            self._check()
            self._exchange.flush()
            self._group.barrier()
            self._leading.follow()

    def num_dead_node(self, node_id: int, timeout: float = 60) -> int:
        """See ``KVStore``."""
        del timeout
        return commands.num_dead(self.client, self._group.name, node_id)

    def send_command_to_servers(self, head: int | str, body: str = "") -> dict[Key, Any]:
        """Have servers run a function on the values of keys, where these lie; returns when all have.

        Args:
            head: the function's name or import path, as of ``BigMatrix.call``; or a number that ``register_command``
                gave one.
            body: a JSON object: the function's numbers by their names; ``"keys"`` names the keys, else it is all.

        Returns:
            For each key what the function returns; None where it changes values.

        Raises:
            ConfigError: there is no such function, number or key, or the servers don't allow it; or, under
                ``dist_sync``, it isn't one that runs on a key that is cut into rows: pull the key instead.
            RemoteFailure: the function raised, with its traceback.
        """
        with self._lock:
            self._check()
            self._leading.follow()
            return commands.run(head, body, self._directory, self._models.handle)

    def register_command(self, head: int, function: str) -> None:
        """Give a function a number, under which ``send_command_to_servers`` finds it in this process.

        Args:
            head: any number.
            function: the function's name, or its import path.
        """
        commands.register(head, function)

    def close(self) -> None:
        """Wait for this worker's pushes and leave the job; the last worker takes the store's values along.

        Raises:
            PushFailed: a push of this worker failed.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self._exchange.flush()
            finally:
                self._membership.release()

    # --- values -----------------------------------------------------------------------------------------------

    def _init(self, values: dict[Key, Array]) -> None:
        with self._lock:
            self._check()
            self._leading.follow()
            wanted = self._inits.wanted(values)
            self._leading.lead_or_wait(
                lambda: not self._inits.missing(wanted),
                lambda: self._lead_init({key: values[key] for key in self._inits.missing(wanted)}),
                lambda: f"key {self._inits.missing(wanted)[0]!r} was not initialised",
            )
            for key, value in values.items():
                # Who is ahead may have deleted it by now, and initialised it anew with another shape.
                if key in self._directory.places and not self._inits.is_behind(key, wanted[key]):
                    self._check_same(key, value)
            self._inits.note(wanted)

    def _lead_init(self, values: dict[Key, Array]) -> None:
        known = {key: value for key, value in values.items() if key in self._directory.places}
        fresh = {key: value for key, value in values.items() if key not in known}
        specs = {key: Spec(value.shape, value.dtype) for key, value in fresh.items()}
        for key, value in known.items():
            self._check_same(key, value)
        updater = self._updater()
        for spec in specs.values():
            updater.check_dtype(spec.dtype)
        if known:
            self._models.put({key: self._directory.places[key] for key in known}, known)
            self._leading.publish([{"entry": "again", "keys": list(known)}])
        if fresh:
            makings, places = self._directory.placed(specs)
            entries = self._models.make(makings, updater)
            found = {key: Place(model, offset, specs[key], 1) for key, model, offset in places}
            # A new model's cells are zeros.
            self._models.put(found, {key: value for key, value in fresh.items() if value.any()})
            self._leading.publish([*entries, keys_entry(places, specs)])

    def _push(self, values: dict[Key, Given]) -> Future[Any]:
        with self._lock:
            self._check()
            return self._push_prepared(self._prepared(values))

    def _push_prepared(self, prepared: Prepared) -> Future[Any]:
        future = self._exchange.push(prepared.values, prepared.levels)
        prepared.keep()
        return future

    def _push_pull(
        self, values: dict[Key, Given], keys: Sequence[Key], into: Mapping[Key, Array]
    ) -> dict[Key, Array]:
        del keys
        with self._lock:
            self._check()
            prepared = self._prepared(values)
            if prepared.levels is None:
                return self._exchange.push_pull(prepared.values, into)
            self._push_prepared(prepared)
            return self._exchange.pull(list(values), into)

    def _pull(self, keys: Sequence[Key], into: Mapping[Key, Array]) -> dict[Key, Array]:
        with self._lock:
            self._check()
            unique = list(dict.fromkeys(keys))
            found: dict[Key, Array] = self._again_if_gone(lambda: self._exchange.pull(unique, into))
            return found

    def _pull_rows(self, wanted: list[tuple[Key, NDArray[np.int64]]]) -> list[Array]:
        with self._lock:
            self._check()
            found: list[Array] = self._again_if_gone(lambda: self._exchange.pull_rows(wanted))
            return found

    def _delete(self, keys: list[Key]) -> None:
        with self._lock:
            self._check()
            again = [
                key
                for key in keys
                if self._inits.has_deleted(key) and self._directory.places.get(key) is None
            ]
            asked, keys = keys, self._inits.left_of(keys)
            self._specs([*again, *keys])
            before = {key: self._directory.places[key].version for key in keys}
            try:
                self._exchange.pull(keys)  # what is under way ends first
            except (ModelNotFound, KeyError):
                self._leading.follow()
                if self._inits.left_of(keys):
                    raise
            except (PushFailed, PullFailed, WorkersMissing) as error:
                # A round that can't end is no reason to keep its key: this is the way out of it.
                logger.warning("keys are deleted while something is under way to them: %s", error)

            def is_there(key: Key) -> bool:
                place = self._directory.places.get(key)
                return place is not None and place.version == before[key]

            def lead() -> None:
                self._leading.publish([{"entry": "deleted", "keys": [key for key in keys if is_there(key)]}])
                self._leading.sweep()

            self._leading.lead_or_wait(
                lambda: not any(map(is_there, keys)), lead, lambda: f"key {keys[0]!r} was not deleted"
            )
            self._inits.note_deleted(asked)

    # --- updates ----------------------------------------------------------------------------------------------

    def _set_optimizer(self, optimizer: Optimizer) -> None:
        with self._lock:
            self._check()
            if self._directory.in_rounds and not optimizer.updater.sums:
                raise ConfigError(
                    f"a store of type {self.type!r} sums up what all workers push, and under "
                    f"{optimizer.updater.name!r} a sum doesn't count as they do: use one of type 'dist_async'"
                )
            name = updaters.name_of(optimizer.updater)
            entry = {
                "entry": "optimizer",
                "updater": name,
                "numbers": optimizer.updater.to_content(),
                "rescale_grad": optimizer.rescale_grad,
                "counts": 1,
                "anew": 1,
            }
            self._leading.follow()
            for place in self._directory.places.values():
                optimizer.updater.check_dtype(place.spec.dtype)
            if self._has_found(entry):
                return
            wanted = self._num_optimizers + 1

            def is_done() -> bool:
                return self._directory.generation >= wanted

            if not self._directory.places:
                self._leading.lead_or_wait(
                    lambda: is_done() or bool(self._directory.places),
                    lambda: self._lead_first(optimizer.updater, entry),
                    lambda: "the optimiser was not set",
                )
            if not is_done():
                # Nothing may be under way to models that end.
                self._finish()
                self._leading.together(lambda: self._lead_switch(optimizer.updater, entry), is_done)
            self._num_optimizers = wanted

    def _has_found(self, entry: Entry) -> bool:
        """Whether a worker that came late makes a call that the others had made before: it repeats the program's."""
        before = self._directory.set_before[self._num_optimizers : self._num_found]
        same = [{**known, "counts": 1, "anew": 1} == entry for known in before]
        if any(same):
            self._num_optimizers += same.index(True) + 1
            return True
        self._num_optimizers = max(self._num_optimizers, self._num_found)
        return False

    def _lead_first(self, updater: Updater, entry: Entry) -> None:
        self._models.anchor(self._directory.epoch + 1, updater)
        self._leading.publish([entry])
        self._models.drop_anchor(self._directory.epoch - 1)

    def _lead_switch(self, updater: Updater, entry: Entry) -> None:
        known = self.optimizer
        if known is not None and continues(known.updater, updater):
            self._models.configure({name: getattr(updater, name) for name in entry["numbers"]})
            self._leading.publish([{**entry, "anew": 0}])
            return
        specs = {key: place.spec for key, place in self._directory.places.items()}
        makings, places = self._directory.placed(specs, anew=True)
        values = self._models.pull(list(specs))
        self._models.anchor(self._directory.epoch + 1, updater)
        entries = self._models.make(makings, updater)
        self._models.put({key: Place(model, offset, specs[key], 0) for key, model, offset in places}, values)
        self._leading.publish([entry, *entries, moved_entry(places)])
        self._models.drop_anchor(self._directory.epoch - 1)

    def _configure(self, updater: Updater, numbers: dict[str, Any]) -> None:
        del updater
        with self._lock:
            self._check()
            self._leading.follow()
            self._models.configure(numbers)

    def save_optimizer_states(self, fname: Any, dump_optimizer: bool = False) -> None:
        """Save what the optimiser keeps for each key, and the values with it.

        One worker calls it: ``if kv.rank == 0``; after a ``barrier``, if all pushes are to be in.

        Args:
            fname: a directory at any fsspec URL.
            dump_optimizer: with the optimiser's numbers, which ``load_optimizer_states`` then sets.

        Raises:
            ConfigError: there is no optimiser.
            CheckpointError: the place can't be written.
        """
        with self._lock:
            self._check()
            self._leading.follow()
            optimizer = self._needed()
            states.save(
                self.client,
                str(fname),
                self._directory,
                self._models.handle,
                optimizer,
                with_numbers=dump_optimizer,
                prefix=self._prefix,
            )

    def load_optimizer_states(self, fname: Any) -> None:
        """Take up what ``save_optimizer_states`` wrote, for the keys that are in both; values stay as they are.

        All workers call it.

        Args:
            fname: a directory at any fsspec URL.

        Raises:
            ConfigError: there is no optimiser.
            CheckpointNotFound, CheckpointCorrupt: nothing is saved there.
            CheckpointMismatch: of another optimiser, or a key of another shape; nothing has changed.
        """
        with self._lock:
            self._check()
            self._leading.follow()
            saved = states.read(self.client, str(fname), self._prefix)
            states.check(saved, self._directory, self._needed().updater, str(fname))
            before = self._directory.num_moves
            self._finish()
            self._leading.together(
                lambda: self._lead_load(str(fname), saved), lambda: self._directory.num_moves > before
            )

    def _lead_load(self, url: str, saved: states.Saved) -> None:
        updater = saved.updater or self._needed().updater
        self._leading.publish(states.taken_up(saved, url, self._directory, self._models, updater))

    # --- inside -------------------------------------------------------------------------------------------------

    def _spec(self, key: Key) -> Spec | None:
        place = self._directory.places.get(key)
        if place is None:
            with self._lock:
                self._check()
                self._leading.follow()
            place = self._directory.places.get(key)
        return None if place is None else place.spec

    def _needed(self) -> Optimizer:
        optimizer = self.optimizer
        if optimizer is None:
            raise ConfigError("there is no optimiser yet: set_optimizer('sgd', learning_rate=0.1)")
        return optimizer

    def _updater(self) -> Updater:
        """Return what new models are made with: the numbers that live ones have now."""
        if self._directory.optimizer is None:
            return updaters.named("total" if self._directory.in_rounds else "assign")
        return self._live_updater()

    def _live_updater(self) -> Updater:
        found: Updater = self._again_if_gone(self._models.live_updater)
        return found

    def _have_ended(self, keys: list[Key]) -> None:
        self._forget(keys)
        if self._rounds is not None:
            self._rounds.forget(keys)

    def _again_if_gone(self, ask: Callable[[], Any]) -> Any:
        """Ask, and where a model is gone, look where the keys lie now and ask again."""
        try:
            return ask()
        except ModelNotFound:
            self._leading.follow()
            return ask()

    def _check(self) -> None:
        """Raise what has failed since the last call, unless somebody has looked at it."""
        if self._is_closed:
            raise ConfigError("the store was closed")
        self._exchange.check()

    def _who_waits(self, named: str) -> str:
        return (
            f"not all of {self.num_workers} workers have pushed {named}, which rank {self.rank} has pushed; in a store "
            f"of type {self.type!r} all push equally often"
        )

    def _finish(self) -> None:
        """Wait for all that this worker has under way, rounds too."""
        self._exchange.flush()
        self._exchange.end_rounds(self._directory.places)

    def _check_same(self, key: Key, value: Array) -> None:
        spec = self._directory.places[key].spec
        if (value.shape, value.dtype) != (spec.shape, spec.dtype):
            raise ShapeError(
                f"key {key!r} holds {spec}, and the value here is {Spec(value.shape, value.dtype)}; all workers give "
                "the same shape and dtype, and a key keeps them until it is deleted"
            )
