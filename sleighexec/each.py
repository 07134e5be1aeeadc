"""The classic calls: eachElem, eachWorker, imap, starmap, for whatever can submit in bulk.

elements.py ─▶ rows ─▶ submit_rows ─▶ SleighPending ─▶ results, by a Policy
                   └─▶ MapCalls._map_all, if nobody is to see its Futures ─┘
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from sleighexec import elements, scripting
from sleighexec.elements import NO_ARGUMENTS, NO_ELEMENTS
from sleighexec.errors import IllegalValueError
from sleighexec.future import Group
from sleighexec.hints import TYPE_CHECKING, Any, TypeVar
from sleighexec.pending import Policy, ResultIterator, Row, SleighPending

if TYPE_CHECKING:
    from sleighexec.progress import MakeDisplay, Meter
    from sleighexec.task import Settings

Pending = TypeVar("Pending", SleighPending, ResultIterator)


class EachCalls:
    """Methods of an executor. What they are called with follows Sleigh for Python (2008)."""

    _engine: Any
    _max_pending: int | None  # calls that may wait
    _settings: Settings
    _pending_class = SleighPending
    _map_all: Callable[..., list[Any]]  # of MapCalls
    _progress: MakeDisplay | None  # what makes the displays of eachElem and map

    def _submit_rows(self, fn: Any, rows: list[Row], group: Group, chunk_size: int) -> None:
        """Submit a call for each row."""
        raise NotImplementedError

    def _submit_each(self, fn: Any, args: Row, group: Group, sticky: bool) -> None:
        """Submit a call for each worker."""
        raise NotImplementedError

    def _shared_if_big(self, value: Any) -> Any:
        """A handle in place of what is too big to travel with each call of many."""
        raise NotImplementedError

    def eachElem(
        self,
        fun: Callable[..., Any] | str,
        elementArgs: Any = NO_ELEMENTS,
        fixedArgs: Any = NO_ARGUMENTS,
        *,
        type: str | None = None,
        argPermute: Any = None,
        blocking: bool = True,
        loadFactor: float | None = None,
        chunkSize: int | None = None,
        accumulator: Any = None,
        on_error: str | None = None,
        elementFunc: Callable[..., Any] | None = None,
        by: str | None = None,
    ) -> Any:
        """Call `fun` once for each element, on whichever workers are free.

        Args:
            fun: A callable, or a string of Python (see `type`).
            elementArgs: One column of elements (any iterable), or a list of columns: call i gets
                item i of each. The shortest column says how many calls there are.
            fixedArgs: What each call gets after its elements: a list of arguments, or one argument.
                Those of a megabyte and more travel once, and so does such a `fun`; each call has
                its own all the same, but for big buffers: such arrays are read-only. To have it
                unpickled once only, as a big dict should be, give a handle of `share`.
            type: "invoke" calls `fun`; "define" leaves it under its name in the `__main__` of
                workers; "eval", for strings, evaluates it there: it sees SleighArgs, and gives its
                value or what it leaves in SleighValue.
            argPermute: A list of indices: the call gets `[all[j] for j in argPermute]`, `all` being
                its elements and fixed arguments.
            blocking: Wait and return the results; else return a SleighPending at once.
            loadFactor: At most `loadFactor` times the number of workers calls are handed out at
                once, and the columns are read as results come; they may be infinite if the calls
                end otherwise. None: all at once, as always when not blocking.
            chunkSize: Elements that begin together on one worker. None: the pool decides, by how
                long the calls take.
            accumulator: A callable, called here with `[(number, value)]` for each result as it
                comes; or an object with `result(list)`, and perhaps `error(list)` and `value()`.
                Then what `value()` gives is returned.
            on_error: "raise" (the default) the first error that arrives and cancel the rest;
                "return" exceptions in the places of their results; "skip" them.
            elementFunc: Instead of elementArgs: called with 0, 1, … (or nothing, if it takes
                nothing) for the elements of each call, until it raises StopIteration.
            by: "row" or "column": what a call gets of a two-dimensional array.

        Returns:
            The list of results in the order of the elements, a SleighPending, or `value()`.

        Raises:
            IllegalValueError, IndexError, TypeError: The arguments make no calls; nothing was sent.
            Exception: What a call raised (see `on_error`).
        """
        kind = scripting.checked_type(fun, type)
        policy = self._admit(on_error, accumulator, kind)
        chunk = _checked_chunk(chunkSize)
        window = self._window(loadFactor) if blocking else math.inf
        fixedArgs = [self._shared_if_big(value) for value in elements.fixed(fixedArgs)]
        if elementFunc is None:
            rows = elements.rows(elementArgs, fixedArgs, argPermute, by)
        elif elementArgs is not NO_ELEMENTS or by is not None:
            raise IllegalValueError("elementFunc stands instead of elementArgs and by")
        else:
            rows = elements.generated(elementFunc, fixedArgs, argPermute)
        call, first = _call(fun, kind)
        call = self._shared_if_big(call)

        def submit(rows: list[Row], group: Group) -> None:
            rows = [(*first, *row) for row in rows] if first else rows
            self._submit_rows(call, rows, group, chunk)

        meter = self._meter(0 if elementFunc else elements.known_length(elementArgs, by))
        if blocking and not policy.accumulates and window == math.inf:
            if first:
                rows = ((*first, *row) for row in rows)
            return self._map_all(self._settings, meter, call, rows, policy, chunk)
        pending = self._pending_class(self._engine, submit, policy, meter)
        pending.feed(rows, window)
        return pending.gather() if blocking else self._given(pending)

    def eachWorker(
        self,
        fun: Callable[..., Any] | str,
        *args: Any,
        type: str | None = None,
        blocking: bool = True,
        accumulator: Any = None,
        sticky: bool = False,
        on_error: str | None = None,
    ) -> Any:
        """Call `fun(*args)` exactly once on every worker, on all at the same time.

        Workers may talk to each other in it through the workspace. What `fun` leaves in global
        variables is there for later calls on that worker.

        Args:
            fun, type, blocking, accumulator, on_error: As for `eachElem`.
            args: The same for every worker.
            sticky: Workers that join later, and the replacements of those that died, call it too,
                in the order of these calls, before they take tasks. Not if it failed or was
                cancelled here.

        Returns:
            The list of results by rank, a SleighPending, or what the accumulator's `value()` gives.

        Raises:
            Exception: `fun` or `args` cannot be pickled: nothing was sent. Else as `eachElem`.
        """
        kind = scripting.checked_type(fun, type)
        policy = self._admit(on_error, accumulator, kind)
        call, first = _call(fun, kind)

        def submit(rows: list[Row], group: Group) -> None:
            for row in rows:  # there is one
                self._submit_each(call, row, group, sticky)

        pending = self._pending_class(self._engine, submit, policy)
        pending.feed(iter([(*first, *args)]))
        return pending.gather() if blocking else self._given(pending)

    def imap(
        self,
        fun: Callable[..., Any] | str,
        *iterables: Iterable[Any],
        type: str | None = None,
        loadFactor: float = 10,
        on_error: str | None = None,
    ) -> ResultIterator:
        """An iterator over `fun` of the items of the iterables, in order.

        The iterables are read as results are taken, `loadFactor` times the number of workers calls
        ahead (0: all at once); they may be infinite.
        """
        return self._iterate(fun, zip(*elements.separate(iterables)), type, loadFactor, on_error)

    def starmap(
        self,
        fun: Callable[..., Any] | str,
        iterable: Iterable[Iterable[Any]],
        *,
        type: str | None = None,
        loadFactor: float = 10,
        on_error: str | None = None,
    ) -> ResultIterator:
        """As `imap`, with the arguments of each call as one item: `fun(*item)`."""
        (column,) = elements.separate([iterable])
        rows = (tuple(item) for item in column)
        return self._iterate(fun, rows, type, loadFactor, on_error)

    each_elem, each_worker = eachElem, eachWorker

    def _iterate(
        self, fun: Any, rows: Any, type: str | None, loadFactor: float, on_error: str | None
    ) -> ResultIterator:
        kind = scripting.checked_type(fun, type)
        policy = self._admit(on_error, None, kind)
        call, first = _call(fun, kind)

        def submit(rows: list[Row], group: Group) -> None:
            rows = [(*first, *row) for row in rows] if first else rows
            self._submit_rows(call, rows, group, 1)

        return self._given(ResultIterator(rows, submit, policy, self._window(loadFactor)))

    def _meter(self, hint: int = 0) -> Meter | None:
        """What shows how far a call is that makes `hint` calls, or many; None: nobody asked."""
        if self._progress is None:
            return None
        from sleighexec.progress import Meter  # few want it

        return Meter(self._progress, hint)

    def _admit(self, on_error: str | None, accumulator: Any, kind: str) -> Policy:
        """Before a call is made: may it be made now, and what becomes of its outcomes."""
        return Policy(on_error or "raise", accumulator)

    def _given(self, pending: Pending) -> Pending:
        """What a call that does not block gives to its caller."""
        return pending

    def _window(self, loadFactor: float | None) -> float:
        most = math.inf if self._max_pending is None else self._max_pending
        if loadFactor is None or loadFactor <= 0:
            return most
        workers: int = max(self._engine.max_workers, 1)  # there may be none yet
        return min(max(int(loadFactor * workers), workers), most)


def _call(fun: Any, kind: str) -> tuple[Callable[..., Any], Row]:
    """What a worker is to call, and with what before the arguments of each call."""
    if kind == "eval":
        return scripting.evaluate, (scripting.checked_source(fun),)
    if kind == "define":
        return scripting.define, (scripting.name_of(fun), fun)
    return fun, ()


def _checked_chunk(chunkSize: int | None) -> int:
    if chunkSize is None:
        return 1
    if not isinstance(chunkSize, int) or chunkSize < 1:
        raise IllegalValueError(f"chunkSize must be a number of elements, not {chunkSize!r}")
    return chunkSize
