"""Where tasks wait: variables of a private workspace, from which workers fetch.

    the mailbox of its rank ─▶ priorities above 0 ─▶ TASKS ─▶ priorities below 0

A worker looks into them in this order. Tasks of each priority wait in a variable of their own. So
those of the default one, which are nearly all, cost nothing for it, and none is ever looked for a
place among the others. Tasks that wait for other tasks are held apart. Used under the server's
lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sleighexec.space import Space, Variable
from sleighexec.task import Task
from sleighexec.worker import TASKS, mailbox


class Lines:
    """The variables in which the tasks of one engine wait."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.workspace = space.private_workspace()
        self.tasks = space.variable(self.workspace, TASKS)  # of the default priority
        self.ranked: dict[int, Variable] = {}  # of the others, highest first
        self.boxes: list[Variable] = []  # by rank
        self.held: dict[Task, None] = {}  # tasks that wait for others to end

    def add_boxes(self, count: int) -> None:
        """See that there are mailboxes for so many ranks."""
        for rank in range(len(self.boxes), count):
            self.boxes.append(self._space.variable(self.workspace, mailbox(rank)))

    def variable_of(self, priority: int) -> Variable:
        """Where tasks of a priority wait."""
        if not priority:
            return self.tasks
        variable = self.ranked.get(priority)
        if variable is None:
            for old, each in list(self.ranked.items()):
                if not (each.values or each.lent or each.fetchers):
                    del self.ranked[old], self.workspace.variables[each.name]
            name = f"{TASKS}^{priority}"
            variable = self.ranked[priority] = self._space.variable(self.workspace, name)
            self.ranked = dict(sorted(self.ranked.items(), reverse=True))
        return variable

    def any_ranked(self) -> bool:
        """Whether tasks with a priority of their own wait."""
        return any([variable.values for variable in self.ranked.values()])

    def order(self, rank: int) -> tuple[str, ...]:
        """The names of the variables that the worker of a rank is to look into, in this order."""
        lines = [(priority, v.name) for priority, v in self.ranked.items() if v.values]
        before = [name for priority, name in lines if priority > 0]
        behind = [name for priority, name in lines if priority < 0]
        return (mailbox(rank), *before, TASKS, *behind)

    def shared(self) -> Iterator[Variable]:
        """All that any worker may fetch from."""
        yield self.tasks
        yield from self.ranked.values()

    def waiting(self) -> bool:
        """Whether a task waits for a worker, or for others first."""
        waits = bool(self.tasks.values) or any(box.values for box in self.boxes)
        return waits or bool(self.held) or self.any_ranked()

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
