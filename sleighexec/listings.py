"""Listings as NetWorkSpaces had them: a text with a line for each row, or a dict of tuples.

The names of the columns are the indices of the tuples.
"""

from __future__ import annotations

from collections.abc import Iterable

from sleighexec.hints import Any

STRING, DICT = "string", "dict"  # formats
WS_NAME, WS_MINE, WS_OWNER, WS_PERSISTENT, WS_NUMVARS, WS_VARLIST = range(6)
V_VARIABLE, V_VALUES, V_FETCHERS, V_FINDERS, V_MODE = range(5)


def workspaces(rows: Iterable[Any], format: str) -> Any:
    """The rows of ListWorkspaces; as text each line ends with a newline.

    Raises:
        ValueError: There is no such format.
    """
    table = [
        (name, mine, owner, persistent, len(variables), list(variables))
        for name, mine, owner, persistent, variables in rows
    ]
    if _is_dict(format):
        return {row[WS_NAME]: row for row in table}
    return "".join(
        f"{'>' if mine else ' '}{name}\t{owner}\t{persistent}\t{count}\t{','.join(names)}\n"
        for name, mine, owner, persistent, count, names in table
    )


def variables(rows: Iterable[Any], format: str) -> Any:
    """The rows of ListVariables; as text there is a newline between two lines only.

    Raises:
        ValueError: There is no such format.
    """
    if _is_dict(format):
        return {row[V_VARIABLE]: tuple(row) for row in rows}
    return "\n".join("\t".join(map(str, row)) for row in rows)


def _is_dict(format: str) -> bool:
    if format not in (STRING, DICT):
        raise ValueError(f"format must be {STRING!r} or {DICT!r}, not {format!r}")
    return format == DICT
