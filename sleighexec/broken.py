"""The errors that are also a `BrokenProcessPool`, so that existing `except` clauses catch them.

They stand apart from errors.py because their base class lives in `concurrent.futures.process`,
whose import takes longer than all of sleighexec; `sleighexec.errors` gives them out as its own.
"""

from __future__ import annotations

import signal
import sys
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

from sleighexec.errors import ExecutorError

LAST_LINES = 20  # of what a call printed, in the text of an error


class WorkerLost(ExecutorError, BrokenProcessPool):
    """The worker died while it held this task; the call may have run in part.

    Only the task that the worker had begun gets this error: the pool heals by itself and goes on.
    It is a `BrokenProcessPool`, so that code written for `ProcessPoolExecutor` catches it.

    Attributes:
        task: What was called, as text.
        arguments: What it was called with, clipped; only the size of what was pickled.
        rank: The worker's number in the pool.
        pid: Its process id.
        host: Where it ran.
        exitcode: Its exit status, or minus the number of the signal that killed it; None: unknown.
        peak_memory: Bytes that it had resident at most; None: unknown.
        stderr: The last lines it wrote to its standard error; the stack of a crash is among them.
        output: The end of what the call had printed, to standard output and error.
        attempts: How many times the task was tried.
        history: How the workers of the earlier attempts ended, a line for each.
        memory_limit: The limit of the call, if the worker was killed for being above it.
        deadly: It was not tried as often as `retries` allowed, since two workers had died of it.
        reason: Why its whole host was lost; empty if it was not.
    """

    def __init__(
        self,
        task: str,
        rank: int,
        pid: int | None,
        host: str,
        exitcode: int | None,
        stderr: str = "",
        attempts: int = 1,
        *,
        arguments: str = "",
        peak_memory: int | None = None,
        history: tuple[str, ...] = (),
        output: str = "",
        memory_limit: int | None = None,
        deadly: bool = False,
        reason: str = "",
    ) -> None:
        super().__init__(task, rank, pid, host, exitcode, stderr, attempts)
        self.task, self.rank, self.pid, self.host = task, rank, pid, host
        self.exitcode, self.stderr, self.attempts = exitcode, stderr, attempts
        self.arguments, self.peak_memory, self.output = arguments, peak_memory, output
        self.history, self.memory_limit, self.deadly = history, memory_limit, deadly
        self.reason = reason

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended the worker, None if it was none."""
        return -self.exitcode if self.exitcode is not None and self.exitcode < 0 else None

    def __str__(self) -> str:
        end = f"{self._end()}: {self.reason}" if self.reason else self._end()
        lines = [
            f"worker {self.rank} (pid {self.pid}, host {self.host}) {end} "
            f"while it ran {self.task}({self.arguments})"
        ]
        if self.peak_memory:
            lines.append(f"it had up to {in_words(self.peak_memory)} of memory")
        if self.attempts > 1:
            lines.append(f"this was attempt {self.attempts}; before:")
            lines += [f"  {line}" for line in self.history]
        if self.deadly:
            lines.append("it is not tried again, since several workers have died of it")
        if self.output and self.output not in self.stderr:
            lines += [
                "last lines of what the call printed:",
                *self.output.splitlines()[-LAST_LINES:],
            ]
        if self.stderr:
            lines += ["last lines of its standard error:", self.stderr.rstrip("\n")]
        return "\n".join(lines)

    def _end(self) -> str:
        return how_it_ended(self.exitcode)


class WorkerOutOfMemory(WorkerLost):
    """The worker was killed while it ran this task since there was not enough memory.

    By its own agent, when it was above the `memory_limit` of the call; or by the kernel.
    """

    def _end(self) -> str:
        if self.memory_limit is not None:
            return (
                f"was killed since it was above its memory limit of {in_words(self.memory_limit)}"
            )
        return "was killed by the kernel since memory ran out (OOM killer)"


if sys.version_info >= (3, 11):
    _Timeout = TimeoutError
else:

    class _Timeout(TimeoutError, futures.TimeoutError):
        """Either of them catches it."""


class TaskTimeoutError(ExecutorError, _Timeout):
    """The call ran longer than its `timeout`; its worker was ended and replaced.

    Attributes:
        task: What was called, as text.
        rank, pid, host: The worker that ran it.
        seconds: The timeout.
        stack: The stacks of the worker's threads at that moment; empty if they could not be had.
    """

    def __init__(
        self, task: str, rank: int, pid: int | None, host: str, seconds: float, stack: str = ""
    ) -> None:
        super().__init__(task, rank, pid, host, seconds, stack)
        self.task, self.rank, self.pid, self.host = task, rank, pid, host
        self.seconds, self.stack = seconds, stack

    def __str__(self) -> str:
        text = (
            f"{self.task} ran longer than its timeout of {self.seconds:g} s; "
            f"worker {self.rank} (pid {self.pid}, host {self.host}) was ended and replaced"
        )
        return f"{text}\nit was here:\n{self.stack}" if self.stack else text


def in_words(size: int) -> str:
    """A number of bytes as people say it: `1.5 GB`."""
    number = float(size)
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"


def how_it_ended(exitcode: int | None) -> str:
    """An exit code in words: `died of signal 9 (SIGKILL)`, `ended with exit status 3`."""
    if exitcode is None:
        return "was lost"
    if exitcode >= 0:
        return f"ended with exit status {exitcode}"
    try:
        name = f" ({signal.Signals(-exitcode).name})"
    except ValueError:
        name = ""
    hint = ", killed, perhaps because memory ran out," if exitcode == -signal.SIGKILL else ""
    return f"died of signal {-exitcode}{name}{hint}"


class PoolBrokenError(ExecutorError, BrokenProcessPool):
    """No worker can be had any more: every pending and every later call gets this error.

    Its `__cause__` says why: the initializer's own exception, or why workers did not start.
    """


class SerializationError(ExecutorError, BrokenProcessPool):
    """A call could not be rebuilt in the worker, or a result not in the caller.

    Fails its own task only. `__cause__` is what pickle raised.

    Attributes:
        data: The pickle of a result that could not be rebuilt in the caller, for `pickletools` or
            another try; empty otherwise. Big buffers of arrays, which stay apart, are not in it.
    """

    def __init__(self, text: str, data: bytes = b"") -> None:
        super().__init__(text, data)
        self.data = data

    def __str__(self) -> str:
        return str(self.args[0])
