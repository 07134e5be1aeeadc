"""The thread of an engine on Dask: what waits, what was handed out, who is there.

All that is here happens in one thread, which is sent what is to be done through an inbox. Others
only read. No more is handed out than can begin: so what runs and what waits is known here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from sleighexec.address import Address
from sleighexec.engines.base import Prepared
from sleighexec.engines.dask import journal
from sleighexec.engines.dask.batch import BIG, Batch, Pace, as_news
from sleighexec.engines.dask.cluster import Cluster
from sleighexec.engines.dask.constants import Constants
from sleighexec.engines.dask.house import House
from sleighexec.engines.dask.lines import Lines
from sleighexec.engines.dask.members import Member, Members
from sleighexec.engines.dask.orders import Arrived, Order
from sleighexec.engines.dask.printed import Printed
from sleighexec.errors import ExecutorError
from sleighexec.forks import free_in_child
from sleighexec.functions import FunctionTable
from sleighexec.hints import Any
from sleighexec.task import Task

AWAY_SECONDS = 60.0  # that a worker may take to be started again
AHEAD = 64  # batches for each slot, of calls that are known to be short,
AHEAD_SECONDS = 0.1  # as far as they take no longer together: so no worker waits for the next one
AHEAD_SHARE = 1 / 3  # of the calls that wait: the others can still be cancelled
PINNED = 100  # the priority of what is meant for one worker

log = logging.getLogger("sleighexec")


class Dispatch:
    """Lines, boxes and batches, and the thread that moves tasks between them."""

    def __init__(
        self,
        engine: Any,
        functions: FunctionTable,
        *,
        max_workers: int | None,
        initializer: Prepared | None,
        on_crash: str,
        capture_output: bool,
        output: str | Callable[[int, str], object],
        workspaces: Sequence[str],
        address: Address | None,
        on_end: Callable[[], None],
        name: str,
        start_timeout: float | None,
    ) -> None:
        """See SleighExecutor. `max_workers`: calls that may be with Dask at a time."""
        self.forked = self.stop_at_exit = False
        self.broken: BaseException | None = None
        self._functions, self._most, self._on_end = functions, max_workers, on_end
        self._break_on_crash, self._start_timeout = on_crash == "break", start_timeout
        self.name = f"sleigh-{os.urandom(6).hex()}"
        self._members = Members()
        self._lines, self._pace = Lines(), Pace()
        self._boxes: dict[int, deque[tuple[Task, int]]] = {}  # by rank: tasks, number of the call
        self._held: dict[Task, None] = {}
        self._batches: dict[int, Batch] = {}  # that were handed out
        # Ends that are not looked into yet: on which host, until when they may be, how they ended.
        self._limbo: dict[int, tuple[Batch, str, float, BaseException | None]] = {}
        self._sticky: list[tuple[int, Prepared]] = []
        self._calls = iter(range(2, 2**62))  # that prepare a worker; 1: the initializer
        self._failed_starts = self._bounces = 0
        self._latest = self._bounced = 0  # the batch made last; …when one last came back
        self._idle_since: float | None = None  # tasks wait, and there is no worker
        self._closing = self._abandoned = self._killing = False
        # Guards _closing, and that nothing is put when it is set.
        self._gate = free_in_child(threading.Lock())
        self._touching = threading.Lock()  # guards the tasks of batches
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._deferred: deque[Callable[[], object]] = deque()
        self._ended = threading.Event()
        self._cluster = Cluster(engine, self.name, self._followed)
        self._constants = Constants(self._cluster, functions)
        try:
            self._house = House(self._cluster.our_host(), workspaces, address, name)
            self.connection, self.workspaces = self._house.connection, self._house.workspaces
            self._setup = self._house.setup
            url = None if address is None else address.url
            self._printed = Printed(self.connection, self.workspaces, url, capture_output, output)
            self._cluster.watch(self._setup, self._hear)
            if initializer is not None:
                self._sticky.append((1, initializer))
                self._cluster.prepare(self._setup, 1, (_prepared(initializer), frozenset[str]()))
            self._members.come(self._cluster.members())
        except BaseException:
            self._leave()
            raise
        self._thread = threading.Thread(target=self._run, name=f"{name}-dask", daemon=True)

    @property
    def max_workers(self) -> int:
        """How many workers there are, those too that are just being started again."""
        return max(len(self._members), 1)

    def _hear(self, event: Any) -> None:
        """Called by Dask's own thread."""
        self._inbox.put(partial(self._told, event))

    # ------------------------------------------------------------------ the loop

    def _run(self) -> None:
        try:
            while not self._is_done():
                self._step(self._patience())
        except BaseException as error:  # nobody may wait for us
            log.critical(
                "sleighexec: the thread of the Dask engine ended by an error", exc_info=True
            )
            self._break("the Dask engine ended by an internal error, please report it", error)
        with self._gate:
            self._closing = True
        self._run_deferred()
        while self._lines or self._held:  # what came when it was too late
            self._withdraw_waiting()
            self._run_deferred()
        self._leave()
        self._on_end()
        self._ended.set()

    def _step(self, timeout: float | None) -> None:
        with contextlib.suppress(queue.Empty):
            call = self._inbox.get(timeout=timeout)
            for _ in range(100):
                call()
                call = self._inbox.get_nowait()
            call()
        if self._abandoned:
            self._closing = True
        self._on_time()
        if self.broken is None and not self._killing:
            self._hand_out()
        elif self._lines or self._held or any(self._boxes.values()):
            self._withdraw_waiting()
        self._run_deferred()

    def _run_deferred(self) -> None:
        """What may run a user's code: then everything here is as it should be."""
        while self._deferred:
            call = self._deferred.popleft()
            try:
                call()
            except BaseException:  # a thread's last resort: user code was caught further down
                log.critical("sleighexec: an internal error was not handled", exc_info=True)

    def _is_done(self) -> bool:
        waits = self._lines or self._held or self._batches or self._limbo
        return bool(
            self._closing
            and not (waits or any(self._boxes.values()))
            and not self._deferred
            and self._inbox.empty()
        )

    def _patience(self) -> float | None:
        """How long the loop may sleep."""
        away = any(not member.address for member in self._members.all())
        waits = self._idle_since is not None or any(self._boxes.values())
        return 1.0 if self._limbo or away or waits else None

    def _on_time(self) -> None:
        """The time has come for something."""
        now = time.monotonic()
        hosts = {host for _, host, _, _ in self._limbo.values()}
        answers = {host: bool(self._answers_of(host)) for host in hosts}
        # The last ones first, so that the first is first in line again.
        for number, (batch, host, deadline, why) in sorted(self._limbo.items(), reverse=True):
            if number in self._limbo and (deadline < now or answers[host]):
                self._look_into(batch, host, last=True, why=why)
        for member in self._members.all():
            if not member.address and member.away_since + AWAY_SECONDS < now:
                self._drop(member)
        self._see_nobody(now)

    def _see_nobody(self, now: float) -> None:
        """Calls wait, and there is no worker."""
        if self._members.present() or not (
            self._lines or self._batches or any(self._boxes.values())
        ):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif self._start_timeout is not None and self._idle_since + self._start_timeout < now:
            text = f"no worker has joined the Dask cluster for {self._start_timeout:g} s"
            self._break(text, ExecutorError(text))
        elif self._idle_since + AWAY_SECONDS < now:
            self._idle_since = now
            log.warning("sleighexec: calls wait for workers, the Dask cluster has none")

    # ------------------------------------------------------------------ workers come and go

    def _told(self, event: list[Any]) -> None:
        kind, *rest = event
        if kind == "joined":
            self._members.come(rest)
        elif kind == "left":
            self._left(*rest)
        elif kind == "relief":
            self._relieved(*rest)

    def _left(self, address: str, expected: bool, keys: list[str]) -> None:
        """A worker has gone, and what was on it is not run again by Dask."""
        member = self._members.at(address)
        back = member is not None and member.nanny and not expected
        self._members.leave(address, back=back)
        host = member.host if member is not None else ""
        numbers = [int(key.rpartition("-")[2]) for key in keys]
        for number in sorted(numbers, reverse=True):  # so that the first is first in line again
            if (batch := self._batches.get(number)) is not None:
                self._look_into(batch, host)
        if member is None:
            return
        pinned, member.pinned = member.pinned, None
        if pinned is not None and pinned.number in self._batches:
            self._look_into(pinned, host)
        if not back:
            self._drop(member)

    def _drop(self, member: Member) -> None:
        """A worker does not come back."""
        self._members.drop(member)
        text = f"the Dask worker {member.name} left the cluster before it ran the call"
        for task, _ in self._boxes.pop(member.rank, ()):
            self._deferred.append(partial(task.fail, lambda: ExecutorError(text)))

    def _put_each(self, tasks: list[Task], sticky: Prepared | None) -> None:
        self._members.come(self._cluster.members())
        number = 0
        members = self._members.all()
        if sticky is not None:
            number = next(self._calls)
            self._sticky.append((number, sticky))
            exempt = frozenset(m.address for m, _ in zip(members, tasks) if m.address)
            self._cluster.prepare(self._setup, number, (_prepared(sticky), exempt))
        ranks = [member.rank for member in members]
        for rank in range(max(ranks, default=-1) + 1, len(tasks)):
            ranks.append(rank)  # of workers that are still to come
        for rank, task in zip(ranks, tasks):
            self._boxes.setdefault(rank, deque()).append((task, number))

    # ------------------------------------------------------------------ tasks go

    def _hand_out(self) -> None:
        """Give Dask what can begin."""
        if batches := [*self._next_by_rank(), *self._next_by_line()]:
            self._send(batches)

    def _next_by_rank(self) -> Iterator[Batch]:
        """What is meant for workers that have nothing of that kind."""
        for member in self._members.present():
            box = self._boxes.get(member.rank)
            while box and member.pinned is None:
                task, number = box.popleft()
                part, _ = task.begin(1)
                if part is not None:
                    batch = self._batch([part], ("rank", member.rank), sticky=number)
                    batch.address, member.pinned = member.address, batch
                    yield batch

    def _next_by_line(self) -> Iterator[Batch]:
        """What any worker may run, or any that has what is needed."""
        for line in self._lines.names():
            _, needs = line
            slots = self._members.capacity(needs) if needs else self._slots()
            out = sum(batch.line == line for batch in self._batches.values())
            if not needs:  # all of these share what there is
                out = sum(not batch.is_special for batch in self._batches.values())
            ahead = sum(batch.seconds for batch in self._batches.values() if batch.line == line)
            calls = sum(batch.calls for batch in self._batches.values() if batch.line == line)
            # Not one by one: many at once cost Dask little more than one.
            most = AHEAD * slots if out <= AHEAD * slots // 2 else slots
            while out < slots or (
                out < most
                and ahead < AHEAD_SECONDS * slots
                and calls < self._lines.calls(line) * AHEAD_SHARE
            ):
                known = None if out < slots else calls
                tasks, seconds = self._lines.cut_off(line, self._pace, slots, known)
                if not tasks:
                    break
                batch = self._batch(tasks, line, seconds=seconds, ahead=out >= slots)
                out, ahead, calls = out + 1, ahead + seconds, calls + batch.calls
                yield batch
            if not needs and self._lines.waits(line):
                return  # what has a lower priority begins later

    def _batch(
        self,
        tasks: list[Task],
        line: Any,
        *,
        sticky: int = 0,
        seconds: float = 0,
        ahead: bool = False,
    ) -> Batch:
        self._latest += 1
        batch = Batch(self._latest, tasks, line, sticky, seconds)
        batch.ahead = ahead
        self._batches[batch.number] = batch
        return batch

    def _slots(self) -> int:
        return self._most or max(self._members.slots(), 1)

    def _send(self, batches: list[Batch]) -> None:
        """Make Dask tasks of them."""
        orders = []
        for batch in batches:
            try:
                orders.append((batch, self._order(batch)))
            except Exception as error:
                self._not_sent([batch], error)
        try:
            futures = self._cluster.orders.submit([order for _, order in orders])
        except Exception as error:
            self._not_sent([batch for batch, _ in orders], error)
            return
        for (batch, _), future in zip(orders, futures):
            batch.future = future

    def _order(self, batch: Batch) -> Order:
        """A batch as it travels."""
        groups, needed = batch.groups()
        present = self._members.present()
        if present:
            news, constants = self._constants.news(needed)
        else:  # nobody could keep what was scattered
            news, constants = [as_news(each) for each in needed], []
        ranks = {member.name: member.rank for member in present if not member.told}
        forgotten = tuple(self._functions.forgotten[-256:])
        header = self.name, batch.number, ranks, self.max_workers, batch.sticky
        message: Any = pickle.dumps((*header, news, groups, forgotten), 5)
        if len(message) > BIG and present:
            message = self._cluster.scatter(message, broadcast=False)
        priority, needs = (PINNED, ()) if batch.address is not None else batch.line
        key = f"{self.name}-{batch.number}"
        return Order(key, batch, message, constants, priority, needs, batch.address, batch.ahead)

    def _not_sent(self, batches: list[Batch], error: BaseException) -> None:
        """These could not be given to Dask."""
        if not self._cluster.alive():
            self._break("the Dask scheduler is gone", error)
            return
        log.error("sleighexec: calls could not be given to Dask", exc_info=error)
        for batch in batches:
            self._finish(batch)
        text = f"the call could not be given to Dask: {error!r}"
        for batch in batches:
            for task in batch.tasks:
                self._deferred.append(partial(task.fail, lambda: ExecutorError(text)))

    def _followed(self, arrived: Arrived) -> None:
        """Called by Dask's own thread."""
        self._inbox.put(partial(self._all_came, arrived))

    def _all_came(self, arrived: Arrived) -> None:
        for batch, outcome, error in arrived:
            self._came(batch, outcome, error)

    def _finish(self, batch: Batch) -> None:
        """It is not with Dask any more."""
        self._batches.pop(batch.number, None)
        self._let_go(batch)

    def _let_go(self, batch: Batch) -> None:
        batch.future = None  # what nobody holds Dask forgets
        if batch.address is not None:
            member = self._members.at(batch.address)
            if member is not None and member.pinned is batch:
                member.pinned = None

    # ------------------------------------------------------------------ the end

    def _withdraw_waiting(self) -> None:
        for task in self._take_waiting():
            if self.broken is not None:
                self._deferred.append(partial(task.fail, self._broken_error))
            else:
                self._deferred.append(task.withdraw)

    def _take_waiting(self) -> list[Task]:
        taken = self._lines.take_all()
        for box in self._boxes.values():
            taken += [task for task, _ in box]
            box.clear()
        taken += self._held
        self._held.clear()
        return taken

    def _break(self, text: str, cause: BaseException | None) -> None:
        """No worker can be had any more: say so to everybody who waits."""
        if self.broken is None:
            self._broken_text = text
            self.broken = cause if cause is not None else ExecutorError(text)
        for task in self._take_waiting():
            self._deferred.append(partial(task.fail, self._broken_error))
        for batch in list(self._batches.values()):
            self._finish(batch)
            for task in batch.tasks:
                self._deferred.append(partial(task.fail, self._broken_error))
        self._limbo.clear()

    def _broken_error(self) -> BaseException:
        """An error of its own for everybody, so that their tracebacks do not pile up."""
        from sleighexec.broken import PoolBrokenError

        error = PoolBrokenError(self._broken_text)
        if type(self.broken) is not ExecutorError:
            error.__cause__ = self.broken
        return error

    def _leave(self) -> None:
        """Nothing of ours stays on the cluster."""
        self._cluster.close()
        if hasattr(self, "_printed"):  # else it failed before
            self._printed.close()
        if hasattr(self, "_house"):
            self._house.server.close()
        journal.remove_all(self.name)

    # ------------------------------------------------------------------ done by outcomes, losses

    def _came(self, batch: Batch, outcome: Any, error: BaseException | None) -> None:
        """Dask has an outcome of a batch."""
        raise NotImplementedError

    def _relieved(self, number: int, returned: int, records: bytes, waiting: list[int]) -> None:
        """A call turned out long: what stood behind it in its batch has not begun."""
        raise NotImplementedError

    def _look_into(
        self, batch: Batch, host: str, *, last: bool = False, why: BaseException | None = None
    ) -> None:
        """A batch has ended with its worker, on `host`: what had it begun?"""
        raise NotImplementedError

    def _answers_of(self, host: str, number: int = 0) -> dict[str, Any]:
        """What the workers of a host (or all, if it is not known) find of a batch there."""
        raise NotImplementedError


def _prepared(prepared: Prepared) -> bytes:
    """A call that prepares workers, as it travels."""
    payload, needs = prepared
    news = [as_news(each) for each in needs]
    data = bytes(payload.head), [bytes(buffer) for buffer in payload.buffers]
    return pickle.dumps((news, *data), 5)
