"""One socket to a server, for any number of threads at once.

Requests are numbered and replies carry the number, so that nobody waits for anybody else's reply.
There is no reader thread: of the threads that wait, one reads, and hands the others what is
theirs; so a lone request costs no thread switch.

    thread A  call() ─ send ─ wait ─┐ reads for all ─▶ replies by number ─▶ wakes B, C
    thread B  call() ─ send ─ wait ─┘ sleeps until its reply is there or nobody reads
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from threading import get_ident

from sleighexec import wire
from sleighexec.errors import (
    ConnectionLostError,
    ForkedProcessError,
    OperationUnknownError,
    ProtocolError,
)
from sleighexec.forks import forget_in_child, free_in_child
from sleighexec.hints import TYPE_CHECKING, Any
from sleighexec.messages import (
    FORGOTTEN,
    Abandon,
    Again,
    Failed,
    Fetch,
    GiveBack,
    Identify,
    Lease,
    Leased,
    Release,
    Reply,
    Request,
    Settle,
    Store,
    Values,
)

if TYPE_CHECKING:
    from sleighexec.borrowing import Borrower

ONE_WAY = 0  # the tag of what needs no reply
UNSENT = ConnectionLostError, ProtocolError, ForkedProcessError  # what does not go is not done
MOST_AHEAD = 512  # stores of which nobody has heard yet whether they are done
LAST_SECONDS = 5.0  # for these when a connection is closed or forgotten


class SocketConnection:
    """A connection to a server. Thread-safe. A forked child is told that it is not its own."""

    local = False

    def __init__(self, sock: Any, name: str = "") -> None:
        sock.setblocking(True)
        self._socket, self._name = sock, name
        self._pending = getattr(sock, "pending", None)  # bytes of which no select tells
        self.space = ""  # the identity of an executor's space: of a worker's connection only
        self._identity = ""  # by which the server knows us
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self._decoder = wire.Decoder()
        self.memory: Borrower | None = None  # which the peer shares with us, for big buffers
        self._sending = free_in_child(threading.Lock())  # one frame after the other
        self._lock = free_in_child(threading.RLock())  # guards all below
        self._state = threading.Condition(self._lock)  # something below has changed
        self._sleepers = 0  # threads that wait for that
        self._reader = 0  # the thread that reads for all
        self._replies: dict[int, Reply] = {}
        self._abandoned: set[int] = set()
        self._ahead: dict[int, int] = {}  # stores for whose replies nobody waits: tag -> workspace
        self._refused: dict[int, Failed] = {}  # workspace -> the first of its replies that says no
        self._lost: BaseException | None = None
        self._tags = itertools.count(1)
        self.on_message: Callable[[Any], None] = lambda message: None  # what nobody asked for
        self._forked = False  # this is a forked child: the connection is its parent's
        forget_in_child(self)

    def __str__(self) -> str:
        return self._name

    def identify(self) -> None:
        """Tell the server a name of ours, so that a store of ours can be tried again."""
        self._identity = os.urandom(12).hex()
        self.post(Identify(self._identity), ONE_WAY)

    @property
    def closed(self) -> bool:
        return self._lost is not None

    @property
    def sending(self) -> bool:
        """Whether a thread sends right now: it may be the one that asks, in a signal handler."""
        return self._sending.locked()

    def call(self, request: Request | Lease, again: OperationUnknownError | None = None) -> Reply:
        """The reply to a request; blocks as long as the request does.

        `again`: the error of an earlier try of this store.

        Raises:
            OperationUnknownError: The server went away while it might have stored a value.
            ConnectionLostError: The server went away while waiting.
        """
        memory = self.memory  # read once: another thread may close us
        if memory is not None:
            memory.tidy()
        fetch = type(request) is Fetch and not request.lend
        if fetch:
            request.lend = True  # type: ignore[union-attr] # until we say that it has arrived
        tag = self.next_tag()
        if again is not None:
            if not self._identity:
                return FORGOTTEN
            self.post(Again(again.client, again.tag, tag), ONE_WAY)
        try:
            self.post(request, tag)
        except UNSENT:
            raise
        except BaseException:  # of a signal handler: perhaps it was sent
            self._give_up(tag)
            raise
        try:
            reply = self.wait(tag)
        except ConnectionLostError as error:
            if type(request) is Store:
                what = (self._identity, tag) if again is None else (again.client, again.tag)
                text = f"{error}: it is not known whether the value was stored"
                raise OperationUnknownError(text, *what) from error
            raise
        except BaseException:
            self._give_up(tag)
            raise
        assert reply is not None
        if fetch and type(reply) is Values:
            self.post(Settle(reply.loan, len(reply.values)), ONE_WAY)
        return reply

    def call_ahead(self, request: Store) -> Failed | None:
        """Send a store without waiting for its reply, unless too many of these are on their way.

        Returns what an earlier one into this workspace was refused with, if one was: then this one
        is not sent.

        Raises:
            ConnectionLostError: The server went away.
        """
        with self._lock:
            if self._refused and request.workspace in self._refused:
                return self._refused.pop(request.workspace)
            tag = self.next_tag()
            crowded = len(self._ahead) >= MOST_AHEAD
            self._ahead[tag] = request.workspace
        try:
            if self.memory is not None:
                self.memory.tidy()
            if crowded:
                self.wait(ONE_WAY, lambda: len(self._ahead) <= MOST_AHEAD // 2)
            self.post(request, tag)
        except BaseException as error:
            with self._lock:
                if self._ahead.pop(tag, None) and not isinstance(error, UNSENT):
                    self._abandoned.add(tag)  # a signal handler's: perhaps it was sent
            raise
        return None

    def flush(self, workspace: int | None, seconds: float | None = None) -> Failed | None:
        """Wait for the replies that nobody has waited for; the first refusal among them, once.

        `workspace`: only those to stores into this one; None: all.

        Raises:
            ConnectionLostError: The server went away, or did not answer in time.
        """
        if self._forked:
            return None  # what is on its way is the parent's
        ahead, refused = self._ahead, self._refused
        deadline = None if seconds is None else time.monotonic() + seconds
        reason = f"the server did not answer within {seconds} s"
        with self._lock:  # those that come while we wait are not ours
            mine = {tag for tag, number in ahead.items() if workspace in (None, number)}
        try:
            self.wait(ONE_WAY, lambda: ahead.keys().isdisjoint(mine), deadline)
        except ConnectionLostError as error:
            reason = str(error)
        with self._lock:
            lost = len([ahead.pop(tag) for tag in mine if tag in ahead])
            number = next(iter(refused), None) if workspace is None else workspace
            failed = refused.pop(number, None) if number is not None else None
        if lost:
            raise ConnectionLostError(f"{reason}: it is not known which of {lost} stores were done")
        return failed

    def post(self, message: Any, tag: int | None = None) -> int:
        """Send a message without waiting; the tag to wait for its reply with."""
        if tag is None:
            tag = self.next_tag()
        memory = self.memory
        self.send(wire.encode(tag, message, None if memory is None else memory.put))
        return tag

    def share_memory(self, memory: Borrower) -> None:
        """From now on big buffers travel by memory that both sides share."""
        self.memory, self._decoder.locate = memory, memory.locate

    def next_tag(self) -> int:
        """A number for one request."""
        return next(self._tags)

    def send(self, pieces: list[Any]) -> None:
        """Send whole frames. If a signal handler raises amid one, the connection is lost."""
        self._check_ours()
        counts: list[int] = []
        amid = False  # of what cannot be sent in one step
        try:
            with self._sending:
                if len(pieces) == 1:
                    amid = self._pending is not None  # TLS takes many
                    # One step of the interpreter: what handlers raise comes before or after it.
                    counts.extend(map(self._socket.send, pieces))
                    if counts[0] == len(pieces[0]):
                        return
                    pieces = [memoryview(pieces[0])[counts[0] :]]
                amid = True
                pieces = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
                while pieces:
                    sent = self._socket.sendmsg(pieces[:512])
                    while pieces and sent >= pieces[0].nbytes:
                        sent -= pieces.pop(0).nbytes
                    if sent:
                        pieces[0] = pieces[0][sent:]
        except BaseException as error:
            if isinstance(error, OSError) and (amid or not _is_of_handler(error)):
                raise self._lose(error) from error
            if amid or (counts and counts[0] != len(pieces[0])):
                self._lose(ConnectionLostError(f"{type(error).__name__} came amid what was sent"))
            raise

    def wait(
        self, tag: int, stop: Callable[[], bool] | None = None, deadline: float | None = None
    ) -> Reply | None:
        """The reply with this tag; None as soon as `stop()` is true after a message came.

        `deadline`: None then too; on the monotonic clock.

        Raises:
            ConnectionLostError: The server went away.
        """
        self._check_ours()
        left = None
        try:
            while True:
                with self._lock:
                    while True:
                        if tag in self._replies:
                            return self._replies.pop(tag)
                        if self._lost is not None:
                            raise ConnectionLostError(*self._lost.args) from self._lost
                        if stop is not None and stop():
                            return None
                        if deadline is not None and (left := deadline - time.monotonic()) <= 0:
                            return None
                        if not self._reader:
                            break
                        self._sleep(left)
                    self._reader = get_ident()
                if (reply := self._read_as_leader(left, tag)) is not None:
                    return reply
        except BaseException:
            self._read_no_more()
            raise

    def ready(self, tag: int) -> bool:
        """Whether the reply with this tag is there."""
        with self._lock:
            return tag in self._replies

    def take(self, tag: int) -> Reply | None:
        """The reply with this tag if it is there."""
        with self._lock:
            return self._replies.pop(tag, None)

    def pump(self, seconds: float) -> None:
        """Wait until a message comes, whoever reads it, or `seconds` have passed.

        For a thread that watches over a busy one.

        Raises:
            ConnectionLostError: The server went away, or a task closed our socket.
        """
        try:
            with self._lock:
                if self._lost is not None:
                    raise ConnectionLostError(*self._lost.args)
                if self._reader:
                    self._sleep(seconds)
                    return
                self._reader = get_ident()
            self._read_as_leader(seconds)
        except BaseException:
            self._read_no_more()
            raise

    def fileno(self) -> int:
        descriptor: int = self._socket.fileno()
        return descriptor

    def _sleep(self, seconds: float | None) -> None:
        """Wait until something has changed. Under the lock."""
        self._sleepers += 1
        try:
            self._state.wait(seconds)
        finally:
            self._sleepers -= 1

    def close(self) -> None:
        """Leave; blocked calls of other threads end with ConnectionLostError."""
        if self._forked:
            return
        self._lose(ConnectionLostError("the connection was closed"))
        self._socket.close()
        self.memory = self._decoder.locate = None  # else its segments would stay mapped

    def __del__(self) -> None:
        # Were it closed with replies unread, the server would lose what it has not read yet.
        if getattr(self, "_ahead", None) and self._lost is None and not self._forked:
            import logging

            try:
                problem: object = self.flush(None, LAST_SECONDS)
            except Exception as error:
                problem = error
            if problem is not None:
                log = logging.getLogger("sleighexec")
                log.warning("sleighexec: what a workspace stored at last: %s", problem)

    def forget(self) -> None:
        """In a forked child: close its copy of the socket, without a word to the server."""
        self._forked = True
        self.memory = None  # what was lent is lent to the parent
        self._socket.close()

    def _check_ours(self) -> None:
        if self._forked:
            raise ForkedProcessError(
                "this connection belongs to the parent process; make a new one in this process"
            )

    def _read_as_leader(self, seconds: float | None = None, tag: int = ONE_WAY) -> Reply | None:
        """Read once, and be the reader no more; the reply with this tag, if it is there then.

        What a signal handler raises is the caller's.
        """
        counts: list[int] = []  # of bytes
        amid = False  # of what cannot be read in one step
        try:
            if seconds is not None or self._pending is not None:
                if not self._is_there(seconds):
                    self._read_no_more()
                    return None
                amid = self._pending is not None  # TLS takes many
            # One step of the interpreter, which may wait in it: what handlers raise comes before
            # anything is read or behind it.
            counts.extend(map(self._socket.recv_into, (self._decoder.buffer(),)))
            if counts[0] == 0:
                raise ConnectionLostError("the server closed the connection")
            messages = self._decoder.received(counts[0])
            with self._lock:
                for number, message in messages:
                    self._file(number, message)
                self._reader = 0
                if self._sleepers:
                    self._state.notify_all()
                return self._replies.pop(tag, None)
        except BaseException as error:
            underway = amid or bool(counts)
            if isinstance(error, (OSError, ValueError, ProtocolError)) and (
                underway or not _is_of_handler(error)
            ):
                self._lose(error)
                self._read_no_more()
                return None
            if underway:
                self._lose(ConnectionLostError(f"{type(error).__name__} came amid what was read"))
            raise

    def _read_no_more(self) -> None:
        """If this thread reads, another one may."""
        with self._lock:
            if self._reader == get_ident():
                self._reader = 0
                if self._sleepers:
                    self._state.notify_all()

    def _is_there(self, seconds: float | None) -> bool:
        """Wait until something can be read; False: it was not in time."""
        if self._pending is not None and self._pending():
            return True
        return bool(self._poll.poll(None if seconds is None else seconds * 1000))

    def _file(self, tag: int, message: Any) -> None:
        if tag == ONE_WAY:
            self.on_message(message)
        elif tag in self._ahead:
            number = self._ahead.pop(tag)
            if type(message) is Failed:
                self._refused.setdefault(number, message)
        elif tag in self._abandoned:
            self._abandoned.discard(tag)
            self._decline(message)
        else:
            self._replies[tag] = message

    def _give_up(self, tag: int) -> None:
        """Nobody waits for this reply any more; a value that comes all the same goes back."""
        with self._lock:
            reply = self._replies.pop(tag, None)
            if reply is None:
                self._abandoned.add(tag)
        with contextlib.suppress(ConnectionLostError):  # then it has gone back anyway
            if reply is None:
                self.post(Abandon(tag), ONE_WAY)
            else:
                self._decline(reply)

    def _decline(self, reply: Any) -> None:
        """Give back what came for somebody who waits no more."""
        if type(reply) is Values and reply.loan:
            self.post(GiveBack(reply.loan, len(reply.values)), ONE_WAY)
        elif type(reply) is Leased:
            self.post(Release(reply.place[:1]), ONE_WAY)

    def _lose(self, error: BaseException) -> ConnectionLostError:
        """From now on the connection is lost, to the server too: what it has lent us goes back."""
        with self._lock:
            if self._lost is None:
                self._lost = ConnectionLostError(f"the server went away: {error}")
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            self._state.notify_all()
            return ConnectionLostError(*self._lost.args)


def _is_of_handler(error: BaseException) -> bool:
    """Whether an error is that of a signal handler, if it came when nothing was underway.

    Many raise TimeoutError, which is an OSError: those of the system have a number.
    """
    return getattr(error, "errno", None) is None
