"""What becomes of an error of a call, in the process that ran it."""

from __future__ import annotations

import os
from collections.abc import Callable

from sleighexec import payload as pickling
from sleighexec import raised
from sleighexec.errors import RemoteError
from sleighexec.hints import Any
from sleighexec.messages import Payload

REMEDY = (
    "workers look for modules where the sys.path of the caller leads; install it there, or let "
    "what is in it travel by value, see cloudpickle.register_pickle_by_value"
)


class BadArguments(Exception):
    """The arguments of a call could not be unpickled; the reason is the cause."""


def arguments(item: Any, whole: Callable[..., Payload] = Payload) -> Any:
    """The arguments of a call, rebuilt from head and buffers.

    Raises:
        BadArguments: They cannot be.
    """
    try:
        return pickling.loads(whole(*item))
    except BaseException as error:
        raise BadArguments from error


def small_arguments(head: bytes) -> Any:
    """The same, from the bytes of a small pickle."""
    try:
        return pickling.loads_small(head)
    except BaseException as error:
        raise BadArguments from error


class Rows:
    """The positional arguments of many calls, in one pickle: read for the first that begins."""

    __slots__ = ("_pickled", "_rows")

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled
        self._rows: Any = None

    def row(self, index: int) -> Any:
        """Those of one call. Raises BadArguments: they cannot be rebuilt."""
        if self._rows is None:
            self._rows = small_arguments(self._pickled)
        return self._rows[index]


def failure_of(error: BaseException, skip: str) -> bytes:
    """What the caller gets to see of an error of a call, without frames of the file `skip`."""
    if isinstance(error, BadArguments):
        from sleighexec.broken import SerializationError

        cause = error.__cause__
        text = f"the task could not be rebuilt on the worker: {type(cause).__name__}: {cause}"
        error, skip = SerializationError(text), __file__
        error.__cause__ = cause
    try:
        return bytes(raised.dumps_error(error, skip).head)
    except BaseException as problem:  # whatever an exception may do to us, its worker lives on
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        text = f"this exception could not be sent: {type(problem).__name__}"
        return bytes(raised.dumps_error(RemoteError(name, text)).head)


def explain(error: BaseException | None, refused: dict[str, str] | None) -> None:
    """Say in a ModuleNotFoundError, of an error or its causes, where it was and what helps.

    `refused`: on another machine, why modules did not come from the caller.
    """
    where = f" on {os.uname().nodename}"
    seen: set[int] = set()  # they may go round in a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if type(error) is ModuleNotFoundError and where not in str(error):
            remedy = REMEDY if refused is None else refused.get(error.name or "", "")
            text = f"{error.msg}{where}{': ' * bool(remedy)}{remedy}"
            error.msg, error.args = text, (text,)
        error = raised.get_slot(error, "__cause__")
