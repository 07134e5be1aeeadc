"""The seam between an executor and whatever runs its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sleighexec.functions import GlobalValue
from sleighexec.hints import TYPE_CHECKING, Any, Protocol
from sleighexec.messages import Payload
from sleighexec.resources import Needs
from sleighexec.task import Settings, Task

if TYPE_CHECKING:
    from sleighexec.workerinfo import WorkerInfo

# A call that prepares a worker: ((function, *args), kwargs) pickled, and the globals it needs.
Prepared = tuple[Payload, tuple[GlobalValue, ...]]


class Engine(Protocol):
    """Runs tasks on workers it knows; see task.py for what it tells the tasks meanwhile."""

    max_workers: int
    forked: bool  # this is a forked child: nothing works here
    takes_rows: bool  # whether many calls may have their arguments in one pickle: form ROWS
    stop_at_exit: bool  # at the end of the program stop, instead of finishing what was put

    def admit(self, settings: Settings) -> None:
        """See that this can be asked of calls.

        Raises:
            UnsupportedOptionError: It cannot, with this engine.
        """

    def put(self, tasks: Sequence[Task]) -> None:
        """Run these, after those put before. Returns at once.

        Raises:
            RuntimeError: The engine was shut down.
            PoolBrokenError: It cannot have workers any more.
        """

    def put_ranked(self, tasks: Sequence[Task], priority: int, needs: Needs = ()) -> None:
        """As `put`, before all that wait with a lower priority; what `put` gets has 0.

        They run on workers that have what they need.

        Raises:
            UnsupportedOptionError: No worker can have that.
        """

    def wait_for_room(self) -> None:
        """Where calls may not wait in any number: return when one more may.

        At once for who serves, since nobody would make room meanwhile; and after the end.
        """

    def hold(self, task: Task) -> None:
        """This one will be put when what it waits for is there: do not end before.

        Raises:
            RuntimeError, PoolBrokenError: As `put`.
        """

    def put_held(self, task: Task, priority: int, needs: Needs = ()) -> None:
        """Put one that was held, also after `shutdown`, unless it has ended meanwhile."""

    def drop_held(self, task: Task, error: Callable[[], BaseException] | None = None) -> None:
        """One that was held has ended; or is to end with this error, told by who serves."""

    def put_each(self, tasks: Sequence[Task], sticky: Prepared | None = None) -> None:
        """Run task i on the worker of rank i, before what waits for any worker; start them all.

        Workers that come later make the `sticky` call before they take tasks, in the order of these
        calls, unless their own one of `tasks` has still to run: each worker runs it once.

        Raises:
            RuntimeError, PoolBrokenError: As `put`.
        """

    def unstick(self, sticky: Prepared) -> None:
        """Do not prepare later workers with this call after all."""

    def resize(self, max_workers: int) -> None:
        """Have so many workers; those of higher ranks leave. Returns at once.

        Ranks that there are already stay where they are, new ones are where the last one is.

        Raises:
            RuntimeError, PoolBrokenError: As `put`.
        """

    def start(self) -> None:
        """Start all workers there may be, whether there are tasks or not. Returns at once."""

    def kill(self, whom: Any) -> bool:
        """Kill the worker that runs the call of this future, or one of this map, right now.

        Returns at once: whether a worker has one of them, run or not.
        """

    def shutdown(self, *, cancel: bool = False) -> None:
        """Take no more tasks; end when all are done, or all that have begun. Returns at once."""

    def stop(self) -> None:
        """Shut down without finishing anything: what runs is killed, the rest is cancelled."""

    def abandon(self) -> None:
        """The executor was collected: shut down. Only sets a flag, since that may be anywhere."""

    def join(self) -> None:
        """Wait until everything has ended: tasks, workers, threads."""

    def signal_workers(self, number: int) -> None:
        """Send every worker a signal; what they run is lost and not tried again."""

    def workers(self) -> list[WorkerInfo]:
        """The workers there are now, by rank."""

    def processes(self) -> Mapping[int, Any]:
        """The workers' processes by pid."""

    def in_loop(self) -> bool:
        """Whether the calling thread is the one that serves the engine."""

    def serve_until(self, condition: Callable[[], bool], deadline: float | None) -> None:
        """Serve in the calling thread, as far as no other does, until something has come true."""

    def attend(self) -> None:
        """Before waiting in another way: see that a thread of the engine serves."""
