"""The part of the engine that knows machines: how their agents come, and how they go.

launched ──────────┐                       ┌─ drained: workers leave after their present calls
joined by itself ──┴▶ agent ─ answers ─▶ up ┤
                                            └─ lost: tried again, given up, or gone for good
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial

from sleighexec.connections import Connection
from sleighexec.engines.agents import AgentLink
from sleighexec.engines.lines import Lines
from sleighexec.engines.places import Places
from sleighexec.engines.workers import WorkerLink
from sleighexec.errors import HostError
from sleighexec.hints import TYPE_CHECKING, Any, TypeGuard
from sleighexec.launchers.base import LAUNCH_SECONDS, Launcher, RemoteLauncher, is_remote
from sleighexec.server import Server

if TYPE_CHECKING:
    from sleighexec.engines.joining import Joined, Reception
    from sleighexec.workerinfo import WorkerInfo

log = logging.getLogger("sleighexec")


def by_itself(launcher: Launcher) -> TypeGuard[Joined]:
    """Whether that is of a machine that has joined."""
    return getattr(launcher, "by_itself", False)


class Hosts:
    """What an engine has of this subject. All under the server's lock, but for `gather`."""

    server: Server
    max_workers: int
    _unmanned: int  # ranks that may have workers and have none
    _start_timeout: float | None
    _joined_by: float | None  # when a machine must have joined; None: calls wait for none
    _closing: bool
    forked: bool
    _lines: Lines
    _places: Places
    _pids: threading.Condition
    broken: BaseException | None
    _workers: dict[int, WorkerLink]  # by number
    _agents: dict[Launcher, AgentLink]
    _receptions: list[Reception]

    # What it asks of the rest of the engine.
    workers: Callable[[], list[WorkerInfo]]
    _check_open: Callable[[], None]
    _scale: Callable[..., None]
    _state_of: Callable[[WorkerLink], str]
    _send_away: Callable[[WorkerLink], None]
    _recall: Callable[[WorkerLink], None]
    _hear_agent: Callable[[Launcher, Connection, int, Any], None]
    _lost_agent: Callable[[Launcher], None]
    _break: Callable[[str, BaseException | None], None]
    _broken_error: Callable[[], BaseException]

    # ------------------------------------------------------------------ they come

    def listen(self, bind: str) -> str:
        """Let workers of other machines come by themselves; the URL that they need."""
        with self.server.lock:
            self._check_open()
            from sleighexec.engines.joining import Reception  # most let nobody in

            reception = Reception(self.server, bind, self.take_in, self.facts)
            self._receptions.append(reception)
        self.server.start()
        return reception.url

    def take_in(self, launcher: Joined) -> None:
        """A host has come by itself."""
        with self.server.lock:
            if not (self._closing and self._lines.waiting()):  # else it comes at the right time
                self._check_open()
            self._joined_by = None
            self._places.add(launcher, launcher.workers)
            self._ranks_changed()
            self._heard(launcher, self._start_agent(launcher))
            self._scale()

    def await_places(self, count: int, timeout: float | None) -> None:
        """Wait until there are places for so many workers. Without the lock.

        Raises:
            TimeoutError: There are not, after so many seconds.
        """

        def is_over() -> bool:
            ended = self._closing or self.forked or self.broken is not None
            return self.max_workers >= count or ended

        self.server.start()
        if self.server.in_loop():
            deadline = None if timeout is None else time.monotonic() + timeout
            self.server.serve_until(is_over, deadline)
        else:
            self.server.attend()
            with self._pids:
                self._pids.wait_for(is_over, timeout)
        with self.server.lock:
            self._check_open()
            if self.max_workers < count:
                text = f"there are places for {self.max_workers} workers only after {timeout:g} s"
                raise TimeoutError(f"{text}: {self._how_to_join()}")

    def _await_machine(self) -> None:
        """We can start nobody: calls wait for a machine that joins, though not for ever."""
        if self._joined_by is None and self._lines.waiting():
            self.server.start()
            seconds = LAUNCH_SECONDS if self._start_timeout is None else self._start_timeout
            self._joined_by = time.monotonic() + seconds
            self.server.wake_by(self._joined_by)

    def _miss_machine(self, now: float) -> None:
        """See whether one has joined in time for the calls that wait."""
        if self._joined_by is None or self._joined_by > now:
            if self._joined_by is not None:
                self.server.wake_by(self._joined_by)
            return
        self._joined_by = None
        if not self._places.usable():
            self._lines.drop_ended()
            if self._lines.waiting():
                self._give_up_waiting()

    def _give_up_waiting(self) -> None:
        self._break(
            f"no machine has joined this pool, for which calls wait: {self._how_to_join()}", None
        )

    def _how_to_join(self) -> str:
        if not self._receptions:
            return "call listen() of the executor, and `sleighexec worker` on machines with its URL"
        urls = " or ".join(reception.url for reception in self._receptions)
        return (
            f"run `sleighexec worker {urls}` on one, or give it longer by start_timeout; where "
            "that URL is not known, name a copy of its connection file"
        )

    def facts(self) -> dict[str, Any]:
        """How the pool is, for monitors."""
        return {
            "kind": "executor",
            "pid": os.getpid(),
            "places": self.max_workers,
            "waiting": self._lines.count(),
            "workers": [worker._asdict() for worker in self.workers()],
        }

    def gather(self, least: int, timeout: float) -> None:
        """Before anything else: wait for the hosts, and begin with those that come in time.

        Raises:
            PoolBrokenError: There are places for fewer than `least` workers.
        """
        deadline = time.monotonic() + timeout + 1  # launchers see it first, and know more
        with self.server.lock:
            self._check_open()
            self.server.start()
            agents = {each: self._start_agent(each) for each in self._places.remote()}
        absent = [host for host, agent in agents.items() if not agent.wait_settled(deadline)]
        with self.server.lock:
            for launcher in absent:
                agents[launcher].kill()
        for launcher in absent:  # without the lock: their ends are heard of by the serving thread
            self._gone_agent(launcher, agents[launcher])
        with self.server.lock:
            reasons = []
            for launcher, agent in agents.items():
                if launcher not in absent:
                    self._heard(launcher, agent)
            for launcher in absent:
                self._places.leave_out(launcher)
                reasons.append(str(agents[launcher].failure or f"{launcher.host}: did not come"))
            self.max_workers = len(self._places.launchers)
            del self._lines.boxes[self.max_workers :]
            self._count_unmanned()
            if self.max_workers < least:
                text = f"there are places for {self.max_workers} workers only, not for {least}"
                self._break("\n".join((text, *reasons)), agents[absent[0]].failure)
                raise self._broken_error()
            for reason in reasons:
                log.warning("sleighexec: begun without %s", reason)

    def _gone_agent(self, launcher: Launcher, agent: AgentLink) -> None:
        """Wait until an agent that was killed is forgotten."""
        with self._pids:
            self._pids.wait_for(lambda: self._agents.get(launcher) is not agent)

    def _start_agent(self, launcher: Launcher) -> AgentLink:
        agent = self._agents[launcher] = AgentLink(
            self.server,
            launcher,
            partial(self._hear_agent, launcher),
            lambda _: self._lost_agent(launcher),
            self._start_timeout,
            self._places.pause(launcher),
        )
        return agent

    def _heard(self, launcher: Launcher, agent: AgentLink) -> None:
        """An agent has answered: it lives."""
        agent.heard()
        self._places.came(launcher)
        if agent.drain_at is not None:
            self.server.wake_by(agent.drain_at)

    # ------------------------------------------------------------------ who there is

    def _agent_of(self, worker: WorkerLink) -> AgentLink | None:
        return self._agents.get(self._places.launchers[worker.rank])

    def _is_far(self, worker: WorkerLink) -> bool:
        """Whether it is to live on another machine, and nobody there has answered yet."""
        agent = self._agent_of(worker)
        remote = is_remote(self._places.launchers[worker.rank])
        return remote and agent is not None and agent.silent

    def _count_unmanned(self) -> None:
        """Workers have come or gone, or may be more or less: how many ranks have none."""
        manned = {worker.rank for worker in self._workers.values()}
        usable = self._places.usable()
        # Where there are none at all, one is missing: who puts a task is to see that.
        self._unmanned = sum(rank not in manned for rank in usable) if usable else 1

    def _ranks_changed(self) -> None:
        """There are to be more ranks, or fewer."""
        self.max_workers = len(self._places.wanted)
        self._lines.add_boxes(len(self._places.launchers))
        self._count_unmanned()
        self._pids.notify_all()

    # ------------------------------------------------------------------ they go

    def _drain_in_time(self, now: float) -> None:
        """See to those that are known to end."""
        for launcher, agent in list(self._agents.items()):
            if agent.drain_at is not None and not agent.draining:
                if agent.drain_at <= now:
                    self._drain(launcher)
                else:
                    self.server.wake_by(agent.drain_at)

    def _drain(self, launcher: Launcher) -> None:
        """An agent is to end soon: its workers leave after their present calls, then it ends."""
        agent = self._agents.get(launcher)
        if agent is None or agent.draining:
            return
        agent.draining = True
        for worker in self._workers.values():
            if self._places.launchers[worker.rank] == launcher:
                worker.draining = True
                self._let_go(worker)
        self._end_drained(launcher)

    def _end_drained(self, launcher: Launcher) -> None:
        agent = self._agents.get(launcher)
        if agent is not None and agent.draining:
            ranks = {worker.rank for worker in self._workers.values()}
            if ranks.isdisjoint(self._places.ranks(launcher)):
                agent.stop()

    def _let_go(self, worker: WorkerLink) -> None:
        """It is to leave: now, if it has nothing to do; else after its present call."""
        if worker.has_more():
            self._recall(worker)
        if not worker.told_to_leave and self._state_of(worker) == "idle":
            self._send_away(worker)

    def _left(self, launcher: Joined, agent: AgentLink, *, lost: bool) -> str:
        """A host that had come by itself is gone for good; why, if it was to be there still."""
        polite = agent.draining and not lost
        error = agent.failure if agent.failure and not polite else HostError(launcher.host, "left")
        self._places.left(launcher, error)
        self._ranks_changed()
        if polite or self._closing:
            log.info("sleighexec: %s has left", launcher.host)
        else:
            log.warning("sleighexec: %s was lost (%s)", launcher.host, error.reason)
        return error.reason

    def _lost_host(self, launcher: RemoteLauncher, failure: HostError | None, reason: str) -> None:
        """A host is gone, for now or for good."""
        expected = not self._places.has_come(launcher)
        if not self._places.lost(launcher, failure):
            # At the end it is only if a call of it is to be made again.
            again = f", it is tried again in {self._places.pause(launcher):.0f} s"
            log.warning(
                "sleighexec: %s was lost (%s)%s", launcher.host, reason, again * (not self._closing)
            )
            return
        self._count_unmanned()
        error = self._places.given_up[launcher]
        if expected or not self._places.usable():
            self._break(f"no worker could be started on {error}", error)
        else:
            log.warning("sleighexec: given up: %s", error)

    def _fail_boxes(self, launcher: Launcher) -> None:
        """What waits for the workers of a host that is given up will not run."""
        error = self._places.given_up[launcher]
        for rank in self._places.ranks(launcher):
            box = self._lines.boxes[rank]
            while box.tasks:
                self.server.defer(box.tasks.popleft().fail, lambda: type(error)(*error.args))
