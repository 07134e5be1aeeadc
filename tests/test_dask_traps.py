"""The traps of Dask, a test for each: what an engine that stands on it must not pass on."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")

from sleighexec import SleighExecutor, current_worker
from sleighexec.errors import (
    PoolBrokenError,
    TaskTimeoutError,
    UnsupportedOptionError,
    WorkerLost,
)
from tests.conftest import wait_for
from tests.daskcluster import DaskCluster, dask_cluster

LONG = 90.0  # seconds: Dask starts a new interpreter for each worker that ends

pytestmark = [pytest.mark.timeout(300), pytest.mark.once]


def note(path: str, what: str = "x") -> None:
    """Leave a mark: one byte more in a file."""
    with open(path, "a") as file:
        file.write(what)


def marks(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def take(name: str) -> object:
    """What somebody stores under this name."""
    return current_worker().workspace.fetch(name)


# ------------------------------------------------------------------ 1 to 4


def test_trap_01_equal_calls_are_not_one_call(on_dask):
    assert len({on_dask.submit(time.time).result(LONG) for _ in range(3)}) == 3
    assert len(set(on_dask.map(lambda _: os.urandom(8), [1, 1, 1]))) == 3


def test_trap_02_no_keyword_of_the_user_is_swallowed(on_dask):
    names = ["key", "workers", "retries", "priority", "resources", "pure", "actor", "fifo_timeout"]
    given = {name: number for number, name in enumerate(names)}
    assert on_dask.submit(lambda **kwargs: kwargs, **given).result(LONG) == given


def test_trap_03_what_runs_says_so_and_is_not_cancelled(on_dask):
    running = [on_dask.submit(take, "go") for _ in range(2)]
    waiting = [on_dask.submit(abs, -n) for n in range(20)]
    for future in running:
        wait_for(future.running, "it runs", LONG)
        assert not future.cancel()
    assert not any(future.running() for future in waiting)
    assert all(future.cancel() for future in waiting[10:])
    on_dask.workspace.store("go", 1)
    on_dask.workspace.store("go", 2)
    done, _ = wait(running, LONG, return_when=FIRST_COMPLETED)
    assert done
    assert [future.result(LONG) for future in waiting[:10]] == list(range(10))


def test_trap_03_shutdown_cancels_what_waits(one_dask_cluster):
    one_dask_cluster.settle()
    executor = SleighExecutor(engine=one_dask_cluster.url, min_workers=2)
    futures = [executor.submit(time.sleep, 0.2) for _ in range(30)]
    executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert any(future.cancelled() for future in futures)


def test_trap_03_a_lazy_map_reads_no_further_than_it_may(on_dask):
    read = []
    numbers = on_dask.map(abs, (read.append(n) or n for n in range(60)), buffersize=7)
    assert next(numbers) == 0
    assert len(read) <= 8
    assert list(numbers) == list(range(1, 60))
    assert list(on_dask.map(abs, range(100), chunksize=10)) == list(range(100))


def test_trap_04_a_call_that_blocks_on_every_worker_stops_no_heart(on_dask):
    pending = on_dask.eachWorker(take, "go", blocking=False)
    wait_for(lambda: [w.state for w in on_dask.workers()] == ["busy", "busy"], "both run", LONG)
    assert pending.check() == 2
    for rank in range(2):
        on_dask.workspace.store("go", rank)
    assert sorted(pending.wait(LONG)) == [0, 1]


def test_trap_04_every_worker_is_called_also_after_a_crash(on_dask):
    with pytest.raises(WorkerLost):
        on_dask.submit(os._exit, 3).result(LONG)
    pids = on_dask.eachWorker(os.getpid, blocking=False).wait(LONG)
    assert len(set(pids)) == 2


# ------------------------------------------------------------------ 5 to 8


@pytest.mark.once
def test_trap_05_a_call_for_a_worker_that_has_left_waits_for_nobody(tmp_path):
    began = str(tmp_path / "began")
    with (
        dask_cluster(2) as cluster,
        SleighExecutor(engine=cluster.url, min_workers=2) as executor,
    ):
        blocked = [executor.submit(lambda: (note(began), take("go"))) for _ in range(2)]
        wait_for(lambda: marks(tmp_path / "began") == "xx", "both run", LONG)
        pending = executor.eachWorker(os.getpid, blocking=False)
        cluster.scale(1)
        wait_for(lambda: pending.check() == 1, "one of them has ended", LONG)
        for _ in blocked:
            executor.workspace.store("go", None)
        errors = [future.exception(LONG) for future in (*blocked, *pending)]
        kinds = sorted(type(error).__name__ for error in errors)
        assert kinds == ["ExecutorError", "NoneType", "NoneType", "WorkerLost"]
        assert marks(tmp_path / "began") == "xx"  # nothing ran a second time
        assert executor.worker_count == 1


def test_trap_05_a_worker_that_comes_late_fails_none_of_the_calls_that_do_not_know_it():
    with dask_cluster(2) as cluster, SleighExecutor(150, engine=cluster.url) as executor:
        blocked = [executor.submit(take, "go") for _ in range(2)]
        wait_for(lambda: all(future.running() for future in blocked), "both run", LONG)
        others = [executor.submit(abs, -number) for number in range(148)]
        wait_for(lambda: all(future.running() for future in others), "Dask has them", LONG)
        cluster.scale(3)
        assert [future.result(LONG) for future in others] == list(range(148))
        for _ in blocked:
            executor.workspace.store("go", None)
        assert [future.result(LONG) for future in blocked] == [None, None]


def test_trap_06_kill_frees_the_worker_and_harms_nobody(on_dask):
    other = on_dask.submit(take, "go")
    future = on_dask.submit(time.sleep, 600)
    wait_for(lambda: all(w.state == "busy" for w in on_dask.workers()), "both run", LONG)
    assert on_dask.kill(future)
    assert future.cancelled()
    on_dask.workspace.store("go", "there")
    assert other.result(LONG) == "there"
    assert [on_dask.submit(abs, -n).result(LONG) for n in range(3)] == [0, 1, 2]


def test_trap_06_what_has_not_begun_is_killed_without_a_death(on_dask):
    pids = set(on_dask.eachWorker(os.getpid))
    blockers = [on_dask.submit(take, "go") for _ in range(2)]
    last = on_dask.submit(abs, -1)
    assert on_dask.kill(last)
    for _ in blockers:
        on_dask.workspace.store("go", 0)
    assert [future.result(LONG) for future in blockers] == [0, 0]
    assert set(on_dask.eachWorker(os.getpid)) == pids


@pytest.mark.once
def test_trap_06_workers_of_several_threads_run_calls_and_refuse_to_be_killed():
    with dask_cluster(1, threads=2) as cluster, SleighExecutor(engine=cluster.url) as executor:
        assert list(executor.map(lambda x: x * x, range(200))) == [x * x for x in range(200)]
        both = [executor.submit(take, "go") for _ in range(2)]
        wait_for(lambda: all(future.running() for future in both), "both run", LONG)
        with pytest.raises(UnsupportedOptionError, match="2 threads"):
            executor.options(timeout=5)
        with pytest.raises(UnsupportedOptionError, match="threads_per_worker=1"):
            executor.kill(both[0])
        for _ in both:
            executor.workspace.store("go", 1)
        assert [future.result(LONG) for future in both] == [1, 1]
        with pytest.raises(UnsupportedOptionError):
            SleighExecutor(engine=cluster.url, timeout=5)


@pytest.mark.parametrize("retries", [0, 1])
def test_trap_07_a_deadly_call_costs_as_many_workers_as_promised(on_dask, tmp_path, retries):
    path = tmp_path / "deaths"
    view = on_dask.options(retries=retries)
    future = view.submit(lambda: (note(str(path)), os._exit(3)))
    with pytest.raises(WorkerLost) as caught:
        future.result(LONG)
    assert caught.value.attempts == 1 + retries
    assert marks(path) == "x" * (1 + retries)
    assert on_dask.submit(abs, -1).result(LONG) == 1
    assert marks(path) == "x" * (1 + retries)


def end_soon(path: str, number: int) -> int:
    """Return, and die right after that."""
    note(path, f"{number} ")
    threading.Timer(0.002 * number, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return number


def test_trap_08_what_has_finished_is_not_run_again_when_its_worker_dies(on_dask, tmp_path):
    path = tmp_path / "runs"
    for number in (1, 5):
        with contextlib.suppress(WorkerLost):  # it was quicker than the result
            assert on_dask.submit(end_soon, str(path), number).result(LONG) == number
    # It may come to the worker that is about to die, and be lost with it once.
    assert on_dask.options(retries=2).submit(abs, -1).result(LONG) == 1
    assert marks(path).split() == ["1", "5"]


def test_trap_08_calls_in_a_batch_that_were_done_before_the_death_keep_their_results(on_dask):
    list(on_dask.map(abs, range(3000)))  # so that batches are big
    kill = signal.SIGKILL
    pending = on_dask.eachElem(
        lambda n: os.kill(os.getpid(), kill) if n == 70 else n, range(100), blocking=False
    )
    outcomes = [future.exception(LONG) for future in pending]
    assert [n for n, error in enumerate(outcomes) if error is not None] == [70]
    assert isinstance(outcomes[70], WorkerLost)


# ------------------------------------------------------------------ 9 to 12


def end_at(_: bytes, number: int, deadly: int) -> int:
    if number == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return number


def test_trap_08_the_only_worker_takes_nothing_along_that_has_not_begun():
    """What was scattered is lost with it, so that Dask fails all that was ahead."""
    with dask_cluster(1) as cluster, SleighExecutor(engine=cluster.url) as executor:
        data = executor.share(bytes(3_000_000))
        futures = [executor.submit(end_at, data, number, 200) for number in range(500)]
        errors = [future.exception(LONG) for future in futures]
        assert [n for n, error in enumerate(errors) if error is not None] == [200]
        assert type(errors[200]) is WorkerLost


def test_trap_09_a_call_that_nobody_holds_runs(on_dask, tmp_path):
    path = tmp_path / "ran"
    on_dask.submit(note, str(path))
    gc.collect()
    wait_for(lambda: marks(path) == "x", "it has run", LONG)


def fork_one() -> None:
    process = multiprocessing.get_context("fork").Process(target=abs, args=(1,))
    process.start()
    process.join()


def test_trap_10_a_task_may_start_programs_and_hears_that_children_are_forbidden(on_dask):
    told = on_dask.submit(subprocess.check_output, [sys.executable, "-c", "print(7)"])
    assert told.result(LONG) == b"7\n"
    with pytest.raises(AssertionError, match="daemonic"):
        on_dask.submit(fork_one).result(LONG)


def test_trap_11_big_arguments_are_scattered_without_a_warning(on_dask):
    assert on_dask.submit(len, b"x" * 30_000_000).result(LONG) == 30_000_000
    table = on_dask.share(list(range(500_000)))
    found = on_dask.eachElem(lambda n, table: (table[n], id(table)), range(50), [table])
    assert [value for value, _ in found] == list(range(50))
    assert len({where for _, where in found}) <= 2  # each worker has it once


def test_trap_12_only_our_own_futures_stand_for_their_results(on_dask):
    first = on_dask.submit(pow, 2, 5)
    assert on_dask.submit(lambda x, y: x + y, first, y=1).result(LONG) == 33
    name = on_dask._engine.name
    assert on_dask.submit(lambda *args: args, f"{name}-1", [f"{name}-1"]).result(LONG) == (
        f"{name}-1",
        [f"{name}-1"],
    )


# ------------------------------------------------------------------ 13 to 16


def test_trap_13_a_stack_and_a_blocking_look_work_from_tasks(on_dask):
    workspace = on_dask.workspace
    workspace.declare("stack", "lifo")
    for number in range(3):
        workspace.store("stack", number)
    assert [on_dask.submit(take, "stack").result(LONG) for _ in range(3)] == [2, 1, 0]
    looking = on_dask.submit(lambda: current_worker().workspace.find("late"))
    workspace.store("late", "now")
    assert looking.result(LONG) == "now"
    assert workspace.fetchTry("late") == "now"


def test_trap_14_another_version_on_a_worker_is_refused_by_name(one_dask_cluster, monkeypatch):
    one_dask_cluster.settle()
    monkeypatch.setattr("sleighexec.engines.dask.house.__version__", "0.0.7")
    with SleighExecutor(engine=one_dask_cluster.url, min_workers=2) as executor:
        with pytest.raises(PoolBrokenError) as caught:
            executor.submit(abs, -1).result(LONG)
        assert "0.0.7" in str(caught.value.__cause__)


SCRIPT = """
import sys
from sleighexec import SleighExecutor

executor = SleighExecutor(engine=sys.argv[1])
base = 40
print(executor.submit(lambda x: base + x, 2).result())
executor.shutdown()
"""


def test_trap_15_a_script_needs_no_guard(one_dask_cluster, tmp_path):
    one_dask_cluster.settle()
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    command = [sys.executable, str(path), one_dask_cluster.url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert run.stdout == "42\n", run.stderr


def test_trap_16_two_executors_on_one_cluster_share_no_port_and_no_name(one_dask_cluster):
    one_dask_cluster.settle()
    url = one_dask_cluster.url
    with SleighExecutor(engine=url) as first, SleighExecutor(engine=url) as second:
        first.eachWorker("mine = SleighRank", type="eval")
        second.eachWorker("mine = 'other'", type="eval")
        assert first.eachWorker("mine", type="eval") == [0, 1]
        assert second.eachWorker("mine", type="eval") == ["other", "other"]
        first.workspace.store("x", 1)
        assert second.workspace.fetchTry("x") is None
        assert first.submit(take, "x").result(LONG) == 1


# ------------------------------------------------------------------ 17 to 19


def test_trap_17_a_call_that_takes_too_long_is_ended(on_dask):
    other = on_dask.submit(take, "go")
    with pytest.raises(TaskTimeoutError) as caught:
        on_dask.options(timeout=0.5).submit(time.sleep, 600).result(LONG)
    assert "call_all" in caught.value.stack
    on_dask.workspace.store("go", 1)
    assert other.result(LONG) == 1
    assert on_dask.options(timeout=60).submit(abs, -1).result(LONG) == 1


@pytest.fixture
def no_stealing(one_dask_cluster: DaskCluster) -> Iterator[None]:
    """Dask does not move tasks from one worker to another, as it need not."""
    from distributed import Client

    async def end(dask_scheduler: Any) -> None:
        await dask_scheduler.extensions["stealing"].stop()

    async def begin(dask_scheduler: Any) -> None:
        await dask_scheduler.extensions["stealing"].start()

    with Client(one_dask_cluster.url.replace("dask", "tcp"), set_as_default=False) as client:
        client.run_on_scheduler(end)
        yield
        client.run_on_scheduler(begin)


def run_around_a_long_call(executor: SleighExecutor, seconds: float) -> None:
    """Forty calls that take so long each; one of them goes on until all others have ended."""

    def call(n: int) -> object:
        if n == 20:
            return take("go")
        time.sleep(seconds)
        return n

    pending = executor.eachElem(call, range(40), blocking=False)
    others = [future for number, future in enumerate(pending) if number != 20]
    try:
        assert [future.result(30) for future in others] == [n for n in range(40) if n != 20]
    finally:
        executor.workspace.store("go", 20)
    assert pending.wait(LONG) == list(range(40))


# Calls of 30 ms are batches of their own, and several of them are with Dask.
@pytest.mark.parametrize("seconds", [0, 0.03], ids=["in_a_batch", "in_another_batch"])
@pytest.mark.usefixtures("no_stealing")
def test_trap_17_a_call_behind_a_long_one_begins_elsewhere(on_dask, seconds):
    list(on_dask.map(abs, range(3000)))
    run_around_a_long_call(on_dask, seconds)


@pytest.mark.usefixtures("no_stealing")
def test_trap_17_so_it_does_if_a_worker_cannot_answer_at_first(on_dask, monkeypatch):
    cluster, asked = on_dask._engine._cluster, []
    ask = cluster._ask

    async def ask_some(*args: Any) -> dict[str, Any]:
        answers = await ask(*args)
        asked.append(len(answers))
        return dict(list(answers.items())[: len(asked) - 1])  # of nobody, of one, of both

    monkeypatch.setattr(cluster, "_ask", ask_some)
    run_around_a_long_call(on_dask, 0.03)


def test_trap_17_what_waits_for_a_worker_to_prepare_is_not_behind_a_long_call(one_dask_cluster):
    one_dask_cluster.settle()
    with SleighExecutor(
        engine=one_dask_cluster.url, initializer=time.sleep, initargs=(0.5,)
    ) as executor:
        assert executor.submit(abs, -1).result(LONG) == 1
        assert executor._engine._latest == 1  # it was handed out once


def inside() -> int:
    with SleighExecutor(1) as executor:
        return executor.submit(abs, -5).result()


def test_trap_18_a_task_may_have_a_pool_of_its_own(on_dask):
    assert on_dask.submit(inside).result(LONG) == 5


@pytest.mark.parametrize("engine", [False, True], ids=["builtin", "dask"])
def test_trap_19_dask_takes_an_executor_as_its_scheduler(request, engine):
    import dask

    executor = request.getfixturevalue("on_dask" if engine else "executor")
    assert type(executor._max_workers) is int
    total = dask.delayed(sum)([dask.delayed(abs)(-n) for n in range(4)])
    assert total.compute(scheduler=executor) == 6
