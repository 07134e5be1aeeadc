"""What comes back from Dask: outcomes of batches, and what has not begun after all."""

from __future__ import annotations

import time
from collections import deque
from functools import partial

from sleighexec import raised
from sleighexec.engines.dask import remote
from sleighexec.engines.dask.batch import Batch
from sleighexec.engines.dask.dispatch import Dispatch
from sleighexec.engines.dask.members import Member
from sleighexec.engines.dask.run import LONG
from sleighexec.engines.outcomes import Outcome, deliver
from sleighexec.errors import ExecutorError
from sleighexec.hints import Any
from sleighexec.messages import Payload
from sleighexec.task import Task

MAX_BOUNCES = 50  # times in a row that a batch comes back as it was


class Outcomes(Dispatch):
    """The thread of an engine, as far as it deals with outcomes."""

    def _came(self, batch: Batch, outcome: Any, error: BaseException | None) -> None:
        if not self._is_out(batch):
            return  # it was lost or called back, and that was dealt with
        if error is not None:
            self._failed(batch, error)
            return
        kind, who, *rest = remote.outcome_of(outcome)
        member = self._see(who)
        if kind == remote.DONE:
            if member is not None:
                member.told = True
            self._failed_starts = self._bounces = 0
            self._finish(batch)
            seconds, records, returned, buffers = rest
            self._answered(batch, Payload(records, buffers), member, seconds)
            self._put_back(batch, batch.give_back(returned - batch.returned))
        elif kind == remote.STRANGER:
            if member is not None:
                member.told = False
            self._members.come(self._cluster.members())
            self._come_back(batch, "no worker of the Dask cluster knows this executor")
        elif kind == remote.BROKEN:
            self._finish(batch)
            self._put_back(batch, batch.give_back(batch.size()))
            cause, _ = raised.loads_error(rest[0])
            self._break("the initializer or a sticky call failed in a worker", cause)
        else:
            self._look_into(batch, "", last=True)

    def _see(self, who: Any) -> Member | None:
        """A worker has answered."""
        if who is None:
            return None
        _, address, pid, host, python = who
        member = self._members.at(address)
        if member is not None and member.address == address:
            member.pid, member.python, member.node = pid, python, host
        return member

    def _failed(self, batch: Batch, error: BaseException) -> None:
        """Dask could not run it, or says that it was cancelled."""
        if not self._cluster.alive():
            self._break("the Dask scheduler is gone", error)
            return
        # What was scattered may have gone with a worker; or somebody restarted the cluster.
        self._constants.clear()
        self._look_into(batch, "", why=error)

    def _answered(
        self, batch: Batch, payload: Payload, member: Member | None, seconds: float = 0.0
    ) -> None:
        before = batch.answered
        with self._touching:
            done, printed = batch.take(payload)
        count = batch.answered - before
        if count and seconds:
            self._pace.learn(batch.names, seconds / count, count)
        if member is not None:
            member.finished += count
            for text in printed:
                self._deferred.append(partial(self._printed.tell, member.rank, text))
        self._deliver(done)

    def _deliver(self, done: list[Outcome]) -> None:
        if done:
            self._deferred.append(partial(deliver, done))

    def _relieved(self, number: int, returned: int, records: bytes, waiting: list[int]) -> None:
        """A call turned out long: what stood behind it in its batch has not begun.

        `waiting`: nor had these batches, which wait for its worker.
        """
        batch = self._batches.get(number)
        if batch is None:
            return
        self._answered(batch, Payload(records), None)
        with self._touching:
            back = batch.give_back(returned - batch.returned)
        batch.returned = returned
        self._put_back(batch, back)
        if not batch.is_long:  # else that is known
            batch.is_long = True
            self._pace.learn(batch.names, LONG)
        behind = [self._batches[each] for each in waiting if each in self._batches]
        if behind := [each for each in behind if each.address is None]:  # else only it may run it
            self._stop([(each, 0) for each in behind])

    def _put_back(self, batch: Batch, tasks: list[Task]) -> None:
        """These have not begun after all: they are first in line again."""
        if not tasks:
            return
        if batch.address is None:
            self._lines.put_first(batch.line, tasks)
        else:
            box = self._boxes.setdefault(batch.line[1], deque())
            box.extendleft((task, batch.sticky) for task in reversed(tasks))

    def _stop(self, batches: list[tuple[Batch, int]]) -> None:
        """Have the workers that run these calls of batches end themselves; 0: only call it back.

        Those that nobody has begun come back. If a worker did not answer, since it has just died
        or come, none does: whoever wants it asks again.
        """

        def heard(answers: dict[str, Any]) -> None:
            # None is the answer of one that is not ready for us yet: it may begin something.
            known = {address: begun for address, begun in answers.items() if begun is not None}
            begun = {number for numbers in known.values() for number in numbers}
            for batch, _ in batches:
                batch.stopping = 0
            self._members.come(self._cluster.members())
            if {member.address for member in self._members.present()} <= known.keys():
                self._recall([batch for batch, _ in batches if batch.number not in begun])

        def tell(answers: dict[str, Any]) -> None:
            self._inbox.put(partial(heard, answers))

        numbers = [(batch.number, call) for batch, call in batches]
        self._cluster.ask(tell, remote.stop, self.name, numbers, False)

    def _is_out(self, batch: Batch) -> bool:
        """Whether Dask has it, as far as we know."""
        return self._batches.get(batch.number) is batch and batch.number not in self._limbo

    def _recall(self, batches: list[Batch]) -> None:
        """No worker has begun these, nor will any."""
        out = [batch for batch in batches if self._is_out(batch)]
        self._cluster.cancel([batch.future for batch in out])
        for batch in reversed(out):  # so that the first of them is first in line again
            self._finish(batch)
            with self._touching:
                back = batch.give_back(batch.size())
            self._put_back(batch, back)

    def _come_back(self, batch: Batch, why: str) -> None:
        """It has not begun, and goes out again; but not for ever."""
        self._finish(batch)
        again = batch.number > self._bounced  # it went out after the last one that came back
        if again:  # of those that were out together one counts
            self._bounces, self._bounced = self._bounces + 1, self._latest
        with self._touching:
            back = batch.give_back(batch.size())
        if self._bounces > MAX_BOUNCES:
            for task in back:
                self._deferred.append(partial(task.fail, lambda: ExecutorError(why)))
            return
        if again and self._bounces > 3:
            time.sleep(0.01 * self._bounces)
        self._put_back(batch, back)
