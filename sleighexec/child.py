"""A worker process, as its agent sees it from outside, and what the system tells of it."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal

from sleighexec import runs
from sleighexec.journal import Journal
from sleighexec.messages import Payload


class Child:
    """One of them, until its end is reported."""

    def __init__(
        self, number: int, journal: Journal, stderr: int, life_line: int, pass_on: bool
    ) -> None:
        """`life_line`: our end of a pipe with which it ends."""
        self.pass_on = pass_on  # what comes from stderr
        self.number, self.journal, self.stderr = number, journal, stderr
        self._life_line = life_line
        self.pid = 0  # before it is forked
        self.tail = bytearray()
        self.reason = ""  # why we have ended it; see Exited
        self.seen = 0  # bytes of the tail at the last look
        self.overdue = 0  # the last call that has taken too long, so that we have it end
        self.next_step: tuple[float, int] | None = None  # to that: when, by which signal
        self.still_since: float | None = None  # it stands still, and nobody has heard of that yet
        self.halts = 0  # of which our client was told
        self.halted = False  # …the last of them lasts

    def close(self) -> None:
        """Close our ends of its pipes."""
        os.close(self.stderr)
        os.close(self._life_line)

    def present_call(self) -> int:
        """The number of the call that it runs; 0: none."""
        records, begun = self.journal.read()
        return begun if runs.last_answered(Payload(records)) < begun else 0

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, and what its calls have started: it leads a session of its own."""
        kill_group(self.pid)

    def stands_still(self) -> bool:
        """Whether it is stopped; False: or that is not known."""
        try:
            with open(f"/proc/{self.pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def resident(self) -> int:
        """Bytes of memory that it has resident; 0: not known."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * mmap.PAGESIZE
        except OSError:
            return 0


def kill_group(pid: int) -> None:
    """End the process that leads a group, and the others of it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def oom_kills() -> int:
    """How often the kernel has killed something in our control group since memory ran out."""
    names = []
    with contextlib.suppress(OSError, ValueError), open("/proc/self/cgroup") as file:
        for line in file:
            _, kind, path = line.strip().split(":", 2)
            # Of the second kind, or of the first, which counts in the very group of who was killed;
            # in a container the path may be that outside.
            if kind in ("", "memory"):
                where = f"/sys/fs/cgroup/{kind}".rstrip("/")
                what = "memory.oom_control" if kind else "memory.events"
                names += [f"{where}{path.rstrip('/')}/{what}", f"{where}/{what}"]
    for name in names:
        with contextlib.suppress(OSError, ValueError), open(name) as events:
            counts = [int(line.split()[1]) for line in events if line.startswith("oom_kill ")]
            if counts:
                return sum(counts)
    return 0
