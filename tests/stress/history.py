"""What clients did to a workspace, written down so that it outlives them, and what must be true.

A client writes a line before each operation and one after it. The clock is the machine's monotonic
one, which all its processes share. An operation without its second line was cut short.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stress.linear import BACK, LOOK, STORE, TAKE, TOOK, UNDID, Step, linearizable

Modes = dict[str, str]  # of variables
FETCH, FIND, BORROW, SETTLE, GIVE_BACK = "fetch", "find", "borrow", "settle", "give back"
ROOTS = (STORE, FETCH, FIND, BORROW)  # settle and give back belong to a borrow


@dataclass
class Operation:
    """One call of a client. `value`: stored, or answered; None: there was nothing."""

    client: str
    kind: str
    variable: str
    value: str | None
    start: float
    end: float = math.inf  # it was cut short

    @property
    def whole(self) -> bool:
        return self.end < math.inf


class Recorder:
    """Writes a client's operations into a file of its own, each line at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def close(self) -> None:
        os.close(self._file)

    def __call__(self, kind: str, variable: str, value: str | None, work: Callable[[], Any]) -> Any:
        """Do it, and write down what came of it: a result that is a str is the answer."""
        self._write(kind, variable, value, time.monotonic())
        result = work()
        answer = result if isinstance(result, str) else getattr(result, "value", None)
        self._write(answer, time.monotonic())
        return result

    def _write(self, *fields: Any) -> None:
        os.write(self._file, json.dumps(fields).encode() + b"\n")


def read(path: Path) -> list[Operation]:
    """The operations of one client."""
    found: list[Operation] = []
    for line in path.read_bytes().splitlines():
        fields = json.loads(line)
        if len(fields) == 4:
            found.append(Operation(path.stem, *fields))
        else:
            answer, found[-1].end = fields
            found[-1].value = found[-1].value if answer is None else answer
    return found


@dataclass
class History:
    """All that clients did to one workspace, until it was empty at `over`."""

    modes: Modes
    over: float = math.inf
    operations: dict[str, list[Operation]] = field(default_factory=dict)  # by client, in order

    def add(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            self.operations.setdefault(operation.client, []).append(operation)

    def __iter__(self) -> Iterator[Operation]:
        for operations in self.operations.values():
            yield from operations

    # ------------------------------------------------------------------ what must be true

    def check(self) -> None:
        """Raise AssertionError, with what is wrong, if something cannot have happened."""
        self.check_values()
        for variable, mode in self.modes.items():
            steps = list(self.steps(variable))
            assert linearizable(steps, mode), "\n".join(
                [f"no order explains what happened to the {mode} {variable!r}:"]
                + [str(step) for step in sorted(steps, key=lambda step: step.start)]
            )

    def check_values(self) -> None:
        """Nothing lost, nothing twice, nothing from nowhere: of the whole history at once."""
        for variable, mode in self.modes.items():
            mine = [each for each in self if each.variable == variable]
            tried = {each.value for each in mine if each.kind == STORE}
            stored = {each.value for each in mine if each.kind == STORE and each.whole}
            back = {value for step in self.steps(variable) for value in step.back}
            taken = Counter(
                each.value
                for each in mine
                if each.kind in (FETCH, BORROW) and each.whole and each.value is not None
            )
            for operation in mine:
                if operation.whole and operation.value is not None:
                    assert operation.value in tried, f"from nowhere into {variable!r}: {operation}"
            twice = {value for value, count in taken.items() if count > 1 and value not in back}
            assert not twice, f"taken twice from the {mode} {variable!r}: {sorted(twice)}"
            cut_short = sum(
                each.kind in (FETCH, BORROW, SETTLE) and not each.whole for each in mine
            )
            lost = stored - set(taken)
            if mode != "single":  # which forgets values
                assert len(lost) <= cut_short, f"lost from the {mode} {variable!r}: {sorted(lost)}"

    def steps(self, variable: str) -> Iterator[Step]:
        """The history of one variable, as the checker takes it."""
        cut_short = 0
        for operations in self.operations.values():
            kept: list[str] = []
            for each in operations:
                if each.variable != variable or each.kind not in ROOTS:
                    continue
                if each.kind == STORE:
                    yield Step(STORE, each.value, each.start, each.end, each.whole)
                elif each.kind == FIND:
                    if each.whole:
                        yield Step(LOOK, each.value, each.start, each.end)
                elif not each.whole:
                    cut_short += 1
                    for kind in (TOOK, UNDID):
                        yield Step(kind, None, each.start, self.over, False, cut_short)
                else:
                    yield Step(TAKE, each.value, each.start, each.end)
                    if each.kind == BORROW and each.value is not None:
                        end = self._end_of(each, operations)
                        if end is None:
                            kept.append(each.value)
                        else:
                            yield from self._back(each.value, end)
            if kept:  # to the end of their borrower, when they all came back at once
                last = operations[-1].start
                yield Step(BACK, None, last, self.over, back=tuple(kept))

    @staticmethod
    def _end_of(loan: Operation, operations: list[Operation]) -> Operation | None:
        """How the borrower ended a loan; None: not at all."""
        for each in operations:
            ends = each.kind in (SETTLE, GIVE_BACK) and each.value == loan.value
            if ends and each.start > loan.start:
                return each
        return None

    def _back(self, value: str, end: Operation) -> Iterator[Step]:
        """The value comes back if it was given back; or, perhaps, if settling it was cut short."""
        if end.kind == GIVE_BACK:
            yield Step(BACK, None, end.start, min(end.end, self.over), back=(value,))
        elif not end.whole:
            yield Step(BACK, None, end.start, self.over, sure=False, back=(value,))
