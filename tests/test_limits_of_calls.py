"""Calls that take too long or too much memory; what the report of a crash says."""

from __future__ import annotations

import concurrent.futures as futures
import math
import os
import re
import signal
import sys
import time
from typing import Any

import pytest

from sleighexec import (
    Local,
    SleighExecutor,
    TaskTimeoutError,
    WorkerLost,
    WorkerOutOfMemory,
    current_worker,
    errors,
)
from tests.conftest import PATIENCE, plain_id


def sleeper(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def stubborn(seconds: float) -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)


def greedy(size: int) -> int:
    block = bytearray(size)
    for i in range(0, size, 4096):
        block[i] = 1
    time.sleep(60)
    return len(block)


def die(number: int = signal.SIGKILL, *rest: object) -> None:
    print("these are my last words", file=sys.stderr)
    os.kill(os.getpid(), number)


# ------------------------------------------------------------------ how limits are said


def test_the_options_of_a_view_keep_what_they_do_not_name() -> None:
    seen: list[Any] = []
    launchers = [Local(1), Local(1, resources={"gpu": 1})]
    with SleighExecutor(launcher=launchers, retries=1) as executor:
        view = executor.options(timeout=0.3, resources={"gpu": 1}, progress=seen.append)
        further = view.options(priority=1).options(retries=2)
        assert further.submit(lambda: current_worker().rank).result(PATIENCE) == 1
        assert list(further.map(abs, [1])) == [1]
        assert seen
        with pytest.raises(TaskTimeoutError):
            further.submit(sleeper, 60).result(PATIENCE)
        with pytest.raises(WorkerLost, match="this was attempt 2"):
            further.submit(die).result(PATIENCE)
        assert executor.options(priority=1).submit(sleeper, 0.5).result(PATIENCE) == 0.5


@pytest.mark.parametrize("timeout", [1e10, 1e300, math.inf])
@pytest.mark.parametrize("memory_limit", [None, 2**64, "99999999999 TB"])
def test_a_limit_beyond_all_measure_is_none(
    executor: SleighExecutor, timeout: float, memory_limit: int | str | None
) -> None:
    view = executor.options(timeout=0.01).options(timeout=timeout, memory_limit=memory_limit)
    assert view.submit(sleeper, 0.05).result(PATIENCE) == 0.05


# ------------------------------------------------------------------ timeout


def test_a_call_that_takes_too_long_is_ended(capfd: Any) -> None:
    with SleighExecutor(2) as executor:
        executor.eachWorker(sleeper, 0)  # they have imported this file
        pids = {worker.pid for worker in executor.workers()}
        future = executor.options(timeout=0.3).submit(sleeper, 60)
        others = [executor.submit(sleeper, 0.01) for _ in range(50)]
        with pytest.raises(TaskTimeoutError, match=r"sleeper ran longer.* 0\.3 s") as caught:
            future.result(PATIENCE)
        error = caught.value
        assert isinstance(error, TimeoutError)
        assert isinstance(error, futures.TimeoutError)
        assert "sleeper" in error.stack
        assert error.pid in pids
        assert error.pid not in {worker.pid for worker in executor.workers()}
        assert [other.result(PATIENCE) for other in others] == [0.01] * 50
        assert executor.submit(abs, -1).result(PATIENCE) == 1
    assert "sleeper" not in capfd.readouterr().err


def test_a_call_in_c_code_is_ended_too() -> None:
    with SleighExecutor(1, timeout=0.2) as executor:
        hold = executor.submit(re.match, "(a+)+b", "a" * 60)  # takes years, and keeps the GIL
        with pytest.raises(TaskTimeoutError):
            hold.result(PATIENCE)
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_call_that_ignores_sigterm_is_killed() -> None:
    with SleighExecutor(1) as executor:
        with pytest.raises(TaskTimeoutError):
            executor.options(timeout=0.1).submit(stubborn, 60).result(PATIENCE)
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_timeout_costs_no_other_call() -> None:
    """Short calls before and behind it, in the same batch, and with a timeout of their own."""
    with SleighExecutor(1) as executor:
        executor.eachElem(abs, range(3000))
        quick = executor.options(timeout=0.2)
        pending = quick.eachElem(
            lambda n: sleeper(60 if n in (5, 50) else 0), range(100), blocking=False
        )
        for n, future in enumerate(pending):
            if n in (5, 50):
                with pytest.raises(TaskTimeoutError):
                    future.result(PATIENCE)
            else:
                assert future.result(PATIENCE) == 0


def exit_at_sigterm() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("asked to end"))


def wakeful(seconds: float) -> float:
    """Its thread need not be the one that the system has take the signal."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)
    return seconds


def test_a_call_that_ends_at_sigterm_costs_not_the_next_one() -> None:
    """Which its worker runs when the time for SIGKILL has come."""
    with SleighExecutor(1, initializer=exit_at_sigterm) as executor:
        slow = executor.options(timeout=0.1).submit(wakeful, 60)
        innocent = executor.submit(sleeper, 2.3)
        with pytest.raises(SystemExit, match="asked to end"):
            slow.result(PATIENCE)
        assert innocent.result(PATIENCE) == 2.3
        with pytest.raises(WorkerLost, match="SIGSEGV"):
            executor.submit(die, signal.SIGSEGV).result(PATIENCE)


def test_a_call_that_follows_one_that_took_too_long_has_its_own_time() -> None:
    with SleighExecutor(1, timeout=0.1, initializer=exit_at_sigterm) as executor:
        calls = [executor.submit(wakeful, 60) for _ in range(3)]
        for call in calls:
            with pytest.raises(SystemExit):
                call.result(PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_death_at_any_step_of_a_timeout_is_one(number: int, tmp_path: Any) -> None:
    def work() -> None:
        with open(tmp_path / "tries", "a") as file:
            file.write("x")
        signal.signal(number, signal.SIG_DFL)
        sleeper(60)

    with SleighExecutor(1, timeout=0.1, retries=1) as executor:
        with pytest.raises(TaskTimeoutError):
            executor.submit(work).result(PATIENCE)
        assert executor.submit(abs, -1).result(PATIENCE) == 1
    assert (tmp_path / "tries").read_text() == "x"


def test_waiting_does_not_count() -> None:
    with SleighExecutor(1) as executor:
        slow = executor.submit(sleeper, 0.6)
        assert executor.options(timeout=0.3).submit(sleeper, 0.01).result(PATIENCE) == 0.01
        assert slow.result(PATIENCE) == 0.6


def test_a_map_with_a_timeout_for_each_call() -> None:
    with SleighExecutor(2) as executor:
        results = executor.options(timeout=0.3).map(sleeper, [0.01, 0.02, 60, 0.03])
        assert [next(results), next(results)] == [0.01, 0.02]
        with pytest.raises(TaskTimeoutError):
            next(results)


def test_a_call_that_took_too_long_is_not_tried_again(tmp_path: Any) -> None:
    def work() -> None:
        with open(tmp_path / "tries", "a") as file:
            file.write("x")
        time.sleep(60)

    with SleighExecutor(1, timeout=0.2, retries=3) as executor, pytest.raises(TaskTimeoutError):
        executor.submit(work).result(PATIENCE)
    assert (tmp_path / "tries").read_text() == "x"


def test_a_timeout_does_not_break_a_pool_that_breaks_on_crashes() -> None:
    with SleighExecutor(1, on_crash="break", timeout=0.2) as executor:
        with pytest.raises(TaskTimeoutError):
            executor.submit(sleeper, 60).result(PATIENCE)
        assert executor.submit(abs, -1).result(PATIENCE) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "5"}, TypeError),
        ({"memory_limit": 0}, ValueError),
        ({"memory_limit": "much"}, ValueError),
        ({"retries": -1}, ValueError),
        ({"nonsense": 1}, errors.UnsupportedOptionError),
    ],
    ids=plain_id,
)
def test_wrong_options(options: dict[str, Any], error: type[Exception]) -> None:
    with SleighExecutor(1) as executor, pytest.raises(error):
        executor.options(**options)


# ------------------------------------------------------------------ memory


def test_a_call_that_takes_too_much_memory_is_ended() -> None:
    with SleighExecutor(1) as executor:
        limited = executor.options(memory_limit="300 MB")
        assert limited.submit(sleeper, 0.2).result(PATIENCE) == 0.2
        with pytest.raises(WorkerOutOfMemory, match="above its memory limit of 300 MB") as caught:
            limited.submit(greedy, 600_000_000).result(PATIENCE)
        assert caught.value.memory_limit == 300_000_000
        assert (caught.value.peak_memory or 0) > 300_000_000
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_memory_error_is_an_exception_like_others() -> None:
    def work() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        bytearray(2**40)

    with SleighExecutor(1) as executor:
        with pytest.raises(MemoryError):
            executor.submit(work).result(PATIENCE)
        assert executor.submit(abs, -1).result(PATIENCE) == 1


# ------------------------------------------------------------------ the report


def test_the_report_of_a_crash() -> None:
    with SleighExecutor(1) as executor:
        with pytest.raises(WorkerLost) as caught:
            executor.submit(die, int(signal.SIGSEGV), "x" * 1000).result(PATIENCE)
        error = caught.value
        assert error.signal == signal.SIGSEGV
        assert error.arguments.startswith("11, 'xxx")
        assert len(error.arguments) < 100
        assert (error.peak_memory or 0) > 1_000_000
        text = str(error)
        assert f"pid {error.pid}" in text
        assert "SIGSEGV" in text
        assert "die(" in text
        assert "these are my last words" in text
        assert "Fatal Python error: Segmentation fault" in text
        assert "MB of memory" in text


def test_the_report_names_functions_that_travel_with_their_calls() -> None:
    number = signal.SIGKILL

    def closure() -> None:
        die(number)

    with SleighExecutor(1) as executor, pytest.raises(WorkerLost, match="closure"):
        executor.submit(closure).result(PATIENCE)


def test_a_call_that_has_killed_two_workers_is_not_tried_again() -> None:
    with SleighExecutor(1, retries=5) as executor:
        with pytest.raises(WorkerLost, match="attempt 2; before:") as caught:
            executor.submit(die).result(PATIENCE)
        assert caught.value.attempts == 2
        assert caught.value.deadly
        assert "not tried again" in str(caught.value)
        assert len(caught.value.history) == 1
        assert "SIGKILL" in caught.value.history[0]
        with pytest.raises(WorkerLost, match="attempt 2"):
            list(executor.map(die, [signal.SIGKILL]))
