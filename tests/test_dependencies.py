"""Futures as arguments: a call waits for others, without a worker."""

from __future__ import annotations

import gc
import itertools
import operator
import os
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import Any

import pytest

from sleighexec import DependencyError, SleighExecutor, WorkerLost, errors
from sleighexec.future import SleighFuture
from tests.conftest import wait_behind, wait_for, wait_until_behind

PATIENCE = 20


def add(a: Any, b: Any = 1) -> Any:
    return a + b


def fail(*_: object) -> None:
    raise ZeroDivisionError("this one fails")


def when_there(path: Path) -> str:
    wait_behind(path)
    return "open"


class Gate:
    """A call that runs until somebody opens it."""

    def __init__(self, executor: SleighExecutor, path: Path) -> None:
        self._path = path
        self.future = executor.submit(when_there, path)
        wait_until_behind(path)

    def open(self) -> None:
        self._path.touch()


@pytest.fixture
def single() -> Any:
    with SleighExecutor(1) as executor:
        yield executor


@pytest.fixture
def gate(single: SleighExecutor, tmp_path: Path) -> Any:
    gate = Gate(single, tmp_path / "gate")
    yield gate
    gate.open()


# ------------------------------------------------------------------ results


def test_a_future_stands_for_its_result(executor: SleighExecutor) -> None:
    first = executor.submit(add, 1)
    assert executor.submit(add, first, 10).result(PATIENCE) == 12
    assert executor.submit(add, 10, b=first).result(PATIENCE) == 12
    assert executor.submit(add, first, first).result(PATIENCE) == 4
    assert executor.submit(add, a=first, b=executor.submit(add, 4)).result(PATIENCE) == 7


def test_functions_that_travel_with_their_calls(executor: SleighExecutor) -> None:
    number = 100
    first = executor.submit(lambda: number)
    assert executor.submit(lambda a, b: a + b + number, first, b=first).result(PATIENCE) == 300
    assert executor.submit([1, 2].__add__, executor.submit(list, (3,))).result(PATIENCE) == [
        1,
        2,
        3,
    ]


def test_results_that_are_functions_of_ours(executor: SleighExecutor) -> None:
    twice = executor.submit(lambda: lambda x: 2 * x)
    assert executor.submit(lambda f, x: f(x), twice, 21).result(PATIENCE) == 42


def test_arrays_on_both_sides_of_the_gap(executor: SleighExecutor) -> None:
    import numpy as np

    big = np.ones(100_000)
    first = executor.submit(operator.mul, big, 2)
    total = executor.submit(operator.add, first, big).result(PATIENCE)
    assert total.sum() == 300_000
    assert executor.submit(_writable, first, np.ones(3)).result(PATIENCE)


def _writable(*arrays: Any) -> bool:
    return all(array.flags.writeable for array in arrays)


def test_a_shared_value_beside_it(executor: SleighExecutor) -> None:
    table = executor.share([1, 2, 3])
    assert executor.submit(add, table, executor.submit(list, (4,))).result(PATIENCE) == [1, 2, 3, 4]


def test_the_other_arguments_are_those_of_the_call(single: SleighExecutor, gate: Gate) -> None:
    values = ["a"]
    later = single.submit(add, values, single.submit(list, "b"))
    values.append("too late")
    gate.open()
    assert later.result(PATIENCE) == ["a", "b"]


def test_one_worker_is_enough_for_all_that_wait(single: SleighExecutor, gate: Gate) -> None:
    sums = [single.submit(add, gate.future, str(n)) for n in range(50)]
    more = [single.submit(add, one, "!") for one in sums]
    gate.open()
    assert [future.result(PATIENCE) for future in more] == [f"open{n}!" for n in range(50)]


def test_it_does_not_hold_up_others(tmp_path: Path) -> None:
    with SleighExecutor(2) as executor:
        gate = Gate(executor, tmp_path / "gate")
        waiting = [executor.submit(add, gate.future, "") for _ in range(10)]
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        assert not any(future.running() or future.done() for future in waiting)
        gate.open()


def test_futures_of_another_executor(executor: SleighExecutor, single: SleighExecutor) -> None:
    first = single.submit(add, 1)
    assert executor.submit(add, first).result(PATIENCE) == 3


def test_in_a_view_with_options(executor: SleighExecutor, tmp_path: Path) -> None:
    def second_time(path: Path) -> int:
        with open(path, "a") as file:
            file.write("x")
        if path.stat().st_size < 2:
            import os

            os._exit(1)
        return 5

    path = executor.submit(Path, tmp_path / "tries")
    assert executor.options(retries=1).submit(second_time, path).result(PATIENCE) == 5


def test_only_itself_counts_not_what_is_within_a_list(executor: SleighExecutor) -> None:
    first = executor.submit(add, 1)
    with pytest.raises(TypeError, match="make it an argument of submit itself"):
        executor.submit(len, [first]).result(PATIENCE)


def test_from_a_callback(executor: SleighExecutor) -> None:
    answers: Future[int] = Future()

    def go_on(first: Future[int]) -> None:
        executor.submit(add, first).add_done_callback(lambda f: answers.set_result(f.result()))

    executor.submit(add, 1).add_done_callback(go_on)
    assert answers.result(PATIENCE) == 3


# ------------------------------------------------------------------ failures


def test_a_failed_dependency_fails_its_dependents(executor: SleighExecutor) -> None:
    bad = executor.submit(fail)
    error = executor.submit(add, 1, bad).exception(PATIENCE)
    assert isinstance(error, DependencyError)
    assert isinstance(error, errors.ExecutorError)
    assert error.__cause__ is bad.exception()
    assert error.task == "add"
    assert "add was not run" in str(error)
    assert "argument 1 failed with ZeroDivisionError: this one fails" in str(error)
    named = executor.submit(add, 1, b=bad).exception(PATIENCE)
    assert "argument 'b'" in str(named)


def test_the_error_says_where_the_trouble_began(executor: SleighExecutor) -> None:
    bad = executor.submit(fail)
    last = executor.submit(add, executor.submit(add, bad))
    error = last.exception(PATIENCE)
    assert isinstance(error, DependencyError)
    assert error.__cause__ is bad.exception()
    assert "was not run either" in str(error)


def test_the_first_failure_is_enough(single: SleighExecutor, gate: Gate, tmp_path: Path) -> None:
    never = single.submit(add, 1)
    both = single.submit(add, never, gate.future)
    assert never.cancel()
    with pytest.raises(DependencyError, match="was cancelled") as caught:
        both.result(PATIENCE)
    assert isinstance(caught.value.__cause__, CancelledError)


def test_a_dependency_that_lost_its_worker(executor: SleighExecutor) -> None:
    import os

    error = executor.submit(add, executor.submit(os._exit, 3)).exception(PATIENCE)
    assert isinstance(error, DependencyError)
    assert isinstance(error.__cause__, WorkerLost)


def test_a_result_that_cannot_be_pickled_again(executor: SleighExecutor) -> None:
    stubborn = executor.submit(_Once)
    with pytest.raises(TypeError, match="not twice"):
        executor.submit(id, stubborn).result(PATIENCE)
    with pytest.raises(TypeError):
        executor.submit(add, executor.submit(abs, 1), threading.Lock()).result(PATIENCE)
    assert executor.submit(abs, -1).result(PATIENCE) == 1


class _Once:
    """It comes from its worker, and does not go to another."""

    def __init__(self, travelled: bool = False) -> None:
        self.travelled = travelled

    def __reduce__(self) -> Any:
        if self.travelled:
            raise TypeError("not twice")
        return _Once, (True,)


def test_the_error_can_be_pickled() -> None:
    import pickle

    error = DependencyError("f", "x", "was cancelled")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


# ------------------------------------------------------------------ cancelling and the end


def test_one_that_waits_can_be_cancelled(single: SleighExecutor, gate: Gate) -> None:
    waiting = single.submit(add, gate.future, "")
    assert waiting.cancel()
    assert waiting.cancelled()
    assert wait([waiting], PATIENCE).done == {waiting}
    killed = single.submit(add, gate.future, "")
    assert single.kill(killed)
    gate.open()
    assert gate.future.result(PATIENCE) == "open"
    assert single.submit(abs, -1).result(PATIENCE) == 1


def test_shutdown_waits_for_those_that_wait(tmp_path: Path) -> None:
    executor = SleighExecutor(1)
    gate = Gate(executor, tmp_path / "gate")
    last = executor.submit(add, executor.submit(add, gate.future, "!"), "?")
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(add, gate.future)
    gate.open()
    executor.shutdown(wait=True)
    assert last.result(0) == "open!?"


def test_shutdown_waits_for_a_call_of_another_executor(single: SleighExecutor, gate: Gate) -> None:
    other = SleighExecutor(1)
    last = other.submit(add, gate.future, "!")
    other.shutdown(wait=False)
    gate.open()
    other.shutdown(wait=True)
    assert last.result(0) == "open!"


def test_an_executor_without_workers_ends_with_the_last_that_is_cancelled(
    single: SleighExecutor, gate: Gate
) -> None:
    other = SleighExecutor(1)
    last = other.submit(add, gate.future, "!")
    other.shutdown(wait=False)
    last.cancel()
    other.shutdown(wait=True)


def test_shutdown_may_cancel_those_that_wait(tmp_path: Path) -> None:
    executor = SleighExecutor(1)
    gate = Gate(executor, tmp_path / "gate")
    waiting = [executor.submit(add, gate.future, "") for _ in range(10)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert wait(waiting, PATIENCE).not_done == set()
    assert all(future.cancelled() for future in waiting)
    gate.open()
    executor.shutdown()
    assert gate.future.result(0) == "open"


def test_kill_workers_cancels_those_that_wait(tmp_path: Path) -> None:
    executor = SleighExecutor(1)
    gate = Gate(executor, tmp_path / "gate")
    waiting = executor.submit(add, gate.future, "")
    executor.kill_workers()
    assert isinstance(gate.future.exception(PATIENCE), WorkerLost)
    assert wait([waiting], PATIENCE).done
    executor.shutdown()


def test_an_executor_that_is_collected_finishes_them(tmp_path: Path) -> None:
    executor = SleighExecutor(1)
    gate = Gate(executor, tmp_path / "gate")
    last = executor.submit(add, gate.future, "!")
    there = weakref.ref(executor)
    del executor
    assert there() is None
    gate.open()
    assert last.result(PATIENCE) == "open!"


def test_a_broken_pool_fails_them() -> None:
    with SleighExecutor(1, on_crash="break") as executor:
        executor.submit(abs, -1).result(PATIENCE)
        first = executor.submit(lambda: (time.sleep(0.5), os._exit(1)))
        last = executor.submit(add, first)
        error = last.exception(PATIENCE)
        assert isinstance(error, (DependencyError, errors.PoolBrokenError))
        with pytest.raises(errors.PoolBrokenError):
            executor.submit(add, first)


# ------------------------------------------------------------------ many


@pytest.mark.once
def test_a_long_chain() -> None:
    with SleighExecutor(1) as executor:
        last = executor.submit(add, 0)
        for _ in range(10_000):
            last = executor.submit(add, last)
        assert last.result(100) == 10_001


@pytest.mark.once
@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_a_long_chain_that_ends_before_it_begins(
    single: SleighExecutor, gate: Gate, how: str
) -> None:
    first = chain = single.submit(fail)
    for _ in range(10_000):
        chain = single.submit(add, chain)
    if how == "is cancelled":
        assert first.cancel()
    gate.open()
    with pytest.raises(DependencyError, match=how.split()[-1][:4]):
        chain.result(100)


def test_nothing_is_left_of_a_chain() -> None:
    def count() -> int:
        gc.collect()
        return sum(type(thing) is SleighFuture for thing in gc.get_objects())

    with SleighExecutor(1) as executor:
        before = count()
        first = last = executor.submit(add, 0)
        for _ in range(300):
            last = executor.submit(add, last)
        assert last.result(PATIENCE) == 301
        assert first.result() == 1
        wait_for(lambda: count() <= before + 2, "futures are left")


def test_many_of_many_threads(executor: SleighExecutor) -> None:
    from tests.conftest import in_threads

    def work(number: int) -> None:
        firsts = [executor.submit(add, n, number) for n in range(50)]
        sums = [executor.submit(add, a, b) for a, b in itertools.pairwise(firsts)]
        expected = [2 * n + 1 + 2 * number for n in range(49)]
        assert [future.result(PATIENCE) for future in sums] == expected

    in_threads(work, range(6))
