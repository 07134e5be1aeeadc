"""Calls that take their time: how much of it the pool wastes, and who waits behind whom.

Efficiency is ideal time / measured time. All these calls sleep, so that two cores serve 64
workers too. Ideal: the calls handed out in order, each to the worker that is free first, at no
cost; a sleep counts as long as it lasts in a process that is left alone.
"""

from __future__ import annotations

import heapq
import random
import statistics
import time
from collections.abc import Sequence
from functools import partial

from tests.benchmarks.measure import Goal, Measure, Row
from tests.benchmarks.pools import LOKY, RUNNING, WORKERS, Pool, among
from tests.benchmarks.work import rest

LONG = 0.3  # seconds
EARLY, LATE = 10, 30  # trivial calls before and after the long one


def measures(quick: bool) -> list[Measure]:
    part = 4 if quick else 1
    rounds = 2 if quick else 5
    chance = random.Random(1)
    uneven = [chance.lognormvariate(-6, 1) for _ in range(300 // part)]
    mixed = ([0.0] * 50 + [0.020]) * (20 // part)
    at_least = (Goal(14, 0.95, None),)
    few, many = [0.010] * (80 // part), [0.010] * (1600 // part)
    names = [name for name in RUNNING if name != LOKY or not quick]  # it starts for seconds
    return [
        _efficiency("even-1ms", "sleeps of 1 ms", [0.001] * (400 // part), rounds, at_least),
        _efficiency("even-10ms", "sleeps of 10 ms", few, rounds),
        _efficiency("even-20ms", "sleeps of 20 ms", [0.020] * (40 // part), rounds),
        _efficiency(
            "uneven", "sleeps, lognormal (median 2.5 ms, sigma 1)", uneven, rounds, at_least
        ),
        _efficiency("mixed", "a sleep of 20 ms after every 50 of 0", mixed, rounds, at_least),
        _efficiency("workers-16", "sleeps of 10 ms", many, rounds, (), 16, names),
        _efficiency("workers-64", "sleeps of 10 ms", many, rounds, at_least, 64, names),
        Measure(
            "stuck",
            (
                Row(
                    "time",
                    f"one sleep of {LONG * 1e3:g} ms among {EARLY + LATE} of 0: "
                    f"when the {EARLY + LATE} are done",
                    "ms",
                    False,
                    (Goal(15, 1), Goal(15, 10, None)),
                ),
            ),
            among(stuck),
            3 if quick else 10,
        ),
    ]


def _efficiency(
    name: str,
    what: str,
    durations: Sequence[float],
    rounds: int,
    goals: tuple[Goal, ...] = (),
    workers: int = WORKERS,
    names: Sequence[str] = RUNNING,
) -> Measure:
    row = Row("efficiency", f"efficiency, {workers} workers: {what}", "", True, goals)
    contenders = among(partial(efficiency, durations=durations), names, workers)
    return Measure(name, (row,), contenders, rounds)


def efficiency(pool: Pool, durations: Sequence[float]) -> dict[str, float]:
    """Ideal time / measured time of sleeps of so many seconds: at most 1."""
    late = lateness()
    ideal = makespan([length + late if length else 0.0 for length in durations], pool.workers)
    begin = time.perf_counter()
    for handle in [pool.submit(rest, length) for length in durations]:
        pool.result(handle)
    return {"efficiency": ideal / (time.perf_counter() - begin)}


def makespan(durations: Sequence[float], workers: int) -> float:
    """Seconds until all is done if each worker takes the next as soon as it is free."""
    free = [0.0] * workers
    for length in durations:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def lateness() -> float:
    """Seconds by which a sleep is longer than it should be, here and now."""
    taken = []
    for _ in range(15):
        begin = time.perf_counter()
        time.sleep(0.001)
        taken.append(time.perf_counter() - begin - 0.001)
    return statistics.median(taken)


def stuck(pool: Pool) -> dict[str, float]:
    """ms until all trivial calls have ended, of which most come behind a long one.

    It is a call of the same function, and the pool has just seen 200 short ones of it.
    """
    for handle in [pool.submit(rest, 0) for _ in range(200)]:
        pool.result(handle)
    begin = time.perf_counter()
    trivial = [pool.submit(rest, 0) for _ in range(EARLY)]
    long = pool.submit(rest, LONG)
    trivial += [pool.submit(rest, 0) for _ in range(LATE)]
    for handle in trivial:
        pool.result(handle)
    done = time.perf_counter() - begin
    pool.result(long)
    return {"time": done * 1e3}
