"""The lines in which tasks wait, and the loans by which workers have them."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleighexec.engines.lines import Line, Lines, Loan


class Row:
    """A task of some calls, named by letters; as `task.Task`, as far as lines use it."""

    def __init__(self, calls: str) -> None:
        self.calls = calls
        self.began = False

    def __repr__(self) -> str:
        return self.calls

    def begin(self, limit: int) -> tuple[Any, Any]:
        if not self.calls:  # it was withdrawn
            return None, None
        if len(self.calls) <= limit:
            self.began = True
            return self, None
        part, self.calls = Row(self.calls[:limit]), self.calls[limit:]
        part.began = True
        return part, self

    def size(self) -> int:
        return len(self.calls)

    def give_back(self) -> None:
        assert self.began
        self.began = False

    def split(self, count: int) -> tuple[Any, Any]:
        cut = Row(self.calls[-count:])
        self.calls = self.calls[:-count]
        return self, cut

    def called(self) -> str | None:
        return self.calls or None


class Growing(Row):
    """A task: while its size is asked for, somebody appends to the line (as `put` may)."""

    def __init__(self, calls: str, line: Line) -> None:
        super().__init__(calls)
        self.line = line

    def size(self) -> int:
        self.line.tasks.append(Row("late"))
        return super().size()


def line_of(*rows: str) -> Line:
    line = Line()
    line.tasks.extend(map(Row, rows))
    return line


def shown(tasks: Any) -> list[str]:
    return [task.calls for task in tasks]


def loan_of(line: Line, most: int, others: int = 0) -> Loan:
    return Loan(1, line, line.take(most, others))


def test_a_task_is_handed_out_in_parts_and_its_rest_stays_first():
    line = line_of("abcde", "xy")
    assert shown(line.take(2, 0)) == ["ab"]
    assert shown(line.tasks) == ["cde", "xy"]


def test_nobody_gets_more_calls_than_he_asked_for():
    line = line_of("abc", "xyz")
    assert shown(line.take(4, 0)) == ["abc", "x"]
    assert shown(line.tasks) == ["yz"]


def test_a_batch_ends_with_the_task_that_it_has_a_part_of():
    line = line_of("a", "bcdef", "g")
    assert shown(line.take(3, 0)) == ["a", "bc"]
    assert shown(line.tasks) == ["def", "g"]


@pytest.mark.parametrize(("others", "lent", "got"), [(0, 0, 12), (1, 0, 6), (1, 1, 4), (20, 0, 1)])
def test_nobody_gets_more_than_a_fair_share(others, lent, got):
    line = line_of(*"abcdefghijkl")
    line.lent = lent
    assert len(line.take(100, others)) == got


def test_withdrawn_tasks_are_skipped_and_count_as_nothing():
    line = line_of("", "", "a", "", "b")
    assert shown(line.take(1, 0)) == ["a"]
    assert shown(line.tasks) == ["", "b"]
    assert shown(line.take(5, 0)) == ["b"]
    assert shown(line.take(5, 0)) == []


def test_a_part_that_is_given_back_stands_before_its_rest():
    line = line_of("abcde", "xy")
    loan_of(line, 3).give_back(2)
    assert shown(line.tasks) == ["bc", "de", "xy"]


def test_what_went_whole_waits_again_as_if_it_had_not_begun():
    line = line_of("a", "b", "c")
    loan = loan_of(line, 3)
    loan.give_back(2)
    assert shown(loan.tasks) == ["a"]
    assert shown(line.tasks) == ["b", "c"]
    assert [task.began for task in line.tasks] == [False, False]


@given(
    rows=st.lists(st.integers(1, 7), max_size=6),
    steps=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(0, 9))),
)
def test_every_call_is_in_line_or_on_loan_once_and_in_order(rows, steps):
    letters = iter(range(1000, 2000))
    line = line_of(*["".join(chr(next(letters)) for _ in range(count)) for count in rows])
    whole = "".join(shown(line.tasks))
    done: list[str] = []
    for most, others, back in steps:
        loan = loan_of(line, most, others)
        assert sum(map(len, shown(loan.tasks))) <= most
        loan.give_back(back)
        done += shown(loan.tasks)
        assert "".join(done) + "".join(shown(line.tasks)) == whole


def test_who_gets_what_in_which_order():
    lines = Lines()
    lines.add_boxes(2)
    has = {"gpu": 1}.copy

    def put(line: Line, name: str) -> None:
        line.tasks.append(Row(name))

    put(lines.line_of(-1), "last")
    put(lines.line_of(0), "usual")
    put(lines.line_of(0, (("gpu", 1),)), "able")
    put(lines.line_of(3), "first")
    put(lines.line_of(3, (("gpu", 1),)), "first able")
    put(lines.line_of(9, (("gpu", 2),)), "too much")
    put(lines.boxes[0], "mine")
    put(lines.boxes[1], "another's")
    got = []
    while (line := lines.next_for(0, lambda rank: has())) is not None:
        got += shown(line.take(99, 0))
    assert got == ["mine", "first able", "first", "able", "usual", "last"]
    assert lines.waiting()
    assert lines.any_ranked()
    assert shown(lines.take()) == ["too much", "another's"]
    assert not lines.waiting()


def test_lines_that_nobody_uses_are_forgotten():
    lines = Lines()
    for priority in range(1, 50):
        line = lines.line_of(priority)
        line.tasks.append(Row("a"))
        line.tasks = deque() if priority % 10 else line.tasks
    assert [priority for priority, _ in lines.ranked] == [49, 40, 30, 20, 10]


def test_what_has_ended_is_dropped_and_the_rest_stays_in_order():
    lines = Lines()
    lines.usual.tasks.extend(map(Row, ["a", "", "b", ""]))
    lines.drop_ended()
    assert shown(lines.usual.tasks) == ["a", "b"]


def test_others_may_append_to_the_usual_line_while_it_is_counted():
    # Seen as "deque mutated during iteration" where some threads submitted with a priority, and
    # others without.
    lines = Lines()
    usual = lines.usual
    usual.tasks.extend([Growing("ab", usual), Growing("c", usual)])
    assert lines.wanted([0, 1, 2, 3, 4], [], lambda rank: {}) == [0, 1, 2]
    lines.usual.tasks.pop()
    assert lines.count() == 3 + len("late")
    assert shown(usual.tasks) == ["ab", "c"] + ["late"] * 3
