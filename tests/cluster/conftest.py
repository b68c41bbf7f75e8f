"""A cluster of real processes for each module that asks for one, and a client for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import glintpy


@pytest.fixture(scope="module")
def cluster() -> Iterator[glintpy.LocalCluster]:
    """A master and two servers on loopback, shared by the tests of a module; none may break them."""
    with glintpy.LocalCluster(2, scheme="tcp") as cluster:
        yield cluster


@pytest.fixture
def client(cluster: glintpy.LocalCluster) -> Iterator[glintpy.Client]:
    """A client of the module's cluster; every model is destroyed after the test."""
    with cluster.client() as client:
        yield client
        client.flush()
        for name in client.models():
            client.open(name).destroy()
