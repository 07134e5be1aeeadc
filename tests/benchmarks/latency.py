"""One call at a time: how long until its result is there."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import (
    IPPROTO_TCP,
    SHUT_RDWR,
    TCP_NODELAY,
    create_connection,
    create_server,
    socket,
    socketpair,
)
from typing import Any

from tests.benchmarks.measure import Above, Goal, Measure, Opener, Row, Sample
from tests.benchmarks.pools import POOL, Pool, among

RAW = "two processes at a Unix socket"
MESSAGE = bytes(64)  # about as long as a small call is on its way
ECHO = """
from socket import socket
with socket(fileno=0) as mine:
    while data := mine.recv(64):
        mine.send(data)
"""


def measures(quick: bool) -> list[Measure]:
    count = 300 if quick else 1_000
    raw: dict[str, Opener] = {RAW: lambda: raw_exchange(count)}
    return [
        Measure(
            "latency",
            (
                Row(
                    "p50",
                    "submit().result() of a trivial call, one at a time: median",
                    "µs",
                    False,
                    (Goal(5, 3), Goal(5, 2, POOL), Above(5, 12, RAW)),
                ),
                Row("p99", "the same: 99 of 100 are faster", "µs", False, (Goal(5, 2),)),
            ),
            among(lambda pool: round_trips(pool, count)) | raw,
            3 if quick else 15,
        ),
    ]


def times(step: Callable[[], Any], count: int) -> list[float]:
    """How long each of `count` steps takes, in µs, sorted."""
    clock, taken = time.perf_counter, []
    for _ in range(count):
        begin = clock()
        step()
        taken.append(clock() - begin)
    return sorted(second * 1e6 for second in taken)


def percentiles(taken: list[float]) -> dict[str, float]:
    """The median and the 99th percentile."""
    return {"p50": statistics.median(taken), "p99": taken[len(taken) * 99 // 100]}


def round_trips(pool: Pool, count: int) -> dict[str, float]:
    """µs of submit().result()."""
    return percentiles(times(lambda: pool.result(pool.submit(abs, -1)), count))


@contextmanager
def raw_exchange(count: int, *, tcp: bool = False) -> Iterator[Sample]:
    """µs for 64 bytes to another process and back, with nothing around them: the yardstick."""
    mine, theirs = _tcp_pair() if tcp else socketpair()
    with theirs:
        partner = subprocess.Popen([sys.executable, "-S", "-c", ECHO], stdin=theirs)
    try:
        _exchange(mine)  # it is there
        yield lambda: percentiles(times(lambda: _exchange(mine), count))
    finally:
        mine.shutdown(SHUT_RDWR)  # also if somebody who was forked has it too
        mine.close()
        partner.wait()


def _tcp_pair() -> tuple[socket, socket]:
    with create_server(("127.0.0.1", 0)) as listener:
        mine = create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    for end in (mine, theirs):
        end.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    return mine, theirs


def _exchange(mine: socket) -> None:
    mine.send(MESSAGE)
    mine.recv(64)
