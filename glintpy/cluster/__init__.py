"""LocalCluster: a master and servers on this machine, for one program; nothing survives it."""

from glintpy.cluster.local_cluster import LocalCluster, local
from glintpy.cluster.members import ServerView
from glintpy.process.orders import ServerOptions

__all__ = ["LocalCluster", "ServerOptions", "ServerView", "local"]
