"""A worker dies: its call fails, others do not, and nobody waits for ever."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from typing import Any

from sleighexec.conformance.case import (
    PATIENCE,
    Gate,
    Make,
    case,
    case_for,
    expect,
    expect_error,
    expect_raises,
    expect_that,
    expect_usable,
    wait_for,
)

WAYS = ("os._exit", "SIGKILL", "SIGSEGV")


def die(way: str) -> None:
    if way == "os._exit":
        os._exit(3)
    if way == "SIGSEGV":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3 * PATIENCE)


def die_at(number: int, last: int) -> int:
    if number == last:
        die("SIGKILL")
    return number


class DiesAtPickle:
    def __reduce__(self) -> tuple[type, tuple[()]]:
        die("SIGKILL")
        return DiesAtPickle, ()


@case_for(*WAYS)
def a_call_whose_worker_dies_fails_promptly(make: Make, way: str) -> None:
    with make(2) as pool:
        expect_error(pool.submit(die, way), BrokenExecutor)


@case_for(*WAYS)
def a_call_that_runs_beside_a_dying_worker_survives(make: Make, way: str) -> None:
    with make(2) as pool, Gate() as gate:
        [bystander] = gate.occupy(pool, 1)
        expect_error(pool.submit(die, way))
        gate.open()
        expect(bystander.result(PATIENCE), "0")


@case_for(*WAYS)
def calls_that_wait_behind_a_dying_worker_survive(make: Make, way: str) -> None:
    with make(1) as pool:
        victim = pool.submit(die, way)
        others = [pool.submit(abs, -n) for n in range(20)]
        expect_error(victim)
        expect([future.result(PATIENCE) for future in others], list(range(20)))


@case_for(*WAYS)
def a_pool_takes_calls_after_a_death(make: Make, way: str) -> None:
    with make(2) as pool:
        expect_error(pool.submit(die, way))
        expect_usable(pool)


@case
def a_pool_survives_many_deaths(make: Make) -> None:
    with make(2) as pool:
        for _ in range(6):
            expect_error(pool.submit(die, "SIGKILL"))
        expect_usable(pool)


@case
def the_error_says_what_the_worker_died_of(make: Make) -> None:
    with make(1) as pool:
        error = expect_error(pool.submit(die, "SIGKILL"))
        shown = f"{error} {error.__cause__}"
        expect_that(any(name in shown for name in ("SIGKILL", "signal 9", "-9")), shown)


@case
def an_idle_worker_that_dies_is_replaced(make: Make) -> None:
    with make(1) as pool:
        os.kill(pool.submit(os.getpid).result(PATIENCE), signal.SIGKILL)
        time.sleep(0.5)
        expect_usable(pool)


@case
def a_stopped_worker_holds_up_its_own_call_only(make: Make) -> None:
    with make(2) as pool:
        pids = {pool.submit(os.getpid).result(PATIENCE) for _ in range(10)}
        pid = pids.pop()
        os.kill(pid, signal.SIGSTOP)
        try:
            others = [pool.submit(time.sleep, 0.01) for _ in range(20)]
            done = wait(others, PATIENCE).done
        finally:
            os.kill(pid, signal.SIGCONT)
        expect_that(len(done) >= 19, f"only {len(done)} of 20 calls were done")


@case
def a_map_gives_what_comes_before_a_death(make: Make) -> None:
    with make(1) as pool:
        results = pool.map(die_at, range(6), [3] * 6)
        expect([next(results) for _ in range(3)], [0, 1, 2])
        expect_raises(BrokenExecutor, next, results)
        expect_usable(pool)


@case
def a_death_while_a_result_is_pickled_fails_its_own_call(make: Make) -> None:
    with make(1) as pool:
        expect_error(pool.submit(DiesAtPickle), BrokenExecutor)
        expect_usable(pool)


@case
def a_death_amid_big_arguments_hangs_nobody(make: Make) -> None:
    big = b"x" * 8_000_000
    with make(2) as pool:
        victim = pool.submit(die, "SIGKILL")
        others = [pool.submit(len, big) for _ in range(6)]
        expect_error(victim)
        for future in others:
            future.exception(PATIENCE)


@case
def shutdown_after_a_death_returns(make: Make) -> None:
    pool: Executor = make(2)
    with Gate() as gate:
        future: Future[Any] = pool.submit(die, "os._exit")
        others: list[Future[Any]] = [pool.submit(abs, -n) for n in range(10)]
        others[-1].cancel()
        pool.shutdown(wait=True)
        wait_for(lambda: all(f.done() for f in [future, *others]), "all futures are done")
        gate.open()


@case
def an_initializer_that_dies_hangs_nobody(make: Make) -> None:
    with make(1, initializer=die, initargs=("os._exit",)) as pool:
        expect_error(pool.submit(abs, 1), BrokenExecutor)
