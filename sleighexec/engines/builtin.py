"""The engine at home: tasks wait in lines of this process, workers ask for them.

    put(task) ─▶ Lines ─▶ a waiting worker, on loan ─▶ pack: one frame of Calls
    worker ─▶ Results: outcomes in the order of its loans ─▶ loan settled ─▶ Task.deliver
    worker's end ─▶ agent: Exited with its journal ─▶ results in it delivered, the call that had
                    begun lost or tried again, everything else first in line again ─▶ new worker

A worker is started when a task waits and nobody is there to take it. What is meant for one worker
waits in the mailbox of its rank, which it looks into first. Everything here happens under the
server's lock; what may run a user's code is deferred to the serving thread without it.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sleighexec import payload as pickling
from sleighexec import raised, records, wire
from sleighexec.access import embedded
from sleighexec.connections import Connection
from sleighexec.context import imported_in_worker
from sleighexec.engines.agents import AgentLink
from sleighexec.engines.base import Prepared
from sleighexec.engines.exits import is_too_late, register, shut_down
from sleighexec.engines.lines import Line, Lines, Loan
from sleighexec.engines.losses import Losses
from sleighexec.engines.outcomes import deliver, deliver_lone, go_on, hand_on
from sleighexec.engines.places import Places
from sleighexec.engines.processes import WorkerProcess
from sleighexec.engines.workers import WorkerLink
from sleighexec.errors import ExecutorError, ForkedProcessError
from sleighexec.functions import FunctionTable
from sleighexec.hints import TYPE_CHECKING, Any
from sleighexec.inprocess import LocalConnection
from sleighexec.launchers.base import Launcher, is_remote
from sleighexec.messages import (
    Ask,
    Calls,
    Join,
    Lease,
    Leave,
    Need,
    Nothing,
    Open,
    Opened,
    Payload,
    Release,
    Report,
    Results,
    Return,
    SetupFailed,
    Welcome,
)
from sleighexec.output import CAPTURE, PASS
from sleighexec.resources import Needs
from sleighexec.server import Server
from sleighexec.space import Space
from sleighexec.task import Settings, Task

if TYPE_CHECKING:
    from sleighexec.address import Address
    from sleighexec.engines.joining import Reception
    from sleighexec.workerinfo import WorkerInfo


log = logging.getLogger("sleighexec")


class _Sticky:
    """A call that every worker makes once: by its task in the mailbox, or while it prepares."""

    def __init__(self, prepared: Prepared, tasks: Sequence[Task]) -> None:
        self.prepared = prepared
        self._tasks = [weakref.ref(task) for task in tasks]

    def waits_in(self, box: Line) -> bool:
        """Whether its task is in a mailbox still."""
        return any(mine() is task for mine in self._tasks for task in box.tasks)


class BuiltinEngine(Losses):
    """See `sleighexec.engines.base.Engine`."""

    takes_rows = True

    def __init__(
        self,
        launchers: Sequence[Launcher],
        functions: FunctionTable,
        *,
        initializer: Prepared | None,
        max_tasks_per_child: int | None,
        idle_timeout: float | None,
        on_crash: str,
        capture_output: bool,
        capture_logging: bool,
        output: str | Callable[[int, str], object],
        inner_threads: int | None,
        workspaces: Sequence[str],
        address: Address | None,
        on_end: Callable[[], None],
        name: str,
        start_timeout: float | None = None,
        max_pending: int | None = None,
    ) -> None:
        """See SleighExecutor.

        `launchers`: where the worker of each rank lives; equal ones share an agent. `workspaces`:
        names of the one that the system uses and of the one that is the user's, in the space of
        this process or of the server at `address`. `on_end`: called at the very end.
        `start_timeout`: seconds for an agent to come; None: the usual.
        """
        self.max_workers = len(launchers)
        self._unmanned = max(len(launchers), 1)
        self.forked = self.stop_at_exit = False
        self.broken: BaseException | None = None
        self._places, self._functions = Places(launchers), functions
        self._start_timeout, self._max_pending = start_timeout, max_pending
        self._joined_by: float | None = None
        self._bells: list[threading.Lock] = []  # of threads that wait for room
        self._max_tasks, self._capture = max_tasks_per_child, capture_output
        self._inner_threads, self._idle_timeout = inner_threads, idle_timeout
        self._capture_logging, self._output = capture_logging, output
        self._break_on_crash = on_crash == "break"
        self.server = Server(Space(choose=_choose), name=f"{name}-server")
        self.in_loop, self.attend = self.server.in_loop, self.server.attend
        self.serve_until = self.server.serve_until
        self.server.after_round = self._after_round
        self.server.go_on = go_on
        self.server.on_time = self._on_time
        self.server.on_failure = self._fail
        self.server.idle = self._is_idle
        self.server.shares_memory = any(_shares_memory(launcher) for launcher in launchers)
        functions.keep = self._keep
        self.connection = LocalConnection(self.server)
        embedded[self.connection.space] = self.connection
        space = self.server.space
        self._lines = Lines()
        self._lines.add_boxes(len(launchers))
        # Those that wait for tasks, in the order in which they came, and what they ask for: tag
        # and number of calls.
        self._waiting: dict[WorkerLink, tuple[int, int]] = {}
        self._loan_numbers = iter(range(1, 2**62))
        self._sticky = [_Sticky(initializer, ())] if initializer is not None else []
        self._address, self._on_end = address, on_end
        self.workspaces: list[tuple[str, int]] = []  # names, and numbers in our own space
        for workspace_name in workspaces:
            [(_, _, opened)] = space.apply(self, 0, Open(workspace_name, own=False), 0)
            assert type(opened) is Opened
            self.workspaces.append((workspace_name, opened.workspace))
        self._workers: dict[int, WorkerLink] = {}  # by number
        self._numbers = iter(range(1, 2**62))
        self._agents: dict[Launcher, AgentLink] = {}
        self._receptions: list[Reception] = []
        self._failed_starts = 0
        self._start_at = 0.0  # not before that time, after failed starts; 0: at once
        self._closing = is_too_late()
        self._abandoned = self._killing = False
        self._ended = threading.Event()
        self._pids = threading.Condition(self.server.lock.inner)  # a worker got its pid, or ended
        register(self)

    # ------------------------------------------------------------------ what the executor calls

    def admit(self, settings: Settings) -> None:
        pass  # whatever there is

    def put(self, tasks: Sequence[Task]) -> None:
        if self._all_busy():
            # Nobody to hand them to: no lock is needed to line them up, so that who submits does
            # not wait for who serves. We append, then look again; a worker that comes to wait
            # registers, then looks again (_ask); an end is announced, then looks.
            self._lines.usual.tasks.extend(tasks)
            if self._all_busy():
                if self.server.parked:
                    self.server.attend()
                return
            with self.server.lock:
                late = self._serve_late()
            for task in late:
                task.fail(self._broken_error if self.broken is not None else shut_down)
            return
        with self.server.lock:
            self._check_open()
            usual = self._lines.usual
            if len(tasks) == 1 and not usual.tasks and self._lend_lone(tasks[0]):
                return
            usual.tasks.extend(tasks)
            self._serve(usual)
            if usual.tasks and self._unmanned:
                self._scale()

    def put_ranked(self, tasks: Sequence[Task], priority: int, needs: Needs = ()) -> None:
        with self.server.lock:
            self._check_open()
            if needs and not self._places.fit(needs):
                raise self._places.unfit(needs)
            if tasks:
                self._line_up(tasks, priority, needs)

    def _line_up(self, tasks: Sequence[Task], priority: int, needs: Needs) -> None:
        """Put tasks under the lock, even if no more are taken from outside."""
        line = self._lines.line_of(priority, needs)
        line.tasks.extend(tasks)
        self._serve(line)
        self._scale()

    def wait_for_room(self) -> None:
        while not self.in_loop():
            bell = threading.Lock()
            bell.acquire()
            with self.server.lock:
                if not self._is_full():
                    return
                self._bells.append(bell)
            self.server.attend()
            bell.acquire()

    def _is_full(self) -> bool:
        """Whether as many tasks wait as may. Not at the end: then they are refused."""
        ended = self._closing or self.forked or self.broken is not None
        return not ended and self._lines.length() >= (self._max_pending or math.inf)

    def hold(self, task: Task) -> None:
        with self.server.lock:
            self._check_open()
            self._lines.held[task] = None
        self.server.start()

    def put_held(self, task: Task, priority: int, needs: Needs = ()) -> None:
        with self.server.lock:
            if self._lines.held.pop(task, self) is None:
                self._line_up((task,), priority, needs)

    def drop_held(self, task: Task, error: Callable[[], BaseException] | None = None) -> None:
        with self.server.lock:
            if self._lines.held.pop(task, self) is None:
                if error is not None:
                    self.server.defer(task.fail, error)
                self.server._wake()  # perhaps it was the last that we waited for

    def put_each(self, tasks: Sequence[Task], sticky: Prepared | None = None) -> None:
        with self.server.lock:
            self._check_open()
            if sticky is not None:
                self._sticky.append(_Sticky(sticky, tasks))
            ranks = sorted(self._places.wanted)
            for rank, task in zip(ranks, tasks):
                box = self._lines.boxes[rank]
                box.tasks.append(task)
                self._serve(box)
            for task in tasks[len(ranks) :]:  # some have left at this very moment
                self.server.defer(task.withdraw)
            for launcher in self._places.given_up:
                self._fail_boxes(launcher)
            self._scale()

    def unstick(self, sticky: Prepared) -> None:
        with self.server.lock:
            self._sticky = [each for each in self._sticky if each.prepared is not sticky]

    def resize(self, max_workers: int) -> None:
        with self.server.lock:
            self._check_open()
            self._places.resize(max_workers)
            self._ranks_changed()
            for worker in self._workers.values():
                if worker.rank not in self._places.wanted:
                    self._let_go(worker)
            self._scale()

    def start(self) -> None:
        with self.server.lock:
            self._check_open()
            self._scale(everybody=True)

    def kill(self, whom: Any) -> bool:
        found = False
        if self.forked:
            return found
        with self.server.lock:
            for worker in self._workers.values():
                call = worker.answered + 1
                for task in [task for loan in worker.loans for task in loan.tasks]:
                    position = task.position(whom)
                    if position is not None and (agent := self._agent_of(worker)) is not None:
                        found = True
                        agent.kill_call(worker.number, call + position)
                    call += task.size()
        return found

    def _all_busy(self) -> bool:
        """Whether there is nothing to do for a task but to line it up. Asked without the lock."""
        return (
            not self._waiting
            and not self._unmanned
            and not (self._closing or self.forked or self.broken is not None)
        )

    def _serve_late(self) -> list[Task]:
        """Something has changed while tasks were lined up without the lock. Under it.

        The tasks for which it is too late.
        """
        if self.broken is not None or self._ended.is_set():
            return self._lines.take()
        self._serve(self._lines.usual)
        self._scale()
        return []

    def _is_idle(self) -> bool:
        return len(self._waiting) == len(self._workers) and not (
            self._lines.usual.tasks
            or self.connection.waiting
            or (self._lines.ranked and self._lines.any_ranked())
        )

    def _check_open(self) -> None:
        if self.forked:
            raise ForkedProcessError(
                "this executor belongs to the parent process; make a new one in this process"
            )
        if self.broken is not None:
            raise self._broken_error()
        if self._closing:
            raise shut_down()

    def shutdown(self, *, cancel: bool = False) -> None:
        with self.server.lock:
            if self.forked:
                return
            self._closing = True
            if cancel:
                # As in the standard library, what a worker is being started for counts as begun.
                # Not so a host that has not answered: that can take long.
                starting = sum(not w.ready and not self._is_far(w) for w in self._workers.values())
                self._withdraw_waiting(spare=starting)
            self._pids.notify_all()
            if not self._places.usable():  # nobody else sees to what waits
                self._lines.drop_ended()
                if self._lines.waiting() and not self._receptions:
                    self._give_up_waiting()
            if not self._agents and not self._workers and not self._lines.waiting():
                self._end()
            else:
                self.server._wake()

    def join(self) -> None:
        if self.forked:
            return
        if self.in_loop():  # a callback shuts its own executor down: it cannot wait for itself
            return
        self._ended.wait()
        self.server.close()

    def abandon(self) -> None:
        """The executor was collected: shut down, from whatever place the collector ran in."""
        if self.forked:
            return
        self._abandoned = True
        if self.server.started:
            self.server._wake()
        else:  # nothing was ever submitted
            self._end()

    def signal_workers(self, number: int) -> None:
        if self.forked:
            return
        with self.server.lock:
            self._killing = True
            for agent in self._agents.values():
                agent.signal(number)

    def stop(self) -> None:
        with self.server.lock:
            if any(self._state_of(worker) != "idle" for worker in self._workers.values()):
                self.signal_workers(signal.SIGKILL)
        self.shutdown(cancel=True)

    def workers(self) -> list[WorkerInfo]:
        from sleighexec.workerinfo import WorkerInfo

        with self.server.lock:
            return [
                WorkerInfo(w.rank, w.pid, w.host, self._state_of(w), w.answered, w.system, w.python)
                for w in sorted(self._workers.values(), key=lambda w: w.rank)
            ]

    def processes(self) -> Mapping[int, WorkerProcess]:
        if self.forked:
            return {}
        self.attend()
        with self._pids:
            self._pids.wait_for(
                lambda: all(w.process is not None for w in self._workers.values()), timeout=10
            )
            found = [w.process for w in self._workers.values() if w.process is not None]
            return {process.pid: process for process in found}

    def forget(self) -> None:
        """In a forked child: tell whoever asks. The server has let go of everything."""
        self.forked = True

    # ------------------------------------------------------------------ workers come

    def _scale(self, *, everybody: bool = False) -> None:
        """Start workers for tasks that nobody is there to take, or all. Under the lock."""
        if self.broken is not None or (self._abandoned and not self._lines.waiting()):
            return
        if self._lines.ranked:
            for line in self._lines.ranked.values():
                self._serve(line)
            for needs, task in self._lines.unfit(self._places.fit):
                self.server.defer(task.fail, partial(self._places.unfit, needs))
        if self._start_at:
            if self._start_at > time.monotonic():
                self.server.wake_by(self._start_at)
                return
            self._start_at = 0.0
        if not self._places.usable():
            self._await_machine()
        taken = {worker.rank for worker in self._workers.values()}
        # Those that are to leave come once more for what is in their mailboxes.
        called = [rank for rank, box in enumerate(self._lines.boxes) if box.tasks]
        free = [rank for rank in self._places.usable(called) if rank not in taken]
        if draining := [each for each, agent in self._agents.items() if agent.draining]:
            free = [rank for rank in free if self._places.launchers[rank] not in draining]
        if not everybody:
            coming = [w.rank for w in self._workers.values() if not w.ready]
            wanted = self._lines.wanted(free, coming, self._places.offer)
            free = [rank for rank in free if rank in wanted or rank in called]
        if free and not self._agents and (module := imported_in_worker()) is not None:
            self.server.start()
            # Its workers would import the module too, and so on without end.
            self._break(
                f"the module {module} uses an executor while it is imported, which workers do for "
                f'its functions: put that into a function or under `if __name__ == "__main__":`',
                None,
            )
            return
        for rank in free:
            try:
                self._start_worker(rank)
            except OSError as error:
                agent = self._agents.get(self._places.launchers[rank])
                if isinstance(error, ConnectionError) and agent is not None and not agent.silent:
                    return  # it has died after all: when that is heard, another one is started
                self._break(f"a worker could not be started: {error}", error)
                return

    def _start_worker(self, rank: int) -> None:
        launcher = self._places.launchers[rank]
        agent = self._agents.get(launcher)
        if agent is None:
            agent = self._start_agent(launcher)
        self.server.start()
        number = next(self._numbers)
        ranks = self._places.ranks(launcher)
        beside = max(sum(each in self._places.wanted for each in ranks), 1)
        pool = self.server.pool() if _shares_memory(launcher) else None
        setup = {
            "threads": self._inner_threads,
            "beside": beside,
            "slots": self._places.slots(rank),
            "memory": None if pool is None else pool.probe(),
            "depot": is_remote(launcher),
            "pass_on": self._output == PASS,
        }
        ours = agent.start_worker(number, setup)
        connection = self.server.connect(ours, self._hear_worker, self._lost_connection)
        host = self._places.host(rank, os.uname().nodename)
        worker = WorkerLink(number, rank, host, connection, self._functions)
        connection.worker = worker  # type: ignore[attr-defined]
        self._workers[number] = worker
        self._count_unmanned()

    def _hear_worker(self, connection: Connection, tag: int, message: Any) -> None:
        worker: WorkerLink = connection.worker  # type: ignore[attr-defined]
        kind = type(message)
        if kind is Results:
            for payload in message.values:
                self._answered(worker, payload)
            if message.ask:
                self._ask(worker, message.ask, message.count)
        elif kind is Ask:
            worker.ready = True
            self._ask(worker, tag, message.count, ahead=bool(message.ahead))
        elif kind is Return:
            worker.long = worker.answered
            if message.loan > worker.revoked:  # else it did not know yet
                for loan in [loan for loan in worker.loans if loan.number == message.loan]:
                    self._give_back(worker, loan, message.count)
            self._share_out()
        elif kind is Report:
            self.server.defer(hand_on, self._output, worker.rank, message)
        elif kind is Join:
            worker.pid, worker.host = message.pid, message.host
            worker.system, worker.python = message.system, message.python
            launcher, agent = self._places.launchers[worker.rank], self._agent_of(worker)
            if agent is not None and not worker.gone:  # it lives, if its own word comes or not
                self._heard(launcher, agent)
            if message.memory and is_remote(launcher):
                if agent is not None:
                    worker.known.carry = partial(agent.depot.carry, connection)
            elif message.memory:
                connection.share_memory()
            box = self._lines.boxes[worker.rank]
            calls = [s.prepared for s in self._sticky if not s.waits_in(box)]
            self.server.defer(self._welcome, connection, tag, worker, calls)
        elif kind is SetupFailed:
            error, _ = raised.loads_error(message.values[0].head)
            self._break("the initializer or a sticky call failed in a worker", error)
        elif kind is Lease or kind is Release:
            connection.share(tag, message)
        elif kind is Need:
            launcher = self._places.launchers[worker.rank]
            if is_remote(launcher):
                self.server.defer(self._ship, connection, tag, message.module, launcher.ship)
        else:
            self.server.apply(connection, tag, message)

    def _keep(self, buffer: Any) -> Any:
        """A copy of a buffer that many calls will have: workers here see it where it is."""
        with self.server.lock:
            pool = self.server.pool()
            kept = pool.keep(buffer) if pool is not None else None
        return bytes(buffer) if kept is None else kept

    def _ship(self, connection: Connection, tag: int, module: str, ship: Any) -> None:
        """Send a worker the source of a module, or why not. Without the lock: it reads files."""
        from sleighexec.engines.shipping import source_for

        reply = source_for(module, ship)
        with self.server.lock:
            connection.send(tag, reply)

    def _ask(self, worker: WorkerLink, tag: int, most: int, *, ahead: bool = False) -> None:
        """A worker asks for tasks: for the next ones, or `ahead`, for those behind the present."""
        if self._killing or self.broken is not None or worker.gone:
            return
        if worker.draining or worker.told_to_leave or worker.rank not in self._places.wanted:
            self._ask_last(worker, tag, most, ahead=ahead)
            return
        lines = self._lines
        early = ahead and not (
            lines.ranked or lines.boxes[worker.rank].tasks or self._enough_for_all()
        )
        if early or not self._hand_out(worker, tag, most):
            if ahead:
                worker.connection.send(tag, Nothing())
                return
            self._waiting[worker] = tag, most
            if lines.usual.tasks:  # they came meanwhile
                self._serve(lines.usual)
            if len(self._waiting) < len(self._workers):
                self._share_out()
        if self._idle_timeout is not None:
            worker.idle_since = time.monotonic()
            self.server.wake_by(worker.idle_since + self._idle_timeout)

    def _ask_last(self, worker: WorkerLink, tag: int, most: int, *, ahead: bool) -> None:
        """One that is to leave asks: it gets what waits for it alone, then it may go."""
        box = self._lines.boxes[worker.rank]
        if ahead:
            worker.connection.send(tag, Nothing())
        elif not worker.told_to_leave:
            if tasks := box.take(most, 0):
                self._lend(worker, tag, box, tasks)
            else:
                self._send_away(worker)

    def _enough_for_all(self) -> bool:
        """Whether more calls wait than there are workers, who may read ahead then.

        Else they are for who has nothing to do first.
        """
        tasks = self._lines.usual.tasks
        return bool(tasks) and len(tasks) - 1 + tasks[0].size() > len(self._workers)

    def _serve(self, line: Line) -> None:
        """Tasks wait in this line: hand them to workers that wait, who came first gets first."""
        for worker in [*self._waiting]:
            if not line.tasks:
                return
            if (asked := self._waiting.pop(worker, None)) is None:
                continue
            if line is self._lines.usual and not self._lines.ranked:  # no line is before it
                given = self._hand_from(line, worker, *asked)
            else:
                given = self._hand_out(worker, *asked)
            if not given:
                self._waiting[worker] = asked

    def _hand_out(self, worker: WorkerLink, tag: int, most: int) -> bool:
        """Give a worker what is next for it; whether there was anything."""
        lines = self._lines
        while (line := lines.next_for(worker.rank, self._places.offer)) is not None:
            if self._hand_from(line, worker, tag, most):
                return True
        return False

    def _hand_from(self, line: Line, worker: WorkerLink, tag: int, most: int) -> bool:
        """Give a worker what is next in this line; False: nothing of it is wanted any more."""
        if tasks := line.take(most, len(self._waiting)):
            self._lend(worker, tag, line, tasks)
        return bool(tasks)

    def _welcome(
        self, connection: Connection, tag: int, worker: WorkerLink, calls: list[Prepared]
    ) -> None:
        """Tell a new worker how to prepare."""
        from multiprocessing import process

        known = worker.known
        with self.server.lock:
            news = [(known.news(None, needs), *known.carry(payload)) for payload, needs in calls]
        setup = {
            "calls": news,
            "max_tasks": self._max_tasks,
            "authkey": bytes(process.current_process().authkey),
            "space": self.server.identity,
            "workspaces": self.workspaces,
            "server": None if self._address is None else self._address.parts(),
            "slots": self._places.slots(worker.rank),
            "capture": self._capture,
            "ship": getattr(self._places.launchers[worker.rank], "ship", None),
            "tell": self._output not in (PASS, CAPTURE),
            "levels": records.levels() if self._capture_logging else None,
        }
        welcome = Welcome(
            worker.rank,
            self.max_workers,
            (pickling.pack(setup),),
        )
        with self.server.lock:
            connection.send(tag, welcome)

    # ------------------------------------------------------------------ tasks go, outcomes come

    def _lend(self, worker: WorkerLink, tag: int, line: Line, tasks: deque[Task]) -> None:
        """Send a worker tasks that begin with it, as one payload."""
        connection = worker.connection
        more = bool(self._lines.usual.tasks) and self._enough_for_all()
        if not more and self._lines.ranked:
            more = self._lines.any_for(self._places.offer(worker.rank))
        try:
            payload, sent, limited = worker.pack(tasks, connection.grants())
        except Exception as error:  # an error of ours costs these tasks, not a loop of new workers
            log.exception("sleighexec: tasks could not be sent")
            text = f"the task could not be sent: {error!r}"
            for task in tasks:
                self.server.defer(task.fail, lambda: ExecutorError(text))
            connection.send(tag, Nothing())
            return
        loan = Loan(next(self._loan_numbers), line, tasks)
        worker.lend(loan)
        if sent < len(tasks):
            worker.give_back(loan, sum([task.size() for task in [*tasks][sent:]]))
        connection.send(tag, Calls((payload,), loan.number, int(more)))
        for limits in limited:
            if (agent := self._agent_of(worker)) is not None:
                agent.watch(limits)

    def _lend_lone(self, task: Task) -> bool:
        """No other task waits: if workers do, and it is one call, it goes to the first of them.

        The straight path of who waits for each of their calls: what `_serve` comes to then.
        """
        if not self._waiting or self._lines.ranked or task.size() > 1:
            return False
        part, _ = task.begin(1)
        if part is None:  # it was cancelled just now
            return True
        worker, (tag, _) = next(iter(self._waiting.items()))
        data = worker.pack_lone(part)
        del self._waiting[worker]
        usual, tasks = self._lines.usual, deque((part,))
        if data is None:
            self._lend(worker, tag, usual, tasks)
            return True
        loan = Loan(next(self._loan_numbers), usual, tasks)
        worker.connection.send_bytes(wire.frame_of(Calls, tag, data, loan.number, 0))
        worker.lend(loan)  # while it wakes up
        return True

    def _answered(self, worker: WorkerLink, payload: Payload) -> None:
        if self.broken is not None:  # everybody is told that
            return
        if (lone := worker.read_lone(payload)) is not None:
            self._failed_starts = 0
            self.server.defer(deliver_lone, *lone)
        elif done := worker.read(payload):
            self._failed_starts = 0
            self.server.defer(deliver, done)

    def _give_back(self, worker: WorkerLink, loan: Loan, count: int) -> None:
        """The last calls of a loan have not begun, and their worker is busy with another."""
        worker.give_back(loan, count)
        self._serve(loan.line)
        self._scale()

    def _state_of(self, worker: WorkerLink) -> str:
        if worker.stopped:
            return "stopped"
        if not worker.ready:
            return "starting"
        return "busy" if worker.loans else "idle"

    # ------------------------------------------------------------------ workers go

    def _send_away(self, worker: WorkerLink) -> None:
        """Tell one that has nothing to do to leave. From now on it gets no task."""
        worker.told_to_leave = True
        self._waiting.pop(worker, None)
        worker.connection.send(0, Leave())

    def _signal_one(self, worker: WorkerLink) -> Callable[[int], None]:
        def send(number: int) -> None:
            with self.server.lock:
                agent = self._agent_of(worker)
                if agent is not None and not worker.gone:
                    agent.signal(number, worker.number)

        return send

    # ------------------------------------------------------------------ the end

    def _on_time(self, now: float) -> None:
        """The time has come for something that was put off."""
        if self._start_at:
            self._scale()
        self._share_out()
        self._miss_machine(now)
        self._drain_in_time(now)
        if self._idle_timeout is None:
            return
        for worker in self._workers.values():
            if not worker.told_to_leave and self._state_of(worker) == "idle":
                end = worker.idle_since + self._idle_timeout
                if end <= now:
                    self._send_away(worker)
                else:
                    self.server.wake_by(end)

    def _after_round(self) -> None:
        """After each round of the serving thread: is there room, is everything done?"""
        if self._bells and not self._is_full():
            bells, self._bells = self._bells, []
            for bell in bells:
                bell.release()
        if self._abandoned:
            self._closing = True
        if not self._closing:
            return
        if not self._agents:
            if not self._workers and not self._lines.waiting():
                self._end()
            return
        if self.broken is None and not self._killing and self._lines.waiting():
            self._scale()
            return
        if any(worker.loans for worker in self._workers.values()):
            return
        for worker in self._workers.values():
            if worker.stopped and (agent := self._agent_of(worker)) is not None:
                agent.kill(worker.number)  # it would not hear that it is to leave
            elif worker.ready and not worker.told_to_leave:
                self._send_away(worker)
            elif self._is_far(worker):
                self._agents[self._places.launchers[worker.rank]].kill()
        if not self._workers:
            for agent in self._agents.values():
                agent.stop()

    def _fail(self, error: BaseException) -> None:
        """The serving thread cannot go on: nobody may wait for it."""
        self._break("the serving thread ended by an internal error, please report it", error)
        self._ended.set()

    def _end(self) -> None:
        """Nothing is left: let the serving thread end too."""
        self.server.closing = True
        self.server.defer(self._on_end)
        for reception in self._receptions:
            reception.close()
        self.server._wake()
        if not self.server.started:
            self.server.close()
        self._ended.set()


def _shares_memory(launcher: Launcher) -> bool:
    return bool(getattr(launcher, "shared_memory", False))


def _choose(count: int) -> int:
    import random

    return random.randrange(count)
