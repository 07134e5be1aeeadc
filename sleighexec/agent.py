"""One process per host that starts, watches and replaces that host's workers.

    client ══ one stream (stdin) ══ agent ── fork ─▶ worker ══ socket pair ══ client
                                      ├ reads what each worker writes to stderr, keeps the tail
                                      └ waits for each worker's end, reads its journal, reports

It is single-threaded and never runs a user's code, so that forking from it is safe and takes
milliseconds, and so that it notices and reports whatever happens to a worker. It ends, and all
workers and what their tasks left behind with it, when the client goes away by any death. They end
with it too when it is killed itself: see `newborn`.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import multiprocessing.process  # noqa: F401 - not for us, but every worker needs it
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections import deque
from functools import partial

from sleighexec import payload as pickling
from sleighexec import wire
from sleighexec.child import Child, kill_group, oom_kills
from sleighexec.depot import Depot
from sleighexec.farewell import bid_farewell, finish
from sleighexec.hints import Any, NoReturn
from sleighexec.journal import Journal
from sleighexec.messages import (
    Attach,
    Exited,
    Halted,
    KillCall,
    Leaving,
    Moved,
    Payload,
    Recall,
    Signal,
    Start,
    Started,
    StopAgent,
    Watch,
)
from sleighexec.newborn import CPUS, DUMP, begin, raise_limit
from sleighexec.task import KILLED, MEMORY, OOM, TIMEOUT
from sleighexec.worker import Worker

PARENT_CHECK = 0.5  # seconds between looks at whether the client still lives
TAIL = 64 * 1024  # bytes of stderr that are kept of each worker
REPORTED = 4000  # characters of these that a report carries
STOP_SECONDS = 0.5  # for a worker to stand still after SIGSTOP
HALT_SECONDS = 5.0  # that a worker stands still until what it has not begun is given to others
LATE_SECONDS = 2.0  # of a round of ours from which on we have stood still ourselves
SEEN_SECONDS = 0.0001  # far more than it takes until other processors see what one has written
DUMP_SECONDS = 1.0  # for it to do so, at most
TERM_SECONDS = 2.0  # between SIGTERM and SIGKILL
BUNCH = 4  # workers that are forked together: none is to wait long for the others
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in which ru_maxrss counts
POLITE = {signal.SIGTERM, signal.SIGINT}  # signals that ask us to leave
AT_ONCE = signal.SIGUSR1  # ends us, and all workers
PIPE = 4096  # bytes that a pipe takes at once when it says that it is writable

# A worker that is about to be: what we keep of it, its setup, its end of a connection, and those of
# two pipes: of its stderr, and of the one that ends with us.
Birth = tuple[Child, dict[str, Any], int, int, int]


class Agent:
    """Serves one client until it goes away."""

    def __init__(self, control: socket.socket, parent: int) -> None:
        self._control, self._parent = control, parent
        self._decoder = wire.Decoder()
        self._descriptors: deque[int] = deque()  # came with Start messages, in their order
        self._children: dict[int, Child] = {}  # by pid
        self._depot: Depot | None = None  # what is kept here for all of them
        self._unwritten: deque[bytes] = deque()  # stderr of workers on its way to ours
        self._forked = 0  # workers so far
        self._pause = PARENT_CHECK  # seconds between looks at who must be ended
        self._oom_kills = oom_kills()
        self._stopping = self._leaving = False
        self._round_at = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._hear)
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._reap)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> Worker | None:
        """Serve until the end; in a child of a fork, the worker that it is to run."""
        while not (self._stopping and not self._children):
            for key, _ in self._selector.select(self._patience()):
                if self._selector.get_map().get(key.fd) is not key:
                    continue  # closed, perhaps even reused, by what came before it in this round
                worker = key.data()
                if worker is not None:
                    return worker  # type: ignore[no-any-return]
            self._pass_on()
            if self._leaving:
                self._leaving = False
                self._tell(Leaving())
            if self._pause < PARENT_CHECK:
                self._look_after()
            self._look_at_still()
            if os.getppid() != self._parent:
                # EOF alone does not tell: a forked child of the client may hold the socket too.
                self.die()
        return None

    def end_at_once(self, *_: object) -> None:
        """A signal handler."""
        self.die(1)

    def ask_to_leave(self, *_: object) -> None:
        """A signal handler; the loop wakes, and says it."""
        self._leaving = True

    def die(self, status: int = 0) -> NoReturn:
        """The client is gone: nothing that it started may stay."""
        for pid in self._children:
            kill_group(pid)
        os._exit(status)

    # ------------------------------------------------------------------ the client's messages

    def _hear(self) -> Worker | None:
        """Do what the client says; in a child of a fork, the worker that it is to run.

        What we touch between one fork and the next is copied once more, and so for each worker.
        So those that are to start together are forked one right after the other.
        """
        starts: list[tuple[Start, int]] = []
        recalled: set[int] = set()
        while len(starts) < BUNCH and (messages := self._receive()):
            for message in messages:
                if type(message) is Start:
                    starts.append((message, self._descriptors.popleft()))
                    continue
                if type(message) is Recall:
                    recalled.add(message.worker)
                    continue
                if (worker := self._fork(starts)) is not None:
                    return worker
                starts.clear()
                self._do(message)
        if recalled:  # all at once: they have one pause in common
            children = [each for each in self._children.values() if each.number in recalled]
            self._halt(children, still=False)
        return self._fork(starts)

    def _receive(self) -> list[Any]:
        """The next messages, if they are there: at most one of them brings a descriptor."""
        try:
            count, ancillary, *_ = self._control.recvmsg_into(
                [self._decoder.buffer()], socket.CMSG_SPACE(64), socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return []
        except ConnectionError:
            self.die()
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
                for descriptor in descriptors:  # not for programs that a task starts
                    os.set_inheritable(descriptor, False)
                self._descriptors.extend(descriptors)
        if count == 0:
            self.die()
        return [message for _, message in self._decoder.received(count)]

    def _do(self, message: Any) -> None:
        if type(message) is Attach and self._depot is not None:
            stream = self._depot.attach(self._descriptors.popleft())
            self._selector.register(stream, selectors.EVENT_READ, self._hear_constants)
        if type(message) is Signal:
            for child in list(self._children.values()):
                if message.worker in (0, child.number):
                    if message.signal == signal.SIGKILL:
                        child.kill()
                    else:
                        child.signal(message.signal)
                        if message.signal == signal.SIGTERM:  # who stands still is to end as well
                            child.signal(signal.SIGCONT)
        elif type(message) is KillCall:
            for child in list(self._children.values()):
                if child.number == message.worker and self._hold(child, message.call):
                    child.reason = KILLED
                    child.kill()
        elif type(message) is Watch:
            self._pause = min(self._pause, message.seconds)
        elif type(message) is StopAgent:
            self._stopping = True

    def _hear_constants(self) -> None:
        assert self._depot is not None
        with contextlib.suppress(ConnectionError):
            if self._depot.hear():
                return
        self.die()  # it ends with our client

    def _hold(self, child: Child, call: int) -> bool:
        """Stop a worker if it runs this call: its journal tells, while it stands still."""
        child.signal(signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            pid, status, usage = os.wait4(child.pid, os.WUNTRACED | os.WNOHANG)
            if pid and not os.WIFSTOPPED(status):
                del self._children[pid]
                self._report(child, os.waitstatus_to_exitcode(status), usage.ru_maxrss)
                return False
            if pid:
                break
            time.sleep(0.0002)
        if child.present_call() == call:
            return True
        if child.still_since is None and not child.halted:
            child.signal(signal.SIGCONT)
        return False

    # ------------------------------------------------------------------ workers that stand still

    def _patience(self) -> float:
        """Seconds to wait for something to happen."""
        since = [c.still_since for c in self._children.values() if c.still_since is not None]
        if not since:
            return self._pause
        left = min(since) + HALT_SECONDS - time.monotonic()
        return min(max(left, 0.0), self._pause)

    def _look_at_still(self) -> None:
        """Tell of workers that somebody has stopped, not at once: most are soon continued."""
        now = time.monotonic()
        late, self._round_at = now - self._round_at > LATE_SECONDS, now
        for child in self._children.values():
            if child.still_since is None:
                continue
            if late:  # then perhaps all of us stood still, and go on together
                child.still_since = now
            elif now - child.still_since >= HALT_SECONDS:
                child.still_since, child.halted = None, True
                self._halt([child], still=True)

    def _halt(self, children: list[Child], *, still: bool) -> None:
        """See that workers begin nothing more, though they may run, and tell what has begun.

        First we write, then we look; they write what they begin, then look. So whatever one does
        meanwhile: we see the call that it begins, or it sees that it must ask.
        """
        for child in children:
            child.halts += 1
            child.journal.halt(child.halts)
        time.sleep(SEEN_SECONDS)
        for child in children:
            records, begun = child.journal.read()
            # It may have been writing while we read: then it sends them itself.
            if not (still and child.stands_still() and child.journal.read() == (records, begun)):
                records = b""
            loan, values = child.journal.loan(), (Payload(records),) if records else ()
            self._tell(Halted(child.number, begun, loan, child.halts, still, values))

    def _stirred(self, child: Child, still: bool) -> None:
        """A worker was stopped, or continued."""
        if still:
            if not child.halted and child.still_since is None:
                child.still_since = time.monotonic()
            return
        child.still_since = None
        if child.halted:
            child.halted = False
            self._tell(Moved(child.number))

    # ------------------------------------------------------------------ calls beyond their limits

    def _look_after(self) -> None:
        """End the workers whose calls have taken more than they may."""
        now = time.monotonic()
        for child in list(self._children.values()):
            if child.next_step is not None and child.journal.begun() != child.overdue:
                child.next_step = None  # that call has ended by itself, and this one is innocent
            if child.next_step is not None:
                seen, child.seen = child.seen, len(child.tail)
                written = child.next_step[1] == signal.SIGTERM and 0 < child.seen == seen
                if child.next_step[0] <= now or written:
                    self._step(child, now)
                continue
            end, size = child.journal.limits()
            if end and end <= now:
                child.overdue, child.next_step = child.journal.begun(), (now, DUMP)
                self._step(child, now)
                continue
            large = size and child.resident() > size
            if large and self._hold(child, child.journal.begun()):
                child.reason = MEMORY
                child.kill()

    def _step(self, child: Child, now: float) -> None:
        """On the way of a call that takes too long: its stack, then SIGTERM, then SIGKILL."""
        assert child.next_step is not None
        _, number = child.next_step
        child.next_step = None
        if not self._hold(child, child.overdue):
            return
        if number == signal.SIGKILL:
            child.kill()
            return
        if number == DUMP:
            child.next_step = (now + DUMP_SECONDS, signal.SIGTERM)
            del child.tail[:]  # the report is to begin with the stack
        else:
            child.next_step = (now + TERM_SECONDS, signal.SIGKILL)
        child.signal(number)
        child.signal(signal.SIGCONT)

    def _fork(self, starts: list[tuple[Start, int]]) -> Worker | None:
        """Start workers, each with its end of a connection; in one of them, what it is to run."""
        if not starts:
            return None
        births = [self._prepare(*start) for start in starts]
        gc.freeze()  # what is there now stays: a worker need not look through it, and so copy it
        for birth in births:
            child, setup, descriptor, stderr, life_line = birth
            child.pid = os.fork()
            if child.pid == 0:
                births.remove(birth)
                child.close()
                self._leave_to_child(births)
                return begin(setup, descriptor, stderr, life_line, child.journal)
        for child, _, *theirs in births:
            for end in theirs:
                os.close(end)
            self._children[child.pid] = child
            self._selector.register(child.stderr, selectors.EVENT_READ, partial(self._read, child))
        self._tell(*[Started(child.number, child.pid) for child, *_ in births])
        return None

    def _prepare(self, start: Start, descriptor: int) -> Birth:
        self._forked += 1
        setup = json.loads(start.setup)
        if self._forked > CPUS and setup["cloudpickle"]:
            # The first ones load it, if they need it, all at the same time: later ones would queue.
            with contextlib.suppress(ImportError):  # it is where only the client's sys.path leads
                pickling.byvalue()
                import sleighexec.records  # noqa: F401 - which a worker needs where logging is there
        if setup["depot"]:
            with contextlib.suppress(OSError, AttributeError):  # only Linux has such memory
                self._depot = self._depot or Depot()
            setup["depot"] = None if self._depot is None else self._depot.probe()
        read, write = os.pipe()
        os.set_blocking(read, False)
        life_line, ours = os.pipe()
        child = Child(start.worker, Journal(), read, ours, setup["pass_on"])
        return child, setup, descriptor, write, life_line

    def _leave_to_child(self, births: list[Birth]) -> None:
        """In a new worker: let go of everything that is the agent's; `births`: of the others."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._control.close()
        theirs = [end for _, _, *ends in births for end in ends]
        for end in (self._wake_read, self._wake_write, *self._descriptors, *theirs):
            os.close(end)
        for child in (*self._children.values(), *[child for child, *_ in births]):
            child.close()
            child.journal.memory.close()
        if self._depot is not None:
            self._depot.forget()

    def _tell(self, *messages: Any) -> None:
        try:
            pieces = [piece for message in messages for piece in wire.encode(0, message)]
            self._control.sendall(b"".join(pieces))
        except OSError:
            self.die()

    # ------------------------------------------------------------------ what workers do

    def _read(self, child: Child) -> None:
        """Keep the tail of what a worker writes to stderr, and pass it on to ours."""
        try:
            data = os.read(child.stderr, PIPE * 4)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(child.stderr)
            return
        child.tail += data
        del child.tail[:-TAIL]
        # Whoever does not read ours loses, not we.
        stacks = child.next_step is not None  # those of a call that takes too long: for its error
        if child.pass_on and not stacks and sum(map(len, self._unwritten)) < TAIL:
            self._unwritten.append(data)

    def _pass_on(self) -> None:
        while self._unwritten:
            if not select.select([], [2], [], 0)[1]:
                return
            data = self._unwritten.popleft()
            if len(data) > PIPE:
                self._unwritten.appendleft(data[PIPE:])
            try:
                os.write(2, data[:PIPE])
            except OSError:
                self._unwritten.clear()

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._children:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
                if pid in self._children:
                    self._stirred(self._children[pid], os.WIFSTOPPED(status))
                continue
            child = self._children.pop(pid, None)
            if child is not None:
                self._report(child, os.waitstatus_to_exitcode(status), usage.ru_maxrss)

    def _report(self, child: Child, status: int, peak: int) -> None:
        child.kill()  # what its tasks started goes with it
        with contextlib.suppress(KeyError):
            while child.stderr in self._selector.get_map():
                before = len(child.tail)
                self._read(child)
                if len(child.tail) == before:
                    break
            self._selector.unregister(child.stderr)
        child.close()
        running = child.present_call()
        if running and running == child.overdue and not child.reason:
            child.reason = TIMEOUT  # at whichever step it has died
        records, begun = child.journal.read()
        loan = child.journal.loan()
        printed = child.journal.text.read() if running else b""
        child.journal.memory.close()
        text = bytes(child.tail[-REPORTED:]).decode("utf-8", "replace")
        values = (Payload(records), Payload(printed))
        if status == -signal.SIGKILL and not child.reason:
            before, self._oom_kills = self._oom_kills, oom_kills()
            if self._oom_kills > before:
                child.reason = OOM
        peak *= MAXRSS_UNIT
        self._tell(Exited(child.number, status, begun, loan, child.reason, peak, text, values))


def main(*, polite: bool = False) -> None:
    """Entry point of the agent process: its stdin is the stream to the client.

    `polite`: at SIGTERM it asks the client to let it go after the present calls; see also AT_ONCE.
    """
    parent = int(sys.argv[1])
    control = socket.socket(fileno=os.dup(0))
    os.set_inheritable(control.fileno(), False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise_limit()
    gc.enable()
    agent = Agent(control, parent)
    if polite:
        signal.signal(signal.SIGTERM, agent.ask_to_leave)
        signal.signal(AT_ONCE, agent.end_at_once)
    # Who has started us may have blocked any, and at least POLITE if we are; workers inherit this.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    worker = agent.serve()
    if worker is None:
        os._exit(0)  # nothing of ours needs an orderly end, and that takes 10 ms
    try:
        worker.run()
    finally:
        bid_farewell()
    finish(worker.let_go)
