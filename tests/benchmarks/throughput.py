"""Trivial calls, many of them: what the pool itself costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tests.benchmarks import work
from tests.benchmarks.measure import OURS, PPE, Goal, Measure, Opener, Row
from tests.benchmarks.pools import LOKY, POOL, RUNNING, Pool, among, there_and_back

OBJECTS = 5_000
CHUNK = 512  # items: about the best for the standard library's map


def measures(quick: bool) -> list[Measure]:
    count = 2_500 if quick else 20_000
    lists = 2_500 if quick else 10_000
    items = 2_500 if quick else 20_000
    many = 50_000 if quick else 500_000
    rounds = 3 if quick else 5
    chunks = {OURS: (None,), PPE: (CHUNK,), POOL: (None,), LOKY: (CHUNK,)}
    sizes = (CHUNK, 8 * CHUNK, 32 * CHUNK)
    best = {OURS: (None, *sizes), PPE: sizes, POOL: (None, *sizes), LOKY: sizes}
    return [
        Measure(
            "submit",
            (
                Row(
                    "rate",
                    f"{count:,} trivial calls, submitted one by one, all results",
                    "calls/s",
                    True,
                    (Goal(1, 20), Goal(1, 8, POOL)),
                ),
                Row("cpu", "CPU time of the client for one of them", "µs", False, (Goal(3, 20),)),
            ),
            among(partial(submits, count=count)),
            rounds,
        ),
        Measure(
            "submit-lists",
            (
                Row(
                    "rate",
                    f"{lists:,} trivial calls with a list or a dict as argument",
                    "calls/s",
                    True,
                    (Goal(2, 10),),
                ),
            ),
            among(partial(submits_lists, count=lists)),
            rounds,
        ),
        Measure(
            "objects",
            (
                Row("there", f"{OBJECTS:,} objects as the argument of one call", "ms", False),
                Row("and-back", "the same objects, and back as its result", "ms", False),
            ),
            among(partial(objects, calls=5 if quick else 20)),
            rounds,
        ),
        Measure(
            "map",
            (
                Row(
                    "rate",
                    f"map over {items:,} trivial calls, default chunk size",
                    "calls/s",
                    True,
                    (Goal(4, 200),),
                ),
            ),
            among(partial(maps, function=abs, items=range(items))),
            rounds,
        ),
        Measure(
            "map-chunks",
            (
                Row(
                    "rate",
                    f"map over {many:,} trivial calls: ours and multiprocessing.Pool's by default, "
                    f"the others' in chunks of {CHUNK}",
                    "calls/s",
                    True,
                    (Goal(4, 2), Goal(4, 0.7, POOL)),
                ),
            ),
            _mapping(chunks, abs, range(many)),
            rounds,
        ),
        Measure(
            "map-tuples",
            (
                Row(
                    "rate",
                    f"map over {items:,} tuples, which come back: ours and multiprocessing.Pool's "
                    f"by default, the others' in chunks of {CHUNK}",
                    "calls/s",
                    True,
                ),
            ),
            _mapping(chunks, work.given, [(number, number / 2) for number in range(items)]),
            rounds,
        ),
        Measure(
            "map-dicts",
            (
                Row(
                    "rate",
                    f"map over {items:,} dicts, which come back: ours and multiprocessing.Pool's "
                    f"by default, the others' in chunks of {CHUNK}",
                    "calls/s",
                    True,
                ),
            ),
            _mapping(
                chunks,
                work.given,
                [{"id": n, "name": f"n{n}", "price": n / 2} for n in range(items)],
            ),
            rounds,
        ),
        Measure(
            "each-elem",
            (
                Row(
                    "rate",
                    f"eachElem over {items:,} trivial calls that take two arguments, one of them "
                    "fixed; the others' map, by default",
                    "calls/s",
                    True,
                ),
            ),
            among(partial(gathers, items=range(items))),
            rounds,
        ),
        Measure(
            "map-best",
            (
                Row(
                    "rate",
                    f"map over a list for {many:,} trivial calls, each with the chunk size "
                    "it is fastest with",
                    "calls/s",
                    True,
                ),
            ),
            _mapping(best, abs, list(range(many))),
            rounds,
        ),
    ]


def _mapping(
    sizes: Mapping[str, Sequence[int | None]], function: Callable[[Any], Any], items: Sequence[Any]
) -> dict[str, Opener]:
    """Contenders that map with the best of these chunk sizes."""
    contenders: dict[str, Opener] = {}
    for name in RUNNING:
        sample = partial(maps, function=function, items=items, sizes=sizes[name])
        contenders |= among(sample, [name])
    return contenders


def submits(pool: Pool, count: int) -> dict[str, float]:
    """Calls per second, and µs of CPU time that this process (all its threads) takes for one."""
    cpu, begin = time.process_time(), time.perf_counter()
    for handle in [pool.submit(abs, number) for number in range(count)]:
        pool.result(handle)
    seconds = time.perf_counter() - begin
    return {"rate": count / seconds, "cpu": (time.process_time() - cpu) / count * 1e6}


def submits_lists(pool: Pool, count: int) -> dict[str, float]:
    """Calls per second; half of them get a list, half a dict: what may be changed meanwhile."""
    arguments = [[n, n] if n % 2 else {"n": n} for n in range(count)]
    begin = time.perf_counter()
    for handle in [pool.submit(len, argument) for argument in arguments]:
        pool.result(handle)
    return {"rate": count / (time.perf_counter() - begin)}


def objects(pool: Pool, calls: int) -> dict[str, float]:
    """ms of one call with many objects of a class, and of one that returns them."""
    points = [work.Point(number, number / 2) for number in range(OBJECTS)]
    return there_and_back(pool, points, calls)


def gathers(pool: Pool, items: Sequence[Any]) -> dict[str, float]:
    """Calls per second of an eachElem, or of the map that comes nearest to it."""
    each = getattr(pool.itself, "eachElem", None)
    begin = time.perf_counter()
    if each is not None:
        each(max, [items], [7])
    else:
        list(pool.map(partial(max, 7), items))
    return {"rate": len(items) / (time.perf_counter() - begin)}


def maps(
    pool: Pool,
    function: Callable[[Any], Any],
    items: Sequence[Any],
    sizes: Sequence[int | None] = (None,),
) -> dict[str, float]:
    """Calls per second of one map, with the best of these chunk sizes; None: the default."""
    rates = []
    for size in sizes:
        options = {} if size is None else {"chunksize": size}
        begin = time.perf_counter()
        for _ in pool.map(function, items, **options):
            pass
        rates.append(len(items) / (time.perf_counter() - begin))
    return {"rate": max(rates)}
