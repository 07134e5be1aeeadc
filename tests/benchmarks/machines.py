"""Workers behind ssh, TLS and a pipe beside workers of this machine.

    python -m tests.benchmarks.machines

All of them run on this machine, and the ssh server too: what is measured is what the way costs,
without a network. Contenders take turns; the table has the median of the rounds.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from sleighexec import SSH, Command, Local, SleighExecutor
from tests.benchmarks.latency import percentiles, times
from tests.benchmarks.pools import WORKERS, joined
from tests.hosts import Hosts, why_no_namespaces, why_not

ROUNDS = 5
ARRAY = 64 * 1024**2  # bytes
FIGURES: dict[str, tuple[str, str]] = {
    "p50": ("one call at a time, median", "µs"),
    "p99": ("the same, 99 of 100 are faster", "µs"),
    "submit": ("`submit` of 2 000 calls, to the last result", "calls/s"),
    "map": ("`map` over 20 000 items, to the last result", "calls/s"),
    "there": ("an array of 64 MiB as argument", "MB/s"),
    "back": ("an array of 64 MiB as result", "MB/s"),
    "common": ("an array of 64 MiB that all workers share, to the last of them", "MB/s"),
}


def sample(executor: SleighExecutor) -> dict[str, float]:
    """Every figure of one pool, once."""
    found = percentiles(times(lambda: executor.submit(abs, -1).result(), 300))
    found["submit"] = 2_000 / seconds(lambda: [*map(_result, _submitted(executor, 2_000))])
    found["map"] = 20_000 / seconds(lambda: sum(executor.map(abs, range(20_000))))
    array = _fresh()
    found["there"] = ARRAY / 1e6 / seconds(lambda: executor.submit(len, array).result())
    found["back"] = (
        ARRAY / 1e6 / seconds(lambda: executor.submit(np.ones, ARRAY, np.uint8).result())
    )
    shared = executor.share(_fresh())
    found["common"] = ARRAY / 1e6 / seconds(lambda: executor.eachWorker(len, shared))
    return found


def _fresh() -> Any:
    """An array that was not there before: what comes again stays where it is."""
    return np.random.default_rng().integers(0, 255, ARRAY, np.uint8)


def _submitted(executor: SleighExecutor, count: int) -> list[Any]:
    return [executor.submit(abs, number) for number in range(count)]


def _result(future: Any) -> Any:
    return future.result()


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    reason = why_not()
    if reason is not None:
        sys.exit(f"no ssh server can be started here: it {reason}")
    os.environ["SLEIGHEXEC_RUN_DIR"] = tempfile.mkdtemp()
    hosts = Hosts(real=why_no_namespaces() is None)
    os.environ["SLEIGHEXEC_SSH_CONFIG"] = str(hosts.config)
    openssh = f"ssh -T -o BatchMode=yes -F {hosts.config} newt {{agent}}"
    with contextlib.ExitStack() as opened:
        opened.callback(hosts.close)
        places: dict[str, Any] = {
            "`Local`": Local(WORKERS),
            "`Command`, a pipe": Command("{agent}", WORKERS),
            "`Command`, OpenSSH": Command(openssh, WORKERS),
            "`SSH`": SSH("hippo", WORKERS),
        }
        pools = {
            name: opened.enter_context(SleighExecutor(launcher=place))
            for name, place in places.items()
        }
        pools["joined, TLS"] = opened.enter_context(joined(WORKERS)).itself
        for executor in pools.values():
            sample(executor)
        rounds = [{name: sample(pools[name]) for name in pools} for _ in range(ROUNDS)]
    print("|  |", " | ".join(pools), "|")
    print("| --- |", " | ".join("---:" for _ in pools), "|")
    for figure, (what, unit) in FIGURES.items():
        medians = [statistics.median(each[name][figure] for each in rounds) for name in pools]
        numbers = [f"{number:,.0f}".replace(",", " ") for number in medians]
        print(f"| {what}, {unit} |", " | ".join(numbers), "|")


if __name__ == "__main__":
    main()
