"""An executor at work while its workers, and now and then its agent, are killed and stopped.

    sleigh-chaos-…  each submits one kind of work, again and again, and checks what comes back
    the caller      the nemesis: SIGKILL, SIGSEGV, SIGSTOP and SIGCONT, at moments of its choice

Calls write their key into a file when they begin, so that afterwards it is known how often each of
them ran: one that gave a result exactly once, one that was lost at most once, one that was
cancelled never.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sleighexec import SleighExecutor, WorkerLost, current_worker, task
from sleighexec.launchers.base import Launcher
from tests.conftest import children
from tests.stress.leaks import nothing_is_left

PATIENCE = 60  # seconds for any result
KEY = 16  # characters of a key
WORKERS = 3
RETRIES = 1000  # of calls that may run twice: the nemesis does not tire either


def begin(path: str, key: str) -> None:
    """Write down that a call has begun. One write: whole lines, whoever else writes."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(file, key.ljust(KEY - 1).encode() + b"\n")
    os.close(file)


def once(path: str, key: str, number: int, seconds: float) -> tuple[str, int]:
    begin(path, key)
    if seconds:
        time.sleep(seconds)
    return key, number * number


def square(number: int) -> int:
    return number * number


def prepare(value: str) -> None:
    current_worker().state["prepared"] = value


def prepared(number: int) -> tuple[int, str]:
    return number, current_worker().state["prepared"]


def rank() -> int:
    return current_worker().rank


def carry() -> None:
    """Take a value from one variable to another; not lost if we die, perhaps there twice."""
    workspace = current_worker().workspace
    # Another one may have carried ours, and died before it could say so.
    with contextlib.suppress(TimeoutError), workspace.borrow("in", timeout=0.2) as value:
        workspace.store("out", value.value)


class Chaos:
    """One run. After `run`, `kills` says what the nemesis did."""

    def __init__(
        self,
        seed: str,
        path: Path,
        *,
        agents: bool = True,
        launcher: Launcher | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """`path`: a file that calls write into. `agents`: whether the agent is killed as well.

        `patience`: seconds that any result may take.
        """
        self._seed, self._path, self._agents = seed, path, agents
        self._launcher, self._patience = launcher, patience
        self._stop = threading.Event()
        self._problems: list[BaseException] = []
        self.results: dict[str, str] = {}  # by key: "done", "lost", "cancelled"
        self.kills: Counter[str] = Counter()
        path.touch()

    def run(self, seconds: float) -> None:
        """Raise AssertionError if something is wrong."""
        # A call that has lost two workers is not to blame for it here: we are.
        with nothing_is_left(), patch.object(task, "MAX_KILLED", RETRIES):
            with SleighExecutor(WORKERS, launcher=self._launcher) as executor:
                executor.eachWorker(prepare, "yes", sticky=True)
                kinds = (self._once, self._again, self._elements, self._workers, self._values)
                threads = [
                    threading.Thread(target=self._repeat, args=(kind, executor), name=name)
                    for kind in kinds
                    if (name := f"sleigh-chaos-{kind.__name__}")
                ]
                for thread in threads:
                    thread.start()
                self._hunt(executor, seconds)
                self._stop.set()
                for thread in threads:
                    thread.join(1.5 * self._patience)
                hanging = [thread.name for thread in threads if thread.is_alive()]
                if hanging or self._problems:
                    executor.kill_workers()
                assert not hanging, f"no end of {hanging}"
                if self._problems:
                    raise self._problems[0]
                assert executor.submit(abs, -1).result(self._patience) == 1
            del executor, threads
        self._check_counts()

    def _repeat(self, kind: Callable[[SleighExecutor, random.Random], None], executor: Any) -> None:
        chance = random.Random(f"{self._seed}/{kind.__name__}")
        try:
            while not self._stop.is_set():
                kind(executor, chance)
        except BaseException as error:
            self._problems.append(error)
            self._stop.set()

    # ------------------------------------------------------------------ the work

    def _once(self, executor: SleighExecutor, chance: random.Random) -> None:
        """Calls that are not tried again, some of which are cancelled."""
        count, futures = chance.choice((10, 100, 500)), {}
        seconds = chance.choice((0, 0, 0.001))
        for number in range(count):
            key = f"{len(self.results) + number}"
            futures[key] = executor.submit(once, str(self._path), key, number, seconds)
        for key in chance.sample(sorted(futures), count // 10):
            futures[key].cancel()
        for number, (key, future) in enumerate(futures.items()):
            if future.cancelled():
                self.results[key] = "cancelled"
                continue
            error = future.exception(self._patience)
            if error is None:
                assert future.result() == (key, number * number), "the result of another call"
                self.results[key] = "done"
            else:
                assert isinstance(error, WorkerLost), repr(error)
                self.results[key] = "lost"

    def _again(self, executor: SleighExecutor, chance: random.Random) -> None:
        """A map of calls that may run again."""
        view, count = executor.options(retries=RETRIES), chance.choice((10, 1000, 3000))
        chunk = chance.choice((1, 7))
        got = list(view.map(square, range(count), timeout=self._patience, chunksize=chunk))
        assert got == [number * number for number in range(count)], "wrong results of a map"

    def _elements(self, executor: SleighExecutor, chance: random.Random) -> None:
        """eachElem, of calls that need what a sticky call has prepared."""
        view, count = executor.options(retries=RETRIES), chance.choice((5, 200))
        got = view.eachElem(prepared, [list(range(count))])
        assert got == [(number, "yes") for number in range(count)], "wrong results of eachElem"

    def _workers(self, executor: SleighExecutor, chance: random.Random) -> None:
        got = executor.options(retries=RETRIES).eachWorker(rank)
        assert got == list(range(WORKERS)), f"eachWorker: {got}"
        self._stop.wait(chance.uniform(0, 0.05))

    def _values(self, executor: SleighExecutor, chance: random.Random) -> None:
        """Values that tasks carry through the workspace: all arrive, none is made up."""
        view, count = executor.options(retries=RETRIES), chance.choice((1, 30))
        wanted = {chance.getrandbits(60) for _ in range(count)}
        for value in wanted:
            executor.workspace.store("in", value)
        for future in [view.submit(carry) for _ in wanted]:
            future.result(self._patience)
        got = {value for name in ("in", "out") for value in executor.workspace.ifetchTry(name)}
        assert got == wanted, f"lost: {wanted - got}, from nowhere: {got - wanted}"

    # ------------------------------------------------------------------ the nemesis

    def _hunt(self, executor: SleighExecutor, seconds: float) -> None:
        chance, end = random.Random(f"{self._seed}/nemesis"), time.monotonic() + seconds
        while time.monotonic() < end and not self._stop.wait(chance.uniform(0.01, 0.1)):
            way = chance.choice(("kill", "kill", "kill", "segv", "stop", "stop", "agent"))
            workers = executor.workers()
            # Those that are only starting are left alone: five in a row that end are too many.
            if any(worker.state == "starting" for worker in workers) or not workers:
                continue
            pid = chance.choice(workers).pid
            if pid is None or (way == "agent" and not self._agents):
                continue
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if way == "agent":
                    stat = Path(f"/proc/{pid}/stat").read_text()
                    agent = int(stat.rsplit(")", 1)[1].split()[1])
                    if agent not in children():  # it has died before its worker
                        continue
                    os.kill(agent, signal.SIGKILL)
                elif way == "stop":
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(chance.uniform(0, 0.1))
                    os.kill(pid, chance.choice((signal.SIGCONT, signal.SIGKILL)))
                else:
                    os.kill(pid, signal.SIGKILL if way == "kill" else signal.SIGSEGV)
                self.kills[way] += 1

    # ------------------------------------------------------------------ afterwards

    def _check_counts(self) -> None:
        ran = Counter(line.strip().decode() for line in self._path.read_bytes().splitlines())
        allowed = {"done": (1, 1), "lost": (0, 1), "cancelled": (0, 0)}
        wrong = {
            key: (result, ran[key])
            for key, result in self.results.items()
            if not allowed[result][0] <= ran[key] <= allowed[result][1]
        }
        assert not wrong, f"how calls ended and how often they ran: {dict(list(wrong.items())[:9])}"
