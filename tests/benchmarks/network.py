"""Workers that joined by a TCP connection (always with TLS) on this machine: what the way costs.

There is no network in between, so nothing here tells how fast one is.
"""

from __future__ import annotations

from functools import partial

from tests.benchmarks import data, latency, throughput
from tests.benchmarks.latency import round_trips
from tests.benchmarks.measure import OURS, PPE, Above, Goal, Measure, Opener, Row
from tests.benchmarks.pools import JOINED, WORKERS, among

RAW = "two processes at a TCP socket"


def measures(quick: bool) -> list[Measure]:
    trips, calls, items = (300, 2_000, 20_000) if quick else (1_000, 20_000, 100_000)
    size = 2**23 if quick else 2**26  # bytes
    rounds = 3 if quick else 5
    raw: dict[str, Opener] = {RAW: lambda: latency.raw_exchange(trips, tcp=True)}
    pools = [PPE, OURS, JOINED]
    return [
        Measure(
            "network-latency",
            (
                Row(
                    "p50",
                    "submit().result() of a trivial call to a worker that joined: median",
                    "µs",
                    False,
                    (Above(6, 25, RAW, JOINED),),
                ),
                Row("p99", "the same: 99 of 100 are faster", "µs", False),
            ),
            among(partial(round_trips, count=trips), pools) | raw,
            rounds,
            ours=(JOINED,),
        ),
        Measure(
            "network-submit",
            (
                Row(
                    "rate",
                    f"{calls:,} trivial calls to workers that joined, submitted one by one",
                    "calls/s",
                    True,
                    (Goal(6, 0.8, OURS, JOINED),),
                ),
            ),
            among(partial(throughput.submits, count=calls), pools),
            rounds,
            ours=(JOINED,),
        ),
        Measure(
            "network-map",
            (
                Row(
                    "rate",
                    f"map over {items:,} trivial calls, with workers that joined",
                    "calls/s",
                    True,
                    (Goal(6, 0.8, OURS, JOINED),),
                ),
            ),
            among(partial(throughput.maps, function=abs, items=range(items)), [OURS, JOINED]),
            rounds,
            ours=(JOINED,),
        ),
        Measure(
            "network-64MB",
            data.rows(size, (Goal(8, 6, PPE, JOINED),), ()),
            among(partial(data.travels, size=size, calls=2), pools, WORKERS, "numpy"),
            rounds,
            ours=(JOINED,),
        ),
    ]
