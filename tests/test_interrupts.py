"""Signal handlers that raise, at any moment: nothing is left half done."""

from __future__ import annotations

import concurrent.futures as futures
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleighexec import NetWorkSpace, SleighExecutor, WorkerLost
from sleighexec.future import SleighFuture
from sleighexec.interrupts import Undisturbed

pytestmark = pytest.mark.timeout(method="thread")  # the other method needs SIGALRM


class Alarm(Exception):
    pass


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """A handler of SIGALRM that raises; how often it was called."""
    calls: list[int] = []

    def handler(number: int, frame: Any) -> None:
        calls.append(number)
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    yield calls
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_handler_waits_for_the_end(alarms: list[int]) -> None:
    seen = []

    def work() -> None:
        with Undisturbed():
            signal.raise_signal(signal.SIGALRM)
            seen.append(len(alarms))

    with pytest.raises(Alarm):
        work()
    assert seen == [0]
    assert alarms == [signal.SIGALRM]


def test_a_handler_runs_while_something_is_waited_for(alarms: list[int]) -> None:
    undisturbed = Undisturbed()
    with undisturbed:
        with pytest.raises(Alarm):
            undisturbed.wait(signal.raise_signal, signal.SIGALRM)
        signal.raise_signal(signal.SIGALRM)
        assert len(alarms) == 1
        with pytest.raises(Alarm):  # what came before is no reason to wait
            undisturbed.wait(time.sleep, 60)
        assert len(alarms) == 2
        assert undisturbed.wait(abs, -3) == 3


def test_a_handler_that_raises_nothing_ends_the_waiting_too() -> None:
    undisturbed, calls = Undisturbed(), []
    before = signal.signal(signal.SIGALRM, lambda *_: calls.append(signal.getsignal(signal.SIGINT)))
    try:
        with undisturbed:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            assert undisturbed.wait(time.sleep, 60) is None
            assert calls == [signal.default_int_handler]  # all handlers were what they are
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_was_changed_meanwhile_stays_changed() -> None:
    before = signal.signal(
        signal.SIGALRM, lambda *_: signal.signal(signal.SIGALRM, signal.SIG_IGN) and None
    )
    undisturbed = Undisturbed()
    try:
        with undisturbed:
            undisturbed.wait(signal.raise_signal, signal.SIGALRM)
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGALRM, before)


def test_other_threads_have_no_handlers_to_put_off() -> None:
    before = signal.getsignal(signal.SIGINT)

    def look() -> Any:
        with Undisturbed():
            return signal.getsignal(signal.SIGINT)

    with futures.ThreadPoolExecutor(1) as threads:
        assert threads.submit(look).result() is before


# Where a moment falls into the callback of a weak reference, Python drops what is raised there.
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored[\s\S]*Alarm:pytest.PytestUnraisableExceptionWarning"
)
def test_a_pool_survives_handlers_that_raise_at_any_moment(alarms: list[int]) -> None:
    """Lone calls, served by the thread that waits for them: the pool knows all about each."""
    chance = random.Random(1)
    with SleighExecutor(1) as executor:
        executor.submit(abs, 1).result()
        for number in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 8e-4))
                for i in range(20):
                    assert executor.submit(abs, i).result() == i
            except Alarm:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if number % 20 == 0:
                assert executor.submit(abs, -number).result(timeout=60) == number
        assert len(alarms) > 200
        assert executor.submit(abs, -5).result(timeout=60) == 5


@pytest.mark.parametrize("way", ["result", "wait", "as_completed", "callback", "poll"])
def test_every_way_to_wait_after_a_lone_call(way: str) -> None:
    """The thread that serves has left its place to the caller; whoever waits gets it back."""
    with SleighExecutor(1) as executor:
        for i in range(30):
            for _ in range(2):
                assert executor.submit(abs, -i).result() == i
            future = executor.submit(abs, -i)
            if way == "wait":
                futures.wait([future], timeout=60)
            elif way == "as_completed":
                assert list(futures.as_completed([future], timeout=60)) == [future]
            elif way == "callback":
                there = threading.Event()
                future.add_done_callback(lambda _, there=there: there.set())
                assert there.wait(60)
            elif way == "poll":
                while not future.done():
                    threading.Event().wait(0.001)
            assert future.result(timeout=60) == i


def test_two_threads_with_lone_calls_each() -> None:
    with SleighExecutor(2) as executor, futures.ThreadPoolExecutor(3) as threads:

        def work(first: int) -> list[int]:
            return [executor.submit(abs, -i).result(timeout=60) for i in range(first, first + 500)]

        results = list(threads.map(work, [0, 1000, 2000]))
        assert results == [list(range(first, first + 500)) for first in (0, 1000, 2000)]


def test_a_result_that_is_late() -> None:
    """The caller serves until its time is over; then the thread does again."""
    with SleighExecutor(1) as executor:
        for _ in range(3):
            executor.submit(abs, -1).result()
        future = executor.submit(time.sleep, 0.2)
        with pytest.raises(futures.TimeoutError):
            future.result(timeout=0.01)
        assert future.result(timeout=60) is None


def test_a_connection_outlives_a_handler_that_raises_a_timeout_error(ws: NetWorkSpace) -> None:
    """It is an OSError, as what a connection that is lost raises."""

    def handler(number: int, frame: Any) -> None:
        raise TimeoutError("it takes too long")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(TimeoutError, match="it takes too long"):
            ws.fetch("x")
    finally:
        signal.signal(signal.SIGALRM, before)
    ws.store("x", 1)
    assert ws.fetch("x", timeout=60) == 1


INTERRUPTED = """
    import os, signal, sys, threading, time
    from sleighexec import Sleigh, SleighExecutor

    def slow(number):
        if number < 2:
            with open(os.path.join(os.environ["WHERE"], str(number)), "w") as file:
                file.write("here")
            time.sleep(600)
        return number

    executor = SleighExecutor(2)
    where, way = sys.argv[1:]
    os.environ.update(WHERE=where)

    def interrupt():
        while len(os.listdir(where)) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        if way == "each":
            executor.eachElem(slow, range(100))
        elif way == "feed":
            executor.eachElem(slow, range(100), loadFactor=2)
        else:
            list(executor.map(slow, range(100)))
    except KeyboardInterrupt:
        print("back", flush=True)
    print(sum(executor.map(abs, range(100))), {w.state for w in executor.workers()}, flush=True)
    executor.shutdown()
    print("end", flush=True)
"""


@pytest.mark.parametrize("way", ["each", "feed", "map"])
def test_ctrl_c_ends_what_runs_and_the_pool_goes_on(way: str, tmp_path: Path) -> None:
    """At a prompt: the blocking call is over, its running calls too, and the pool is free."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(tmp_path), way],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.splitlines()[0] == "back", done.stderr
    assert done.stdout.splitlines()[1].startswith("4950")
    assert done.stdout.splitlines()[-1] == "end"


def test_ctrl_c_where_a_with_block_waits_for_its_calls_ends_these() -> None:
    """As one within it does: nobody will look at what still runs."""

    def interrupt() -> None:
        ready.wait(20)
        time.sleep(0.2)  # so that it has come to the end of the block
        signal.pthread_kill(main, signal.SIGINT)

    ready, main = threading.Event(), threading.get_ident()
    thread = threading.Thread(target=interrupt)
    thread.start()

    def block() -> None:
        with SleighExecutor(1) as executor:
            calls.extend(executor.submit(time.sleep, 600) for _ in range(2))
            while not calls[0].running():
                time.sleep(0.001)
            ready.set()

    calls: list[SleighFuture] = []
    with pytest.raises(KeyboardInterrupt):
        block()
    assert type(calls[0].exception(0)) is WorkerLost
    assert calls[1].cancelled()
    thread.join()
