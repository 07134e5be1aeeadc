"""The near end of a link to another machine: a thread, and the Unix socket that the engine holds.

    thread "sleigh-link-hippo":  connect ─▶ boot.talk ─▶ Relay.serve ─▶ close

An engine sees the same as with an agent on this machine: a socket to it, and how it ended.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from sleighexec.errors import HostError
from sleighexec.forks import forget_in_child
from sleighexec.hints import Protocol
from sleighexec.launchers import boot
from sleighexec.relay import Relay
from sleighexec.streams import Stream

TAIL = 64 * 1024  # bytes of a command's stderr that are kept
KILLED = -9  # the exit status of what has ended in a way that nobody could see


class FarEnd(Stream, Protocol):
    """What runs at the other end: its stdout and stdin as streams, and its life."""

    def kill(self) -> None:
        """End it at once. From any thread, and more than once."""

    def close(self) -> tuple[int | None, str]:
        """See that it ends; its exit status, if that is known, and the end of its stderr."""

    def forget(self) -> None:
        """In a forked child: close our copies of its descriptors."""


class Link:
    """See `sleighexec.launchers.base.Handle`.

    Attributes:
        failure: Why there is no agent, or none any more; None while there is one.
    """

    def __init__(
        self,
        host: str,
        connect: Callable[[Link], FarEnd],
        opening: bytes,
        *,
        timeout: float,
        delay: float = 0,
    ) -> None:
        """Begin to connect, after `delay` seconds; it must be done `timeout` seconds later.

        `opening`: what is said to a shell at the other end; nothing: a relay is there already.
        """
        self.host, self._connect, self._opening = host, connect, opening
        self._timeout, self._delay = timeout, delay
        self.failure: HostError | None = None
        self.killed = threading.Event()
        self.settled = threading.Event()  # there is an agent, or it is known that there is none
        self.ended = False
        self._status: int | None = None
        self._far_end: FarEnd | None = None
        self._relay: Relay | None = None
        self._lock = threading.Lock()  # guards _far_end and _undo
        self._undo: list[Callable[[], object]] = []
        self.stream, self._control = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name=f"sleigh-link-{host}", daemon=True)
        forget_in_child(self)
        self._thread.start()

    def kill(self) -> None:
        """End it at once, wherever it stands."""
        self.killed.set()
        with self._lock:
            far_end, undo = self._far_end, list(self._undo)
        for step in undo:
            with contextlib.suppress(OSError):
                step()
        if far_end is not None:
            far_end.kill()

    def wait(self, timeout: float | None = None) -> int:
        """The exit status of the command. Raises TimeoutError when it has not ended in time."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the command on {self.host} has not ended")
        return KILLED if self._status is None else self._status

    def on_kill(self, step: Callable[[], object]) -> None:
        """Call this if the link is killed while it is being connected.

        Raises:
            HostError: It was killed already.
        """
        with self._lock:
            self._undo.append(step)
        self.check()

    def check(self) -> None:
        """Raise HostError if it was killed."""
        if self.killed.is_set():
            raise HostError(self.host, "it was stopped while it was being connected")

    def _run(self) -> None:
        stderr = reason = ""
        try:
            if self.killed.wait(self._delay):
                return
            deadline = time.monotonic() + self._timeout
            far_end = self._connect(self)
            with self._lock:
                self._far_end = far_end
            if self.killed.is_set():
                return
            if self._opening:
                boot.talk(self.host, far_end, self._opening, deadline)
            relay = self._relay = Relay(far_end, self._control, 1, far=False)
            relay.on_heard = self.settled.set
            reason = relay.serve()
            if relay.silent:
                far_end.kill()  # there is nobody to wait for
        except Exception as error:  # a thread's last resort: the engine hears of it
            if not self.killed.is_set():  # else that is why, and this is what came of it
                self.failure = self._as_failure(error)
        finally:
            if self._far_end is not None:
                self._status, stderr = self._far_end.close()
            self._judge(reason, stderr)
            self.ended = True
            self.settled.set()
            self._control.close()

    def _as_failure(self, error: Exception) -> HostError:
        if isinstance(error, HostError):
            return error
        failure = HostError(self.host, f"{type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure

    def _judge(self, reason: str, stderr: str) -> None:
        """Say why it ended."""
        how = f" (status {self._status})" if self._status not in (0, None, KILLED) else ""
        if self.failure is not None:
            if self.failure.reason == boot.ENDED and self._status == 0:  # as at an empty stdin
                how = ": it must pass on its standard input, as `ssh` does without -n"
            cause = self.failure.__cause__
            facts = self.host, self.failure.reason + how, stderr or self.failure.stderr
            self.failure = type(self.failure)(*facts)
            self.failure.__cause__ = cause
        elif not self.killed.is_set():  # nobody asks for it if that was in order
            self.failure = HostError(self.host, (reason or "it ended") + how, stderr)

    def forget(self) -> None:
        """In a forked child: let go of everything without a word."""
        for sock in (self.stream, self._control):
            sock.close()
        if self._far_end is not None:
            self._far_end.forget()
        if self._relay is not None:
            self._relay.forget()
