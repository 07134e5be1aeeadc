"""Outcomes of calls on their last step: rebuilt from bytes and handed to who waits for them."""

from __future__ import annotations

import logging
import reprlib
import threading
from collections import deque
from collections.abc import Callable, Sequence

from sleighexec import payload as pickling
from sleighexec import raised, records, runs
from sleighexec.functions import ALONE, PICKLED, ROWS, SMALL
from sleighexec.hints import Any
from sleighexec.messages import Payload, Report
from sleighexec.task import MEMORY, OOM, TIMEOUT, Loss, Parts, Sink, Task, is_deadly

log = logging.getLogger("sleighexec")
output_log = logging.getLogger("sleighexec.output")

# Who waits, for which of its calls, and the record that came: flag, bytes (or values), buffers.
Outcome = tuple[Sink, int, int, Any, Sequence[Any]]

# As ProcessPoolExecutor has it: what is said of a pool that a crash is to break.
BROKEN_BY_CRASH = (
    "A process in the process pool was terminated abruptly while the future was running or pending."
)


NESTED = 10  # callbacks that wait within each other: how many may have others begin meanwhile


class _Mine(threading.local):
    """Of each thread: what it hands over, and the callbacks that it has put off.

    Attributes:
        unfinished: The lists that it hands over, outermost first.
        puts_off: A callback waits: those of others are not to begin yet.
        callbacks: What calls them, first to last.
        nested: How often it calls such ones, within each other.
    """

    def __init__(self) -> None:
        self.unfinished: list[list[Outcome]] = []
        self.puts_off = False
        self.callbacks: deque[Callable[[], None]] = deque()
        self.nested = 0


_mine = _Mine()


def deliver(done: list[Outcome]) -> None:
    """Rebuild outcomes in their order, and hand them over; the list is empty then.

    Runs users' code, so without the lock.
    """
    if len(done) == 1:  # nobody can wait for what comes behind it
        _hand_over(done)
    else:
        done.reverse()
        _mine.unfinished.append(done)
        try:
            _hand_over(done)
        finally:
            _mine.unfinished.pop()
    if _mine.callbacks:
        _call_back(lambda: False)


def deliver_lone(sink: Sink, index: int, value: Any) -> None:
    """Hand over what stands for one value: the straight path of who waits for each of them."""
    try:
        if type(value) is list:
            _deliver_mixed(sink, index, [value])
        else:
            sink.deliver(index, value, None)
    except BaseException:  # as in _hand_over
        log.critical("sleighexec: an outcome could not be handed over", exc_info=True)
    if _mine.callbacks:
        _call_back(lambda: False)


def put_off(callbacks: Callable[[], None]) -> bool:
    """Whether these are called later, since another callback waits."""
    if _mine.puts_off:
        _mine.callbacks.append(callbacks)
    return _mine.puts_off


def go_on(is_over: Callable[[], bool]) -> None:
    """A callback is about to wait: hand over what this thread has not come to since it runs.

    It may wait for a call whose outcome has come together with that of its own. Callbacks of these
    begin when all are handed over, if it must wait still: they may wait too, and a thread has room
    for so many only.
    """
    if _mine.unfinished:
        before, _mine.puts_off = _mine.puts_off, True
        try:
            for done in [*_mine.unfinished]:
                _hand_over(done)
        finally:
            _mine.puts_off = before
    _call_back(is_over)


def _call_back(is_over: Callable[[], bool]) -> None:
    """Begin the callbacks that were put off, until nobody waits for them."""
    if _mine.nested < NESTED:
        _mine.nested += 1
        try:
            while _mine.callbacks and not is_over():
                _mine.callbacks.popleft()()
        finally:
            _mine.nested -= 1


def _hand_over(done: list[Outcome]) -> None:
    while done:
        try:
            _deliver(done)
        except BaseException:  # whatever has happened to one, the others are waited for
            log.critical("sleighexec: an outcome could not be handed over", exc_info=True)


def _deliver(done: list[Outcome]) -> None:
    """All of them, from the last to the first, or to one that could not be handed over.

    Errors that are rebuilt keep this frame alive, since their tracebacks do: it must not hold the
    results of others.
    """
    while done:
        sink, index, flag, data, buffers = done.pop()
        if flag == runs.RUN:
            if len(data) == 1:
                sink.deliver(index, data[0], None)
            else:
                sink.deliver_run(index, data)
            continue
        if flag == runs.MIXED:
            _deliver_mixed(sink, index, data)
            continue
        value = error = None
        try:
            if flag == runs.BAD:
                error = _remote_error(data)
            else:
                value = pickling.loads(Payload(data, buffers))
        except BaseException as problem:  # SystemExit while unpickling must not end this thread
            error = _not_rebuilt(problem, data)
        sink.deliver(index, value, error)
        value = error = None
    data = buffers = None  # type: ignore[assignment]


def _deliver_mixed(sink: Sink, index: int, data: list[Any]) -> None:
    """Results of a run, some of which are pickled."""
    values: list[Any] = []
    broken: list[tuple[int, BaseException]] = []
    for value in data:
        if type(value) is list:
            try:
                value = runs.load_mixed(value)
            except BaseException as problem:
                broken.append((len(values), _not_rebuilt(problem, value[0])))
        values.append(value)
    begin = 0
    for end, error in [*broken, (len(values), None)]:
        if end > begin + 1:
            sink.deliver_run(index + begin, values[begin:end], objects=True)
        elif end > begin:
            sink.deliver(index + begin, values[begin], None)
        if error is not None:
            sink.deliver(index + end, None, error)
        begin = end + 1


def _not_rebuilt(problem: BaseException, data: Any) -> BaseException:
    from sleighexec.broken import SerializationError

    text = f"the result could not be rebuilt here: {type(problem).__name__}: {problem}"
    error = SerializationError(text, bytes(data))
    error.__cause__ = problem
    return error


def hand_on(output: Any, rank: int, report: Report) -> None:
    """What tasks have printed and logged. Runs users' code, so without the lock."""
    for item in pickling.loads(report.values[0]):
        try:
            if type(item) is not str:
                records.replay(item)
            elif callable(output):
                output(rank, item)
            else:
                output_log.info("%s", item, extra={"sleigh_worker": rank})
        except BaseException:  # SystemExit of a function must not keep the next lines from it
            log.exception("sleighexec: what a task printed or logged could not be handed on")


def lose(
    task: Task, calls: int, loss: Loss, *, again: bool
) -> tuple[list[Task], list[Callable[[], None]]]:
    """The first calls of a task are lost.

    `again`: they may be tried again, as far as they allow it.

    Returns:
        What of the task is to be done again, or still; what is to be called outside locks.
    """
    left: list[Task] = []
    tell: list[Callable[[], None]] = []
    for _ in range(calls):
        # All but the last time, what is left of the task is not to be done, but to be lost.
        left = [each for each in left if each is not task]
        more, lost = task.lost(loss, again=again)
        left += more
        if lost is not None:
            tell.append(lost)
    return left, tell


def lost_error(parts: Parts, losses: tuple[Loss, ...]) -> BaseException:
    """The error of a call whose worker ended while it ran it, and those of earlier attempts."""
    from sleighexec import broken

    definition, _, form, items, settings = parts
    last = losses[-1]
    history = tuple(
        f"worker {loss.rank} (pid {loss.pid}, host {loss.host}) {broken.how_it_ended(loss.status)}"
        for loss in losses[:-1]
    )
    where = (definition.name, last.rank, last.pid, last.host)
    if last.reason == TIMEOUT:
        return broken.TaskTimeoutError(*where, settings.timeout or 0.0, last.stderr)
    kind = broken.WorkerOutOfMemory if last.reason in (MEMORY, OOM) else broken.WorkerLost
    limit = settings.memory_limit if last.reason == MEMORY else None
    return kind(
        *where,
        last.status,
        last.stderr,
        len(losses),
        arguments=_clipped(form, items[0]),
        peak_memory=last.peak or None,
        history=history,
        output=last.printed.decode("utf-8", "ignore"),
        memory_limit=limit,
        reason=last.host_lost,
        deadly=is_deadly(losses) and len(losses) <= settings.retries,
    )


def _clipped(form: int, item: Any) -> str:
    """The arguments of a call, as far as it is safe to look at them.

    Those that are pickled stay so: rebuilding them may be what the worker died of.
    """
    if form == ROWS:
        pickled, first, _ = item
        return f"number {first} of {len(pickled)} bytes pickled"
    if form in (SMALL, PICKLED):
        return f"{len(item) if form == SMALL else item.size_bytes} bytes pickled"
    return ", ".join(map(reprlib.repr, (item,) if form in ALONE else item))


def _remote_error(data: Any) -> BaseException:
    """The exception of a task; its text as the worker would print it at the end of its causes."""
    from concurrent.futures.process import _RemoteTraceback

    error, text = raised.loads_error(data)
    if raised.get_slot(error, "__cause__") is None:
        suppress = error.__suppress_context__
        cause: Any = f'\n"""\n{text}"""'
        raised.set_slot(error, "__cause__", _RemoteTraceback(cause))
        raised.set_slot(error, "__suppress_context__", suppress)
    return error
