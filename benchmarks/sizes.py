"""How large and how long: a full run, a quick look, and the smallest that still does everything; knows no system."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.system import Setup


@dataclass(frozen=True)
class Sizes:
    """The numbers of a run.

    Attributes:
        seconds: that each measurement goes on making requests.
        repeats: rounds, in each of which every system is measured once.
        setups: servers and clients.
        table_rows: of the matrix of 128 columns from which random rows are taken.
        some_rows: rows of a request of middling size.
        bulk_rows: rows of a large one, and of the matrix that is moved whole.
        vector_size: of the vector of which keys are taken.
        keys: in a request.
        element_rows: of the matrix of 100 columns of which elements are taken.
        elements: in a request.
        request_rows: of the requests whose throughput is plotted.
        scale_processes: servers, and as many clients, if the machine has the cores.
        scale_rows: of models that are compared.
        scale_models: models that requests go round over.
        scale_clients: clients of one server.
        documents: of the topic model.
        sweeps: of the topic model, a multiple of the ten of which one is reported.
    """

    seconds: float
    repeats: int
    setups: tuple[Setup, ...]
    table_rows: int
    some_rows: int
    bulk_rows: int
    vector_size: int
    keys: int
    element_rows: int
    elements: int
    request_rows: tuple[int, ...]
    scale_processes: tuple[int, ...]
    scale_rows: tuple[int, ...]
    scale_models: tuple[int, ...]
    scale_clients: tuple[int, ...]
    documents: int
    sweeps: int


FULL = Sizes(
    seconds=0.3,
    repeats=5,
    setups=(Setup(1, 1), Setup(1, 2), Setup(2, 1), Setup(2, 2)),
    table_rows=1_000_000,
    some_rows=1_000,
    bulk_rows=100_000,
    vector_size=10_000_000,
    keys=10_000,
    element_rows=100_000,
    elements=100_000,
    request_rows=(1, 10, 100, 1_000, 10_000, 100_000),
    scale_processes=(1, 2, 4, 8),
    scale_rows=(10_000, 100_000, 1_000_000, 10_000_000, 100_000_000),
    scale_models=(1, 10, 100, 1_000),
    scale_clients=(1, 10, 100),
    documents=700,
    sweeps=30,
)

QUICK = Sizes(
    seconds=0.08,
    repeats=5,
    setups=(Setup(1, 1),),
    table_rows=100_000,
    some_rows=1_000,
    bulk_rows=20_000,
    vector_size=1_000_000,
    keys=10_000,
    element_rows=20_000,
    elements=20_000,
    request_rows=(1, 10, 100, 1_000, 10_000),
    scale_processes=(1, 2),
    scale_rows=(10_000, 100_000, 1_000_000),
    scale_models=(1, 10, 100),
    scale_clients=(1, 4),
    documents=60,
    sweeps=10,
)

SMALLEST = Sizes(
    seconds=0.001,
    repeats=1,
    setups=(Setup(2, 1),),
    table_rows=5_000,
    some_rows=100,
    bulk_rows=5_000,
    vector_size=5_000,
    keys=200,
    element_rows=500,
    elements=500,
    request_rows=(1, 100),
    scale_processes=(1,),
    scale_rows=(100, 1_000),
    scale_models=(1, 5),
    scale_clients=(1, 2),
    documents=20,
    sweeps=10,
)
"""Two servers, so that requests are split, and more than a part of a megabyte in the largest."""
