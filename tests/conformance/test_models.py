"""The shipped suite on clusters of every scheme: all of it in threads, less over processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from glintpy import Client, LocalCluster
from glintpy.testing.models import ModelTests


class OverThreeServers(ModelTests):
    @pytest.fixture(scope="class")
    @classmethod
    def client(cls) -> Iterator[Client]:
        with LocalCluster(3, scheme="local") as cluster, cluster.client() as client:
            yield client


class TestEveryDtype(OverThreeServers):
    partitioners = ("cyclic",)


class TestEveryPartitioner(OverThreeServers):
    dtypes = ("int16", "float64")


class TestOneServer(ModelTests):
    dtypes = ("uint8",)

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls) -> Iterator[Client]:
        with LocalCluster(1, scheme="local") as cluster, cluster.client() as client:
            yield client


class TestTcp(ModelTests):
    dtypes = ("float32", "bool")
    partitioners = ("cyclic",)

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls) -> Iterator[Client]:
        with LocalCluster(2, scheme="tcp") as cluster, cluster.client() as client:
            yield client


class TestIpc(ModelTests):
    dtypes = ("int16",)
    partitioners = ("range", "custom")

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls) -> Iterator[Client]:
        with LocalCluster(2, scheme="ipc") as cluster, cluster.client() as client:
            yield client
