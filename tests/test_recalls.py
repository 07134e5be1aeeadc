"""What a worker has read ahead is for others when they have nothing to do, whatever it runs.

Most of the long calls here keep their interpreter to themselves: no thread of the worker could
give back what is behind them.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from sleighexec import Local, SleighExecutor
from sleighexec.engines.lines import Line, Lines
from sleighexec.engines.workers import WorkerLink
from tests.conftest import wait_behind, wait_for, wait_until_behind
from tests.stress.planted import Planting
from tests.test_join import Machine

PATIENCE = 30
USUAL = 0.03  # seconds
FOR_EVER = "import sleighexec.worker; sleighexec.worker.KEEP = 1000"


def rest(_: int = 0) -> int:
    time.sleep(USUAL)
    return os.getpid()


def hold(gate: str) -> int:
    """Wait in C, until somebody opens the gate, for writing; no other thread runs meanwhile."""
    Path(gate).with_suffix(".begun").touch()
    libc = ctypes.PyDLL(None)
    libc.close(libc.open(gate.encode(), os.O_RDONLY))  # it is not there if it was open
    return os.getpid()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Opens the gate that `hold` waits behind; in the end in any case."""
    path = tmp_path / "gate"
    os.mkfifo(path)

    def open_gate() -> None:
        if path.exists():
            descriptor = os.open(path, os.O_RDWR)  # does not wait for a reader
            time.sleep(0.1)
            os.close(descriptor)
            path.unlink()

    yield open_gate
    open_gate()


def links(executor: SleighExecutor) -> list[WorkerLink]:
    engine = executor._engine
    with engine.server.lock:
        return list(engine._workers.values())


def is_on_loan(executor: SleighExecutor) -> bool:
    """Whether a worker has calls besides the one that it runs."""
    return any(worker.has_more() for worker in links(executor))


def lead_to_read_ahead(executor: SleighExecutor) -> None:
    """Have the workers know that calls take some time."""
    for future in [executor.submit(rest) for _ in range(20)]:
        future.result(PATIENCE)


def test_a_call_behind_one_that_keeps_its_interpreter_is_run_by_others(
    tmp_path: Path, gate: Callable[[], None]
) -> None:
    with SleighExecutor(2) as executor:
        lead_to_read_ahead(executor)
        path = str(tmp_path / "gate")
        before = [executor.submit(rest) for _ in range(4)]
        long = executor.submit(hold, path)
        behind = [executor.submit(rest) for _ in range(8)]
        for future in [*before, *behind]:
            future.result(PATIENCE)
        assert not long.done()
        gate()
        assert long.result(PATIENCE) not in {future.result() for future in behind[-4:]}
        assert list(executor.map(abs, range(-100, 0))) == list(range(100, 0, -1))


def test_one_that_is_behind_it_is_not_taken_while_all_are_busy(
    tmp_path: Path, gate: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SleighExecutor(1) as executor:
        recalled: list[WorkerLink] = []
        monkeypatch.setattr(executor._engine, "_recall", recalled.append)
        lead_to_read_ahead(executor)
        futures = [executor.submit(rest) for _ in range(5)]
        long = executor.submit(hold, str(tmp_path / "gate"))
        futures += [executor.submit(rest) for _ in range(5)]
        wait_until_behind(tmp_path / "gate")
        time.sleep(0.05)
        assert is_on_loan(executor)
        gate()
        assert len({future.result(PATIENCE) for future in [*futures, long]}) == 1
        assert recalled == []


def once(path: str, seconds: float, number: int) -> int:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b"%d\n" % number)
    os.close(file)
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return number


def test_calls_that_are_recalled_run_once(tmp_path: Path) -> None:
    path, chance, asked, recalls = str(tmp_path / "ran"), random.Random(1), 0, 0
    with SleighExecutor(3) as executor:
        recall = executor._engine._recall

        def count(worker: WorkerLink) -> None:
            nonlocal recalls
            recalls += 1
            recall(worker)

        executor._engine._recall = count
        while recalls < 25:
            lengths = [chance.choice([0.0, 0.002, 0.01])] * chance.randint(6, 20)
            lengths[chance.randrange(len(lengths))] = 0.05
            futures = [
                executor.submit(once, path, length, asked + number)
                for number, length in enumerate(lengths)
            ]
            values = [future.result(PATIENCE) for future in futures]
            assert values == [*range(asked, asked + len(lengths))]
            asked += len(lengths)
            assert asked < 20_000, "nothing is ever recalled"
    assert Counter(map(int, Path(path).read_text().split())) == Counter(range(asked))


def test_a_machine_that_is_to_leave_runs_nothing_more_of_what_it_has(
    run_directory: Path, tmp_path: Path, gate: Callable[[], None]
) -> None:
    with SleighExecutor(launcher=[]) as executor:
        url = executor.listen()
        with Machine(url, "--workers", "1") as first:
            lead_to_read_ahead(executor)
            before = [executor.submit(rest) for _ in range(3)]
            long = executor.submit(hold, str(tmp_path / "gate"))
            behind = [executor.submit(rest) for _ in range(5)]
            here = before[0].result(PATIENCE)
            wait_until_behind(tmp_path / "gate")
            wait_for(lambda: is_on_loan(executor), "it does not read ahead")
            first.process.send_signal(signal.SIGTERM)
            wait_for(lambda: not is_on_loan(executor), "it keeps what it has not begun")
            gate()
            assert long.result(PATIENCE) == here
            assert first.ended() == 0
        with Machine(url, "--workers", "1"):
            assert here not in {future.result(PATIENCE) for future in behind}


def keep_two_busy(
    one: Any, other: Any, usual: SleighExecutor, tmp_path: Path
) -> tuple[Future[Any], Future[Any], list[Future[Any]]]:
    """Submit a call for one worker, a long one for the other, and six that wait behind that."""
    first = one.submit(wait_behind, tmp_path / "first")
    wait_until_behind(tmp_path / "first")
    for _ in range(3):
        other.submit(rest)
    long = other.submit(hold, str(tmp_path / "gate"))
    behind = [usual.submit(rest) for _ in range(6)]
    wait_until_behind(tmp_path / "gate")
    return first, long, behind


def test_a_worker_whose_rank_is_no_more_runs_nothing_more_of_what_it_has(
    tmp_path: Path, gate: Callable[[], None]
) -> None:
    with SleighExecutor(launcher=[Local(1, resources={"gpu": 1}), Local(1)]) as executor:
        lead_to_read_ahead(executor)
        on_rank_0 = executor.options(resources={"gpu": 1})
        first, long, behind = keep_two_busy(on_rank_0, executor, executor, tmp_path)
        executor.resize(1)
        wait_for(lambda: not is_on_loan(executor), "it keeps what it has not begun")
        (tmp_path / "first").touch()
        first.result(PATIENCE)
        for future in behind:
            future.result(PATIENCE)
        gate()
        long.result(PATIENCE)


def test_a_worker_that_has_nothing_to_give_keeps_no_other_from_being_recalled(
    tmp_path: Path,
) -> None:
    paths = [str(tmp_path / name) for name in ("one", "two")]
    for path in paths:
        os.mkfifo(path)
    with SleighExecutor(3) as executor:
        lead_to_read_ahead(executor)
        futures = [executor.submit(rest) for _ in range(6)]
        long = [executor.submit(hold, path) for path in paths]
        futures += [executor.submit(rest) for _ in range(12)]
        for future in futures:
            future.result(PATIENCE)
        for path in paths:
            descriptor = os.open(path, os.O_RDWR)
            time.sleep(0.1)
            os.close(descriptor)
        for future in long:
            future.result(PATIENCE)


def test_a_worker_that_is_killed_amid_a_recall_loses_what_it_ran(
    tmp_path: Path, gate: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SleighExecutor(2) as executor:
        lead_to_read_ahead(executor)
        recall = executor._engine._recall

        def kill_first(worker: WorkerLink) -> None:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            recall(worker)

        monkeypatch.setattr(executor._engine, "_recall", kill_first)
        before = [executor.submit(rest) for _ in range(4)]
        long = executor.options(retries=1).submit(hold, str(tmp_path / "gate"))
        behind = [executor.submit(rest) for _ in range(8)]
        for future in [*before, *behind]:
            future.result(PATIENCE)
        gate()
        long.result(PATIENCE)


def test_what_comes_back_begins_in_the_order_of_priorities(
    tmp_path: Path, gate: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of a high priority is lost, and tried again, and usual ones were behind it."""
    with SleighExecutor(2) as executor:
        engine, urgent = executor._engine, executor.options(priority=5, retries=1)
        lead_to_read_ahead(executor)
        monkeypatch.setattr(engine, "_recall", lambda worker: None)
        first, long, behind = keep_two_busy(executor, urgent, executor, tmp_path)
        wait_for(lambda: is_on_loan(executor), "it does not read ahead")
        (tmp_path / "first").touch()
        first.result(PATIENCE)
        wait_for(lambda: len(engine._waiting) == 1, "the other one has nothing to do")
        lend, priorities = engine._lend, []

        def note(worker: WorkerLink, tag: int, line: Line, tasks: Any) -> None:
            priorities.append(tasks[0].parts()[4].priority)
            lend(worker, tag, line, tasks)

        monkeypatch.setattr(engine, "_lend", note)
        (holder,) = [worker for worker in links(executor) if worker.has_more()]
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        for future in behind:
            future.result(PATIENCE)
        gate()
        long.result(PATIENCE)
        assert priorities[0] == 5


# ---------------------------------------------------------------------- behind a call that is slow


def test_short_calls_behind_a_long_one_are_run_by_who_has_nothing_to_do(tmp_path: Path) -> None:
    with SleighExecutor(launcher=Planting(FOR_EVER, 2)) as executor:
        list(executor.map(abs, range(2000)))  # the workers take big batches now
        before = [executor.submit(abs, -number) for number in range(50)]
        long = executor.submit(wait_behind, tmp_path / "gate")
        behind = [executor.submit(abs, -number) for number in range(500)]
        assert [future.result(PATIENCE) for future in before] == list(range(50))
        assert [future.result(PATIENCE) for future in behind] == list(range(500))
        assert not long.done()
        (tmp_path / "gate").touch()
        assert long.result(PATIENCE) is None


def test_short_calls_behind_a_long_one_go_back_where_all_are_busy(tmp_path: Path) -> None:
    with SleighExecutor(2) as executor:
        list(executor.map(abs, range(2000)))
        first = executor.submit(wait_behind, tmp_path / "first")
        wait_until_behind(tmp_path / "first")
        long = executor.submit(wait_behind, tmp_path / "gate")
        behind = [executor.submit(abs, -number) for number in range(500)]
        wait_until_behind(tmp_path / "gate")
        for future in behind:
            wait_for(future.cancel, "it is kept behind the long one")
        (tmp_path / "first").touch()
        (tmp_path / "gate").touch()
        assert first.result(PATIENCE) is long.result(PATIENCE) is None


# ---------------------------------------------------------------------- who may have what


def test_a_line_is_open_to_those_who_have_what_it_needs() -> None:
    lines = Lines()
    lines.add_boxes(1)
    gpu = lines.line_of(0, (("gpu", 1),))
    gpu.lent = 1  # else it goes when there is a new one
    urgent = lines.line_of(5)
    assert lines.is_open(lines.usual, {})
    assert lines.is_open(urgent, {})
    assert lines.is_open(gpu, {"gpu": 2})
    assert not lines.is_open(gpu, {"cpu": 2})
    assert not lines.is_open(lines.boxes[0], {"gpu": 2})
    assert not lines.is_open(Line(), {})


def test_what_an_idle_worker_cannot_run_is_left_where_it_is(
    tmp_path: Path, gate: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    launchers = [Local(1), Local(1, resources={"gpu": 1})]
    with SleighExecutor(launcher=launchers) as executor:
        recalled: list[WorkerLink] = []
        monkeypatch.setattr(executor._engine, "_recall", recalled.append)
        with_gpu = executor.options(resources={"gpu": 1})
        for future in [with_gpu.submit(rest) for _ in range(20)]:
            future.result(PATIENCE)
        assert executor.submit(os.getpid).result(PATIENCE) > 0  # the other one has come
        for _ in range(4):
            with_gpu.submit(rest)
        long = with_gpu.submit(hold, str(tmp_path / "gate"))
        behind = [with_gpu.submit(rest) for _ in range(4)]
        wait_until_behind(tmp_path / "gate")
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        time.sleep(0.05)
        assert recalled == []
        gate()
        assert {future.result(PATIENCE) for future in behind} == {long.result(PATIENCE)}
