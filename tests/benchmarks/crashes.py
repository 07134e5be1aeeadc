"""Calls that cost their worker, in several ways: when that is known, what else it costs, what next.

In each round a pool of its own for each way to die: it has a call that dies, others that wait
behind it, and then the next call. Where the pool is broken, the next call has a new pool.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from tests.benchmarks.measure import OURS, PPE, Measure, Row
from tests.benchmarks.pools import LOKY, OPEN, Pool

OTHERS = 20  # calls that wait behind the one that dies


def live() -> None:
    """Take a moment, so that every worker gets one of these."""
    time.sleep(0.02)


def die() -> None:
    """End this process as the system does it when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    """Do what a fault in C code does."""
    ctypes.string_at(0)


def leave() -> None:
    """End this process without a word."""
    os._exit(3)


WAYS: dict[str, tuple[str, Callable[[], None]]] = {
    "kill": ("is killed (SIGKILL)", die),
    "segv": ("crashes (SIGSEGV)", crash),
    "exit": ("ends by itself (os._exit)", leave),
}


def measures(quick: bool) -> list[Measure]:
    names = [name for name in (OURS, PPE, LOKY) if name in OPEN]
    found = []
    for way, (what, _) in WAYS.items():
        rows = (
            Row("known", f"a worker {what}: until its call has its error", "ms", False),
            Row("again", "from then on: until the next call has its result", "ms", False),
            Row("lost", f"calls that fail, of that one and {OTHERS} behind it", "calls", False),
        )
        contenders = {name: partial(nullcontext, partial(sample, name, way)) for name in names}
        found.append(Measure(f"crash-{way}", rows, contenders, 3 if quick else 9, warms=False))
    return found


def sample(name: str, way: str) -> dict[str, float]:
    """ms until the error is there; ms until a result is, in a new pool if that one is broken."""
    with OPEN[name](2) as pool:
        for handle in [pool.submit(live) for _ in range(20)]:  # they have imported this file
            pool.result(handle)
        begin = time.perf_counter()
        victim = pool.submit(WAYS[way][1])
        others = [_submitted(pool) for _ in range(OTHERS)]
        if not _fails(pool, victim):
            raise AssertionError("the call has ended without an error")
        known = time.perf_counter()
        figures = {"known": (known - begin) * 1e3}
        if name == OURS:
            pool.result(pool.submit(abs, -1))
            figures["again"] = (time.perf_counter() - known) * 1e3
        figures["lost"] = 1 + sum(_fails(pool, other) for other in others)
    if name != OURS:
        begin = time.perf_counter()
        with OPEN[name](2) as pool:
            pool.result(pool.submit(abs, -1))
            figures["again"] = (time.perf_counter() - begin) * 1e3
    return figures


def _submitted(pool: Pool) -> object:
    """A handle; None: the pool takes no calls any more."""
    try:
        return pool.submit(abs, -1)
    except Exception:  # the one of each pool for this
        return None


def _fails(pool: Pool, handle: object) -> bool:
    if handle is None:
        return True
    try:
        pool.result(handle)
    except Exception:  # the one of each pool for this
        return True
    return False
