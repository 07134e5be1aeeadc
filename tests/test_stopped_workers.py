"""A worker that somebody stops keeps the call that it runs, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleighexec import SleighExecutor, WorkerLost
from tests.conftest import wait_behind, wait_for, wait_until_behind
from tests.stress.chaos import Chaos
from tests.stress.planted import IMPATIENT, Planting

pytestmark = pytest.mark.once

PATIENCE = 60


@pytest.fixture
def impatient() -> Iterator[SleighExecutor]:
    """An executor whose agent needs no five seconds to see that a worker stands still."""
    with SleighExecutor(launcher=Planting(IMPATIENT, 2)) as executor:
        yield executor


def stopped(executor: SleighExecutor) -> list[int | None]:
    return [worker.pid for worker in executor.workers() if worker.state == "stopped"]


def stop(executor: SleighExecutor, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: stopped(executor) == [pid], "it is seen that the worker stands still")


def note(path: str, number: int, stops: int = -1) -> int:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b"%d\n" % number)
    os.close(file)
    if number == stops:
        os.kill(os.getpid(), signal.SIGSTOP)
    return number


def test_what_was_lent_to_a_stopped_worker_is_run_by_others_once(tmp_path: Path) -> None:
    path = str(tmp_path / "ran")
    with SleighExecutor(2) as executor:
        list(executor.map(abs, range(2000)))  # the workers take big batches now
        futures = [executor.submit(note, path, number, 300) for number in range(1000)]
        for number, future in enumerate(futures):
            if number != 300:
                assert future.result(PATIENCE) == number
        wait_for(lambda: len(stopped(executor)) == 1, "it is seen that the worker stands still")
        assert not futures[300].done()
        [pid] = stopped(executor)
        os.kill(pid, signal.SIGCONT)
        assert futures[300].result(PATIENCE) == 300
        wait_for(lambda: not stopped(executor), "it is seen that the worker goes on")
        assert list(executor.map(abs, range(2000))) == list(range(2000))
    assert Counter(map(int, Path(path).read_text().split())) == Counter(range(1000))


def test_an_idle_worker_that_is_stopped_gets_nothing_until_it_goes_on(
    impatient: SleighExecutor,
) -> None:
    pids = set(impatient.eachWorker(os.getpid))
    one = min(pids)
    stop(impatient, one)
    futures = [impatient.submit(os.getpid) for _ in range(50)]
    assert {future.result(PATIENCE) for future in futures} == pids - {one}
    os.kill(one, signal.SIGCONT)
    assert set(impatient.eachWorker(os.getpid)) == pids


def test_a_worker_may_be_stopped_again_and_again(impatient: SleighExecutor) -> None:
    impatient.eachWorker(os.getpid)
    for number in range(5):
        stop(impatient, (pid := min(worker.pid or 0 for worker in impatient.workers())))
        assert impatient.submit(abs, -number).result(PATIENCE) == number
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: not stopped(impatient), "it is seen that the worker goes on")
        assert list(impatient.map(abs, range(500), timeout=PATIENCE)) == list(range(500))


def test_a_stopped_worker_that_is_killed_loses_the_call_that_it_ran(
    impatient: SleighExecutor, tmp_path: Path
) -> None:
    path = str(tmp_path / "ran")
    list(impatient.map(abs, range(2000)))
    futures = [impatient.submit(note, path, number, 300) for number in range(1000)]
    wait_for(lambda: len(stopped(impatient)) == 1, "it is seen that the worker stands still")
    [pid] = stopped(impatient)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert isinstance(futures[300].exception(PATIENCE), WorkerLost)
    assert [f.result(PATIENCE) for n, f in enumerate(futures) if n != 300] == [
        n for n in range(1000) if n != 300
    ]
    assert Counter(map(int, Path(path).read_text().split())) == Counter(range(1000))


def test_the_time_of_a_stopped_call_goes_on(impatient: SleighExecutor) -> None:
    def stop_for_long() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(PATIENCE)

    future = impatient.options(timeout=0.5).submit(stop_for_long)
    assert isinstance(future.exception(PATIENCE), TimeoutError)
    assert impatient.submit(abs, -1).result(PATIENCE) == 1


@pytest.mark.parametrize("seen", [False, True])
def test_a_stopped_worker_ends_when_all_are_terminated(seen: bool, tmp_path: Path) -> None:
    executor = SleighExecutor(launcher=Planting(IMPATIENT, 1))
    try:
        pid = executor.submit(os.getpid).result(PATIENCE)
        future = executor.submit(wait_behind, tmp_path / "gate")
        wait_until_behind(tmp_path / "gate")
        if seen:
            stop(executor, pid)
        else:
            os.kill(pid, signal.SIGSTOP)
        executor.terminate_workers()
        error = future.exception(10)
        assert isinstance(error, WorkerLost)
        assert error.signal == signal.SIGTERM
    finally:
        executor.kill_workers()


@pytest.mark.parametrize("seen", [False, True])
def test_a_stopped_worker_with_nothing_to_do_keeps_no_executor_from_its_end(seen: bool) -> None:
    with SleighExecutor(launcher=Planting(IMPATIENT, 2)) as executor:
        pid = executor.submit(os.getpid).result(PATIENCE)
        if seen:
            stop(executor, pid)
        else:
            os.kill(pid, signal.SIGSTOP)


def test_workers_that_wake_while_their_calls_are_taken_back_run_none_twice(
    tmp_path: Path,
) -> None:
    path, chance, ended, asked = str(tmp_path / "ran"), random.Random(1), threading.Event(), 0
    with SleighExecutor(launcher=Planting(IMPATIENT, 3)) as executor:

        def stop_some() -> None:
            for _ in range(30):
                pid = chance.choice(executor.workers()).pid
                if pid is not None:
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(chance.uniform(0.015, 0.03))
                    os.kill(pid, signal.SIGCONT)
            ended.set()

        executor.eachWorker(os.getpid)
        stopper = threading.Thread(target=stop_some)
        stopper.start()
        while not ended.is_set():
            numbers = range(asked, asked + 500)
            asked += 500
            if chance.random() < 0.5:
                assert [*executor.map(note, [path] * 500, numbers, timeout=PATIENCE)] == [*numbers]
            else:
                futures = [executor.submit(note, path, number) for number in numbers]
                assert [future.result(PATIENCE) for future in futures] == [*numbers]
        stopper.join()
    assert Counter(map(int, Path(path).read_text().split())) == Counter(range(asked))


@pytest.mark.once
def test_workers_may_be_killed_while_they_stand_still(tmp_path: Path) -> None:
    Chaos("1", tmp_path / "ran", launcher=Planting(IMPATIENT, 3), agents=False).run(3)


def test_a_stop_that_does_not_last_disturbs_nothing(executor: SleighExecutor) -> None:
    executor.eachWorker(os.getpid)
    for _ in range(100):
        numbers = executor.map(abs, range(200), timeout=PATIENCE)
        for worker in executor.workers():
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGSTOP)
                os.kill(worker.pid, signal.SIGCONT)
        assert list(numbers) == list(range(200))
