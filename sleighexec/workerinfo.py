"""What an executor tells of its workers."""

from __future__ import annotations

from typing import NamedTuple


class WorkerInfo(NamedTuple):
    """A worker as its executor sees it.

    Attributes:
        rank: Its number in the pool; a replacement has the same.
        pid: Process id, None while it starts.
        host: Where it runs.
        state: "starting", "idle" or "busy"; "stopped" if it has been standing still (SIGSTOP) for
            five seconds.
        finished: Calls it has finished.
        system: Of its machine, as `os.name` has it; empty while it starts.
        python: The version of its interpreter; empty while it starts.
    """

    rank: int
    pid: int | None
    host: str
    state: str
    finished: int
    system: str = ""
    python: str = ""
