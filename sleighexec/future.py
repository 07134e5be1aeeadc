"""The executor's Future: one submitted call; and the chunk, a row of them that travel together.

To everybody else it is a `concurrent.futures.Future`; it only puts off what costs most, its
condition, until somebody touches it. So a million of them fit, and a submit takes a microsecond.
Who waits for many at once (pending.py) is told by each as it ends, without a condition either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future, TimeoutError, wait
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    LOGGER,
    PENDING,
    RUNNING,
)

from sleighexec.engines.outcomes import lost_error, put_off
from sleighexec.errors import ForkedProcessError
from sleighexec.forks import free_in_child
from sleighexec.functions import Definition, GlobalValue
from sleighexec.hints import TYPE_CHECKING, Any, Protocol, TypeVar
from sleighexec.task import Loss, Parts, Settings, may_try_again

if TYPE_CHECKING:
    from sleighexec.engines.base import Engine

T = TypeVar("T")

LIVE = frozenset({PENDING, RUNNING})

# Guards the state of all futures whose condition does not exist yet. Reentrant: the collector of
# garbage may come wherever something is made, and run what cancels or asks another future.
_lock = free_in_child(threading.RLock())


class Group(Protocol):
    """Whoever waits for many futures."""

    def submitted(self, futures: list[SleighFuture[Any]]) -> None:
        """These are about to be put. Before it happens, so that a Ctrl-C loses none of them."""

    def ended(self, future: SleighFuture[Any]) -> None:
        """This one is done, failed or cancelled. Called once, by any thread; never blocks."""


class SleighFuture(Future[T]):
    """The outcome of one call, now or later. Made by `SleighExecutor.submit`."""

    __slots__ = (
        "_bells",
        "_definition",
        "_done_callbacks",
        "_engine",
        "_exception",
        "_form",
        "_group",
        "_item",
        "_killed",
        "_losses",
        "_made_condition",
        "_needs",
        "_output",
        "_result",
        "_settings",
        "_state",
        "_waiters",
    )

    def __init__(
        self,
        engine: Engine,
        definition: Definition,
        needs: tuple[GlobalValue, ...],
        form: int,
        item: Any,
        settings: Settings,
        group: Group | None = None,
    ) -> None:
        self._engine = engine
        self._definition: Definition | None = definition
        self._needs, self._form, self._item = needs, form, item
        self._settings = settings
        self._losses: tuple[Loss, ...] = ()  # workers that it has cost
        self._group, self._killed = group, False
        self._state = PENDING
        self._made_condition: threading.Condition | None = None
        self._bells: tuple[threading.Lock, ...] = ()  # of threads that wait
        self._result = self._exception = None

    # ------------------------------------------------------------------ as a Future

    if not TYPE_CHECKING:  # for checkers it is an attribute, as `as_completed` wants it

        @property
        def _condition(self) -> Any:
            if self._engine.forked:
                return self._condition_in_child()
            if self._made_condition is None:
                waiters, callbacks, condition = [], [], threading.Condition()
                with _lock:
                    if self._made_condition is None:
                        self._waiters, self._done_callbacks = waiters, callbacks
                        self._made_condition = condition
                self._engine.attend()
            return self._made_condition

    def _condition_in_child(self) -> Any:
        """In a forked child: our own may be held for ever by a thread that is not here.

        Raises:
            ForkedProcessError: There will be no outcome here.
        """
        self._check_ours()
        if self._made_condition is not _unneeded:
            self._waiters: list[Any] = []
            self._done_callbacks: list[Callable[[Any], object]] = []
            self._made_condition = _unneeded
        return _unneeded

    def _check_ours(self) -> None:
        if self._engine.forked and not self.done():
            raise ForkedProcessError(
                "this Future belongs to the parent process; make an executor in this one"
            )

    def __repr__(self) -> str:
        if self._engine.forked and not self.done():
            return f"<{type(self).__name__} of the parent process>"
        return super().__repr__()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Future cannot be sent to a task; make it an argument of submit itself, which waits "
            "for it, or send its result()"
        )

    def done(self) -> bool:
        """Whether it has ended: returned, failed or cancelled."""
        return self._state not in LIVE

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Whether a worker has it."""
        return self._state == RUNNING

    def result(self, timeout: float | None = None) -> T:
        """The value that the call returned, when it is there.

        Raises:
            Exception: Whatever the call raised.
            TimeoutError: It is not there after `timeout` seconds.
            CancelledError: It was cancelled.
            WorkerLost: The worker died while it ran the call.
        """
        if self._state != FINISHED:
            self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment] # the traceback must not keep us alive
        return self._result  # type: ignore[return-value] # it is there

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, None if it returned; waits as `result` does."""
        if self._state != FINISHED:
            self._wait(timeout)
        return self._exception

    @property
    def output(self) -> str:
        """What the call printed, to standard output and error: the last 64 KiB of it.

        Once it is done; before, and if it printed nothing, "". It is what went through Python's
        streams, not what C code or other processes wrote. If its worker died, what it had printed
        until then.
        """
        # The slot is only filled for calls that print: most never do.
        printed: bytes = getattr(self, "_output", b"")
        return printed.decode("utf-8", "ignore") if self.done() else ""

    def _wait(self, timeout: float | None) -> None:
        """Wait for the outcome, or raise what `result` raises where none comes.

        A lone call comes and goes without a change of threads. Not by the condition: that can
        stay locked if a signal handler raises, and whoever delivers would wait for it.
        """
        engine = self._engine
        self._check_ours()
        deadline = None if timeout is None else time.monotonic() + timeout
        engine.serve_until(self.done, deadline)
        if not self.done():
            engine.attend()
            self._sleep(deadline)
        if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
            raise CancelledError
        if self._state != FINISHED:
            raise TimeoutError

    def _sleep(self, deadline: float | None) -> None:
        there = threading.Lock()
        there.acquire()
        try:
            with _lock:
                if self.done():
                    return
                self._bells = (*self._bells, there)
            left = -1.0 if deadline is None else max(deadline - time.monotonic(), 0)
            there.acquire(timeout=min(left, threading.TIMEOUT_MAX))
        finally:
            with _lock:
                self._bells = tuple(bell for bell in self._bells if bell is not there)

    def cancel(self) -> bool:
        """Cancel the call if no worker has it yet; whoever waits for it is told at once."""
        if self._engine.forked:  # the call is the parent's
            return self.cancelled()
        with _lock:
            if self._state in (RUNNING, FINISHED):
                return False
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                return True
            self._state = CANCELLED_AND_NOTIFIED
        self._tell_cancelled()
        return True

    def kill(self) -> bool:
        """Cancel the call even if it runs: its worker is killed and replaced, no other call is.

        Returns whether it was stopped; False if it had finished. Blocks until that is known.
        """
        self._check_ours()
        if not self.cancel():
            self._killed = True  # what its worker's death means from here on
            pause = 0.005
            while not (self.done() or self.cancel()):
                self._engine.kill(self)
                if self._engine.in_loop():
                    self._engine.serve_until(self.done, time.monotonic() + pause)
                else:
                    wait((self,), pause)
                pause = min(2 * pause, 0.1)
        return self.cancelled()

    def __await__(self) -> Generator[Any, None, T]:
        """The result, in a coroutine: `await executor.submit(fn)`."""
        import asyncio

        return asyncio.wrap_future(self).__await__()

    def _tell_cancelled(self) -> None:
        """It has become cancelled: tell everybody."""
        with _lock:
            condition, call = self._made_condition, self._taken_call()
        del call  # without the lock: its end may run anything
        if condition is not None:
            with condition:
                for waiter in self._waiters:
                    waiter.add_cancelled(self)
                condition.notify_all()
            self._invoke_callbacks()
        else:
            self._ring()
        self._leave_group()

    def _ring(self) -> None:
        """Wake who waits for it."""
        if self._bells:
            with _lock:
                bells, self._bells = self._bells, ()
            for bell in bells:
                bell.release()

    def _leave_group(self) -> None:
        group, self._group = self._group, None  # it holds us: no cycle may stay
        if group is not None:
            group.ended(self)

    def set_running_or_notify_cancel(self) -> bool:
        with _lock:
            if self._state == PENDING:
                self._state = RUNNING
        return bool(self._state == RUNNING)

    def _invoke_callbacks(self) -> None:
        self._ring()
        self._leave_group()  # before that: a callback may ask the group, or wait for all of it
        if self._done_callbacks and not put_off(self._call_back):
            self._call_back()

    def _call_back(self) -> None:
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException:  # SystemExit in a callback must not end the serving thread
                LOGGER.exception("exception calling callback for %r", self)

    # ------------------------------------------------------------------ as a Task and its Sink

    def begin(self, limit: int) -> tuple[Any, Any]:
        with _lock:
            if self._state != PENDING:
                return None, None
            self._state = RUNNING
        return self, None

    def give_back(self) -> None:
        with _lock:
            if self._state == RUNNING:
                self._state = PENDING

    def fill(self, needs: tuple[GlobalValue, ...], item: Any) -> bool:
        """What it waited for is there, and with it its arguments; False: it has ended already."""
        with _lock:
            if self._state != PENDING:
                return False
            self._needs = tuple(dict.fromkeys((*self._needs, *needs)))
            self._item, self._group = item, None
        return True

    def parts(self) -> Parts:
        assert self._definition is not None
        return self._definition, self._needs, self._form, (self._item,), self._settings

    def called(self) -> Definition | None:
        return self._definition

    def advance(self, most: int) -> tuple[SleighFuture[Any], int, int, bool]:
        return self, 0, 1, True

    def size(self) -> int:
        return 1

    def printed(self, text: bytes) -> None:
        self._output = text

    def split(self, count: int) -> tuple[Any, Any]:
        return None, self

    def deliver(self, index: int, value: Any, error: BaseException | None) -> None:
        with _lock:
            if self._state not in LIVE:  # its pool was broken before this came
                return
            call = self._taken_call()
            quick = self._made_condition is None
            if quick:
                self._result, self._exception = value, error
                self._state = FINISHED
        del call  # without the lock: its end may run anything
        if quick:
            if self._bells:
                self._ring()
        elif error is not None:
            self.set_exception(error)
        else:
            self.set_result(value)
        if self._group is not None:
            self._leave_group()

    def deliver_run(self, index: int, values: list[Any], *, objects: bool = False) -> None:
        self.deliver(0, values[0], None)

    def lost(self, loss: Loss, *, again: bool) -> tuple[list[Any], Any]:
        self._output = loss.printed
        if self._killed:
            return [], self._die
        self._losses += (loss,)
        if again and may_try_again(self._losses, self._settings):
            self._output = b""
            self.give_back()
            return [self], None
        return [], self._lose

    def _lose(self) -> None:
        if not self.done():  # else it was told before that the pool is broken
            self.deliver(0, None, lost_error(self.parts(), self._losses))

    def _die(self) -> None:
        with _lock:
            if self._state not in LIVE:
                return
            self._state = CANCELLED_AND_NOTIFIED
        self._tell_cancelled()

    def position(self, future: Any) -> int | None:
        return 0 if future is self else None

    def fail(self, error: Callable[[], BaseException]) -> None:
        with _lock:
            if self._state not in LIVE:
                return
            self._state = RUNNING  # cancel() must say no from here on
        self.deliver(0, None, error())

    def withdraw(self) -> None:
        self.cancel()

    def _taken_call(self) -> Any:
        """The arguments, which belong to their owner again: we have them no more. Under the lock.

        Its definition goes with them, which nothing but the executor's table keeps.
        """
        call = self._definition, self._item, self._needs
        self._definition = self._item = None
        self._needs = ()
        return call


class _Unneeded:
    """Stands for the condition of a future that has ended, in a forked child: it stays as it is."""

    def acquire(self) -> None:
        pass

    def release(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


_unneeded: Any = _Unneeded()


class Chunk:
    """A row of futures of one function that begin together, as a task."""

    __slots__ = ("_futures",)

    def __init__(self, futures: list[SleighFuture[Any]]) -> None:
        self._futures = futures  # those that are not answered yet

    def begin(self, limit: int) -> tuple[Any, Any]:
        self._futures = [future for future in self._futures if future.begin(1)[0] is not None]
        return (self if self._futures else None), None

    def give_back(self) -> None:
        for future in self._futures:
            future.give_back()

    def parts(self) -> Parts:
        calls = [future.parts() for future in self._futures]
        needs = dict.fromkeys(value for _, some, *_ in calls for value in some)
        definition, _, form, _, settings = calls[0]
        return definition, tuple(needs), form, [items[0] for *_, items, _ in calls], settings

    def called(self) -> Definition | None:
        return next(filter(None, [future.called() for future in self._futures]), None)

    def advance(self, most: int) -> tuple[SleighFuture[Any], int, int, bool]:
        return self._futures.pop(0), 0, 1, not self._futures

    def size(self) -> int:
        return len(self._futures)

    def split(self, count: int) -> tuple[Any, Any]:
        if count >= len(self._futures):
            return None, self
        cut = Chunk(self._futures[-count:])
        cut.give_back()
        del self._futures[-count:]
        return self, cut

    def printed(self, text: bytes) -> None:
        self._futures[0].printed(text)

    def position(self, future: Any) -> int | None:
        return self._futures.index(future) if future in self._futures else None

    def lost(self, loss: Loss, *, again: bool) -> tuple[list[Any], Any]:
        back, tell = self._futures.pop(0).lost(loss, again=again)
        self.give_back()
        return [*back, self] if self._futures else back, tell

    def fail(self, error: Callable[[], BaseException]) -> None:
        for future in self._futures:
            future.fail(error)

    def withdraw(self) -> None:
        for future in self._futures:
            future.withdraw()
