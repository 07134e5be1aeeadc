"""What cannot be pickled or rebuilt fails its own call; what others cannot pickle goes through."""

from __future__ import annotations

import dataclasses
import os
import threading
from concurrent.futures import Executor
from typing import Any

from sleighexec.conformance.case import (
    PATIENCE,
    Gate,
    Make,
    case,
    case_for,
    expect,
    expect_error,
    expect_in,
    expect_usable,
)

CALLER = "SLEIGHEXEC_CONFORMANCE_CALLER"  # in the environment: the pid of the caller


class TwoArgumentsError(Exception):
    """Can be pickled and not rebuilt, as many errors can."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class LockError(Exception):
    """Cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """Its attributes cannot be set, not even `__cause__`."""

    number: int


class BadAt:
    """Cannot be rebuilt: raises, or exits, in the caller or in a worker."""

    def __init__(self, where: str, how: str) -> None:
        self.where, self.how = where, how

    def __reduce__(self) -> Any:
        return rebuild, (self.where, self.how)


def rebuild(where: str, how: str) -> BadAt:
    here = "caller" if os.environ.get(CALLER) == str(os.getpid()) else "worker"
    if here == where:
        if how == "exits":
            raise SystemExit(5)
        if how == "crashes":
            os._exit(5)
        raise ZeroDivisionError("cannot be rebuilt")
    return BadAt(where, how)


def fail_two() -> None:
    raise TwoArgumentsError("one", "two")


def fail_lock() -> None:
    raise LockError("the text")


def fail_frozen() -> None:
    raise FrozenError(5)


def fails_alone(pool: Executor, victim: Any) -> BaseException:
    """The error of a call beside another that runs, after which both it and the pool are well."""
    with Gate() as gate:
        [bystander] = gate.occupy(pool, 1)
        error: BaseException = expect_error(pool.submit(*victim))
        gate.open()
        expect(bystander.result(PATIENCE), "0")
    expect_usable(pool)
    return error


# ------------------------------------------------------------------ arguments and results


@case
def an_argument_that_cannot_be_pickled_fails_its_own_call(make: Make) -> None:
    with make(2) as pool:
        fails_alone(pool, (id, threading.Lock()))


@case
def a_result_that_cannot_be_pickled_fails_its_own_call(make: Make) -> None:
    with make(2) as pool:
        fails_alone(pool, (threading.Lock,))


@case
def a_hundred_arguments_that_cannot_be_pickled_hang_nobody(make: Make) -> None:
    with make(1) as pool:
        bad = [pool.submit(id, threading.Lock()) for _ in range(100)]
        good = pool.submit(abs, -1)
        for future in bad:
            expect_error(future)
        expect(good.result(PATIENCE), 1)


@case_for("raises", "exits", "crashes")
def an_argument_that_cannot_be_rebuilt_fails_its_own_call(make: Make, how: str) -> None:
    os.environ[CALLER] = str(os.getpid())
    with make(2) as pool:
        fails_alone(pool, (id, BadAt("worker", how)))


@case_for("raises", "exits")
def a_result_that_cannot_be_rebuilt_fails_its_own_call(make: Make, how: str) -> None:
    os.environ[CALLER] = str(os.getpid())
    with make(2) as pool:
        fails_alone(pool, (BadAt, "caller", how))


# ------------------------------------------------------------------ errors


@case
def an_error_that_cannot_be_rebuilt_fails_its_own_call_and_is_named(make: Make) -> None:
    with make(2) as pool:
        error = fails_alone(pool, (fail_two,))
        expect_in("one and two", f"{error} {error.__cause__}")


@case
def an_error_that_cannot_be_pickled_fails_its_own_call_and_is_named(make: Make) -> None:
    with make(2) as pool:
        error = fails_alone(pool, (fail_lock,))
        expect_in("the text", f"{error} {error.__cause__}")


@case
def an_error_that_is_frozen_fails_its_own_call_and_arrives(make: Make) -> None:
    with make(2) as pool:
        expect(getattr(fails_alone(pool, (fail_frozen,)), "number", None), 5)


# ------------------------------------------------------------------ functions


@case
def a_lambda_can_be_called(make: Make) -> None:
    with make(1) as pool:
        expect(pool.submit(lambda x: x + 1, 1).result(PATIENCE), 2)


@case
def a_closure_can_be_called(make: Make) -> None:
    factor = 3

    def times(number: int) -> int:
        return factor * number

    with make(1) as pool:
        expect(list(pool.map(times, range(3))), [0, 3, 6])


@case
def an_object_of_a_local_class_can_be_sent(make: Make) -> None:
    class Local:
        value = 7

    with make(1) as pool:
        expect(pool.submit(getattr, Local(), "value").result(PATIENCE), 7)
