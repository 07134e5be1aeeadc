"""Pools that grow and shrink, workers that end when idle, and starts that fail."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from sleighexec import SleighExecutor, current_worker, errors
from sleighexec.engines import losses
from tests.conftest import wait_for

PATIENCE = 20


def rank() -> int:
    return current_worker().rank


def when_there(path: Path) -> int:
    wait_for(path.exists, "nobody opened the gate")
    return rank()


def note(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def ranks(executor: SleighExecutor) -> list[int]:
    return [worker.rank for worker in executor.workers()]


# ------------------------------------------------------------------ starts that fail


def fail_while_starting(path: Path, times: int, status: int) -> None:
    note(path, str(time.monotonic()))
    if len(lines(path)) <= times:
        os._exit(status)


@pytest.mark.parametrize("status", [1, 0])
def test_workers_that_fail_to_start_are_started_again(tmp_path: Path, status: int) -> None:
    path = tmp_path / "starts"
    arguments = (path, losses.MAX_FAILED_STARTS - 1, status)
    with SleighExecutor(1, initializer=fail_while_starting, initargs=arguments) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1
    assert len(lines(path)) == losses.MAX_FAILED_STARTS


def test_the_pauses_between_them_grow(tmp_path: Path) -> None:
    path = tmp_path / "starts"
    with SleighExecutor(1, initializer=fail_while_starting, initargs=(path, 4, 1)) as executor:
        executor.submit(abs, -1).result(PATIENCE)
    times = [float(line) for line in lines(path)]
    pauses = [after - before for before, after in itertools.pairwise(times[1:])]
    for number, pause in enumerate(pauses):  # at least: a busy machine may take longer
        assert pause >= losses.START_PAUSE * 2**number


@pytest.mark.parametrize("status", [1, 0])
def test_after_too_many_of_them_every_call_has_an_error(tmp_path: Path, status: int) -> None:
    arguments = (tmp_path / "starts", 1000, status)
    with SleighExecutor(2, initializer=fail_while_starting, initargs=arguments) as executor:
        futures = [executor.submit(abs, -1) for _ in range(20)]
        futures.append(executor.submit(abs, futures[0]))
        pending = executor.eachWorker(rank, blocking=False)
        mapped = executor.map(abs, range(10))
        assert wait([*futures, *pending], PATIENCE).not_done == set()
        for future in [*futures[:-1], *pending]:
            assert isinstance(future.exception(), errors.PoolBrokenError)
        assert isinstance(futures[-1].exception(), errors.ExecutorError)
        with pytest.raises(errors.PoolBrokenError, match="ended before they were ready"):
            next(mapped)
        with pytest.raises(errors.PoolBrokenError):
            executor.submit(abs, -1)
    assert len(lines(tmp_path / "starts")) <= losses.MAX_FAILED_STARTS + 1


def test_an_executor_that_pauses_can_be_shut_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "START_PAUSE", 1000)
    path = tmp_path / "starts"
    executor = SleighExecutor(1, initializer=fail_while_starting, initargs=(path, 1000, 1))
    future = executor.submit(abs, -1)
    wait_for(lambda: len(lines(path)) == 2 and not executor.workers(), "they did not fail")
    executor.shutdown(cancel_futures=True)
    assert future.cancelled()
    assert len(lines(path)) == 2


# ------------------------------------------------------------------ resize


def began_at(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name} {number} began")


def begin_when_there(path: Path) -> int:
    began_at(path, rank()).touch()
    return when_there(path)


class Crowd:
    """A call on every worker at once, each until the gate opens."""

    def __init__(self, executor: SleighExecutor, path: Path) -> None:
        self.path = path
        self.calls = executor.eachWorker(begin_when_there, path, blocking=False)
        began = [began_at(path, number) for number in range(executor.worker_count)]
        wait_for(lambda: all(each.exists() for each in began), "they do not all run")

    def open(self) -> list[int]:
        self.path.touch()
        found: list[int] = self.calls.wait(PATIENCE)
        return found


def test_more_workers(executor: SleighExecutor, tmp_path: Path) -> None:
    crowd = Crowd(executor, tmp_path / "gate")
    extra = [executor.submit(rank) for _ in range(5)]
    executor.resize(3)
    assert executor.worker_count == executor._max_workers == 3
    assert {future.result(PATIENCE) for future in extra} == {2}
    assert crowd.open() == [0, 1]
    assert sorted(executor.eachWorker(rank)) == ranks(executor) == [0, 1, 2]
    assert executor.options(retries=1)._max_workers == 3


def test_more_workers_are_started_when_needed(executor: SleighExecutor) -> None:
    executor.eachWorker(rank)
    executor.resize(50)
    assert executor.submit(abs, -1).result(PATIENCE) == 1
    assert ranks(executor) == [0, 1]


def test_fewer_workers_while_idle() -> None:
    with SleighExecutor(4) as executor:
        executor.eachWorker(rank)
        executor.resize(1)
        assert executor.worker_count == 1
        wait_for(lambda: ranks(executor) == [0], "they did not leave")
        assert executor.eachWorker(rank) == [0]
        assert set(executor.map(lambda _: rank(), range(200))) == {0}


def test_a_busy_worker_leaves_after_its_call(tmp_path: Path) -> None:
    with SleighExecutor(3) as executor:
        crowd = Crowd(executor, tmp_path / "gate")
        after = [executor.submit(rank) for _ in range(20)]
        executor.resize(1)
        assert ranks(executor) == [0, 1, 2]
        assert crowd.open() == [0, 1, 2]
        assert {future.result(PATIENCE) for future in after} == {0}
        wait_for(lambda: ranks(executor) == [0], "they did not leave")


def test_calls_that_it_has_not_begun_go_to_others(tmp_path: Path) -> None:
    """Short calls travel in batches; a long one keeps those behind it."""

    def work(number: int) -> int:
        if number == 500:
            wait_for((tmp_path / "gate").exists, "nobody opened the gate")
        return number

    with SleighExecutor(2) as executor:
        list(executor.map(abs, range(2000)))
        futures = [executor.submit(work, n) for n in range(2000)]
        executor.resize(1)
        (tmp_path / "gate").touch()
        assert [future.result(PATIENCE) for future in futures] == list(range(2000))
        wait_for(lambda: ranks(executor) == [0], "it did not leave")


def test_a_worker_that_was_to_leave_may_stay(tmp_path: Path) -> None:
    with SleighExecutor(2) as executor:
        crowd = Crowd(executor, tmp_path / "gate")
        pids = {worker.pid for worker in executor.workers()}
        executor.resize(1)
        executor.resize(2)
        crowd.open()
        executor.eachWorker(rank)
        assert {worker.pid for worker in executor.workers()} == pids


def test_calls_of_each_worker_are_run_before_it_leaves(tmp_path: Path) -> None:
    with SleighExecutor(3) as executor:
        crowd = Crowd(executor, tmp_path / "gate")
        waiting = executor.eachWorker(rank, blocking=False)
        cancelled = executor.eachWorker(rank, blocking=False)
        cancelled[2].cancel()
        executor.resize(1)
        crowd.open()
        assert waiting.wait(PATIENCE) == [0, 1, 2]
        assert [future.result(PATIENCE) for future in cancelled[:2]] == [0, 1]
        wait_for(lambda: ranks(executor) == [0], "they did not leave")


def test_calls_of_each_worker_survive_the_death_of_one_that_is_to_leave(tmp_path: Path) -> None:
    with SleighExecutor(2) as executor:
        crowd = Crowd(executor, tmp_path / "gate")
        waiting = executor.eachWorker(rank, blocking=False)
        executor.resize(1)
        os.kill(executor.workers()[1].pid or 0, signal.SIGKILL)
        assert isinstance(crowd.calls[1].exception(PATIENCE), errors.WorkerLost)
        (tmp_path / "gate").touch()
        assert waiting.wait(PATIENCE) == [0, 1]
        wait_for(lambda: ranks(executor) == [0], "it did not leave")


def test_new_ranks_are_prepared(executor: SleighExecutor) -> None:
    def keep(value: int) -> None:
        current_worker().state["kept"] = value

    executor.eachWorker(keep, 7, sticky=True)
    executor.resize(4)
    assert executor.eachWorker(lambda: current_worker().state["kept"]) == [7] * 4
    executor.resize(1)
    executor.resize(3)
    assert executor.eachWorker(lambda: current_worker().state["kept"]) == [7] * 3


def test_what_a_worker_was_told_of_the_pool_stays(executor: SleighExecutor) -> None:
    def count() -> int:
        return current_worker().count

    assert executor.eachWorker(count) == [2, 2]
    executor.resize(3)
    assert executor.eachWorker(count) == [2, 2, 3]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", None, True])
def test_wrong_sizes(executor: SleighExecutor, wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        executor.resize(wrong)
    assert executor.worker_count == 2


def test_no_new_size_after_the_end() -> None:
    executor = SleighExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.resize(2)


def test_resizing_again_and_again_loses_no_call() -> None:
    ended = threading.Event()

    def resize() -> None:
        sizes = itertools.cycle([1, 3, 2, 4, 1])
        while not ended.wait(0.01):
            executor.resize(next(sizes))

    with SleighExecutor(2) as executor:
        thread = threading.Thread(target=resize)
        thread.start()
        try:
            for _ in range(10):
                futures = [executor.submit(abs, -n) for n in range(300)]
                assert [future.result(PATIENCE) for future in futures] == list(range(300))
                assert list(executor.map(abs, range(1000))) == list(range(1000))
                pending = executor.eachWorker(rank)
                assert pending == list(range(len(pending)))
        finally:
            ended.set()
            thread.join()


def test_no_rank_goes_while_each_worker_is_being_called(monkeypatch) -> None:
    with SleighExecutor(4) as executor:
        put_each = executor._engine.put_each
        threads: list[threading.Thread] = []

        def slowly(*args: Any) -> None:
            threads.append(threading.Thread(target=executor.resize, args=(1,)))
            threads[0].start()
            threads[0].join(0.2)
            put_each(*args)

        with monkeypatch.context() as patch:
            patch.setattr(executor._engine, "put_each", slowly)
            assert executor.eachWorker(rank) == [0, 1, 2, 3]
        threads[0].join(PATIENCE)
        assert executor.worker_count == 1
        assert executor.eachWorker(rank) == [0]


# ------------------------------------------------------------------ idle workers


def test_an_idle_worker_ends_and_is_started_again() -> None:
    with SleighExecutor(2, idle_timeout=0.1) as executor:
        pids = set(executor.eachWorker(os.getpid))
        wait_for(lambda: not executor.workers(), "they did not end")
        assert executor.submit(os.getpid).result(PATIENCE) not in pids
        assert executor.eachWorker(rank) == [0, 1]
        assert executor.worker_count == 2


def test_a_busy_worker_is_not_idle(tmp_path: Path) -> None:
    with SleighExecutor(2, idle_timeout=0.05) as executor:
        executor.submit(abs, -1).result(PATIENCE)
        running = executor.submit(when_there, tmp_path / "gate")
        wait_for(running.running, "it does not run")
        busy = [worker.pid for worker in executor.workers() if worker.state == "busy"]
        quiet = executor.submit(os.getpid)
        quiet.result(PATIENCE)
        wait_for(lambda: len(executor.workers()) == 1, "the idle one did not end")
        assert [worker.pid for worker in executor.workers()] == busy
        (tmp_path / "gate").touch()
        running.result(PATIENCE)
        wait_for(lambda: not executor.workers(), "it did not end")


def test_sticky_calls_hold_for_those_that_come_back() -> None:
    def keep(value: int) -> None:
        current_worker().state["kept"] = value

    with SleighExecutor(2, idle_timeout=0.1) as executor:
        executor.eachWorker(keep, 7, sticky=True)
        wait_for(lambda: not executor.workers(), "they did not end")
        assert executor.submit(lambda: current_worker().state["kept"]).result(PATIENCE) == 7


def test_no_call_is_lost_while_workers_come_and_go() -> None:
    with SleighExecutor(2, idle_timeout=0.005) as executor:
        for number in range(100):
            assert executor.submit(abs, -number).result(PATIENCE) == number
            threading.Event().wait(0.001 * (number % 10))


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "1", True])
def test_wrong_idle_timeouts(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="idle_timeout"):
        SleighExecutor(1, idle_timeout=wrong)
