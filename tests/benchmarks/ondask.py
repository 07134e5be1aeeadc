"""Many short calls on a Dask cluster: our `map` beside Dask's own `Client.map`, in turns.

Both use one cluster of two workers with one thread each, and as many calls in each Dask task: ours
by `chunksize=`, Dask's by a function that makes the calls of a chunk and returns a list.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from sleighexec import SleighExecutor
from tests.benchmarks.measure import OURS, Goal, Measure, Opener, Row, Sample
from tests.daskcluster import DaskCluster, dask_cluster

CLIENT = "Client.map"
MISSING = "" if importlib.util.find_spec("distributed") else "Dask is not installed"

Map = Callable[[int, int], list[int]]  # of so many calls, so many in a Dask task


def measures(quick: bool) -> list[Measure]:
    if MISSING:
        return []
    counts = {1: 2_000, 10: 20_000, 100: 100_000, 1000: 100_000}
    return [
        Measure(
            f"dask-{chunk}",
            (
                Row(
                    "rate",
                    f"map over {count // (5 if quick else 1):,} trivial calls on Dask, "
                    + (f"{chunk} in each Dask task" if chunk > 1 else "ours as it likes, Dask's 1"),
                    "calls/s",
                    True,
                    (Goal(None, 0.9, CLIENT),),
                ),
            ),
            _contenders(count // (5 if quick else 1), chunk),
            3 if quick else 5,
        )
        for chunk, count in counts.items()
    ]


def _contenders(count: int, chunk: int) -> dict[str, Opener]:
    cluster = _Shared()
    return {
        name: partial(_open, cluster, mapping, count, chunk)
        for name, mapping in ((OURS, _ours), (CLIENT, _theirs))
    }


class _Shared:
    """A cluster that is there as long as somebody uses it."""

    def __init__(self) -> None:
        self._users = 0

    @contextlib.contextmanager
    def used(self) -> Iterator[DaskCluster]:
        if not self._users:
            self._opened = dask_cluster(2)
            self._cluster = self._opened.__enter__()
            self._cluster.settle()
        self._users += 1
        try:
            yield self._cluster
        finally:
            self._users -= 1
            if not self._users:
                self._opened.__exit__(None, None, None)


@contextlib.contextmanager
def _open(cluster: _Shared, mapping: Any, count: int, chunk: int) -> Iterator[Sample]:
    with cluster.used() as there, mapping(there.url) as run:
        yield partial(_sample, run, count, chunk)


def _sample(run: Map, count: int, chunk: int) -> dict[str, float]:
    begin = time.perf_counter()
    found = run(count, chunk)
    seconds = time.perf_counter() - begin
    assert found == list(range(count))
    return {"rate": count / seconds}


@contextlib.contextmanager
def _ours(url: str) -> Iterator[Map]:
    with SleighExecutor(engine=url, min_workers=2) as executor:
        yield lambda count, chunk: list(executor.map(abs, range(count), chunksize=chunk))


@contextlib.contextmanager
def _theirs(url: str) -> Iterator[Map]:
    from distributed import Client

    with Client(url.replace("dask://", "tcp://"), set_as_default=False) as client:
        yield partial(_client_map, client)


def _client_map(client: Any, count: int, chunk: int) -> list[int]:
    if chunk == 1:
        return list(client.gather(client.map(abs, range(count), pure=False)))
    chunks = [range(first, first + chunk) for first in range(0, count, chunk)]
    return [each for row in client.gather(client.map(calls, chunks, pure=False)) for each in row]


def calls(numbers: range) -> list[int]:
    """The calls of a chunk."""
    return [abs(number) for number in numbers]
