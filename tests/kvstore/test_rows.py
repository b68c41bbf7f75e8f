"""Some rows of a key: pushed with repeats and from several devices, and pulled by several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import KVStore, RowSparse, create


def test_rows_that_repeat_and_rows_of_devices_are_summed_whatever_the_rule(kv: KVStore) -> None:
    kv.init("m", np.zeros((3, 1)))
    repeated = RowSparse([1, 1], [[1.0], [2.0]])
    devices = [RowSparse([1], [[1.0]]), RowSparse([1], [[10.0]])]
    kv.push("m", repeated)
    assert kv.pull("m").tolist() == [[0], [3], [0]]
    kv.push("m", devices)
    assert kv.pull("m").tolist() == [[0], [11], [0]]
    kv.push(["m", "m"], devices)
    assert kv.pull("m").tolist() == [[0], [11], [0]]


@pytest.mark.parametrize("updater", ["max", "mean", "sgd"])
def test_repeats_count_as_one_push_in_every_kind_of_store(
    updater: str, cluster: glintpy.LocalCluster, job: str
) -> None:
    found = []
    for kind in ("local", "dist_async"):
        with cluster.client() as client, create(kind, client, job=job, num_workers=1) as kv:
            kv.init("m", np.zeros((3, 1)))
            kv.set_optimizer(updater)
            for _ in range(2):
                kv.push("m", RowSparse([1, 1, 2], [[1.0], [4.0], [2.0]]))
            found.append(kv.pull("m").tolist())
    assert found[0] == found[1]


@pytest.mark.parametrize("shape", [(4, 3), (300, 300)])
def test_no_rows_are_no_push(kv: KVStore, shape: tuple[int, ...]) -> None:
    kv.init("m", np.ones(shape))
    kv.set_optimizer("add")
    kv.push("m", RowSparse([], np.zeros((0, shape[1]))))
    assert (kv.pull("m") == 1).all()


def test_each_device_gets_the_rows_that_it_asks_for(kv: KVStore) -> None:
    kv.init("m", np.arange(8.0).reshape(4, 2))
    asked: list[list[Any]] = [[[3], [0, 1]], [np.array([3, 0]), np.array([1, 1])]]
    for ids in asked:
        outs = [np.zeros((len(rows), 2)) for rows in ids]
        found = kv.row_sparse_pull("m", out=outs, row_ids=ids)
        for rows, out, value in zip(ids, outs, found, strict=True):
            assert out.tolist() == value.tolist() == [[2.0 * row, 2.0 * row + 1] for row in rows]
    with pytest.raises(glintpy.ShapeError, match="2 outputs and 3 arrays of row ids for key 'm'"):
        kv.row_sparse_pull("m", out=[np.zeros((1, 2))] * 2, row_ids=[[1], [2], [3]])
    with pytest.raises(glintpy.ShapeError, match="2 arrays of row ids for one key: give as many outputs"):
        kv.row_sparse_pull("m", row_ids=[[1], [2]])
