"""What tasks print: to where it always went, to the future of the call, and line by line on.

    print ─▶ Output ─▶ the worker's own stdout or stderr
                ├ its text ─▶ CallText, shared with the agent ─▶ SleighFuture.output
                └ complete lines ─▶ Outbox ─▶ output@RANK, and the caller if it wants them
    log records (records.py) ──────────┘

What waits in the outbox leaves with the results of the calls that wrote it, before these; that of a
long call a few times a second. C code that writes to the descriptor itself is not seen here.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder

from sleighexec import words
from sleighexec.hints import Any, TextIO

KEPT_LINES = 1000  # that output@RANK holds: the oldest go
KEPT_TEXT = 64 * 1024  # bytes of what a call printed: the oldest go
MAX_LINE = 16 * 1024  # characters; a longer line is stored in pieces
SEND_AT = 200  # lines and records after which they are sent even in the middle of a call

PASS, CAPTURE, LOG = "pass", "capture", "log"  # what is to become of what is printed


class CallText:
    """The end of what the present call has printed, in memory that outlives this process.

    Before the text: how many bytes were printed, also those that went.
    """

    LENGTH = words.SIZE + KEPT_TEXT  # bytes of memory that it takes

    def __init__(self, memory: Any, start: int) -> None:
        self._memory, self._head, self._start = memory, start, start + words.SIZE
        self.size = 0

    def add(self, text: str) -> None:
        data = text[-KEPT_TEXT:].encode("utf-8", "backslashreplace")[-KEPT_TEXT:]
        at = self.size % KEPT_TEXT
        first, rest = data[: KEPT_TEXT - at], data[KEPT_TEXT - at :]
        at += self._start
        self._memory[at : at + len(first)] = first
        self._memory[self._start : self._start + len(rest)] = rest
        self._set_size(self.size + len(data))

    def read(self) -> bytes:
        """UTF-8, but for a character that is cut through at the beginning."""
        size = words.get(self._memory, self._head)
        text: bytes = self._memory[self._start : self._start + min(size, KEPT_TEXT)]
        if size > KEPT_TEXT:
            at = size % KEPT_TEXT
            text = text[at:] + text[:at]
        return text

    def clear(self) -> None:
        self._set_size(0)

    def _set_size(self, size: int) -> None:
        self.size = size
        words.put(self._memory, self._head, size)


class Outbox:
    """Lines and log records on their way to `store`, which gets them in order. Thread-safe."""

    def __init__(
        self, store: Callable[[list[Any]], None], busy: Callable[[], bool], lock: threading.RLock
    ) -> None:
        """`busy`: whether nothing can be stored now: a signal handler may print while we do."""
        self._store, self._busy, self._lock = store, busy, lock
        self._items: list[Any] = []
        self.foreign = False  # we are a copy, in a process that a task has forked

    def add(self, items: list[Any], *, urgent: bool = False) -> None:
        with self._lock:
            self._items += items
            if (urgent or len(self._items) >= SEND_AT) and not self._busy():
                self.send()

    def send(self) -> None:
        """Store what is there."""
        if self._items:
            with self._lock:
                items, self._items = self._items, []
                self._store(items)


class Output(io.TextIOWrapper):
    """A text stream that also hands what is written to `note`: the text and its complete lines."""

    def __init__(self, stream: TextIO, note: Callable[[str, list[str]], None]) -> None:
        # A buffer of our own: the stream's may know the descriptor as what it was once.
        raw = io.FileIO(stream.fileno(), "w", closefd=False)
        unbuffered = getattr(stream, "write_through", False)
        super().__init__(
            raw if unbuffered else io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=getattr(stream, "line_buffering", False),
            write_through=unbuffered,
        )
        self._note, self._partial = note, ""

    def write(self, text: str) -> int:
        count = super().write(text)
        *whole, self._partial = (self._partial + text).split("\n")
        if len(self._partial) > MAX_LINE:
            *pieces, self._partial = cut(self._partial)
            whole += pieces
        self._note(text, whole)
        return count


def cut(text: str) -> list[str]:
    """A text in pieces of MAX_LINE."""
    return [text[i : i + MAX_LINE] for i in range(0, len(text), MAX_LINE)] or [""]


def capture(note: Callable[[str, list[str]], None]) -> None:
    """From now on, hand what is printed in this process to `note` too."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            setattr(sys, name, Output(stream, note))


class OnImport:
    """Calls `call` once the module `name` has been imported, whoever does it; or now if it has."""

    def __init__(self, name: str, call: Callable[[], None]) -> None:
        self._name, self._call = name, call
        if name in sys.modules:
            call()
        else:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                load(module)
                self._call()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
