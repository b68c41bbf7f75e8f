"""A local cluster with a fault proxy before each server, so that its links can be spoiled; knows no drill."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

from glintpy.cluster import LocalCluster, ServerOptions
from glintpy.cluster.ports import keep_port, port_of
from glintpy.errors import ClusterError
from glintpy.testing.proxy import Proxy

__all__ = ["ProxiedCluster"]


class ProxiedCluster(LocalCluster):
    """A ``LocalCluster`` over tcp whose servers are told to clients by the addresses of proxies.

    Use it as a ``LocalCluster``; ``proxies[i]`` stands before server ``i`` and leads to it, also when it was killed
    and restarted. Servers reach the master directly.

    Args:
        servers: how many.
        seed: of what is random in the proxies.
        server_options: how each server is to be beside that; None: as usual.
        options: of ``LocalCluster``.

    Attributes:
        proxies: by server.
        server_options: those of servers that start from now on.

    Raises:
        ConfigError, ClusterError: as ``LocalCluster``.
    """

    def __init__(
        self,
        servers: int = 2,
        *,
        seed: int = 0,
        server_options: ServerOptions | None = None,
        **options: Any,
    ) -> None:
        self.proxies: list[Proxy] = []
        self.server_options = server_options or ServerOptions()
        self._proxy_seed = seed
        self._kept: list[socket.socket] = []
        super().__init__(servers, scheme="tcp", server_options=self._behind_proxy, **options)

    def stop(self) -> None:
        """Stop everything, the proxies too; again does nothing."""
        super().stop()
        for proxy in self.proxies:
            proxy.stop()
        for end in self._kept:
            end.close()

    def _behind_proxy(self, index: int) -> ServerOptions:
        return replace(self.server_options, advertise=self._proxy(index).host_port)

    def _listen_address(self, name: str) -> str:
        if name == "master":
            return super()._listen_address(name)
        return f"tcp://{self._proxy(int(name.rpartition('-')[2])).target}"

    def _proxy(self, index: int) -> Proxy:
        """Return the proxy of a server, and make those that are missing."""
        while len(self.proxies) <= index:
            end = keep_port()
            if end is None:
                raise ClusterError(
                    "a proxied server needs a port that is kept for it, which Linux can do only"
                )
            self._kept.append(end)
            target = f"127.0.0.1:{port_of(end)}"
            self.proxies.append(Proxy(target, seed=self._proxy_seed + len(self.proxies)))
        return self.proxies[index]
