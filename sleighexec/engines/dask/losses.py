"""What is lost with a worker: of each batch that it had, the one call that it was running.

A Dask worker that dies says nothing. What it had begun stands in the journal of the batch, on its
machine: we look there ourselves, or ask a worker that is there, or wait until one comes back.
"""

from __future__ import annotations

import contextlib
import time

from sleighexec.engines.dask import journal, remote
from sleighexec.engines.dask.batch import Batch
from sleighexec.engines.dask.outcomes import Outcomes
from sleighexec.engines.outcomes import BROKEN_BY_CRASH, lose
from sleighexec.hints import Any
from sleighexec.messages import Payload
from sleighexec.task import KILLED, TIMEOUT, Loss, Task

REMAINS_SECONDS = 15.0  # that the end of a worker may take to be looked into, where it was
MAX_FAILED_STARTS = 5  # workers in a row that ended before they worked: then the pool is broken


class Losses(Outcomes):
    """The thread of an engine, as far as it deals with what was lost."""

    def _look_into(
        self, batch: Batch, host: str, *, last: bool = False, why: BaseException | None = None
    ) -> None:
        """A batch has ended with its worker, on `host`: what had it begun?"""
        self._limbo.pop(batch.number, None)
        remains = journal.read(self.name, batch.number)
        known = False
        if remains is None:
            answers = self._answers_of(host, batch.number)
            found = [answer for answer in answers.values() if answer is not None]
            remains = found[0] if found else None
            known = bool(answers)
        if remains is None and not known and not last and not self._killing:
            # Whoever comes next over there can tell.
            until = time.monotonic() + REMAINS_SECONDS
            self._limbo[batch.number] = batch, host, until, why
            return
        if batch.future is not None:
            self._cluster.cancel([batch.future])
        self._finish(batch)
        if remains is None and known:
            self._come_back(batch, f"Dask could not run the call: {why!r}")
        else:
            self._bury(batch, remains, host)
        journal.remove(self.name, batch.number)

    def _answers_of(self, host: str, number: int = 0) -> dict[str, Any]:
        """What the workers of a host (or all, if it is not known) find of a batch there."""
        there = [m.address for m in self._members.present() if m.host == host or not host]
        if not there:
            return {}
        return self._cluster.run(remote.read_remains, self.name, number, workers=there)

    def _bury(self, batch: Batch, remains: journal.Remains | None, host: str) -> None:
        """What it had begun is lost, the rest is first in line again."""
        reason = KILLED if batch.killed else ""
        pid, rank, text, stack = None, -1, b"", ""
        begun = True
        if remains is not None:
            pid, rank, text, stack = remains.pid, remains.rank, remains.printed, remains.stack
            self._answered(batch, Payload(remains.records), self._members.by_rank.get(rank))
            begun = remains.begun > batch.answered
            reason = TIMEOUT if stack else reason
            if not begun and remains.begun == 0 and not reason:
                self._count_failed_start()
        member = self._members.by_rank.get(rank)
        node = member.node if member is not None and member.node else host
        loss = Loss(rank, pid, node, None, reason, stack, printed=text)
        again: list[Task] = []
        with self._touching:
            while begun and batch.tasks:
                task = batch.tasks.popleft()
                calls = task.size() if remains is None else 1
                left, tell = lose(task, calls, loss, again=not self._killing)
                again += left
                self._deferred += tell
                begun = remains is None  # then all of it may have begun
            again += batch.give_back(batch.size())
        self._put_back(batch, again)
        if self._break_on_crash and not reason and not self._killing:
            self._break(BROKEN_BY_CRASH, None)

    def _count_failed_start(self) -> None:
        """A worker ended before its first call: try again, or not any more."""
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            text = f"{self._failed_starts} Dask workers in a row ended while they prepared"
            self._break(text, None)

    def _kill_all(self) -> None:
        """End all that runs; what waits is withdrawn."""
        self._withdraw_waiting()
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self._cluster.run(remote.stop, self.name, [], True)
        for batch in list(self._batches.values()):
            self._look_into(batch, "", last=True)
