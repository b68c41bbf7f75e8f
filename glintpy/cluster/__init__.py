"""LocalCluster: a master and servers on this machine, for one program; nothing survives it."""

from glintpy.cluster.local_cluster import LocalCluster, ServerView, local
from glintpy.process.orders import ServerOptions

__all__ = ["LocalCluster", "ServerOptions", "ServerView", "local"]
