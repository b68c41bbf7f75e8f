"""What several modules here are tested on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.models.raw_peer import Served, Target, a_cluster


@pytest.fixture(scope="module", params=["local", "tcp"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with a_cluster(request.param) as cluster:
        yield cluster


@pytest.fixture
def target(served: Served) -> Iterator[Target]:
    made = Target(served)
    yield made
    made.close()
