"""Steps of word2vec through kill -9: each is made once, on every server, and the vectors are those of plain numpy."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glintpy import Client, LocalCluster, config
from tests.cluster.helpers import paused
from tests.skipgram import Reference, Sliced, some_pairs, some_reference

SERVERS = 3
WORDS, DIM = 40, 6


class Steps:
    """Steps with gradients that don't depend on products, so that they may be issued ahead, and their reference.

    Args:
        sliced: the vectors.
        reference: the same.
        random: of pairs and gradients.
    """

    def __init__(self, sliced: Sliced, reference: Reference, random: np.random.Generator) -> None:
        self._sliced = sliced
        self._reference = reference
        self._random = random
        self._products: list[tuple[Any, Any]] = []
        self._changes: list[Any] = []
        self._num = 0

    def issue(self, num: int) -> None:
        for _ in range(num):
            inputs, outputs = some_pairs(self._random, 20, WORDS)
            numbers = {"seed": self._num, "negatives": 3}
            self._num += 1
            products = self._sliced.slices.call(
                "dot_negative", inputs, outputs, other=self._sliced.table, **numbers
            )
            self._products.append((products, self._reference.products(inputs, outputs, **numbers)))
            gradients = self._random.normal(size=(20, 4)) * 0.05
            change = self._sliced.slices.call(
                "adjust", inputs, outputs, gradients, other=self._sliced.table, **numbers
            )
            self._changes.append(change)
            self._reference.adjust(inputs, outputs, gradients, **numbers)

    def check(self, *, killed: bool = True) -> None:
        """Wait for all that was issued, and compare the vectors with the reference.

        Args:
            killed: a server was killed meanwhile. What was asked of it is asked again, perhaps behind later steps, so
                products are no longer those of their moment.
        """
        for products, expected in self._products:
            found = products.result()
            assert found.shape == expected.shape
            if not killed:
                np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        assert [change.result() for change in self._changes] == [None] * len(self._changes)
        self._products, self._changes = [], []
        expected_vectors = self._reference.inputs, self._reference.outputs
        for values, vectors in zip(self._sliced.values(), expected_vectors, strict=True):
            np.testing.assert_allclose(values, vectors, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("durability", ["process", pytest.param("disk", marks=pytest.mark.soak)])
def test_steps_that_a_killed_server_had_before_it_are_made_once(
    durability: config.Durability, tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    with LocalCluster(SERVERS, data_dir=tmp_path) as cluster, cluster.client() as client:
        reference = some_reference(random, num_words=WORDS, dim=DIM)
        sliced = Sliced.of(client, reference, parts=SERVERS, durability=durability)
        steps = Steps(sliced, reference, random)
        steps.issue(2)
        steps.check(killed=False)
        for index in range(SERVERS if durability == "process" else 1):
            with paused(cluster.servers[index].pid):
                # Some of it arrives, and none of it is answered, before the kill.
                steps.issue(4)
            cluster.kill_server(index)
            cluster.restart_server(index)
            steps.issue(2)
            steps.check()
            # In the middle of what nobody waited for.
            steps.issue(20)
            cluster.kill_server(index)
            cluster.restart_server(index)
            steps.check()


def test_workers_side_by_side_lose_nothing_where_a_server_is_killed(tmp_path: Path, seed: int) -> None:
    # Each worker has words of its own and no negatives, so that it makes no difference who comes first.
    num_workers = 2
    random = np.random.default_rng(seed)
    reference = some_reference(random, num_words=WORDS, dim=DIM)
    own = [np.arange(WORDS)[number::num_workers] for number in range(num_workers)]
    half_way = threading.Barrier(num_workers + 1)

    def work(client: Client, name: str, table: str, number: int) -> None:
        random = np.random.default_rng([seed, number])
        slices, sums = client.open(name), client.open(table)
        for step in range(60):
            if step == 30:
                half_way.wait()
            inputs, outputs = (random.choice(own[number], 15).tolist() for _ in range(2))
            gradients = random.normal(size=(15, 1)) * 0.05
            slices.call("adjust", inputs, outputs, gradients, other=sums, seed=step, negatives=0)
            with lock:
                reference.adjust(inputs, outputs, gradients, seed=step, negatives=0)
        client.flush()

    lock = threading.Lock()
    with LocalCluster(SERVERS, data_dir=tmp_path) as cluster, cluster.client() as client:
        sliced = Sliced.of(client, reference, parts=SERVERS)
        client.flush()
        clients = [cluster.client() for _ in range(num_workers)]
        names = sliced.slices.name, sliced.table.name
        threads = [
            threading.Thread(target=work, args=(clients[number], *names, number))
            for number in range(num_workers)
        ]
        for thread in threads:
            thread.start()
        half_way.wait()
        cluster.kill_server(1)
        cluster.restart_server(1)
        for thread in threads:
            thread.join()
        expected = reference.inputs, reference.outputs
        for values, vectors in zip(sliced.values(), expected, strict=True):
            np.testing.assert_allclose(values, vectors, rtol=1e-9, atol=1e-9)
        for one in clients:
            one.close()
