"""How threads of a server's own process use its space: by calls, without a socket."""

from __future__ import annotations

import os
import threading

from sleighexec import wire
from sleighexec.errors import ConnectionLostError, ForkedProcessError, OperationUnknownError
from sleighexec.hints import Any
from sleighexec.messages import FORGOTTEN, Abandon, Failed, Fetch, Reply, Request, Store, Values
from sleighexec.server import Server


class LocalConnection:
    """How threads of the server's own process use its space: without a socket. Thread-safe."""

    local = True

    def __init__(self, server: Server) -> None:
        self.server = server
        self.space = server.identity
        self._waiting: dict[int, tuple[threading.Lock, list[Reply]]] = {}
        self._tags = iter(range(1, 2**62))
        self.closed = False
        server._locals.add(self)

    @property
    def waiting(self) -> bool:
        """Whether a thread waits in a call."""
        return bool(self._waiting)

    def __str__(self) -> str:
        return f"embedded in process {os.getpid()}"

    def deliver(self, tag: int, reply: Reply) -> None:
        waiting = self._waiting.pop(tag, None)
        if waiting is not None:
            waiting[1].append(reply)
            waiting[0].release()

    def call(self, request: Request, again: OperationUnknownError | None = None) -> Reply:
        """The reply to a request; blocks as long as the request does.

        Raises:
            ConnectionLostError: The server was closed meanwhile.
            ForkedProcessError: It is that of the parent process.
        """
        if self.server.forked:
            raise ForkedProcessError("this workspace belongs to an executor of the parent process")
        if again is not None:
            return FORGOTTEN
        answered = threading.Lock()
        replies: list[Reply] = []
        answered.acquire()
        server = self.server
        with server.lock:
            if self.closed or server.closing:
                raise ConnectionLostError("the workspace server was closed")
            tag = next(self._tags)
            self._waiting[tag] = answered, replies
            server.apply(self, tag, request)
            if not replies:
                server.start()
                server.attend()
        try:
            if server.in_loop():
                while not replies and not server.closing:
                    server.step(None)
            else:
                answered.acquire()
        except BaseException:
            # Ctrl-C while waiting: nobody takes the value, so it must not be taken.
            with server.lock:
                self._waiting.pop(tag, None)
                self._undo(tag, request, replies)
            raise
        if not replies:
            raise ConnectionLostError("the workspace server was closed")
        return replies[0]

    def call_ahead(self, request: Store) -> Failed | None:
        """Here a store is done at once: what it is refused with."""
        reply = self.call(request)
        return reply if type(reply) is Failed else None

    def flush(self, workspace: int | None, seconds: float | None = None) -> Failed | None:
        """Nothing is on its way."""
        return None

    def _undo(self, tag: int, request: Request, replies: list[Reply]) -> None:
        space = self.server.space
        if not replies:
            self.server.apply(self, 0, Abandon(tag))
        elif type(request) is Fetch and type(replies[0]) is Values:
            if replies[0].loan:
                effects = space.give_back(replies[0].loan, len(replies[0].values))
            else:
                workspace = space.workspace(request.workspace)
                variable = space.variable(workspace, replies[0].variable)
                effects = space.put_first(variable, replies[0].values, replies[0].index)
            self.server.dispatch(effects)

    def copy(self, data: Any) -> Any:
        """A buffer with the same bytes, to be stored here, or taken from here."""
        view = memoryview(data).cast("B")
        with self.server.lock:
            pool = self.server.pool() if view.nbytes >= wire.SHARED else None
            held = pool.hold(view.nbytes) if pool is not None else None
        if held is None:
            return bytearray(view)
        held[:] = view
        return held

    def close(self) -> None:
        """Leave: blocked calls end, and what was owned through this connection is deleted."""
        with self.server.lock:
            if not self.closed and not self.server.closing:
                self.server.dispatch(self.server.space.disconnect(self))
            self.release()

    def release(self) -> None:
        """End the blocked calls. Under the lock."""
        self.closed = True
        for answered, _ in self._waiting.values():
            answered.release()
        self._waiting.clear()
