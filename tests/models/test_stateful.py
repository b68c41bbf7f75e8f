"""Models equal numpy arrays whatever is done to them, in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from glintpy.testing.stateful import ModelMachine


class SteadyMachine(ModelMachine):
    restarts_max = 0


def test_models_equal_numpy_while_servers_run() -> None:
    _run(SteadyMachine, num_examples=20, num_steps=20)


def test_models_equal_numpy_while_servers_stop_and_start() -> None:
    _run(ModelMachine, num_examples=6, num_steps=20)


@pytest.mark.soak
@pytest.mark.parametrize("machine", [SteadyMachine, ModelMachine])
def test_models_equal_numpy_for_long(machine: type[ModelMachine]) -> None:
    _run(machine, num_examples=120, num_steps=60)


def _run(machine: type[ModelMachine], *, num_examples: int, num_steps: int) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=num_examples, stateful_step_count=num_steps)
    )
