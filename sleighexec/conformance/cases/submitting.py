"""submit and map, results and errors, what workers are given."""

from __future__ import annotations

import os
import threading
import time
import traceback
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
    expect_in,
    expect_raises,
    expect_that,
    expect_usable,
    wait_at,
    wait_for,
)


class OrderError(Exception):
    """An error with attributes of its own."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(number, what)
        self.number, self.what = number, what


class FalseError(Exception):
    def __bool__(self) -> bool:
        return False


def keywords(**given: Any) -> dict[str, Any]:
    return given


def late(value: int, seconds: float) -> int:
    time.sleep(seconds)
    return value


def divide(number: int) -> float:
    return 60 / number


def fail(error: BaseException) -> None:
    raise error


def fail_with_attributes() -> None:
    error = OrderError(7, "seven")
    error.more = ["attribute"]  # type: ignore[attr-defined]
    raise error


def fail_because() -> None:
    try:
        os.environ["THE FIRST CAUSE"]
    except KeyError as error:
        raise OrderError(1, "one") from error


def fail_with_note() -> None:
    error = ValueError("noted")
    error.add_note("a note of the task")
    raise error


def give(value: Any) -> Any:
    return value


_prepared: list[int] = []


def prepare(*values: int) -> None:
    _prepared.extend(values)


def prepared() -> list[int]:
    return _prepared


def worker_name() -> int:
    return os.getpid()


# ------------------------------------------------------------------ submit


@case
def submit_gives_the_result(make: Make) -> None:
    with make(2) as pool:
        expect(pool.submit(pow, 2, 5).result(PATIENCE), 32)
        expect(pool.submit(int, "ff", base=16).result(PATIENCE), 255)


@case
def a_call_may_have_arguments_named_self_and_fn(make: Make) -> None:
    with make(1) as pool:
        future = pool.submit(keywords, self=1, fn=2)
        expect(future.result(PATIENCE), {"self": 1, "fn": 2})


@case
def submit_without_a_function_is_a_type_error(make: Make) -> None:
    with make(1) as pool:
        expect_raises(TypeError, pool.submit)


@case
def many_threads_may_submit(make: Make) -> None:
    with make(2) as pool:
        sums: list[int] = []

        def submit_some() -> None:
            futures = [pool.submit(abs, -n) for n in range(50)]
            sums.append(sum(future.result(PATIENCE) for future in futures))

        threads = [threading.Thread(target=submit_some, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        expect(sums, [sum(range(50))] * 8)


@case
def big_arguments_and_results_travel(make: Make) -> None:
    big = os.urandom(1024) * (32 * 1024)
    with make(2) as pool:
        expect(pool.submit(len, big).result(PATIENCE), len(big))
        expect_that(pool.submit(give, big).result(PATIENCE) == big, "the bytes are others")


@case
def a_thousand_calls_give_a_thousand_results(make: Make) -> None:
    with make(2) as pool:
        futures = [pool.submit(abs, -n) for n in range(1000)]
        expect([future.result(PATIENCE) for future in futures], list(range(1000)))


# ------------------------------------------------------------------ workers


@case
def as_many_calls_run_at_once_as_there_are_workers(make: Make) -> None:
    with make(3) as pool, Gate() as gate:
        futures = gate.occupy(pool, 3)
        gate.open()
        expect([future.result(PATIENCE) for future in futures], ["0", "1", "2"])


@case
def no_more_calls_run_at_once_than_there_are_workers(make: Make) -> None:
    with make(2) as pool, Gate() as gate:
        gate.occupy(pool, 2)
        pool.submit(os.mkdir, os.path.join(gate.folder, "third"))
        time.sleep(MOMENT)
        expect(gate.begun(), {"0", "1"})


@case
def max_workers_of_zero_is_a_value_error(make: Make) -> None:
    expect_raises(ValueError, make, 0)
    expect_raises(ValueError, make, -1)


@case
def a_worker_lives_on_after_a_call(make: Make) -> None:
    with make(1) as pool:
        pids = {pool.submit(worker_name).result(PATIENCE) for _ in range(5)}
        expect(len(pids), 1)
        expect_that(os.getpid() not in pids, "the call ran in the caller's process")


@case
def the_initializer_runs_before_the_first_call(make: Make) -> None:
    with make(2, initializer=prepare, initargs=(1, 2)) as pool:
        for future in [pool.submit(prepared) for _ in range(6)]:
            expect(future.result(PATIENCE), [1, 2])


# ------------------------------------------------------------------ map


@case
def map_keeps_the_order(make: Make) -> None:
    with make(2) as pool:
        expect(list(pool.map(late, range(4), [0.3, 0.2, 0.1, 0])), [0, 1, 2, 3])


@case
def map_ends_with_the_shortest_iterable(make: Make) -> None:
    with make(2) as pool:
        expect(list(pool.map(pow, range(100), [2, 2, 2])), [0, 1, 4])
        expect(list(pool.map(pow, [], [2])), [])


@case
def map_gives_the_same_with_any_chunksize(make: Make) -> None:
    with make(2) as pool:
        for size in (1, 3, 7, 100):
            expect(list(pool.map(abs, range(-20, 0), chunksize=size)), list(range(20, 0, -1)))


@case
def map_with_a_chunksize_of_zero_is_a_value_error(make: Make) -> None:
    with make(1) as pool:
        expect_raises(ValueError, lambda: list(pool.map(abs, [1], chunksize=0)))


@case
def map_raises_the_error_at_its_place(make: Make) -> None:
    with make(2) as pool:
        results = pool.map(divide, [1, 2, 0, 3])
        expect([next(results), next(results)], [60.0, 30.0])
        expect_raises(ZeroDivisionError, next, results)


@case
def map_submits_before_it_is_iterated(make: Make) -> None:
    with make(1) as pool, Gate() as gate:
        folder = os.path.join(gate.folder, "made")
        results = pool.map(os.mkdir, [folder])
        wait_for(lambda: os.path.exists(folder), "the call of a map that nobody iterates runs")
        expect(list(results), [None])


@case
def a_map_out_of_time_gives_what_was_ready_and_then_a_timeout_error(make: Make) -> None:
    from concurrent.futures import TimeoutError

    with make(1) as pool, Gate() as gate:
        expect_usable(pool)
        results = pool.map(late, [1, 2], [0, 1.5], timeout=1)
        expect(next(results), 1)
        expect_raises(TimeoutError, next, results)
        gate.open()


@case
def closing_a_map_cancels_what_has_not_begun(make: Make) -> None:
    with make(1) as pool, Gate() as gate:
        results = pool.map(step, range(20), [gate.folder] * 20)
        expect(next(results), 0)
        results.close()  # type: ignore[attr-defined]
        gate.open()
        expect_usable(pool)
    # The standard library's queue holds a few that cannot be taken back; not all of them, though.
    expect_that(len(gate.begun()) < 10, "more than half of the calls ran all the same")


def step(number: int, folder: str) -> int:
    """The first comes through at once, the others wait at the gate."""
    if number:
        wait_at(folder, str(number))
    return number


# ------------------------------------------------------------------ errors


@case
def the_error_of_the_call_is_the_error_of_the_future(make: Make) -> None:
    with make(1) as pool:
        expect_error(pool.submit(divmod, 1, 0), ZeroDivisionError)
        expect_raises(ZeroDivisionError, pool.submit(divmod, 1, 0).result, PATIENCE)
        expect_usable(pool)


@case
def an_error_keeps_its_attributes(make: Make) -> None:
    with make(1) as pool:
        error = expect_error(pool.submit(fail_with_attributes), OrderError)
        expect((error.args, error.number, error.what), ((7, "seven"), 7, "seven"))
        expect(error.more, ["attribute"])


@case
def an_error_shows_where_in_the_worker_it_was_raised(make: Make) -> None:
    with make(1) as pool:
        error = expect_error(pool.submit(fail_with_attributes), OrderError)
        shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        expect_in("in fail_with_attributes", shown)


@case
def an_error_shows_its_cause(make: Make) -> None:
    with make(1) as pool:
        error = expect_error(pool.submit(fail_because), OrderError)
        shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        expect_in("KeyError: 'THE FIRST CAUSE'", shown)


@case
def an_error_has_its_cause_as_an_object(make: Make) -> None:
    with make(1) as pool:
        error = expect_error(pool.submit(fail_because), OrderError)
        chain = []
        while error is not None:
            chain.append(type(error))
            error = error.__cause__
        expect_in(KeyError, chain)


@case
def an_error_keeps_its_notes(make: Make) -> None:
    if not hasattr(ValueError, "add_note"):
        raise NotOffered("this Python has no notes")
    with make(1) as pool:
        error = expect_error(pool.submit(fail_with_note), ValueError)
        expect_in("a note of the task", getattr(error, "__notes__", ()))


@case
def an_error_that_is_false_is_an_error(make: Make) -> None:
    with make(1) as pool:
        expect_raises(FalseError, pool.submit(fail, FalseError()).result, PATIENCE)


@case
def an_exception_that_is_returned_is_a_result(make: Make) -> None:
    with make(1) as pool:
        expect(repr(pool.submit(give, ValueError(1)).result(PATIENCE)), "ValueError(1)")


@case
def a_call_that_exits_has_SystemExit_as_its_error(make: Make) -> None:
    with make(1) as pool:
        expect(expect_error(pool.submit(fail, SystemExit(3)), SystemExit).code, 3)
        expect_usable(pool)


@case
def a_call_that_raises_KeyboardInterrupt_fails_alone(make: Make) -> None:
    with make(1) as pool:
        expect_error(pool.submit(fail, KeyboardInterrupt()), KeyboardInterrupt)
        expect_usable(pool)


@case
def a_call_without_end_of_recursion_fails_alone(make: Make) -> None:
    with make(1) as pool:
        expect_error(pool.submit(recurse), RecursionError)
        expect_usable(pool)


def recurse() -> None:
    recurse()
