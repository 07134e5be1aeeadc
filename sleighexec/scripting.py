"""What strings and defined functions do in a worker: `type="eval"` and `type="define"`.

Both work in the namespace of `__main__` in that worker, which lasts as long as the worker and which
functions of the caller's `__main__` share: what one leaves there, the others find.
"""

from __future__ import annotations

import contextlib
import os
import textwrap
from functools import lru_cache
from types import CodeType

from sleighexec import payload as pickling
from sleighexec.errors import IllegalValueError
from sleighexec.hints import Any

MAIN = (0, "__main__")  # the key of the caller's main module
FILE = "<SleighEval>"


def checked_type(fun: Any, type: str | None) -> str:
    """What is to happen with `fun`: "invoke", "define" or "eval".

    Raises:
        IllegalValueError: There is no such type, or it does not fit `fun`.
    """
    if not callable(fun) and not isinstance(fun, str):
        raise IllegalValueError(f'"fun" argument must be a function or a string, not {fun!r:.100}')
    given = type if type is not None else "eval" if isinstance(fun, str) else "invoke"
    known = given.strip().lower() if isinstance(given, str) else given
    if known not in ("invoke", "define", "eval"):
        raise IllegalValueError(f'type must be "invoke", "define" or "eval", not {type!r}')
    if isinstance(fun, str) != (known == "eval"):
        raise IllegalValueError(f"type={known!r} does not go with a {fun.__class__.__name__}")
    return str(known)


def checked_source(source: str) -> str:
    """Python text as it travels.

    Raises:
        SyntaxError: It is neither an expression nor statements.
    """
    source = textwrap.dedent(source).lstrip()
    _compiled(source)
    return source


def name_of(function: Any) -> str:
    """The name under which `define` leaves a function."""
    name = getattr(function, "__name__", None) or type(function).__name__
    return "SleighFunction" if name == "<lambda>" else str(name)


def define(name: str, function: Any, *unused: Any) -> None:
    """In a worker: put a function into the namespace that lasts."""
    pickling.namespace(MAIN)[name] = function


def evaluate(source: str, *arguments: Any) -> Any:
    """In a worker: the value of an expression; of statements, what they leave in SleighValue.

    The text sees `SleighArgs`, the list of the arguments of this task.
    """
    names = pickling.namespace(MAIN)
    names["SleighArgs"] = names["SleighArguments"] = list(arguments)
    code, is_expression = _compiled(source)
    if is_expression:
        return eval(code, names)
    names.pop("SleighValue", None)
    exec(code, names)
    return names.pop("SleighValue", None)


def enter_if_there(directory: str) -> None:
    """In a worker on another machine: work in the caller's folder, if there is one like it."""
    with contextlib.suppress(OSError):
        os.chdir(directory)


@lru_cache(maxsize=256)
def _compiled(source: str) -> tuple[CodeType, bool]:
    try:
        return compile(source, FILE, "eval"), True
    except SyntaxError:
        return compile(source, FILE, "exec"), False
