"""What a worker pushes to a store's models and pulls from them, in rounds or without; knows no directory's history.

In rounds a push counts as this worker's part of the round unless it is sure that none of it is in. Of one that is in on
some servers only, the round can't end: whoever goes on with its key is told so, and ends the key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from glintpy import (
    Future,
    GlintError,
    ModelNotFound,
    PullFailed,
    PushOutcomeUnknown,
    RequestError,
    WorkersMissing,
    gather,
)
from glintpy.kvstore.forms import Array, Given, Key, RowSparse
from glintpy.kvstore.models import Asked, Models
from glintpy.kvstore.rounds import Rounds
from glintpy.kvstore.store import NAMED_MAX

Sent = tuple[Sequence[Key], Future[Any]]
"""Keys, and the request that is about them."""


class Exchange:
    """A worker's pushes and pulls.

    Args:
        models: of the store.
        rounds: this worker's, where all workers push equally often and the sum of each round is applied as one; None:
            pushes are applied as they come.
        who: says who waits for whom: "not all of ... have pushed".

    Threads:
        Belongs to whoever holds the store's lock.
    """

    def __init__(self, models: Models, rounds: Rounds | None, *, who: Callable[[str], str]) -> None:
        self._models = models
        self._rounds = rounds
        self._who = who
        self._pending: deque[Future[Any]] = deque()

    # --- values ---------------------------------------------------------------------------------------------------

    def push(self, values: dict[Key, Given], levels: tuple[float, ...] | None) -> Future[Any]:
        """Push values to keys that exist, each key's next round.

        Args:
            values: by key.
            levels: as of ``Models.push``.

        Raises:
            PushOutcomeUnknown: an earlier push of a key is in on some servers only.
            WorkersMissing, GlintError: the round before has not ended.
        """
        values, tags = self._begun(values)
        futures = self._issued(tags, self._models.push(values, tags, levels))
        future = futures[0] if len(futures) == 1 else gather(*futures)
        self._pending.append(future)
        return future

    def push_pull(
        self, values: dict[Key, Given], into: Mapping[Key, Array] | None = None
    ) -> dict[Key, Array]:
        """Push values, and return what is there behind that, or behind the round.

        Args:
            values: by key.
            into: as of ``Models.pull``.

        Raises:
            PushFailed: of the push, or of the values behind it.
            WorkersMissing: of all that is pushed each part is in, and the round has not ended in time.
            PushOutcomeUnknown, GlintError: as of ``push``.
        """
        arrays = {key: value for key, value in values.items() if not isinstance(value, RowSparse)}
        if len(arrays) < len(values):
            self.push(values, None)
            return self.pull(list(values), into)
        _, tags = self._begun(values)
        asked: list[Asked] = []
        self._issued(tags, _noted(asked, self._models.push_pull(arrays, tags, into)))
        try:
            found = self._models.received(arrays, asked)
        except PushOutcomeUnknown as error:
            # Not in everywhere, or there is nothing to wait for any more: that is no round that others keep open.
            if not tags or _is_half(error) or isinstance(error.__cause__, ModelNotFound):
                raise
            raise self._missing(tags, error) from error
        if self._rounds is not None:
            self._rounds.end(arrays)
        return found

    def pull(self, keys: Sequence[Key], into: Mapping[Key, Array] | None = None) -> dict[Key, Array]:
        """Return the values of keys, none of which repeats, after the rounds that this worker is in.

        Args:
            keys: which.
            into: as of ``Models.pull``.

        Raises:
            ModelNotFound: one was deleted.
            PushOutcomeUnknown: a push of one is in on some servers only.
            WorkersMissing: a round has not ended in time.
        """
        if self._rounds is None:
            return self._models.pull(keys, into=into)
        tags = self._open(keys)
        try:
            found = self._models.pull(keys, tags, into)
        except PullFailed as error:
            if not tags or not error.attempts:  # or the server could not even be asked
                raise
            raise self._missing(tags, error) from error
        self._rounds.end(tags)
        return found

    def pull_rows(self, wanted: list[tuple[Key, NDArray[Any]]]) -> list[Array]:
        """Return rows of keys, after the rounds that this worker is in; see ``Models.pull_rows``."""
        self.end_rounds([key for key, _ in wanted])
        return self._models.pull_rows(wanted)

    # --- what is under way ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what has failed since the last call, unless somebody has looked at it."""
        while self._pending and self._pending[0].done():
            _raise(self._pending.popleft())

    def flush(self) -> None:
        """Wait for all pushes of this worker; raise what failed, unless somebody has looked at it."""
        while self._pending:
            _raise(self._pending.popleft())

    def end_rounds(self, keys: Iterable[Key]) -> None:
        """Wait for the ends of the rounds of some keys in which this worker is; raises as ``pull``."""
        tags = {} if self._rounds is None else self._open(keys)
        if tags:
            self.pull(list(tags))

    # --- inside ---------------------------------------------------------------------------------------------------

    def _begun(self, values: dict[Key, Given]) -> tuple[dict[Key, Given], dict[Key, int] | None]:
        """Return what is pushed, and the rounds that it takes part in."""
        if self._rounds is None:
            return values, None
        self.end_rounds(values)  # one round of a key at a time
        # A round is the whole array's: a row that one worker left out would wait for it.
        whole: dict[Key, Given] = {
            key: value.todense() if isinstance(value, RowSparse) else value for key, value in values.items()
        }
        return whole, self._rounds.begin(whole)

    def _issued(self, tags: Mapping[Key, int] | None, sent: Iterator[Sent]) -> list[Future[Any]]:
        """Issue requests one by one; what was not even sent takes no part in its round."""
        futures: list[Future[Any]] = []
        rounds = self._rounds
        try:
            for keys, future in sent:
                futures.append(future)
                if rounds is not None:
                    rounds.pushes.update(dict.fromkeys(keys, future))
        except BaseException:
            if rounds is not None and tags:
                rounds.take_back([key for key in tags if key not in rounds.pushes])
            self._pending.extend(futures)  # what was sent may fail, too
            raise
        return futures

    def _open(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Return the open rounds of some keys, now that it is seen what became of their pushes.

        Raises:
            PushOutcomeUnknown: of one only some parts are in.
        """
        assert self._rounds is not None, "only rounds are open"
        tags = self._rounds.tags(keys)
        for key in list(tags):
            future = self._rounds.pushes.get(key)
            error = future.exception() if future is not None and future.done() else None
            if error is None:
                continue
            if getattr(error, "outcome", "unknown") == "none":
                self._rounds.take_back([key])  # it may be made again
                del tags[key]
            elif _is_half(error):
                raise PushOutcomeUnknown(
                    f"push {tags[key] + 1} of key {key!r} is in on some servers and not on others, so its round can't "
                    f"end; delete the key, and initialise it anew: {error}"
                ) from error
        return tags

    def _missing(self, tags: Mapping[Key, int], error: GlintError) -> WorkersMissing:
        named = ", ".join(f"{key!r} (push {tag + 1})" for key, tag in list(tags.items())[:NAMED_MAX])
        return WorkersMissing(self._who(named) + f": {error}")


def _is_half(error: BaseException) -> bool:
    """Tell whether some parts of a push are in, and others are sure not to be."""
    return isinstance(error, RequestError) and any(counts.get("refused") for counts in error.parts.values())


def _noted(asked: list[Asked], requests: Iterable[Asked]) -> Iterator[Sent]:
    """Yield what is sent of requests for values, and note these."""
    for one in requests:
        asked.append(one)
        yield one.keys, one.future


def _raise(future: Future[Any]) -> None:
    if not future.seen:
        future.result()
    elif not future.done():
        future.exception()
