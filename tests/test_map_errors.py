"""A map in which something goes wrong: at its place, and nothing that was there before is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor
from typing import Any

import pytest

from sleighexec import SleighExecutor

LOCK = threading.Lock()


def square(number: Any) -> Any:
    return number * number


def first(items: list[int]) -> int:
    return next(iter(items))


def slow(number: int) -> int:
    time.sleep(0.2)
    return number


def taken(results: Iterator[Any]) -> tuple[list[Any], BaseException | None]:
    """What came, and how it ended."""
    found: list[Any] = []
    try:
        for each in results:
            found.append(each)
    except BaseException as error:
        return found, error
    return found, None


def plain(executor: SleighExecutor) -> Executor:
    return executor


def with_options(executor: SleighExecutor) -> Executor:
    return executor.options(priority=1)


@pytest.mark.parametrize("view", [plain, with_options])
@pytest.mark.parametrize(
    "options", [{}, {"chunksize": 2}, {"buffersize": 1}, {"buffersize": 2, "chunksize": 3}], ids=str
)
def test_an_argument_that_cannot_be_pickled_is_the_error_of_its_own_call(
    executor: SleighExecutor, view: Callable[..., Executor], options: dict[str, int]
) -> None:
    found, error = taken(view(executor).map(square, [1, 2, LOCK, 3], **options))
    assert found == [1, 4]
    assert isinstance(error, TypeError)
    assert "square" in "".join(getattr(error, "__notes__", ["square"]))
    assert list(executor.map(square, [5])) == [25]


@pytest.mark.parametrize("items", [[LOCK], [LOCK, LOCK, 1], [1, LOCK, 2, LOCK]], ids=len)
def test_wherever_such_arguments_are(executor: SleighExecutor, items: list[Any]) -> None:
    found, error = taken(executor.map(square, items))
    assert found == [square(item) for item in items[: items.index(LOCK)]]
    assert isinstance(error, TypeError)


def test_where_few_calls_may_wait_such_an_argument_has_its_error_too() -> None:
    with SleighExecutor(1, max_pending=2) as executor:
        found, error = taken(executor.map(square, [1, 2, 3, LOCK, 4]))
        assert found == [1, 4, 9]
        assert isinstance(error, TypeError)


@pytest.mark.parametrize("size", [2.5, 2.0, "2", None])
def test_a_chunk_size_is_an_integer(executor: SleighExecutor, size: Any) -> None:
    with pytest.raises(TypeError, match="chunksize must be an integer"):
        executor.map(abs, range(10), chunksize=size)
    with pytest.raises(TypeError, match="chunksize must be an integer"):
        executor.options(retries=1).map(abs, range(10), chunksize=size)


@pytest.mark.parametrize("kind", ["map", "imap", "starmap"])
def test_a_call_that_raises_stop_iteration_does_not_end_the_results_unnoticed(
    executor: SleighExecutor, kind: str
) -> None:
    rows: list[Any] = [[1], [2], [], [4]]
    if kind == "starmap":
        rows = [(row,) for row in rows]
    found, error = taken(getattr(executor, kind)(first, rows))
    assert found == [1, 2]
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, StopIteration)


def test_after_shutdown_a_lazy_map_gives_what_is_there_and_then_an_error() -> None:
    executor = SleighExecutor(2)
    results = executor.map(abs, range(10), buffersize=4)
    found = [next(results)]
    executor.shutdown()
    more, error = taken(results)
    assert found + more == [0, 1, 2, 3, 4][: len(found + more)]
    assert len(found + more) >= 4
    assert isinstance(error, RuntimeError)
    assert "cannot schedule new futures" in str(error)
    assert taken(results) == ([], None)


def test_an_error_of_the_iterable_of_a_lazy_map_comes_at_its_place(
    executor: SleighExecutor,
) -> None:
    def numbers() -> Iterator[int]:
        yield from range(6)
        raise LookupError("no more")

    found, error = taken(executor.map(abs, numbers(), buffersize=3))
    assert found == list(range(6))
    assert isinstance(error, LookupError)


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("cold", [True, False])
def test_shutdown_cancels_what_has_not_begun_of_a_map(wait: bool, cold: bool) -> None:
    executor = SleighExecutor(2)
    if not cold:
        list(executor.map(slow, range(2)))
    results = executor.map(slow, range(20))
    executor.shutdown(wait=wait, cancel_futures=True)
    found, error = taken(results)
    assert found == list(range(len(found)))
    assert len(found) < 10, "what had not begun was run"
    assert isinstance(error, CancelledError)
    executor.shutdown()


def test_of_a_map_that_nobody_asks_for_results_all_calls_run(executor: SleighExecutor) -> None:
    executor.map(executor.workspace.store, ["x"] * 5, range(5))
    assert sorted(executor.workspace.fetch("x", timeout=10) for _ in range(5)) == list(range(5))
