"""Calls that begin before others that wait."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from sleighexec import SleighExecutor, WorkerLost
from tests.conftest import in_threads, wait_behind, wait_until_behind

PATIENCE = 20


class Pool:
    """One worker, kept busy until `order` is asked for what it has run since."""

    def __init__(self, path: Path) -> None:
        self.executor = SleighExecutor(1)
        self.notes, self._gate = path / "notes", path / "gate"
        self.gate = self.executor.submit(wait_behind, self._gate)
        wait_until_behind(self._gate)

    def submit(self, priority: int, text: object) -> Any:
        view = self.executor.options(priority=priority)
        return view.submit(note, self.notes, text)

    def order(self) -> list[str]:
        self._gate.touch()
        self.executor.shutdown()
        return self.notes.read_text().split()


def note(path: Path, text: object) -> None:
    with open(path, "a") as file:
        file.write(f"{text}\n")


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    pool = Pool(tmp_path)
    yield pool
    pool.executor.kill_workers()
    pool.executor.shutdown()


def test_higher_ones_first_equal_ones_as_they_came(pool: Pool) -> None:
    draw = random.Random(7)
    calls = [(draw.choice([-3, -1, 0, 0, 1, 5]), n) for n in range(300)]
    for priority, number in calls:
        pool.submit(priority, number)
    expected = sorted(calls, key=lambda call: (-call[0], call[1]))
    assert pool.order() == [str(number) for _, number in expected]


@pytest.mark.once
def test_many_different_priorities(pool: Pool) -> None:
    numbers = random.Random(7).sample(range(-500, 500), 400)
    for number in numbers:
        pool.submit(number, number)
    assert pool.order() == [str(number) for number in sorted(numbers, reverse=True)]


def test_all_kinds_of_calls(pool: Pool) -> None:
    path = [pool.notes]
    executor, high, low = (
        pool.executor,
        pool.executor.options(priority=9),
        pool.executor.options(priority=-9),
    )
    low.submit(note, pool.notes, "low")
    executor.submit(note, pool.notes, "middle")
    high.map(note, path * 3, ["map"] * 3)
    high.eachElem(note, [path * 3, ["elem"] * 3], blocking=False)
    high.eachElem(note, [path * 3, ["chunk"] * 3], blocking=False, chunkSize=3)
    executor.eachWorker(note, pool.notes, "worker", blocking=False)
    expected = ["worker", *["map"] * 3, *["elem"] * 3, *["chunk"] * 3, "middle", "low"]
    assert pool.order() == expected


def test_workers_that_wait_take_any(executor: SleighExecutor) -> None:
    for priority in (5, -5, 7, 0, -7):
        view = executor.options(priority=priority)
        assert view.submit(abs, -1).result(PATIENCE) == 1
        assert list(view.map(abs, range(100))) == list(range(100))


def test_the_first_call_of_all_may_have_one() -> None:
    with SleighExecutor(2) as executor:
        assert executor.options(priority=-1).submit(abs, -1).result(PATIENCE) == 1


def test_those_that_wait_for_others_get_their_place_then(pool: Pool) -> None:
    first = pool.submit(0, "first")
    pool.executor.options(priority=1).submit(_note_and, pool.notes, "dependent", first)
    pool.submit(0, "second")
    order = pool.order()
    assert sorted(order) == ["dependent", "first", "second"]
    assert order.index("first") < order.index("dependent")


def _note_and(path: Path, text: str, _: object) -> None:
    note(path, text)


def test_cancelled_ones_are_not_run(pool: Pool) -> None:
    futures = [pool.submit(priority, priority) for priority in (3, 2, 1, 0, -1)]
    assert all(futures[n].cancel() for n in (0, 2, 4))
    assert pool.order() == ["2", "0"]


def test_shutdown_may_cancel_them(pool: Pool) -> None:
    futures = [pool.submit(priority, priority) for priority in (3, 0, -1)]
    pool.executor.shutdown(wait=False, cancel_futures=True)
    assert wait(futures, PATIENCE).not_done == set()
    assert all(future.cancelled() for future in futures)


def test_what_a_lost_worker_had_not_begun_keeps_its_place(pool: Pool) -> None:
    for number in range(50):
        pool.submit(number % 2, number)
    worker = pool.executor.workers()[0]
    os.kill(worker.pid or 0, signal.SIGKILL)
    assert isinstance(pool.gate.exception(PATIENCE), WorkerLost)
    assert pool.order() == [str(n) for n in [*range(1, 50, 2), *range(0, 50, 2)]]


def test_retries_keep_their_priority(tmp_path: Path) -> None:
    def second_time(path: Path) -> str:
        note(path, "x")
        if len(path.read_text().split()) < 2:
            os._exit(1)
        return "done"

    with SleighExecutor(2) as executor:
        view = executor.options(priority=3, retries=1)
        executor.eachWorker(abs, -1)  # one is idle while the other dies
        assert view.submit(second_time, tmp_path / "tries").result(PATIENCE) == "done"


def test_from_many_threads(executor: SleighExecutor) -> None:
    def work(number: int) -> None:
        view = executor.options(priority=number - 2)
        futures = [view.submit(abs, -n) for n in range(300)]
        assert [future.result(PATIENCE) for future in futures] == list(range(300))

    in_threads(work, range(5))


def test_priorities_that_were_used_up_leave_nothing(executor: SleighExecutor) -> None:
    for priority in range(1, 60):
        executor.options(priority=priority).submit(abs, -1).result(PATIENCE)
    engine: Any = executor._engine
    assert len(engine._lines.ranked) < 10


@pytest.mark.parametrize("wrong", ["1", 1.5, True])
def test_wrong_priorities(executor: SleighExecutor, wrong: Any) -> None:
    with pytest.raises(TypeError, match="priority"):
        executor.options(priority=wrong)
