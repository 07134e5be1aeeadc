"""Where tasks wait, and in which order workers get them.

    the mailbox of its rank ─▶ priorities above 0 ─▶ all others ─▶ priorities below 0

A worker looks into these lines in this order. Tasks of each priority stand in a line of their own,
and so do those that need the same; into these only workers look that have it, before those of the
same priority. So tasks that need nothing and have the default priority, which are nearly all, cost
nothing for it, and none is ever looked for a place among the others. Tasks that wait for other
tasks are held apart. Used under the server's lock, but for one thing: who submits appends to the
usual line without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from sleighexec.resources import Needs, satisfies
from sleighexec.task import Task, give_back

Offer = Mapping[str, int]  # what a worker has
Kind = tuple[int, Needs]  # the priority of tasks and what they need


class Line:
    """Tasks that wait, first to last, and how many loans of them are out."""

    __slots__ = ("lent", "tasks")

    def __init__(self) -> None:
        self.tasks: deque[Task] = deque()
        self.lent = 0

    def take(self, most: int, others: int) -> deque[Task]:
        """The next tasks begin, for a worker that wants at most so many calls.

        `others`: workers that wait for more. Nobody takes more than a fair share: these wait, and
        those that have a loan will come back for more.
        """
        tasks = self.tasks
        taken: deque[Task] = deque()
        count = 1
        if most > 1 and len(tasks) > 1:
            count = max(1, min(most, len(tasks) // (1 + others + self.lent)))
        while tasks and most > 0:
            part, rest = tasks[0].begin(most)
            if rest is None:
                tasks.popleft()
            else:
                tasks[0] = rest
            if part is not None:
                taken.append(part)
                if rest is not None or len(taken) == count:
                    break
                most -= part.size()
        return taken

    def calls(self) -> int:
        """How many calls these are."""
        return sum([task.size() for task in [*self.tasks]])  # a copy: others may append meanwhile

    def first_calls(self, most: int) -> int:
        """How many calls the first tasks are, which are so many at most."""
        tasks = self.tasks  # no iterator: others may append meanwhile
        return sum([tasks[place].size() for place in range(min(most, len(tasks)))])

    def put_first(self, tasks: Sequence[Task]) -> None:
        """These stand before all others, in their order."""
        self.tasks.extendleft(reversed(tasks))


class Loan:
    """Tasks that a worker has, oldest first, and the line in which they stood."""

    __slots__ = ("line", "number", "tasks")

    def __init__(self, number: int, line: Line, tasks: deque[Task]) -> None:
        self.number, self.line, self.tasks = number, line, tasks

    def give_back(self, count: int) -> None:
        """The last calls have not begun: they are first in line again."""
        self.line.put_first(give_back(self.tasks, count))


class Lines:
    """The lines in which the tasks of one engine wait."""

    def __init__(self) -> None:
        self.usual = Line()  # of the default priority, and no needs
        self.ranked: dict[Kind, Line] = {}  # of the others, in the order of workers
        self.boxes: list[Line] = []  # by rank
        self.held: dict[Task, None] = {}  # tasks that wait for others to end

    def add_boxes(self, count: int) -> None:
        """See that there are mailboxes for so many ranks."""
        for _ in range(len(self.boxes), count):
            self.boxes.append(Line())

    def line_of(self, priority: int, needs: Needs = ()) -> Line:
        """Where tasks of a priority wait that need the same."""
        kind = priority, needs
        if kind == (0, ()):
            return self.usual
        line = self.ranked.get(kind)
        if line is None:
            in_use = {k: each for k, each in self.ranked.items() if each.tasks or each.lent}
            line = in_use[kind] = Line()
            # What few workers have comes before what all have.
            in_order = sorted(in_use.items(), key=lambda item: (-item[0][0], not item[0][1]))
            self.ranked = dict(in_order)
        return line

    def any_ranked(self) -> bool:
        """Whether tasks with a priority or needs of their own wait."""
        return any([line.tasks for line in self.ranked.values()])

    def any_for(self, offer: Offer) -> bool:
        """Whether one of these can run on a worker that has this."""
        return any(v.tasks and satisfies(offer, needs) for (_, needs), v in self.ranked.items())

    def next_for(self, rank: int, offer: Callable[[int], Offer]) -> Line | None:
        """Where the next task for the worker of a rank stands; None: there is none."""
        box = self.boxes[rank]
        if box.tasks:
            return box
        behind = None
        if self.ranked:
            has = offer(rank)
            for (priority, needs), line in self.ranked.items():
                if line.tasks and satisfies(has, needs):
                    if priority > 0 or (priority == 0 and needs):
                        return line
                    behind = behind or line
        return self.usual if self.usual.tasks else behind

    def is_open(self, line: Line, offer: Offer) -> bool:
        """Whether a worker that has this may take what is in a line, if that is no mailbox."""
        if line is self.usual:
            return True
        return any(satisfies(offer, n) for (_, n), each in self.ranked.items() if each is line)

    def wanted(
        self, free: Sequence[int], coming: Sequence[int], offer: Callable[[int], Offer]
    ) -> list[int]:
        """Which of the free ranks are to have a worker, for what nobody is there to take.

        `coming`: ranks whose workers are about to look into the lines.
        """
        coming, rest = list(coming), list(free)
        chosen: list[int] = []
        plain = 0  # calls that any worker can run
        for needs, line in [((), self.usual), *((k[1], v) for k, v in self.ranked.items())]:
            count = line.first_calls(len(free) + len(coming))
            if not needs:
                plain += count
                continue
            for ranks in (coming, rest):  # each of them for one call only
                able = [rank for rank in ranks if satisfies(offer(rank), needs)][:count]
                count -= len(able)
                if ranks is rest:
                    chosen += able
                ranks[:] = [rank for rank in ranks if rank not in able]
        return chosen + rest[: max(plain - len(coming), 0)]

    def unfit(self, fit: Callable[[Needs], bool]) -> Iterator[tuple[Needs, Task]]:
        """Take out the tasks whose needs nobody can satisfy any more."""
        for (_, needs), line in self.ranked.items():
            if needs and line.tasks and not fit(needs):
                while line.tasks:
                    yield needs, line.tasks.popleft()

    def length(self) -> int:
        """How many tasks wait for any worker."""
        return len(self.usual.tasks) + sum([len(each.tasks) for each in self.ranked.values()])

    def count(self) -> int:
        """How many calls wait for a worker."""
        return sum([line.calls() for line in self._all()])

    def waiting(self) -> bool:
        """Whether a task waits for a worker, or for others first."""
        return bool(self.held) or any([line.tasks for line in self._all()])

    def drop_ended(self) -> None:
        """Take out what has ended while it waited, which else is seen when a worker begins it."""
        for line in self._all():
            for _ in range(len(line.tasks)):
                task = line.tasks.popleft()
                if task.called() is not None:
                    line.tasks.append(task)

    def take(self, spare: int = 0) -> list[Task]:
        """Take out everything that waits, but for the first `spare` calls of the usual line."""
        usual = self.usual.tasks
        kept: deque[Task] = deque()
        while usual and spare > 0:
            task = usual.popleft()
            if (more := task.size() - spare) > 0:
                task, rest = task.split(more)
                usual.appendleft(rest)
            spare -= task.size()
            kept.append(task)
        taken = []
        while usual:  # others may append meanwhile
            taken.append(usual.popleft())
        usual.extendleft(reversed(kept))
        for line in (*self.ranked.values(), *self.boxes):
            taken += line.tasks
            line.tasks.clear()
        taken += self.held
        self.held.clear()
        return taken

    def _all(self) -> tuple[Line, ...]:
        return self.usual, *self.ranked.values(), *self.boxes
