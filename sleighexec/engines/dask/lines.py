"""What waits for any worker: a line of tasks for each priority, and what is next of them."""

from __future__ import annotations

from collections import deque

from sleighexec.engines.dask.batch import Pace, name_of
from sleighexec.functions import weight
from sleighexec.resources import Needs
from sleighexec.task import BATCH_BYTES, Task

Name = tuple[int, Needs]  # priority, and what a worker must have


class Lines:
    """Tasks in lines; true if there are any."""

    def __init__(self) -> None:
        self._lines: dict[Name, deque[Task]] = {}
        self._calls: dict[Name, int] = {}  # in each

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def names(self) -> list[Name]:
        """The lines in which tasks wait, in the order in which they are served."""
        return [name for name, line in self._lines.items() if line]

    def waits(self, name: Name) -> bool:
        """Whether a task waits in this line."""
        return bool(self._lines.get(name))

    def calls(self, name: Name) -> int:
        """How many calls wait in this line."""
        return self._calls[name]

    def add(self, name: Name, tasks: list[Task]) -> None:
        """At the end of a line."""
        self._line(name).extend(tasks)
        self._calls[name] += sum(task.size() for task in tasks)

    def put_first(self, name: Name, tasks: list[Task]) -> None:
        """At its head."""
        self._line(name).extendleft(reversed(tasks))
        self._calls[name] += sum(task.size() for task in tasks)

    def take_all(self) -> list[Task]:
        """Whatever waits."""
        taken = [task for line in self._lines.values() for task in line]
        self._lines, self._calls = {}, {}
        return taken

    def cut_off(
        self, name: Name, pace: Pace, slots: int, out: int | None
    ) -> tuple[list[Task], float]:
        """What is to travel together next, and the seconds that it may take.

        Unless `out` is None, only what is known to be short, when so many calls are out already.
        """
        tasks, seconds, taken = _cut_off(self._lines[name], pace, slots, out)
        self._calls[name] -= taken
        return tasks, seconds

    def _line(self, name: Name) -> deque[Task]:
        if name not in self._lines:
            lines = {each: line for each, line in self._lines.items() if line}
            lines[name] = deque()
            self._calls = {each: self._calls.get(each, 0) for each in lines}
            # What few workers have comes before what all have.
            self._lines = dict(
                sorted(lines.items(), key=lambda line: (-line[0][0], not line[0][1]))
            )
        return self._lines[name]


def _cut_off(
    line: deque[Task], pace: Pace, slots: int, out: int | None
) -> tuple[list[Task], float, int]:
    """Take from a line what is to travel together; and how many calls it has less then."""
    tasks: list[Task] = []
    seconds, size, count, taken = 0.0, 0, 0, 0
    share = max(1, len(line) // (2 * max(slots, 1)))  # that leaves something for everybody
    while line:
        name = name_of(line[0])
        each = pace.seconds(name)
        if tasks and (each is None or seconds + each > pace.SECONDS or size > BATCH_BYTES):
            break
        if out is not None and (each is None or each > pace.SECONDS or out >= pace.trusted(name)):
            break
        if tasks and len(tasks) >= share:
            break
        task = line.popleft()
        taken += task.size()
        part, rest = task.begin(max(1, pace.limit(name) - count))
        if rest is not None:
            line.appendleft(rest)
            taken -= rest.size()
        if part is None:  # it was cancelled meanwhile
            continue
        tasks.append(part)
        _, _, form, items, _ = part.parts()
        count += len(items)
        size += sum([weight(form, item) for item in items])
        seconds += (each or pace.SECONDS) * len(items)
        if rest is not None or count >= pace.MOST:
            break
    return tasks, seconds, taken
