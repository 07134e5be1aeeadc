"""The pools that compete, each in its default configuration, spoken to in one way.

`ProcessPoolExecutor` forks its workers here, explicitly: that is its fastest start. A pool of
loky takes part if loky is installed. To add another: an opener, and its place in `OPEN`.

`JOINED` is ours with workers that came over TLS, as they do from other machines.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

from sleighexec import SleighExecutor
from tests.benchmarks import work
from tests.benchmarks.measure import OURS, PPE, Opener, Sample

SPAWN = "ProcessPoolExecutor, spawn"
POOL = "multiprocessing.Pool"
LOKY = "loky"
JOINED = f"{OURS}, joined by TLS"

WORKERS = 2
PATIENCE = 120  # seconds for all workers of a pool to be there


@dataclass(frozen=True)
class Pool:
    """An open pool.

    `submit(fn, *args)` gives a handle at once, `result(handle)` waits. `map(fn, items)` gives the
    results in order, with `chunksize=` if the default will not do. `abandon()` drops what waits.
    """

    workers: int
    submit: Callable[..., Any]
    result: Callable[[Any], Any]
    map: Callable[..., Iterable[Any]]
    abandon: Callable[[], Any]
    itself: Any


def of_executor(executor: Executor, workers: int) -> Pool:
    """An executor of `concurrent.futures` as a Pool."""
    result = methodcaller("result")
    abandon = partial(executor.shutdown, cancel_futures=True)
    return Pool(workers, executor.submit, result, executor.map, abandon, executor)


@contextmanager
def _sleighexec(workers: int) -> Iterator[Pool]:
    with SleighExecutor(workers) as executor:
        yield of_executor(executor, workers)


@contextmanager
def stdlib(method: str, workers: int, **options: Any) -> Iterator[Pool]:
    """A `ProcessPoolExecutor` with this way to start workers."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, mp_context=context, **options) as executor:
        try:
            yield of_executor(executor, workers)
        except BaseException:
            # Its shutdown would first run all that waits; and after a Ctrl-C while it forks it
            # has workers that nobody ever ends.
            for process in list((executor._processes or {}).values()):
                process.kill()
            raise


@contextmanager
def _multiprocessing(workers: int) -> Iterator[Pool]:
    # A worker that dies of Ctrl-C while it holds the queue's lock would block terminate() for ever.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    pool = multiprocessing.get_context("fork").Pool(workers, signal.signal, ignore)

    def submit(fn: Callable[..., Any], *args: Any) -> Any:
        return pool.apply_async(fn, args)

    try:
        yield Pool(workers, submit, methodcaller("get"), pool.map, pool.terminate, pool)
        pool.close()
    except BaseException:
        pool.terminate()
        raise
    finally:
        pool.join()


@contextmanager
def _loky(workers: int) -> Iterator[Pool]:
    import loky

    with loky.ProcessPoolExecutor(workers) as executor:
        abandon = partial(executor.shutdown, kill_workers=True)
        try:
            yield replace(of_executor(executor, workers), abandon=abandon)
        except BaseException:
            abandon()
            raise


@contextmanager
def joined(workers: int) -> Iterator[Pool]:
    """A pool of ours whose workers have all joined it over TLS, from this machine."""
    with SleighExecutor(launcher=[]) as executor:
        words = "-m", "sleighexec", "worker", executor.listen("127.0.0.1:0")
        machine = subprocess.Popen(
            [sys.executable, *words, "--workers", str(workers)], stderr=subprocess.DEVNULL
        )
        try:
            executor.wait_for_workers(workers, PATIENCE)
            yield of_executor(executor, workers)
        finally:
            machine.terminate()  # it leaves after its present calls
            machine.wait(PATIENCE)


OPEN: dict[str, Callable[[int], AbstractContextManager[Pool]]] = {
    PPE: partial(stdlib, "fork"),
    SPAWN: partial(stdlib, "spawn"),
    POOL: _multiprocessing,
    LOKY: _loky,
    OURS: _sleighexec,
    JOINED: joined,
}
if importlib.util.find_spec("loky") is None:
    del OPEN[LOKY]

# Once it runs, spawn is as fast as fork; a network is slower than none.
RUNNING = [name for name in OPEN if name not in (SPAWN, JOINED)]


@contextmanager
def held(pool: Pool, module: str = "socket") -> Iterator[None]:
    """Every worker of the pool has started, has imported `module`, and is busy until we leave."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        path = str(Path(folder, "door"))
        listener.bind(path)
        listener.listen(pool.workers)
        listener.settimeout(PATIENCE)
        handles = [pool.submit(work.stay, path, module) for _ in range(pool.workers)]
        doors: list[socket.socket] = []
        try:
            for _ in handles:
                doors.append(listener.accept()[0])
            yield
        finally:
            for door in doors:
                door.close()
        for handle in handles:
            pool.result(handle)


def among(
    sample: Callable[[Pool], Mapping[str, float]],
    names: Iterable[str] = RUNNING,
    workers: int = WORKERS,
    module: str = "socket",
) -> dict[str, Opener]:
    """Contenders with an open pool whose workers are all there and have imported `module`."""
    return {name: partial(_ready, name, sample, workers, module) for name in names}


@contextmanager
def _ready(
    name: str, sample: Callable[[Pool], Mapping[str, float]], workers: int, module: str
) -> Iterator[Sample]:
    with OPEN[name](workers) as pool:
        with held(pool, module):
            pass
        yield partial(sample, pool)


def there_and_back(pool: Pool, argument: Any, calls: int) -> dict[str, float]:
    """ms of one call that gets something, `there`, and of one that returns it too, `and-back`."""
    times = {}
    for name, function in (("there", len), ("and-back", work.given)):
        begin = time.perf_counter()
        for _ in range(calls):
            pool.result(pool.submit(function, argument))
        times[name] = (time.perf_counter() - begin) / calls * 1e3
    return times
