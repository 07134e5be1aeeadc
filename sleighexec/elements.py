"""From element lists to the arguments of each call: pure algebra, nothing is sent here.

    elementArgs ─▶ columns ─▶ rows (one per task) ─▶ + fixedArgs ─▶ permuted ─▶ arguments

The rules are those of Sleigh's eachElem (NetWorkSpaces for Python, 2008), to the letter:

- A list whose first item is iterable is a list of *columns*; any other iterable is one column.
  Strings are iterable: `["ab", "cd"]` are two columns, `[["ab", "cd"]]` is one.
- There are as many tasks as the shortest column has items.
- `fixedArgs` follow the element arguments: a list gives its items, anything else is one argument.
- `argPermute` is a list of indices into all arguments; it may drop and repeat them.

All that can be wrong is found before the first row is read, but for errors of iterables themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator

from sleighexec.errors import IllegalValueError
from sleighexec.hints import Any

Row = tuple[Any, ...]
NO_ELEMENTS: Any = [[]]  # what eachElem takes if it is given nothing: one column without items
NO_ARGUMENTS: Any = []  # …and no fixed arguments: () would be one, an empty tuple


def rows(
    elementArgs: Any = NO_ELEMENTS,
    fixedArgs: Any = NO_ARGUMENTS,
    argPermute: Any = None,
    by: str | None = None,
) -> Iterator[Row]:
    """The arguments of each call, read from the columns as they are asked for.

    Args:
        elementArgs: A column, or a list of columns.
        fixedArgs: What each call gets after its elements.
        argPermute: The call gets `[all[j] for j in argPermute]`, all being elements and fixed.
        by: "row" or "column": what a two-dimensional array gives one call. None: what it iterates
            over, which is rows.

    Raises:
        IllegalValueError: These are not columns, or `argPermute` is not a list or range.
        IndexError: `argPermute` names an argument that is not there.
        TypeError: `argPermute` has something that is no index.
    """
    found = columns(elementArgs, by)
    return _arguments(zip(*found), len(found), fixedArgs, argPermute)


def generated(
    elementFunc: Callable[..., Any], fixedArgs: Any = NO_ARGUMENTS, argPermute: Any = None
) -> Iterator[Row]:
    """The arguments of each call, made one by one by a function until it raises StopIteration.

    It is called with the number of the task, from 0, if it takes an argument. A tuple or list that
    it returns gives a call several arguments, anything else one.

    Raises:
        IllegalValueError, IndexError, TypeError: As `rows` does; IndexError when the first row
            shows how many arguments there are.
    """
    if not callable(elementFunc):
        raise IllegalValueError(f"elementFunc must be callable, not {elementFunc!r}")
    return _each_generated(elementFunc, fixed(fixedArgs), checked_permutation(argPermute))


def columns(elementArgs: Any, by: str | None = None) -> list[Iterable[Any]]:
    """The columns of an element list.

    Raises:
        IllegalValueError: It is an empty list, or a column cannot be iterated over.
    """
    if by not in (None, "row", "column"):
        raise IllegalValueError(f'by must be "row", "column" or None, not {by!r}')
    found: list[Any]
    if isinstance(elementArgs, list):
        if not elementArgs:
            raise IllegalValueError("elementArgs is an empty list: [[]] stands for no tasks")
        found = elementArgs if _is_iterable(elementArgs[0]) else [elementArgs]
    else:
        found = [elementArgs]
    for column in found:
        if not _is_iterable(column):
            raise IllegalValueError(
                "elementArgs must be an iterable or a list of iterables, "
                f"not {type(column).__name__}: {column!r:.100}"
            )
    return found if by is None else [_lines(column, by) for column in found]


def known_length(elementArgs: Any, by: str | None = None) -> int:
    """How many calls these elements make, if every column has a length; else 0."""
    try:
        return min(map(len, columns(elementArgs, by)))  # type: ignore[arg-type]
    except TypeError:
        return 0


def separate(iterables: Iterable[Any]) -> list[Iterable[Any]]:
    """The columns of an imap: each argument is one.

    Raises:
        IllegalValueError: There are none, or one cannot be iterated over.
    """
    found = list(iterables)
    if not found or not all(map(_is_iterable, found)):
        raise IllegalValueError("arguments must be iterables, and at least one")
    return found


def fixed(fixedArgs: Any) -> Row:
    """The items of a list of fixed arguments; anything else, also a tuple, is one argument."""
    return tuple(fixedArgs) if isinstance(fixedArgs, list) else (fixedArgs,)


def checked_permutation(argPermute: Any, width: int | None = None) -> list[int] | None:
    """Indices of a permutation, each an int that is in range if the `width` is known."""
    if argPermute is None:
        return None
    if not isinstance(argPermute, (list, range)):
        raise IllegalValueError(
            f"argPermute must be a list, not {type(argPermute).__name__}: write list(...)"
        )
    indices = [operator.index(index) for index in argPermute]
    if width is not None:
        for index in indices:
            if not -width <= index < width:
                raise IndexError(
                    f"argPermute has {index}, but there are {width} arguments (elements and fixed)"
                )
    return indices


def _arguments(found: Iterator[Row], width: int, fixedArgs: Any, argPermute: Any) -> Iterator[Row]:
    more = fixed(fixedArgs)
    order = checked_permutation(argPermute, width + len(more))
    if order is not None:
        return (_permuted((*row, *more), order) for row in found)
    if more:
        return ((*row, *more) for row in found)
    return found


def _each_generated(
    elementFunc: Callable[..., Any], more: Row, order: list[int] | None
) -> Iterator[Row]:
    numbered = _takes_a_number(elementFunc)
    number = 0
    while True:
        try:
            made = elementFunc(number) if numbered else elementFunc()
        except StopIteration:
            return
        row = (*made, *more) if isinstance(made, (tuple, list)) else (made, *more)
        if order is not None:
            checked_permutation(order, len(row))
            row = _permuted(row, order)
        yield row
        number += 1


def _permuted(row: Row, order: list[int]) -> Row:
    return tuple([row[index] for index in order])


def _takes_a_number(function: Callable[..., Any]) -> bool:
    import inspect  # slow to load, and few have an elementFunc

    try:
        inspect.signature(function).bind(0)
    except (TypeError, ValueError):
        return False
    return True


def _is_iterable(value: Any) -> bool:
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _lines(column: Any, by: str) -> Iterable[Any]:
    """The rows or columns of a two-dimensional array; without knowing whose array it is."""
    if getattr(column, "ndim", None) != 2:
        raise IllegalValueError(f"by={by!r} is for two-dimensional arrays, not {column!r:.100}")
    if hasattr(column, "to_numpy"):
        raise IllegalValueError(f"by={by!r} is for arrays: pass table.to_numpy()")
    lines: Iterable[Any] = column if by == "row" else column.T
    return lines
