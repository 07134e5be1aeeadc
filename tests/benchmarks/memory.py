"""Calls that wait: what each of them takes in the client, in bytes and in time.

Each contender is measured in a process of its own, which this file is also the program of:
`python -m tests.benchmarks.memory CONTENDER COUNT [drain]` prints its figures as JSON.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import OURS, PPE, Goal, Measure, Row
from tests.benchmarks.pools import OPEN, POOL, WORKERS, held

ROOT = Path(__file__).parents[2]
POOLS = (PPE, POOL, OURS)  # loky keeps what waits as ProcessPoolExecutor does


def measures(quick: bool) -> list[Measure]:
    if quick:
        return [_pending(10_000, 1, drain=True)]
    return [_pending(100_000, 3, drain=True), _pending(1_000_000, 1, drain=False)]


def _pending(count: int, rounds: int, *, drain: bool) -> Measure:
    million = (Goal(11, 350, None),) if not drain else ()
    rows = (
        Row("bytes", f"memory of one of {count:,} pending calls", "bytes", False, (Goal(11, 6),)),
        Row("total", f"memory of {count:,} pending calls", "MB", False, million),
        Row("submit", f"submitting one of {count:,} calls, workers busy", "µs", False),
        Row("drain", f"from then on: running one of {count:,} calls", "µs", False),
    )
    contenders = {
        name: partial(nullcontext, partial(in_own_process, name, count, drain)) for name in POOLS
    }
    short = f"{count // 1_000_000}M" if count >= 1_000_000 else f"{count // 1000}k"
    return Measure(f"pending-{short}", rows, contenders, rounds, warms=False)


def in_own_process(name: str, count: int, drain: bool) -> dict[str, float]:
    """What `pending` finds in a fresh process."""
    command = [sys.executable, "-m", __name__, name, str(count), *(["drain"] if drain else [])]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


def pending(name: str, count: int, drain: bool) -> dict[str, float]:
    """Bytes and µs for each of `count` calls that are submitted while all workers are busy.

    Bytes: by how much the resident memory of this process grows. It keeps all handles, as one who
    wants the results must. If they are not drained they are cancelled.
    """
    with OPEN[name](WORKERS) as pool:
        with held(pool):
            for handle in [pool.submit(abs, number) for number in range(1000)]:
                del handle  # what is made at the first use is there
            gc.collect()
            before, begin = resident(), time.perf_counter()
            handles = [pool.submit(abs, number) for number in range(count)]
            seconds, grown = time.perf_counter() - begin, resident() - before
            begin = time.perf_counter()
        figures = {"bytes": grown / count, "total": grown / 1e6, "submit": seconds / count * 1e6}
        if drain:
            for handle in handles:
                pool.result(handle)
            figures["drain"] = (time.perf_counter() - begin) / count * 1e6
        else:
            pool.abandon()
    return figures


def resident() -> int:
    """Bytes of memory that this process has; where there is no /proc, the most it ever had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    print(json.dumps(pending(sys.argv[1], int(sys.argv[2]), "drain" in sys.argv[3:])))
