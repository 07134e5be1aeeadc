"""`max_pending`: whoever submits more than workers take is made to wait, and nobody for ever."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleighexec import SleighExecutor
from sleighexec.errors import PoolBrokenError
from tests.conftest import in_threads, wait_for, wait_for_file

PATIENCE = 60


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[SleighExecutor, Path]]:
    """An executor whose only worker is busy until the file is there, and whose line is full."""
    with SleighExecutor(1, max_pending=3) as executor:
        futures = [executor.submit(wait_for_file, tmp_path / "go")]
        wait_for(futures[0].running, "the worker is busy")
        futures += [executor.submit(abs, -number) for number in range(3)]
        yield executor, tmp_path / "go"
        (tmp_path / "go").touch()
        assert [future.result(PATIENCE) for future in futures] == [None, 0, 1, 2]


class Blocked(threading.Thread):
    """Does something in a thread of its own; `done` when it has."""

    def __init__(self, work: object) -> None:
        super().__init__()
        self.work, self.outcome = work, []
        self.start()

    def run(self) -> None:
        try:
            self.outcome.append(self.work())  # type: ignore[operator]
        except BaseException as error:
            self.outcome.append(error)

    def end(self) -> object:
        self.join(PATIENCE)
        return self.outcome[0]


def waiting(executor: SleighExecutor, count: int = 1) -> None:
    engine = executor._engine
    wait_for(lambda: len(engine._bells) == count, "somebody waits for room")  # type: ignore


def test_submit_waits_while_the_line_is_full(full: tuple[SleighExecutor, Path]) -> None:
    executor, go = full
    blocked = Blocked(lambda: executor.submit(abs, -7))
    waiting(executor)
    assert not blocked.outcome
    go.touch()
    assert blocked.end().result(PATIENCE) == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize("view", [False, True])
def test_so_do_calls_with_options_and_those_of_each_elem(
    full: tuple[SleighExecutor, Path], view: bool
) -> None:
    executor, go = full
    pool = executor.options(priority=-1) if view else executor
    one = Blocked(lambda: list(pool.map(abs, range(20))))
    two = Blocked(lambda: pool.eachElem(abs, [range(20)], blocking=False).wait(PATIENCE))
    three = Blocked(lambda: pool.eachElem(abs, [range(20)], chunkSize=4))
    waiting(executor, 3)
    go.touch()
    assert one.end() == two.end() == three.end() == list(range(20))


def test_map_and_each_elem_read_their_input_as_there_is_room() -> None:
    read = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    with SleighExecutor(2, max_pending=10) as executor:
        results = executor.map(abs, numbers())
        assert [next(results) for _ in range(100)] == list(range(100))
        assert len(read) <= 111
        del results
        read.clear()
        assert list(itertools.islice(executor.imap(abs, numbers(), loadFactor=0), 100)) == [
            *range(100)
        ]
        assert len(read) <= 111
        assert executor.eachElem(abs, [range(100)]) == list(range(100))


def test_a_callback_that_submits_is_never_kept_waiting(full: tuple[SleighExecutor, Path]) -> None:
    executor, go = full
    got = []

    def more(_: object) -> None:
        got.extend([executor.submit(abs, -n) for n in range(20)])

    blocked = Blocked(lambda: executor.submit(abs, -5))
    waiting(executor)
    go.touch()
    blocked.end().add_done_callback(more)  # type: ignore[attr-defined]
    wait_for(lambda: len(got) == 20, "the callback has run", PATIENCE)
    assert [future.result(PATIENCE) for future in got] == list(range(20))


def test_a_callback_within_the_serving_thread_does_not_stop_it() -> None:
    with SleighExecutor(2, max_pending=1) as executor:
        got, left = [], itertools.count()

        def more(future: object) -> None:
            got.append(future)
            if next(left) < 200:
                executor.submit(abs, -1).add_done_callback(more)
                executor.submit(abs, -1).add_done_callback(more)

        executor.submit(abs, -1).add_done_callback(more)
        wait_for(lambda: len(got) == 401, "all callbacks have run", PATIENCE)


def test_many_threads_that_wait_for_room_all_get_it() -> None:
    with SleighExecutor(2, max_pending=2) as executor:
        done: list[int] = []
        in_threads(
            lambda number: done.extend(
                [executor.submit(abs, -n).result(PATIENCE) for n in range(50)]
            ),
            range(8),
        )
        assert sorted(done) == sorted([*range(50)] * 8)


def test_who_waits_for_room_is_told_of_the_end(full: tuple[SleighExecutor, Path]) -> None:
    executor, go = full
    blocked = Blocked(lambda: executor.submit(abs, -5))
    waiting(executor)
    executor.shutdown(wait=False)
    error = blocked.end()
    assert isinstance(error, RuntimeError)
    assert "shutdown" in str(error)
    go.touch()


def test_who_waits_for_room_is_told_that_there_will_be_none() -> None:
    def fail() -> None:
        time.sleep(0.2)
        raise ValueError("no table")

    with SleighExecutor(1, max_pending=1, initializer=fail) as pool, pytest.raises(PoolBrokenError):
        [pool.submit(abs, -1) for _ in range(3)]


def test_calls_that_wait_for_other_calls_do_not_count(full: tuple[SleighExecutor, Path]) -> None:
    executor, go = full
    with SleighExecutor(1) as another:
        there = another.submit(abs, -3)
        blocked = another.submit(wait_for_file, go)
        futures = [executor.submit(str, blocked) for _ in range(5)]
        assert there.result(PATIENCE) == 3
        go.touch()
        assert [future.result(PATIENCE) for future in futures] == ["None"] * 5


def test_the_number_is_checked() -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_pending"):
            SleighExecutor(1, max_pending=wrong)
    with pytest.raises(TypeError, match="max_pending"):
        SleighExecutor(1, max_pending=1.5)  # type: ignore[arg-type]


def test_a_map_whose_executor_is_gone_says_that_it_is_to_be_kept() -> None:
    executor = SleighExecutor(1, max_pending=2)
    results = executor.map(abs, itertools.count())
    assert next(results) == 0
    del executor
    gc.collect()
    with pytest.raises(RuntimeError, match="keep it until the results"):
        list(results)
