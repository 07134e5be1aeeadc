"""What a Dask worker has begun and finished of one batch, in a file that outlives it.

    worker: batch ─▶ its number; call begins ─▶ its number; call ends ─▶ its record (see worker.py)
    client, when the worker has died: which results are there, which call it was, what it printed

Dask knows of a task only that its worker is gone. The file says which one call of it was running:
that one is lost, those before it are done, those behind it have not begun.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from sleighexec import runs, words
from sleighexec.output import CallText

# Where what is: bytes of records, calls begun; number of the batch, process id, rank.
END, BEGUN, NUMBER, PID, RANK, TEXT_AT = range(0, 6 * words.SIZE, words.SIZE)
RECORDS_AT = TEXT_AT + CallText.LENGTH
FIRST_ROOM = 64 * 1024  # bytes for records; it grows
KEPT_ROOM = 4 * FIRST_ROOM  # a file that is bigger is not used again
STACK = ".stack"  # the file beside it with the stacks of a call whose time was up


class Remains(NamedTuple):
    """What is left of a batch whose worker has died.

    Attributes:
        records: Of the results that were ready, as in `runs.outcomes`.
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
    """The journal of one batch, and when that one's outcome is safe, of another."""

    def __init__(self, run: str) -> None:
        folder = folder_of(run)
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=folder)
        self.path = Path(path)
        try:
            os.ftruncate(descriptor, RECORDS_AT + FIRST_ROOM)
            self._memory = mmap.mmap(descriptor, RECORDS_AT + FIRST_ROOM)
        finally:
            os.close(descriptor)
        self.text = CallText(self._memory, TEXT_AT)
        self._room = FIRST_ROOM
        self.number = self.end = self.finished = self._run_at = self._run_after = 0
        self._in_run = False
        self.is_safe = self.has_ended = False

    def start(self, number: int, rank: int) -> None:
        """From now on this is the journal of that batch."""
        words.put(self._memory, NUMBER, 0)
        self.end = self.finished = 0
        self._in_run = self.is_safe = self.has_ended = False
        self.text.clear()
        self.number = number
        for at, value in ((END, 0), (BEGUN, 0), (PID, os.getpid()), (RANK, rank), (NUMBER, number)):
            words.put(self._memory, at, value)

    @property
    def stack_file(self) -> str:
        """Where the stacks are to be written of a call that has no more time."""
        return f"{self.path}{STACK}"

    @property
    def is_handy(self) -> bool:
        """Whether it is worth to be kept for another batch."""
        return self._room <= KEPT_ROOM

    def begin(self) -> None:
        """The next call begins."""
        words.put(self._memory, BEGUN, self.finished + 1)

    def write_simple(self, data: bytes) -> None:
        """The result of the call, what is to stand in a run (see runs.py)."""
        if self.text.size:
            self._write_text()
        if not self._in_run:
            self._run_at, self._run_after, self._in_run = self.end, self.finished, True
            data = runs.run_head(self.finished + 1) + data
        self._write(data)
        self._ended()

    def write(self, flag: int, data: bytes) -> None:
        """Any other outcome of the call."""
        self._close_run()
        if self.text.size:
            self._write_text()
        self._write(runs.RECORD.pack(len(data), flag, self.finished + 1) + data)
        self._ended()

    def last(self, head: bytes) -> bytes:
        """All records, and behind them that of a result whose buffers go another way."""
        self._close_run()
        if self.text.size:
            self._write_text()
        return self.records() + runs.RECORD.pack(len(head), runs.LARGE, self.finished + 1) + head

    def records(self) -> bytes:
        """All that was written."""
        return self._memory[RECORDS_AT : RECORDS_AT + self.end]

    def note(self, text: str) -> None:
        """The call prints this."""
        self._close_run()
        self.text.add(text)

    def close(self) -> None:
        """Nobody will need it."""
        self._memory.close()
        _remove(self.path)

    def _ended(self) -> None:
        self.finished += 1
        words.put(self._memory, END, self.end)
        if self.text.size:  # until it has an outcome, what it printed stands here
            self.text.clear()

    def _write_text(self) -> None:
        self._close_run()
        data = self.text.read()
        head = runs.RECORD.pack(len(data), runs.PRINTED, self.finished + 1)
        self._write(head + data)

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
            start, end = RECORDS_AT + self._run_at, RECORDS_AT + self.end
            runs.close_run(self._memory, start, end, self.finished - self._run_after)


class Journals:
    """Those of a run in one process. Thread-safe.

    The file of a batch is in use until its outcome is safe: till then we may die. After that it
    serves another batch, since to make a file takes longer than a short batch.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._used: dict[int, Journal] = {}
        self._spare: list[Journal] = []

    def __contains__(self, number: int) -> bool:
        """Whether this batch has begun here, and its outcome is not safe yet."""
        return number in self._used

    def start(self, number: int, rank: int) -> Journal:
        """The journal of a batch that begins. Raises KeyError: it has begun before."""
        with self._lock:
            if number in self._used:
                raise KeyError(number)
            journal = self._spare.pop() if self._spare else Journal(self._run)
            self._used[number] = journal
        journal.start(number, rank)
        return journal

    def end(self, journal: Journal) -> None:
        """Its batch has ended."""
        with self._lock:
            journal.has_ended = True
            self._put_back(journal)

    def make_safe(self, number: int) -> None:
        """The outcome of this batch is safe, or nobody wants it."""
        with self._lock:
            journal = self._used.get(number)
            if journal is not None:
                journal.is_safe = True
                self._put_back(journal)

    def _put_back(self, journal: Journal) -> None:
        if journal.is_safe and journal.has_ended:
            del self._used[journal.number]
            if journal.is_handy:
                self._spare.append(journal)
            else:
                journal.close()

    def close(self) -> None:
        """Nobody will need these; batches that still run keep theirs until they end."""
        with self._lock:
            for journal in self._used.values():
                journal.is_safe = True
            for journal in list(self._used.values()):
                self._put_back(journal)
            for journal in self._spare:
                journal.close()
            self._spare = []


def read(run: str, number: int) -> Remains | None:
    """What is left of a batch on this machine; None: it has not begun here."""
    path = _find(run, number)
    if path is None:
        return None
    data = path.read_bytes()
    end, begun, pid, rank = (words.get(data, at) for at in (END, BEGUN, PID, RANK))
    stack = ""
    with contextlib.suppress(FileNotFoundError):
        stack = Path(f"{path}{STACK}").read_text(errors="replace")
    printed = CallText(bytearray(data), TEXT_AT).read()
    records = data[RECORDS_AT : RECORDS_AT + end]
    return Remains(records, begun, printed, stack, pid, rank)


def _find(run: str, number: int) -> Path | None:
    """The journal of a batch on this machine."""
    with contextlib.suppress(FileNotFoundError):  # there is none of this run
        for path in folder_of(run).iterdir():
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                head = file.read(TEXT_AT)
                is_whole = len(head) == TEXT_AT and path.suffix != STACK  # or is just being made
                if is_whole and words.get(head, NUMBER) == number:
                    return path
    return None


def remove(run: str, number: int) -> None:
    """What was left of a batch is known: forget it."""
    path = _find(run, number)
    if path is not None:
        _remove(path)


def _remove(path: Path) -> None:
    for each in (path, Path(f"{path}{STACK}")):
        with contextlib.suppress(FileNotFoundError):
            each.unlink()


def remove_all(run: str) -> None:
    """Forget a run."""
    shutil.rmtree(folder_of(run), ignore_errors=True)
