"""The outcome of an eachElem, eachWorker or imap: many Futures as one collection or stream.

    rows ─▶ submit ─▶ futures, each told of one Arrivals ─▶ ended(future), in the order they end
                                      wait(), results(), as_completed(), accumulators ◀─┘

One object hears of all the ends, so that nobody puts a waiter on each of a million futures.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future

from sleighexec.errors import (
    ForkedProcessError,
    IllegalValueError,
    UnsupportedOptionError,
    timeout_error,
)
from sleighexec.forks import free_in_child
from sleighexec.future import Group, SleighFuture
from sleighexec.hints import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from sleighexec.engines.base import Engine
    from sleighexec.progress import Meter, Progress

SLICE = 1000  # calls that are handed to the engine at once: workers begin while we pickle the rest

Row = tuple[Any, ...]
Submit = Callable[[list[Row], Group], None]
Failure = Callable[[BaseException], object]  # what stands for an error in a list of results


class Arrivals:
    """A group of futures, and those of them that have ended, as they did. Thread-safe."""

    def __init__(self, engine: Engine, meter: Meter | None = None) -> None:
        self._engine, self.meter = engine, meter
        # Guards _waiters; reentrant, as the lock of futures and for its reason.
        self._lock = free_in_child(threading.RLock())
        self._waiters: list[_Waiter] = []
        self._wanted: float = math.inf  # the least number of arrivals that one of them wants
        self.all: list[SleighFuture[Any]] = []
        self.arrived: list[SleighFuture[Any]] = []
        self.failed: list[SleighFuture[Any]] = []

    def submitted(self, futures: list[SleighFuture[Any]]) -> None:
        self.all += futures
        if self.meter is not None:
            self.meter.expect(len(futures))

    def ended(self, future: SleighFuture[Any]) -> None:
        failed = _error_of(future) is not None
        if failed:
            self.failed.append(future)
        if self.meter is not None:
            self.meter.ended(1, failed)
        self.arrived.append(future)
        # We append, then ask; whoever waits asks, then looks: one of us sees the other.
        if len(self.arrived) >= self._wanted or (failed and self._waiters):
            self._wake()

    def wait(self, count: int, deadline: float | None = None, *, or_failure: bool = False) -> None:
        """Wait until so many have ended, or one of them failed.

        Raises:
            TimeoutError: They have not at `deadline` (on the monotonic clock).
        """
        there = threading.Lock()
        waiter = _Waiter(count, or_failure, there.release)
        if self._is_there(waiter):
            return
        self.check_ours()
        self._engine.serve_until(lambda: self._is_there(waiter), deadline)
        there.acquire()
        self._add(waiter)
        try:
            left = -1.0 if deadline is None else max(deadline - time.monotonic(), 0)
            if not there.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
                total = len(self.all)
                left_over = total - len(self.arrived)
                raise timeout_error(f"{left_over} of {total} calls have not ended in time")
        finally:
            self._remove(waiter)

    async def wait_async(self, count: int, *, or_failure: bool = False) -> None:
        """As `wait`, in a coroutine."""
        if len(self.arrived) < count:
            self.check_ours()
        import asyncio

        loop = asyncio.get_running_loop()
        there = loop.create_future()

        def arrive() -> None:
            if not there.done():
                there.set_result(None)

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(arrive)

        waiter = _Waiter(count, or_failure, tell)
        self._add(waiter)
        try:
            await there
        finally:
            self._remove(waiter)

    def check_ours(self) -> None:
        """Raise what a forked child is told."""
        if self._engine.forked:
            raise ForkedProcessError("these Futures belong to the parent process")

    def _is_there(self, waiter: _Waiter) -> bool:
        return len(self.arrived) >= waiter.count or (waiter.or_failure and bool(self.failed))

    def _add(self, waiter: _Waiter) -> None:
        self._engine.attend()
        with self._lock:
            self._waiters.append(waiter)
            self._wanted = min(self._wanted, waiter.count)
        self._wake()

    def _remove(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            self._wanted = min((each.count for each in self._waiters), default=math.inf)

    def _wake(self) -> None:
        with self._lock:
            ready = [waiter for waiter in self._waiters if self._is_there(waiter)]
            self._waiters = [waiter for waiter in self._waiters if waiter not in ready]
            self._wanted = min((each.count for each in self._waiters), default=math.inf)
        for waiter in ready:
            waiter.call()


class _Waiter:
    def __init__(self, count: int, or_failure: bool, call: Callable[[], object]) -> None:
        self.count, self.or_failure, self.call = count, or_failure, call


class Accumulator:
    """The plain accumulator: keeps what it is given; `value()` is the list in task order."""

    def __init__(self) -> None:
        self._pairs: list[tuple[int, Any]] = []

    def result(self, pairs: list[tuple[int, Any]]) -> None:
        """Take results, each as (number of the task, value)."""
        self._pairs += pairs

    def value(self) -> list[Any]:
        """What eachElem is to return."""
        return [value for _, value in sorted(self._pairs, key=lambda pair: pair[0])]


class Policy:
    """What becomes of outcomes: errors raised, returned or skipped; results listed or accumulated.

    Args:
        on_error: "raise", "return" or "skip".
        accumulator: None; a callable, which is called with `[(number, value)]` for each result as
            it comes; or an object with `result(pairs)` and perhaps `error(pairs)` and `value()`.
        failure: With "return": what stands in the place of an error; itself by default.
    """

    def __init__(
        self, on_error: str = "raise", accumulator: Any = None, failure: Failure | None = None
    ) -> None:
        if on_error not in ("raise", "return", "skip"):
            raise IllegalValueError(
                f'on_error must be "raise", "return" or "skip", not {on_error!r}'
            )
        self.raises, self.skips = on_error == "raise", on_error == "skip"
        self._failure = failure
        self.accumulates = accumulator is not None
        self._result = getattr(accumulator, "result", accumulator)
        if self.accumulates and not callable(self._result):
            raise IllegalValueError("an accumulator is callable or has a method result(list)")
        self._error = getattr(accumulator, "error", None)
        self.value: Callable[[], Any] = getattr(accumulator, "value", lambda: None)

    def outcome(self, future: SleighFuture[Any]) -> Any:
        """What stands for a future that has ended, in a list of results.

        Raises:
            BaseException: Its error, if errors are to be raised.
        """
        error = _error_of(future)
        if error is None:
            return future.result()
        try:
            return self.failed(error)
        finally:
            error = None

    def failed(self, error: BaseException) -> Any:
        """What stands for an error there.

        Raises:
            BaseException: The error, if errors are to be raised.
        """
        try:
            if self.raises:
                raise error
            return error if self._failure is None else self._failure(error)
        finally:
            del error  # its traceback holds this frame

    def accumulate(self, number: int, future: SleighFuture[Any]) -> None:
        """Give an outcome to the accumulator. Its errors are the caller's."""
        error = _error_of(future)
        if error is not None and self._error is not None:
            self._error([(number, error if self._failure is None else self._failure(error))])
        elif error is None or not self.skips:
            self._result([(number, self.outcome(future))])


class SleighPending(Sequence["Future[Any]"]):
    """The Futures of an eachElem or eachWorker, in task or rank order.

    It goes wherever a collection of Futures goes: `concurrent.futures.wait(pending)`,
    `as_completed(pending)`, `asyncio.gather(*pending)`; `await pending` gives what `wait()` does.
    """

    def __init__(
        self, engine: Engine, submit: Submit, policy: Policy, meter: Meter | None = None
    ) -> None:
        self._submit, self._policy = submit, policy
        self._arrivals = Arrivals(engine, meter)
        self._futures = self._arrivals.all
        self._numbers: dict[
            SleighFuture[Any], int
        ] = {}  # of futures, while results are accumulated
        self._accumulated = 0  # arrivals that the accumulator has had
        self._accumulating = free_in_child(threading.Lock())

    # ------------------------------------------------------------------ as a collection

    def __len__(self) -> int:
        return len(self._futures)

    @overload
    def __getitem__(self, index: int) -> SleighFuture[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[SleighFuture[Any]]: ...
    def __getitem__(self, index: int | slice) -> SleighFuture[Any] | list[SleighFuture[Any]]:
        return self._futures[index]

    def __iter__(self) -> Iterator[SleighFuture[Any]]:
        return iter(self._futures)

    def __repr__(self) -> str:
        total, done, failed = self.progress()
        return f"<SleighPending {done} of {total} done, {failed} failed>"

    # ------------------------------------------------------------------ how far it is

    def check(self) -> int:
        """How many calls are outstanding."""
        return len(self._futures) - len(self._arrivals.arrived)

    def done(self) -> bool:
        """Whether every call has ended."""
        return self.check() == 0

    def progress(self) -> Progress:
        """How many calls there are, how many have ended, and how many of these failed."""
        from sleighexec.progress import Progress

        arrivals = self._arrivals
        return Progress(len(self._futures), len(arrivals.arrived), len(arrivals.failed))

    # ------------------------------------------------------------------ what comes out

    def wait(self, timeout: float | None = None) -> Any:
        """The results in order, when all are there; or what the accumulator makes of them.

        Args:
            timeout: Seconds to wait; None: as long as it takes.

        Raises:
            TimeoutError: They are not there in time; wait again, nothing is lost.
            Exception: The first error to arrive, with `on_error="raise"`, the default; the other
                calls go on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        policy = self._policy
        if policy.accumulates:
            self._accumulate(len(self), deadline)
            return policy.value()
        self._arrivals.wait(len(self), deadline, or_failure=policy.raises)
        if policy.raises and self._arrivals.failed:
            policy.outcome(self._arrivals.failed[0])
        return [policy.outcome(future) for future in self._kept()]

    def results(self, timeout: float | None = None) -> Iterator[Any]:
        """The results in order, each as soon as it is there; errors as `on_error` says."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for future in self._futures:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if _error_of(future, left) is None or not self._policy.skips:
                yield self._policy.outcome(future)

    def as_completed(self, timeout: float | None = None) -> Iterator[SleighFuture[Any]]:
        """The Futures, each when it has ended.

        Raises:
            TimeoutError: The next one has not ended `timeout` seconds after this call.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for count in range(1, len(self) + 1):
            self._arrivals.wait(count, deadline)
            yield self._arrivals.arrived[count - 1]

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> Any:
        await self._arrivals.wait_async(len(self), or_failure=self._policy.raises)
        return self.wait()

    # ------------------------------------------------------------------ stopping it

    def cancel(self) -> int:
        """Cancel every call that no worker has yet; how many were cancelled by that."""
        return sum([not future.done() and future.cancel() for future in self._futures])

    def kill(self) -> int:
        """Stop every call, also those that run: their workers are replaced. How many it stopped."""
        stopped = self.cancel()
        return stopped + sum(not future.done() and future.kill() for future in self._futures)

    # ------------------------------------------------------------------ feeding it

    def feed(self, rows: Iterator[Row], window: float = math.inf) -> None:
        """Submit a call for each row, never more than `window` ahead of their outcomes.

        With a window this blocks until all but the last are done, and accumulates meanwhile. If it
        is interrupted, or `rows` fails, what was submitted is cancelled.
        """
        arrivals, policy = self._arrivals, self._policy
        try:
            while not (policy.raises and arrivals.failed and window < math.inf):
                room = int(min(SLICE, window - self.check()))
                row_slice = list(itertools.islice(rows, room))
                self._submit(row_slice, arrivals)
                if len(row_slice) < room:
                    if arrivals.meter is not None:
                        arrivals.meter.expect(0, last=True)
                    return
                if self.check() >= window:
                    arrivals.wait(len(self) - int(window) + 1, or_failure=policy.raises)
                    if policy.accumulates:
                        self._accumulate(len(arrivals.arrived))
        except BaseException as error:
            self._give_up(error)
            raise

    def gather(self) -> Any:
        """`wait()`; when that fails, what has not begun is cancelled; by a Ctrl-C what runs too."""
        try:
            return self.wait()
        except BaseException as error:
            self._give_up(error)
            raise

    def _give_up(self, error: BaseException) -> None:
        if self._arrivals.meter is not None:
            self._arrivals.meter.close()  # before what is cancelled counts as done
        if isinstance(error, KeyboardInterrupt):
            with contextlib.suppress(UnsupportedOptionError):  # by an engine that cannot
                self.kill()
        self.cancel()

    def _kept(self) -> list[SleighFuture[Any]]:
        if self._policy.skips and self._arrivals.failed:
            return [future for future in self._futures if _error_of(future) is None]
        return self._futures

    def _accumulate(self, count: int, deadline: float | None = None) -> None:
        """Give the first `count` arrivals to the accumulator as they come."""
        if self._accumulated < count:
            self._arrivals.check_ours()  # a thread of the parent may be at it
        with self._accumulating:
            while self._accumulated < count:
                self._arrivals.wait(self._accumulated + 1, deadline)
                future = self._arrivals.arrived[self._accumulated]
                self._accumulated += 1
                for known in range(len(self._numbers), len(self._futures)):
                    self._numbers[self._futures[known]] = known
                self._policy.accumulate(self._numbers[future], future)


class ResultIterator(Iterator[Any]):
    """The results of an imap or starmap in order; its arguments are read a window ahead.

    Safe from several threads: each result goes to one of them.
    """

    def __init__(self, rows: Iterator[Row], submit: Submit, policy: Policy, window: float) -> None:
        self._rows, self._submit, self._policy, self._window = rows, submit, policy, window
        # Held while the arguments are read, so that nobody takes that for the end; not by who
        # waits for a result. Reentrant: they may ask for results themselves.
        self._reading = free_in_child(threading.RLock())
        self._ahead: deque[SleighFuture[Any]] = deque()
        self._exhausted = False
        # Of the rows, or why no more could be submitted: raised at its place.
        self._problem: BaseException | None = None
        self.submitted = self.returned = 0
        self.stopped = False
        self._fill()

    @property
    def buffered(self) -> int:
        """Results that are there and have not been taken."""
        return sum(future.done() for future in [*self._ahead])

    def __iter__(self) -> ResultIterator:
        return self

    def __next__(self) -> Any:
        while (future := self._take()) is not None:
            try:
                failed = _error_of(future) is not None
            except BaseException:  # Ctrl-C: who asks next gets it
                with self._reading:
                    self._ahead.appendleft(future)
                raise
            self._fill(returned=1)
            if failed and self._policy.skips:
                continue
            try:
                return self._policy.outcome(future)
            except StopIteration as error:  # of the call: it must not look like our own end
                self.stop()
                raise RuntimeError("a call raised StopIteration") from error
            except BaseException:
                self.stop()
                raise
        self.stopped = True
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem
        raise StopIteration

    def shutdown(self) -> None:
        """Submit no more; the results of what was submitted can still be taken."""
        self._exhausted = True

    def stop(self) -> None:
        """End: what has not begun is cancelled, its results are dropped."""
        self._exhausted, self._problem = True, None
        with contextlib.suppress(IndexError):  # other threads take some of them
            while True:
                self._ahead.pop().cancel()
        self.stopped = True

    def __del__(self) -> None:
        for future in getattr(self, "_ahead", ()):
            future.cancel()

    def _take(self) -> SleighFuture[Any] | None:
        """The call whose result is next; None: there are no more."""
        with self._reading:
            if not self._ahead and not self._exhausted:  # other threads wait for all there are
                self._read(1)
            return self._ahead.popleft() if self._ahead else None

    def _fill(self, returned: int = 0) -> None:
        """So many results were returned: submit as many calls as may be ahead of them."""
        with self._reading:
            self.returned += returned
            while not self._exhausted and (ahead := self.submitted - self.returned) < self._window:
                self._read(int(min(SLICE, self._window - ahead)))

    def _read(self, count: int) -> None:
        """Read and submit so many more calls."""
        row_slice: list[Row] = []
        try:
            for row in itertools.islice(self._rows, count):
                row_slice.append(row)
        except Exception as error:
            self._problem = error
        self._exhausted |= len(row_slice) < count
        before = len(self._ahead)
        try:
            self._submit(row_slice, _Ahead(self._ahead))
        except Exception as error:
            if not self.submitted:
                raise
            # From the first of these on that no worker has, there will be no results.
            self._problem, self._exhausted = error, True
            latest = [self._ahead.pop() for _ in range(before, len(self._ahead))][::-1]
            taken = [*itertools.takewhile(lambda future: not future.cancel(), latest)]
            for future in latest[len(taken) :]:
                future.cancel()
            self._ahead += taken
            self.submitted += len(taken)
        else:
            self.submitted += len(row_slice)


class _Ahead:
    """The group of a ResultIterator's futures: a deque of them."""

    def __init__(self, ahead: deque[SleighFuture[Any]]) -> None:
        self.submitted = ahead.extend

    def ended(self, future: SleighFuture[Any]) -> None:
        pass  # each is waited for in its turn


def _error_of(future: SleighFuture[Any], timeout: float | None = None) -> BaseException | None:
    """Why a future has no result, when it has ended; None: it has one."""
    try:
        return future.exception(timeout)
    except CancelledError as error:
        return error
