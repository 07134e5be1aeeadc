"""Where tasks wait: variables of a private workspace, from which workers fetch.

    the mailbox of its rank ─▶ priorities above 0 ─▶ TASKS ─▶ priorities below 0

A worker looks into them in this order. Tasks of each priority wait in a variable of their own, and
so do those that need the same; into these only workers look that have it, before those of the same
priority. So tasks that need nothing and have the default priority, which are nearly all, cost
nothing for it, and none is ever looked for a place among the others. Tasks that wait for other
tasks are held apart. Used under the server's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sleighexec.messages import Payload
from sleighexec.resources import Needs, satisfies
from sleighexec.space import Effects, Space, Variable
from sleighexec.task import Task
from sleighexec.worker import TASKS, mailbox

Offer = Mapping[str, int]  # what a worker has
Line = tuple[int, Needs]  # the priority of tasks and what they need


class Lines:
    """The variables in which the tasks of one engine wait."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.workspace = space.private_workspace()
        self.tasks = space.variable(self.workspace, TASKS)  # of the default priority, and no needs
        self.ranked: dict[Line, Variable] = {}  # of the others, in the order of workers
        self.boxes: list[Variable] = []  # by rank
        self.held: dict[Task, None] = {}  # tasks that wait for others to end

    def add_boxes(self, count: int) -> None:
        """See that there are mailboxes for so many ranks."""
        for rank in range(len(self.boxes), count):
            self.boxes.append(self._space.variable(self.workspace, mailbox(rank)))

    def variable_of(self, priority: int, needs: Needs = ()) -> Variable:
        """Where tasks of a priority wait that need the same."""
        line = priority, needs
        if line == (0, ()):
            return self.tasks
        variable = self.ranked.get(line)
        if variable is None:
            for old, each in list(self.ranked.items()):
                if not (each.values or each.lent or each.fetchers):
                    del self.ranked[old], self.workspace.variables[each.name]
            name = f"{TASKS}^{priority}" + "".join(f" {name!r}={count}" for name, count in needs)
            variable = self.ranked[line] = self._space.variable(self.workspace, name)
            # What few workers have comes before what all have.
            in_order = sorted(self.ranked.items(), key=lambda item: (-item[0][0], not item[0][1]))
            self.ranked = dict(in_order)
        return variable

    def any_ranked(self) -> bool:
        """Whether tasks with a priority or needs of their own wait."""
        return any([variable.values for variable in self.ranked.values()])

    def any_for(self, offer: Offer) -> bool:
        """Whether one of these can run on a worker that has this."""
        return any(v.values and satisfies(offer, needs) for (_, needs), v in self.ranked.items())

    def order(self, rank: int, offer: Offer) -> tuple[str, ...]:
        """The names of the variables that the worker of a rank is to look into, in this order."""
        before: list[str] = []
        behind: list[str] = []
        for (priority, needs), variable in self.ranked.items():
            if variable.values and satisfies(offer, needs):
                first = priority > 0 or (priority == 0 and needs)
                (before if first else behind).append(variable.name)
        return (mailbox(rank), *before, TASKS, *behind)

    def wanted(
        self, free: Sequence[int], coming: Sequence[int], offer: Callable[[int], Offer]
    ) -> list[int]:
        """Which of the free ranks are to have a worker, for what nobody is there to take.

        `coming`: ranks whose workers are about to look into the lines.
        """
        coming, rest = list(coming), list(free)
        chosen: list[int] = []
        plain = 0  # calls that any worker can run
        for needs, variable in [((), self.tasks), *((k[1], v) for k, v in self.ranked.items())]:
            count = sum(size(value) for value in islice(variable.values, len(free) + len(coming)))
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
        for (_, needs), variable in self.ranked.items():
            if needs and variable.values and not fit(needs):
                while variable.values:
                    yield needs, variable.values.popleft()

    def length(self) -> int:
        """How many tasks wait for any worker."""
        return len(self.tasks.values) + sum([len(each.values) for each in self.ranked.values()])

    def give_back(self, number: int, count: int) -> Effects:
        """The last calls of a loan have not begun: they are first in line again."""
        loan = self._space.loan(number)
        assert loan is not None
        whole, cut = 0, []
        for task in reversed(loan.values):
            if count <= 0:
                break
            calls = task.size()
            if calls <= count:
                whole += 1
                task.give_back()
            else:
                _, part = task.split(count)
                cut.append(part)
            count -= calls
        # The cut-off end of one stands before those that went back whole: put them in first.
        effects = self._space.give_back(loan.number, whole)
        if cut:
            effects += self._space.put_first(loan.variable, cut)
        return effects

    def count(self) -> int:
        """How many calls wait for a worker."""
        variables = self.tasks, *self.ranked.values(), *self.boxes
        return sum(size(value) for variable in variables for value in variable.values)

    def waiting(self) -> bool:
        """Whether a task waits for a worker, or for others first."""
        waits = bool(self.tasks.values) or any(box.values for box in self.boxes)
        return waits or bool(self.held) or self.any_ranked()

    def drop_ended(self) -> None:
        """Take out what has ended while it waited, which else is seen when a worker begins it."""
        for variable in (self.tasks, *self.ranked.values(), *self.boxes):
            left = [value for value in variable.values if _still_waits(value)]
            variable.values.clear()
            variable.values.extend(left)

    def take(self, spare: int = 0) -> list[Task]:
        """Take out everything that waits, but for the first `spare` tasks of the default line."""
        values = self.tasks.values
        taken: list[Any] = [values.pop() for _ in range(len(values) - spare)][::-1]
        for box in (*self.ranked.values(), *self.boxes):
            taken += box.values
            box.values.clear()
        taken += self.held
        self.held.clear()
        return taken


def _still_waits(value: Any) -> bool:
    return type(value) is Payload or value.called() is not None


def divide(value: Any, limit: int) -> tuple[Any, Any]:
    """How the space is to divide what waits: see `sleighexec.space.Space`."""
    return (value, None) if type(value) is Payload else value.begin(limit)


def size(value: Any) -> int:
    """How many calls wait in one value."""
    count: int = 1 if type(value) is Payload else value.size()
    return count
