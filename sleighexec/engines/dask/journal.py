"""What a Dask worker has begun and finished of one batch, in a file that outlives it.

    worker: call begins ─▶ its number; call ends ─▶ its record (as in worker.py)
    client, when the worker has died: which results are there, which call it was, what it printed

Dask knows of a task only that its worker is gone. The file says which one call of it was running:
that one is lost, those before it are done, those behind it have not begun.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import shutil
import struct
import tempfile
from pathlib import Path
from typing import NamedTuple

from sleighexec import payload as pickling
from sleighexec.output import CallText

SHELL = struct.Struct("=QQ")  # bytes of records, calls begun
WRITER = struct.Struct("=qq")  # behind it: process id, rank
TEXT_AT = SHELL.size + WRITER.size
RECORDS_AT = TEXT_AT + CallText.LENGTH
FIRST_ROOM = 64 * 1024  # bytes for records; it grows


class Remains(NamedTuple):
    """What is left of a batch whose worker has died.

    Attributes:
        records: Of the results that were ready, as in `payload.outcomes`.
        begun: The number of the last call that had begun.
        printed: The end of what that one had printed, UTF-8.
        stack: Where it was when its time was up; empty if it was not.
        pid, rank: Of the worker.
    """

    records: bytes
    begun: int
    printed: bytes
    stack: str
    pid: int
    rank: int


def folder_of(run: str) -> Path:
    """Where the journals of a run are, on every machine."""
    return Path(tempfile.gettempdir(), f"sleighexec-{os.getuid()}-{run}")


class Journal:
    """The journal of the batch that runs now. Its file is removed by who needs it no more."""

    def __init__(self, run: str, number: int, rank: int) -> None:
        """Raises FileExistsError: somebody has begun this batch before."""
        folder = folder_of(run)
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = folder / str(number)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, RECORDS_AT + FIRST_ROOM)
            self._memory = mmap.mmap(descriptor, RECORDS_AT + FIRST_ROOM)
        finally:
            os.close(descriptor)
        WRITER.pack_into(self._memory, SHELL.size, os.getpid(), rank)
        self.text = CallText(self._memory, TEXT_AT)
        self._room = FIRST_ROOM
        self.end = self.finished = 0
        self._run_at = 0
        self._in_run = False

    def begin(self) -> None:
        """The next call begins."""
        SHELL.pack_into(self._memory, 0, self.end, self.finished + 1)

    def write_simple(self, data: bytes) -> None:
        """The result of the call, what is to stand in a run (see payload.py)."""
        if self.text.size:
            self._write_text()
        if not self._in_run:
            head = pickling.RECORD.pack(pickling.OPEN, pickling.RUN, self.finished + 1)
            self._run_at, self._in_run = self.end, True
            data = head + data
        self._write(data)
        self._ended()

    def write(self, flag: int, data: bytes) -> None:
        """Any other outcome of the call."""
        self._close_run()
        if self.text.size:
            self._write_text()
        self._write(pickling.RECORD.pack(len(data), flag, self.finished + 1) + data)
        self._ended()

    def last(self, head: bytes) -> bytes:
        """All records, and behind them that of a result whose buffers go another way."""
        self._close_run()
        if self.text.size:
            self._write_text()
        return (
            self.records()
            + pickling.RECORD.pack(len(head), pickling.LARGE, self.finished + 1)
            + head
        )

    def records(self) -> bytes:
        """All that was written."""
        return self._memory[RECORDS_AT : RECORDS_AT + self.end]

    def close(self) -> None:
        """The batch has ended. The file stays: until its outcome has come, we may die."""
        self._memory.close()

    def _ended(self) -> None:
        self.finished += 1
        SHELL.pack_into(self._memory, 0, self.end, self.finished)

    def _write_text(self) -> None:
        self._close_run()
        data = self.text.read()
        head = pickling.RECORD.pack(len(data), pickling.PRINTED, self.finished + 1)
        self._write(head + data)
        self.text.clear()

    def _write(self, entry: bytes) -> None:
        end = self.end + len(entry)
        if end > self._room:
            self._room = max(2 * self._room, end)
            self._memory.resize(RECORDS_AT + self._room)
        self._memory[RECORDS_AT + self.end : RECORDS_AT + end] = entry
        self.end = end

    def _close_run(self) -> None:
        if self._in_run:
            self._in_run = False
            size = self.end - self._run_at - pickling.RECORD.size
            at = RECORDS_AT + self._run_at
            self._memory[at : at + 4] = size.to_bytes(4, "big")


def stack_file(run: str, number: int) -> Path:
    """Where the stacks of a batch are written whose call has no more time."""
    return folder_of(run) / f"{number}.stack"


def has_begun(run: str, number: int) -> bool:
    """Whether a batch has begun on this machine, and its outcome is not safe yet."""
    return (folder_of(run) / str(number)).exists()


def read(run: str, number: int) -> Remains | None:
    """What is left of a batch on this machine; None: it has not begun here."""
    try:
        data = (folder_of(run) / str(number)).read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < RECORDS_AT:  # its worker died while it made the file
        return Remains(b"", 0, b"", "", 0, -1)
    end, begun = SHELL.unpack_from(data, 0)
    stack = ""
    with contextlib.suppress(FileNotFoundError):
        stack = stack_file(run, number).read_text(errors="replace")
    printed = CallText(bytearray(data), TEXT_AT).read()
    records = data[RECORDS_AT : RECORDS_AT + end]
    return Remains(records, begun, printed, stack, *WRITER.unpack_from(data, SHELL.size))


def remove(run: str, number: int) -> None:
    """Its outcome is safe: forget a batch."""
    for path in (folder_of(run) / str(number), stack_file(run, number)):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def remove_all(run: str) -> None:
    """Forget a run."""
    shutil.rmtree(folder_of(run), ignore_errors=True)


def simple(value: object) -> bytes:
    """A value of a simple type as it stands in a run."""
    return pickle.dumps(value, pickling.RUN_PROTOCOL)[2:-1]
