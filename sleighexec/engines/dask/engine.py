"""The engine on a Dask cluster: see `sleighexec.engines.base.Engine`.

    put(tasks) ─▶ lines, by priority ─▶ Batch ─▶ a Dask task ─▶ some worker: remote.run_batch
    put_each   ─▶ boxes, by rank     ─▶ a Dask task that is pinned to the worker of that rank
    its outcome, fetched at once ─▶ records ─▶ outcomes in order ─▶ Task.deliver
    Watcher: a worker has left with these batches ─▶ its journal ─▶ results in it delivered, the
             call that had begun lost or tried again, everything else first in line again

Here is what the executor calls; the thread that does it is in dispatch.py, outcomes.py, losses.py.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sleighexec.engines import exits
from sleighexec.engines.base import Prepared
from sleighexec.engines.dask import remote
from sleighexec.engines.dask.batch import Batch
from sleighexec.engines.dask.losses import Losses
from sleighexec.errors import ExecutorError, ForkedProcessError, UnsupportedOptionError
from sleighexec.hints import Any
from sleighexec.resources import Needs
from sleighexec.task import Settings, Task
from sleighexec.workerinfo import WorkerInfo


class DaskEngine(Losses):
    """See `sleighexec.engines.base.Engine`."""

    takes_rows = False

    def __init__(self, engine: Any, **options: Any) -> None:
        """See SleighExecutor and Dispatch."""
        super().__init__(engine, **options)
        self._thread.start()
        exits.register(self)

    def put(self, tasks: Sequence[Task]) -> None:
        self.put_ranked(tasks, 0)

    def put_ranked(self, tasks: Sequence[Task], priority: int, needs: Needs = ()) -> None:
        if needs and not self._members.capacity(needs):
            what = ", ".join(f"{count} {name}" for name, count in needs)
            raise UnsupportedOptionError(f"no worker of the Dask cluster has {what} (--resources)")
        self._send_in(partial(self._lines.add, (priority, needs), list(tasks)) if tasks else None)

    def wait_for_room(self) -> None:
        pass  # max_pending is refused

    def hold(self, task: Task) -> None:
        self._send_in(partial(self._held.setdefault, task))

    def put_held(self, task: Task, priority: int, needs: Needs = ()) -> None:
        def put() -> None:
            if self._held.pop(task, self) is None:
                self._lines.add((priority, needs), [task])

        self._inbox.put(put)

    def drop_held(self, task: Task, error: Callable[[], BaseException] | None = None) -> None:
        def drop() -> None:
            if self._held.pop(task, self) is None and error is not None:
                self._deferred.append(partial(task.fail, error))

        self._inbox.put(drop)

    def put_each(self, tasks: Sequence[Task], sticky: Prepared | None = None) -> None:
        self._send_in(partial(self._put_each, list(tasks), sticky))

    def unstick(self, sticky: Prepared) -> None:
        def forget() -> None:
            for number, prepared in self._sticky:
                if prepared is sticky:
                    self._cluster.forget(number)
            self._sticky = [each for each in self._sticky if each[1] is not sticky]

        self._inbox.put(forget)

    def resize(self, max_workers: int) -> None:
        self._send_in(None)
        if not hasattr(self._cluster.cluster, "scale"):
            raise UnsupportedOptionError(
                "resize needs the Dask cluster: give it as engine=, or scale it where it was made"
            )
        self._cluster.cluster.scale(max_workers)
        if self._most is not None:
            self._most = max_workers

    def start(self) -> None:
        self._send_in(None)

    def admit(self, settings: Settings) -> None:
        """See that this can be asked of calls here.

        Raises:
            UnsupportedOptionError: It cannot.
        """
        if settings.memory_limit is not None:
            raise UnsupportedOptionError(
                "memory_limit= is a limit of calls, and Dask has one of workers only: give your "
                "cluster memory_limit= when you make it"
            )
        if settings.timeout is not None:
            self._check_killable("a timeout")

    def _check_killable(self, what: str) -> None:
        for member in self._members.present():
            if not member.killable:
                raise UnsupportedOptionError(
                    f"{what} ends a worker, so it needs Dask workers with threads_per_worker=1 and "
                    f"a nanny: {member.name} has {member.threads} threads"
                    + ("" if member.nanny else " and no nanny")
                )

    def kill(self, whom: Any) -> bool:
        batches: list[tuple[Batch, int]] = []
        found = False
        if self.forked:
            return found
        with self._touching:
            for batch in list(self._batches.values()):
                position = batch.position(whom)
                if position is None:
                    continue
                self._check_killable("kill")
                found = batch.killed = True
                if batch.stopping != position:  # else it was asked for already
                    batch.stopping = position
                    batches.append((batch, position))
        if batches:
            self._stop(batches)
        return found

    def shutdown(self, *, cancel: bool = False) -> None:
        if self.forked:
            return
        with self._gate:
            self._closing = True
        if cancel:
            self._inbox.put(self._withdraw_waiting)
        self._inbox.put(_nothing)

    def stop(self) -> None:
        if not self.forked:
            self.signal_workers(signal.SIGKILL)
            self.shutdown(cancel=True)

    def abandon(self) -> None:
        self._abandoned = True
        self._inbox.put(_nothing)

    def join(self) -> None:
        if not self.forked and not self.in_loop():
            self._ended.wait()
            self._thread.join()

    def signal_workers(self, number: int) -> None:
        self._killing = True
        self._inbox.put(self._kill_all)

    def workers(self) -> list[WorkerInfo]:
        if self.forked:
            return []
        answers = self._cluster.run(remote.describe, self.name) if not self._ended.is_set() else {}
        found = []
        for member in self._members.all():
            pid, host, python, busy = answers.get(member.address, (None, member.host, "", False))
            state = "starting" if pid is None else "busy" if busy else "idle"
            system = os.name if python else ""
            rank, finished = member.rank, member.finished
            found.append(WorkerInfo(rank, pid, host, state, finished, system, python))
        return found

    def processes(self) -> Mapping[int, Any]:
        return {}

    def in_loop(self) -> bool:
        return threading.current_thread() is self._thread

    def serve_until(self, condition: Callable[[], bool], deadline: float | None) -> None:
        if self.in_loop():  # a callback that waits: who else should serve meanwhile?
            while not condition() and not self._ended.is_set():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return
                self._step(left)

    def attend(self) -> None:
        pass

    def gather(self, least: int, timeout: float) -> None:
        """Before anything else: wait for so many workers.

        Raises:
            PoolBrokenError: They have not come in time.
        """
        try:
            self._cluster.wait_for(least, timeout)
        except TimeoutError:
            text = f"fewer than {least} workers have joined the Dask cluster in {timeout:g} s"
            self._broken_text, self.broken = text, ExecutorError(text)
            raise self._broken_error() from None

    def forget(self) -> None:
        """In a forked child: tell whoever asks. The server has let go of everything."""
        self.forked = True

    def _send_in(self, call: Callable[[], object] | None) -> None:
        with self._gate:
            if self.forked:
                raise ForkedProcessError(
                    "this executor belongs to the parent process; make a new one in this process"
                )
            if self.broken is not None:
                raise self._broken_error()
            if self._closing:
                raise exits.shut_down()
            if call is not None:
                self._inbox.put(call)


def _nothing() -> None:
    pass


# Dask has brought in thread pools that end with the interpreter: what we do then must come before.
exits.hook_in()
