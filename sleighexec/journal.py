"""The journal: what a worker has begun and finished, in memory that outlives it.

    bytes of records, calls begun │ limits of the present call │ halt, loan │ records … │ its text

The worker writes, see worker.py; the agent reads when the worker is gone or stands still.
"""

from __future__ import annotations

import mmap
import struct

from sleighexec.output import CallText

SHELL = struct.Struct("=QQ")  # bytes of records, calls begun
LIMITS = struct.Struct("=dQ")  # behind it: when the present call is to end, bytes it may take
WORD = struct.Struct("=Q")
# Behind them: how often the agent has found that we stood still; the loan of the present call.
END, BEGUN, HALT, LOAN = 0, 1, 4, 5  # the head as words of eight bytes
HEAD = 6 * WORD.size
JOURNAL = 128 * 1024  # bytes
ROOM = JOURNAL - HEAD  # for records


class Journal:
    """What a worker has begun and finished, in memory that outlives it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, JOURNAL + CallText.LENGTH)
        self.text = CallText(self.memory, JOURNAL)  # what the present call has printed

    def limits(self) -> tuple[float, int]:
        """When, on the monotonic clock, the present call is to end; bytes it may take; 0: none."""
        end, size = LIMITS.unpack_from(self.memory, SHELL.size)
        return end, size

    def halt(self, count: int) -> None:
        """Have the worker, which stands still, ask before it begins another call."""
        WORD.pack_into(self.memory, HALT * WORD.size, count)

    def loan(self) -> int:
        """The loan to which the call belongs that was begun last."""
        (number,) = WORD.unpack_from(self.memory, LOAN * WORD.size)
        return int(number)

    def read(self) -> tuple[bytes, int]:
        """The records that are in it and the number of calls begun: for the agent."""
        end, begun = SHELL.unpack_from(self.memory, 0)
        start = HEAD
        return self.memory[start : start + min(end, JOURNAL - start)], begun
