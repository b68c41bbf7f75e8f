"""A process's own limit on descriptors is raised as far as it may, and bounds how many sessions are promised."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glintpy.transport.descriptors import sessions_within

RAISES = """\
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
from glintpy.transport.descriptors import raise_descriptor_limit
print(raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE), raise_descriptor_limit())
"""


def test_the_limit_is_raised_to_the_hard_one() -> None:
    ran = subprocess.run([sys.executable, "-c", RAISES], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "128 (128, 128) 128"


@pytest.mark.parametrize(
    ("descriptors", "asked", "bound"),
    [
        (None, 1024, 1024),
        (20_000, 1024, 1024),
        (4096, 1024, 1024),
        (256, 1024, 64),
        (256, 8, 8),
        (3, 1024, 1),
    ],
)
def test_a_quarter_of_the_descriptors_is_for_sessions(
    descriptors: int | None, asked: int, bound: int
) -> None:
    assert sessions_within(descriptors, asked) == bound
