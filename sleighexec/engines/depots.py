"""The client's end of a depot: what an agent on another machine keeps for all its workers.

    carry(constant) ─▶ not there yet: Keep ─▶ agent       (see sleighexec.depot)
                    └▶ its number and place, for a worker in place of the constant itself

So do buffers of other payloads that have come before (see sleighexec.repeats). A constant is there
as long as it exists here. An agent that has ended has kept nothing: the next one on its machine
gets what its workers need, when they need it.
"""

from __future__ import annotations

import itertools
import socket
import weakref
from collections import deque
from collections.abc import Callable

from sleighexec.connections import Connection
from sleighexec.functions import Constant, carried
from sleighexec.hints import Any
from sleighexec.messages import Forget, Keep, Kept, Payload
from sleighexec.repeats import repeated
from sleighexec.segments import LEAST, LIMIT, MAX_SEGMENTS, rounded
from sleighexec.server import Server


class _Entry:
    """A constant that was sent to the agent."""

    def __init__(self, number: int, constant: Payload, watch: Any) -> None:
        self.number, self.watch = number, watch
        self.size = rounded(constant.size_bytes)
        self.place: tuple[int, ...] | None = None  # (): there was no room; None: no answer yet
        self.constant: Payload | None = constant  # until there is one
        self.waiting: list[Connection] = []  # workers that were told of it before that


class DepotLink:
    """Used under the server's lock."""

    def __init__(self, server: Server, attach: Callable[[], socket.socket]) -> None:
        """`attach`: gives the agent one end of a stream, and us the other. May raise OSError."""
        self._server, self._attach = server, attach
        self._connection: Connection | None = None
        self._numbers = itertools.count(1)
        self._entries: dict[int, _Entry] = {}  # by the id of what they live as long as
        self._unanswered: dict[int, _Entry] = {}  # by number
        self._dead: deque[tuple[int, int]] = deque()  # ids and numbers of what exists no more

    def carry(self, worker: Connection, payload: Payload) -> tuple[Any, list[Any]]:
        """What travels to a worker of this agent in place of a payload: see `Known.carry`."""
        if type(payload) is Constant:
            return self._refer(worker, payload, payload) or carried(payload)
        head, buffers = carried(payload)
        for number, buffer in enumerate(payload.buffers):
            if (exporter := repeated(buffer)) is not None:
                reference = self._refer(worker, exporter, Payload(b"", (buffer,)))
                buffers[number] = reference or buffers[number]
        return head, buffers

    def _refer(
        self, worker: Connection, whose: Any, constant: Payload
    ) -> tuple[tuple[int, tuple[int, ...]], list[int]] | None:
        """Number and place of a constant, and the sizes of its parts; None: it is not kept there.

        `whose`: it is wanted as long as this exists.
        """
        if constant.size_bytes < LEAST:
            return None
        self._forget_dead()
        entry = self._entries.get(id(whose))
        if entry is None and self._has_room(constant.size_bytes):
            entry = self._send(whose, constant)
        if entry is None or entry.place == ():
            return None
        if entry.place is None:
            entry.waiting.append(worker)
        sizes = [memoryview(each).nbytes for each in (constant.head, *constant.buffers)]
        return (entry.number, entry.place or ()), sizes

    def _has_room(self, size: int) -> bool:
        """Whether the agent will keep one more, as far as we can know: else it is sent in vain."""
        taken = [entry.size for entry in self._entries.values() if entry.place != ()]
        return len(taken) < MAX_SEGMENTS and sum(taken) + rounded(size) <= LIMIT

    def _send(self, whose: Any, constant: Payload) -> _Entry | None:
        """Have the agent keep it; None: the agent is gone."""
        try:
            if self._connection is None:
                self._connection = self._server.connect(self._attach(), self._hear, _closed)
        except OSError:
            return None
        if self._connection.closed:
            return None
        number, key = next(self._numbers), id(whose)
        watch = weakref.ref(whose, lambda _: self._lost_interest(key, number))
        entry = _Entry(number, constant, watch)
        self._entries[key] = self._unanswered[number] = entry
        self._connection.send(0, Keep(number, (constant,)))
        return entry

    def _hear(self, _: Connection, tag: int, message: Any) -> None:
        """The agent has it, or has no room for it: tell those who wait."""
        if type(message) is not Kept or message.number not in self._unanswered:
            return
        entry = self._unanswered.pop(message.number)
        entry.place, constant, entry.constant = message.place, entry.constant, None
        assert constant is not None
        values = () if entry.place else (constant,)
        for worker in entry.waiting:
            worker.send(0, Kept(entry.number, entry.place, values))
        entry.waiting.clear()

    def _lost_interest(self, key: int, number: int) -> None:
        """It exists no more. From whatever place the collector ran in."""
        self._dead.append((key, number))
        self._server.defer(self._tidy)

    def _tidy(self) -> None:
        with self._server.lock:
            self._forget_dead()

    def _forget_dead(self) -> None:
        """Before anything is looked up: what comes next may have the id of one that is gone."""
        numbers = []
        while self._dead:
            key, number = self._dead.popleft()
            del self._entries[key]
            numbers.append(number)
        if numbers and self._connection is not None:
            self._connection.send(0, Forget(tuple(numbers)))


def _closed(connection: Connection) -> None:
    """The stream ends with its agent, of which the engine hears elsewhere."""
