"""Is a history of one variable linearizable: does some order of its operations explain it?

The search of Wing and Gong, with the states that led nowhere remembered (Lowe): take an operation
that began before every other one ended, ask the model whether its answer fits, go on with the rest.

An operation whose client was killed may have happened or not, at any time after it began. A fetch
that was cut short may also have taken a value and lost it again: the value comes back by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

STORE, TAKE, LOOK, BACK = "store", "take", "look", "back"
TOOK, UNDID = "took?", "undid?"  # a cut-short fetch took something unknown; it came back

MOST_STEPS = 300_000  # of one search, before it gives up

Values = tuple[str, ...]
Hands = frozenset[tuple[int, str]]  # what cut-short fetches took: number of the fetch, value
State = tuple[Values, Hands]


@dataclass(frozen=True)
class Step:
    """Something that happened to one variable at some moment between `start` and `end`."""

    kind: str
    value: str | None  # stored, come back, or answered; None: the answer was that there is nothing
    start: float
    end: float
    sure: bool = True  # it has happened
    fetch: int = 0  # of TOOK and UNDID: which cut-short fetch
    back: tuple[str, ...] = ()  # of BACK: what came back at once, oldest loan first

    def __str__(self) -> str:
        sure = "" if self.sure else " (perhaps)"
        return f"{self.kind} {self.value or self.back}{sure} [{self.start:.6f}, {self.end:.6f}]"


class UndecidedError(Exception):
    """The search took too long."""


def after(mode: str, state: State, step: Step) -> Iterator[State]:
    """What the variable may be like after this step; nothing if its answer is impossible."""
    values, hands = state
    kind, value = step.kind, step.value
    if kind == STORE:
        assert value is not None
        yield ((value,) if mode == "single" else _sorted(mode, (*values, value))), hands
    elif kind == BACK:
        for each in reversed(step.back):
            values = _returned(mode, values, each)
        yield values, hands
    elif kind == UNDID:
        for held in hands:
            if held[0] == step.fetch:
                yield _returned(mode, values, held[1]), hands - {held}
    elif kind == TOOK:
        for position in _next(mode, values):
            rest = values[:position] + values[position + 1 :]
            yield rest, hands | {(step.fetch, values[position])}
    elif value is None:
        if not values:
            yield state
    else:
        for position in _next(mode, values):
            if values[position] == value:
                rest = values[:position] + values[position + 1 :]
                yield (rest if kind == TAKE else values), hands
                return


def _next(mode: str, values: Values) -> Iterable[int]:
    """The positions of the values that may be next."""
    if mode == "multi":
        return range(len(values))
    if not values:
        return ()
    return (len(values) - 1,) if mode == "lifo" else (0,)


def _returned(mode: str, values: Values, value: str) -> Values:
    if mode == "single" and values:
        return values  # a newer one has taken its place
    return (*values, value) if mode == "lifo" else _sorted(mode, (value, *values))


def _sorted(mode: str, values: Values) -> Values:
    return tuple(sorted(values)) if mode == "multi" else values


def linearizable(steps: Iterable[Step], mode: str) -> bool:
    """Whether some order of the steps, each within its time, explains all of them.

    Raises:
        UndecidedError: Too many orders had to be tried.
    """
    ordered = sorted(steps, key=lambda step: (step.start, step.end))
    needed_at = [_needed(step, ordered) for step in ordered]
    needed = sum(1 << number for number, step in enumerate(ordered) if step.sure)
    start: tuple[int, State] = (0, ((), frozenset()))
    stack, seen, tried = [start], {start}, 0
    while stack:
        done, state = stack.pop()
        if done & needed == needed:
            return True
        tried += 1
        if tried > MOST_STEPS:
            raise UndecidedError(f"{len(ordered)} steps of a {mode}")
        found = []
        for number in _possible(ordered, done):
            step = ordered[number]
            for new_state in after(mode, state, step):
                new = done | 1 << number, new_state
                if new not in seen:
                    seen.add(new)
                    # What may not have happened at all can wait, and so can what nobody needs yet.
                    found.append(((step.sure, -needed_at[number], -number), new))
        stack += [new for _, new in sorted(found, key=lambda pair: pair[0])]
    return False


def _needed(step: Step, steps: list[Step]) -> float:
    """When a step was done at the latest, as it seems: when its value was seen."""
    values = step.back or (step.value,)
    if step.kind not in (STORE, BACK):
        return step.end
    seen = (
        other.end
        for other in steps
        if other.kind in (TAKE, LOOK) and other.value in values and other.end > step.start
    )
    return min(step.end, next(iter(sorted(seen)), math.inf))


def _possible(steps: list[Step], done: int) -> Iterator[int]:
    """The steps that may come next: none that is sure and not done ended before they began."""
    first = (~done & (done + 1)).bit_length() - 1
    end = math.inf
    for number in range(first, len(steps)):
        if done >> number & 1:
            continue
        step = steps[number]
        if step.start > end:
            return
        yield number
        if step.sure:
            end = min(end, step.end)
