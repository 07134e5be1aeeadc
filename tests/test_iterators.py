"""The contract of the iterators: ifetch, ifetchTry, ifind and ifindTry."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FuturesTimeoutError
from typing import Any

import pytest

from sleighexec import LIFO, MULTI, SINGLE, NetWorkSpace, NwsServer, errors
from tests.conftest import PATIENCE, Local, Socket, blocked

ALL = ["ifetch", "ifetchTry", "ifind", "ifindTry"]
WAITING = ["ifetch", "ifind"]
TRYING = ["ifetchTry", "ifindTry"]
verbs = pytest.mark.parametrize("verb", ALL)


def fill(ws: NetWorkSpace, *values: object) -> None:
    for value in values:
        ws.store("x", value)


def left(ws: NetWorkSpace) -> list[Any]:
    """What is in the variable, oldest first."""
    return list(ws.ifindTry("x"))


# ------------------------------------------------------------------ values, each once, in order


@verbs
def test_an_iterator_gives_each_value_once_in_order(ws: NetWorkSpace, verb: str) -> None:
    fill(ws, 1, None, "three")
    iterator = getattr(ws, verb)("x")
    assert iter(iterator) is iterator
    assert [next(iterator) for _ in range(3)] == [1, None, "three"]
    assert left(ws) == ([] if "fetch" in verb else [1, None, "three"])


@pytest.mark.parametrize("verb", TRYING)
def test_the_try_forms_stop_when_there_is_none(ws: NetWorkSpace, verb: str) -> None:
    assert list(getattr(ws, verb)("x")) == []
    fill(ws, 1, 2)
    assert list(getattr(ws, verb)("x")) == [1, 2]


@pytest.mark.parametrize("verb", WAITING)
def test_the_others_wait_for_the_next_value(ws: NetWorkSpace, verb: str) -> None:
    fill(ws, 1)
    iterator = getattr(ws, verb)("x")
    assert next(iterator) == 1
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator)
        blocked(ws, "x", **{"fetchers" if verb == "ifetch" else "finders": 1})
        fill(ws, 2)
        assert future.result(PATIENCE) == 2


@pytest.mark.parametrize("verb", WAITING)
def test_a_step_that_times_out_takes_nothing_and_stops_nothing(ws: NetWorkSpace, verb: str) -> None:
    for timeout in (0, 0.05):
        iterator = getattr(ws, verb)("x", timeout=timeout)
        with pytest.raises(TimeoutError, match="'x' of 'test'") as caught:
            next(iterator)
        assert isinstance(caught.value, FuturesTimeoutError)
    fill(ws, 1)
    assert next(iterator) == 1
    with pytest.raises(TimeoutError):
        next(iterator)


def test_find_iterators_are_independent_and_fetch_iterators_compete(ws: NetWorkSpace) -> None:
    fill(ws, 1, 2, 3)
    first, second = ws.ifindTry("x"), ws.ifindTry("x")
    assert [next(first), next(second), next(first), next(second)] == [1, 1, 2, 2]
    one, other = ws.ifetchTry("x"), ws.ifetchTry("x")
    assert [next(one), next(other), next(one), list(other)] == [1, 2, 3, []]


def test_an_iterator_goes_on_with_the_oldest_that_it_has_not_seen(ws: NetWorkSpace) -> None:
    fill(ws, 1, 2, 3, 4)
    finder, fetcher = ws.ifindTry("x"), ws.ifetchTry("x")
    assert next(finder) == next(fetcher) == 1
    assert [ws.fetch("x"), ws.fetch("x")] == [2, 3]
    assert (list(finder), list(fetcher)) == ([4], [4])


def test_an_iterator_over_a_single_sees_that_its_value_was_replaced(ws: NetWorkSpace) -> None:
    ws.declare("x", SINGLE)
    fill(ws, 1)
    iterator = ws.ifindTry("x")
    assert list(iterator) == [1]
    fill(ws, 2, 3)
    iterator.restart()
    assert list(iterator) == [3]
    iterator.restart()
    assert list(iterator) == []


@verbs
@pytest.mark.parametrize("mode", [LIFO, MULTI])
def test_a_variable_without_an_order_is_an_error(ws: NetWorkSpace, verb: str, mode: str) -> None:
    ws.declare("x", mode)
    fill(ws, 1)
    with pytest.raises(errors.OrderError, match=f"x is {mode}"):
        next(getattr(ws, verb)("x"))


def test_who_waits_at_an_undeclared_variable_gets_its_first_value_whatever_it_becomes(
    ws: NetWorkSpace,
) -> None:
    iterator = ws.ifind("x")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator)
        blocked(ws, "x", finders=1)
        ws.declare("x", LIFO)
        fill(ws, 1)
        assert future.result(PATIENCE) == 1
    with pytest.raises(errors.OrderError):
        next(iterator)


def test_a_value_that_a_borrower_gave_back_is_not_hidden_from_a_fetch_iterator(
    ws: NetWorkSpace,
) -> None:
    fill(ws, 1, 2)
    borrowed = ws.borrow("x")
    iterator = ws.ifetchTry("x")
    assert list(iterator) == [2]
    borrowed.give_back()
    iterator.restart()
    assert list(iterator) == [1]


def test_a_value_that_a_borrower_gave_back_is_not_seen_twice_by_a_find_iterator(
    ws: NetWorkSpace,
) -> None:
    fill(ws, 1, 2, 3)
    iterator = ws.ifindTry("x")
    assert next(iterator) == 1
    borrowed = ws.borrow("x")
    assert ws.fetch("x") == 2
    borrowed.give_back()
    assert list(iterator) == [3]
    assert left(ws) == [1, 3]


# ------------------------------------------------------------------ stopping and beginning again


@pytest.mark.parametrize("verb", TRYING)
def test_once_stopped_it_stays_so_until_restart(ws: NetWorkSpace, verb: str) -> None:
    fill(ws, 1)
    iterator = getattr(ws, verb)("x")
    assert list(iterator) == [1]
    fill(ws, 2)
    assert list(iterator) == []
    iterator.restart()
    assert list(iterator) == [2]


def test_reset_begins_with_what_is_there(ws: NetWorkSpace) -> None:
    fill(ws, 1, 2, 3)
    finder, fetcher = ws.ifindTry("x"), ws.ifetchTry("x")
    assert list(finder) == [1, 2, 3]
    assert next(fetcher) == 1
    for iterator in (finder, fetcher):
        iterator.reset()
    assert list(finder) == [2, 3]
    assert list(fetcher) == [2, 3]


def test_restart_of_one_that_has_not_stopped_changes_nothing(ws: NetWorkSpace) -> None:
    fill(ws, 1, 2)
    iterator = ws.ifind("x")
    assert next(iterator) == 1
    iterator.restart()
    assert next(iterator) == 2


@verbs
def test_after_a_deletion_only_reset_helps(ws: NetWorkSpace, verb: str) -> None:
    fill(ws, 1, 2)
    iterator = getattr(ws, verb)("x")
    assert next(iterator) == 1
    ws.deleteVar("x")
    fill(ws, 3)
    assert next(iterator, "stopped") == "stopped"
    iterator.restart()
    assert next(iterator, "stopped") == "stopped"
    assert left(ws) == [3]
    iterator.reset()
    assert next(iterator) == 3


@pytest.mark.parametrize("seen", [0, 1])
@pytest.mark.parametrize("verb", WAITING)
@pytest.mark.parametrize("what", ["variable", "workspace"])
def test_a_deletion_stops_an_iterator_that_waits(
    server: NwsServer, ws: NetWorkSpace, verb: str, seen: int, what: str
) -> None:
    iterator = getattr(ws, verb)("x")
    fill(ws, *range(seen))
    assert [next(iterator) for _ in range(seen)] == list(range(seen))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(list, iterator)
        blocked(ws, "x", **{"fetchers" if verb == "ifetch" else "finders": 1})
        if what == "variable":
            ws.deleteVar("x")
        else:
            server.deleteWs("test")
        assert future.result(PATIENCE) == []
    iterator.restart()
    assert next(iterator, "stopped") == "stopped"


@pytest.mark.parametrize("verb", ALL)
def test_a_deleted_workspace_ends_what_has_begun_and_fails_what_begins(
    server: NwsServer, ws: NetWorkSpace, verb: str
) -> None:
    fill(ws, 1, 2)
    begun = getattr(ws, verb)("x")
    next(begun)
    server.deleteWs("test")
    assert list(begun) == []
    with pytest.raises(errors.NoSuchWorkspaceError):
        next(getattr(ws, verb)("x"))


@pytest.mark.parametrize("verb", WAITING)
def test_when_the_connection_ends_who_waits_is_told(
    house: Local | Socket, ws: NetWorkSpace, verb: str
) -> None:
    with house.connect() as other, ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, getattr(other.useWs("test"), verb)("x"))
        blocked(ws, "x", **{"fetchers" if verb == "ifetch" else "finders": 1})
        other.close()
        assert isinstance(future.exception(PATIENCE), errors.ConnectionLostError)


def test_what_cannot_be_rebuilt_does_not_hold_up_an_iterator(ws: NetWorkSpace) -> None:
    class Trap:
        def __reduce__(self) -> object:
            return divmod, (1, 0)

    fill(ws, Trap(), 1)
    for iterator in (ws.ifind("x"), ws.ifetch("x")):
        with pytest.raises(errors.ValueUnpicklingError):
            next(iterator)
        assert next(iterator) == 1


# ------------------------------------------------------------------ writeTo


@verbs
def test_write_to_writes_the_next_value(ws: NetWorkSpace, verb: str) -> None:
    fill(ws, b"one", "zwei €")
    iterator, file = getattr(ws, verb)("x"), io.BytesIO()
    assert [iterator.writeTo(file), iterator.writeTo(file)] == [3, 8]
    assert file.getvalue() == b"one" + "zwei €".encode()
    if verb in TRYING:
        assert iterator.writeTo(file) == 0
        fill(ws, b"late")
        assert iterator.writeTo(file) == 0
    assert left(ws) == ([b"late"] if verb == "ifetchTry" else left(ws))


class FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError("no space left")


@verbs
def test_what_could_not_be_written_comes_next_again(ws: NetWorkSpace, verb: str) -> None:
    fill(ws, b"one", b"two", b"three")
    iterator = getattr(ws, verb)("x")
    assert next(iterator) == b"one"
    with pytest.raises(OSError, match="no space"):
        iterator.writeTo(FullDisk())
    with pytest.raises(TypeError, match="binary mode"):
        iterator.writeTo(io.StringIO())
    assert [next(iterator), next(iterator)] == [b"two", b"three"]


# ------------------------------------------------------------------ threads


@verbs
def test_threads_that_share_an_iterator_get_each_value_once(ws: NetWorkSpace, verb: str) -> None:
    iterator, count = getattr(ws, verb)("x"), 200
    fill(ws, *range(count))
    start = threading.Barrier(4)

    def take() -> list[int]:
        start.wait(PATIENCE)
        return [next(iterator) for _ in range(count // 4)]

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(take) for _ in range(4)]
        taken = [future.result(PATIENCE) for future in futures]
    assert sorted(number for numbers in taken for number in numbers) == list(range(count))
    assert all(numbers == sorted(numbers) for numbers in taken)


def test_two_threads_that_wait_with_one_find_iterator_get_two_values(ws: NetWorkSpace) -> None:
    iterator = ws.ifind("x", timeout=PATIENCE)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(next, iterator) for _ in range(2)]
        blocked(ws, "x", finders=2)
        fill(ws, 1)
        blocked(ws, "x", finders=1)
        fill(ws, 2)
        assert sorted(future.result(PATIENCE) for future in futures) == [1, 2]


def test_reset_reaches_a_thread_that_waits(ws: NetWorkSpace) -> None:
    fill(ws, 1)
    iterator = ws.ifind("x")
    assert next(iterator) == 1
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator)
        blocked(ws, "x", finders=1)
        iterator.reset()
        fill(ws, 2)
        assert future.result(PATIENCE) == 1
