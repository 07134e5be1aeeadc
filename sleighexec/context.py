"""Where a task runs, and how it asks."""

from __future__ import annotations

import sys
import threading

from sleighexec.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sleighexec.resources import Slots
    from sleighexec.workspace import NetWorkSpace


class WorkerContext:
    """Where a task runs.

    Attributes:
        rank: Number of the worker, from 0; its replacement gets the same.
        count: How many workers the pool might have when this one started.
        host: Name of the machine.
        state: A dict that lives as long as the worker; tasks may keep things in it.
        resources: The slots that this worker has of what its launcher says: `{"gpu": [0]}`.
    """

    def __init__(
        self, rank: int, count: int, host: str, workspaces: Any = (), resources: Slots | None = None
    ) -> None:
        self.rank, self.count, self.host = rank, count, host
        self.resources = resources or {}
        self.state: dict[Any, Any] = {}
        self._workspaces = workspaces

    @property
    def workspace(self) -> NetWorkSpace:
        """The user's workspace, shared by all tasks and the caller of the executor."""
        workspace: NetWorkSpace = self._workspaces[1]
        return workspace


of_process: WorkerContext | None = None  # set by whoever makes this process a worker
of_thread = threading.local()  # its `context`, where several threads of a process run tasks


def current_worker() -> WorkerContext:
    """The worker that runs this task.

    Raises:
        RuntimeError: Not called from a task of a sleighexec executor.
    """
    context: WorkerContext | None = getattr(of_thread, "context", None) or of_process
    if context is None:
        raise RuntimeError("current_worker() works inside a task only, and this is not a worker")
    return context


def imported_in_worker() -> str | None:
    """In a worker: the module that the calling thread imports right now; None: it imports none."""
    frame = sys._getframe() if of_process is not None else None
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            spec: Any = frame.f_globals.get("__spec__")
            if getattr(spec, "_initializing", False):  # as the machinery of imports has it
                return str(spec.name)
        frame = frame.f_back
    return None
