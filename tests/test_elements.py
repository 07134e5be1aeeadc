"""The argument algebra: every row of the classic table, and a plain model beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleighexec import elements
from sleighexec.errors import IllegalValueError, SleighError
from tests.conftest import plain_id

ILLEGAL = IllegalValueError


class Rows(list):  # type: ignore[type-arg]
    """A subclass of list."""


TABLE: list[tuple[dict[str, Any], Any]] = [
    ({"elementArgs": [1, 2]}, [(1,), (2,)]),
    ({"elementArgs": [[1, 2], [3, 4]]}, [(1, 3), (2, 4)]),
    ({"elementArgs": [(1, 2), (3, 4)]}, [(1, 3), (2, 4)]),
    ({"elementArgs": (1, 2)}, [(1,), (2,)]),
    ({"elementArgs": ([1, 2], [3, 4])}, [([1, 2],), ([3, 4],)]),
    ({"elementArgs": "ab"}, [("a",), ("b",)]),
    ({"elementArgs": ["ab", "cd"]}, [("a", "c"), ("b", "d")]),
    ({"elementArgs": [["ab", "cd"]]}, [("ab",), ("cd",)]),
    ({"elementArgs": [1, [2, 3]]}, [(1,), ([2, 3],)]),
    ({"elementArgs": [[2, 3], 1]}, ILLEGAL),
    ({"elementArgs": [[1, 2, 3], [4, 5]]}, [(1, 4), (2, 5)]),
    ({"elementArgs": [[1, 2, 3], []]}, []),
    ({"elementArgs": [[]]}, []),
    ({}, []),
    ({"elementArgs": ()}, []),
    ({"elementArgs": iter([])}, []),
    ({"elementArgs": []}, ILLEGAL),
    ({"elementArgs": 5}, ILLEGAL),
    ({"elementArgs": None}, ILLEGAL),
    ({"elementArgs": [None, None]}, [(None,), (None,)]),
    ({"elementArgs": {"k": 1}}, [("k",)]),
    ({"elementArgs": [{"k": 1}]}, [("k",)]),
    ({"elementArgs": (n for n in (1, 2))}, [(1,), (2,)]),
    ({"elementArgs": range(2)}, [(0,), (1,)]),
    ({"elementArgs": {7}}, [(7,)]),
    ({"elementArgs": Rows([[1, 2], [3, 4]])}, [(1, 3), (2, 4)]),
    ({"elementArgs": [1], "fixedArgs": 9}, [(1, 9)]),
    ({"elementArgs": [1], "fixedArgs": [8, 9]}, [(1, 8, 9)]),
    ({"elementArgs": [1], "fixedArgs": [[8, 9]]}, [(1, [8, 9])]),
    ({"elementArgs": [1], "fixedArgs": (8, 9)}, [(1, (8, 9))]),
    ({"elementArgs": [1], "fixedArgs": ()}, [(1, ())]),
    ({"elementArgs": [1], "fixedArgs": None}, [(1, None)]),
    ({"elementArgs": [1], "fixedArgs": "ab"}, [(1, "ab")]),
    ({"elementArgs": [1, 2], "fixedArgs": 9, "argPermute": [1, 0]}, [(9, 1), (9, 2)]),
    ({"elementArgs": [1, 2], "fixedArgs": 9, "argPermute": [0]}, [(1,), (2,)]),
    (
        {"elementArgs": [1], "fixedArgs": [8, 9], "argPermute": [2, 0, 1, 0]},
        [(9, 1, 8, 1)],
    ),
    ({"elementArgs": [1, 2], "argPermute": []}, [(), ()]),
    ({"elementArgs": [1], "fixedArgs": 9, "argPermute": [-1, 0]}, [(9, 1)]),
    ({"elementArgs": [1], "fixedArgs": 9, "argPermute": [True]}, [(9,)]),
    ({"elementArgs": [1], "fixedArgs": 9, "argPermute": [5]}, IndexError),
    ({"elementArgs": [1], "fixedArgs": 9, "argPermute": [-3]}, IndexError),
    ({"elementArgs": [1], "argPermute": [0.0]}, TypeError),
    ({"elementArgs": [1], "argPermute": (1, 0)}, ILLEGAL),
    ({"elementArgs": [1], "argPermute": "x"}, ILLEGAL),
    ({"elementArgs": [1], "argPermute": np.array([0])}, ILLEGAL),
    ({"elementArgs": [1], "argPermute": list(np.array([0]))}, [(1,)]),
    ({"elementArgs": [1], "fixedArgs": 9, "argPermute": range(2)}, [(1, 9)]),
]


def outcome(arguments: dict[str, Any]) -> Any:
    try:
        return list(elements.rows(**arguments))
    except (IllegalValueError, IndexError, TypeError) as error:
        return type(error)


@pytest.mark.parametrize(("arguments", "expected"), TABLE, ids=plain_id)
def test_classic_table(arguments: dict[str, Any], expected: Any) -> None:
    assert outcome(arguments) == expected


def test_what_is_wrong_is_found_before_anything_is_read() -> None:
    """A row too many would be a task too many."""
    column = iter([1, 2])
    for wrong in ({"argPermute": [3]}, {"argPermute": "x"}, {"by": "cell"}):
        with pytest.raises((IllegalValueError, IndexError)):
            elements.rows(column, **wrong)
    assert next(column) == 1


def test_an_illegal_value_is_a_value_error_and_ours() -> None:
    with pytest.raises(ValueError, match="empty list") as caught:
        elements.rows([])
    assert isinstance(caught.value, SleighError)


def test_columns_are_read_left_to_right_and_the_item_too_many_is_lost() -> None:
    long, short = iter(range(5)), iter(range(2))
    assert list(elements.rows([long, short])) == [(0, 0), (1, 1)]
    assert list(long) == [3, 4]


def test_infinite_columns_are_read_as_asked_for() -> None:
    read = []

    def numbers() -> Iterable[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    made = elements.rows(numbers(), 9, [1, 0])
    assert read == []
    assert list(itertools.islice(made, 3)) == [(9, 0), (9, 1), (9, 2)]
    assert read == [0, 1, 2]


# ---------------------------------------------------------------------- numpy


def same(made: Iterable[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> bool:
    made = list(made)
    return len(made) == len(expected) and all(
        len(a) == len(b)
        and all(
            type(x) is type(y) and np.shape(x) == np.shape(y) and np.all(x == y)
            for x, y in zip(a, b)
        )
        for a, b in zip(made, expected)
    )


M = np.arange(6).reshape(2, 3)
RECORDS = np.array([(1, 2.0)], dtype=[("a", int), ("b", float)])
NUMPY: list[tuple[Any, list[tuple[Any, ...]]]] = [
    (np.array([1, 2]), [(np.int64(1),), (np.int64(2),)]),
    (M, [(M[0],), (M[1],)]),
    ([M[0], M[1]], [(M[0, 0], M[1, 0]), (M[0, 1], M[1, 1]), (M[0, 2], M[1, 2])]),
    ([M], [(M[0],), (M[1],)]),
    ([np.float64(1), np.float64(2)], [(np.float64(1),), (np.float64(2),)]),
    ([1, np.array([2, 3])], [(1,), (np.array([2, 3]),)]),
    ([np.array(1), np.array(2)], [(np.array(1),), (np.array(2),)]),
    (np.array([]), []),
    (RECORDS, [(RECORDS[0],)]),
]


@pytest.mark.parametrize(("given_", "expected"), NUMPY, ids=plain_id)
def test_numpy(given_: Any, expected: list[tuple[Any, ...]]) -> None:
    assert same(elements.rows(given_), expected)


def test_an_array_without_dimensions_is_no_column() -> None:
    with pytest.raises(IllegalValueError, match="iterable"):
        elements.rows(np.array(5))


def test_a_fixed_array_is_one_argument() -> None:
    for fixed in (M, [M]):
        assert same(elements.rows([1], fixed), [(1, M)])


def test_two_dimensional_arrays_by_row_and_by_column() -> None:
    assert same(elements.rows(M, by="row"), [(M[0],), (M[1],)])
    assert same(elements.rows(M, by="column"), [(M[:, 0],), (M[:, 1],), (M[:, 2],)])
    assert same(elements.rows([M, M.T], by="column"), [(M[:, 0], M.T[:, 0]), (M[:, 1], M.T[:, 1])])
    with pytest.raises(IllegalValueError, match="two-dimensional"):
        elements.rows(np.array([1, 2]), by="row")


# ---------------------------------------------------------------------- made by a function


def test_elements_made_by_a_function_until_it_stops() -> None:
    def three(number: int) -> Any:
        if number == 3:
            raise StopIteration
        return number, -number

    assert list(elements.generated(three, 9, [2, 0, 1])) == [(9, 0, 0), (9, 1, -1), (9, 2, -2)]
    left = [5, 6]

    def takes_none() -> Any:
        if not left:
            raise StopIteration
        return left.pop()

    assert list(elements.generated(takes_none)) == [(6,), (5,)]


def test_a_function_that_makes_too_few_arguments_for_the_permutation() -> None:
    made = elements.generated(lambda number: (number,) * (2 - number), argPermute=[1])
    assert next(made) == (0,)
    with pytest.raises(IndexError, match="there are 1 arguments"):
        next(made)
    with pytest.raises(IllegalValueError):
        elements.generated([1, 2])  # type: ignore[arg-type]


# ---------------------------------------------------------------------- against a model

values = st.one_of(st.integers(), st.text(max_size=3), st.none(), st.booleans())
columns_ = st.lists(st.lists(values, max_size=5), min_size=1, max_size=4)


def model(columns: list[list[Any]], fixed: list[Any], order: list[int] | None) -> list[Any]:
    made = []
    for number in range(min(len(column) for column in columns)):
        arguments = [column[number] for column in columns] + fixed
        made.append(tuple(arguments if order is None else [arguments[j] for j in order]))
    return made


@given(columns_, st.lists(values, max_size=3), st.data())
def test_as_the_model(columns: list[list[Any]], fixed: list[Any], data: st.DataObject) -> None:
    width = len(columns) + len(fixed)
    order = data.draw(st.none() | st.lists(st.integers(-width, width - 1), max_size=6))
    expected = model(columns, fixed, order)
    assert list(elements.rows(columns, fixed, order)) == expected
    lazily = [(item for item in column) for column in columns]
    assert list(elements.rows(lazily, fixed, order)) == expected
    assert len(expected) == min(map(len, columns))


@given(columns_, st.lists(values, max_size=3), st.randoms())
def test_a_permutation_and_its_inverse_restore(
    columns: list[list[Any]], fixed: list[Any], random: Any
) -> None:
    width = len(columns) + len(fixed)
    order = list(range(width))
    assert list(elements.rows(columns, fixed, order)) == list(elements.rows(columns, fixed))
    random.shuffle(order)
    inverse = [order.index(j) for j in range(width)]
    there = [list(column) for column in zip(*elements.rows(columns, fixed, order))]
    if there:
        assert list(elements.rows(there, [], inverse)) == list(elements.rows(columns, fixed))


@given(columns_, st.data())
def test_an_index_out_of_range_is_found_at_once(
    columns: list[list[Any]], data: st.DataObject
) -> None:
    width = len(columns)
    wrong = data.draw(st.integers(width) | st.integers(max_value=-width - 1))
    with pytest.raises(IndexError):
        elements.rows([iter(column) for column in columns], [], [0, wrong])
