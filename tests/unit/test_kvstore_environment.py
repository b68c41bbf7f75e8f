"""What a worker is told by its environment: by glintpy's own names and by those of dmlc's trackers."""

from __future__ import annotations

import pytest

import glintpy
from glintpy.kvstore.environment import Job

FULL = Job("tcp://10.0.0.1:13370", "job-7", rank=2, num_workers=4, num_servers=3, on_worker_lost="raise")


@pytest.mark.parametrize(
    "job",
    [
        FULL,
        Job("tcp://[::1]:5"),
        Job("ipc:///tmp/x.sock", num_workers=1),
        Job("tcp://a:1", role="server", num_role_servers=2),
    ],
)
def test_what_is_told_is_what_is_heard(job: Job) -> None:
    assert Job.from_environment(job.to_environment()) == job


def test_programs_of_dmlc_s_trackers_hear_it_too() -> None:
    told = {name: text for name, text in FULL.to_environment().items() if name.startswith("DMLC")}
    assert told == {
        "DMLC_ROLE": "worker",
        "DMLC_PS_ROOT_URI": "10.0.0.1",
        "DMLC_PS_ROOT_PORT": "13370",
        "DMLC_NUM_WORKER": "4",
        "DMLC_NUM_SERVER": "3",
        "DMLC_RANK": "2",
        "DMLC_TASK_ID": "2",
    }
    assert Job.from_environment(told) == Job("tcp://10.0.0.1:13370", rank=2, num_workers=4, num_servers=3)


def test_glintpy_s_own_names_count_more() -> None:
    told = {"GLINTPY_MASTER": "tcp://a:1", "DMLC_PS_ROOT_URI": "b", "DMLC_PS_ROOT_PORT": "2"}
    told |= {"GLINTPY_NUM_WORKERS": "3", "DMLC_NUM_WORKER": "5"}
    job = Job.from_environment(told)
    assert job is not None
    assert (job.address, job.num_workers) == ("tcp://a:1", 3)


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"])
def test_launchers_of_mpi_and_slurm_give_ranks(name: str) -> None:
    job = Job.from_environment({"GLINTPY_MASTER": "tcp://a:1", name: "6"})
    assert job is not None
    assert job.rank == 6


def test_without_a_master_there_is_no_job() -> None:
    assert Job.from_environment({"DMLC_NUM_WORKER": "3"}) is None


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"DMLC_ROLE": "boss"}, "DMLC_ROLE is scheduler, server or worker, not 'boss'"),
        (
            {"GLINTPY_MASTER": "a", "GLINTPY_NUM_ROLE_SERVERS": "-2"},
            "GLINTPY_NUM_ROLE_SERVERS is an integer of at least 0",
        ),
        ({"DMLC_PS_ROOT_URI": "a"}, "DMLC_PS_ROOT_PORT says no port"),
        (
            {"DMLC_PS_ROOT_URI": "a", "DMLC_PS_ROOT_PORT": "x"},
            "DMLC_PS_ROOT_PORT is an integer of at least 1, not 'x'",
        ),
        (
            {"GLINTPY_MASTER": "a", "DMLC_NUM_WORKER": "0"},
            "DMLC_NUM_WORKER is an integer of at least 1, not '0'",
        ),
        ({"GLINTPY_MASTER": "a", "GLINTPY_RANK": "-1"}, "GLINTPY_RANK is an integer of at least 0, not '-1'"),
        ({"GLINTPY_MASTER": "a", "GLINTPY_ON_WORKER_LOST": "die"}, "is shrink or raise, not 'die'"),
    ],
)
def test_what_can_t_be_is_said_with_its_name(told: dict[str, str], said: str) -> None:
    with pytest.raises(glintpy.ConfigError, match=said):
        Job.from_environment(told)
