"""Calls that each take some milliseconds: a worker fetches a few of them together."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sleighexec import SleighExecutor
from sleighexec.worker import FEW
from tests.conftest import wait_for, wait_until_behind
from tests.test_recalls import PATIENCE, hold, links

USUAL = 0.006  # seconds: longer than calls whose results go together, short enough for a few


def nap(_: int = 0) -> None:
    time.sleep(USUAL)


def open_gate(gate: Path) -> None:
    descriptor = os.open(gate, os.O_RDWR)  # does not wait for a reader
    time.sleep(0.1)
    os.close(descriptor)


def in_hand(executor: SleighExecutor) -> int:
    """How many calls the workers have."""
    tasks = [task for worker in links(executor) for loan in worker.loans for task in loan.tasks]
    return sum(task.size() for task in tasks)


@pytest.mark.parametrize("before", range(30, 30 + FEW))  # so it is the first, the second, …
def test_results_of_calls_that_were_fetched_together_come_one_by_one(
    tmp_path: Path, before: int
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with SleighExecutor(1) as executor:
        first = [executor.submit(nap) for _ in range(before)]
        long = executor.submit(hold, str(gate))  # nothing can be sent meanwhile
        behind = [executor.submit(nap) for _ in range(30)]
        try:
            for future in first:
                future.result(PATIENCE)
            wait_until_behind(gate)
            wait_for(lambda: 2 <= in_hand(executor) <= 2 * FEW, "it does not read ahead")
            assert not long.done()
        finally:
            open_gate(gate)
        for future in [long, *behind]:
            future.result(PATIENCE)
