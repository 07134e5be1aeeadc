"""The contract of borrow: a value is settled, given back, or comes back by itself."""

from __future__ import annotations

import os
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest

from sleighexec import (
    LIFO,
    NetWorkSpace,
    NwsServer,
    SleighExecutor,
    WorkerLost,
    current_worker,
    errors,
)
from sleighexec.workspace import DICT
from tests.conftest import PATIENCE, Local, Socket, blocked, wait_for


def fill(ws: NetWorkSpace, *values: object) -> None:
    for value in values:
        ws.store("x", value)


def left(ws: NetWorkSpace) -> list[object]:
    return list(ws.ifindTry("x"))


def test_a_borrowed_value_is_out_of_its_variable(ws: NetWorkSpace) -> None:
    fill(ws, 1, 2)
    borrowed = ws.borrow("x")
    assert borrowed.value == 1
    assert left(ws) == [2]
    assert "on loan" in repr(borrowed)


def test_a_settled_value_is_gone(ws: NetWorkSpace) -> None:
    fill(ws, 1)
    borrowed = ws.borrow("x")
    borrowed.settle()
    borrowed.settle()
    borrowed.give_back()
    assert left(ws) == []
    assert "ended" in repr(borrowed)


@pytest.mark.parametrize("mode", ["fifo", LIFO])
def test_a_value_that_is_given_back_is_first_in_line(ws: NetWorkSpace, mode: str) -> None:
    ws.declare("x", mode)
    fill(ws, 1, 2, 3)
    first, second = ws.borrow("x"), ws.borrow("x")
    second.give_back()
    first.give_back()
    first.give_back()
    first.settle()
    expected = [1, 2, 3] if mode == "fifo" else [3, 2, 1]
    assert [ws.fetch("x", timeout=0) for _ in range(3)] == expected


def test_a_block_settles_and_an_exception_gives_back(ws: NetWorkSpace) -> None:
    fill(ws, 1, 2)
    with ws.borrow("x") as borrowed:
        assert borrowed.value == 1
    assert left(ws) == [2]
    with pytest.raises(ZeroDivisionError), ws.borrow("x") as borrowed:
        divmod(borrowed.value, 0)
    assert left(ws) == [2]
    with ws.borrow("x") as borrowed:
        borrowed.give_back()
    assert left(ws) == [2]


def test_what_comes_back_serves_who_waits(ws: NetWorkSpace) -> None:
    fill(ws, 1)
    borrowed = ws.borrow("x")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ws.fetch, "x")
        blocked(ws, "x", fetchers=1)
        borrowed.give_back()
        assert future.result(PATIENCE) == 1


def test_borrow_waits_as_fetch_does(ws: NetWorkSpace) -> None:
    with pytest.raises(TimeoutError):
        ws.borrow("x", timeout=0.05)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ws.borrow, "x")
        blocked(ws, "x", fetchers=1)
        fill(ws, 1)
        assert future.result(PATIENCE).value == 1
        future = pool.submit(ws.borrow, "x")
        blocked(ws, "x", fetchers=1)
        ws.deleteVar("x")
        assert isinstance(future.exception(PATIENCE), errors.DeletedError)


def test_what_the_borrower_does_to_the_value_does_not_come_back(ws: NetWorkSpace) -> None:
    fill(ws, numpy.zeros(100_000), [1])
    array, numbers = ws.borrow("x"), ws.borrow("x")
    array.value.fill(7)
    numbers.value.append(2)
    numbers.give_back()
    array.give_back()
    assert ws.fetch("x").sum() == 0
    assert ws.fetch("x") == [1]


class Trap:
    def __reduce__(self) -> object:
        return divmod, (1, 0)


def test_a_value_that_cannot_be_rebuilt_goes_back(ws: NetWorkSpace) -> None:
    fill(ws, Trap(), 1)
    with pytest.raises(errors.ValueUnpicklingError):
        ws.borrow("x")
    assert ws.listVars(format=DICT)["x"][1] == 2


def test_a_loan_from_a_deleted_variable_ends_quietly(ws: NetWorkSpace) -> None:
    fill(ws, 1, 2)
    given_back, settled = ws.borrow("x"), ws.borrow("x")
    ws.deleteVar("x")
    fill(ws, 3)
    given_back.give_back()
    settled.settle()
    assert left(ws) == [3]


def test_a_loan_stays_where_it_is(ws: NetWorkSpace) -> None:
    fill(ws, 1)
    with pytest.raises(TypeError, match="send its value"):
        pickle.dumps(ws.borrow("x"))


# ------------------------------------------------------------------ the borrower dies


@pytest.mark.parametrize("remembered", [True, False])
def test_a_value_comes_back_when_the_connection_of_its_borrower_ends(
    house: Local | Socket, ws: NetWorkSpace, remembered: bool
) -> None:
    fill(ws, 1, 2, 3, 4)
    other = house.connect()
    borrowed = [other.useWs("test").borrow("x") for _ in range(3)]
    borrowed.pop(1).settle()
    if not remembered:
        borrowed.clear()
    assert left(ws) == [4]
    other.close()
    wait_for(lambda: left(ws) == [1, 3, 4], "what was lent did not come back")
    for loan in borrowed:
        loan.give_back()
    for loan in borrowed:
        loan.settle()
    assert left(ws) == [1, 3, 4]


def close_and_fail(server: NwsServer, value: object) -> None:
    server.close()
    raise KeyError(value)


def test_the_error_of_the_block_leaves_it_although_the_connection_is_lost(
    house: Local | Socket, ws: NetWorkSpace
) -> None:
    fill(ws, 1)
    other = house.connect()
    with pytest.raises(KeyError), other.useWs("test").borrow("x") as borrowed:
        close_and_fail(other, borrowed.value)
    assert ws.fetch("x", timeout=PATIENCE) == 1


def test_settling_after_the_end_says_that_the_value_went_back(
    house: Local | Socket, ws: NetWorkSpace
) -> None:
    fill(ws, 1)
    other = house.connect()
    with pytest.raises(errors.ConnectionLostError), other.useWs("test").borrow("x"):
        other.close()
    assert ws.fetch("x", timeout=PATIENCE) == 1


def use_and_die() -> None:
    workspace = current_worker().workspace
    workspace.borrow("job").settle()
    with workspace.borrow("job") as job:
        workspace.store("has", job.value)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_value_comes_back_when_the_worker_that_borrowed_it_is_killed() -> None:
    with SleighExecutor(1) as executor:
        for job in ("first", "second", "third"):
            executor.workspace.store("job", job)
        future = executor.submit(use_and_die)
        assert executor.workspace.fetch("has", timeout=PATIENCE) == "second"
        assert isinstance(future.exception(PATIENCE), WorkerLost)
        jobs = [executor.workspace.fetch("job", timeout=PATIENCE) for _ in range(2)]
        assert jobs == ["second", "third"]


def give_one_back(fails: bool) -> object:
    with current_worker().workspace.borrow("job") as job:
        if fails:
            raise KeyError(job.value)
        return job.value


def test_a_task_that_fails_gives_back_what_it_has_borrowed() -> None:
    with SleighExecutor(1) as executor:
        executor.workspace.store("job", 1)
        assert isinstance(executor.submit(give_one_back, True).exception(PATIENCE), KeyError)
        assert executor.submit(give_one_back, False).result(PATIENCE) == 1
        assert executor.workspace.fetchTry("job", "gone") == "gone"
