"""Clients of one workspace that all do as they like, and some of which are killed or cut off.

    threads    each with a connection of its own, which the nemesis may close
    processes  `python -m tests.stress.traffic`, which it kills, or stops for a while

What every client did is in a file, so that a killed one has left its history too.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sleighexec import FIFO, LIFO, MULTI, SINGLE, NetWorkSpace, NwsServer, errors
from sleighexec.workspace import DICT
from tests.conftest import blocked, wait_for
from tests.stress.history import BORROW, FETCH, FIND, GIVE_BACK, SETTLE, History, Recorder, read
from tests.stress.linear import STORE

MODES = {"queue": FIFO, "stack": LIFO, "bag": MULTI, "last": SINGLE}
ROOM = "stress"
OPERATIONS = 120  # of a client in one round
KEEP = "keep"  # a loan until its borrower ends
WAIT = 0.01  # seconds for a value, at most
KINDS = [STORE] * 4 + [FETCH] * 3 + [FIND] * 2 + [BORROW] * 2


def use(server: NwsServer, name: str, seed: str, path: Path, count: int) -> None:
    """Be a client: `count` operations, each written down."""
    chance, record = random.Random(f"{seed}/{name}"), Recorder(path)
    try:
        with contextlib.suppress(errors.ConnectionLostError):
            server.openWs(f"alive-{name}")  # ours: it ends when the server knows that we did
            room = server.useWs(ROOM)
            for number in range(count):
                _operate(room, record, chance, f"{name}-{number}")
    finally:
        record.close()


def _operate(room: NetWorkSpace, record: Recorder, chance: random.Random, value: str) -> None:
    variable, kind = chance.choice(list(MODES)), chance.choice(KINDS)
    timeout = chance.choice((0, 0, WAIT))
    if kind == STORE:
        record(STORE, variable, value, lambda: room.store(variable, value))
        return
    verb = {FETCH: room.fetch, FIND: room.find, BORROW: room.borrow}[kind]

    def ask() -> object:
        try:
            return verb(variable, timeout=timeout)
        except TimeoutError:
            return None

    borrowed = record(kind, variable, None, ask)
    if kind == BORROW and borrowed is not None:
        end = chance.choice((SETTLE,) * 5 + (GIVE_BACK,) * 4 + (KEEP,))
        if end == SETTLE:
            record(SETTLE, variable, borrowed.value, borrowed.settle)
        elif end == GIVE_BACK:
            record(GIVE_BACK, variable, borrowed.value, borrowed.give_back)


class Round:
    """One workspace from its first value to its last."""

    def __init__(self, url: str, seed: str, folder: Path) -> None:
        self._url, self._seed, self._folder = url, seed, folder
        self._chance = random.Random(f"{seed}/nemesis")
        folder.mkdir()

    def play(self, threads: int, processes: int, operations: int = OPERATIONS) -> History:
        """Let them all loose; the history when everybody has gone and the room is empty."""
        with NetWorkSpace(ROOM, server=NwsServer(url=self._url)) as room:
            for variable, mode in MODES.items():
                room.declare(variable, mode)
            with ThreadPoolExecutor(threads) as pool:
                started = [
                    self._process(f"process{number}", operations * 5) for number in range(processes)
                ]
                servers = [NwsServer(url=self._url) for _ in range(threads)]
                done = [
                    pool.submit(
                        use, server, f"thread{number}", self._seed, self._path(name), operations
                    )
                    for number, server in enumerate(servers)
                    if (name := f"thread{number}")
                ]
                self._hunt(started, servers[: threads // 3])
                for future in done:
                    future.result(60)
                for server in servers:
                    server.close()
            return self._history(room)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"

    def _process(self, name: str, operations: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.stress.traffic", self._url, name, self._seed]
        return subprocess.Popen([*command, str(self._path(name)), str(operations)])

    def _hunt(self, processes: list[subprocess.Popen[bytes]], servers: list[NwsServer]) -> None:
        """Kill, stop and cut off, at moments that chance chooses."""
        chance = self._chance
        victims: list[subprocess.Popen[bytes] | NwsServer] = [*processes, *servers]
        chance.shuffle(victims)
        for number in range(len(processes)):
            path = self._path(f"process{number}")
            wait_for(lambda path=path: path.exists() and path.stat().st_size, "it does not begin")
        for victim in victims:
            time.sleep(chance.uniform(0, 0.05))
            if isinstance(victim, NwsServer):
                victim.close()
                continue
            if chance.random() < 0.5:
                victim.send_signal(signal.SIGSTOP)
                time.sleep(chance.uniform(0, 0.05))
                victim.send_signal(signal.SIGCONT)
            if chance.random() < 0.8:
                victim.kill()
            victim.wait(60)

    def _history(self, room: NetWorkSpace) -> History:
        def everybody_has_gone() -> bool:
            return not [name for name in room.server.listWss(DICT) if name.startswith("alive-")]

        wait_for(everybody_has_gone, "the server does not notice that clients have gone")
        over, path = time.monotonic(), self._path("drain")
        record = Recorder(path)
        for variable in MODES:
            while record(FETCH, variable, None, lambda v=variable: room.fetchTry(v)) is not None:
                pass
        record.close()
        history = History(MODES, over)
        for path in sorted(self._folder.glob("*.jsonl")):
            history.add(read(path))
        return history


# ---------------------------------------------------------------------- who waits is served in turn


def serve_in_turn(url: str, seed: str) -> None:
    """Several wait at an empty variable: all finders get the first value, then fetchers in turn."""
    chance = random.Random(f"{seed}/turns")
    kinds = [FIND] * chance.randrange(1, 4) + [FETCH] * chance.randrange(2, 5)
    chance.shuffle(kinds)
    with _clients(url, len(kinds) + 1) as (main, *others):
        room = main.useWs("turns")
        with ThreadPoolExecutor(len(kinds)) as pool:
            waiting: list[tuple[str, Future[int]]] = []
            try:
                for kind, server in zip(kinds, others):
                    client = server.useWs("turns")
                    verb = client.find if kind == FIND else client.fetch
                    waiting.append((kind, pool.submit(verb, "x", timeout=20)))
                    counts = [sum(each == kind for each, _ in waiting) for kind in (FETCH, FIND)]
                    blocked(room, "x", fetchers=counts[0], finders=counts[1])
                for number in range(kinds.count(FETCH)):
                    room.store("x", number)
                room.store("x", "late")  # for a finder that was passed over, so that it ends
                fetched = [future.result(20) for kind, future in waiting if kind == FETCH]
                found = [future.result(20) for kind, future in waiting if kind == FIND]
            finally:
                main.deleteWs("turns")
    assert found == [0] * len(found), f"a finder was not served before the first fetcher: {found}"
    assert fetched == sorted(fetched), f"fetchers were not served as they came: {fetched}"


@contextlib.contextmanager
def _clients(url: str, count: int) -> Iterator[list[NwsServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(NwsServer(url=url)) for _ in range(count)]


if __name__ == "__main__":
    address, own_name, its_seed, file, how_many = sys.argv[1:]
    with NwsServer(url=address) as own_server:
        use(own_server, own_name, its_seed, Path(file), int(how_many))
    assert threading.active_count() == 1
    os._exit(0)
