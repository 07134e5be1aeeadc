"""`map`, for whatever can put tasks.

iterables ─▶ items in the form in which they travel ─▶ MapJob, cut into spans (mapping.py)
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence

from sleighexec import payload as pickling
from sleighexec.dependencies import not_pickled, unpicklable
from sleighexec.functions import (
    PICKLED,
    PLAIN,
    ROWS,
    SHALLOW,
    SINGLE,
    SMALL,
    Definition,
    FunctionTable,
    simple_form,
)
from sleighexec.gathering import Gathering
from sleighexec.hints import TYPE_CHECKING, Any, TypeVar
from sleighexec.mapping import Failure, Feed, MapJob, results
from sleighexec.messages import Payload
from sleighexec.task import BATCH_BYTES, Settings, Task

if TYPE_CHECKING:
    from sleighexec.pending import Policy
    from sleighexec.progress import Meter

T = TypeVar("T")

READ_SECONDS = 0.02  # after which calls over what was read so far begin
READ_AT_ONCE = 64  # items
QUICK = frozenset({list, tuple, range})  # to read


def check_sizes(chunksize: int, buffersize: int | None) -> None:
    """Raise what a wrong chunksize or buffersize of `map` raises."""
    if not isinstance(chunksize, int):
        raise TypeError(f"chunksize must be an integer, not {type(chunksize).__name__}")
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


class MapCalls:
    """The method `map` of an executor."""

    _engine: Any
    _functions: FunctionTable
    _settings: Settings
    _max_pending: int | None  # calls that may wait

    # What it asks of the rest of the executor.
    submit: Callable[..., Any]
    _is_watched: Callable[[], bool]
    _put: Callable[[Settings, Sequence[Task]], None]
    _fit: Callable[[Payload], Payload]
    _meter: Callable[..., Meter | None]
    _shared_if_big: Callable[[Any], Any]

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The results of `fn` over the items of `iterables`, in order, as they come.

        Args:
            fn: Called with one item of each iterable; ends with the shortest one.
            timeout: Seconds from now after which waiting for a result raises TimeoutError.
            chunksize: Items that travel together. 1, the default, leaves it to the pool, which
                goes by how long the calls take; there is seldom a reason for another number. More
                than 1: they are pickled together, as the standard library does it, so that they
                may share in the worker what they share here.
            buffersize: How many calls (chunks, with `chunksize`) may be ahead of the result that
                was taken last; the iterables are then read as results are taken, and may be
                infinite. None: everything is read and submitted now; where reading takes long,
                calls begin meanwhile.

        The first exception of a call ends the iteration; calls that have not begun are cancelled
        then, and also when the iterator is closed, collected or out of time after its first
        result was asked for. Of an iterator that nobody has asked for anything all calls run.
        """
        check_sizes(chunksize, buffersize)
        if self._is_watched():
            return self._map_by_submit(fn, iterables, timeout, chunksize, buffersize)
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._map(
            self._settings, self._meter(), fn, iterables, deadline, chunksize, buffersize
        )

    def _map(
        self,
        settings: Settings,
        meter: Meter | None,
        fn: Any,
        iterables: tuple[Iterable[Any], ...],
        deadline: float | None,
        chunksize: int,
        buffersize: int | None,
    ) -> Iterator[Any]:
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {type(fn).__name__}: {fn!r}")
        # One argument each: then no tuple is made for it, which would cost more than the rest.
        single = len(iterables) == 1
        quick = QUICK.issuperset(map(type, iterables))
        items = iter(iterables[0]) if single else zip(*iterables)
        self._put(settings, ())  # raises what a submit would raise now
        fn = self._shared_if_big(fn)
        if self._max_pending is not None:
            most = max(self._max_pending // chunksize, 1)
            buffersize = most if buffersize is None else min(buffersize, most)
        known, apply_to = self._known(fn)
        numbers = single and apply_to is None and type(iterables[0]) is range
        job = MapJob(self._engine, known, (), settings, chunksize, single, apply_to, meter)
        try:
            if buffersize is None:
                self._add_all(job, iterables[0] if numbers else items, quick=quick)
                return results(job, None, deadline)
            self._add(job, list(itertools.islice(items, buffersize * chunksize)))
        except BaseException as error:
            job.give_up(error)
            raise
        feed = Feed(_feed(weakref.ref(self), job, items, chunksize))
        return results(job, feed, deadline)

    def _map_all(
        self,
        settings: Settings,
        meter: Meter | None,
        fn: Any,
        rows: Iterator[tuple[Any, ...]],
        policy: Policy,
        chunk_size: int,
    ) -> list[Any]:
        """The results of `fn(*row)` for each row, when all are there; see eachElem."""
        self._put(settings, ())  # raises what a submit would raise now
        known, apply_to = self._known(fn)
        job = Gathering(policy, self._engine, known, settings, chunk_size, apply_to, meter)
        try:
            self._add_all(job, rows, quick=False)
            return job.gather()
        except BaseException as error:
            job.give_up(error)
            raise

    def _known(self, fn: Any) -> tuple[Definition, Any]:
        """What workers are to call, and what they are to apply then, if they are to apply that."""
        definition = None if type(fn) is pickling.Shared else self._functions.define(fn)
        if definition is not None:
            return definition, None
        return self._functions.apply_as(fn), fn

    def _add_all(self, job: MapJob, items: Iterable[Any], *, quick: bool) -> None:
        """Put all items into a job, and its spans into line."""
        if type(items) is range:  # its numbers need not be made here, nor sent
            self._add(job, items)
        elif quick:
            self._add(job, [*items])
        else:
            for portion in _portions(iter(items), job.chunk):
                self._add(job, portion)
        if job.meter is not None:
            job.meter.expect(0, last=True)

    def _add(self, job: MapJob, items: list[Any] | range) -> None:
        """Put more items into a job and its span into line."""
        if not items:
            return
        if job.meter is not None:
            job.meter.expect(len(items))
        if type(items) is range:
            form = SINGLE
        else:
            form, items = self._in_form(job, items)
        if self._max_pending is None:
            self._put(job.settings, job.add(form, items))
        else:  # each chunk counts
            starts = range(0, len(items), job.chunk)
            spans = [job.add(form, items[i : i + job.chunk]) for i in starts]
            self._put(job.settings, [*itertools.chain.from_iterable(spans)])

    def _in_form(self, job: MapJob, items: list[Any]) -> tuple[int, list[Any]]:
        """The arguments of these calls as they travel, and in which form."""
        flat = items if job.single else [*itertools.chain.from_iterable(items)]
        if job.apply_to is not None or (form := simple_form(flat)) is None:
            return _shallow(job, items) or self._pickled(job, items)
        if job.single and form == PLAIN:
            return SINGLE, items
        return form, [(item,) for item in items] if job.single else items

    def _pickled(self, job: MapJob, items: list[Any]) -> tuple[int, list[Any]]:
        """The arguments of these calls as they travel, and in which form; the job needs it all.

        In the form PICKLED those that cannot be pickled are a Failure.
        """
        rows = [(item,) for item in items] if job.single else items
        if job.apply_to is not None:
            rows = [(job.apply_to, *row) for row in rows]
        if job.shares and self._engine.takes_rows:
            # As in the standard library, what travels together shares what it has in common.
            starts = range(0, len(rows), job.chunk)
            chunks = self._functions.dumps_small(
                (rows[i : i + job.chunk] for i in starts), most=BATCH_BYTES
            )
            if chunks is not None:
                job.need(chunks[1])
                return ROWS, [each for each in chunks[0] for _ in range(job.chunk)][: len(rows)]
        keywords: dict[str, Any] = {}
        if (small := self._functions.dumps_small((row, keywords) for row in rows)) is not None:
            job.need(small[1])
            return SMALL, small[0]
        payloads: list[Any] = []
        for row in rows:
            try:
                payload, needs = self._functions.dumps_call((row, keywords))
                payloads.append(self._fit(payload))
            except Exception as error:
                args = row if job.apply_to is None else row[1:]
                what = unpicklable(self._functions, args, keywords)
                payloads.append(Failure(not_pickled(job.definition.name, error, what)))
            else:
                job.need(needs)
        return PICKLED, payloads

    def _map_by_submit(
        self,
        fn: Any,
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        chunksize: int,
        buffersize: int | None,
    ) -> Iterator[Any]:
        """`map` as the standard library does it: every chunk is a call of `self.submit`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        rows = zip(*iterables)
        chunks = iter(lambda: list(itertools.islice(rows, chunksize)), [])
        ahead = chunks if buffersize is None else itertools.islice(chunks, buffersize)
        if chunksize == 1:
            futures = [self.submit(fn, *chunk[0]) for chunk in ahead]
        else:
            futures = [self.submit(_call_each, fn, chunk) for chunk in ahead]

        def take() -> Iterator[Any]:
            futures.reverse()
            try:
                while futures:
                    left = None if deadline is None else deadline - time.monotonic()
                    result = futures[-1].result(left)
                    futures.pop()
                    if buffersize is not None and (chunk := next(chunks, None)) is not None:
                        if chunksize == 1:
                            futures.insert(0, self.submit(fn, *chunk[0]))
                        else:
                            futures.insert(0, self.submit(_call_each, fn, chunk))
                    if chunksize == 1:
                        yield result
                    else:
                        yield from result
            finally:
                for future in futures:
                    future.cancel()

        return take()


def _shallow(job: MapJob, items: list[Any]) -> tuple[int, list[Any]] | None:
    """As `MapCalls._pickled`, where the only argument of each call is a shallow dict or list."""
    if not job.single or job.apply_to is not None:
        return None
    if job.shares and len(set(map(id, items))) < len(items):
        return None  # what travels together shares what it has in common
    copies = pickling.copies_of_shallow(items)
    return None if copies is None else (SHALLOW, copies)


def _portions(items: Iterator[Any], chunksize: int) -> Iterator[list[Any]]:
    """All items, in portions of those that are read in a while, in whole chunks."""
    portion: list[Any] = []
    count, begun, more = 1, time.monotonic(), True
    while more:
        some = list(itertools.islice(items, count))
        portion += some
        more = len(some) == count  # else it has ended: asked again, zip would read on
        if time.monotonic() - begun < READ_SECONDS:
            count = min(2 * count, READ_AT_ONCE)
            continue
        if whole := len(portion) // chunksize * chunksize:
            yield portion[:whole]
            portion = portion[whole:]
        count, begun = 1, time.monotonic()  # the next one may take long
    if portion:
        yield portion


def _feed(executor: Any, job: MapJob, items: Iterator[Any], chunksize: int) -> Iterator[bool]:
    """Each step puts one more chunk of a lazy map into its job."""
    while chunk := list(itertools.islice(items, chunksize)):
        alive = executor()
        if alive is None:
            raise RuntimeError(
                "cannot schedule new futures: the executor is gone; keep it until the results of "
                "its map are read, with buffersize and with max_pending"
            )
        start = len(job.items)
        try:
            alive._add(job, chunk)
        except BaseException as error:
            job.fail(start, error)
            raise
        del alive
        yield True


def _call_each(fn: Any, rows: list[Any]) -> list[Any]:
    return [fn(*row) for row in rows]
