"""Saves while pushes go on and while a server, the master or the saving program dies: one moment, and never half."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy import failpoints
from glintpy.models import saving
from glintpy.protocol.messages import ReadCut
from glintpy.storage.checkpoint_reader import CheckpointReader
from glintpy.testing.partitioners import scattered
from tests.cluster.helpers import PATIENCE_S, holders_of, holdings, line_of, program
from tests.cluster.saved import (
    EVERY,
    Pusher,
    at_hit,
    kill_and_restart,
    saved_versions,
    vector_of,
    versions_in,
)

PLACES = (
    "checkpoint.before_file",
    "checkpoint.in_file",
    "checkpoint.after_file",
    "checkpoint.before_manifest",
    "checkpoint.manifest_staged",
    "checkpoint.after_manifest",
)


@pytest.fixture(scope="module")
def breakable() -> Iterator[glintpy.LocalCluster]:
    """Two servers that the tests of this module kill and start again."""
    with glintpy.LocalCluster(2, scheme="ipc") as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def no_slice_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a killed server take something with it: these models are small enough to be read ahead whole."""
    monkeypatch.setattr(saving, "READS_AHEAD", 1)


# --- a server goes and comes back -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "hit", "victim"),
    [
        ("checkpoint.in_file", 2, 0),
        pytest.param("checkpoint.before_file", 1, 0, marks=pytest.mark.soak),
        pytest.param("checkpoint.after_file", 1, 0, marks=pytest.mark.soak),
        pytest.param("checkpoint.after_file", 1, 1, marks=pytest.mark.soak),
        pytest.param("checkpoint.in_file", 6, 1, marks=pytest.mark.soak),
        pytest.param("checkpoint.before_manifest", 1, 1, marks=pytest.mark.soak),
    ],
)
def test_a_save_goes_on_when_a_server_is_killed_and_comes_back(
    breakable: glintpy.LocalCluster,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    place: str,
    hit: int,
    victim: int,
) -> None:
    caplog.set_level("INFO", "glintpy.models")
    with breakable.client() as client, vector_of(client, "restarted") as vector:
        index = holders_of(vector, breakable)[victim]
        with Pusher(breakable, "restarted") as pusher:
            low = pusher.num_answered()
            with failpoints.armed(place, at_hit(hit, partial(kill_and_restart, breakable, index))):
                vector.save(str(tmp_path / "saved"))
            high = len(pusher.pushes)
        found = saved_versions(tmp_path / "saved")
        assert low <= min(found)
        assert max(found) <= high
        pusher.check(vector)
        if place == "checkpoint.in_file":
            assert "begun anew with one server's part" in caplog.text
        assert {held["cuts"] for held in holdings(client).values()} == {0}


@pytest.mark.soak
def test_a_save_of_a_custom_partitioner_begins_a_servers_part_anew(
    breakable: glintpy.LocalCluster, tmp_path: Path
) -> None:
    # Its rows are said by files of their own, which are written once.
    values = np.arange(300_000)
    once = at_hit(1, partial(kill_and_restart, breakable, 0))
    with (
        breakable.client() as client,
        client.vector(300_000, dtype="int64", partitioner=scattered(300_000, 4)) as vector,
    ):
        vector.push(None, values).result()
        again = at_hit(2, partial(kill_and_restart, breakable, 0))
        with failpoints.armed("checkpoint.after_file", again), failpoints.armed("checkpoint.in_file", once):
            vector.save(str(tmp_path / "saved"))
    found = np.zeros_like(values)
    for rows, block in CheckpointReader(str(tmp_path / "saved")).blocks(1 << 20):
        found[np.asarray(rows)] = block
    assert np.array_equal(found, values)


@pytest.mark.soak
def test_a_save_from_a_server_that_restarts_without_end_is_given_up(
    breakable: glintpy.LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "CUTS_LOST_MAX", 1)
    with breakable.client() as client, vector_of(client, "restless") as vector:
        vector.save(str(tmp_path / "saved"))
        index = holders_of(vector, breakable)[0]
        with (
            failpoints.armed("checkpoint.in_file", partial(kill_and_restart, breakable, index)),
            pytest.raises(glintpy.ServerLost, match="lost what was being saved 2 times"),
        ):
            vector.save(str(tmp_path / "saved"), overwrite=True)
        assert saved_versions(tmp_path / "saved") == [0, 0]
        assert {held["cuts"] for held in holdings(client).values()} == {0}


@pytest.mark.soak
def test_a_save_from_a_server_that_stays_away_fails_and_leaves_the_old_one(
    breakable: glintpy.LocalCluster, tmp_path: Path
) -> None:
    with breakable.client() as client, vector_of(client, "away") as vector:
        vector.save(str(tmp_path / "saved"))
        files = sorted((tmp_path / "saved").iterdir())
        vector.push(slice(None, None, EVERY), 1).result()
        index = holders_of(vector, breakable)[1]
        with (
            failpoints.armed("checkpoint.after_file", at_hit(1, partial(breakable.kill_server, index))),
            pytest.raises(glintpy.ServerLost, match="did not answer within 1 s"),
        ):
            vector.with_options(timeout_s=1).save(str(tmp_path / "saved"), overwrite=True)
        breakable.restart_server(index)
        assert sorted((tmp_path / "saved").iterdir()) == files
        assert saved_versions(tmp_path / "saved") == [0, 0]
        vector.save(str(tmp_path / "saved"), overwrite=True)
        assert saved_versions(tmp_path / "saved") == [1, 1]


def test_two_saves_of_one_client_through_a_restart_are_not_mixed_up(
    breakable: glintpy.LocalCluster, tmp_path: Path
) -> None:
    # A server that comes back may count its cuts anew: one save's old number must not be the other's new one.
    first_is_reading, second_begun_anew = threading.Event(), threading.Event()
    hits: Counter[str] = Counter()

    def act() -> None:
        thread = threading.current_thread().name
        hits[thread] += 1
        if thread.startswith("first") and hits[thread] == 1:
            first_is_reading.set()
            assert second_begun_anew.wait(PATIENCE_S)
        elif thread.startswith("second") and hits[thread] == 1:
            kill_and_restart(breakable, index)
        elif thread.startswith("second"):
            second_begun_anew.set()

    with (
        breakable.client() as client,
        vector_of(client, "seven") as seven,
        vector_of(client, "eight") as eight,
        ThreadPoolExecutor(1, "first") as first,
        ThreadPoolExecutor(1, "second") as second,
        failpoints.armed("checkpoint.in_file", act),
    ):
        seven.push(slice(None, None, EVERY), 7).result()
        eight.push(slice(None, None, EVERY), 8).result()
        index = holders_of(seven, breakable)[0]
        breakable.restart_server(index)
        saves = [first.submit(seven.save, str(tmp_path / "seven"))]
        assert first_is_reading.wait(PATIENCE_S)
        saves.append(second.submit(eight.save, str(tmp_path / "eight")))
        for save in saves:
            save.result()
        assert saved_versions(tmp_path / "seven") == [7, 7]
        assert saved_versions(tmp_path / "eight") == [8, 8]


def test_a_cut_whose_turn_is_still_to_come_is_read_from_now_and_then(
    breakable: glintpy.LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []

    def read_cut(*fields: Any) -> ReadCut:
        read.append(fields)
        return ReadCut(*fields)

    begin = saving.ServerCut.begin

    def begin_and_wait(cut: saving.ServerCut) -> None:
        begin(cut)
        cut._begun.result()

    monkeypatch.setattr(saving.ServerCut, "begin", begin_and_wait)
    monkeypatch.setattr(saving, "TOUCH_S", 0.0)
    monkeypatch.setattr(saving, "ReadCut", read_cut)
    with breakable.client() as client, vector_of(client, "touched") as vector:
        vector.save(str(tmp_path / "saved"))
        assert saved_versions(tmp_path / "saved") == [0, 0]
    # Three slices at each server, and one at the second for each of four pieces of the first one's files.
    assert len(read) >= 3 + 3 + 4


@pytest.mark.soak
@pytest.mark.parametrize("way", ["load", "random"])
def test_a_model_is_filled_through_a_servers_death_and_return(
    breakable: glintpy.LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    finish = saving._finish
    again = at_hit(3, partial(kill_and_restart, breakable, 1))

    def finish_and_kill(*arguments: Any) -> None:
        again()
        finish(*arguments)

    with breakable.client() as client:
        if way == "load":
            values = np.arange(3_000_000)
            with client.vector(3_000_000, dtype="int64", name="loaded") as vector:
                vector.push(None, values)
                vector.save(str(tmp_path / "saved"))

            def make() -> glintpy.BigMatrix | glintpy.BigVector:
                return client.load(str(tmp_path / "saved"))

        else:

            def make() -> glintpy.BigMatrix | glintpy.BigVector:
                # Without a regular order of rows the values come from here.
                return client.vector(
                    2_000_000, init=("normal", 0, 1), seed=3, partitioner=scattered(2_000_000, 4)
                )

            with make() as made:
                values = made.pull().result()
        with monkeypatch.context() as patch:
            patch.setattr(saving, "_finish", finish_and_kill)
            filled = make()
        with filled:
            assert np.array_equal(filled.pull().result(), values)


# --- any of them dies at any moment -----------------------------------------------------------------------------

SAVER = """
import itertools, os, signal, sys
import glintpy
from glintpy import failpoints

address, name, url, place, number, every = sys.argv[1:]
hits = itertools.count(1)

def maybe_die():
    if next(hits) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)

if place:
    failpoints.arm_with(place, maybe_die)
with glintpy.Client(address) as client:
    vector = client.open(name)
    print("saving", flush=True)
    while True:
        vector.push(slice(None, None, int(every)), 1).result()
        vector.save(url, overwrite=True)
"""


class Trials:
    """Kills one party of a save, and looks that a whole checkpoint lies there before and after."""

    def __init__(self, cluster: glintpy.LocalCluster, folder: Path, seed: int) -> None:
        self.cluster = cluster
        self.folder = folder
        self.url = folder / "saved"
        self.random = random.Random(seed)

    def run(self, vector: glintpy.BigVector, victim: str) -> None:
        """Save whole, then once more with a death in it, then whole again."""
        vector.save(str(self.url), overwrite=True)
        old = saved_versions(self.url)
        is_exact = self.random.random() < 0.6
        place = self.random.choice(PLACES) if is_exact else ""
        hits = {"checkpoint.in_file": 8, "checkpoint.before_file": 4, "checkpoint.after_file": 4}
        number = self.random.randint(1, hits.get(place, 1))
        if victim == "client":
            self._kill_saver(place, number)
            found = saved_versions(self.url)
            # Of a push over two servers, whose client is killed in it, one may have its part and the other not.
            assert all(now >= before for now, before in zip(found, old, strict=True)), (
                place,
                number,
                found,
                old,
            )
            if place:
                is_new = place == "checkpoint.after_manifest"
                assert found == [versions + is_new for versions in old], (place, number)
        else:
            self._save_while_dying(vector, victim, place, number)
            assert saved_versions(self.url) == [versions + 1 for versions in old], (place, number)
        vector.save(str(self.url), overwrite=True)
        assert len(list(self.url.iterdir())) == 5, "what dead saves left is deleted"
        assert saved_versions(self.url) == versions_in(vector.pull().result())

    def _kill_saver(self, place: str, number: int) -> None:
        arguments = (self.cluster.address, "tried", self.url, place, number, EVERY)
        with program(self.folder / "saver.py", SAVER, *arguments) as process:
            assert line_of(process) == "saving"
            if not place:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(self.random.uniform(0, 0.6))
                process.kill()
            assert process.wait(PATIENCE_S) == -signal.SIGKILL

    def _save_while_dying(self, vector: glintpy.BigVector, victim: str, place: str, number: int) -> None:
        if victim == "server":
            action = partial(kill_and_restart, self.cluster, self.random.randrange(2))
        else:
            action = partial(glintpy.LocalCluster.kill_master, self.cluster)
        vector.push(slice(None, None, EVERY), 1).result()
        if place:
            with failpoints.armed(place, at_hit(number, action)):
                vector.save(str(self.url), overwrite=True)
        else:
            timer = threading.Timer(self.random.uniform(0, 0.1), action)
            timer.start()
            vector.save(str(self.url), overwrite=True)
            timer.join()
        if not self.cluster.master_is_alive:
            self.cluster.restart_master()


@pytest.mark.parametrize(
    "num_trials",
    [pytest.param(1, id="one of each"), pytest.param(17, marks=pytest.mark.soak, id="51 in all")],
)
def test_whoever_is_killed_at_any_moment_of_a_save_a_whole_checkpoint_is_there(
    breakable: glintpy.LocalCluster, tmp_path: Path, seed: int, num_trials: int
) -> None:
    trials = Trials(breakable, tmp_path, seed)
    with breakable.client() as client, vector_of(client, "tried") as vector:
        for _ in range(num_trials):
            for victim in ("client", "server", "master"):
                trials.run(vector, victim)
