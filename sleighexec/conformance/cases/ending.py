"""shutdown, collection, and the end of the interpreter's use of a pool."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import weakref
from concurrent.futures import BrokenExecutor, CancelledError, Executor, wait
from typing import Any

from sleighexec.conformance.case import (
    PATIENCE,
    Gate,
    Make,
    case,
    expect,
    expect_error,
    expect_in,
    expect_raises,
    expect_that,
    wait_for,
)


class Thing:
    """Something that can be pickled and weakly referred to."""

    def method(self) -> int:
        return 1


def make_thing(_: object = None) -> Thing:
    return Thing()


def fail() -> None:
    raise ValueError("no such table")


@case
def the_class_is_an_executor(make: Make) -> None:
    with make(1) as pool:
        expect_that(isinstance(pool, Executor), "it is no concurrent.futures.Executor")


@case
def leaving_with_waits_for_all_calls(make: Make) -> None:
    with make(2) as pool:
        futures = [pool.submit(time.sleep, 0.1) for _ in range(6)]
    expect([future.done() for future in futures], [True] * 6)


@case
def shutdown_without_waiting_returns_at_once_and_finishes_all_calls(make: Make) -> None:
    pool = make(1)
    with Gate() as gate:
        [first] = gate.occupy(pool, 1)
        others = [pool.submit(abs, -n) for n in range(10)]
        pool.shutdown(wait=False)
        expect(first.done(), False)
        gate.open()
        expect(first.result(PATIENCE), "0")
        expect([future.result(PATIENCE) for future in others], list(range(10)))


@case
def shutdown_may_cancel_what_has_not_begun(make: Make) -> None:
    pool = make(1)
    with Gate() as gate:
        [first] = gate.occupy(pool, 1)
        others = [pool.submit(abs, -n) for n in range(20)]
        pool.shutdown(wait=False, cancel_futures=True)
        gate.open()
        expect(first.result(PATIENCE), "0")
        expect_raises(CancelledError, others[-1].result, PATIENCE)
    pool.shutdown()
    expect([future.done() for future in others], [True] * 20)


@case
def who_waits_for_a_call_that_shutdown_cancels_is_told(make: Make) -> None:
    pool = make(1)
    with Gate() as gate:
        gate.occupy(pool, 1)
        last = [pool.submit(abs, -n) for n in range(20)][-1]
        args = {"wait": False, "cancel_futures": True}
        threading.Timer(0.1, pool.shutdown, kwargs=args).start()
        expect(wait([last], PATIENCE / 2).done, {last})
    pool.shutdown()


@case
def shutdown_may_be_called_again(make: Make) -> None:
    pool = make(1)
    expect(pool.submit(abs, -1).result(PATIENCE), 1)
    pool.shutdown()
    pool.shutdown()
    pool.shutdown(wait=False)


@case
def a_second_shutdown_may_cancel_what_the_first_did_not(make: Make) -> None:
    pool = make(1)
    with Gate() as gate:
        gate.occupy(pool, 1)
        others = [pool.submit(abs, -n) for n in range(20)]
        pool.shutdown(wait=False)
        pool.shutdown(wait=False, cancel_futures=True)
        expect_raises(CancelledError, others[-1].result, PATIENCE / 2)


@case
def shutdown_of_an_unused_pool_returns(make: Make) -> None:
    make(2).shutdown()


@case
def submit_and_map_after_shutdown_are_runtime_errors(make: Make) -> None:
    pool = make(1)
    pool.shutdown()
    expect_raises(RuntimeError, pool.submit, abs, 1)
    expect_raises(RuntimeError, pool.map, abs, [1])


@case
def submit_cancel_and_shutdown_at_once_return(make: Make) -> None:
    for _ in range(5):
        with make(1) as pool:
            pool.submit(time.sleep, 0.01).cancel()


@case
def a_failing_initializer_breaks_the_pool(make: Make) -> None:
    logging.disable(logging.CRITICAL)
    pool = make(1, initializer=fail)
    expect_error(pool.submit(abs, 1), BrokenExecutor)
    expect_raises(BrokenExecutor, pool.submit, abs, 1)
    pool.shutdown()


@case
def a_failing_initializer_is_the_cause_of_the_error(make: Make) -> None:
    logging.disable(logging.CRITICAL)
    with make(1, initializer=fail) as pool:
        error = expect_error(pool.submit(abs, 1), BrokenExecutor)
        expect_in("no such table", f"{error} {error.__cause__}")


@case
def a_collected_pool_finishes_its_calls(make: Make) -> None:
    pool = make(1)
    futures = [pool.submit(abs, -n) for n in range(20)]
    del pool
    gc.collect()
    expect([future.result(PATIENCE) for future in futures], list(range(20)))


@case
def a_collected_pool_finishes_its_map(make: Make) -> None:
    expect(list(make(1).map(abs, range(-5, 0))), [5, 4, 3, 2, 1])


@case
def a_pool_is_collected_without_shutdown(make: Make) -> None:
    pool = make(1)
    expect(pool.submit(abs, -1).result(PATIENCE), 1)
    seen = weakref.ref(pool)
    del pool
    gc.collect()
    wait_for(lambda: seen() is None, "the pool is collected")


@case
def a_pool_keeps_no_argument_of_a_finished_call(make: Make) -> None:
    with make(1) as pool:
        thing = Thing()
        seen = weakref.ref(thing)
        expect(pool.submit(thing.method).result(PATIENCE), 1)
        del thing
        wait_for(lambda: seen() is None, "the argument is dropped")


@case
def a_pool_keeps_no_result_that_nobody_has(make: Make) -> None:
    with make(1) as pool:
        future = pool.submit(make_thing)
        seen = weakref.ref(future.result(PATIENCE))
        del future
        wait_for(lambda: seen() is None, "the result is dropped")


@case
def a_map_keeps_no_result_that_it_has_given_out(make: Make) -> None:
    with make(1) as pool:
        for thing in pool.map(make_thing, range(3)):
            seen = weakref.ref(thing)
            del thing
            wait_for(lambda seen=seen: seen() is None, "the result is dropped")  # type: ignore[misc]


@case
def many_pools_leave_no_thread_and_no_descriptor(make: Make) -> None:
    def count() -> int:
        return len(os.listdir("/dev/fd")) + threading.active_count()

    def use() -> None:
        with make(1) as pool:
            expect(pool.submit(abs, -1).result(PATIENCE), 1)

    use()  # what is there once for all pools
    before = count()
    for _ in range(5):
        use()
    wait_for(lambda: count() <= before, "threads and descriptors are gone")


@case
def pools_of_several_threads_do_not_disturb_each_other(make: Make) -> None:
    results: list[Any] = []

    def use(number: int) -> None:
        with make(1) as pool:
            results.append(pool.submit(abs, -number).result(PATIENCE))

    threads = [threading.Thread(target=use, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    expect(sorted(results), [0, 1, 2, 3])
