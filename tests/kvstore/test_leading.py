"""The directory: as long as it has to be, and written by who is left."""

from __future__ import annotations

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import create, log


def test_a_directory_goes_on_in_another_vector_when_one_is_full(
    cluster: glintpy.LocalCluster, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "FIRST_BYTES", 400)
    with cluster.client() as client, create("dist_async", client, job=job) as kv:
        with cluster.client() as other, create("dist_async", other, job=job) as reader:
            for number in range(40):
                kv.init([number, f"name {number}"], [np.full(2, float(number)), np.zeros(1)])
                if number % 7 == 0:
                    assert reader.pull(number).tolist() == [number, number]
            assert reader.pull("name 39").tolist() == [0]
        names = [name for name in client.models() if name.startswith(f"kv/{job}/0/directory-")]
        assert len(names) > 2
        with cluster.client() as late, create("dist_async", late, job=job) as newcomer:
            assert len(newcomer.keys()) == 80
            assert newcomer.pull(17).tolist() == [17, 17]
        with pytest.raises(
            glintpy.ConfigError, match="too many for one list; initialise the keys in two calls"
        ):
            kv.init(list(range(100, 10_000)), [np.zeros(1)] * 9_900)
        kv.init("big", np.ones(70_000))  # what that has left behind is in nobody's way
        assert kv.pull("big").sum() == 70_000


def test_the_lowest_rank_that_is_left_decides(cluster: glintpy.LocalCluster, job: str) -> None:
    with cluster.client() as client, cluster.client() as other:
        first = create("dist_async", client, job=job)
        first.init("old", np.ones(2))
        with create("dist_async", other, job=job) as kv:
            first.close()
            kv.init(["old", "new"], [np.zeros(2), np.full(2, 3.0)])
            assert [array.tolist() for array in kv.pull(["old", "new"])] == [[1, 1], [3, 3]]
