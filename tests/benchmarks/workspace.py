"""The workspace: a value stored and fetched, by one process and between two.

Its peers are a queue of a `multiprocessing` manager and, if redis-py and a server's program are
there, lists of a redis of our own at a Unix socket. A store is anything that gives boxes: `put` a
value in, `get` the next one out, waiting for it. What is compared with is the manager's queue.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy

from sleighexec import NetWorkSpace, NwsServer, SleighExecutor
from tests.benchmarks import work
from tests.benchmarks.data import MB
from tests.benchmarks.latency import RAW, percentiles, raw_exchange, times
from tests.benchmarks.measure import Goal, Measure, Opener, Row, Sample

EMBEDDED = "workspace of an executor"
SOCKET = "workspace server"
MANAGER = "Manager().Queue"
REDIS = "redis"

READY = 30  # seconds for a server to answer


class Box(Protocol):
    """Where values wait in the order they came; can be pickled into another process."""

    def put(self, value: Any) -> None: ...

    def get(self) -> Any: ...

    def put_many(self, values: list[Any]) -> None: ...

    def get_many(self, count: int) -> list[Any]: ...

    def pass_on(self, values: list[Any]) -> None:
        """Put them in one by one, without waiting for each; return when all are there."""


@dataclass(frozen=True)
class Store:
    """Boxes by name; and `beside(fn, *args)`: while in it, `fn` runs in another process."""

    box: Callable[[str], Box]
    beside: Callable[..., AbstractContextManager[None]]


def measures(quick: bool) -> list[Measure]:
    count = 300 if quick else 2_000
    size = 2**23 if quick else 2**26  # bytes
    rounds = 3 if quick else 7
    raw: dict[str, Opener] = {RAW: lambda: raw_exchange(count)}
    return [
        _measure(
            "store-fetch",
            (
                Row(
                    "p50",
                    "store, then fetch a small value: median of both together",
                    "µs",
                    False,
                    (Goal(16, 2, REDIS, SOCKET),),
                ),
                Row("p99", "the same: 99 of 100 are faster", "µs", False),
                Row("stores", f"{count:,} stores, one after another", "values/s", True),
                Row("fetches", f"{count:,} fetches, one after another", "values/s", True),
            ),
            partial(pairs, count=count),
            rounds,
        ),
        _measure(
            "many-values",
            (
                Row(
                    "stores",
                    f"{10 * count:,} small values stored, 1,000 in a request",
                    "values/s",
                    True,
                    (Goal(16, 4, REDIS, SOCKET),),
                ),
                Row(
                    "fetches",
                    f"{10 * count:,} of them fetched, 1,000 in a request",
                    "values/s",
                    True,
                    (Goal(16, 4, REDIS, SOCKET),),
                ),
                Row(
                    "on-the-way",
                    f"{10 * count:,} stored one by one, none waited for; redis: 1,000 in a request",
                    "values/s",
                    True,
                    (Goal(16, 0.8, REDIS, SOCKET),),
                ),
            ),
            partial(many, count=10 * count),
            rounds,
        ),
        _measure(
            "ping-pong",
            (
                Row(
                    "p50",
                    "a small value to another process and back: median",
                    "µs",
                    False,
                    (Goal(16, 1.67, REDIS, SOCKET),),
                ),
            ),
            partial(ping_pong, count=count),
            rounds,
            raw,
        ),
        _measure(
            "value-64MB",
            (
                Row(
                    "rate",
                    f"store and fetch an array of {size // 2**20} MiB",
                    "MB/s",
                    True,
                    (Goal(17, 20, REDIS, SOCKET),),
                ),
            ),
            partial(big_values, size=size, count=3),
            rounds,
        ),
    ]


def _measure(
    name: str,
    rows: tuple[Row, ...],
    opened: Callable[[Store], AbstractContextManager[Sample]],
    rounds: int,
    others: Mapping[str, Opener] | None = None,
) -> Measure:
    contenders = {store: partial(_ready, store, opened) for store in STORES} | dict(others or {})
    return Measure(name, rows, contenders, rounds, ours=(EMBEDDED, SOCKET))


@contextmanager
def _ready(
    name: str, opened: Callable[[Store], AbstractContextManager[Sample]]
) -> Iterator[Sample]:
    with STORES[name]() as store, opened(store) as sample:
        yield sample


# ------------------------------------------------------------------ what is measured


@contextmanager
def pairs(store: Store, count: int) -> Iterator[Sample]:
    """µs of a store with the fetch behind it; values per second, of many stores, then fetches."""
    box = store.box("values")

    def pair() -> None:
        box.put(1)
        box.get()

    def sample() -> Mapping[str, float]:
        figures = percentiles(times(pair, count))
        begin = time.perf_counter()
        for number in range(count):
            box.put(number)
        half = time.perf_counter()
        for number in range(count):
            assert box.get() == number
        end = time.perf_counter()
        return figures | {"stores": count / (half - begin), "fetches": count / (end - half)}

    yield sample


@contextmanager
def many(store: Store, count: int) -> Iterator[Sample]:
    """Values per second, stored and fetched many at a time, and stored without waiting for it."""
    box, batch = store.box("many"), 1_000

    def sample() -> Mapping[str, float]:
        begin = time.perf_counter()
        for first in range(0, count, batch):
            box.put_many(list(range(first, first + batch)))
        half = time.perf_counter()
        taken: list[Any] = []
        while len(taken) < count:
            taken += box.get_many(batch)
        end = time.perf_counter()
        assert taken == list(range(count))
        figures = {"stores": count / (half - begin), "fetches": count / (end - half)}
        begin = time.perf_counter()
        box.pass_on(taken)
        figures["on-the-way"] = count / (time.perf_counter() - begin)
        while taken:
            del taken[: len(box.get_many(batch))]
        return figures

    yield sample


@contextmanager
def ping_pong(store: Store, count: int) -> Iterator[Sample]:
    """µs until a value that was stored for another process is answered by it."""
    ping, pong = store.box("ping"), store.box("pong")

    def exchange() -> None:
        ping.put(1)
        pong.get()

    with store.beside(work.echo, ping, pong):
        try:
            exchange()  # it is there
            yield lambda: percentiles(times(exchange, count))
        finally:
            ping.put(None)


@contextmanager
def big_values(store: Store, size: int, count: int) -> Iterator[Sample]:
    """MB per second of arrays that are stored, fetched and read; each byte counts once."""
    box = store.box("big")
    array = numpy.ones(size // 8)

    def sample() -> Mapping[str, float]:
        begin = time.perf_counter()
        for number in range(count):
            array[0] = number
            box.put(array)
            fetched = box.get()
            work.touch(fetched)
            assert fetched[0] == number
        return {"rate": size * count / MB / (time.perf_counter() - begin)}

    yield sample


# ------------------------------------------------------------------ the stores


@dataclass(frozen=True)
class Variable:
    """A variable of a workspace as a box."""

    workspace: NetWorkSpace
    name: str

    def put(self, value: Any) -> None:
        self.workspace.store(self.name, value)

    def get(self) -> Any:
        return self.workspace.fetch(self.name)

    def put_many(self, values: list[Any]) -> None:
        self.workspace.storeMany(self.name, values)

    def get_many(self, count: int) -> list[Any]:
        return self.workspace.fetchMany(self.name, count)

    def pass_on(self, values: list[Any]) -> None:
        for value in values:
            self.workspace.store(self.name, value, wait=False)
        self.workspace.flush()


@contextmanager
def embedded() -> Iterator[Store]:
    """The workspace of an executor, in this process; the other process is one of its workers."""

    @contextmanager
    def beside(function: Callable[..., None], *args: Any) -> Iterator[None]:
        future = executor.submit(function, *args)
        yield
        future.result()

    with SleighExecutor(1) as executor:
        yield Store(partial(Variable, executor.workspace), beside)


@contextmanager
def by_socket() -> Iterator[Store]:
    """A workspace server in a process of its own, at a Unix socket."""
    with tempfile.TemporaryDirectory() as folder:  # of mode 0700, as it must be
        command = [sys.executable, "-m", "sleighexec", "server", "--json", "--bind", f"{folder}/s"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                url = json.loads(process.stdout.readline())["url"]
                with NwsServer(url=url) as server:
                    yield Store(partial(Variable, server.openWs("bench")), _process)
            finally:
                process.send_signal(signal.SIGTERM)


@contextmanager
def manager() -> Iterator[Store]:
    """Queues of a manager, which is a process."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as made:
        yield Store(lambda name: Queue(made.Queue()), _process)


@dataclass(frozen=True)
class Queue:
    """A queue of a manager as a box: it has one value in a request."""

    queue: Any

    def put(self, value: Any) -> None:
        self.queue.put(value)

    def get(self) -> Any:
        return self.queue.get()

    def put_many(self, values: list[Any]) -> None:
        for value in values:
            self.queue.put(value)

    def get_many(self, count: int) -> list[Any]:
        return [self.queue.get() for _ in range(count)]

    pass_on = put_many


@contextmanager
def _process(function: Callable[..., None], *args: Any) -> Iterator[None]:
    """A fresh process; it is to end by itself when we leave."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=args)
    process.start()
    try:
        yield
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()


class RedisList:
    """A list of a redis as a box: values are pickled, `get` waits."""

    def __init__(self, path: str, name: str) -> None:
        import redis

        self._path, self._name = path, name
        self._redis = redis.Redis(unix_socket_path=path)

    def put(self, value: Any) -> None:
        self._redis.rpush(self._name, pickle.dumps(value, 5))

    def get(self) -> Any:
        _, data = self._redis.blpop([self._name])
        return pickle.loads(data)

    def put_many(self, values: list[Any]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for value in values:
                pipeline.rpush(self._name, pickle.dumps(value, 5))
            pipeline.execute()

    def get_many(self, count: int) -> list[Any]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for _ in range(count):
                pipeline.lpop(self._name)
            return [pickle.loads(data) for data in pipeline.execute() if data is not None]

    def pass_on(self, values: list[Any]) -> None:
        for first in range(0, len(values), 1_000):
            self.put_many(values[first : first + 1_000])

    def __reduce__(self) -> Any:
        return RedisList, (self._path, self._name)


def redis_program() -> str | None:
    """The program of a redis (or valkey) server, if it and redis-py are there."""
    if importlib.util.find_spec("redis") is None:
        return None
    return shutil.which("redis-server") or shutil.which("valkey-server")


@contextmanager
def by_redis() -> Iterator[Store]:
    """A redis of our own: at a Unix socket, with nothing on disk."""
    import redis

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        command = [redis_program(), "--port", "0", "--unixsocket", path, "--save", "", "--dir"]
        process = subprocess.Popen([*command, folder], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + READY
            while not Path(path).exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            with contextlib.closing(redis.Redis(unix_socket_path=path)) as client:
                client.ping()
                yield Store(partial(RedisList, path), _process)
        finally:
            process.terminate()
            process.wait()


STORES: dict[str, Callable[[], AbstractContextManager[Store]]] = {
    MANAGER: manager,
    SOCKET: by_socket,
    EMBEDDED: embedded,
}
if redis_program() is not None:
    STORES[REDIS] = by_redis
