"""The client's end of a worker: who it is, what it knows, how calls go to it and come back.

tasks ──pack──▶ one payload: (news, groups of calls of one function, segments for results)
journal or frame of the worker ──read──▶ outcomes, in the order of its loans
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from sleighexec import payload as pickling
from sleighexec import runs, wire
from sleighexec.connections import Connection
from sleighexec.engines.lines import Line, Loan
from sleighexec.engines.outcomes import Outcome
from sleighexec.engines.processes import WorkerProcess
from sleighexec.functions import (
    LIGHT,
    LONG,
    PICKLED,
    PLAIN,
    WITHIN,
    FunctionTable,
    Known,
    places_of,
    weight,
)
from sleighexec.hints import Any
from sleighexec.messages import Payload
from sleighexec.task import BATCH_BYTES, Sink, Task


class WorkerLink:
    """A worker as the engine sees it: starting ──its first Ask──▶ ready ──Exited──▶ forgotten."""

    def __init__(
        self, number: int, rank: int, host: str, connection: Connection, functions: FunctionTable
    ) -> None:
        self.number, self.rank, self.connection = number, rank, connection
        self.loans: deque[Loan] = deque()  # what it has, oldest first; none of them is empty
        self.pid: int | None = None
        self.host = host
        self.ready = False
        self.system = self.python = ""
        self.told_to_leave = False
        self.draining = False  # it is to leave after its present call
        self.idle_since = 0.0  # on the monotonic clock, if it is idle
        self.gone = False
        self.stopped = False  # it stands still, since long enough
        self.revoked = 0  # what it had not begun of the loans up to this one was taken back
        self.kept = 0  # …the number of the last call that was not
        self.recalled = False  # what it has not begun is to be taken back now
        self.long = -1  # the number of answers when it said that its present call is a long one
        self.seen, self.seen_at = -1, 0.0  # …when we looked, and since when it is so
        self.answered = 0  # number of its last call whose outcome came
        self.known = Known(functions)
        self.process: WorkerProcess | None = None

    def whereabouts(self) -> tuple[int, int | None, str]:
        """Rank, process id and host."""
        return self.rank, self.pid, self.host

    def has_more(self) -> bool:
        """Whether it may have other calls than the present one: not if they were taken back."""
        return bool(self.lines_behind())

    def lines_behind(self) -> list[Line]:
        """Where these stood."""
        loans = self.loans
        if not loans or loans[-1].number <= self.revoked:
            return []
        alone = len(loans[0].tasks) == 1 and loans[0].tasks[0].size() == 1
        return [loan.line for loan in loans][int(alone) :]

    def begun(self, number: int, loan: int) -> int:
        """The number of the last call that it has begun, from what its journal says of it.

        It writes that also of one that was taken back, just before it learns that.
        """
        return number if loan > self.revoked else min(number, self.kept)

    def pack(
        self, tasks: Sequence[Task], grants: Sequence[Any] = ()
    ) -> tuple[Payload, int, set[tuple[float, int]]]:
        """As many of the first tasks as make a batch that is not too big: one payload of them.

        `grants`: segments for its results. Returns also how many tasks are in it, and the limits
        that its calls have.

        Raises:
            ValueError: With the globals that it needs it is larger than a frame may be.
        """
        news: list[Any] = []
        groups: list[tuple[int, int, Any, Any, Any]] = []
        known, last, size, sent = self.known, None, 0, 0
        limited: set[tuple[float, int]] = set()
        kind: tuple[int, int, Any, Any] = (-1, -1, None, None)
        known.forget_old()
        for task in tasks:
            if size > BATCH_BYTES:
                break
            sent += 1
            definition, needs, form, items, settings = task.parts()
            if definition is not last or needs:
                news += known.news(definition, needs)
                last = definition
            if form not in LIGHT:
                size += sum([weight(form, item) for item in items])
                if form == PICKLED:
                    items = list(map(known.carry, items))
                elif form == LONG:
                    form, items = PLAIN, [tuple(map(pickling.outside, item)) for item in items]
            places = definition.places + places_of(needs) if needs else definition.places
            limits = settings.limits
            if limits is not None:
                limited.add(limits)
            this = definition.key, form, places, limits
            if this != kind:
                kind = this
                groups.append((*kind, items if type(items) is range else list(items)))
                continue
            if type(groups[-1][4]) is range:
                groups[-1] = (*kind, list(groups[-1][4]))
            groups[-1][4].extend(items)
        payload = pickling.pack((news, groups, [tuple(place) for place in grants]))
        if (news or size > wire.MAX_FRAME // 2) and payload.size_bytes > wire.MAX_FRAME:
            known.take_back(news)
            raise ValueError(f"with the globals it needs it takes {payload.size_bytes} bytes")
        return payload, sent, limited

    def pack_lone(self, task: Task) -> bytes | None:
        """As `pack`, of one call with small arguments, if there is no news for it.

        Then there is nothing to it but the head of the payload. None: it is another call.
        """
        definition, needs, form, items, settings = task.parts()
        if form not in WITHIN or settings.limits or not self.known.is_latest(definition, needs):
            return None
        grants = [tuple(place) for place in self.connection.grants()]
        places = definition.places + places_of(needs) if needs else definition.places
        return pickling.pack_small(([], [(definition.key, form, places, None, items)], grants))

    def read(self, payload: Payload) -> list[Outcome]:
        """Outcomes of its calls, which belong to its oldest loans, in order: these are done."""
        loans = self.loans
        done: list[Outcome] = []
        for number, flag, data, buffers in runs.outcomes(payload):
            left = size = 1
            if flag in runs.RUNS:
                if number <= self.answered:  # these stood in the journal
                    data = data[self.answered + 1 - number :]
                left = size = len(data)
            elif number <= self.answered:
                continue
            elif flag == runs.PRINTED:
                if loans:
                    loans[0].tasks[0].printed(bytes(data))
                continue
            while left and loans:
                tasks = loans[0].tasks
                sink, index, count, complete = tasks[0].advance(left)
                self.answered += count
                part = data if count == size else data[size - left : size - left + count]
                done.append((sink, index, flag, part, buffers))
                left -= count
                if complete:
                    tasks.popleft()
                    if not tasks:
                        self._end(loans[0])
        return done

    def read_lone(self, payload: Payload) -> tuple[Sink, int, Any] | None:
        """As `read`, if all that has come is a run of one, that of its next call.

        Who waits, for which of its calls, and what stands for the value. None: it is another frame.
        """
        found = runs.of_one(payload.head)
        if found is None or found[0] != self.answered + 1 or not self.loans:
            return None
        tasks = self.loans[0].tasks
        sink, index, _, complete = tasks[0].advance(1)
        self.answered, value = found
        if complete:
            tasks.popleft()
            if not tasks:
                self.loans.popleft().line.lent -= 1
        return sink, index, value

    def lend(self, loan: Loan) -> None:
        """It has these now."""
        self.loans.append(loan)
        loan.line.lent += 1

    def settle(self) -> Task:
        """Its oldest task is done with."""
        loan = self.loans[0]
        task = loan.tasks.popleft()
        if not loan.tasks:
            self._end(loan)
        return task

    def give_back(self, loan: Loan, count: int) -> None:
        """The last calls of a loan have not begun."""
        loan.give_back(count)
        if not loan.tasks:
            self._end(loan)

    def give_all_back(self) -> list[Line]:
        """What it has waits again; where."""
        lines = []
        while self.loans:  # the oldest loan is first in line again
            loan = self.loans[-1]
            lines.append(loan.line)
            self.give_back(loan, sum(task.size() for task in loan.tasks))
        return lines

    def _end(self, loan: Loan) -> None:
        self.loans.remove(loan)
        loan.line.lent -= 1
