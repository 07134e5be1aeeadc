"""Calls that travel together as one Dask task, as the client sees them."""

from __future__ import annotations

import math
from collections import deque

from sleighexec import runs
from sleighexec.engines.outcomes import Outcome
from sleighexec.functions import LONG, PICKLED, PLAIN, GlobalValue, places_of
from sleighexec.hints import Any
from sleighexec.messages import Payload
from sleighexec.task import Task, give_back

BIG = 1024 * 1024  # bytes from which something is scattered

Item = tuple[Any, Any, int, Any]  # target, detail, version, (head, buffers)


class Batch:
    """A row of tasks that was handed out together.

    Attributes:
        number: Also that of its journal.
        line: What line its tasks came from: (priority, needs); or ("rank", its number).
        calls: That it had when it was made.
        answered: Its calls whose outcome has come.
        returned: Calls at its end that are somewhere else now.
    """

    def __init__(
        self, number: int, tasks: list[Task], line: Any, sticky: int = 0, seconds: float = 0.0
    ) -> None:
        """`seconds`: that it may take."""
        self.number, self.line = number, line
        self.sticky, self.seconds = sticky, seconds
        self.tasks: deque[Task] = deque(tasks)
        self.calls = self.size()
        self.future: Any = None
        self.address: str | None = None  # of the worker that it is meant for
        self.ahead = False  # of what workers need to have something to run
        self.is_long = False  # a call of it has turned out long
        self.killed = False  # somebody wants a call of it killed
        self.stopping = 0  # the number of the one whose worker is asked just now
        self.answered = self.returned = 0
        self.names = {name_of(task) for task in tasks}

    @property
    def is_special(self) -> bool:
        """Whether it is for one worker, or for those that have something."""
        return self.line[0] == "rank" or bool(self.line[1])

    def groups(self) -> tuple[list[Any], list[Any]]:
        """Its calls as they travel; and the definitions and globals that they need."""
        needed: dict[Any, Any] = {}
        groups: list[tuple[int, int, Any, Any, list[Any]]] = []
        kind: tuple[int, int, Any, Any] = (-1, -1, None, None)
        for task in self.tasks:
            definition, needs, form, items, settings = task.parts()
            for each in (*definition.needs, *needs):
                needed[each.namespace, each.name] = each
            if definition.key:
                needed[definition.key] = definition
            if form == LONG:
                form = PLAIN
            elif form == PICKLED:
                items = [_carried(payload) for payload in items]
            places = definition.places + places_of(needs) if needs else definition.places
            if (definition.key, form, places, settings.limits) == kind:
                groups[-1][4].extend(items)
            else:
                kind = definition.key, form, places, settings.limits
                groups.append((*kind, list(items)))
        return groups, list(needed.values())

    def size(self) -> int:
        """How many calls have not been answered."""
        return sum(task.size() for task in self.tasks)

    def position(self, whom: Any) -> int | None:
        """The number of this future's call here, or of the first of this job."""
        number = self.answered + 1
        for task in list(self.tasks):
            position = task.position(whom)
            if position is not None:
                return number + position
            number += task.size()
        return None

    def take(self, payload: Payload) -> tuple[list[Outcome], list[bytes]]:
        """Outcomes of its first calls, and what these have printed."""
        done: list[Outcome] = []
        printed: list[bytes] = []
        for number, flag, data, buffers in runs.outcomes(payload):
            if flag in runs.RUNS:
                data = data[max(self.answered + 1 - number, 0) :]  # the others were here before
            elif number <= self.answered or not self.tasks:
                continue
            elif flag == runs.PRINTED:
                self.tasks[0].printed(bytes(data))
                printed.append(bytes(data))
                continue
            left = len(data) if flag in runs.RUNS else 1
            while left and self.tasks:
                sink, index, count, complete = self.tasks[0].advance(left)
                self.answered += count
                part = data[-left : len(data) - left + count] if flag in runs.RUNS else data
                done.append((sink, index, flag, part, buffers))
                left -= count
                if complete:
                    self.tasks.popleft()
        return done, printed

    def give_back(self, count: int) -> list[Task]:
        """Its last `count` calls have not begun: the tasks to be put back, in their order."""
        return list(give_back(self.tasks, count))


def as_news(each: Any, data: Any = None) -> Item:
    """A definition or a global, as a worker takes it; with the data, or what stands for it."""
    if data is None:
        data = _carried(each.payload)
    if isinstance(each, GlobalValue):
        return each.namespace, each.name, each.version, data
    return each.key, None, 0, data


def _carried(payload: Payload) -> tuple[bytes, list[bytearray]]:
    # A bytearray arrives as one: whoever gets an array may write into it.
    return bytes(payload.head), [bytearray(buffer) for buffer in payload.buffers]


def name_of(task: Task) -> Any:
    """What a task calls."""
    definition = task.called()
    return None if definition is None else (definition.key, definition.name)


class Pace:
    """How long calls take, by what is called: how many of them make a batch."""

    SECONDS = 0.05  # that a batch is to take: some dozen times what a Dask task costs
    MOST = 5000  # calls in a batch

    def __init__(self) -> None:
        self._seconds: dict[Any, float] = {}
        self._seen: dict[Any, int] = {}  # calls that were measured

    def seconds(self, name: Any) -> float | None:
        """Of a call, as far as it is known."""
        return self._seconds.get(name)

    def trusted(self, name: Any) -> int:
        """How many calls may be out on the strength of what is known: more from time to time.

        The first that comes back may have been quick because it failed.
        """
        return 4 * self._seen.get(name, 0)

    def learn(self, names: set[Any], seconds: float, calls: int = 0) -> None:
        """A call of these took so long, as seen in so many."""
        for name in names:
            self._seen[name] = self._seen.get(name, 0) + calls
            before = self._seconds.get(name)
            # The geometric mean: a long call among short ones hardly changes it.
            self._seconds[name] = seconds if before is None else math.sqrt(before * seconds)
            if len(self._seconds) > 10_000:
                oldest = next(iter(self._seconds))
                del self._seconds[oldest]
                self._seen.pop(oldest, None)

    def limit(self, name: Any) -> int:
        """How many calls may be in a batch."""
        seconds = self._seconds.get(name)
        if seconds is None:
            return 1
        return max(1, min(self.MOST, self.trusted(name), int(self.SECONDS / max(seconds, 1e-9))))
