"""What a worker of a job is told by its environment, and how it is told; knows no cluster.

``glintpy launch`` writes it and ``create`` reads it. The names of dmlc's trackers (``DMLC_PS_ROOT_URI``,
``DMLC_NUM_WORKER`` and so on) say the same where glintpy's own are not there, so that what starts MXNet's workers can
start these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from glintpy import ConfigError
from glintpy.kvstore.roles import Role, check_role

OnWorkerLost = Literal["shrink", "raise"]

NAME = "job"
"""What a job is called that nobody gave a name."""

RANKS = ("GLINTPY_RANK", "DMLC_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
"""Where a worker's number may stand, the first one that is there counts: launchers of MPI and Slurm give their own."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job, as one of its workers sees it.

    Attributes:
        address: the master's.
        name: of the job: what its workers' group is called.
        rank: this worker's number; None: nobody gave it one.
        num_workers: how many there are; None: whoever is there.
        num_servers: how many were started with it; None: nobody said.
        on_worker_lost: what the others hear of a worker that is lost, see ``Client.join``.
        role: what the process is.
        num_role_servers: how many processes have the role of a server and hold nothing; None: nobody said.
    """

    address: str
    name: str = NAME
    rank: int | None = None
    num_workers: int | None = None
    num_servers: int | None = None
    on_worker_lost: OnWorkerLost = "shrink"
    role: Role = "worker"
    num_role_servers: int | None = None

    def to_environment(self) -> dict[str, str]:
        """Return the variables that say it, with those that programs written for dmlc's trackers look at."""
        found = {
            "GLINTPY_MASTER": self.address,
            "GLINTPY_JOB": self.name,
            "GLINTPY_ON_WORKER_LOST": self.on_worker_lost,
            "DMLC_ROLE": self.role,
        }
        host, _, port = self.address.removeprefix("tcp://").rpartition(":")
        found |= {"DMLC_PS_ROOT_URI": host, "DMLC_PS_ROOT_PORT": port}
        if self.num_workers is not None:
            found |= dict.fromkeys(("GLINTPY_NUM_WORKERS", "DMLC_NUM_WORKER"), str(self.num_workers))
        if self.num_servers is not None:
            found |= dict.fromkeys(("GLINTPY_NUM_SERVERS", "DMLC_NUM_SERVER"), str(self.num_servers))
        if self.num_role_servers is not None:
            found["GLINTPY_NUM_ROLE_SERVERS"] = str(self.num_role_servers)
        if self.rank is not None:
            found |= dict.fromkeys(("GLINTPY_RANK", "DMLC_RANK", "DMLC_TASK_ID"), str(self.rank))
        return found

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Job | None:
        """Return the job that the variables speak of; None: they name no master.

        Raises:
            ConfigError: a number or role that is none.
        """
        role = role_of(environment)
        address = _address(environment)
        if address is None:
            return None
        lost = environment.get("GLINTPY_ON_WORKER_LOST", "shrink")
        if lost not in {"shrink", "raise"}:
            raise ConfigError(f"GLINTPY_ON_WORKER_LOST is shrink or raise, not {lost!r:.80}")
        return cls(
            address=address,
            name=environment.get("GLINTPY_JOB") or NAME,
            rank=_number(environment, RANKS, at_least=0),
            num_workers=_number(environment, ("GLINTPY_NUM_WORKERS", "DMLC_NUM_WORKER"), at_least=1),
            num_servers=_number(environment, ("GLINTPY_NUM_SERVERS", "DMLC_NUM_SERVER"), at_least=0),
            on_worker_lost="raise" if lost == "raise" else "shrink",
            role=role,
            # Not DMLC_NUM_SERVER, which counts servers that hold values.
            num_role_servers=_number(environment, ("GLINTPY_NUM_ROLE_SERVERS",), at_least=0),
        )


def role_of(environment: Mapping[str, str]) -> Role:
    """Return what the variables say that this process is; a worker if they say nothing.

    Raises:
        ConfigError: no role.
    """
    return check_role(environment.get("DMLC_ROLE") or "worker", whose="DMLC_ROLE")


def _address(environment: Mapping[str, str]) -> str | None:
    if environment.get("GLINTPY_MASTER"):
        return environment["GLINTPY_MASTER"]
    host = environment.get("DMLC_PS_ROOT_URI")
    if not host:
        return None
    port = _number(environment, ("DMLC_PS_ROOT_PORT",), at_least=1)
    if port is None:
        raise ConfigError(f"DMLC_PS_ROOT_URI is {host!r:.80}, and DMLC_PS_ROOT_PORT says no port")
    return f"tcp://{host}:{port}"


def _number(environment: Mapping[str, str], names: tuple[str, ...], *, at_least: int) -> int | None:
    for name in names:
        text = environment.get(name)
        if not text:
            continue
        if not text.isascii() or not text.isdecimal() or int(text) < at_least:
            raise ConfigError(f"{name} is an integer of at least {at_least}, not {text!r:.80}")
        return int(text)
    return None
