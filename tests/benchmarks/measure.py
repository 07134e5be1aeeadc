"""A measure: contenders that do the same thing in turns, and what is claimed of the outcome.

    contender ─▶ opened ─▶ sample() ─▶ {figure: number}      one round: a sample of each contender
    samples of all rounds ─▶ Line: ours, theirs, "times better" within the rounds, goal reached?

"Times better" is theirs / ours for what should be little and ours / theirs for what should be
much, always of one round: what else the machine does then hits both. The order within a round
changes from round to round, so that nobody always comes behind the same neighbour.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

OURS = "sleighexec"
PPE = "ProcessPoolExecutor"
TIMES = "times better"

Sample = Callable[[], Mapping[str, float]]
Opener = Callable[[], AbstractContextManager[Sample]]


@dataclass(frozen=True)
class Goal:
    """A claim, with the number that it has in the list of goals (None: it is not in there).

    `against` a contender: at least `floor` times better than it. None: the figure itself is at
    least (at most, if less is better) `floor`.
    """

    number: int | None
    floor: float
    against: str | None = PPE
    of: str = OURS


@dataclass(frozen=True)
class Above(Goal):
    """A claim: the figure is at most `floor` above that of `against`, in its own unit."""


@dataclass(frozen=True)
class Row:
    """A figure that each sample gives under this name.

    `what` is measured, in which `unit`; whether `more` is better; the goals.
    """

    figure: str
    what: str
    unit: str
    more: bool
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True)
class Measure:
    """What is measured together, over so many `rounds`, and by which contenders.

    Contenders are opened in the order of the mapping; those that fork come first, as long as
    there is little to inherit. `ours` are compared with all others. If it `warms` up, a round
    comes before the first one that counts.
    """

    name: str
    rows: tuple[Row, ...]
    contenders: Mapping[str, Opener]
    rounds: int
    ours: tuple[str, ...] = (OURS,)
    warms: bool = True


Samples = dict[str, list[Mapping[str, float]]]


def run(measure: Measure) -> Samples:
    """All samples of all contenders, round by round; everything is closed again."""
    names = list(measure.contenders)
    samples: Samples = {name: [] for name in names}
    with ExitStack() as stack:
        ready = {name: stack.enter_context(open_()) for name, open_ in measure.contenders.items()}
        for number in range(-1 if measure.warms else 0, measure.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                gc.collect()
                figures = ready[name]()
                if number >= 0:
                    samples[name].append(figures)
    return samples


@dataclass(frozen=True)
class Line:
    """One of ours beside one of theirs (None: nobody), and what is claimed of that.

    `figures`, one for each round: times better; or the unit's, if `shows` says so. `bound` is the
    claim in words; `reached` is None if nothing is claimed, or nobody is there to compare with.
    """

    goal: int | None
    of: str
    ours: float
    against: str | None
    theirs: float | None
    shows: str
    figures: Sequence[float]
    bound: str = ""
    reached: bool | None = None


def lines(measure: Measure, row: Row, samples: Samples) -> list[Line]:
    """A line for each goal, and for each pair of contenders that no goal names."""
    got = {
        name: [figures[row.figure] for figures in rounds]
        for name, rounds in samples.items()
        if row.figure in rounds[0]
    }
    goals = [goal for goal in row.goals if goal.of in got]
    named = {(goal.of, goal.against) for goal in goals}
    others = [
        Goal(None, 0, name, of)
        for of in measure.ours
        for name in got
        if of in got and name not in measure.ours and (of, name) not in named
    ]
    return [_line(goal, row, got) for goal in (*goals, *others)]


def _line(goal: Goal, row: Row, got: Mapping[str, list[float]]) -> Line:
    ours = got[goal.of]
    theirs = got.get(goal.against or "", [])
    if goal.against is None:
        shows, figures, more = row.unit, ours, row.more
    elif isinstance(goal, Above):
        shows, figures, more = row.unit, [a - b for a, b in zip(ours, theirs)], False
    else:
        pairs = zip(ours, theirs)
        shows, more = TIMES, True
        figures = [a / b if row.more else b / a for a, b in pairs]
    bound = f"{'≥' if more else '≤'} {goal.floor:g}{_suffix(goal, row)}" if goal.floor else ""
    reached = None
    if bound and figures:
        median = statistics.median(figures)
        reached = median >= goal.floor if more else median <= goal.floor
    return Line(
        goal.number,
        goal.of,
        statistics.median(ours),
        goal.against,
        statistics.median(theirs) if theirs else None,
        shows,
        figures,
        bound,
        reached,
    )


def _suffix(goal: Goal, row: Row) -> str:
    if isinstance(goal, Above):
        return f" {row.unit} more"
    return " ×" if goal.against is not None else f" {row.unit}".rstrip()
