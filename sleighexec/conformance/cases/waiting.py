"""Timeouts, cancelling, callbacks, and futures among those of other executors."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import (
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    TimeoutError,
    as_completed,
    wait,
)
from typing import Any

from sleighexec.conformance.case import (
    MOMENT,
    PATIENCE,
    Gate,
    Make,
    NotOffered,
    case,
    expect,
    expect_error,
    expect_raises,
    expect_that,
    expect_usable,
    wait_for,
)


@case
def a_result_out_of_time_is_a_timeout_error_and_the_call_goes_on(make: Make) -> None:
    with make(1) as pool, Gate() as gate:
        [future] = gate.occupy(pool, 1)
        expect_raises(TimeoutError, future.result, 0.05)
        expect_raises(TimeoutError, future.exception, 0.05)
        expect(future.done(), False)
        gate.open()
        expect(future.result(PATIENCE), "0")


@case
def a_call_that_has_begun_is_running_and_cannot_be_cancelled(make: Make) -> None:
    with make(1) as pool, Gate() as gate:
        [future] = gate.occupy(pool, 1)
        wait_for(future.running, "the future is running")
        expect(future.cancel(), False)
        gate.open()
        expect(future.result(PATIENCE), "0")


@case
def a_call_far_back_in_the_queue_can_be_cancelled(make: Make) -> None:
    with make(1) as pool, Gate() as gate:
        gate.occupy(pool, 1)
        last = [pool.submit(abs, -n) for n in range(20)][-1]
        expect_that(last.cancel(), "cancel() said no")
        expect((last.cancelled(), last.done()), (True, True))
        expect_raises(CancelledError, last.result, PATIENCE)


@case
def every_call_that_has_not_begun_can_be_cancelled(make: Make) -> None:
    with make(1) as pool, Gate() as gate:
        gate.occupy(pool, 1)
        futures = [pool.submit(abs, -n) for n in range(3)]
        time.sleep(MOMENT)
        expect([future.running() for future in futures], [False] * 3)
        expect([future.cancel() for future in futures], [True] * 3)


@case
def a_cancelled_call_does_not_run(make: Make) -> None:
    with make(1) as pool, Gate() as gate:
        gate.occupy(pool, 1)
        futures = [pool.submit(abs, n) for n in range(10)]
        cancelled = [future.cancel() for future in futures]
        gate.open()
        expect_usable(pool)
        expect([future.cancelled() for future in futures], cancelled)


@case
def who_waits_for_a_cancelled_call_wakes_at_once(make: Make) -> None:
    with make(1) as pool, Gate() as gate:
        gate.occupy(pool, 1)
        last = [pool.submit(abs, -n) for n in range(20)][-1]
        threading.Timer(0.1, last.cancel).start()
        expect(wait([last], PATIENCE / 4).done, {last})


@case
def a_callback_gets_the_future_once(make: Make) -> None:
    seen: list[Future[Any]] = []
    with make(1) as pool, Gate() as gate:
        [future] = gate.occupy(pool, 1)
        future.add_done_callback(seen.append)
        gate.open()
        future.result(PATIENCE)
        wait_for(lambda: seen, "the callback is called")
        future.add_done_callback(seen.append)  # is done already: it is called now
        expect(seen, [future, future])


@case
def a_callback_that_raises_stops_no_other(make: Make) -> None:
    logging.getLogger("concurrent.futures").addHandler(logging.NullHandler())
    seen: list[Future[Any]] = []
    with make(1) as pool, Gate() as gate:
        [future] = gate.occupy(pool, 1)
        future.add_done_callback(lambda _: divmod(1, 0))
        future.add_done_callback(seen.append)
        gate.open()
        wait_for(lambda: seen, "the second callback is called")
        expect_usable(pool)


@case
def a_callback_may_submit(make: Make) -> None:
    results: list[int] = []
    done = threading.Event()
    with make(1) as pool:

        def go_on(future: Future[int]) -> None:
            results.append(future.result())
            if len(results) == 20:
                done.set()
            else:
                pool.submit(abs, -len(results)).add_done_callback(go_on)

        pool.submit(abs, 0).add_done_callback(go_on)
        expect_that(done.wait(PATIENCE), "the chain of callbacks stopped")
    expect(results, list(range(20)))


@case
def a_callback_may_shut_the_pool_down(make: Make) -> None:
    pool = make(1)
    problems: list[BaseException] = []
    ended = threading.Event()

    def shut_down(_: Future[Any]) -> None:
        try:
            pool.shutdown(wait=True)
        except BaseException as error:
            problems.append(error)
        ended.set()

    with Gate() as gate:
        [future] = gate.occupy(pool, 1)
        future.add_done_callback(shut_down)
        gate.open()
        expect_that(ended.wait(PATIENCE), "shutdown did not return")
        expect(problems, [])


@case
def wait_mixes_with_futures_of_threads(make: Make) -> None:
    with make(1) as pool, ThreadPoolExecutor(1) as threads, Gate() as gate:
        [slow] = gate.occupy(pool, 1)
        quick: Future[Any] = threads.submit(abs, -1)
        done, pending = wait([slow, quick], PATIENCE, FIRST_COMPLETED)
        expect((done, pending), ({quick}, {slow}))
        gate.open()
        expect(wait([slow, quick], PATIENCE).not_done, set())


@case
def wait_returns_at_the_first_error(make: Make) -> None:
    with make(2) as pool, Gate() as gate:
        [slow] = gate.occupy(pool, 1)
        failing: Future[Any] = pool.submit(divmod, 1, 0)
        expect(wait([slow, failing], PATIENCE, FIRST_EXCEPTION).done, {failing})


@case
def as_completed_mixes_with_futures_of_threads(make: Make) -> None:
    with make(1) as pool, ThreadPoolExecutor(1) as threads, Gate() as gate:
        [slow] = gate.occupy(pool, 1)
        quick: Future[Any] = threads.submit(abs, -1)
        found = as_completed([slow, quick], PATIENCE)
        expect(next(found), quick)
        gate.open()
        expect(next(found), slow)


@case
def as_completed_out_of_time_is_a_timeout_error(make: Make) -> None:
    with make(1) as pool, Gate() as gate:
        futures = gate.occupy(pool, 1)
        expect_raises(TimeoutError, list, as_completed(futures, 0.05))


@case
def asyncio_can_await_a_call(make: Make) -> None:
    async def both() -> list[int]:
        loop = asyncio.get_running_loop()
        calls = (loop.run_in_executor(pool, abs, -n) for n in range(10))
        return await asyncio.wait_for(asyncio.gather(*calls), PATIENCE)

    with make(2) as pool:
        expect(asyncio.run(both()), list(range(10)))


@case
def a_call_over_its_time_fails_alone(make: Make) -> None:
    """For a class whose `options(timeout=…)` gives each call so many seconds."""
    with make(2) as pool:
        try:
            limited = pool.options(timeout=0.5)  # type: ignore[attr-defined]
        except (AttributeError, TypeError, ValueError):
            raise NotOffered("the class has no options(timeout=…)") from None
        expect_error(limited.submit(time.sleep, 3 * PATIENCE), TimeoutError)
        expect_usable(pool)
