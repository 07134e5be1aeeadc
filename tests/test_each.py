"""eachElem and eachWorker of SleighExecutor, and the SleighPending they give."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, as_completed, wait
from concurrent.futures import TimeoutError as FuturesTimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sleighexec import SleighExecutor, SleighPending, WorkerLost, current_worker, errors
from sleighexec.functions import PLAIN
from sleighexec.gathering import Gathering
from sleighexec.pending import Accumulator, Policy
from tests.conftest import in_threads, wait_for

PATIENCE = 20


def args(*a: object) -> tuple[object, ...]:
    return a


def invert(x: float) -> float:
    return 1 / x


def rank(*_: object) -> int:
    return current_worker().rank


def pid(*_: object) -> int:
    return os.getpid()


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not this one")


# ---------------------------------------------------------------------- eachElem


def test_the_article(three: SleighExecutor) -> None:
    r = three.eachElem(lambda x: x * x * x, range(100))
    assert len(r) == 100
    assert r[2:5] == [8, 27, 64]
    assert three.eachElem(args, [[1, 2, 3], [11, 12, 13]], [99]) == [
        (1, 11, 99),
        (2, 12, 99),
        (3, 13, 99),
    ]
    assert three.eachElem(args, [[1, 2, 3]], [99], argPermute=[1, 0]) == [
        (99, n) for n in (1, 2, 3)
    ]
    assert three.each_elem(args, [1]) == [(1,)]


HOWS = list(itertools.product([True, False], [None, 0, 0.4, 1, 3], [None, 1, 3, 1000]))


def test_results_do_not_depend_on_how(three: SleighExecutor) -> None:
    expected = [([7], n, str(n)) for n in range(50)]
    for blocking, load_factor, chunk_size in HOWS:
        got = three.eachElem(
            args,
            [range(50), (str(n) for n in range(60))],
            [[7]],
            argPermute=[2, 0, 1],
            blocking=blocking,
            loadFactor=load_factor,
            chunkSize=chunk_size,
        )
        result = got if blocking else got.wait(PATIENCE)
        assert result == expected, (blocking, load_factor, chunk_size)


def test_arrays_by_row_and_column(three: SleighExecutor) -> None:
    import numpy as np

    m = np.arange(6.0).reshape(2, 3)
    assert three.eachElem(np.sum, m) == [3, 12]
    assert three.eachElem(np.sum, m, by="column") == [3, 5, 7]
    assert three.eachElem(np.dot, [m], [m[0]]) == [5.0, 14.0]
    big = np.ones((4, 100_000))
    assert three.eachElem(np.sum, big, chunkSize=3) == [100_000] * 4


def test_elements_made_by_a_function(three: SleighExecutor) -> None:
    def element(number: int) -> int:
        if number == 4:
            raise StopIteration
        return number * 10

    assert three.eachElem(args, elementFunc=element) == [(0,), (10,), (20,), (30,)]
    with pytest.raises(errors.IllegalValueError, match="instead"):
        three.eachElem(args, [1], elementFunc=element)


def test_a_load_factor_reads_no_further_than_it_must(three: SleighExecutor) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    def wait_for_a_token(number: int) -> int:
        return int(1 / current_worker().workspace.fetch("token"))

    def run() -> None:
        with pytest.raises(ZeroDivisionError):
            three.eachElem(wait_for_a_token, numbers(), loadFactor=2)

    caller = threading.Thread(target=run)
    caller.start()
    for done, token in enumerate([1, 1, 1, 1, 0]):
        wait_for(lambda done=done: len(read) == done + 6, "the window is full")
        time.sleep(0.02)
        assert len(read) == done + 6, "it reads ahead of its window"
        three.workspace.store("token", token)
    caller.join()
    for _ in range(6):
        three.workspace.store("token", 1)  # for those that are with a worker
    assert three.eachElem(args, [1]) == [(1,)]


def test_nothing_is_sent_when_the_arguments_make_no_calls(
    three: SleighExecutor, tmp_path: Path
) -> None:
    def note(name: str) -> None:
        (tmp_path / name).touch()

    for wrong in (
        {"elementArgs": []},
        {"elementArgs": [["a"], 5]},
        {"elementArgs": ["a"], "argPermute": [3]},
        {"elementArgs": ["a"], "chunkSize": 0},
        {"elementArgs": ["a"], "on_error": "panic"},
        {"elementArgs": ["a"], "accumulator": 5},
        {"elementArgs": ["a"], "type": "define it"},
    ):
        with pytest.raises((errors.IllegalValueError, IndexError)):
            three.eachElem(note, **wrong)
    with pytest.raises(errors.IllegalValueError, match="function or a string"):
        three.eachElem(5, ["a"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="chunksize"):
        three.eachElem(note, ["a"], chunksize=3)  # type: ignore[call-arg]
    assert list(tmp_path.iterdir()) == []


def test_errors_raised_returned_or_skipped(three: SleighExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        three.eachElem(invert, [1, 0, 2])
    returned = three.eachElem(invert, [1, 0, 2], on_error="return")
    assert [type(r) for r in returned] == [float, ZeroDivisionError, float]
    assert three.eachElem(invert, [1, 0, 2, 0], on_error="skip") == [1, 0.5]


def test_the_first_error_to_arrive_is_raised_and_the_rest_cancelled(
    three: SleighExecutor, tmp_path: Path
) -> None:
    def sleep_or_fail(number: int) -> None:
        if number == 1:
            raise KeyError(number)
        time.sleep(0.2)
        (tmp_path / str(number)).touch()

    with pytest.raises(KeyError):
        three.eachElem(sleep_or_fail, range(100))
    assert three.eachElem(args, [1]) == [(1,)]
    assert len(list(tmp_path.iterdir())) < 20


@pytest.mark.parametrize("blocking", [True, False])
def test_errors_of_some_among_many(three: SleighExecutor, blocking: bool) -> None:
    def each(**how: Any) -> list[Any]:
        got = three.eachElem(invert, [[n % 1000 for n in range(1, 3003)]], blocking=blocking, **how)
        result: list[Any] = got if blocking else got.wait(PATIENCE)
        return result

    expected = [n % 1000 and 1 / (n % 1000) for n in range(1, 3003)]
    returned = each(on_error="return")
    assert [0 if isinstance(x, ZeroDivisionError) else x for x in returned] == expected
    assert each(on_error="skip") == [x for x in expected if x]
    with pytest.raises(ZeroDivisionError):
        each()


def test_an_error_that_comes_behind_a_result_does_not_count(three: SleighExecutor) -> None:
    function = three._functions.define(invert)
    assert function is not None
    job = Gathering(Policy(), three._engine, function, three._settings, 1, None, None)
    job.add(PLAIN, [(1,), (2,), (3,)])
    job.deliver(1, 5, None)
    job.deliver(1, None, KeyError())
    job.deliver_run(0, [4])
    job.deliver(2, 6, None)
    assert job.gather() == [4, 5, 6]


@pytest.mark.parametrize("blocking", [True, False])
def test_elements_that_travel_together_share_nothing(three: SleighExecutor, blocking: bool) -> None:
    def grow(row: list[Any]) -> int:
        row.append(row)
        return len(row)

    for common in ([1], [[1]]):
        got = three.eachElem(grow, [[common] * 12], chunkSize=6, blocking=blocking)
        assert (got if blocking else got.wait(PATIENCE)) == [2] * 12


def test_an_argument_that_cannot_be_pickled_fails_its_element(three: SleighExecutor) -> None:
    for chunk in (1, 4):
        got = three.eachElem(args, [[1, Unpicklable(), 3]], chunkSize=chunk, on_error="return")
        assert got[0] == (1,)
        assert got[2] == (3,)
        assert isinstance(got[1], TypeError)
    with pytest.raises(TypeError, match="not this one"):
        three.eachElem(args, [[1, Unpicklable(), 3]])


@pytest.mark.parametrize("load_factor", [None, 2])
def test_a_generator_that_fails_leaves_nothing_behind(
    three: SleighExecutor, load_factor: float | None, tmp_path: Path
) -> None:
    def broken() -> Iterator[int]:
        yield from range(1500)
        raise OSError("the disk is gone")

    def note(number: int) -> None:
        (tmp_path / str(number)).touch()
        time.sleep(0.001)

    with pytest.raises(OSError, match="the disk is gone"):
        three.eachElem(note, broken(), loadFactor=load_factor)
    assert three.eachElem(args, [1, 2]) == [(1,), (2,)]  # what comes is of this call
    count = len(list(tmp_path.iterdir()))
    assert three.eachElem(args, [1]) == [(1,)]
    assert len(list(tmp_path.iterdir())) == count, "cancelled elements ran"


def test_a_death_costs_its_element_only(three: SleighExecutor) -> None:
    def die_at_three(number: int) -> int:
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    for chunk in (None, 5):
        got = three.eachElem(die_at_three, range(10), chunkSize=chunk, on_error="return")
        assert isinstance(got[3], WorkerLost)
        assert isinstance(got[3], BrokenProcessPool)
        assert got[:3] + got[4:] == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_retries_of_a_view(three: SleighExecutor, tmp_path: Path) -> None:
    def die_once(number: int) -> int:
        mark = tmp_path / str(number)
        if number % 5 == 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    view = three.options(retries=1)
    assert view.eachElem(die_once, range(12), chunkSize=4) == list(range(12))
    assert sorted(view.eachWorker(rank)) == [0, 1, 2]


# ---------------------------------------------------------------------- accumulators


class Collector:
    def __init__(self) -> None:
        self.results: list[Any] = []
        self.errors: list[Any] = []

    def result(self, pairs: list[tuple[int, Any]]) -> None:
        self.results += pairs

    def error(self, pairs: list[tuple[int, Any]]) -> None:
        self.errors += pairs

    def value(self) -> str:
        return f"{len(self.results)} and {len(self.errors)}"


@pytest.mark.parametrize("how", [{}, {"blocking": False}, {"loadFactor": 1}])
def test_an_accumulator_in_both_styles(three: SleighExecutor, how: dict[str, Any]) -> None:
    def result_of(got: Any) -> Any:
        return got.wait(PATIENCE) if isinstance(got, SleighPending) else got

    pairs: list[Any] = []
    assert result_of(three.eachElem(abs, range(-20, 0), accumulator=pairs.extend, **how)) is None
    assert sorted(pairs) == [(i, 20 - i) for i in range(20)]
    collector = Collector()
    got = result_of(three.eachElem(invert, [1, 0, 2], accumulator=collector, **how))
    assert got == "2 and 1"
    assert sorted(collector.results) == [(0, 1), (2, 0.5)]
    [(number, error)] = collector.errors
    assert number == 1
    assert isinstance(error, ZeroDivisionError)
    assert result_of(three.eachElem(abs, [-1, -2], accumulator=Accumulator(), **how)) == [1, 2]


def test_results_are_accumulated_as_they_come(three: SleighExecutor) -> None:
    order: list[int] = []
    three.eachElem(
        lambda s: time.sleep(s), [0.5, 0.0], accumulator=lambda pairs: order.append(pairs[0][0])
    )
    assert order == [1, 0]


def test_an_error_without_a_method_for_it(three: SleighExecutor) -> None:
    pairs: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        three.eachElem(invert, [0], accumulator=pairs.extend)
    three.eachElem(invert, [0], accumulator=pairs.extend, on_error="return")
    assert isinstance(pairs[0][1], ZeroDivisionError)
    three.eachElem(invert, [0], accumulator=pairs.extend, on_error="skip")
    assert len(pairs) == 1


def test_an_error_of_the_accumulator_is_raised(three: SleighExecutor) -> None:
    def full(pairs: Any) -> None:
        raise OverflowError("full")

    with pytest.raises(OverflowError):
        three.eachElem(abs, range(100), accumulator=full)
    assert three.eachElem(abs, [-1]) == [1]


# ---------------------------------------------------------------------- SleighPending


def test_a_pending_is_a_sequence_of_futures(three: SleighExecutor) -> None:
    pending = three.eachElem(abs, range(-5, 0), blocking=False)
    assert isinstance(pending, SleighPending)
    assert len(pending) == 5
    assert all(isinstance(future, Future) for future in pending)
    assert wait(pending, PATIENCE).not_done == set()
    assert {future.result() for future in as_completed(pending, PATIENCE)} == {1, 2, 3, 4, 5}
    assert [future.result() for future in pending[1:3]] == [4, 3]
    assert pending[-1].result() == 1
    assert pending[0] in pending
    assert pending.wait() == pending.wait() == list(pending.results()) == [5, 4, 3, 2, 1]
    assert pending.done()
    assert pending.check() == 0
    assert pending.progress() == (5, 5, 0)


def test_who_waits_too_short_is_told_how_many_of_how_many_are_outstanding(
    three: SleighExecutor, tmp_path: Path
) -> None:
    def work(number: int) -> int:
        while number and not (tmp_path / "go").exists():
            time.sleep(0.01)
        return number

    pending = three.eachElem(work, range(4), blocking=False)
    wait_for(lambda: pending.check() == 3, "the first call ends")
    completed = pending.as_completed(timeout=0.1)
    assert next(completed) is pending[0]
    for late in (lambda: next(completed), lambda: pending.wait(0.1)):
        with pytest.raises(FuturesTimeoutError, match="3 of 4 calls have not ended in time"):
            late()
    (tmp_path / "go").touch()
    assert pending.wait(PATIENCE) == list(range(4))


def test_check_counts_down_and_wait_has_a_timeout(three: SleighExecutor) -> None:
    ws = three.workspace
    pending = three.eachElem(
        lambda n: current_worker().workspace.fetch("go"), range(3), blocking=False
    )
    assert pending.check() == 3
    assert not pending.done()
    with pytest.raises(FuturesTimeoutError):
        pending.wait(0.01)
    with pytest.raises(FuturesTimeoutError):
        list(pending.results(0.01))
    with pytest.raises(FuturesTimeoutError):
        list(pending.as_completed(0.01))
    ws.store("go", 1)
    first = next(pending.as_completed(PATIENCE))
    assert first.result() == 1
    assert pending.check() == 2
    for n in (2, 3):
        ws.store("go", n)
    assert sorted(pending.wait(PATIENCE)) == [1, 2, 3]


def test_cancel_and_kill(three: SleighExecutor) -> None:
    pending = three.eachElem(time.sleep, [60] * 8, blocking=False)
    wait_for(lambda: sum(future.running() for future in pending) == 3, "three run")
    assert pending.cancel() == 5
    assert pending.progress() == (8, 5, 5)
    assert pending.kill() == 3
    assert pending.done()
    assert all(future.cancelled() for future in pending)
    with pytest.raises(CancelledError):
        pending.wait()
    assert pending.kill() == 0
    assert three.eachElem(abs, [-1]) == [1]


def test_kill_of_one_running_call_leaves_the_others_alone(three: SleighExecutor) -> None:
    def note_and_sleep(number: int) -> int:
        current_worker().workspace.store("began", number)
        time.sleep(0.5)
        return number

    pending = three.eachElem(note_and_sleep, range(3), blocking=False)
    for _ in range(3):
        three.workspace.fetch("began", timeout=PATIENCE)
    assert three.kill(pending[1])
    assert pending[1].cancelled()
    assert not three.kill(pending[0]) or pending[0].cancelled()
    assert pending[2].result(PATIENCE) == 2
    assert three.workspace.fetchTry("began") is None, "another one ran twice"
    assert not three.kill(pending[2])
    with pytest.raises(TypeError):
        three.kill(Future())  # type: ignore[arg-type]


def test_kill_never_hits_what_ran_before_or_behind_it() -> None:
    """Tiny calls before it in the same batch keep their results; those behind it run once."""
    with SleighExecutor(1) as executor:
        executor.eachElem(abs, range(3000))  # big batches from here on
        began = executor.workspace
        pending = executor.eachElem(
            lambda n: (
                current_worker().workspace.store("began", n),
                time.sleep(60 if n == 50 else 0),
            )[0],
            range(100),
            blocking=False,
        )
        while began.fetch("began", timeout=PATIENCE) != 50:
            pass
        assert executor.kill(pending[50])
        assert pending.progress().failed == 1
        rest = [f.result(PATIENCE) for n, f in enumerate(pending) if n != 50]
        assert rest == [None] * 99
        assert [began.fetch("began", timeout=PATIENCE) for _ in range(49)] == list(range(51, 100))
        assert began.fetchTry("began") is None


def test_kill_in_a_pool_that_breaks_on_crashes_breaks_nothing() -> None:
    with SleighExecutor(1, on_crash="break") as executor:
        future = executor.submit(time.sleep, 60)
        wait_for(future.running, "it runs")
        assert executor.kill(future)
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_await(three: SleighExecutor) -> None:
    import asyncio

    async def main() -> None:
        assert await three.submit(abs, -3) == 3
        pending = three.eachElem(abs, [-1, -2], blocking=False)
        assert await pending == [1, 2]
        assert await asyncio.gather(*pending) == [1, 2]
        both = await asyncio.gather(
            three.eachElem(abs, [-1], blocking=False), three.eachElem(abs, [-2], blocking=False)
        )
        assert both == [[1], [2]]
        with pytest.raises(ZeroDivisionError):
            await three.eachElem(invert, [0, 1], blocking=False)
        slow = three.eachElem(time.sleep, [0.3], blocking=False)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(slow._wait_async(), 0.01)
        assert await slow == [None]

    asyncio.run(main())


def test_many_threads_wait_for_one_pending(three: SleighExecutor) -> None:
    pending = three.eachElem(abs, range(2000), blocking=False)
    got: list[Any] = []
    waiting = [
        threading.Thread(target=lambda: got.append(sum(pending.wait(PATIENCE)))) for _ in range(8)
    ]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert got == [sum(range(2000))] * 8


def test_a_callback_may_wait_for_a_pending(three: SleighExecutor) -> None:
    got: list[Any] = []
    future = three.submit(abs, -1)
    future.add_done_callback(lambda _: got.append(three.eachElem(abs, [-5, -6])))
    wait_for(lambda: got == [[5, 6]], "the callback gets its results")


# ---------------------------------------------------------------------- eachWorker


def test_each_worker_exactly_once_by_rank(three: SleighExecutor) -> None:
    assert three.eachWorker(rank) == [0, 1, 2]
    assert len(set(three.eachWorker(pid))) == 3
    assert three.each_worker(args, 1, [2]) == [(1, [2])] * 3


def test_a_thousand_rounds_of_each_worker(three: SleighExecutor) -> None:
    def count() -> int:
        state = current_worker().state
        state["count"] = state.get("count", 0) + 1
        return state["count"]

    for round_ in range(1, 1001):
        assert three.eachWorker(count) == [round_] * 3


def test_each_worker_among_other_tasks(three: SleighExecutor) -> None:
    """It comes before what waits, disturbs nothing, and runs once on each."""
    others = three.eachElem(lambda n: time.sleep(0.002) or n, range(3000), blocking=False)
    for _ in range(20):
        assert three.eachWorker(rank) == [0, 1, 2]
    assert others.check() > 0
    assert others.wait(PATIENCE) == list(range(3000))


def test_all_workers_run_it_at_the_same_time(three: SleighExecutor) -> None:
    """Each waits for a token of its neighbour: one worker alone would wait for ever."""

    def ring(tokens: int) -> int:
        me, ws = current_worker(), current_worker().workspace
        total = 0
        for token in range(tokens):
            ws.store(f"to {(me.rank + 1) % me.count}", me.rank + token)
            total += ws.fetch(f"to {me.rank}")
        return total

    expected = [sum(((rank_ - 1) % 3) + token for token in range(20)) for rank_ in range(3)]
    assert three.eachWorker(ring, 20) == expected


def test_all_to_all_by_blocking_ifind_while_the_client_watches(three: SleighExecutor) -> None:
    rounds = 30

    def broadcast(rounds: int) -> list[Any]:
        me, ws = current_worker(), current_worker().workspace
        heard = [ws.ifind(f"from {other}") for other in range(me.count)]
        seen = []
        for number in range(rounds):
            ws.store(f"from {me.rank}", (me.rank, number))
            seen.append([next(voice) for voice in heard])
        return seen

    pending = three.eachWorker(broadcast, rounds, blocking=False)
    watch = [three.workspace.ifindTry(f"from {other}") for other in range(3)]
    watched: list[list[Any]] = [[], [], []]
    while not pending.done():
        for seen, iterator in zip(watched, watch):
            iterator.restart()
            seen.extend(iterator)
    expected = [[(other, number) for other in range(3)] for number in range(rounds)]
    assert pending.wait(PATIENCE) == [expected] * 3
    for other, (seen, iterator) in enumerate(zip(watched, watch)):
        iterator.restart()
        assert [*seen, *iterator] == [(other, number) for number in range(rounds)]


def test_what_each_worker_built_is_there_for_later_tasks(three: SleighExecutor) -> None:
    three.eachWorker("import math\nlimit = 10 * SleighArgs[0]", 3)
    assert three.eachElem("limit + SleighArgs[0] + math.floor(0.5)", [1, 2]) == [31, 32]
    three.eachWorker(Unpickled.build, 5)
    assert three.eachElem(Unpickled.look, [1, 2]) == [6, 7]


class Unpickled:
    table: dict[str, int] = {}  # noqa: RUF012

    @classmethod
    def build(cls, value: int) -> None:
        cls.table["x"] = value

    @classmethod
    def look(cls, value: int) -> int:
        return cls.table["x"] + value


def test_invoke_define_and_eval(three: SleighExecutor) -> None:
    assert three.eachElem("SleighArgs", [[1, 2], [3, 4]]) == [[1, 3], [2, 4]]
    assert three.eachElem("  SleighArguments[0] * 2", [4]) == [8]
    assert three.eachElem("x = SleighArgs[0]\nSleighValue = x + 1", [4]) == [5]
    assert three.eachElem("x = 1", [4]) == [None]
    assert three.eachWorker("SleighRank, SleighWorkerCount") == [(0, 3), (1, 3), (2, 3)]
    assert (
        three.eachWorker("SleighNws.currentWs(), SleighUserNws.currentWs()")
        == [("sleigh_ride", "sleigh_user")] * 3
    )
    assert three.eachWorker(args, type="define") == [None] * 3
    assert three.eachElem("args(SleighArgs[0], 2)", [1]) == [(1, 2)]
    assert three.eachWorker(lambda x: x + 1, type=" DEFINE ") == [None] * 3
    assert three.eachElem("SleighFunction(SleighArgs[0])", [1]) == [2]
    assert three.eachElem(args, [1], type="invoke") == [(1,)]
    with pytest.raises(SyntaxError):
        three.eachElem("1 +", [1])
    with pytest.raises(NameError):
        three.eachElem("no_such_name", [1])
    for fun, kind in (("1", "invoke"), ("1", "define"), (args, "eval"), (args, 5)):
        with pytest.raises(errors.IllegalValueError):
            three.eachElem(fun, [1], type=kind)  # type: ignore[arg-type]


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, n: int) -> int:
        self.count += n
        return self.count


def test_bound_methods_callables_and_builtins(three: SleighExecutor) -> None:
    counter = Counter()
    assert three.eachElem(counter.add, [1, 2]) == [1, 2]  # each call has a copy of its own
    assert counter.count == 0
    assert three.eachElem([1, 1, 2].count, [1, 2]) == [2, 1]
    assert three.eachElem(str, [1]) == ["1"]
    assert three.eachWorker(three.options().worker_count.__add__, 1) == [4] * 3


def test_failures_in_each_worker(three: SleighExecutor) -> None:
    def fail_at_one() -> int:
        if current_worker().rank == 1:
            raise KeyError(1)
        return current_worker().rank

    def exit_at_one() -> int:
        if current_worker().rank == 1:
            raise SystemExit(3)
        return current_worker().rank

    def die_at_one() -> int:
        if current_worker().rank == 1:
            os._exit(3)
        return current_worker().rank

    for call, kind in (
        (fail_at_one, KeyError),
        (exit_at_one, SystemExit),
        (die_at_one, WorkerLost),
    ):
        with pytest.raises(kind):
            three.eachWorker(call)
        got = three.eachWorker(call, on_error="return")
        assert got[0] == 0
        assert got[2] == 2
        assert isinstance(got[1], kind)
        assert three.eachWorker(rank) == [0, 1, 2]


def test_a_call_of_each_worker_that_cannot_be_pickled_is_refused_at_once(
    three: SleighExecutor,
) -> None:
    with pytest.raises(TypeError, match="not this one"):
        three.eachWorker(args, Unpicklable())
    assert three.eachWorker(rank) == [0, 1, 2]


def test_each_worker_after_shutdown() -> None:
    with SleighExecutor(1) as executor:
        pass
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.eachWorker(rank)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.eachElem(abs, [1])


# ---------------------------------------------------------------------- sticky


def remember(word: str) -> list[str]:
    words: list[str] = current_worker().state.setdefault("words", [])
    words.append(word)
    return words


def recall(*_: object) -> list[str]:
    words: list[str] = current_worker().state.get("words", [])
    return words


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_sticky_calls_are_repeated_in_order_on_replacements(three: SleighExecutor) -> None:
    three.eachWorker(remember, "a", sticky=True)
    three.eachWorker(remember, "not sticky")
    three.eachWorker(remember, "b", sticky=True)
    assert three.eachWorker(recall) == [["a", "not sticky", "b"]] * 3
    three.eachElem(die, [1, 2], on_error="return")
    assert sorted(map(len, three.eachWorker(recall))) in ([2, 2, 3], [2, 3, 3])
    assert min(three.eachWorker(recall), key=len) == ["a", "b"]


def test_every_replacement_recalls_before_its_first_task(three: SleighExecutor) -> None:
    three.eachWorker(remember, "a", sticky=True)
    pending = three.eachElem(lambda n: die() if n % 3 == 0 else recall(), range(30), blocking=False)
    for number, future in enumerate(pending):
        if number % 3:
            assert future.result(PATIENCE) == ["a"]
        else:
            assert isinstance(future.exception(PATIENCE), WorkerLost)


def test_each_worker_makes_a_sticky_call_once_whenever_it_dies(three: SleighExecutor) -> None:
    """Killed before, while and after its own call waits in its mailbox: never twice, never not."""
    for round_ in range(15):
        victims = three.eachElem(die, range(round_ % 3), blocking=False)
        got = three.eachWorker(remember, str(round_), sticky=True, on_error="return")
        assert len(got) == 3
        assert all(isinstance(f.exception(PATIENCE), WorkerLost) for f in victims)
        wanted = [str(n) for n in range(round_ + 1)]
        assert three.eachWorker(recall) == [wanted] * 3


def test_a_sticky_call_that_failed_or_was_cancelled_is_not_repeated(three: SleighExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        three.eachWorker(invert, 0, sticky=True)
    with SleighExecutor(1) as one:
        busy = one.submit(time.sleep, 0.3)
        pending = one.eachWorker(remember, "never", sticky=True, blocking=False)
        assert pending.cancel() == 1
        busy.result(PATIENCE)
        one.eachElem(die, [1], on_error="return")
        assert one.submit(recall).result(PATIENCE) == []
    three.eachElem(die, [1, 2, 3], on_error="return")
    assert three.eachWorker(recall) == [[]] * 3


def test_a_sticky_call_that_fails_on_a_replacement_breaks_the_pool(tmp_path: Path) -> None:
    """A worker without its state must not take tasks."""

    def once(mark: Path) -> None:
        mark.touch(exist_ok=False)

    with SleighExecutor(1) as executor:
        executor.eachWorker(once, tmp_path / "mark", sticky=True)
        executor.eachElem(die, [1], on_error="return")
        error = executor.submit(abs, 1).exception(PATIENCE)
        assert isinstance(error, errors.PoolBrokenError)
        assert "sticky" in str(error)
        assert isinstance(error.__cause__, FileExistsError)


def test_sticky_and_initializer_and_max_tasks_per_child() -> None:
    with SleighExecutor(
        1, initializer=remember, initargs=("first",), max_tasks_per_child=3
    ) as executor:
        executor.eachWorker(remember, "second", sticky=True)
        got = [executor.submit(recall).result(PATIENCE) for _ in range(10)]
        assert got == [["first", "second"]] * 10


# ---------------------------------------------------------------------- output


def say(text: str) -> None:
    print(text)


def test_prints_come_into_output_at_rank(three: SleighExecutor, capfd: Any) -> None:
    def chatter() -> None:
        print("one\ntwo", end="")
        print(" and a half")
        print("partial", end="")
        os.sys.stderr.write("to stderr\n")  # type: ignore[attr-defined]

    three.eachWorker(chatter)
    ride = three.workspace.server.openWs("sleigh_ride")
    for number in range(3):
        lines = [ride.fetch(f"output@{number}", timeout=PATIENCE) for _ in range(3)]
        assert lines == ["one", "two and a half", "to stderr"]
    three.shutdown()
    shown = capfd.readouterr().out  # three processes write it, and print writes an end apart
    pieces = "one\n", "two", " and a half", "\n", "partial"
    assert [shown.count(piece) for piece in pieces] == [3, 3, 3, 6, 3]
    assert len(shown) == sum(map(len, pieces)) * 3


def test_output_of_a_running_call_comes_while_it_runs(three: SleighExecutor) -> None:
    def talk() -> None:
        print("I am at it")
        current_worker().workspace.fetch("stop")

    future = three.submit(talk)
    ride = three.workspace.server.openWs("sleigh_ride")
    wait_for(lambda: "output@" in ride.listVars(), "the line comes")
    three.workspace.store("stop", 1)
    future.result(PATIENCE)


def test_endless_output_is_bounded(three: SleighExecutor, capfd: Any) -> None:
    def shout() -> None:
        for number in range(5000):
            print(number)
        print("x" * 100_000)

    three.eachWorker(shout)
    capfd.readouterr()
    ride = three.workspace.server.openWs("sleigh_ride")
    for number in range(3):
        rows = ride.listVars(format="dict")
        assert rows[f"output@{number}"][1] == 1000
        assert int(ride.fetch(f"output@{number}")) > 3000


def test_output_can_be_left_alone(capfd: Any) -> None:
    with SleighExecutor(1, capture_output=False) as executor:
        executor.submit(say, "hello").result(PATIENCE)
        ride = executor.workspace.server.openWs("sleigh_ride")
        assert ride.listVars() == ""
    assert capfd.readouterr().out == "hello\n"


# ---------------------------------------------------------------------- several threads, places


def test_two_threads_use_one_executor_and_one_workspace(three: SleighExecutor) -> None:
    def work(me: int) -> None:
        for round_ in range(20):
            base = 1000 * me + round_
            assert three.eachElem(abs, [-base, -base - 1]) == [base, base + 1]
            assert three.eachWorker(args, base) == [(base,)] * 3
            three.workspace.store(f"mine {me}", base)
            assert three.workspace.fetch(f"mine {me}") == base

    in_threads(work, (1, 2))


def test_several_launchers_make_one_pool() -> None:
    from sleighexec import Local

    places = [Local(1, prefix=("env", "PLACE=a")), Local(2, prefix=("env", "PLACE=b"))]
    with SleighExecutor(launcher=places) as executor:
        assert executor.worker_count == 3
        assert executor.eachWorker(os.getenv, "PLACE") == ["a", "b", "b"]
        executor.eachElem(die, [1, 2, 3, 4], on_error="return")
        assert executor.eachWorker(os.getenv, "PLACE") == ["a", "b", "b"]


# ---------------------------------------------------------------------- big constants


class Counted:
    """Counts how often it was pickled."""

    pickled = 0

    def __init__(self, size: int) -> None:
        self.items = [0] * size

    def __getstate__(self) -> dict[str, Any]:
        Counted.pickled += 1
        return self.__dict__


def grow(number: int, counted: Counted) -> int:
    counted.items.append(number)
    return len(counted.items)


@pytest.mark.parametrize("size", [10, 600_000], ids=["small", "big"])
def test_each_call_has_a_fixed_argument_of_its_own(
    three: SleighExecutor, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Whatever calls do to theirs, and on how many workers: also where it travels once."""
    monkeypatch.setattr(Counted, "pickled", 0)
    assert three.eachElem(grow, range(12), [Counted(size)]) == [size + 1] * 12
    assert (Counted.pickled == 1) == (size > 10)


def test_each_call_of_a_map_has_a_function_of_its_own(three: SleighExecutor) -> None:
    for size in (10, 600_000):
        items = [0] * size
        assert list(three.map(partial(grown, items), range(12))) == [size + 1] * 12


def grown(items: list[int], number: int) -> int:
    items.append(number)
    return len(items)


@pytest.mark.parametrize("kind", ["bytes", "text", "array"])
def test_big_values_of_every_kind(three: SleighExecutor, kind: str) -> None:
    import numpy as np

    big = {"bytes": b"x" * 1_500_000, "text": "x" * 1_500_000, "array": np.ones(200_000)}
    value: Any = big[kind]
    assert three.eachElem(lambda n, value: n + len(value), [1, 2], [value]) == [
        len(value) + 1,
        len(value) + 2,
    ]
    assert list(three.map(lambda n: n + len(value), [1, 2])) == [len(value) + 1, len(value) + 2]


def test_a_shared_object_is_what_it_was_and_read_only(three: SleighExecutor) -> None:
    import numpy as np

    ones = np.ones(300_000)
    handle = three.share(ones)
    ones[:] = 7
    assert three.submit(np.sum, handle).result() == 300_000
    assert three.eachWorker(np.sum, handle) == [300_000] * 3
    assert list(three.map(lambda n, a: float(a[n]), [1, 2], [handle, handle])) == [1, 1]
    assert three.submit(lambda pair: pair["a"].sum(), {"a": handle}).result() == 300_000

    def change(a: Any) -> None:
        a[0] = 5

    with pytest.raises(ValueError, match="read-only"):
        three.submit(change, handle).result()
    assert handle.value is ones
    assert "ndarray" in repr(handle)
    with pytest.raises(errors.ValuePicklingError, match="executor"):
        three.workspace.store("x", handle)


def test_the_same_shared_object_for_all_calls_of_a_worker() -> None:
    with SleighExecutor(1) as executor:
        handle = executor.share({"calls": 0})

        def count(state: dict[str, int]) -> int:
            state["calls"] += 1
            return state["calls"]

        assert [executor.submit(count, handle).result() for _ in range(3)] == [1, 2, 3]


def test_a_shared_function_of_main_keeps_its_globals(three: SleighExecutor) -> None:
    handle = three.share([invert, lambda x: invert(x) + 1])
    assert three.submit(lambda pair: pair[0](2) + pair[1](2), handle).result() == 2.0


def test_workers_forget_what_nobody_shares_any_more() -> None:
    import weakref as weak

    class Watched:
        def __setstate__(self, state: dict[str, Any]) -> None:
            current_worker().state["seen"] = weak.ref(self)

        def __getstate__(self) -> dict[str, Any]:
            return {"x": 1}

    def alive() -> bool:
        import gc

        gc.collect()
        return current_worker().state["seen"]() is not None

    with SleighExecutor(1) as executor:
        handle = executor.share(Watched())
        executor.submit(id, handle).result()
        assert executor.submit(alive).result()
        del handle
        wait_for(lambda: not executor.submit(alive).result(), "the worker forgets it")


def test_a_replacement_gets_shared_objects_again(three: SleighExecutor) -> None:
    import numpy as np

    handle = three.share(np.ones(300_000))
    three.eachElem(die, [1, 2, 3], on_error="return")
    assert three.eachWorker(np.sum, handle) == [300_000] * 3
    three.eachElem(die, [1, 2, 3], on_error="return")
    assert three.eachWorker(np.sum, handle) == [300_000] * 3
