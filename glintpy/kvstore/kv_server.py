"""What servers do with what the workers of an app push, by its name; no code of a user's travels."""

from __future__ import annotations

import contextlib
from typing import Self, SupportsIndex

from glintpy import Client, ConfigError, ModelNotFound
from glintpy.kvstore.apps import DTYPE, Home, begun_app
from glintpy.kvstore.integers import check_number, integer_of
from glintpy.kvstore.pairs import LENGTH_MAX, dtype_of
from glintpy.updaters import Updater

DEFAULT_HANDLE = "KVServerDefaultHandle"
"""ps-lite's: a push is added, and what nobody has pushed is 0."""


class KVServer:
    """Says what an app's values are and what pushes do to them, before the first push.

    The values lie on the cluster's servers, and this is no place for any. One process says it, whichever it is, and the
    others meet it at a barrier before they push; or all say the same.

    Args:
        app_id: the app's, the same for all its workers.
        client: a client, or the master's address; None: that of the one node that this process is, or else what the
            environment says.
        job: the job's name; None: the node's, or what the environment says.
        k: values of a key.
        dtype: of the values.
        varying: whether keys have different numbers of values, as ``lens`` says. Then ``k`` says nothing.

    Raises:
        ConfigError: what can't be; or nothing says which cluster.
        DTypeError: no dtype.
        MasterUnreachable: nobody answers at the address.
    """

    def __init__(
        self,
        app_id: int = 0,
        client: Client | str | None = None,
        *,
        job: str | None = None,
        k: SupportsIndex = 1,
        dtype: str = DTYPE,
        varying: bool = False,
    ) -> None:
        self.app_id = check_number("app_id", app_id)
        found = integer_of(k)
        if found is None or not 1 <= found <= LENGTH_MAX:
            raise ConfigError(f"k is how many values a key has, 1 to {LENGTH_MAX}, not {k!r:.80}")
        self.k = found
        self.dtype = dtype_of(dtype).name
        self.varying = varying
        self._home = Home(client, job, self.app_id)

    def set_request_handle(self, handle: str | Updater = DEFAULT_HANDLE) -> None:
        """Begin the app: say what pushes do. Saying the same again changes nothing.

        Args:
            handle: ``"KVServerDefaultHandle"``, which adds; the name of any updater, as ``"assign"`` or ``"adagrad"``;
                or an instance of one, which has its numbers. One of your own is a class that servers are allowed to
                import.

        Raises:
            ConfigError: there is no such updater, and no function is one: what is a handler in ps-lite is an updater
                here. Or the app was begun otherwise, by another ``KVServer`` or by a push.
            DTypeError, ShapeError: it can't work with the dtype; values of a key that no row has room for.
            NotEnoughServers: there is no server.
            MasterUnreachable: the master did not answer.
        """
        if callable(handle):
            raise ConfigError(
                f"a handle is the name of an updater, or an instance of one, not {handle!r:.80}: code doesn't travel "
                "to servers. Write a class of glintpy.updaters.Updater that they may import"
            )
        updater = "add" if handle == DEFAULT_HANDLE else handle
        begun_app(self._home, self.k, self.dtype, updater, varying=self.varying)

    def destroy(self) -> None:
        """End the app, with all its values; none of its workers can go on. Again it does nothing."""
        for name in self._home.names():
            with contextlib.suppress(ModelNotFound):  # another ends it, too
                self._home.client.destroy(name)

    def close(self) -> None:
        """Let go of the cluster; the app goes on."""
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        size = "varying" if self.varying else f"k={self.k}"
        return f"KVServer({self.app_id}, {size}, dtype={self.dtype!r})"
