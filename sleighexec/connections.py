"""A socket peer of a server: what it sends, and what is on its way to it.

Sockets do not block. What one does not take at once waits here, in order, and goes out when it has
room. Of a peer that does not read, no more requests are heard.
"""

from __future__ import annotations

import itertools
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable

from sleighexec import wire
from sleighexec.errors import ProtocolError
from sleighexec.hints import TYPE_CHECKING, Any
from sleighexec.limits import PIECE_BYTES, Limits
from sleighexec.messages import (
    Accept,
    Again,
    Failed,
    Lease,
    Leased,
    Nothing,
    Offer,
    Release,
    Reply,
    Values,
    bytes_of,
)

if TYPE_CHECKING:
    from sleighexec.segments import Place
    from sleighexec.server import Door, Server
    from sleighexec.session import Handshake

MAX_PIECES = 512  # buffers in one sendmsg; the kernel's own limit is 1024
MOST_AT_ONCE = 16 * 1024 * 1024  # bytes of values in one reply, beyond which no more are added

Handler = Callable[["Connection", int, Any], None]


class Connection:
    """One socket peer of the server. Everything here happens under the server's lock."""

    def __init__(self, server: Server, sock: Any, handler: Handler) -> None:
        self.server, self.socket, self.handler = server, sock, handler
        self.decoder = wire.Decoder()
        self.handshake: Handshake | None = None
        self.shaking = False  # TLS is not agreed on yet
        self.pending = getattr(sock, "pending", None)  # bytes of which no poll tells
        self.rest = b""  # what came behind the handshake
        self.identity = ""  # by which it is known after it has connected again, if it said so
        self.again: dict[int, Again] = {}  # stores to come that are another try, by their tags
        self.door: Door | None = None  # where it came in
        self.limits: Limits | None = None  # none for those that we have started ourselves
        self._deadline: float | None = None
        self.waiting_out: deque[memoryview] = deque()
        # Of these, the ones that a descriptor goes with, which is ours until then.
        self._passing: deque[tuple[memoryview, socket.socket]] = deque()
        self.unsent = 0  # bytes of memory that these take
        self._held: list[Any] | None = None  # replies that are to go out in one piece
        self.waiting_replies: deque[tuple[int, Any]] | None = None  # of one who does not read
        self.closed = False
        self.on_closed: Callable[[Connection], None] | None = None
        self._put: wire.Put | None = None  # for big buffers, into shared memory
        self.number = next(server._connection_numbers)

    @property
    def deadline(self) -> float | None:
        """When it is closed if nothing happens: if it has not shown the key, answered or read."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float | None) -> None:
        self._deadline = deadline
        self.server._time(self)

    def has_more(self) -> bool:
        """Whether bytes have come of which no poll tells."""
        return self.pending is not None and not self.closed and self.pending() > 0

    # ------------------------------------------------------------------ shared memory

    def offer_memory(self) -> None:
        """Tell the peer where our segments are, if it can be on this machine."""
        pool = self.server.pool() if self.socket.family == socket.AF_UNIX else None
        if pool is not None:
            self.send(0, Offer(*pool.probe()))

    def share_memory(self) -> None:
        """From now on big buffers travel by segments of the server's, which the peer can reach."""
        self._put, self.decoder.locate = self._put_in_segment, self._locate

    def share(self, tag: int, message: Accept | Lease | Release) -> None:
        """The peer can reach segments, wants one, or has no use for some any more."""
        pool = self.server.pool()
        if type(message) is Accept:
            self.share_memory()
        elif type(message) is Lease:
            place = pool.lend(message.size, self.number) if pool is not None else None
            self.send(tag, Nothing() if place is None else Leased(tuple(place)))
        elif type(message) is Release and pool is not None:
            pool.give_back(message.sound, self.number)
            pool.give_back(message.spoilt, self.number, spoilt=True)

    def grants(self) -> list[Place]:
        """Free segments for the next big results of the peer, if it has had such."""
        pool = self.server.pool() if self._put is not None else None
        return pool.grants(self.number) if pool is not None else []

    def _put_in_segment(self, view: memoryview) -> bytes | None:
        pool = self.server.pool()
        place = pool.put(view, self.number) if pool is not None else None
        return place.pack() if place is not None else None

    def _locate(self, data: Any) -> memoryview:
        from sleighexec.segments import unpack

        pool = self.server.pool()
        if pool is None:
            raise ValueError("there are no segments")
        return pool.adopt(unpack(data), self.number)

    # ------------------------------------------------------------------ sending

    def deliver(self, tag: int, reply: Reply) -> None:
        """Send a reply, or as much of it as the socket takes now. Tag 0: nobody waits for it."""
        if self.closed or not tag:
            return
        if type(reply) is Values and reply.loan and len(reply.values) > 1:
            self._keep_back(reply)
        self.send(tag, reply)

    def _keep_back(self, reply: Values) -> None:
        """Of many big values, those that are enough for one frame; the others wait again."""
        size, values = 0, reply.values
        if bytes_of(values) <= MOST_AT_ONCE:
            return
        for number, value in enumerate(values):
            if size > MOST_AT_ONCE:
                reply.values = values[:number]
                space = self.server.space
                self.server.dispatch(space.give_back(reply.loan, len(values) - number))
                return
            size += value.size_bytes

    def send(self, tag: int, message: Any) -> None:
        if self.waiting_replies is not None:
            self.waiting_replies.append((tag, message))
            return
        try:
            pieces = wire.encode(tag, message, self._put)
        except ProtocolError as error:  # too large: tell instead of sending
            pieces = wire.encode(tag, Failed("limit", str(error)))
        self.send_bytes(pieces)
        if self.unsent and self.limits is not None:
            self._bound(self.limits)

    def _bound(self, limits: Limits) -> None:
        """If it does not read, it is not heard either: what waits for it stays within a limit."""
        if self.unsent > limits.unsent_bytes and self.waiting_replies is None:
            self.waiting_replies = deque()
            self.server._wake_for(self)  # it is not heard until it has read
            self.deadline = time.monotonic() + limits.stall_seconds

    def pass_on(self, tag: int, message: Any, sock: socket.socket) -> None:
        """Send a message and, with it, the descriptor of a socket, which is closed then.

        Raises:
            OSError: The peer has hung up.
        """
        if self.closed:
            sock.close()
            raise ConnectionResetError("the connection has ended")
        data, unsent = memoryview(b"".join(wire.encode(tag, message))), True
        if not self.waiting_out:
            try:
                data, unsent = data[self._send_with(data, sock) :], False
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                sock.close()
                raise
        if data:
            self._keep([data])
            if unsent:
                self._passing.append((self.waiting_out[-1], sock))
            self.server._wake_for(self)

    def _send_with(self, data: memoryview, sock: socket.socket) -> int:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [sock.fileno()]))]
        sent = self.socket.sendmsg([data], rights)
        sock.close()
        return int(sent)

    def send_bytes(self, pieces: list[Any]) -> None:
        if self.closed:
            return
        if self._held is not None:
            self._held += pieces
            return
        if self.waiting_out:
            self._keep(pieces)
            return
        try:
            if len(pieces) == 1:
                sent = self.socket.send(pieces[0])
                if sent == len(pieces[0]):
                    return
            else:
                sent = self.socket.sendmsg(pieces[:MAX_PIECES])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:  # the loop will read the end of it, and say so
            self.server._wake_for(self)
            return
        self._keep(pieces)
        self._drop_sent(sent)
        if self.waiting_out:
            self.server._wake_for(self)

    def handle(self, messages: list[tuple[int, Any]]) -> None:
        """Do what came in one piece. The replies go out in one piece too."""
        if len(messages) == 1:
            self.handler(self, *messages[0])
            return
        self._held = []
        try:
            for tag, message in messages:
                self.handler(self, tag, message)
        finally:
            held, self._held = self._held, None
            if held:
                self.send_bytes(held)
                if self.limits is not None:
                    self._bound(self.limits)

    def flush(self) -> None:
        """Send more of what waits, as much as the socket takes."""
        while self.waiting_out and not self.closed:
            try:
                sent = self._send_waiting()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the loop will read the end of it
                self.drop_unsent()
                return
            self._drop_sent(sent)
            if self.waiting_replies is not None:
                self._go_on()

    def _send_waiting(self) -> int:
        """Send the first of what waits: a piece with a descriptor, or those before the next one."""
        special = self._passing[0][0] if self._passing else None
        if special is self.waiting_out[0]:
            sent = self._send_with(*self._passing[0])
            self._passing.popleft()
            return sent
        pieces: list[memoryview] = []
        for piece in itertools.islice(self.waiting_out, MAX_PIECES):
            if piece is special:
                break
            pieces.append(piece)
        return int(self.socket.sendmsg(pieces))

    def drop_unsent(self) -> None:
        """Nothing of what waits will go out any more."""
        self.waiting_out.clear()
        self.waiting_replies = None
        while self._passing:
            self._passing.popleft()[1].close()

    def _go_on(self) -> None:
        """It has read something: when that is enough, its replies go out and it is heard again."""
        assert self.limits is not None
        if self.unsent > self.limits.unsent_bytes // 2:
            self.deadline = time.monotonic() + self.limits.stall_seconds
            return
        replies, self.waiting_replies = self.waiting_replies or deque(), None
        self.deadline = None
        self.server._wake_for(self)
        while replies and self.waiting_replies is None:
            self.send(*replies.popleft())
        if replies:
            self.waiting_replies = replies

    def _keep(self, pieces: list[Any]) -> None:
        for piece in pieces:
            view = memoryview(piece)
            self.unsent += view.nbytes + PIECE_BYTES
            self.waiting_out.append(view)

    def _drop_sent(self, sent: int) -> None:
        while sent or (self.waiting_out and not self.waiting_out[0].nbytes):
            first = self.waiting_out[0]
            if sent < first.nbytes:
                self.waiting_out[0] = first.cast("B")[sent:]
                self.unsent -= sent
                return
            sent -= first.nbytes
            self.unsent -= first.nbytes + PIECE_BYTES
            self.waiting_out.popleft()
