"""`sleighexec monitor`: how a server or a pool is, in a terminal, again and again.

Status ─▶ facts ─▶ page: lines ─▶ clear, write; where there is no terminal, one page below the other
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator

from sleighexec.access import ask
from sleighexec.dial import connect
from sleighexec.hints import Any, TextIO
from sleighexec.messages import Status, Values
from sleighexec.session import MONITOR

TOP, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"  # what a terminal takes for orders
COLUMNS = ("rank", "host", "pid", "state", "finished", "per second")
RIGHT = {"rank", "pid", "finished", "per second"}  # numbers
APART = {"kind", "url", "workers"}  # facts that have their own places

Facts = dict[str, Any]


def watch(where: str, every: float, file: TextIO) -> None:
    """Write how it is, each `every` seconds, until it ends.

    Raises:
        ConnectError, AuthenticationError: It cannot be reached.
        ConnectionLostError: It has ended.
    """
    before: Facts | None = None
    then = 0.0
    for facts in _facts(where, every):
        now = time.monotonic()
        file.write(_drawn(facts, before, now - then, file.isatty()))
        file.flush()
        before, then = facts, now


def _facts(where: str, every: float) -> Iterator[Facts]:
    connection = connect(where, MONITOR)
    try:
        while True:
            reply = ask(connection, Status())
            assert isinstance(reply, Values)
            yield json.loads(bytes(reply.values[0].head))
            time.sleep(every)
    finally:
        connection.close()


def _drawn(facts: Facts, before: Facts | None, seconds: float, live: bool) -> str:
    if not live:
        return "\n".join([*page(facts, before, seconds), "", ""])
    width, height = shutil.get_terminal_size()
    lines = page(facts, before, seconds, height - 1)
    return TOP + "".join(f"{line[:width]}{CLEAR_LINE}\n" for line in lines) + CLEAR_REST


def page(
    facts: Facts, before: Facts | None, seconds: float, height: int | None = None
) -> list[str]:
    """What is shown of these facts, and of those so many seconds before, in so many lines."""
    others = [
        f"{name.replace('_', ' ')} {fact}" for name, fact in facts.items() if name not in APART
    ]
    lines = [plain(f"{facts['kind']} at {facts['url']}"), plain(", ".join(others))]
    workers = facts.get("workers", [])
    if not workers:
        return lines
    rates = _rates(workers, before, seconds)
    states = Counter(row["state"] for row in workers)
    summary = [f"{count} {state}" for state, count in sorted(states.items())]
    if any(rate is not None for rate in rates):
        summary.append(f"{sum(filter(None, rates)):,.0f} calls per second")
    lines.append(", ".join(summary))
    room = len(workers) if height is None else max(height - len(lines) - 1, 1)
    if len(workers) > room:  # the last line says so
        room = max(room - 1, 1)
    rows = [COLUMNS, *(_row(*each) for each in zip(workers[:room], rates))]
    lines += _table(rows)
    if len(workers) > room:
        lines.append(f"… and {len(workers) - room} more")
    return lines


def _rates(workers: list[Facts], before: Facts | None, seconds: float) -> list[float | None]:
    """Calls that each has finished per second; None: it is not known yet."""
    rows = [] if before is None else before["workers"]
    finished = {(row["rank"], row["pid"]): row["finished"] for row in rows}
    return [
        (row["finished"] - finished[key]) / seconds if key in finished else None
        for row in workers
        for key in [(row["rank"], row["pid"])]
    ]


def _row(worker: Facts, rate: float | None) -> tuple[str, ...]:
    texts = [plain(str(worker[name])) for name in ("rank", "host", "pid", "state")]
    return *texts, f"{worker['finished']:,}", "" if rate is None else f"{rate:,.0f}"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.rjust(width) if name in RIGHT else cell.ljust(width)
            for name, cell, width in zip(COLUMNS, row, widths)
        ).rstrip()
        for row in rows
    ]


def plain(text: str) -> str:
    """Text that gives a terminal no orders: a machine that joins says itself what it is called."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
