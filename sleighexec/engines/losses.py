"""The part of the engine that knows losses: workers that stand still or end, and what they had.

agent ─▶ Halted   what it has not begun is for others: recalls ─▶ Moved: it goes on
      ─▶ Exited   results in its journal are delivered; the call that had begun is lost or
                  tried again, the rest is first in line again ─▶ another one is started
      ─▶ its own end: all of that for each of its workers, without their journals
too many in a row that never worked, or one with on_crash="break" ─▶ the pool is broken
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from sleighexec.connections import Connection
from sleighexec.engines.hosts import by_itself
from sleighexec.engines.lines import Line
from sleighexec.engines.outcomes import BROKEN_BY_CRASH, lose
from sleighexec.engines.processes import WorkerProcess
from sleighexec.engines.recalls import Recalls
from sleighexec.engines.workers import WorkerLink
from sleighexec.errors import ExecutorError
from sleighexec.hints import Any
from sleighexec.launchers.base import Launcher, is_remote
from sleighexec.messages import (
    Exited,
    Halted,
    Leaving,
    Moved,
    Started,
)
from sleighexec.task import Loss, Task

LAST_LINES = 50  # of what a worker wrote to its stderr, in the report of its end
MAX_FAILED_STARTS = 5  # workers in a row that ended before they worked: then the pool is broken
MAX_KILLED_STARTS = 25  # the same, where somebody else has ended them by SIGKILL or SIGTERM
START_PAUSE = 0.1  # seconds before the next one, after the second of them; then twice as long
LONGEST_START_PAUSE = 1.0


class Losses(Recalls):
    """What an engine has of this subject. All under the server's lock."""

    _broken_text: str
    _break_on_crash: bool
    _killing: bool
    _failed_starts: int  # in a row
    _start_at: float  # no worker is started before that time; 0: at once

    # What it asks of the rest of the engine.
    _signal_one: Callable[[WorkerLink], Callable[[int], None]]

    def _hear_agent(self, launcher: Launcher, _: Connection, tag: int, message: Any) -> None:
        if type(message) is Leaving:
            self._drain(launcher)
            return
        worker = self._workers.get(message.worker)
        if worker is None:
            return
        if (agent := self._agent_of(worker)) is not None:
            self._heard(launcher, agent)
        if type(message) is Started:
            worker.pid = message.pid
            worker.process = WorkerProcess(worker.pid, worker.rank, self._signal_one(worker))
            self._pids.notify_all()
        elif type(message) is Halted:
            self._take_back(worker, message)
        elif type(message) is Moved:
            worker.stopped = False
        elif type(message) is Exited:
            self.server.drain(worker.connection)
            answers, printed = message.values
            self._answered(worker, answers)
            begun = worker.begun(message.begun, message.loan) > worker.answered
            loss = Loss(
                *worker.whereabouts(),
                message.status,
                message.reason,
                _last_lines(message.stderr),
                message.peak,
                printed=bytes(printed.head),
            )
            self._bury(worker, loss, begun)

    def _lost_connection(self, connection: Connection) -> None:
        """A worker closed its socket: it is ending, or a task closed everything."""
        worker: WorkerLink = connection.worker  # type: ignore[attr-defined]
        agent = self._agent_of(worker)
        if not worker.gone and worker.loans and agent is not None:
            agent.kill(worker.number)

    def _lost_agent(self, launcher: Launcher) -> None:
        """An agent ended: as it should, or killed, and its workers with it."""
        agent = self._agents.pop(launcher)
        silent, end = agent.silent, agent.reap()
        self._pids.notify_all()
        mine = [w for w in self._workers.values() if self._places.launchers[w.rank] == launcher]
        reason, excused = "", False
        if by_itself(launcher):
            reason = self._left(launcher, agent, lost=bool(mine))
        elif agent.expired():
            reason, excused = "its time was over", bool(getattr(launcher, "again", False))
        elif is_remote(launcher):
            reason = "its agent ended" if agent.failure is None else agent.failure.reason
            wanted = not self._closing or self._lines.waiting() or any(w.loans for w in mine)
            if mine and self.broken is None and not self._killing and wanted:
                self._lost_host(launcher, agent.failure, reason)
        elif silent and not self._killing:
            self._break(f"no worker could be started: the launched command {end}", None)
        for worker in mine:
            worker.gone = True  # its death is no business of the agent that comes next
            # What one of them loses is not for another of them.
            self._waiting.pop(worker, None)
        for worker in mine:
            self.server.drain(worker.connection)
            loss = Loss(*worker.whereabouts(), None, host_lost=reason, excused=excused)
            self._bury(worker, loss, True, everything=True)
        self._scale()
        if launcher in self._places.given_up:
            self._fail_boxes(launcher)

    def _bury(
        self, worker: WorkerLink, loss: Loss, begun: bool, *, everything: bool = False
    ) -> None:
        """A worker is gone: what it had begun is lost, the rest is first in line again.

        `everything`: its journal went with it, so that all it was lent may have begun.
        """
        worker.gone = True
        del self._workers[worker.number]
        self._count_unmanned()
        self._waiting.pop(worker, None)
        crashed = bool(worker.loans) or loss.status != 0
        breaks = crashed and self._break_on_crash and not (loss.reason or self._killing)
        again: list[tuple[Line, list[Task]]] = []
        while begun and worker.loans:
            line, task = worker.loans[0].line, worker.settle()
            calls = task.size() if everything else 1
            left, tell = lose(task, calls, loss, again=not (self._killing or breaks))
            again.append((line, left))
            for call in tell:
                self.server.defer(call)
            begun = everything
        lines = worker.give_all_back()
        for line, tasks in reversed(again):
            line.put_first(tasks)
            lines.append(line)
        self.server.dispatch(self.server.space.disconnect(worker.connection))
        for line in dict.fromkeys(lines):
            self._serve(line)
        if worker.process is not None:
            worker.process.exitcode = loss.status
            worker.process.ended.set()
        self._pids.notify_all()
        if self._killing:
            self._withdraw_waiting()
        elif breaks:
            self._break(BROKEN_BY_CRASH, None)
        elif self.broken is not None:
            self._fail_waiting()  # what has come back from it
        elif not worker.ready and not loss.host_lost:
            self._count_failed_start(loss)
        self._scale()
        self._end_drained(self._places.launchers[worker.rank])

    def _count_failed_start(self, loss: Loss) -> None:
        """A worker ended before it was ready: try again after a pause, or not any more."""
        self._failed_starts += 1
        killed = loss.status in (-signal.SIGKILL, -signal.SIGTERM)
        if self._failed_starts >= (MAX_KILLED_STARTS if killed else MAX_FAILED_STARTS):
            text = f"{self._failed_starts} workers in a row ended before they were ready"
            self._break(f"{text}; the last one wrote:\n{loss.stderr}", None)
        elif self._failed_starts > 1:
            pause = START_PAUSE * 2 ** (self._failed_starts - 2)
            self._start_at = time.monotonic() + min(pause, LONGEST_START_PAUSE)

    def _break(self, text: str, cause: BaseException | None) -> None:
        """No worker can be had any more: say so to everybody who waits."""
        if self.broken is None:
            self.broken = cause if cause is not None else ExecutorError(text)
            self._broken_text = text
            self._pids.notify_all()
        self._fail_waiting()
        for worker in self._workers.values():
            for loan in worker.loans:
                for task in loan.tasks:
                    self.server.defer(task.fail, self._broken_error)
        for agent in self._agents.values():
            agent.kill()

    def _fail_waiting(self) -> None:
        for task in self._lines.take():
            self.server.defer(task.fail, self._broken_error)

    def _broken_error(self) -> BaseException:
        """An error of its own for everybody, so that their tracebacks do not pile up."""
        from sleighexec.broken import PoolBrokenError

        error = PoolBrokenError(self._broken_text)
        if type(self.broken) is not ExecutorError:
            error.__cause__ = self.broken
        return error

    def _withdraw_waiting(self, spare: int = 0) -> None:
        for task in self._lines.take(spare):
            self.server.defer(task.withdraw)


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-LAST_LINES:])
