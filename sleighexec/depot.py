"""Big constants on another machine: each comes there once, and all its workers see it.

    client ── Keep 7, its bytes ─▶ agent: a segment
           ◀─ Kept 7, its place ──
           ── Kept 7, its place ─▶ workers that were told of constant 7 before there was an answer
           ── Forget 7 ──────────▶ agent, when no call on the client can need it any more

On the client's own machine such things lie in segments of the client (segments.py). Elsewhere the
agent is the owner of segments, and its workers see them as those of this machine see ours. They
come over a stream of their own, so that nothing else that an agent is told waits behind them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from sleighexec import wire
from sleighexec.hints import Any
from sleighexec.messages import Forget, Keep, Kept, Payload
from sleighexec.segments import Place, Pool, Shelf, place_of, spread


class Depot:
    """What an agent keeps for its workers."""

    def __init__(self) -> None:
        """Raises OSError or AttributeError where there is no memory of this kind."""
        self._pool = Pool()
        self._kept: dict[int, memoryview] = {}  # by number
        self._decoder = wire.Decoder()
        self._socket: socket.socket | None = None

    def probe(self) -> tuple[int, int, str]:
        """For `segments.reachable`."""
        return self._pool.probe()

    def attach(self, descriptor: int) -> socket.socket:
        """Here is the stream of our client's."""
        self._socket = socket.socket(fileno=descriptor)
        return self._socket

    def hear(self) -> bool:
        """Something has come, or the stream has ended: then False.

        Raises:
            OSError: Nobody can be answered any more.
        """
        assert self._socket is not None
        count = self._socket.recv_into(self._decoder.buffer())
        for _, message in self._decoder.received(count) if count else ():
            if type(message) is Keep:
                place = self._keep(message.number, message.values[0])
                for piece in wire.encode(0, Kept(message.number, place)):
                    self._socket.sendall(piece)
            elif type(message) is Forget:
                for number in message.numbers:
                    self._kept.pop(number, None)
                self._pool.tidy()
        return count > 0

    def _keep(self, number: int, payload: Payload) -> tuple[int, ...]:
        kept = self._pool.keep(payload.head, *payload.buffers)
        place = None if kept is None else place_of(kept)
        if kept is None or place is None:
            return ()
        self._kept[number] = kept
        return tuple(place)

    def forget(self) -> None:
        """In a new worker: let go of what is the agent's."""
        self._kept.clear()
        self._pool.forget()
        del self._pool  # its memory is mapped here too
        if self._socket is not None:
            self._socket.close()


class Constants:
    """In a worker: those that its agent keeps.

    One that stands for a payload says its number and its place, if that is known, where the head
    would be; the sizes of head and buffers where these would be.
    """

    def __init__(self, owner: int, wait_for: Callable[[Callable[[], bool]], object]) -> None:
        """`owner`: process id of the agent. `wait_for`: reads messages until something is true."""
        self._shelf, self._wait_for = Shelf(owner), wait_for
        self._told: dict[int, Kept] = {}

    def told(self, message: Kept) -> None:
        """The client says where one is. From whichever thread reads."""
        self._told[message.number] = message

    def wait(self, head: tuple[int, Sequence[int]]) -> None:
        """Wait until it is known where this one is."""
        number, place = head
        if not place:
            self._wait_for(lambda: number in self._told)

    def payload(
        self, head: tuple[int, Sequence[int]], sizes: Sequence[int], *, common: bool
    ) -> Payload:
        """A constant that has been waited for.

        `common`: nobody may write to it; else it is as if it were the caller's alone.

        Raises:
            OSError: It cannot be opened.
        """
        number, place = head
        if not place:
            kept = self._told[number]  # which stays: we may have been told of it more than once
            if not kept.place:
                [payload] = kept.values
                copy = _read_only if common else bytearray
                return Payload(payload.head, [copy(buffer) for buffer in payload.buffers])
            place = kept.place
        show = self._shelf.buffer if common else self._shelf.own
        data = show(Place(*place))
        starts, _ = spread(sizes)
        first, *others = [data[start : start + size] for start, size in zip(starts, sizes)]
        return Payload(first, others)


def _read_only(buffer: Any) -> memoryview:
    return memoryview(buffer).toreadonly()
