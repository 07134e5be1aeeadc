"""The worker process: join, fetch, run, store; and how a task asks where it is.

    main thread     fetch ─▶ calls ─▶ run one by one ─▶ journal ─▶ one send: results + fetch
    sleigh-helper   wakes every 1 ms while several short calls are lined up, more seldom where all
                    take longer; when the present one turns out long it sends the results that are
                    ready, gives back what has not begun, and keeps reading

Laws: 1. A call begins once: what has begun is written in the journal before it runs.
      2. A result is written in the journal before the next call begins, and before what the call
         held goes, which may end this process.
      3. Between writing and running it we look whether we have stood still (SIGSTOP) for so long
         that calls were taken back; then the engine says which of them are ours still.
The journal is memory shared with the agent, so both facts outlive the worker: whatever kills it,
exactly the call that it was running is lost, finished results are not, and the rest has not begun.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import marshal
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from sleighexec import context, raised, runs
from sleighexec import payload as pickling
from sleighexec.access import embedded
from sleighexec.borrowing import Borrower
from sleighexec.client import ONE_WAY, SocketConnection
from sleighexec.context import WorkerContext
from sleighexec.depot import Constants
from sleighexec.errors import ConnectionLostError
from sleighexec.failures import Rows, arguments, explain, failure_of, small_arguments
from sleighexec.farewell import set_aside
from sleighexec.functions import (
    ALONE,
    CLASSIC_NAMES,
    PICKLED,
    PLAIN,
    ROWS,
    SINGLE,
    SMALL,
    Learned,
    apply,
)
from sleighexec.hints import TYPE_CHECKING, Any, cast
from sleighexec.journal import BEGUN, DEADLINE, END, HALT, LOAN, MOST, Journal
from sleighexec.messages import (
    Ask,
    Calls,
    Join,
    Kept,
    Leave,
    Nothing,
    Payload,
    Report,
    Return,
    Revoked,
    SetupFailed,
    Store,
    Welcome,
)
from sleighexec.outcomes import Outcomes
from sleighexec.output import KEPT_LINES, SEND_AT, OnImport, Outbox, capture
from sleighexec.workspace import NetWorkSpace, NwsServer

if TYPE_CHECKING:
    import socket

TICK = 0.001  # seconds: a call that runs longer is a long one, where most are short
AHEAD = 0.1  # seconds: where most calls take up to so long the next ones are fetched early
KEEP = 0.03  # seconds that calls wait behind a long one, while there are others for everybody
BATCH = 0.004  # seconds that calls should take whose results go together
HOLD = 0.03  # seconds that a few calls may take which are fetched together,
FEW = 4  # …and how many these are, where there are others for everybody
LOOK = 0.25  # seconds after which the helper sees that a task has closed our socket
DOZE_AFTER = 50  # looks without need after which the helper looks less often
AWAKE, DOZING, ASLEEP = 0, 1, 2  # the helper looks each tick; each LOOK; when it is called
MAX_BATCH = 8000  # calls in one fetch; the journal has room for their results, if they are numbers
STORED_LINES = 25  # in one frame: in the worst script the summaries of more have no room in it


class _Group:
    """Calls of one function, lined up: the main thread takes from the left, the helper the rest.

    They are to take not much longer than `BATCH` together: behind each group results may be sent.
    """

    __slots__ = ("form", "items", "key", "limits", "loan", "places")

    def __init__(
        self, loan: int, key: int, form: int, places: Any, limits: Any, items: deque[Any]
    ) -> None:
        self.loan, self.key, self.form, self.places = loan, key, form, places
        self.limits, self.items = limits, items


class Worker:
    """Runs calls until it is told to leave."""

    def __init__(
        self,
        sock: socket.socket,
        journal: Journal,
        owner: int | None = None,
        keeper: int | None = None,
    ) -> None:
        """`owner`: process id of the client, if we can reach its segments; `keeper`: of the agent.

        The agent has a depot then: see depot.py.
        """
        self._connection = SocketConnection(sock, "executor")
        self._connection.on_message = self._told
        if owner is not None:
            self._connection.share_memory(Borrower(self._connection, owner))
        self._journal = journal.memory
        self._outcomes = Outcomes(self._connection, journal, self._post_output, self._is_sending)
        self._outbox, self._words = self._outcomes.outbox, self._outcomes.records.words
        self._revoked = Revoked(0, 0, 0)  # the latest of them
        self._halt = 0  # the number of that which the main thread has gone by
        self._learned = Learned()
        if keeper is not None:
            wait_for = partial(self._connection.wait, ONE_WAY)
            self._learned.constants = Constants(keeper, wait_for)
        self._groups: deque[_Group] = deque()  # what is lined up
        self._news: deque[list[Any]] = deque()  # from the helper, for the main thread to learn
        self._leaving = False
        self._prefetch = 0  # tag of a fetch that looks ahead; who takes it has the outcomes' lock
        self._seconds = 0.0  # a call takes, as measured
        self._plenty = False  # there were calls for everybody when the present ones came
        self._left: int | None = None  # calls until this worker is to be replaced
        self._shipped: Any = None  # finds modules of a caller on another machine
        self._running = False
        self._tick = TICK  # seconds between looks of the helper, while it looks often
        self._hurry = False  # others than the present call wait here: the helper is to look often
        self._sleep = AWAKE  # how deeply the helper sleeps
        self._bell = threading.Lock()  # which wakes it
        self._bell.acquire()
        self._store_lines: Callable[[list[str]], None] | None = None
        self._tell_lines = False  # to our client, too
        self._servers_link = self._connection  # to the server of the workspaces

    # ------------------------------------------------------------------ life

    def run(self) -> None:
        """Join and work. Returns when the worker is to end in an orderly way."""
        connection = self._connection
        try:
            python = ".".join(map(str, sys.version_info[:3]))
            shares = connection.memory is not None or self._learned.constants is not None
            tag = connection.post(Join(os.getpid(), os.uname().nodename, os.name, python, shares))
            welcome = connection.wait(tag, self._told_to_leave)
            if not isinstance(welcome, Welcome) or not self._prepare(welcome):
                return
            threading.Thread(target=self._help, name="sleigh-helper", daemon=True).start()
            self._work()
            self._outbox.send()
        except ConnectionLostError:
            # The client is gone; nobody waits for what we do.
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            os._exit(0)
        finally:
            connection.close()

    def let_go(self) -> None:
        """Hold nothing of a user's code any more; our helper would do so for ever."""
        self._learned = Learned()
        pickling.forget_namespaces()

    def _prepare(self, welcome: Welcome) -> bool:
        rank = welcome.rank
        setup = pickling.loads(welcome.values[0])
        self._left = setup["max_tasks"]
        if setup["server"] is None:
            server = NwsServer(connection=self._connection, shared=True)
            workspaces = [
                NetWorkSpace(name, server=server, number=n) for name, n in setup["workspaces"]
            ]
        else:
            from sleighexec.address import Address, remember

            remember(Address(*setup["server"]))
            server = NwsServer(url=setup["server"][0])
            workspaces = [server.useWs(name) for name, _ in setup["workspaces"]]
        context.of_process = WorkerContext(
            rank, welcome.count, os.uname().nodename, workspaces, setup["slots"]
        )
        self._connection.space = setup["space"]
        embedded[setup["space"]] = self._connection
        values = (rank, welcome.count, *workspaces)
        builtins.__dict__.update(zip(CLASSIC_NAMES, values))
        _be_a_child(rank, setup["authkey"])
        if setup["ship"] is not None:  # the caller is on another machine
            self._learned.own_path = list(sys.path)
            from sleighexec.shipped import Shipped

            self._shipped = Shipped(self._connection.call)
            sys.meta_path.append(self._shipped)
        self._servers_link = cast(SocketConnection, server._connection)
        if setup["capture"]:
            post, ride = self._servers_link.post, workspaces[0]._access.number
            self._store_lines = partial(_store_lines, post, ride, f"output@{rank}")
        self._tell_lines = setup["tell"]
        outcomes = self._outcomes
        outcomes.keeps_lines = self._tell_lines or self._store_lines is not None
        capture(outcomes.note_output)
        outcomes.stdout = sys.stdout
        if setup["levels"] is not None:
            OnImport("logging", partial(_forward_records, self._outbox, rank, setup["levels"]))
        os.register_at_fork(after_in_child=partial(setattr, self._outbox, "foreign", True))
        if setup["server"] is None:  # else our connection to that has something to do at the end
            set_aside()
        try:
            for news, head, buffers in setup["calls"]:
                self._learned.learn(news)
                self._learned.await_constant(head)
                args, kwargs = pickling.loads(self._learned.payload(head, buffers))
                apply(*args, **kwargs)
        except BaseException as error:
            import logging

            logger = logging.getLogger("concurrent.futures")
            logger.critical("Exception in initializer:", exc_info=True)
            self._outbox.send()
            failure = Payload(bytes(raised.dumps_error(error, __file__).head))
            self._connection.post(SetupFailed((failure,)), ONE_WAY)
            return False
        outcomes.forget_text()
        return True

    def _told(self, message: Any) -> None:
        """A message that answers nothing. Called by whichever thread reads."""
        if type(message) is Leave:
            self._leaving = True
        elif type(message) is Revoked:
            self._revoked = message
        elif type(message) is Kept:
            self._learned.constants.told(message)

    # ------------------------------------------------------------------ ask, run, answer

    def _work(self) -> None:
        outcomes, groups = self._outcomes, self._groups
        reply: Any = self._wait(self._connection.post(Ask(1)))
        while type(reply) is Calls:
            more = self._plenty = bool(reply.more)
            self._accept(reply)
            reply = None  # it holds the buffers of its calls, which are to go with them
            several = len(groups) > 1 or (groups and len(groups[0].items) > 1)
            ahead = (several or (more and 0 < self._seconds < AHEAD)) and self._left is None
            started, before = time.perf_counter(), outcomes.finished
            if several or ahead:
                self._run_calls(ahead=ahead)
            elif groups:  # none, if it was revoked
                self._run_lone()
            if done := outcomes.finished - before:
                seconds = (time.perf_counter() - started) / done
                # The geometric mean: a long call among short ones hardly changes it.
                self._seconds = math.sqrt(self._seconds * seconds) if before else seconds
            reply = self._next(done)

    def _next(self, done: int) -> Any:
        """Send what is finished and get the next calls; anything else than Calls: end."""
        connection = self._connection
        if self._left is not None:
            self._left -= done
            if self._left <= 0:
                self._outcomes.flush()
                return None
        with self._outcomes.lock:
            prefetch, self._prefetch = self._prefetch, 0
        if prefetch:
            self._outcomes.flush()
            reply = connection.wait(prefetch)
            if type(reply) is not Nothing:
                return reply
            tag = connection.post(Ask(self._wanted()))
        else:
            tag = self._outcomes.flush(self._wanted())
        return self._wait(tag)

    def _wait(self, tag: int) -> Any:
        """The calls that were asked for; anything else than Calls: end."""
        connection = self._connection
        while type(reply := connection.wait(tag, self._told_to_leave)) is Nothing:
            tag = connection.post(Ask(1))  # what it should have been was no good
        return reply

    def _told_to_leave(self) -> bool:
        return self._leaving

    def _wanted(self) -> int:
        """How many calls may come in one batch.

        As many as should have their results sent together. Where each is as long as that, a few
        all the same: what a worker does from one call to the next costs most with many workers,
        since the processor's caches have forgotten it each time.
        """
        if self._left is not None:
            return 1
        if self._seconds <= 0:
            return 1 if self._outcomes.finished == 0 else MAX_BATCH
        count = round(BATCH / self._seconds)
        if count < FEW and self._plenty:
            count = min(FEW, round(HOLD / self._seconds))
        return max(1, min(MAX_BATCH, count, 4 * self._outcomes.finished))

    def _accept(self, batch: Calls) -> None:
        """Learn what came along with a batch, and line up its calls."""
        news, groups, grants = pickling.loads(batch.values[0])
        if grants and self._connection.memory is not None:
            self._connection.memory.grant(grants)
        if news:
            self._news.append(news)
        while self._news:
            self._learned.learn(self._news.popleft())
        for key, form, places, limits, items in groups if batch.loan > self._revoked.loan else ():
            if form == PICKLED and self._learned.constants is not None:
                for head, buffers in items:
                    self._learned.await_constants(head, buffers)
            elif form == ROWS:
                rows = [(Rows(pickled), range(*part)) for pickled, *part in items]
                items = [(each, index) for each, part in rows for index in part]
            parts, count = [items], len(items)
            if count > 1 and self._seconds:
                size = max(1, round(BATCH / self._seconds))
                parts = [items[first : first + size] for first in range(0, count, size)]
            for part in parts:
                self._groups.append(_Group(batch.loan, key, form, places, limits, deque(part)))

    def _run_calls(self, *, ahead: bool) -> None:
        """Run what is lined up, first to last; the helper may take from the end meanwhile.

        `ahead`: the next ones are asked for, so that they arrive while the last of these run.
        """
        if ahead:
            self._tick = min(max(TICK, 2 * self._seconds), AHEAD)
        self._running = self._hurry = True
        if self._sleep > AWAKE:
            self._wake_helper()
        groups, sent = self._groups, time.perf_counter()
        while groups:
            if ahead and (len(groups) == 1 or self._seconds < BATCH):
                ahead = False
                if not self._leaving:
                    self._prefetch = self._connection.post(Ask(self._wanted(), ahead=1))
            self._run_group(groups[0])
            groups.popleft()
            if groups and (now := time.perf_counter()) > sent + BATCH:
                sent = now
                self._outcomes.flush()
        self._running = False

    def _run_lone(self) -> None:
        """Run the only call that there is. The straight path of who waits for each of their calls.

        As `_run_calls`, but that nothing is prepared for others behind it.
        """
        self._running, self._hurry = True, False
        if self._sleep > DOZING:
            self._wake_helper()
        self._call_lone(self._groups[0])
        self._groups.popleft()
        self._running = False

    def _call_lone(self, group: _Group) -> None:
        """As `_run_group`, in the same order."""
        outcomes, words, form = self._outcomes, self._words, group.form
        number = outcomes.finished + 1
        try:
            item = group.items.popleft()
        except IndexError:  # the helper was quicker
            return
        words[LOAN], words[BEGUN] = group.loan, number
        if words[HALT] != self._halt and not self._is_ours(group, number):
            return
        function = self._learned.ready(group.key)
        careful = function is None or group.limits is not None or bool(self._learned.failed)
        try:
            if careful:
                function = self._careful_begin(group)
            if form in ALONE:
                result = function(item)
            elif form == PLAIN:
                result = function(*item)
            else:
                item = self._arguments(form, item)
                result = function(*item[0], **item[1])
            outcomes.write_lone(result)
        except BaseException as error:
            self._fail_call(number, error)
        if careful:
            self._careful_end(group)

    def _run_group(self, group: _Group) -> None:
        """Run calls of one function. The straight path of a call: what can be, is done before."""
        pop, form, limits = group.items.popleft, group.form, group.limits
        outcomes = self._outcomes
        straight, sized, are_atoms = outcomes.straight, outcomes.sized, pickling.ATOMS.issuperset
        dumps, version, most = marshal.dumps, runs.EVERYWHERE, pickling.OUT_OF_BAND
        words, write = self._words, self._journal.write
        halt, number = self._halt, outcomes.finished
        words[LOAN] = group.loan
        function = self._learned.ready(group.key)
        careful = function is None or limits is not None or bool(self._learned.failed)
        harmless = form in (SINGLE, PLAIN)  # nothing happens when such arguments go
        simple = form == SINGLE and not careful  # the shortest way, which is looked for first
        end, slots, first = outcomes.open_run(number + 1, several=len(group.items) > 1)
        while True:
            try:
                item = pop()
            except IndexError:
                break
            number += 1
            words[BEGUN] = number
            if words[HALT] != halt:
                if not self._is_ours(group, number):
                    number -= 1
                    break
                halt = self._halt
            plain = True
            try:
                if careful:
                    function = self._careful_begin(group)
                if simple or form in ALONE:
                    result = function(item)
                elif form == PLAIN:
                    result = function(*item)
                else:
                    item = self._arguments(form, item)
                    result = function(*item[0], **item[1])
                try:
                    if type(result) is outcomes.slotted:
                        slots[number - first] = result
                        if simple:
                            continue
                        if not harmless:
                            outcomes.records.commit(number)
                    elif type(result) in straight or (
                        type(result) in sized
                        and len(result) < most
                        and (type(result) is not tuple or are_atoms(map(type, result)))
                    ):
                        words[END] = end = end + write(dumps(result, version))
                    else:
                        plain = False
                except (IndexError, ValueError):  # so much room is not left, or a number has not
                    plain = False
                if not plain:
                    outcomes.finished = number - 1
                    plain = outcomes.write_result(result)
                    end = words[END]
            except BaseException as error:  # SystemExit too belongs to the task, not to us
                plain = False
                self._fail_call(number, error)
            if not plain:
                end, slots, first = outcomes.open_run(number + 1)
            if careful:
                careful = self._careful_end(group)
            # The result is safe; only now what the call held may go, since that may crash too.
            item = result = None
        if slots is not None:
            outcomes.records.commit(number)
        outcomes.finished = number

    def _arguments(self, form: int, item: Any) -> tuple[Any, Any]:
        """What a call gets, by position and by name, if it travels in a form that must be read.

        Raises:
            BadArguments: They cannot be rebuilt.
        """
        if form == ROWS:
            return item[0].row(item[1]), {}
        read = small_arguments(item) if form == SMALL else arguments(item, self._learned.payload)
        return cast("tuple[Any, Any]", read)

    def _fail_call(self, number: int, error: BaseException) -> None:
        """Call `number` is the last that has begun, and it has failed, or its result has."""
        self._outcomes.finished = number - 1
        self._outcomes.write_failure(self._failure(error))
        if not _can_open():
            # No further call could open a file here: they are all for a new worker.
            self._left = 0
            self._drop_lined_up()

    def _careful_begin(self, group: _Group) -> Any:
        """The function, for a call that has limits or may lack something; the limits hold now.

        Raises:
            BaseException: What unpickling the function, or a global that it needs, raised.
        """
        self._learned.check(group.places)
        function = self._learned.function(group.key)
        if group.limits is not None:  # from here on: loading its module does not count
            seconds, size = group.limits
            self._words[DEADLINE], self._words[MOST] = _deadline(seconds), size
        return function

    def _careful_end(self, group: _Group) -> bool:
        """Such a call has ended; whether the next one is to begin in that way, too."""
        if group.limits is not None:
            self._words[DEADLINE] = self._words[MOST] = 0
        missing = self._learned.failed or self._learned.ready(group.key) is None
        return group.limits is not None or bool(missing)

    def _is_ours(self, group: _Group, number: int) -> bool:
        """We stood still, and what had not begun went to others: whether this call is ours yet.

        The agent had written that into the journal before it read what we have begun, and we have
        written what we begin before we read that: so it has seen this call, or we wait here.
        """
        records = self._outcomes.records
        if records.slots is not None:
            records.commit(number - 1)
        halt = self._words[HALT]
        self._connection.wait(ONE_WAY, lambda: self._revoked.halt >= halt)
        revoked = self._revoked
        for each in self._groups:
            if each.loan <= revoked.loan:
                each.items.clear()
        ours = group.loan > revoked.loan or number <= revoked.begun
        if not ours:
            self._words[BEGUN] = number - 1
        self._halt = revoked.halt
        return ours

    def _drop_lined_up(self) -> None:
        """Begin none of these: at our end they are first in line again."""
        for group in self._groups:
            group.items.clear()

    def _failure(self, error: BaseException) -> bytes:
        """What the caller gets to see of an error of a call."""
        explain(error, None if self._shipped is None else self._shipped.refused)
        return failure_of(error, __file__)

    # ------------------------------------------------------------------ what tasks print

    def _post_output(self, items: list[Any]) -> None:
        """Send lines, which are texts, and log records where they are wanted."""
        if self._store_lines is not None:
            lines = [item for item in items if type(item) is str]
            if lines:
                self._store_lines(lines)
        if not self._tell_lines:
            items = [item for item in items if type(item) is not str]
        for i in range(0, len(items), SEND_AT):
            self._connection.post(Report((pickling.pack(items[i : i + SEND_AT]),)), ONE_WAY)

    def _is_sending(self) -> bool:
        return self._connection.sending or self._servers_link.sending

    # ------------------------------------------------------------------ the helper

    def _wake_helper(self) -> None:
        self._sleep = AWAKE
        with contextlib.suppress(RuntimeError):  # it was not asleep after all
            self._bell.release()

    def _help(self) -> None:
        """Thread: look after everything else while a long call keeps the main thread."""
        last, idle = -1, 0
        try:
            while True:
                if idle > DOZE_AFTER:
                    idle, self._sleep = 0, min(self._sleep + 1, ASLEEP)
                # Asked after _sleep was set: either we see a call that begins, or it sees us.
                if not self._sleep or (self._running and self._hurry):
                    time.sleep(self._tick)
                elif self._sleep == DOZING or self._running:
                    self._bell.acquire(timeout=LOOK)
                else:
                    self._bell.acquire()
                if not self._running or not (self._hurry or self._sleep):
                    idle, last = idle + 1, -1
                elif self._words[BEGUN] == last:
                    idle = 0
                    self._relieve(last)
                else:
                    idle, last = 0, self._words[BEGUN]
        except ConnectionLostError:
            os._exit(1)  # nobody waits for the present task any more

    def _relieve(self, stuck: int) -> None:
        """Call number `stuck` is a long one: nothing else is to wait for it.

        Where all are busy, others had to wait in its place, and we for them afterwards: then it is
        kept for a while, and recalled if somebody has nothing to do.
        """
        keep_until = 0.0
        with self._outcomes.lock:
            self._outcomes.send()
            if self._plenty:
                self._return({self._words[LOAN]: 0})
                keep_until = time.monotonic() + KEEP
        lined_up = True
        while self._running and self._words[BEGUN] == stuck:
            if (left := keep_until - time.monotonic()) > 0:
                self._connection.pump(left)
                self._outbox.send()
                continue
            # Taken and returned in one: results belong to the oldest loans, so those of what comes
            # next must not go out before the client knows that this is nobody's any more.
            with self._outcomes.lock:
                batch: Any = self._connection.take(self._prefetch)
                if batch is not None:
                    self._prefetch = 0
                if type(batch) is Calls:
                    news, groups, grants = pickling.loads(batch.values[0])
                    if grants and self._connection.memory is not None:
                        self._connection.memory.grant(grants)
                    self._news.append(news)
                    self._return({batch.loan: sum(map(_size, groups))})
                if lined_up and not self._prefetch:
                    # The last ones first: what goes back stands first in line.
                    lined_up = False
                    self._return(self._lined_up())
                    continue
            self._connection.pump(LOOK)
            self._outbox.send()

    def _lined_up(self) -> dict[int, int]:
        """Take the calls that have not begun out of the line: how many of each loan."""
        taken: dict[int, int] = {}
        for group in reversed(tuple(self._groups)):
            with contextlib.suppress(IndexError):
                while True:
                    group.items.pop()
                    taken[group.loan] = taken.get(group.loan, 0) + 1
        return taken

    def _return(self, calls: dict[int, int]) -> None:
        for loan, count in calls.items():
            self._connection.post(Return(loan, count), ONE_WAY)


def _size(group: tuple[Any, ...]) -> int:
    """How many calls are in a group, as it comes."""
    _, form, _, _, items = group
    return sum(stop - first for _, first, stop in items) if form == ROWS else len(items)


def _deadline(seconds: float) -> int:
    """So many seconds from now, in nanoseconds of the clock that this machine has; 0: never."""
    return time.monotonic_ns() + round(seconds * 1e9) if seconds else 0


def _can_open() -> bool:
    """Whether there is a descriptor left for whoever wants to open something."""
    try:
        os.close(os.dup(0))
    except OSError as error:
        return error.errno != errno.EMFILE  # a call may have closed all that there were
    return True


def _store_lines(
    post: Callable[[Any, int], int], workspace: int, variable: str, lines: list[str]
) -> None:
    """Add lines to a variable that keeps the newest, without waiting for the server."""
    lines = lines[-KEPT_LINES:]
    with contextlib.suppress(ConnectionLostError):  # nobody is there to read them
        for i in range(0, len(lines), STORED_LINES):
            values = [pickling.value_payload(line) for line in lines[i : i + STORED_LINES]]
            post(Store(workspace, variable, values, KEPT_LINES), ONE_WAY)


def _forward_records(outbox: Outbox, rank: int, levels: dict[str, int]) -> None:
    from sleighexec.records import forward  # whose module is not imported by all

    forward(outbox, rank, levels)


def _be_a_child(rank: int, authkey: bytes) -> None:
    """Make multiprocessing see that this process has a parent, and which key it uses."""
    import multiprocessing.process as processes

    me = processes.current_process()
    me.name = f"SleighWorker-{rank}"
    me.authkey = authkey
    parent = getattr(processes, "_ParentProcess", None)
    if parent is not None:
        read, _ = os.pipe()  # its end is never seen: the agent ends us with our parent
        processes._parent_process = parent("MainProcess", os.getppid(), read)  # type: ignore
