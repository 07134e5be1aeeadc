"""The launcher for Slurm: jobs that end, and what becomes of calls then.

Every test of a pool runs with a stand-in for `srun`, and where Slurm is installed with that too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from sleighexec import Local, PoolBrokenError, SleighExecutor, Slurm, WorkerLost
from sleighexec.launchers import slurm as launcher
from sleighexec.task import MAX_EXCUSED, Loss, Settings, may_try_again
from tests.clusters import Real, StandIn, needs_slurm, slurm
from tests.conftest import wait_for

__all__ = ["slurm"]
PATIENCE = 60

pytestmark = pytest.mark.once


@pytest.fixture(scope="module", params=["stand-in", pytest.param("real", marks=needs_slurm)])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "real":
        request.getfixturevalue("slurm")
    return str(request.param)


@pytest.fixture
def cluster(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Real | StandIn:
    if kind == "real":
        return Real()
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return StandIn(folder)


def job_of(_: int = 0) -> str:
    return os.environ["SLURM_JOB_ID"]


def draining(executor: SleighExecutor) -> bool:
    engine: Any = executor._engine
    return any(agent.draining for agent in list(engine._agents.values()))


def let_time_pass(executor: SleighExecutor) -> None:
    """The job that runs is near its end now."""
    engine: Any = executor._engine
    with engine.server.lock:
        [agent] = engine._agents.values()
        agent.drain_at = time.monotonic()
        agent._ends_at = agent.drain_at + agent._drain_before
        engine.server.wake_by(agent.drain_at)
    wait_for(lambda: draining(executor), "it does not drain", PATIENCE)


def test_workers_run_in_a_job_that_ends_with_them(cluster: Real | StandIn) -> None:
    with SleighExecutor(launcher=Slurm(2, env={"COLOUR": "red"}, name="zebra")) as executor:
        jobs = executor.eachWorker(job_of)
        assert jobs[0] == jobs[1]
        assert cluster.jobs() == jobs[:1]
        assert executor.eachWorker(os.getenv, "COLOUR") == ["red", "red"]
        assert list(executor.map(abs, range(-500, 0))) == list(range(500, 0, -1))
    wait_for(lambda: cluster.jobs() == [], "a job is left", PATIENCE)


def test_the_same_program_in_jobs_and_at_home(cluster: Real | StandIn) -> None:
    """Only the launcher is another one."""

    def program(place: Any) -> Any:
        with SleighExecutor(launcher=place) as executor:
            total = sum(executor.map(len, [[0] * n for n in range(50)]))
            executor.workspace.store("x", total)
            return executor.submit(find_x).result(PATIENCE), len(executor.eachWorker(os.getpid))

    assert program(Slurm(2)) == program(Local(2)) == (1225, 2)


def find_x() -> Any:
    from sleighexec import current_worker

    return current_worker().workspace.find("x")


def test_near_its_end_a_job_gets_no_more_calls_and_the_next_one_begins(
    cluster: Real | StandIn, tmp_path: Path
) -> None:
    with SleighExecutor(launcher=Slurm(time="1:00:00")) as executor:
        first = executor.submit(job_of).result(PATIENCE)
        running = executor.submit(when_there, tmp_path / "gate")
        wait_for((tmp_path / "began").exists, "it does not run", PATIENCE)
        waiting = executor.map(job_of, range(20))
        let_time_pass(executor)
        assert not running.done()
        (tmp_path / "gate").touch()
        assert running.result(PATIENCE) == first
        jobs = set(waiting)
        assert first not in jobs
    wait_for(lambda: cluster.jobs() == [], "a job is left", PATIENCE)


def test_a_job_that_has_nothing_to_do_ends_and_none_follows(cluster: Real | StandIn) -> None:
    with SleighExecutor(launcher=Slurm(time=60, drain_before=59)) as executor:
        first = executor.submit(job_of).result(PATIENCE)
        wait_for(lambda: cluster.jobs() == [], "the job does not end", PATIENCE)
        assert executor.submit(job_of).result(PATIENCE) != first


def when_there(path: Path) -> str:
    path.with_name("began").touch()
    wait_for(path.exists, "nobody opened the gate", PATIENCE)
    return job_of()


@pytest.mark.parametrize("again", [True, False])
def test_what_the_end_of_a_job_cuts_off_is_run_again(
    cluster: Real | StandIn, tmp_path: Path, again: bool
) -> None:
    with SleighExecutor(launcher=Slurm(time="1:00:00", again=again)) as executor:
        first = executor.submit(job_of).result(PATIENCE)
        running = executor.submit(when_there, tmp_path / "gate")
        wait_for((tmp_path / "began").exists, "it does not run", PATIENCE)
        let_time_pass(executor)
        cluster.cancel()
        if again:
            wait_for(lambda: not draining(executor), "the end is not noticed", PATIENCE)
            (tmp_path / "gate").touch()
            assert running.result(PATIENCE) != first
        else:
            error = running.exception(PATIENCE)
            assert isinstance(error, WorkerLost)
            assert error.reason == "its time was over"
            assert executor.submit(job_of).result(PATIENCE) != first


def test_a_job_that_ends_before_its_time_is_to_be_blamed_for(
    cluster: Real | StandIn, tmp_path: Path
) -> None:
    with SleighExecutor(launcher=Slurm(time="30:00")) as executor:
        running = executor.submit(when_there, tmp_path / "gate")
        wait_for((tmp_path / "began").exists, "it does not run", PATIENCE)
        cluster.cancel()
        assert isinstance(running.exception(PATIENCE), WorkerLost)
        (tmp_path / "gate").touch()
        assert executor.submit(when_there, tmp_path / "gate").result(PATIENCE)


def test_what_slurm_says_is_in_the_error(cluster: Real | StandIn) -> None:
    with SleighExecutor(launcher=Slurm(partition="nowhere")) as executor:
        error = executor.submit(abs, -1).exception(PATIENCE)
    assert isinstance(error, PoolBrokenError)
    assert "nvalid partition" in str(error)


# ------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("30:10", 1810),
        ("2:00:00", 7200),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("1-12:30:05", 131405),
    ],
)
def test_walltimes_as_slurm_writes_them(text: str, seconds: int) -> None:
    assert launcher.seconds(text) == seconds


@pytest.mark.parametrize(
    "wrong", [{"time": "soon"}, {"time": "1:2:3:4"}, {"time": 50}, {"time": 90, "drain_before": -1}]
)
def test_a_walltime_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"walltime|drain_before"):
        Slurm(**wrong)


def test_the_command_of_a_job() -> None:
    place = Slurm(8, "1-00", partition="long", account="zoo", cpus=2, options=("--mem=8G",))
    assert place.words() == [
        *("srun", "-u", "-N1", "-n1", "-c16", "--job-name=sleighexec", "--time=1440:00"),
        *("--partition=long", "--account=zoo", "--mem=8G", "sh"),
    ]
    assert Slurm(2) == Slurm(2) != Slurm(2, name="b")
    assert hash(Slurm(2)) == hash(Slurm(2))


def test_a_call_that_is_longer_than_jobs_is_not_run_for_ever() -> None:
    excused = Loss(0, 1, "a", None, excused=True)
    never = Settings()
    tries = [may_try_again((excused,) * n, never) for n in range(1, MAX_EXCUSED + 2)]
    assert tries == [*[True] * MAX_EXCUSED, False]
    blamed = Loss(0, 1, "a", -9)
    assert not may_try_again((excused, blamed), never)
    assert may_try_again((excused, blamed), Settings(retries=1))
    assert may_try_again((blamed, excused), Settings(retries=1))


def test_waiting_in_the_queue_takes_as_long_as_it_takes() -> None:
    assert Slurm().start_timeout == launcher.QUEUE_SECONDS
    assert Slurm(start_timeout=5).start_timeout == 5
    assert time.monotonic() + launcher.QUEUE_SECONDS < 2**31
