"""Numbers of a live model's updater: changed on all servers, kept through kills, and seen by who comes later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glintpy import LocalCluster
from glintpy.config import Durability
from glintpy.errors import ConfigError, ModelNotFound, ServerLost
from glintpy.testing.updated import Updated
from glintpy.updaters import SGD, Adagrad, Adam, schedules
from tests.models.raw_peer import Served


def test_a_rate_changes_without_losing_state(served: Served) -> None:
    with served.client.matrix(20, 3, updater=Adagrad(learning_rate=1.0)) as m:
        expected = Updated(np.zeros((20, 3)), m.updater)
        for rate in (1.0, 0.5, 0.125):
            m.configure(learning_rate=rate)
            expected.updater = Adagrad(learning_rate=rate)
            assert m.updater == expected.updater
            for _ in range(5):
                m.push([3, 19], 1.0)
                expected.push([3, 19], 1.0)
        np.testing.assert_array_equal(np.asarray(m), expected.values)
        opened = served.client.open(m.name)
        assert opened.updater == Adagrad(learning_rate=0.125)


def test_pushes_issued_before_are_applied_by_the_old_numbers(served: Served) -> None:
    with served.client.vector(4, updater=SGD(learning_rate=1.0)) as v:
        for _ in range(200):
            v.push([1], -1.0)
        v.configure(learning_rate=0.0)
        v.push([1], -1.0)
        assert v.pull([1]).result() == [200.0]


def test_one_schedule_gives_way_to_another_and_the_steps_go_on(served: Served) -> None:
    with served.client.matrix(2, 2, updater=SGD(learning_rate=schedules.Constant(1.0))) as m:
        m.push([0], -1.0)
        m.configure(learning_rate=schedules.InverseTime(1.0, 1.0))
        m.push([0], -1.0)  # its second step: half a rate
        assert m.pull(0).result().tolist() == [1.5, 1.5]
        assert m.pull_slot("steps").result().tolist() == [2, 0]


def test_numbers_that_do_not_fit_change_nothing(served: Served) -> None:
    with served.client.matrix(2, 2, updater=Adam()) as m, served.client.matrix(2, 2) as plain:
        before = m.updater
        with pytest.raises(ConfigError, match=r"no number 'rate'; it has learning_rate"):
            m.configure(rate=1)
        with pytest.raises(ConfigError, match="beta1 is a number"):
            m.configure(beta1=2)
        with pytest.raises(ConfigError, match="it has none"):
            plain.configure(learning_rate=1)
        with (
            served.client.matrix(2, 2, updater=SGD()) as s,
            pytest.raises(ConfigError, match="counted the steps"),
        ):
            s.configure(learning_rate=schedules.Constant(0.1))
        assert m.updater == before
        assert served.client.open(m.name).updater == before
        m.configure()


def test_programs_that_start_alike_still_share_the_model(served: Served) -> None:
    client = served.client
    with client.matrix(2, 2, name="alike", updater=Adagrad(learning_rate=1.0)) as m:
        m.configure(learning_rate=0.5)
        for rate in (1.0, 0.5):
            again = client.matrix(2, 2, name="alike", updater=Adagrad(learning_rate=rate), exist_ok=True)
            assert again.updater == Adagrad(learning_rate=0.5)


def test_a_whole_number_may_be_written_either_way(served: Served) -> None:
    client = served.client
    with client.matrix(2, 2, name="alike", updater=Adagrad(learning_rate=1)) as m:
        rule = Adagrad(learning_rate=1.0)
        assert client.matrix(2, 2, name="alike", updater=rule, exist_ok=True) == m


def test_a_saved_model_has_its_present_numbers(served: Served, tmp_path: Path) -> None:
    with served.client.matrix(2, 2, updater=Adagrad(learning_rate=1.0)) as m:
        m.configure(learning_rate=0.5)
        m.save(str(tmp_path))
        with served.client.load(str(tmp_path), name="again") as loaded:
            assert loaded.updater == Adagrad(learning_rate=0.5)


def test_another_handle_saves_the_present_numbers_too(served: Served, tmp_path: Path) -> None:
    client = served.client
    with (
        client.matrix(2, 2, name="m", updater=Adagrad(learning_rate=1.0)) as m,
        client.table(2, name="t", updater=Adagrad(learning_rate=1.0)) as t,
    ):
        for model in (m, t):
            client.open(model.name).configure(learning_rate=0.5)
            model.save(str(tmp_path / model.name))
            with client.load(str(tmp_path / model.name), name="again") as loaded:
                assert loaded.updater == Adagrad(learning_rate=0.5)


def test_without_the_master_a_save_has_the_numbers_that_its_handle_knows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glintpy.models.saving.MASTER_S", 0.2)
    with LocalCluster(1, data_dir=tmp_path / "kept") as cluster, cluster.client() as client:
        m = client.matrix(2, 2, updater=Adagrad(learning_rate=1.0))
        cluster.kill_master()
        m.save(str(tmp_path / "saved"))
        assert "with the numbers of its updater that this handle knows of" in caplog.text
        cluster.restart_master()
        with client.load(str(tmp_path / "saved"), name="again") as loaded:
            assert loaded.updater == Adagrad(learning_rate=1.0)


def test_a_model_that_has_ended_has_no_numbers(served: Served) -> None:
    m = served.client.matrix(2, 2, updater="sgd")
    other = served.client.open(m.name)
    m.destroy()
    for handle in (m, other):
        with pytest.raises(ModelNotFound):
            handle.configure(learning_rate=1)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_numbers_outlive_kills_of_servers_and_of_the_master(tmp_path: Path, durability: Durability) -> None:
    with (
        LocalCluster(2, data_dir=tmp_path / "kept", durability=durability) as cluster,
        cluster.client() as client,
    ):
        m = client.matrix(10, 2, updater=SGD(learning_rate=1.0), name="kept")
        m.configure(learning_rate=0.5)
        for index in range(2):
            cluster.kill_server(index)
            cluster.restart_server(index)
        m.push(None, -1.0).result()
        cluster.kill_master()
        cluster.restart_master()
        m.configure(learning_rate=0.25)
        m.push(None, -1.0).result()
        assert np.asarray(m).tolist() == [[0.75, 0.75]] * 10
        with cluster.client() as other:
            assert other.open("kept").updater == SGD(learning_rate=0.25)


def test_a_server_that_is_away_gets_the_numbers_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glintpy.actors.configuring.ANSWER_S", 0.5)
    with LocalCluster(2, scheme="local", data_dir=tmp_path / "kept") as cluster, cluster.client() as client:
        m = client.matrix(10, 2, updater=SGD(learning_rate=1.0))
        cluster.kill_server(1)
        with pytest.raises(ServerLost, match="1 servers have not answered"):
            m.configure(learning_rate=0.5)
        cluster.restart_server(1)
        m.push(None, -1.0).result()
        again = client.open(m.name)
        assert again.updater == SGD(learning_rate=0.5)
        assert np.asarray(m)[0].tolist() == [0.5, 0.5]
        again.configure(learning_rate=0.5)  # returns when both have them
        again.push(None, -1.0).result()
        assert np.asarray(m)[9].tolist()[0] in {1.0, 1.5}


def test_a_server_that_is_away_is_named_in_the_caller_s_time() -> None:
    with LocalCluster(2, scheme="local") as cluster, cluster.client(timeout_s=1) as client:
        matrix = client.matrix(6, 2, updater="sgd")
        cluster.kill_server(1)
        with pytest.raises(ServerLost, match="are written down, and 1 servers have not answered in time"):
            matrix.configure(learning_rate=0.5)
        assert client.open(matrix.name).updater == SGD(0.5)
        cluster.restart_server(1)
        matrix.push(None, 1).result()
        assert matrix.pull().result().tolist() == [[-0.5] * 2] * 6
