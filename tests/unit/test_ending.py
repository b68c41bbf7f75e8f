"""A process that can't go on says why, also where nobody set logging up."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glintpy.ending import EXIT_CODE
from tests.cluster.helpers import PATIENCE_S, environment

PROGRAM = """
import logging, sys, time
import glintpy

if "logs" in sys.argv:
    logging.basicConfig()
with glintpy.LocalCluster(1, scheme="local") as cluster, cluster.client() as client:
    vector = client.vector(10)

    def breaks(self):
        raise MemoryError("nothing left")

    type(client._tie.runtime()._endpoint)._turn = breaks
    client._tie.runtime()._endpoint._wakeup.set()
    time.sleep(60)
"""


@pytest.mark.parametrize("arguments", [[], ["logs"]])
def test_a_network_thread_that_dies_ends_the_process_with_a_word(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == EXIT_CODE, done.stderr
    assert done.stderr.count("the network thread died; the process ends\n") == 1
    assert done.stderr.count("MemoryError: nothing left") == 1
