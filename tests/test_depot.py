"""Big constants behind an agent of another machine: each crosses the link once, for all workers."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from sleighexec import Command, Local, SleighExecutor, WorkerLost, current_worker, repeats
from sleighexec.messages import Payload
from sleighexec.repeats import Repeats
from sleighexec.segments import MAX_SEGMENTS
from tests.conftest import alive, wait_for

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        not hasattr(os, "memfd_create"), reason="this system has no memory without a name"
    ),
]

PATIENCE = 60
WORKERS = 4
SIZE = 4_000_000  # bytes of a constant

# A command that passes on what a command reads and writes, and notes how many bytes went there.
METER = """
import os, subprocess, sys, threading
path, command = sys.argv[1], sys.argv[2:]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def carry(read, write, note):
    total = 0
    while data := os.read(read, 1 << 16):
        total += len(data)
        if note:
            with open(path + ".new", "w") as file:
                file.write(str(total))
            os.rename(path + ".new", path)
        try:
            while data:
                data = data[os.write(write, data):]
        except OSError:
            break
    os.close(write)
down = threading.Thread(target=carry, args=(0, child.stdin.fileno(), True), daemon=True)
down.start()
carry(child.stdout.fileno(), 1, False)
sys.exit(child.wait())
"""


class Meter:
    """Counts what goes to a machine: to all agents on it, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "bytes"
        self._words = (sys.executable, "-c", METER, str(self._path))

    def place(self, workers: int = WORKERS, **options: Any) -> Command:
        return Command((*self._words, "{agent}"), workers=workers, name="there", **options)

    def bytes(self) -> int:
        """That went to the last agent that was started."""
        with contextlib.suppress(FileNotFoundError):
            return int(self._path.read_text())
        return 0


@pytest.fixture
def meter(tmp_path: Path) -> Meter:
    return Meter(tmp_path)


def constant() -> Any:
    """Bytes that no compression makes small, since some links compress."""
    return numpy.frombuffer(numpy.random.default_rng(5).bytes(SIZE), "u1").copy()


ARRAY = constant()
SUM = int(ARRAY.sum())


def meet(*_: Any) -> int:
    """Return when as many calls run at the same time as there are workers."""
    workspace = current_worker().workspace
    workspace.store("here", current_worker().rank)
    workspace.find("all are here")
    return current_worker().rank


def let_meet(executor: SleighExecutor) -> None:
    for _ in range(WORKERS):
        executor.workspace.fetch("here", timeout=PATIENCE)
    executor.workspace.store("all are here", True)


def total(array: Any) -> int:
    return int(array.sum())


# ------------------------------------------------------------------ once over the link


def fixed(executor: SleighExecutor) -> None:
    def add(_: int, array: Any) -> int:
        meet()
        return int(array.sum())

    pending = executor.eachElem(add, range(WORKERS), [ARRAY], blocking=False)
    let_meet(executor)
    assert pending.wait() == [SUM] * WORKERS


def shared(executor: SleighExecutor) -> None:
    handle = executor.share(ARRAY)
    assert executor.eachWorker(total, handle) == [SUM] * WORKERS
    assert [executor.submit(total, handle).result(PATIENCE) for _ in range(8)] == [SUM] * 8


def captured(executor: SleighExecutor) -> None:
    array = ARRAY

    def add(_: int) -> int:
        meet()
        return int(array.sum())

    pending = executor.eachElem(add, range(WORKERS), blocking=False)
    let_meet(executor)
    assert pending.wait() == [SUM] * WORKERS


def global_(executor: SleighExecutor) -> None:
    names: dict[str, Any] = {"table": ARRAY.copy(), "__name__": "__main__"}
    exec("def add():\n    return int(table.sum())", names)
    assert executor.eachWorker(names["add"]) == [SUM] * WORKERS
    names["table"][0] ^= 1  # another one from now on
    assert executor.eachWorker(names["add"]) == [int(names["table"].sum())] * WORKERS


def argument(executor: SleighExecutor) -> None:
    assert executor.eachWorker(total, ARRAY) == [SUM] * WORKERS


def code(executor: SleighExecutor) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(f"def get():\n    return len({os.urandom(SIZE // 2)!r})", names)
    assert executor.eachWorker(names["get"]) == [SIZE // 2] * WORKERS


KINDS = {
    "a fixed argument": (fixed, 1),
    "a shared object": (shared, 1),
    "what a function has captured": (captured, 1),
    "a global variable, and a new value of it": (global_, 2),
    "an argument of eachWorker": (argument, 1),
    "a long function": (code, 1),
}


@pytest.mark.parametrize(("use", "times"), KINDS.values(), ids=KINDS)
def test_a_big_constant_crosses_a_link_once_for_all_workers_behind_it(
    meter: Meter, use: Callable[[SleighExecutor], None], times: int
) -> None:
    with SleighExecutor(launcher=meter.place()) as executor:
        use(executor)
    assert SIZE / 2 < meter.bytes() < (times + 0.5) * SIZE


def test_what_prepares_workers_crosses_once_and_later_ones_find_it(meter: Meter) -> None:
    def prepare(array: Any) -> None:
        current_worker().state["sum"] = int(array.sum())

    def add(array: Any) -> None:
        current_worker().state["sum"] += int(array[0])

    def found() -> tuple[int, int]:
        return os.getpid(), current_worker().state["sum"]

    options: dict[str, Any] = {"initializer": prepare, "initargs": (ARRAY,)}
    with SleighExecutor(launcher=meter.place(), **options) as executor:
        executor.eachWorker(add, ARRAY[::-1].copy(), sticky=True)
        expected = SUM + int(ARRAY[-1])
        before = executor.eachWorker(found)
        assert [seen for _, seen in before] == [expected] * WORKERS
        for pid, _ in before:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: not alive(pid), "it does not die")
        after = executor.eachWorker(found)
        assert [seen for _, seen in after] == [expected] * WORKERS
        assert {pid for pid, _ in after}.isdisjoint(pid for pid, _ in before)
    assert meter.bytes() < 2.5 * SIZE  # two constants, for eight workers


def test_without_room_for_it_every_worker_gets_it_itself(meter: Meter) -> None:
    """A file there, and memory without a name is one, may have one megabyte at most."""
    place = meter.place(prelude="ulimit -f 2048")
    with SleighExecutor(launcher=place) as executor:
        handle = executor.share(ARRAY)
        for _ in range(2):
            assert executor.eachWorker(total, handle) == [SUM] * WORKERS
        assert executor.eachWorker(_write_to, ARRAY) == [SUM + 1] * WORKERS
    assert meter.bytes() > 2 * WORKERS * SIZE


def test_more_constants_than_an_agent_keeps_travel_to_each_worker_only(meter: Meter) -> None:
    size, more = 200_000, 10
    with SleighExecutor(launcher=meter.place(2)) as executor:
        arrays = [numpy.frombuffer(os.urandom(size), "u1") for _ in range(MAX_SEGMENTS + more)]
        handles = [executor.share(array) for array in arrays]
        for handle, array in zip(handles, arrays):
            assert executor.eachWorker(total, handle) == [int(array.sum())] * 2
        assert meter.bytes() < (MAX_SEGMENTS + 2 * more + 3) * size  # and sleighexec itself
        before = meter.bytes()
        del handles[:more]
        handles.append(executor.share(arrays[0]))  # there is room again
        assert executor.eachWorker(total, handles[-1]) == [int(arrays[0].sum())] * 2
        assert meter.bytes() < before + 1.5 * size


def test_it_is_the_same_in_a_pool_of_several_kinds_of_place(meter: Meter) -> None:
    with SleighExecutor(launcher=[Local(1), meter.place(2), Command("{agent}")]) as executor:
        handle = executor.share(ARRAY)
        assert executor.eachWorker(total, handle) == [SUM] * 4
    assert meter.bytes() < 1.5 * SIZE


# ------------------------------------------------------------------ whose it is


def _write_to(array: Any) -> int:
    array[0] ^= 1
    changed = int(array.sum())
    array[0] ^= 1
    return changed if array.flags.writeable else -1


def test_what_is_shared_is_read_only_and_all_else_is_a_workers_own(meter: Meter) -> None:
    names: dict[str, Any] = {"table": ARRAY, "__name__": "__main__"}
    text = """
        def spoil(rank):
            if rank % 2:
                table[:] = 0
            return rank
        def add():
            return int(table.sum())
    """
    exec(textwrap.dedent(text), names)
    with SleighExecutor(launcher=meter.place()) as executor:
        assert executor.eachWorker(lambda a: a.flags.writeable, executor.share(ARRAY)) == [
            False
        ] * (WORKERS)
        executor.eachWorker(lambda spoil: spoil(current_worker().rank), names["spoil"])
        assert executor.eachWorker(names["add"]) == [SUM, 0] * (WORKERS // 2)
    assert int(ARRAY.sum()) == SUM


def _segments_of(pid: int) -> int:
    """How many constants a process keeps."""
    found = set()  # a mapping may have a descriptor of its own
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "memfd:sleighexec" in os.readlink(path):
                found.add(path.stat().st_ino)
    return len(found) - 1  # there is one by which workers see whether they can have others


def _mapped_in(pid: int) -> int:
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:sleighexec")


def test_it_goes_when_nobody_can_need_it_any_more(meter: Meter) -> None:
    with SleighExecutor(launcher=meter.place()) as executor:
        [agent] = set(executor.eachWorker(os.getppid))
        workers = executor.eachWorker(os.getpid)
        handle, other = executor.share(ARRAY), executor.share(ARRAY + 1)
        executor.eachWorker(total, handle)
        executor.eachWorker(total, other)
        assert _segments_of(agent) == 2
        del handle
        wait_for(lambda: _segments_of(agent) == 1, "the agent keeps it")
        assert executor.eachWorker(abs, -1) == [1] * WORKERS
        wait_for(lambda: [*map(_mapped_in, workers)] == [1] * WORKERS, "workers keep it")
        executor.eachWorker(total, ARRAY)  # which nobody can need a second time
        wait_for(lambda: _segments_of(agent) == 1, "the agent keeps an argument")
        assert executor.eachWorker(total, other) == [int((ARRAY + 1).sum())] * WORKERS


def test_a_new_worker_has_nothing_that_it_did_not_ask_for(meter: Meter) -> None:
    with SleighExecutor(launcher=meter.place(), max_tasks_per_child=1) as executor:
        handle = executor.share(ARRAY)
        assert executor.eachWorker(total, handle) == [SUM] * WORKERS
        agent = executor.submit(os.getppid).result(PATIENCE)
        assert _segments_of(agent) == 1
        seen = executor.submit(lambda: (os.getpid(), _maps_and_files())).result(PATIENCE)
        assert seen[1] == 0


def _maps_and_files() -> int:
    files = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    links = [os.readlink(file) for file in files if os.path.islink(file)]
    return Path("/proc/self/maps").read_text().count("memfd:") + "".join(links).count("memfd:")


# ------------------------------------------------------------------ deaths


def test_an_agent_that_comes_after_another_gets_it_again(meter: Meter) -> None:
    with SleighExecutor(launcher=meter.place(), retries=3) as executor:
        handle = executor.share(ARRAY)
        for _ in range(3):
            assert executor.eachWorker(total, handle) == [SUM] * WORKERS
            [agent] = set(executor.eachWorker(os.getppid))
            os.kill(agent, signal.SIGKILL)
            assert executor.submit(total, handle).result(PATIENCE) == SUM
            assert meter.bytes() < 1.5 * SIZE


def test_workers_that_die_while_it_is_on_its_way_leave_it_to_others(meter: Meter) -> None:
    """And so does an agent."""
    big = numpy.tile(ARRAY, 8)
    with SleighExecutor(launcher=meter.place(), retries=8) as executor:
        expected = int(big.sum())
        for victim in ("worker", "agent", "worker"):
            pids = executor.eachWorker(os.getpid)
            [agent] = set(executor.eachWorker(os.getppid))
            before = meter.bytes()
            handle = executor.share(big)
            futures = [executor.submit(total, handle) for _ in range(2 * WORKERS)]
            wait_for(lambda before=before: meter.bytes() > before + SIZE, "it does not come")
            for pid in pids[:2] if victim == "worker" else [agent]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert [future.result(PATIENCE) for future in futures] == [expected] * 2 * WORKERS


def test_a_call_that_is_killed_while_it_waits_costs_nothing_else(meter: Meter) -> None:
    big = numpy.tile(ARRAY, 8)
    with SleighExecutor(launcher=meter.place()) as executor:
        executor.eachWorker(abs, -1)
        handle = executor.share(big)
        future = executor.submit(total, handle)
        wait_for(lambda: meter.bytes() > 2 * SIZE, "it does not come")
        executor.kill(future)
        with contextlib.suppress(WorkerLost):
            assert future.cancelled() or future.result(PATIENCE)
        assert executor.submit(total, handle).result(PATIENCE) == int(big.sum())


def test_whatever_dies_a_call_gets_the_right_constant(meter: Meter) -> None:
    """Constants come and go while workers and agents are killed."""
    stop = threading.Event()

    def kill(executor: SleighExecutor) -> None:
        for number in range(1, 9):
            if stop.wait(0.4):
                return
            pids = [worker.pid for worker in executor.workers() if worker.pid]
            for pid in pids[: 1 + number % 2]:
                with contextlib.suppress(OSError):
                    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                    os.kill(int(stat[1]) if number % 4 == 0 else pid, signal.SIGKILL)

    with SleighExecutor(launcher=meter.place(), retries=30) as executor:
        executor.eachWorker(abs, -1)
        killer = threading.Thread(target=kill, args=(executor,))
        killer.start()
        try:
            for number in range(30):
                array = numpy.full(300_000, number, "u1")
                found = executor.eachElem(
                    _first_of, range(12), [executor.share(array)], on_error="return"
                )
                for each, answer in enumerate(found):
                    # Who has killed two workers is not tried again.
                    right = each, number, number * 300_000
                    assert answer == right or isinstance(answer, WorkerLost), found
        finally:
            stop.set()
            killer.join()


def _first_of(number: int, array: Any) -> tuple[int, int, int]:
    time.sleep(0.005)
    return number, int(array[0]), int(array.sum())


# ------------------------------------------------------------------ arguments that come again


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_an_argument_that_comes_again_and_again_crosses_the_link_twice(
    meter: Meter, workers: int
) -> None:
    array = ARRAY.copy()
    with SleighExecutor(launcher=meter.place(workers)) as executor:
        futures = [executor.submit(plus, array, number) for number in range(20)]
        assert [f.result(PATIENCE) for f in futures] == [SUM + number for number in range(20)]
        assert list(executor.map(plus, [array] * 8, range(8))) == [SUM + n for n in range(8)]
        rows = [[array, number] for number in range(8)]
        assert list(executor.starmap(plus, rows)) == [SUM + n for n in range(8)]
    assert SIZE < meter.bytes() < 2.5 * SIZE


def plus(array: Any, number: int) -> int:
    array[0] += 1  # nobody else sees this
    return int(array.sum()) + number - 1


def test_an_argument_that_was_changed_in_between_is_another_one(meter: Meter) -> None:
    array = ARRAY.copy()
    with SleighExecutor(launcher=meter.place(2)) as executor:
        for _ in range(3):
            for position in (0, SIZE // 2, SIZE - 1):
                before = int(array.sum())
                assert executor.submit(total, array).result(PATIENCE) == before
                assert executor.submit(total, array).result(PATIENCE) == before
                array[position] ^= 1


def test_copies_of_arguments_that_come_again_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MOST", 5 * repeats.LEAST)
    monkeypatch.setattr(repeats, "SAMPLES", 20)
    known = Repeats()
    arrays = [os.urandom(repeats.LEAST) for _ in range(30)]
    for array in [each for each in arrays for _ in range(3)]:
        payload = Payload(b"", [memoryview(array)])
        known.replace(payload)
        assert payload.buffers[0] == array
    assert len(known._copies) == 5
    assert known._bytes == 5 * repeats.LEAST
    assert len(known._samples) == 20
    assert repeats.repeated(payload.buffers[0]) is not None
    payload = Payload(b"", [memoryview(arrays[0])])
    known.replace(payload)  # long forgotten
    assert repeats.repeated(payload.buffers[0]) is None


def test_the_bytes_of_arguments_count_and_not_which_array_has_them() -> None:
    known, data = Repeats(), os.urandom(3 * repeats.LEAST)
    copies = []
    for _ in range(4):
        array = numpy.frombuffer(data, "u1").reshape(3, -1).copy()
        payload = Payload(b"", [memoryview(array).cast("B")])
        known.replace(payload)
        copies.append(repeats.repeated(payload.buffers[0]))
    assert copies[0] is None
    assert copies[1] is copies[2] is copies[3] is not None
