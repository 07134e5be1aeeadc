"""Log records of workers on their way into the caller's logging tree.

    worker: a logger ─▶ Forward, a handler of the root ─▶ dict of plain values ─▶ Outbox
    caller: dict ─▶ LogRecord ─▶ the logger of that name, with its filters and handlers

The levels of a worker's loggers are the caller's, as they were when it started.
"""

from __future__ import annotations

import logging

from sleighexec.hints import Any
from sleighexec.output import Outbox

LOST = ("args", "exc_info", "msg")  # of a record: they may hold anything
PLAIN = (int, float, str, bool, type(None))
MAX_TEXT = 64 * 1024  # characters of one attribute

_formatter = logging.Formatter()


class Forward(logging.Handler):
    """Hands the records of this worker to its outbox."""

    def __init__(self, outbox: Outbox, rank: int) -> None:
        super().__init__()
        self._outbox, self._rank = outbox, rank

    def emit(self, record: logging.LogRecord) -> None:
        urgent = record.levelno >= logging.WARNING  # what a crash may follow
        if self._outbox.foreign:
            if urgent and logging.lastResort is not None:
                logging.lastResort.handle(record)
            return
        try:
            self._outbox.add([self._plain(record)], urgent=urgent)
        except Exception:
            self.handleError(record)

    def _plain(self, record: logging.LogRecord) -> dict[str, Any]:
        values = {"sleigh_worker": self._rank, "exc_text": None, **record.__dict__}
        for name in LOST:
            values.pop(name, None)
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            values["exc_text"] = _formatter.formatException(record.exc_info)
        values["msg"] = record.getMessage()
        return {name: _clipped(value) for name, value in values.items()}


def _clipped(value: object) -> object:
    if type(value) not in PLAIN:
        value = repr(value)
    return value[:MAX_TEXT] if type(value) is str else value


def forward(outbox: Outbox, rank: int, levels: dict[str, int]) -> None:
    """In a worker: from now on, what is logged goes to the caller."""
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.root.addHandler(Forward(outbox, rank))


def levels() -> dict[str, int]:
    """The levels that were set in this process, by the names of their loggers; "" is the root."""
    found = {"": logging.root.level}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            found[name] = logger.level
    return found


def replay(values: dict[str, Any]) -> None:
    """In the caller: log a record of a worker. Runs users' handlers, so without locks of ours."""
    record = logging.makeLogRecord(values)
    logging.getLogger(record.name).handle(record)
