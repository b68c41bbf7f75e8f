"""LocalCluster: a master and servers on this machine, for one program; nothing survives it."""

from glintpy.cluster.local_cluster import LocalCluster, ServerView, local
from glintpy.cluster.members import READY

__all__ = ["READY", "LocalCluster", "ServerView", "local"]
