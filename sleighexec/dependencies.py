"""Futures among the arguments of a call: it waits for them, and no worker does.

    submit(f, x, future) ─▶ pickled at once, with a gap in place of the future ─▶ Engine.hold
    the last of its futures has a result ─▶ results into the gaps ─▶ Engine.put_held
    one of them fails or is cancelled ─▶ DependencyError, told by the thread that serves

The other arguments are taken as they were when the call was made, as those of any call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial

from sleighexec.errors import DependencyError
from sleighexec.functions import Filled, FunctionTable
from sleighexec.future import SleighFuture
from sleighexec.hints import TYPE_CHECKING, Any
from sleighexec.messages import Payload

if TYPE_CHECKING:
    from sleighexec.engines.base import Engine


class Gaps:
    """Futures among arguments, and where they stand: by position, or by keyword."""

    __slots__ = ("futures", "places")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        found = [(place, arg) for place, arg in named if _is_future(arg)]
        self.places = [place for place, _ in found]
        self.futures: list[SleighFuture[Any]] = [future for _, future in found]

    def cut(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments without them."""
        kwargs = {name: None if _is_future(arg) else arg for name, arg in kwargs.items()}
        return tuple(None if _is_future(arg) else arg for arg in args), kwargs


def any_future(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a Future is among these arguments."""
    return any(map(_is_future, args)) or any(map(_is_future, kwargs.values()))


def _is_future(value: object) -> bool:
    return isinstance(value, SleighFuture)


class Unfilled:
    """The arguments of a call that waits: pickled, but for the gaps.

    `first` are arguments of ours that stand before those of the caller.
    """

    __slots__ = ("first", "gaps", "payload")

    def __init__(self, payload: Payload, gaps: Gaps, first: int) -> None:
        self.payload, self.gaps, self.first = payload, gaps, first

    def filled(self) -> Filled:
        """With the results of the futures in the gaps, to be pickled."""
        values = [future.result() for future in self.gaps.futures]
        places = [p + self.first if isinstance(p, int) else p for p in self.gaps.places]
        return Filled(self.payload, places, values)


class Dependent:
    """A call that waits for others, from its submission until it is in line or has ended.

    It is the group of its future meanwhile, and so hears when that is cancelled.
    """

    __slots__ = ("_engine", "_fit", "_functions", "_future", "_left", "_lock", "_name", "_unfilled")

    def __init__(
        self,
        engine: Engine,
        functions: FunctionTable,
        name: str,
        unfilled: Unfilled,
        fit: Callable[[Payload], Payload],
    ) -> None:
        """`fit` raises if a payload is too large to travel."""
        self._engine, self._functions, self._fit = engine, functions, fit
        self._name = name
        self._lock = threading.Lock()  # guards the three below
        self._future: SleighFuture[Any] | None = None  # None also when it needs us no more
        self._unfilled: Unfilled | None = unfilled
        self._left = len(unfilled.gaps.futures)

    def wait_for_all(self, future: SleighFuture[Any]) -> None:
        """Begin to wait; may be over at once."""
        assert self._unfilled is not None
        gaps = self._unfilled.gaps
        self._future = future
        try:
            self._engine.hold(future)
            for place, each in zip(gaps.places, gaps.futures):
                each.add_done_callback(partial(self._one_ended, place))
        except BaseException:  # Ctrl-C: the caller gets no future, so nobody is to wait for it
            future.cancel()
            raise

    def submitted(self, futures: list[SleighFuture[Any]]) -> None:
        """We have made it ourselves."""

    def ended(self, future: SleighFuture[Any]) -> None:
        self._take()
        self._engine.drop_held(future)

    def _take(self) -> tuple[SleighFuture[Any], Unfilled] | None:
        """Let go of the call: whoever gets it, and nobody else, says what becomes of it."""
        with self._lock:
            future, self._future = self._future, None
            unfilled, self._unfilled = self._unfilled, None
        return None if future is None or unfilled is None else (future, unfilled)

    def _one_ended(self, place: int | str, dependency: Any) -> None:
        error = CancelledError() if dependency.cancelled() else dependency.exception()
        if error is not None:
            if taken := self._take():
                failure = partial(_failed, self._name, place, error)
                self._engine.drop_held(taken[0], failure)
            return
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last and (taken := self._take()):
            self._put(*taken)

    def _put(self, future: SleighFuture[Any], unfilled: Unfilled) -> None:
        """All results are there."""
        try:
            payload, needs = self._functions.dumps_call(unfilled.filled())
            payload = self._fit(payload)
        except BaseException as error:
            self._engine.drop_held(future, partial(not_pickled, self._name, error))
            if not isinstance(error, Exception) and not isinstance(error, SystemExit):
                raise  # Ctrl-C is not the task's
            return
        if future.fill(needs, payload):
            settings = future._settings
            self._engine.put_held(future, settings.priority, settings.needs)


def _failed(name: str, place: int | str, error: BaseException) -> BaseException:
    """The error of a call since one that it waited for has failed, or has waited in vain too."""
    cause = error.__cause__ if isinstance(error, DependencyError) else error
    cause = cause if cause is not None else error
    what = "was cancelled"
    if not isinstance(cause, CancelledError):
        text = f"{type(cause).__name__}: {cause}".splitlines()[0]
        what = f"failed with {text}"
    if cause is not error:
        what = f"was not run either, since another {what}"
    problem = DependencyError(name, place, what)
    problem.__cause__ = cause
    return problem


def not_pickled(name: str, error: BaseException, what: str = "") -> BaseException:
    """The error of a call that could not be pickled; `what`: as `unpicklable` says it."""
    from sleighexec.raised import add_note

    if isinstance(error, SystemExit):
        import pickle

        problem = pickle.PicklingError(f"SystemExit while pickling a call of {name}")
        problem.__cause__ = error
        error = problem
    add_note(error, f"while pickling a call of {name} for a worker{what}")
    return error


def unpicklable(functions: FunctionTable, args: Any, kwargs: Any) -> str:
    """The first of these arguments that cannot be pickled, as a text for the error; or nothing."""
    places = [f"args[{place}]" for place in range(len(args))]
    for place, value in zip((*places, *kwargs), (*args, *kwargs.values())):
        try:
            functions.dumps_call(value)
        except (Exception, SystemExit):
            return f": {place} is a {type(value).__qualname__}"
    return ""
