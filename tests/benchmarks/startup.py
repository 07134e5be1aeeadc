"""From nothing to work and back: imports, the first result, all workers, the end."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial

from tests.benchmarks.measure import OURS, PPE, Goal, Measure, Opener, Row
from tests.benchmarks.pools import LOKY, OPEN, POOL, SPAWN, held

IMPORTS = {
    PPE: "import concurrent.futures.process",
    POOL: "import multiprocessing.pool",
    LOKY: "import loky",
    OURS: "from sleighexec import SleighExecutor",
}
MAKING = {
    PPE: "from concurrent.futures import ProcessPoolExecutor as Pool; Pool(2).shutdown()",
    LOKY: "from loky import ProcessPoolExecutor as Pool; Pool(2).shutdown()",
    OURS: "from sleighexec import SleighExecutor as Pool; Pool(2).shutdown()",
}
STARTING = {  # by number of workers
    2: {"first": (Goal(12, 2, SPAWN),)},
    16: {},
    64: {"all": (Goal(12, 10, SPAWN), Goal(12, 0.67, PPE))},
}


def measures(quick: bool) -> list[Measure]:
    launches, rounds = (3, 2) if quick else (5, 5)
    imports = Row("time", "importing it, beyond the start of Python", "ms", False, (Goal(13, 1),))
    making = Row("time", "importing it, making a pool, no call, shutdown", "ms", False)
    return [
        Measure("import", (imports,), _programs(IMPORTS, launches), rounds),
        Measure("make", (making,), _programs(MAKING, launches), rounds),
        *[_starts(workers, quick) for workers in STARTING],
    ]


def _programs(codes: Mapping[str, str], launches: int) -> dict[str, Opener]:
    return {
        name: partial(nullcontext, partial(beyond_python, code, launches))
        for name, code in codes.items()
        if name in OPEN
    }


def _starts(workers: int, quick: bool) -> Measure:
    goals = STARTING[workers]
    rows = (
        Row("first", f"{workers} workers: first result", "ms", False, goals.get("first", ())),
        Row("all", f"{workers} workers: all at work", "ms", False, goals.get("all", ())),
        Row("close", f"{workers} idle workers: shutdown", "ms", False),
    )
    names = [name for name in OPEN if name != LOKY or not (quick and workers > 16)]  # seconds
    contenders = {name: partial(nullcontext, partial(starts, name, workers)) for name in names}
    rounds = 7 if workers == 2 else 3
    return Measure(f"start-{workers}", rows, contenders, 1 if quick else rounds, warms=workers == 2)


def beyond_python(code: str, launches: int) -> dict[str, float]:
    """ms that a program takes beyond one that does nothing: medians of launches in turns."""
    taken: dict[str, list[float]] = {"pass": [], code: []}
    for _ in range(launches):
        for program, milliseconds in taken.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            milliseconds.append((time.perf_counter() - begin) * 1e3)
    return {"time": statistics.median(taken[code]) - statistics.median(taken["pass"])}


def starts(name: str, workers: int) -> dict[str, float]:
    """ms from the making of a pool to its first result, to all workers in a call; of its end."""
    begin = time.perf_counter()
    with OPEN[name](workers) as pool:
        pool.result(pool.submit(abs, -1))
        first = time.perf_counter() - begin
        with held(pool):
            everybody = time.perf_counter() - begin
        end = time.perf_counter()
    close = time.perf_counter() - end
    return {"first": first * 1e3, "all": everybody * 1e3, "close": close * 1e3}
