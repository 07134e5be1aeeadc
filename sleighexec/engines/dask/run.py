"""What an executor has in the process of a Dask worker.

The worker belongs to others as well: what a run needs in the process (`__main__`, the classic
names, sys.path, the working folder) is there while its batch runs, and gone when the run is.
"""

from __future__ import annotations

import builtins
import contextlib
import faulthandler
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from sleighexec import context as contexts
from sleighexec import payload as pickling
from sleighexec import raised, runs
from sleighexec.engines.dask import journal
from sleighexec.engines.dask.reach import Reach
from sleighexec.errors import UnsupportedOptionError
from sleighexec.failures import arguments, failure_of, small_arguments
from sleighexec.forks import leave
from sleighexec.functions import ALONE, CLASSIC_NAMES, PLAIN, SMALL, Learned, apply
from sleighexec.messages import Payload

LONG = 0.05  # seconds: behind a call that runs so long nothing waits in its batch
IDLE_LOOKS = 100  # after which the thread that looks for such calls ends
MAX_SECONDS = 0.5  # that a batch of several calls goes on
MAX_BYTES = 1024 * 1024  # of results after which a batch ends
KEPT_REVOKED = 10_000  # numbers of batches: the older ones are not on their way any more
KEPT_SHARED = 16  # shared values that no present call needs


class Facts(NamedTuple):
    """A Dask worker, as its process knows it.

    Attributes:
        killable: It runs one task at a time, and somebody starts it again.
        tell: Sends an event to those who listen to a topic.
        settle: Returns when this process would be started again if it ended.
        waiting: Gives the keys of tasks that the worker has and has not begun.
    """

    name: str
    address: str
    threads: int
    killable: bool
    tell: Callable[[str, Any], object]
    settle: Callable[[], object]
    waiting: Callable[[], list[str]]


class Spaces(threading.local):
    """The namespaces of by-value functions: those of the run whose batch this thread runs."""

    def __init__(self) -> None:
        self.now: dict[Any, dict[str, Any]] = {}

    def get(self, key: Any) -> dict[str, Any] | None:
        return self.now.get(key)

    def __setitem__(self, key: Any, found: dict[str, Any]) -> None:
        self.now[key] = found


spaces = Spaces()


class RunningBatch:
    """The batch that a thread runs."""

    def __init__(self, number: int, written: journal.Journal, groups: deque[Any]) -> None:
        self.number, self.journal, self.groups = number, written, groups
        self.returned = 0  # calls that were taken off again
        self.is_ready = False  # what its calls need is here

    @property
    def call(self) -> int:
        """The number of the call that runs."""
        return self.journal.finished + 1


class Run:
    """What an executor has in this process."""

    def __init__(self, name: str, facts: Facts, setup: dict[str, Any]) -> None:
        self.name, self.facts, self.setup = name, facts, setup
        self.given = self.rank = -1  # our rank, and the one that we have joined with
        self.count = 0
        self.calls: dict[int, tuple[bytes, frozenset[str]]] = {}  # that prepare a worker
        self.prepared: dict[int, tuple[int, bytes]] = {}  # their outcomes
        self.learned = Learned()
        self.learned.own_path = list(sys.path)
        self.versions: dict[tuple[Any, str], int] = {}
        self.shared: dict[str, None] = {}  # those that are here, the oldest use first
        self.namespaces: dict[Any, dict[str, Any]] = {}
        self.folder = os.getcwd()
        self.reach: Reach | None = None
        self.context: contexts.WorkerContext | None = None
        self.preparing = threading.RLock()  # guards all above, where several threads run tasks
        self.batches: dict[int, RunningBatch] = {}  # by thread
        self.relieving = False  # a thread does
        self.stopping = threading.Lock()  # guards batches, revoked and relieving
        self.revoked: set[int] = set()  # batches that are not to begin here any more
        self.gone = False
        self.main: Any = None
        self.journals = journal.Journals(name)
        python = ".".join(map(str, sys.version_info[:3]))
        # This worker, for the client.
        self.pid = os.getpid()
        self.who = (facts.name, facts.address, self.pid, os.uname().nodename, python)

    # ------------------------------------------------------------------ before the calls

    def join(self, rank: int, count: int) -> None:
        """We have got our rank."""
        self.count = count
        if self.rank == rank:
            return
        self.rank = rank
        if self.reach is None:
            self.reach = Reach(self.setup)
        host = os.uname().nodename
        self.context = contexts.WorkerContext(rank, count, host, self.reach.workspaces)

    def enter(self) -> Any:
        """Make the process ours; what `leave` is to be given."""
        spaces.now = self.namespaces
        before = getattr(contexts.of_thread, "context", None), contexts.of_process
        contexts.of_thread.context = contexts.of_process = self.context
        main = sys.modules.get("__main__")
        if self.facts.threads == 1:
            assert self.reach is not None
            values = (self.rank, self.count, *self.reach.workspaces)
            builtins.__dict__.update(zip(CLASSIC_NAMES, values))
            if self.main is not None:
                sys.modules["__main__"] = self.main
        return before, main

    def leave(self, given: Any) -> None:
        """Others may use the process."""
        before, main = given
        if self.facts.threads == 1:
            self.main = sys.modules.get("__main__") if sys.modules.get("__main__") != main else None
            for name in CLASSIC_NAMES:
                builtins.__dict__.pop(name, None)
        if main is not None:
            sys.modules["__main__"] = main
        contexts.of_thread.context, contexts.of_process = before
        spaces.now = {}

    def prepare(self) -> bytes | None:
        """Make the calls that prepare a worker, as far as it was not done; how that failed."""
        for number, (message, exempt) in sorted(self.calls.items()):
            if number in self.prepared or self.facts.address in exempt:
                continue
            news, head, buffers = pickle.loads(message)
            self.learn(news, ())
            outcome = self.prepared[number] = _outcome(head, buffers)
            if outcome[0] == runs.BAD:
                import logging

                del self.prepared[number]
                logger = logging.getLogger("concurrent.futures")
                logger.critical("the initializer or a sticky call failed in a worker")
                return outcome[1]
        return None

    def learn(self, news: list[Any], constants: tuple[Any, ...]) -> None:
        """Take in what calls need, as far as it is not here."""
        new, functions = [], []
        for target, detail, version, data in news:
            head, buffers = pickle.loads(constants[data]) if isinstance(data, int) else data
            if isinstance(target, int):
                functions.append((target, detail, head, buffers))
                continue
            place = (tuple(target), detail)
            if place[0] == pickling.SHARED:
                self.shared.pop(detail, None)
                self.shared[detail] = None
            if self.versions.get(place) != version:
                self.versions[place] = version
                new.append((target, detail, head, buffers))
        known = self.learned._functions
        new += [each for each in functions if each[0] not in known]
        self.learned.learn(new)
        # To learn some may have made it forget others, which are the oldest but needed now.
        self.learned.learn([each for each in functions if each[0] not in known])

    def forget(self, names: tuple[str, ...], needed: int) -> None:
        """Let go of shared values that nobody has a handle of, or that were not used for long."""
        old = [name for name in names if name in self.shared]
        spare = len(self.shared) - len(old) - max(needed, KEPT_SHARED)
        old += [name for name in self.shared if name not in old][: max(spare, 0)]
        for name in old:
            del self.shared[name]
            self.versions.pop((pickling.SHARED, name), None)
            pickling.namespace(pickling.SHARED).pop(name, None)

    # ------------------------------------------------------------------ calls

    def call_all(self, batch: RunningBatch) -> tuple[bytes, list[Any]]:
        """Run a batch; its records, and the big buffers of the last of its results."""
        batch.is_ready = True
        began = time.perf_counter()
        written, groups = batch.journal, batch.groups
        while groups:
            key, form, places, limits, items = groups[0]
            function: Any = None
            while True:
                try:
                    item = items.popleft()
                except IndexError:
                    break
                written.begin()
                buffers: list[Any] = []
                try:
                    if self.learned.failed:
                        self.learned.check(places)
                    if function is None:
                        function = self.learned.function(key)
                    if limits is not None:
                        self._limit(written, limits)
                    if form in ALONE:
                        result = function(item)
                    elif form == PLAIN:
                        result = function(*item)
                    else:
                        small = form == SMALL
                        args, kwargs = small_arguments(item) if small else arguments(item)
                        result = function(*args, **kwargs)
                        args = kwargs = None
                    if type(result) in pickling.SIMPLE:
                        flag, data = runs.RUN, runs.dump_simple(result)
                    else:
                        flag, data, buffers = _pickled(result)
                except BaseException as error:  # SystemExit too belongs to the task, not to us
                    if os.getpid() != self.pid:
                        leave(error)
                    flag, data = runs.BAD, failure_of(error, __file__)
                if os.getpid() != self.pid:  # a child that the call has forked
                    leave(None)
                if limits is not None:
                    faulthandler.cancel_dump_traceback_later()
                if flag == runs.RUN:
                    written.write_simple(data)
                elif not buffers:
                    written.write(flag, data)
                else:  # it does not go through the journal, and ends the batch
                    batch.returned += _take_off(groups)
                    return written.last(data), buffers
                # The result is safe; only now what the call held may go: that may crash too.
                item = result = data = None  # type: ignore[assignment]
                late = time.perf_counter() - began > MAX_SECONDS
                if late or written.end > MAX_BYTES:
                    batch.returned += _take_off(groups)
            groups.popleft()
        return written.records(), []

    def _limit(self, written: journal.Journal, limits: tuple[float, int]) -> None:
        """The call that begins has so much time: then this process ends, whatever it does."""
        if not self.facts.killable:
            raise UnsupportedOptionError(
                "a timeout needs Dask workers with one thread each and a nanny: this one has not"
            )
        if limits[0]:
            # Python writes the stacks from a thread of its own that does not need the interpreter.
            stacks = _stacks_at(written.stack_file)
            faulthandler.dump_traceback_later(limits[0], exit=True, file=stacks)

    def relieve(self) -> None:
        """Thread: behind a call that turns out long nothing is to wait, in its batch or after it.

        We look again when it has taken twice as long: Dask may have sent us more.
        """
        before: dict[int, tuple[int, int]] = {}  # the call of each batch, and for how many looks
        idle = 0
        while True:
            time.sleep(LONG)
            with self.stopping:
                batches = [batch for batch in self.batches.values() if batch.is_ready]
                idle = 0 if self.batches else idle + 1
                if self.gone or idle > IDLE_LOOKS:
                    self.relieving = False
                    return
            now = {}
            for batch in batches:
                call, looks = before.get(batch.number, (0, 0))
                present = batch.call
                now[batch.number] = present, looks + 1 if call == present else 0
            stuck = all(looks for _, looks in now.values())  # else what waits begins soon
            for batch in batches:
                _, looks = now[batch.number]
                if looks and not looks & (looks - 1):  # a power of two
                    self._take_over(batch, self._waiting() if stuck else [])
            before = now

    def _waiting(self) -> list[int]:
        """Batches of ours that Dask has sent to this worker, and that it has not begun."""
        keys = [key.rpartition("-") for key in self.facts.waiting()]
        return [int(number) for run, _, number in keys if run == self.name]

    def _take_over(self, batch: RunningBatch, waiting: list[int]) -> None:
        """Take what has not begun out of a batch, and say so; and what waits after it."""
        taken = _take_off(batch.groups)
        if taken or waiting:
            batch.returned += taken
            with contextlib.suppress(ValueError):  # it has ended after all
                records = batch.journal.records() if taken else b""  # the scheduler keeps events
                event = ["relief", batch.number, batch.returned, records, waiting]
                self.facts.tell(self.name, event)


_stacks: Any = None


def _stacks_at(path: str) -> Any:
    """The file for the stacks of a call; one is open at a time."""
    global _stacks
    if _stacks is None or _stacks.name != path:
        if _stacks is not None:
            _stacks.close()
        _stacks = open(path, "w")  # noqa: SIM115
    return _stacks


def _take_off(groups: deque[Any]) -> int:
    """Take the calls that have not begun out of the line: how many."""
    count = 0
    for *_, items in reversed(tuple(groups)):
        with contextlib.suppress(IndexError):
            while True:
                items.pop()
                count += 1
    return count


def _pickled(result: object) -> tuple[int, bytes, list[Any]]:
    """A result as a record's flag and bytes, and its big buffers."""
    try:
        payload = pickling.dumps(result)
    except BaseException as error:
        text = f"while pickling the result of the task, a {type(result).__name__}"
        raised.add_note(error, text)
        raise
    if not payload.buffers:
        return runs.GOOD, bytes(payload.head), []
    return runs.LARGE, bytes(payload.head), [bytearray(buffer) for buffer in payload.buffers]


def _outcome(head: bytes, buffers: list[Any]) -> tuple[int, bytes]:
    """What becomes of a call that prepares, as a record's flag and bytes."""
    try:
        args, kwargs = pickling.loads(Payload(head, buffers))
        return runs.GOOD, pickling.dumps_whole(apply(*args, **kwargs))
    except BaseException as error:
        return runs.BAD, failure_of(error, __file__)
