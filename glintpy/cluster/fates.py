"""What the end of one worker means for a job; pure, and knows no process.

A worker that ends with exit code 0 has done its part. Any other is a failure: the worker is started again as long as it
has attempts left, and is lost after that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["again", "on", "over"]
"""What is to be done: start that worker again; let the others go on; end the job, whoever still runs."""


@dataclass(slots=True, eq=False)
class Fates:
    """The workers of a job, as far as they have ended.

    Attributes:
        num_workers: how many there are.
        ends_all: whether a loss ends the job.
        attempts: how often each may be started.
        codes: of those that have ended for good, their exit codes.
        failures: of all attempts that failed: number and exit code, in the order in which they ended.
    """

    num_workers: int
    ends_all: bool = True
    attempts: int = 1
    codes: dict[int, int] = field(default_factory=dict)
    failures: list[tuple[int, int]] = field(default_factory=list)

    def ended(self, number: int, code: int) -> Verdict:
        """Take the end of a worker.

        Args:
            number: the worker's.
            code: its exit code, 128 and more for a signal.
        """
        if code:
            self.failures.append((number, code))
            tried = sum(failed == number for failed, _ in self.failures)
            if tried < self.attempts:
                return "again"
        self.codes[number] = code
        lost = code != 0 and self.ends_all
        return "over" if lost or len(self.codes) == self.num_workers else "on"

    @property
    def exit_code(self) -> int:
        """The job's: 0 if a worker did its part and no loss ends the job; else that of the first that was lost."""
        lost = [code for number, code in self.failures if self.codes.get(number)]
        if not lost or (not self.ends_all and 0 in self.codes.values()):
            return 0
        return lost[0]
