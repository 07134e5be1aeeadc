"""A worker's process, as code that looks into `executor._processes` expects it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


class WorkerProcess:
    """What `multiprocessing.Process` offers of a running process; the agent does the work.

    Attributes:
        pid: Its process id.
        exitcode: None while it runs, then its exit status or minus the signal.
    """

    def __init__(self, pid: int, rank: int, send: Callable[[int], None]) -> None:
        self.pid, self.name, self._send = pid, f"SleighWorker-{rank}", send
        self.exitcode: int | None = None
        self.ended = threading.Event()

    def __repr__(self) -> str:
        state = "started" if self.is_alive() else f"stopped, exit code {self.exitcode}"
        return f"<WorkerProcess {self.name!r} pid={self.pid} {state}>"

    def is_alive(self) -> bool:
        return not self.ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        self.ended.wait(timeout)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)
