"""Big arrays: as arguments, there and back, and one big argument that many calls share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy

from tests.benchmarks import work
from tests.benchmarks.measure import OURS, PPE, Goal, Measure, Row, Sample
from tests.benchmarks.pools import OPEN, WORKERS, Pool, among, held, stdlib, there_and_back

COPY = "one copy within a process"
SHARED = "sleighexec, eachElem"
FORK_INITIALIZER = "ProcessPoolExecutor, initializer"
SPAWN_INITIALIZER = "ProcessPoolExecutor, spawn, initializer"

MB = 1_000_000  # bytes
ITEM = 8  # bytes of a float64


def measures(quick: bool) -> list[Measure]:
    rounds = 3 if quick else 5
    small, big = 2**20, (2**23 if quick else 2**26)  # bytes
    calls = 10 if quick else 200
    fixed = f"{calls} calls with the same array of {_size(big)}"
    return [
        Measure(
            "array-1MB",
            rows(small, (Goal(9, 5),), ()),
            among(partial(travels, size=small, calls=20 if quick else 100), module="numpy"),
            rounds,
        ),
        Measure(
            "bytes-1MB",
            (
                Row("there", "1,000,000 bytes as the argument of one call", "ms", False),
                Row("and-back", "the same bytes, and back as its result", "ms", False),
            ),
            among(partial(carries, calls=10 if quick else 50)),
            rounds,
        ),
        Measure(
            "array-64MB",
            rows(big, (Goal(7, 20), Goal(8, 9), Goal(7, 0.6, COPY)), (Goal(7, 20),)),
            among(partial(travels, size=big, calls=3), module="numpy")
            | {COPY: lambda: nullcontext(partial(copies, big, 3))},
            rounds,
        ),
        Measure(
            "fixed",
            (
                Row(
                    "time",
                    f"{fixed}: submitted with each, or fixed argument, or initializer",
                    "ms",
                    False,
                    (
                        Goal(10, 15),
                        Goal(10, 150, PPE, SHARED),
                        Goal(10, 200, None, SHARED),
                        Goal(10, 2.5, SPAWN_INITIALIZER, SHARED),
                    ),
                ),
            ),
            {
                FORK_INITIALIZER: lambda: nullcontext(partial(initialized, "fork", big, calls)),
                SPAWN_INITIALIZER: lambda: nullcontext(partial(initialized, "spawn", big, calls)),
                **among(partial(plain, size=big, calls=calls), [PPE, OURS], module="numpy"),
                SHARED: lambda: shared(big, calls),
            },
            1 if quick else 3,
            ours=(OURS, SHARED),
            warms=False,
        ),
    ]


def rows(size: int, there: tuple[Goal, ...], back: tuple[Goal, ...]) -> tuple[Row, ...]:
    """What `travels` measures, with these goals."""
    what = f"arrays of {_size(size)}, one call at a time"
    return (
        Row("there", f"{what}, as argument", "MB/s", True, there),
        Row("and-back", f"{what}, as argument and result, both counted", "MB/s", True, back),
    )


def _size(size: int) -> str:
    return f"{size // 2**20} MiB"


def travels(pool: Pool, size: int, calls: int) -> dict[str, float]:
    """MB per second of arrays that the worker reads, and that come back and are read here.

    The array is another one at each call, as far as a pool can know: its first item changes.
    """
    array = numpy.ones(size // ITEM)
    there = and_back = 0.0
    for number in range(calls):
        array[0] = number
        begin = time.perf_counter()
        total = pool.result(pool.submit(work.touch, array))
        there += time.perf_counter() - begin
        assert total == number + len(array[::512]) - 1, "that was an older array"
    for number in range(calls):
        array[0] = number
        begin = time.perf_counter()
        work.touch(back := pool.result(pool.submit(work.same, array)))
        and_back += time.perf_counter() - begin
        assert back[0] == number, "that was an older array"
    moved = size * calls / MB
    return {"there": moved / there, "and-back": 2 * moved / and_back}


def carries(pool: Pool, calls: int) -> dict[str, float]:
    """ms of one call with long bytes, and of one that returns them."""
    return there_and_back(pool, bytes(MB), calls)


def copies(size: int, calls: int) -> dict[str, float]:
    """MB per second of copies of an array into memory that is there already."""
    array = numpy.ones(size // ITEM)
    target = array.copy()
    begin = time.perf_counter()
    for _ in range(calls):
        numpy.copyto(target, array)
    return {"there": size * calls / MB / (time.perf_counter() - begin)}


def plain(pool: Pool, size: int, calls: int) -> dict[str, float]:
    """ms until all calls have ended, of which each was submitted with the array."""
    array = numpy.ones(size // ITEM)
    begin = time.perf_counter()
    for handle in [pool.submit(work.part, index, array) for index in range(calls)]:
        pool.result(handle)
    return _milliseconds(begin)


@contextmanager
def shared(size: int, calls: int) -> Iterator[Sample]:
    """ms until all calls of an eachElem have ended whose fixed argument is the array."""

    def sample() -> Mapping[str, float]:
        array = numpy.random.default_rng().random(size // ITEM)  # no worker can have it yet
        begin = time.perf_counter()
        pool.itself.eachElem(work.part, range(calls), [array])
        return _milliseconds(begin)

    with OPEN[OURS](WORKERS) as pool:
        with held(pool, "numpy"):
            pass
        yield sample


def initialized(method: str, size: int, calls: int) -> dict[str, float]:
    """ms from the making of a pool whose initializer leaves the array, until all calls have ended.

    The array must be there before the pool is: so the pool's start is in the time.
    """
    array = numpy.ones(size // ITEM)
    begin = time.perf_counter()
    with stdlib(method, WORKERS, initializer=work.keep, initargs=(array,)) as pool:
        for handle in [pool.submit(work.kept_part, index) for index in range(calls)]:
            pool.result(handle)
        return _milliseconds(begin)


def _milliseconds(begin: float) -> dict[str, float]:
    return {"time": (time.perf_counter() - begin) * 1e3}
