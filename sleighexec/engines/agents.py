"""The client's end of an agent: start it, have it start workers, signal them, let it end."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

from sleighexec.connections import Connection
from sleighexec.errors import HostError
from sleighexec.hints import TYPE_CHECKING, Any
from sleighexec.launchers.base import LAUNCH_SECONDS, Handle, Launcher, is_remote
from sleighexec.messages import Attach, KillCall, Recall, Signal, Start, StopAgent, Watch
from sleighexec.server import Server

if TYPE_CHECKING:
    from sleighexec.engines.depots import DepotLink

LEAST_PAUSE, MOST_PAUSE = 0.01, 0.5  # seconds between its looks at calls with limits
MEMORY_PAUSE = 0.05  # where one is of memory, which can be filled fast
EARLY = 15.0  # seconds that a batch system may end something before we take it to end
AGENT_SECONDS = 5.0  # for the agent to end after its last worker
LINK_SECONDS = 2.0  # for what still connects, and is given up, to end in order


class AgentLink:
    """An agent that was started, and the connection to it. Used under the server's lock.

    Raises:
        OSError: It could not be started.
    """

    def __init__(
        self,
        server: Server,
        launcher: Launcher,
        hear: Callable[[Connection, int, Any], None],
        lost: Callable[[Connection], None],
        timeout: float | None = None,
        delay: float = 0,
    ) -> None:
        """`timeout`: seconds for a host to come; None: the usual. `delay`: seconds before that."""
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        # This very sleighexec; nothing that lies beside it may hide the standard library.
        # Collecting garbage while modules are loaded finds none: the agent begins with it later.
        boot = (
            "import gc, sys; gc.disable(); "
            f"sys.path[:] = [{package!r}, *filter(None, sys.path)]; import sleighexec; "
            "del sys.path[0]; from sleighexec.agent import main; main()"
        )
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        command = [sys.executable, *flags, "-c", boot, str(os.getpid())]
        self._environ = dict(os.environ)
        self._timeout = LAUNCH_SECONDS if timeout is None else timeout
        self._timeout = getattr(launcher, "start_timeout", None) or self._timeout
        self._handle: Handle
        self._remote = is_remote(launcher)
        self.failure: HostError | None = None  # after its end: what went wrong on its host
        if is_remote(launcher):
            self._handle = launcher.launch(command, {}, timeout=self._timeout, delay=delay)
        else:
            self._handle = launcher.launch(command, {})
        # While the agent comes up: at interpreter exit it would be too late to import this.
        import sleighexec.broken  # noqa: F401

        self._server = server
        self._depot: DepotLink | None = None
        self.draining = False  # its workers are to leave, and then it ends
        self.drain_at: float | None = None  # when that is to be
        self._lifetime: float | None = getattr(launcher, "lifetime", None)
        self._drain_before: float = getattr(launcher, "drain_before", 0.0)
        self._ends_at = math.inf
        self._connection = server.connect(self._handle.stream, hear, lost)
        self._pause = MOST_PAUSE
        self._connection.deadline = time.monotonic() + delay + self._timeout
        if self._remote:
            self._connection.deadline += 1  # the launcher itself sees it first, and knows more

    def heard(self) -> None:
        """It has answered: it lives."""
        self._pause = MOST_PAUSE
        self._connection.deadline = None
        if self._lifetime is not None and self.drain_at is None:
            self._ends_at = time.monotonic() + self._lifetime
            self.drain_at = self._ends_at - self._drain_before

    def expired(self) -> bool:
        """Whether its time is over, so that nobody is to be blamed for its end."""
        return time.monotonic() >= self._ends_at - max(self._drain_before, EARLY)

    @property
    def silent(self) -> bool:
        """Whether it has never answered."""
        return self._connection.deadline is not None

    def start_worker(self, number: int, setup: dict[str, Any]) -> socket.socket:
        """Have it start a worker; our end of that worker's connection.

        `setup`: "threads" for numerical libraries (None: its part of the CPUs, as one "beside" so
        many); "slots" of what it has; "memory" that it may share, by `segments.Pool.probe`; whether
        there is to be a "depot" for it; whether to "pass_on" what it writes to stdout and stderr,
        to ours.
        """
        ours, theirs = socket.socketpair()
        whereabouts: dict[str, Any] = {"cwd": ".", "environ": {}}  # as the agent has it
        if not self._remote:
            whereabouts = {"cwd": _cwd(), "environ": _changed(self._environ, os.environ)}
        setup = whereabouts | {"cloudpickle": "cloudpickle" in sys.modules} | setup
        try:
            self._connection.pass_on(0, Start(number, json.dumps(setup)), theirs)
        except OSError as error:
            ended = isinstance(error, ConnectionError)
            if ended and self._remote:  # just now: the server will hear of it, and say why
                return ours
            ours.close()
            if not ended:
                raise
            with contextlib.suppress(TimeoutError):
                status = self._handle.wait(1)
                text = f"the launched command ended with status {status}"
                raise ConnectionResetError(text) from error
            raise
        return ours

    @property
    def depot(self) -> DepotLink:
        """What it keeps for its workers, if it is on another machine."""
        if self._depot is None:
            from sleighexec.engines.depots import DepotLink  # which most do not need

            self._depot = DepotLink(self._server, self._attach)
        return self._depot

    def _attach(self) -> socket.socket:
        """A stream to its depot: our end. Raises OSError if it has just ended."""
        ours, theirs = socket.socketpair()
        try:
            self._connection.pass_on(0, Attach(), theirs)
        except OSError:
            ours.close()
            raise
        return ours

    def signal(self, number: int, worker: int = 0) -> None:
        """Have it send a signal to a worker, or to all."""
        self._connection.send(0, Signal(worker, number))
        # Perhaps it is no agent at all. But a worker may be there, and dead, before we have read
        # that it was started: its agent is not to go with it.
        if number == signal.SIGKILL and not worker and self.silent:
            self._give_up()

    def kill(self, worker: int = 0) -> None:
        """Have it kill a worker, or all, and what they started."""
        self.signal(signal.SIGKILL, worker)

    def kill_call(self, worker: int, call: int) -> None:
        """Have it kill a worker if that runs its call of this number right now."""
        self._connection.send(0, KillCall(worker, call))

    def recall(self, worker: int) -> None:
        """Have it see that a worker begins nothing more; its answer is a Halted."""
        self._connection.send(0, Recall(worker))

    def watch(self, limits: tuple[float, int]) -> None:
        """Have it look often enough for calls with these limits."""
        seconds, size = limits
        pause = min(seconds / 10 if seconds else MEMORY_PAUSE, MEMORY_PAUSE if size else seconds)
        pause = min(max(pause, LEAST_PAUSE), MOST_PAUSE)
        if pause < self._pause:
            self._pause = pause
            self._connection.send(0, Watch(pause))

    def stop(self) -> None:
        """Let it end when it has no workers any more. Nobody waits for one that has not come."""
        if self._remote and self.silent:
            self._give_up()
        else:
            self._connection.send(0, StopAgent())

    def _give_up(self) -> None:
        """It has not come, and nobody waits for it any more, nor long for its end."""
        self._handle.kill()
        deadline = self._connection.deadline
        assert deadline is not None
        self._connection.deadline = min(deadline, time.monotonic() + LINK_SECONDS)

    def reap(self) -> str:
        """It has hung up, or was given up: see that it ends. What became of it, in words."""
        if self._remote:
            return self._reap_link()
        deadline = self._connection.deadline
        given_up = deadline is not None and time.monotonic() >= deadline
        try:
            # Who has hung up is ending: its pipes close a moment before its status is there.
            status = self._handle.wait(0 if given_up else AGENT_SECONDS)
        except TimeoutError:
            self._handle.kill()
            self._handle.wait()
            return f"did not answer within {self._timeout:.10g} s"
        return f"ended with status {status}"

    def _reap_link(self) -> str:
        # One that has hung up has ended. One that was given up ends by itself, or never will (what
        # looks up a name, or asks a program, cannot be stopped): nobody is to wait for it.
        link: Any = self._handle
        if not link.ended:
            link.kill()
        self.failure = link.failure
        if self.failure is None and self.silent:
            text = f"it did not answer within {self._timeout:.10g} s; start_timeout gives it longer"
            self.failure = HostError(link.host, text)
        return "ended"

    def wait_settled(self, deadline: float) -> bool:
        """Wait until there is an agent on the host; False: there is none, or not in time.

        Only for a remote launcher's, and without the lock.
        """
        link: Any = self._handle
        link.settled.wait(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))
        return bool(link.settled.is_set() and not link.ended)


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return "/"


def _changed(before: dict[str, str], now: Mapping[str, str]) -> dict[str, str | None]:
    """What must be set (or, None, removed) to come from one environment to the other."""
    changes: dict[str, str | None] = {k: v for k, v in now.items() if before.get(k) != v}
    changes.update((k, None) for k in before if k not in now)
    return changes
