"""The journal: what a worker has begun and finished, in memory that outlives it.

    bytes of records, calls begun │ limits of the present call │ halt, loan │ slots │ its text │
    records …

All but the text and the records are words of eight bytes, each read and written in one step.

The worker writes, see outcomes.py; the agent reads when the worker is gone or stands still.

Slots: if numbers are being written, where the first of them is, and of which call. The results of
all calls before the one that was begun last are in, so that nothing else has to be written for
each of them. Whatever else is written counts as soon as the bytes of records say so.
"""

from __future__ import annotations

import mmap

from sleighexec import runs, words
from sleighexec.output import CallText

# The words: bytes of records and calls begun; when, in nanoseconds of the monotonic clock, the
# present call is to end and bytes it may take; how often the agent has found that we stood still;
# the loan of the present call; the slots: where they are, and the call that has the first one, 0
# if there are none.
END, BEGUN, DEADLINE, MOST, HALT, LOAN, SLOTS, FIRST = range(8)
HEAD = 8 * words.SIZE
START = HEAD + CallText.LENGTH  # where the records begin; what is written last cannot go too far
ROOM = 128 * 1024  # bytes for records


class Journal:
    """What a worker has begun and finished, in memory that outlives it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, START + ROOM)
        self.text = CallText(self.memory, HEAD)  # what the present call has printed

    def limits(self) -> tuple[float, int]:
        """When, on the monotonic clock, the present call is to end; bytes it may take; 0: none."""
        end, size = (words.get(self.memory, at * words.SIZE) for at in (DEADLINE, MOST))
        return end / 1e9, size

    def begun(self) -> int:
        """The number of calls begun: unlike `read`, also while the worker writes."""
        return words.get(self.memory, BEGUN * words.SIZE)

    def halt(self, count: int) -> None:
        """Have the worker, which stands still, ask before it begins another call."""
        words.put(self.memory, HALT * words.SIZE, count)

    def loan(self) -> int:
        """The loan to which the call belongs that was begun last."""
        return words.get(self.memory, LOAN * words.SIZE)

    def read(self) -> tuple[bytes, int]:
        """The records that are in it and the number of calls begun: for the agent."""
        with memoryview(self.memory) as memory, memory[:HEAD].cast("Q") as head:
            return memory[START : START + min(_end(head), ROOM)].tobytes(), head[BEGUN]


def _end(head: memoryview) -> int:
    """How far the records go."""
    if not (first := head[FIRST]):
        return head[END]
    return max(head[END], head[SLOTS] + (head[BEGUN] - first) * runs.NUMBER)


class Records:
    """The worker's hand in it: outcomes of calls, as runs.py has them, one behind the other.

    Simple results go into a run, which is open until something else is to be written. Only the
    thread that has opened it adds to it, and needs no lock for that: it writes behind the last
    result (`memory.write`, or the next one of the `slots`), and then, to `words`, how far the
    records go. All else is under a lock of the caller.

    Attributes:
        words: The head of the journal.
        sent: Bytes of records that are known to be on their way.
        slots: If the open run is one of numbers: room for them. What is put there counts when the
            next call begins, or by `commit`.
        first: The number of the call that has the first result of the open run.
    """

    def __init__(self, journal: Journal) -> None:
        self.memory, self.text = journal.memory, journal.text
        self.words = memoryview(journal.memory)[:HEAD].cast("Q")
        self.sent = self.first = 0
        self.slots: memoryview | None = None
        self._run_at: int | None = None  # where the open run begins
        self._mixed = False  # …and whether it is a mixed one

    def open_run(self, number: int, flag: int = runs.RUN) -> bool:
        """See that a run is open, to which call `number` is to add; False: there is no room.

        The next `memory.write` goes behind it. `flag`: what kind of run, if there is none yet.
        """
        end = self.words[END]
        if self._run_at is None:
            head = runs.run_head(number, flag)
            if end + len(head) + runs.NUMBER > ROOM:
                return False
            self._run_at, self.first, self._mixed = end, number, False
            self.memory.seek(START + end)
            self.words[END] = end = end + self.memory.write(head)
            if flag in runs.FORMATS:
                room = (ROOM - end) // runs.NUMBER * runs.NUMBER
                rest = memoryview(self.memory)[START + end : START + end + room]
                self.slots = rest.cast(runs.FORMATS[flag])
                self.words[SLOTS], self.words[FIRST] = end, number
        else:
            self.memory.seek(START + end)
        return True

    def commit(self, number: int) -> None:
        """What stands in the slots that there are counts, up to the result of call `number`."""
        self.words[END] = self.words[SLOTS] + (number + 1 - self.first) * runs.NUMBER

    def mix(self) -> None:
        """The open run is a mixed one."""
        if not self._mixed:
            assert self._run_at is not None
            self.memory[START + self._run_at + runs.FLAG_AT] = runs.MIXED | runs.OPEN
            self._mixed = True

    def close_run(self, number: int) -> None:
        """Nothing is added to the run any more; `number` is the last call that is finished."""
        if self.slots is not None:
            self.commit(number)
            self.words[FIRST] = 0
        if self._run_at is not None:
            start, self._run_at, self.slots = self._run_at, None, None
            count = number + 1 - self.first
            if count:
                end = START + self.words[END]
                runs.close_run(self.memory, START + start, end, count)
            else:
                self.words[END] = start

    def write(self, number: int, flag: int, data: bytes) -> bool:
        """A whole record, of call `number`, while no run is open; False: there is no room."""
        entry = runs.RECORD.pack(len(data), flag, number) + data
        start = self.words[END]
        end = start + len(entry)
        if end > ROOM:
            return False
        self.memory[START + start : START + end] = entry
        self.words[END] = end
        return True

    def take(self) -> bytes:
        """What is to be sent: an open run goes each time, from its first result."""
        end = self.words[END] if self.slots is None else _end(self.words)
        data = self.memory[START + self.sent : START + end]
        self.sent = end if self._run_at is None else self._run_at
        return data

    def clear(self) -> None:
        """All of it was sent, and no run is open: begin again."""
        self.words[END] = self.sent = 0
