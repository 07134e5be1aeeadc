"""What a process has for itself: locks, queues, context variables, weak dictionaries.

A worker of `ProcessPoolExecutor` that imports the script makes these anew. They cannot be pickled,
so that as arguments and results they are refused; but where they are the script's own, as global
variables of its functions and as attributes of its classes, or of a global object of such a class,
a worker makes one of the same kind:

    Fresh(lock) ─▶ its mark, what makes another ─▶ fresh(): one for each mark and process

Not here: what can be pickled (a WeakSet travels as what is in it), and what would be something else
if it were made again: files, generators, locks of multiprocessing, and the locks of what comes from
elsewhere: a Future that is copied, lock and all, would never be done.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import uuid
import weakref
from collections.abc import Callable

from sleighexec.hints import Any


class Fresh:
    """Stands in a pickle for such an object."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __reduce__(self) -> Any:
        value = self._value
        return fresh, (_mark_of(value), *FRESH[type(value)](value))


def own(value: Any) -> Any:
    """What is pickled in place of a value of the script's own."""
    return Fresh(value) if type(value) in FRESH else value


def own_ones(values: dict[str, Any]) -> dict[str, Any]:
    """The same, for variables or attributes."""
    if FRESH.keys().isdisjoint(map(type, values.values())):
        return values  # nearly always
    return {name: own(value) for name, value in values.items()}


def _context_variable(name: str, *default: Any) -> Any:
    if default:
        return contextvars.ContextVar(name, default=default[0])
    return contextvars.ContextVar(name)


def _default_of(variable: Any) -> tuple[Any, ...]:
    try:
        return (contextvars.Context().run(variable.get),)  # where nobody has set it
    except LookupError:
        return ()


# How another of each is made: what is called, and with what. Subclasses are something else.
FRESH: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    type(threading.Lock()): lambda _: (threading.Lock,),
    type(threading.RLock()): lambda _: (threading.RLock,),
    threading.Condition: lambda old: (threading.Condition, own(old._lock)),
    threading.Event: lambda _: (threading.Event,),
    threading.Semaphore: lambda old: (threading.Semaphore, old._value),
    threading.BoundedSemaphore: lambda old: (threading.BoundedSemaphore, old._initial_value),
    threading.local: lambda _: (threading.local,),
    contextvars.ContextVar: lambda old: (_context_variable, old.name, *_default_of(old)),
    queue.Queue: lambda old: (queue.Queue, old.maxsize),
    queue.LifoQueue: lambda old: (queue.LifoQueue, old.maxsize),
    queue.PriorityQueue: lambda old: (queue.PriorityQueue, old.maxsize),
    queue.SimpleQueue: lambda _: (queue.SimpleQueue,),
    weakref.WeakKeyDictionary: lambda _: (weakref.WeakKeyDictionary,),
    weakref.WeakValueDictionary: lambda _: (weakref.WeakValueDictionary,),
}


# ------------------------------------------------------------------ one for each mark

UNMARKED = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)  # they have no hash

_lock = threading.Lock()  # guards what follows
_marks: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_marked: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
# The same for context variables: there are no weak references to them, nor do they ever go away.
_variable_marks: dict[Any, str] = {}
_variables: dict[str, Any] = {}


def _mark_of(value: Any) -> str | None:
    """What an object is known by in other processes, and in this one when it comes back."""
    if isinstance(value, UNMARKED):
        return None
    is_variable = type(value) is contextvars.ContextVar
    marks = _variable_marks if is_variable else _marks
    with _lock:
        mark = marks.setdefault(value, uuid.uuid4().hex)
        (_variables if is_variable else _marked)[mark] = value
    return mark


def fresh(mark: str | None, make: Callable[..., Any], *args: Any) -> Any:
    """This process's own object with this mark; it is made when it is first asked for."""
    if mark is None:
        return make(*args)
    is_variable = make is _context_variable
    found = _variables if is_variable else _marked
    with _lock:
        value = found.get(mark)
        if value is None:
            value = found[mark] = make(*args)
            (_variable_marks if is_variable else _marks)[value] = mark
    return value
