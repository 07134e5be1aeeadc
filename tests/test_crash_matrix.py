"""Every stage of a call × every way to fail there: its own future gets it, the pool goes on.

    stage    the argument is pickled ─▶ rebuilt ─▶ the call runs ─▶ its result pickled ─▶ rebuilt
    where            caller             worker        worker             worker           caller

An object that fails only when it is pickled or rebuilt stands for everything that may happen there.
What kills the caller itself is not defended against, so those cells are not in the table.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import sys
import time
from typing import Any

import pytest

from sleighexec import SerializationError, SleighExecutor, WorkerLost
from tests.conftest import in_threads

PATIENCE = 30


def error() -> None:
    raise ArithmeticError("on purpose")


def leave() -> None:
    sys.exit(7)


def interrupt() -> None:
    raise KeyboardInterrupt


def crash() -> None:
    ctypes.string_at(0)


def vanish() -> None:
    os._exit(5)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class AtPickle:
    """Fails when it is pickled."""

    def __init__(self, way: Any) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        self.way()
        return int, ()


class AtRebuild:
    """Fails when it is rebuilt."""

    def __init__(self, way: Any) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        return self.way, ()


class AtDelete:
    """Fails when the garbage collector finds it: it holds itself."""

    def __init__(self, way: Any) -> None:
        self.way, self.me = way, self

    def __del__(self) -> None:
        self.way()


def hold(way: Any) -> None:
    gc.disable()  # it is to stay until somebody collects it
    AtDelete(way)


def hold_and_collect(way: Any) -> None:
    AtDelete(way)
    gc.collect()


def give_at_delete(way: Any) -> str:
    gc.disable()
    AtDelete(way)
    return "x" * 200_000


KILLERS = {crash: "signal 11", vanish: "exit status 5", kill: "signal 9"}

# stage, way to fail, error of the future, its cause
RAISED = [
    ("argument pickled", error, ArithmeticError, None),
    ("argument pickled", leave, pickle.PicklingError, SystemExit),
    ("argument rebuilt", error, SerializationError, ArithmeticError),
    ("argument rebuilt", leave, SerializationError, SystemExit),
    ("argument rebuilt", interrupt, SerializationError, KeyboardInterrupt),
    ("run", error, ArithmeticError, None),
    ("run", leave, SystemExit, None),
    ("run", interrupt, KeyboardInterrupt, None),
    ("result pickled", error, ArithmeticError, None),
    ("result pickled", leave, SystemExit, None),
    ("result pickled", interrupt, KeyboardInterrupt, None),
    ("result rebuilt", error, SerializationError, ArithmeticError),
    ("result rebuilt", leave, SerializationError, SystemExit),
]

KILLED = [
    (stage, way)
    for stage in ("argument rebuilt", "run", "result pickled", "garbage collected")
    for way in KILLERS
]


ROW = [1, 2, 3, 4]


def call(executor: SleighExecutor, stage: str, way: Any) -> Any:
    if stage == "argument pickled":
        return executor.submit(id, AtPickle(way))
    if stage == "argument rebuilt":
        return executor.submit(id, AtRebuild(way))
    if stage == "run":
        return executor.submit(way)
    if stage == "result pickled":
        return executor.submit(AtPickle, way)
    if stage == "result rebuilt":
        return executor.submit(AtRebuild, way)
    assert stage == "garbage collected"
    return executor.submit(hold_and_collect, way)


def others_are_served(executor: SleighExecutor) -> None:
    assert list(executor.map(abs, range(-100, 0), timeout=PATIENCE)) == list(range(100, 0, -1))
    assert executor.submit(abs, -1).result(PATIENCE) == 1


STAGES = list(dict.fromkeys(row[0] for row in RAISED))
DEADLY = list(dict.fromkeys(stage for stage, _ in KILLED))


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_raised_is_the_error_of_its_future(executor: SleighExecutor, stage: str) -> None:
    for _, way, wanted, cause in [row for row in RAISED if row[0] == stage]:
        before = [executor.submit(abs, -n) for n in range(20)]
        got = call(executor, stage, way).exception(PATIENCE)
        assert type(got) is wanted, way
        assert cause is None or isinstance(got.__cause__, cause), way
        assert [future.result(PATIENCE) for future in before] == list(range(20)), way
        others_are_served(executor)


@pytest.mark.parametrize("stage", DEADLY)
def test_what_kills_a_worker_fails_its_future_only(executor: SleighExecutor, stage: str) -> None:
    for way, names in KILLERS.items():
        before = [executor.submit(abs, -n) for n in range(20)]
        got = call(executor, stage, way).exception(PATIENCE)
        assert isinstance(got, WorkerLost), way
        assert names in str(got)
        assert [future.result(PATIENCE) for future in before] == list(range(20)), way
        others_are_served(executor)


def test_garbage_that_kills_after_a_call_costs_no_result(executor: SleighExecutor) -> None:
    """It is collected at some later time, whose call is lost; those that are done stay done."""
    for way in KILLERS:
        assert executor.submit(hold, way).result(PATIENCE) is None
        assert executor.submit(give_at_delete, way).result(PATIENCE) == "x" * 200_000
        later = executor.eachWorker(gc.collect, blocking=False)
        lost = [error for future in later if (error := future.exception(PATIENCE)) is not None]
        assert len(lost) in (1, 2)
        assert all(isinstance(error, WorkerLost) for error in lost)
        others_are_served(executor)


@pytest.mark.parametrize("stage", ["argument rebuilt", "run", "result pickled"])
def test_in_a_map_what_comes_before_it_arrives(executor: SleighExecutor, stage: str) -> None:
    """From several threads at once."""
    ways: list[Any] = [row[1] for row in RAISED if row[0] == stage]

    def work(number: int) -> None:
        for way in [*ways, *KILLERS]:
            if stage == "argument rebuilt":
                results = executor.map(repr, [1, 2, AtRebuild(way), 4])
            elif stage == "run":
                results = executor.map(lambda n, way: way() if n == 3 else repr(n), ROW, [way] * 4)
            else:
                results = executor.map(
                    lambda n, way: AtPickle(way) if n == 3 else repr(n), ROW, [way] * 4
                )
            assert [next(results), next(results)] == ["1", "2"], way
            with pytest.raises(BaseException):  # noqa: B017, PT011 - which one is told above
                next(results)

    in_threads(work, range(2))
    others_are_served(executor)
