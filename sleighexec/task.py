"""What an engine runs: a task, one call or a row of calls that it may cut into parts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from sleighexec.functions import Definition, GlobalValue
from sleighexec.hints import Any, Protocol
from sleighexec.resources import Needs

TIMEOUT, MEMORY, KILLED, OOM = "timeout", "memory", "killed", "oom"  # why a worker was ended
MAX_KILLED = 2  # workers that one call may cost
MAX_EXCUSED = 2  # that may end under it for no fault of its; then it takes longer than they have
BATCH_BYTES = 1024 * 1024  # of pickled arguments after which a batch takes no further call


class Settings:
    """What was asked for a call. Never changed: many calls have the same.

    Attributes:
        limits: Seconds and bytes that the call may take, 0: no limit; None: neither is limited.
        needs: What its worker must have.
        ranked: Whether it cannot stand in the line of all others.
    """

    __slots__ = ("limits", "memory_limit", "needs", "priority", "ranked", "retries", "timeout")

    def __init__(
        self,
        retries: int = 0,
        timeout: float | None = None,
        memory_limit: int | None = None,
        priority: int = 0,
        needs: Needs = (),
    ) -> None:
        self.retries, self.timeout, self.memory_limit = retries, timeout, memory_limit
        self.priority, self.needs = priority, needs
        self.ranked = bool(priority or needs)
        # Made once: it is asked for each time that a call is sent.
        self.limits: tuple[float, int] | None = None
        if timeout is not None or memory_limit is not None:
            self.limits = timeout or 0.0, memory_limit or 0


# How calls of one function travel: that, the globals that they need, the form of their arguments,
# the arguments of each call, and what was asked for them. No class of its own: there is one for
# each call that is sent.
Parts = tuple[Definition, tuple[GlobalValue, ...], int, Sequence[Any], Settings]


class Loss:
    """The end of a worker that was running a call: how, where, and what is known of it.

    Attributes:
        status: Exit status, or minus the number of the signal; None: not known.
        reason: "" if it died by itself, else why it was ended: see `messages.Exited`.
        stderr: The last that it wrote there.
        peak: Bytes of memory it had at most; 0: not known.
        host_lost: Why its whole host was lost; "" if it was not.
        printed: The end of what the call had printed, UTF-8.
        excused: The end was to be expected: the call may be tried again whatever it allows.
    """

    __slots__ = (
        "excused",
        "host",
        "host_lost",
        "peak",
        "pid",
        "printed",
        "rank",
        "reason",
        "status",
        "stderr",
    )

    def __init__(
        self,
        rank: int,
        pid: int | None,
        host: str,
        status: int | None,
        reason: str = "",
        stderr: str = "",
        peak: int = 0,
        host_lost: str = "",
        printed: bytes = b"",
        excused: bool = False,
    ) -> None:
        self.rank, self.pid, self.host, self.status = rank, pid, host, status
        self.reason, self.stderr, self.peak = reason, stderr, peak
        self.host_lost, self.printed, self.excused = host_lost, printed, excused


def may_try_again(losses: tuple[Loss, ...], settings: Settings) -> bool:
    """Whether a call that has lost these workers is to be tried once more."""
    excused = sum(loss.excused for loss in losses)
    blamed = len(losses) - min(excused, MAX_EXCUSED)
    timed_out = losses[-1].reason == TIMEOUT
    return not timed_out and blamed <= settings.retries and not is_deadly(losses)


def is_deadly(losses: tuple[Loss, ...]) -> bool:
    """Whether so many workers have died of it that no other is to try.

    One whose end is not known may have been lost with its host: that is not blamed on the call.
    """
    return sum(loss.status is not None for loss in losses) >= MAX_KILLED


class Sink(Protocol):
    """Whoever waits for the outcome of calls."""

    def deliver(self, index: int, value: Any, error: BaseException | None) -> None:
        """The outcome of one call. Runs callbacks: never under a lock of ours."""

    def deliver_run(self, index: int, values: list[Any], *, objects: bool = False) -> None:
        """The values that a row of calls returned, the first of them that of call `index`.

        `objects`: there are others than numbers and texts among them.
        """


class Task(Protocol):
    """One call or a row of calls, as the space holds it and the engine hands it out.

    waiting ──begin()──▶ with a worker ──advance() once a call──▶ done
       ◀──give_back()──────┘  └──lost()──▶ waiting again, or failed
    """

    def begin(self, limit: int) -> tuple[Any, Any]:
        """Of at most `limit` calls: (the part that begins, the rest); part None: not wanted."""

    def parts(self) -> Parts:
        """What must travel to run it."""

    def called(self) -> Definition | None:
        """The function; None if it has ended."""

    def advance(self, most: int) -> tuple[Sink, int, int, bool]:
        """Its first call is answered, or up to `most`, if one sink waits for all of them.

        Who waits, for which of its calls, how many were answered, whether these were the last.
        """

    def printed(self, text: bytes) -> None:
        """Its first call that is not answered has printed this, its end in UTF-8."""

    def split(self, count: int) -> tuple[Any, Any]:
        """Cut off the last `count` calls: (the front or None, the cut-off part)."""

    def position(self, whom: Any) -> int | None:
        """How many unanswered calls stand before that of this future, or the first of this job.

        None: there is none in this task.
        """

    def size(self) -> int:
        """How many calls have not been answered."""

    def give_back(self) -> None:
        """It has not begun after all and waits again."""

    def lost(self, loss: Loss, *, again: bool) -> tuple[Sequence[Any], Any]:
        """Its first call was lost: (what to put back in line, a callback to run outside locks).

        Unless `again` the lost call is not tried again, whatever the task allows.
        """

    def fail(self, error: Callable[[], BaseException]) -> None:
        """It will not run. Runs callbacks: never under a lock of ours."""

    def withdraw(self) -> None:
        """Cancel it if it has not begun. Runs callbacks."""


def give_back(tasks: deque[Task], count: int) -> deque[Task]:
    """The last calls of these tasks have not begun: take them out; they wait again, in order."""
    back: deque[Task] = deque()
    while count > 0 and tasks:
        task = tasks.pop()
        calls = task.size()
        if calls <= count:
            task.give_back()
            back.appendleft(task)
        else:
            front, part = task.split(count)
            tasks.append(front)
            back.appendleft(part)
        count -= calls
    return back
