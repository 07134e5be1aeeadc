"""A call that kills its worker: when that is known, and when the next call has its result."""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext
from functools import partial

from tests.benchmarks.measure import OURS, PPE, Measure, Row
from tests.benchmarks.pools import LOKY, OPEN, Pool


def measures(quick: bool) -> list[Measure]:
    rows = (
        Row("known", "a call kills its worker: until it has its error", "ms", False),
        Row("again", "from then on: until the next call has its result", "ms", False),
    )
    names = [name for name in (OURS, PPE, LOKY) if name in OPEN]
    contenders = {name: partial(nullcontext, partial(crash, name)) for name in names}
    return [Measure("crash", rows, contenders, 3 if quick else 9, warms=False)]


def live() -> None:
    """Take a moment, so that every worker gets one of these."""
    time.sleep(0.02)


def die() -> None:
    """End this process as the system does it when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash(name: str) -> dict[str, float]:
    """ms until the error is there; ms until a result is, in a new pool if that one is broken."""
    with OPEN[name](2) as pool:
        for handle in [pool.submit(live) for _ in range(20)]:  # they have imported this file
            pool.result(handle)
        begin = time.perf_counter()
        _failure(pool)
        known = time.perf_counter()
        if name == OURS:
            pool.result(pool.submit(abs, -1))
            return {"known": (known - begin) * 1e3, "again": (time.perf_counter() - known) * 1e3}
    begin_again = time.perf_counter()
    with OPEN[name](2) as pool:
        pool.result(pool.submit(abs, -1))
        again = time.perf_counter() - begin_again
    return {"known": (known - begin) * 1e3, "again": again * 1e3}


def _failure(pool: Pool) -> None:
    try:
        pool.result(pool.submit(die))
    except Exception:  # the one of each pool for this
        return
    raise AssertionError("the call has ended without an error")
