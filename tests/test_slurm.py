"""Workers in jobs of a real Slurm, started as a command that carries stdin and stdout."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sleighexec import Command, PoolBrokenError, SleighExecutor, WorkerLost
from tests.clusters import PATIENCE, needs_slurm, output, run_anywhere, slurm
from tests.conftest import wait_for

__all__ = ["slurm"]
pytestmark = [needs_slurm, pytest.mark.once]


def test_workers_run_in_a_job_that_ends_with_them(slurm: Path) -> None:
    with SleighExecutor(launcher=Command("srun -u -n1 {agent}", workers=2)) as executor:
        jobs = executor.eachWorker(os.getenv, "SLURM_JOB_ID")
        assert jobs[0] is not None
        assert jobs[0] == jobs[1]
        assert list(executor.map(abs, range(-500, 0))) == list(range(500, 0, -1))
    wait_for(lambda: output("squeue", "-h") == "", "no job is left")


def test_a_cancelled_job_is_noticed_at_once_and_another_one_begins(slurm: Path) -> None:
    with SleighExecutor(launcher=Command("srun -u -n1 {agent}")) as executor:
        running = executor.submit(time.sleep, 60)
        wait_for(running.running, "it runs")
        began = time.monotonic()
        output("scancel", "-u", "root")
        assert isinstance(running.exception(PATIENCE), WorkerLost)
        assert time.monotonic() - began < 3
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_what_slurm_says_is_in_the_error(slurm: Path) -> None:
    with SleighExecutor(launcher=Command("srun -u -n1 -p nowhere {agent}")) as executor:
        error = executor.submit(abs, -1).exception(PATIENCE)
    assert isinstance(error, PoolBrokenError)
    assert "invalid partition" in str(error)


def test_who_does_not_wait_for_a_job_that_waits_leaves_none_behind(slurm: Path) -> None:
    with SleighExecutor(launcher=Command("srun -u -n1 -c2 --begin=now+1hour {agent}")) as executor:
        future = executor.submit(abs, -1)
        wait_for(lambda: output("squeue", "-h") != "", "it is in the queue")
        executor.shutdown(cancel_futures=True)
        assert future.cancelled()
    wait_for(lambda: output("squeue", "-h") == "", "no job is left")


def test_the_example_that_runs_anywhere_prints_the_same_in_a_job(slurm: Path) -> None:
    assert run_anywhere("slurm") == run_anywhere("local") != ""
    wait_for(lambda: output("squeue", "-h") == "", "no job is left")
