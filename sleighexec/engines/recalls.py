"""The part of the engine that takes calls back which have not begun, when others could run them.

somebody has nothing to do ─▶ who runs a long call, others behind it ─▶ Recall ─▶ its agent
a worker stands still ──────────────────────────────────────────────────────────▶ its agent
agent: journal: begin nothing more ─▶ Halted: what has begun ─▶ the rest is first in line again
                                                            └▶ Revoked: what the worker has still

A worker reads ahead while it runs a call, so that it need not wait for the next one. That is a
gain as long as everybody has something to do, and must cost nobody anything else. The worker is
not asked for what it has: code that keeps its interpreter to itself would keep it from answering.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sleighexec.engines.hosts import Hosts
from sleighexec.engines.lines import Line
from sleighexec.engines.workers import WorkerLink
from sleighexec.messages import Halted, Nothing, Payload, Revoked

LONG = 0.015  # seconds without an answer after which what waits behind a call waits for too long


class Recalls(Hosts):
    """What an engine has of this subject. All under the server's lock."""

    _waiting: dict[WorkerLink, tuple[int, int]]

    # What it asks of the rest of the engine.
    _answered: Callable[[WorkerLink, Payload], None]
    _serve: Callable[[Line], None]

    def _share_out(self) -> None:
        """Call back what waits behind long calls, if there is a worker that has nothing to do."""
        if not self._waiting:
            return
        now = time.monotonic()
        wanted = len(self._waiting) - sum([worker.recalled for worker in self._workers.values()])
        for worker in self._workers.values():
            if not worker.has_more() or worker.recalled or worker.stopped:
                continue
            if worker.seen != worker.answered:
                worker.seen, worker.seen_at = worker.answered, now
            if not any(map(self._could_run, worker.lines_behind())):
                continue
            if worker.long != worker.answered and now < worker.seen_at + LONG:
                self.server.wake_by(worker.seen_at + LONG)
            elif wanted > 0:
                wanted -= 1
                self._recall(worker)

    def _could_run(self, line: Line) -> bool:
        """Whether one that has nothing to do may take what is in this line."""
        return any(self._lines.is_open(line, self._places.offer(w.rank)) for w in self._waiting)

    def _recall(self, worker: WorkerLink) -> None:
        """Have the calls back that it has not begun."""
        if (agent := self._agent_of(worker)) is not None:
            worker.recalled = True
            agent.recall(worker.number)

    def _take_back(self, worker: WorkerLink, message: Halted) -> None:
        """A worker begins nothing more for now: what it has not begun is for others.

        It asks before it begins another call, and learns from what we send here what is its own:
        until then nothing that it says of these loans counts, but the results of what it began.
        """
        if self.broken is not None:
            return  # all that it has was told so, and it is about to be killed
        worker.recalled = False
        if message.still:  # one that runs may say more and more, and need not be read to its end
            self.server.catch_up(worker.connection)  # with that, we know all that it has said
            for payload in message.values:
                self._answered(worker, payload)
            worker.stopped = True
            if asked := self._waiting.pop(worker, None):
                worker.connection.send(asked[0], Nothing())  # when it goes on, it asks again
        loans = list(worker.loans)
        counts = [sum(task.size() for task in loan.tasks) for loan in loans]
        worker.kept = worker.begun(message.begun, message.loan)
        left = sum(counts) - max(worker.kept - worker.answered, 0)
        worker.revoked = max(worker.revoked, *(loan.number for loan in loans), 0)
        lines: list[Line] = []
        for loan, count in zip(reversed(loans), reversed(counts)):
            if left > 0:
                worker.give_back(loan, min(left, count))
                lines.insert(0, loan.line)
            left -= count
        worker.connection.send(0, Revoked(worker.revoked, worker.kept, message.halt))
        for line in dict.fromkeys(lines):  # when all are back: the oldest ones begin first
            self._serve(line)
        self._scale()
        self._share_out()  # others, if there was nothing to take from this one
