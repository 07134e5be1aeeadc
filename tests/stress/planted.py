"""Bugs on purpose, of the kind that only shows under load: the stress checks must find each.

SPACES are put in the place of the space of a server. WORKERS are statements that run in the process
of an agent, before it makes its first worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sleighexec.launchers.base import Handle
from sleighexec.launchers.local import Local
from sleighexec.messages import Fetch
from sleighexec.space import Space


class LosesALoanWhenItsHolderVanishes(Space):
    """What the fetch of a killed client took is gone."""

    def disconnect(self, client: Any, begun: int | None = None) -> Any:
        for loan in list(self.loans(client)):
            self.settle(loan.number, len(loan.values))
        return super().disconnect(client, begun)


class LosesAValueNowAndThen(Space):
    """One store in fifty is said to be done and is not."""

    stored = 0

    def put(self, variable: Any, values: Any) -> Any:
        self.stored += 1
        return [] if self.stored % 50 == 0 else super().put(variable, values)


class GivesAValueTwiceNowAndThen(Space):
    """One fetch in fifty leaves its value where it was."""

    taken = 0

    def _take(self, client: Any, request: Any, variable: Any) -> Any:
        before = list(variable.values)
        reply = super()._take(client, request, variable)
        self.taken += type(request) is Fetch
        if type(request) is Fetch and self.taken % 50 == 0:
            variable.values.clear()
            variable.values.extend(before)
        return reply


class ServesAFetcherBeforeAFinder(Space):
    def _serve(self, variable: Any) -> Any:
        variable.finders, variable.fetchers = variable.fetchers, variable.finders
        try:
            return super()._serve(variable)
        finally:
            variable.finders, variable.fetchers = variable.fetchers, variable.finders


def turn_around(line: Any) -> None:
    """The last in line is the first."""
    for waiter in reversed(list(line)):
        line.move_to_end(waiter)


class ServesTheNewestFetcherFirst(Space):
    def _serve(self, variable: Any) -> Any:
        turn_around(variable.fetchers)
        try:
            return super()._serve(variable)
        finally:
            turn_around(variable.fetchers)


class ReturnsLoansToTheEnd(Space):
    """What comes back is last in line."""

    def _return(self, variable: Any, values: Any, index: int) -> Any:
        return [] if variable.deleted else self.put(variable, list(values))


class SwapsNeighboursNowAndThen(Space):
    """A queue of three or more gives its second value first."""

    def _position(self, variable: Any) -> int:
        if variable.mode == "fifo" and len(variable.values) > 2:
            return 1
        return super()._position(variable)


class AnswersFromThePast(Space):
    """A value that was replaced is found once more."""

    def _drop_oldest(self, variable: Any, count: int) -> None:
        if len(variable.values) > 1:
            super()._drop_oldest(variable, count)


class TimesOutWithAValueThere(Space):
    """One fetch in twenty says that there is nothing."""

    asked = 0

    def _take(self, client: Any, request: Any, variable: Any) -> Any:
        self.asked += 1
        return None if self.asked % 20 == 0 else super()._take(client, request, variable)


SPACES = [
    each for each in list(globals().values()) if isinstance(each, type) and each.__base__ is Space
]

# An agent that takes a worker for stopped at once: to wait five seconds each time takes long.
IMPATIENT = """
import sleighexec.agent
sleighexec.agent.HALT_SECONDS = 0.02
"""

# A worker whose helper is slow to tell what it gives back: that is to harm nobody.
SLOW_TO_RETURN = """
import time
from sleighexec.worker import Worker
was = Worker._return
def late(self, calls):
    time.sleep(0.01)
    was(self, calls)
Worker._return = late
"""

# Statements for the process of the agent, run before its first fork.
WORKERS = {
    "a worker that answers a call twice": """
from sleighexec.outcomes import Outcomes
was, written = Outcomes.write_result, []
def twice(self, result):
    written.append(None)
    if len(written) % 20 == 0:
        was(self, result)
    return was(self, result)
Outcomes.write_result = twice
""",
    "a worker that swaps two results": """
from sleighexec.outcomes import Outcomes
was, kept = Outcomes._standing, []
def swapped(self, result):
    kept.append(was(self, result))
    if len(kept) % 30 == 0 and kept[-1][1] and kept[-2][1]:
        return kept[-2]
    return kept[-1]
Outcomes._standing = swapped
""",
    "a worker that gives back one call too few": """
from sleighexec.worker import Worker
was = Worker._lined_up
def fewer(self):
    return {loan: count - 1 for loan, count in was(self).items() if count > 1}
Worker._lined_up = fewer
""",
    "a journal that is read off by one": """
from sleighexec.journal import Journal
was = Journal.read
def late(self):
    records, begun = was(self)
    return records, begun - 1
Journal.read = late
""",
    "a journal whose records nobody reads": """
from sleighexec.journal import Journal
was = Journal.read
Journal.read = lambda self: (b"", was(self)[1])
""",
    "a worker that has stood still and asks nobody": IMPATIENT
    + """
from sleighexec.worker import Worker
def always(self, group, number):
    self._halt = self._words[4]
    return True
Worker._is_ours = always
""",
}


@dataclass(frozen=True)
class Planting:
    """A launcher of agents that are broken on purpose."""

    statements: str
    workers: int | None = None

    def launch(self, command: list[str], environ: dict[str, str]) -> Handle:
        command = list(command)
        program = command.index("-c") + 1
        before, main = command[program].rsplit("main()", 1)
        command[program] = f"{before}exec({self.statements!r}); main(){main}"
        return Local().launch(command, environ)
