"""One function over a row of items: the job behind `map`, and the spans it is cut into.

    map(fn, items) ─▶ MapJob(items, results) ◀─deliver(index, …)─ engine
                        └ Span(0, n) in line; a worker that asks cuts off as much as it wants

There is no Future for an item, and no chunk size to guess: a span is cut when a worker asks, by
how long its calls were found to take.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import TimeoutError

from sleighexec.engines.outcomes import lost_error
from sleighexec.errors import ForkedProcessError, UnsupportedOptionError
from sleighexec.functions import LIGHT, PICKLED, ROWS, Definition, GlobalValue, weight
from sleighexec.hints import TYPE_CHECKING, Any
from sleighexec.task import BATCH_BYTES, Loss, Parts, Settings, may_try_again

if TYPE_CHECKING:
    from sleighexec.engines.base import Engine
    from sleighexec.progress import Meter

LEAST_SHARE = 16  # a worker that wants so many items gets one at least

_WAITING = object()  # stands for a result that is not there yet
TAKEN = object()  # …that its reader has


class Failure:
    """In place of a result: what the call raised; of an item: why it cannot be sent."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Run:
    """Results that came together: it stands in the place of the first of them."""

    __slots__ = ("objects", "values")

    def __init__(self, values: list[Any], objects: bool) -> None:
        """`objects`: there are others than numbers and texts among them."""
        self.values, self.objects = values, objects

    def __iter__(self) -> Iterator[Any]:
        """One after the other, once. An object is held no longer when it has been taken."""
        if not self.objects:
            return iter(self.values)
        self.values.reverse()
        return map(list.pop, itertools.repeat(self.values, len(self.values)))

    def __len__(self) -> int:
        return len(self.values)


class MapJob:
    """The items of one `map`, their results as they come, and who waits for them."""

    def __init__(
        self,
        engine: Engine,
        definition: Definition,
        needs: tuple[GlobalValue, ...],
        settings: Settings,
        chunk: int = 1,
        single: bool = False,
        apply_to: Any = None,
        meter: Meter | None = None,
        *,
        shares: bool = True,
    ) -> None:
        """`chunk` above 1: so many items travel together, or several times as many.

        `single`: each item is the only argument, not a tuple of all. `apply_to` is one before it.
        `shares`: what travels together may have in common there what it has in common here.
        """
        self.meter = meter
        self.engine, self.definition, self.needs = engine, definition, needs
        self.settings, self.chunk = settings, chunk
        self.single, self.apply_to = single, apply_to
        self.shares = shares and chunk > 1
        self.items: list[Any] | range = []
        self.results: list[Any] = []
        self.losses: dict[int, tuple[Loss, ...]] = {}  # item -> workers that it has cost
        self.cancelled = False
        self._condition = threading.Condition()  # guards _wanted
        self._wanted = -1  # the item that the reader sleeps for

    def add(self, form: int, items: list[Any] | range) -> list[Span]:
        """Append items, which are in this form; the spans of them, to be put into line.

        The list is the job's from now on. A Failure among items that are PICKLED is the outcome.
        """
        start = len(self.items)
        if not start:  # often there are no others, and many of these
            self.items = items
        elif type(self.items) is list:
            self.items += items
        else:
            self.items = [*self.items, *items]
        self.results += [_WAITING] * len(items)
        spans, stop = [], len(self.items)
        if form == PICKLED:
            for index in range(start, stop):
                item = self.items[index]
                if type(item) is Failure:
                    self.deliver(index, None, item.error)
                    spans.append(Span(self, form, start, index))
                    start = index + 1
        spans.append(Span(self, form, start, stop))
        return [span for span in spans if span.size()]

    def need(self, needs: tuple[GlobalValue, ...]) -> None:
        """Its calls need these, too."""
        if needs and not set(needs).issubset(self.needs):
            self.needs = tuple(dict.fromkeys((*self.needs, *needs)))

    def deliver(self, index: int, value: Any, error: BaseException | None) -> None:
        if self.results[index] is not _WAITING:
            return
        if type(self.items) is list:
            self.items[index] = None
        self.results[index] = value if error is None else Failure(error)
        if self.meter is not None:
            self.meter.ended(1, error is not None)
        if self._wanted == index:
            self.wake()

    def deliver_run(self, index: int, values: list[Any], *, objects: bool = False) -> None:
        end = index + len(values)
        if self.cancelled:  # some of them may have been given an error
            for number, value in enumerate(values, index):
                self.deliver(number, value, None)
            return
        if type(self.items) is list:
            self.items[index:end] = [None] * len(values)
        self.results[index] = values[0] if len(values) == 1 else Run(values, objects)
        if self.meter is not None:
            self.meter.ended(len(values))
        if index <= self._wanted < end:
            self.wake()

    def wake(self) -> None:
        """Have who waits look again."""
        with self._condition:
            self._condition.notify_all()

    def fail(self, start: int, error: BaseException) -> None:
        """The items from this one on could not be put into line, or not all."""
        for index in range(start, len(self.items)):
            self.deliver(index, None, error)

    def take(self, index: int, deadline: float | None) -> Run:
        """The results from one item on that came together, when the first one is there.

        Their place forgets them.

        Raises:
            TimeoutError: It is not there at `deadline` (on the monotonic clock).
            BaseException: What the call raised.
        """
        if not self.is_there(index):
            self.wait(index, deadline)
        found, self.results[index] = self.results[index], TAKEN
        if type(found) is Run:
            return found
        if type(found) is Failure:
            try:
                raise found.error
            finally:
                found = None
        return Run([found], objects=True)

    def is_there(self, index: int) -> bool:
        """Whether who waits for the result of this item need not wait any more."""
        return self.results[index] is not _WAITING

    def wait(self, index: int, deadline: float | None) -> None:
        """Wait until that is so.

        Raises:
            TimeoutError: It is not at `deadline` (on the monotonic clock).
        """
        engine = self.engine
        if engine.forked:
            raise ForkedProcessError("this map belongs to the parent process")
        engine.serve_until(lambda: self.is_there(index), deadline)
        engine.attend()
        with self._condition:
            self._wanted = index
            while not self.is_there(index):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._condition.wait(left)
            self._wanted = -1

    def cancel(self) -> None:
        """Nobody wants the rest: what has not begun will not."""
        self.cancelled = True
        if self.meter is not None:
            self.meter.close()

    def give_up(self, error: BaseException) -> None:
        """That ends the map: what has not begun will not, after Ctrl-C what runs is stopped."""
        if isinstance(error, KeyboardInterrupt):
            self.kill()
        else:
            self.cancel()

    def kill(self) -> None:
        """Nobody wants the rest: what has not begun will not, what runs is stopped."""
        self.cancel()
        with contextlib.suppress(UnsupportedOptionError):  # by an engine that cannot
            while self.engine.kill(self):
                time.sleep(0.005)


class Span:
    """A row of items of a job, all in one form: the task that stands in line."""

    __slots__ = ("form", "job", "start", "stop")

    def __init__(self, job: MapJob, form: int, start: int, stop: int) -> None:
        self.job, self.form, self.start, self.stop = job, form, start, stop

    def size(self) -> int:
        return self.stop - self.start

    def begin(self, limit: int) -> tuple[Any, Any]:
        job = self.job
        if job.cancelled:
            return None, None
        count = self.stop - self.start
        # A share that leaves something for everybody, down to what takes next to no time.
        share = -(-count // (2 * job.engine.max_workers or 1))
        limit = min(limit, max(share, limit // LEAST_SHARE))
        if self.form not in LIGHT:
            limit = self._light(limit)
        if job.chunk > 1:
            limit = max(limit // job.chunk, 1) * job.chunk
        if count <= limit:
            return self, None
        part = Span(job, self.form, self.start, self.start + limit)
        self.start = part.stop
        return part, self

    def _light(self, limit: int) -> int:
        """How many of the first `limit` items make a batch that is not too big."""
        size, form = 0, self.form
        for number in range(min(limit, self.stop - self.start)):
            item: Any = self.job.items[self.start + number]
            size += len(item) // self.job.chunk if form == ROWS else weight(form, item)
            if size > BATCH_BYTES:
                return number + 1
        return limit

    def give_back(self) -> None:
        pass

    def parts(self) -> Parts:
        job = self.job
        items = job.items[self.start : self.stop]
        if self.form == ROWS:
            items = self._rows()
        return job.definition, job.needs, self.form, items, job.settings

    def _rows(self) -> list[Any]:
        """Each pickle that it has calls of, and which of those in it these are."""
        rows, at, chunk = [], self.start, self.job.chunk
        while at < self.stop:
            first = at % chunk
            count = min(chunk - first, self.stop - at)
            rows.append((self.job.items[at], first, first + count))
            at += count
        return rows

    def called(self) -> Definition | None:
        return self.job.definition

    def advance(self, most: int) -> tuple[MapJob, int, int, bool]:
        first, count = self.start, min(most, self.stop - self.start)
        self.start += count
        return self.job, first, count, self.start == self.stop

    def printed(self, text: bytes) -> None:
        pass  # nobody could ask for it

    def position(self, whom: Any) -> int | None:
        return 0 if whom is self.job else None

    def split(self, count: int) -> tuple[Any, Any]:
        if count >= self.stop - self.start:
            return None, self
        cut = Span(self.job, self.form, self.stop - count, self.stop)
        self.stop -= count
        return self, cut

    def lost(self, loss: Loss, *, again: bool) -> tuple[list[Any], Any]:
        job = self.job
        alone = Span(job, self.form, self.start, self.start + 1)
        self.start = alone.stop
        rest = [self] if self.start < self.stop else []
        losses = job.losses[alone.start] = (*job.losses.get(alone.start, ()), loss)
        if again and may_try_again(losses, job.settings):
            return [alone, *rest], None
        return rest, alone.lose

    def lose(self) -> None:
        """Tell that its first item will have no result."""
        self.job.deliver(
            self.start, None, lost_error(self.parts(), self.job.losses.pop(self.start))
        )

    def fail(self, error: Callable[[], BaseException]) -> None:
        for index in range(self.start, self.stop):
            self.job.deliver(index, None, error())

    def withdraw(self) -> None:
        from concurrent.futures import CancelledError

        self.fail(CancelledError)


class Feed:
    """Puts the next items of a lazy map into its job; what it raises waits for its place."""

    def __init__(self, more: Iterator[Any]) -> None:
        """`more`: each step puts some in."""
        self._more = more
        self._problem: Exception | None = None

    def __call__(self) -> bool:
        """Put in some; whether there were any."""
        try:
            return next(self._more, None) is not None
        except Exception as error:
            self._problem = error
            return False

    def end(self) -> None:
        """All that was put in has been taken: raise what has kept us from putting in more."""
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem


class _Rows:
    """What the results of a map are chained from; for one thread at a time.

    The chain would end, as if there were no more, for whoever waits in it while another one asks.
    """

    def __init__(self, runs: Iterator[Iterator[Any]]) -> None:
        self._runs = runs
        self._asked = 0  # threads, or handlers of signals, that are here
        self._crossed = False

    def __iter__(self) -> _Rows:
        return self

    def __next__(self) -> Iterator[Any]:
        self._asked += 1
        try:
            self._crossed = self._crossed or self._asked > 1
            row = None if self._crossed else next(self._runs)
            if row is None or self._crossed:
                raise ValueError("the results of a map were asked for by two threads at a time")
            return row
        finally:
            self._asked -= 1


class Results(itertools.chain[Any]):
    """The results of a map, in order: an iterator that can be closed, as a generator can."""

    __slots__ = ("__weakref__", "_runs")
    _runs: Generator[Iterator[Any], None, None]

    @classmethod
    def of(cls, runs: Generator[Iterator[Any], None, None]) -> Results:
        """The results that stand in these rows."""
        self = cls.from_iterable(_Rows(runs))
        assert isinstance(self, Results)
        self._runs = runs
        return self

    def close(self) -> None:
        """Nobody wants any more of them."""
        self._runs.close()
        deque(self, maxlen=0)  # what is left of the present row


def results(job: MapJob, more: Feed | None, deadline: float | None) -> Results:
    """The results of a job in order; `more` puts the next items into it, one span at a time."""
    return Results.of(_runs(job, more, deadline))


def _runs(
    job: MapJob, more: Feed | None, deadline: float | None
) -> Generator[Iterator[Any], None, None]:
    """The results of a job in rows: from one result of a row to the next no line of Python runs."""
    try:
        index, there = 0, job.results
        while index < len(there) or (more is not None and more()):
            run = job.take(index, deadline)
            end = index + len(run)
            if more is None:
                yield iter(run)
                index = end
                continue
            each = iter(run)
            while index < end:
                count = min(job.chunk - index % job.chunk, end - index)
                index += count
                if index % job.chunk == 0:
                    more()  # before that is looked at: as many as may are ahead of it then
                yield itertools.islice(each, count)
        if more is not None:
            more.end()
    except BaseException as error:
        job.give_up(error)
        raise
    job.cancel()
