"""One space, its connections, and one loop that serves them.

    thread "sleigh-server":  poll ─▶ read ─▶ handler ─▶ Space ─▶ effects ─▶ send what can be sent
    any other thread:                  lock ─▶ Space ─▶ effects ─▶ send what can be sent
    who waits for a lone reply:        lent the loop: it does what the thread does, and saves a hop

One lock guards the space and everything about connections, and whoever has something to do drives
them: a thread that submits a task writes to the idle worker's socket itself. Sockets do not block;
what they do not take at once waits in its connection and the loop goes on with it. What may run a
user's code (unpickling, callbacks) is never done here: it is deferred until the lock is free.

The server moves opaque bytes: it never unpickles. By default it lives in its user's process and
listens nowhere; workers have inherited their ends of socket pairs.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from threading import get_ident

from sleighexec.connections import Connection, Handler
from sleighexec.errors import AuthenticationError, ProtocolError
from sleighexec.forks import forget_in_child
from sleighexec.hints import TYPE_CHECKING, Any
from sleighexec.interrupts import QuietLock
from sleighexec.limits import Limits
from sleighexec.messages import Request
from sleighexec.polling import READ, WRITE, Poller
from sleighexec.space import Effects, Space

if TYPE_CHECKING:
    import ssl

    from sleighexec.segments import Pool

HANDSHAKE_SECONDS = 5.0  # for all of it, not for each message
MAX_STRANGERS = 64  # connections that have not shown the key yet; the oldest goes first
ACCEPT_PAUSE = 0.05  # seconds without accepting when that has failed
LEND = 0.01  # seconds for which the thread leaves its loop to who has asked for it
LOG_PAUSE = 60.0  # seconds between two log lines about those whom we cut off

log = logging.getLogger("sleighexec")


class Door:
    """A socket that listens.

    Attributes:
        admit: Called under the lock with who has shown the key, and its role: it sets the
            connection's handler, or releases it from the server, or raises AuthenticationError.
        context: For TLS; None: without.
    """

    def __init__(
        self,
        sock: socket.socket,
        key: bytes,
        binding: bytes,
        limits: Limits,
        admit: Callable[[Connection, int], None],
        context: ssl.SSLContext | None,
    ) -> None:
        self.socket, self.key, self.binding = sock, key, binding
        self.limits, self.admit, self.context = limits, admit, context


class Server:
    """A space that is served: to threads of this process, and to peers over sockets.

    `lock` guards the space and all connections. Who changes something under it passes the effects
    to `dispatch`.
    """

    def __init__(self, space: Space | None = None, *, name: str = "sleigh-server") -> None:
        if space is None:
            import random

            space = Space(choose=random.randrange)
        self.lock = QuietLock()
        self.space = space
        self._name = name
        # By which a workspace that was sent to a task knows whether it has come to its own server.
        self.identity = f"{os.getpid()}-{os.urandom(8).hex()}"
        self._connection_numbers = iter(range(1, 2**62))
        self._connections: dict[int, Connection] = {}  # by descriptor
        self._timed: dict[Connection, None] = {}  # those with a deadline
        self._doors: dict[int, Door] = {}  # by descriptor
        self._spare: socket.socket | None = None  # a descriptor for telling that there is no other
        self._quiet_until, self._unlogged = 0.0, 0
        self._deferred: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._poller = Poller()
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._poller.watch(self._wakened.fileno(), READ)
        self._to_watch: list[Connection] = []
        self._sleeps_until: float | None = None
        self._thread: threading.Thread | None = None
        self._serving: int | None = None  # the thread that serves now
        self._lent_until = 0.0  # when the loop's own thread takes it back; 0: at once
        self.parked = False  # that thread has left its place
        self._borrowed = False  # to another one that serves
        self._bell = threading.Lock()  # which wakes it
        self._bell.acquire()
        self.closing = False
        self._accept_again: float | None = None
        self.forked = False  # this is a forked child: all of it is its parent's
        self._locals: weakref.WeakSet[Any] = weakref.WeakSet()
        self.shares_memory = False  # with peers on this machine, where the system can
        self._pool: Pool | None = None
        self.after_round: Callable[[], None] | None = None  # called under the lock
        # Called when a callback begins to wait, with what is true when it need not any more.
        self.go_on: Callable[[Callable[[], bool]], None] | None = None
        self.on_time: Callable[[float], None] | None = None  # called under the lock; see wake_by
        self._wake_at: float | None = None
        self.on_failure: Callable[[BaseException], None] | None = None  # called under the lock
        self.idle: Callable[[], bool] = lambda: False  # whether nobody waits for what may come
        forget_in_child(self)

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Start the thread that serves sockets and deadlines; once is enough."""
        with self.lock:
            if self._thread is None and not self.closing:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    @property
    def started(self) -> bool:
        """Whether there is a thread that serves."""
        return self._thread is not None

    def close(self) -> None:
        """Close every connection and end the thread. Closing twice is allowed."""
        with self.lock:
            self.closing = True
            thread = self._thread
            self._wake()
        if thread is None:
            self._close_all()
        elif thread is not threading.current_thread():
            thread.join()
            self._thread = None  # nothing keeps a thread that has ended

    def forget(self) -> None:
        """In a forked child: close this process's copies of the sockets and say nothing."""
        self.forked = self.closing = True
        self._serving = None
        for connection in self._connections.values():
            connection.closed = True
            connection.drop_unsent()
            connection.socket.close()
        for door in self._doors.values():
            door.socket.close()
        for thing in (self._poller, self._waker, self._wakened, self._spare):
            if thing is not None:
                thing.close()
        if self._pool is not None:
            self._pool.forget()
            self._pool = None

    @property
    def connection_count(self) -> int:
        """How many peers there are, but for those that have not shown the key."""
        return sum(connection.handshake is None for connection in self._connections.values())

    def in_loop(self) -> bool:
        """Whether the calling thread is the one that serves."""
        return get_ident() == self._serving

    def pool(self) -> Pool | None:
        """The memory that this process shares with its peers; None: it cannot. Under the lock."""
        if self._pool is None and self.shares_memory and not self.closing:
            from sleighexec.segments import Pool

            with contextlib.suppress(OSError, AttributeError):  # only Linux has such memory
                self._pool = Pool()
        return self._pool

    # ------------------------------------------------------------------ connections

    def connect(
        self,
        sock: socket.socket,
        handler: Handler,
        on_closed: Callable[[Connection], None] | None = None,
    ) -> Connection:
        """Serve a peer that is trusted already (the other end of a socket pair)."""
        sock.setblocking(False)
        with self.lock:
            connection = Connection(self, sock, handler)
            connection.on_closed = on_closed
            self._connections[sock.fileno()] = connection
            self._wake_for(connection)
        return connection

    def listen(
        self,
        sock: socket.socket,
        key: bytes,
        binding: bytes,
        limits: Limits | None = None,
        *,
        admit: Callable[[Connection, int], None] = lambda connection, role: None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Serve whoever connects to this listening socket and holds the key: see Door."""
        sock.setblocking(False)
        with self.lock:
            self._spare = self._spare or socket.socket()
            door = Door(sock, key, binding, limits or Limits(), admit, context)
            self._doors[sock.fileno()] = door
            self._poller.watch(sock.fileno(), READ)
            self._wake()

    def release(self, connection: Connection) -> Any:
        """Serve it no more; its socket, which is the caller's from now on. Under the lock."""
        connection.closed = True
        self._timed.pop(connection, None)
        self._forget(connection)
        return connection.socket

    def _forget(self, connection: Connection) -> None:
        """Its descriptor may be another one's soon."""
        descriptor = connection.socket.fileno()
        if self._connections.pop(descriptor, None) is not None:
            self._poller.leave(descriptor)

    def apply(self, connection: Any, tag: int, request: Request) -> None:
        """The usual handler: ask the space, and tell everybody what comes of it."""
        effects = self.space.apply(connection, tag, request, time.monotonic())
        if effects or self.space.deadlines:
            self.dispatch(effects)

    def dispatch(self, effects: Effects) -> None:
        """Deliver replies. Under the lock."""
        for client, tag, reply in effects:
            client.deliver(tag, reply)  # type: ignore[attr-defined]
        if self.space.deadlines:
            deadline, asleep = self.space.next_deadline(), self._sleeps_until
            if deadline is not None and (asleep is None or deadline < asleep):
                self._wake()

    def defer(self, call: Callable[..., None], *args: Any) -> None:
        """Have the serving thread do something that may run a user's code, without the lock.

        Never the thread that happens to hold the lock now: it may be a user's, with locks of
        its own that the user's code would wait for.
        """
        self._deferred.append((call, args))
        if self._serving != get_ident():
            self._wake()

    def _run_deferred(self) -> None:
        while self._deferred:
            call, args = self._deferred.popleft()
            try:
                call(*args)
            except BaseException:  # a thread's last resort: user code was caught further down
                log.critical("sleighexec: an internal error was not handled", exc_info=True)
            call = args = None  # type: ignore[assignment] # see outcomes.deliver

    def wake_by(self, at: float) -> None:
        """Call `on_time` at this time of the monotonic clock, or before. Under the lock."""
        if self._wake_at is None or at < self._wake_at:
            self._wake_at = at
            if self._sleeps_until is None or at < self._sleeps_until:
                self._wake()

    def drain(self, connection: Connection) -> None:
        """Read what a dead peer has left in its socket, then close it. Under the lock."""
        if not connection.closed:
            self._read(connection, until_empty=True)
            self._close(connection)

    def catch_up(self, connection: Connection) -> None:
        """Read all that a peer has sent until now. Under the lock."""
        if not connection.closed:
            self._read(connection, until_empty=True)

    # ------------------------------------------------------------------ the loop

    def _run(self) -> None:
        self._serving = get_ident()
        try:
            while not self.closing or self._borrowed:
                if self.parked or self._lent_until:
                    self._park_or_serve()
                if self.parked:
                    self._bell.acquire(timeout=LEND)
                else:
                    self.step(None)
        except BaseException as error:
            self._fail(error)
        finally:
            self._close_all()

    def _park_or_serve(self) -> None:
        """Of the loop's own thread: leave its place while that is lent."""
        with self.lock:
            # Set, then asked: whoever has something to be done does it, then calls attend.
            self.parked = True
            if self._borrowed:
                return
            if self._lent_until <= time.monotonic():
                self._lent_until = 0.0
            if not (self._lent_until and self.idle()):
                self.parked, self._serving = False, get_ident()

    def _fail(self, error: BaseException) -> None:
        """Nobody would be served any more: say so loudly."""
        log.critical("sleighexec: the server thread ended by an error", exc_info=error)
        with self.lock:
            self.closing = True
            if self.on_failure is not None:
                self.on_failure(error)

    def serve_until(self, done: Callable[[], bool], deadline: float | None) -> None:
        """Serve in the calling thread until `done()`, or `deadline` on the monotonic clock.

        Returns at once if another thread serves: then that is to be waited for. But when nothing
        is left to do, the loop's own thread leaves its place for a while to whoever waits next.
        """
        if get_ident() == self._serving:  # a callback that waits: who else should serve meanwhile?
            if self.go_on is not None:
                self.go_on(done)
            while not done() and not self.closing and (left := _left(deadline)) != 0:
                self.step(left)
        elif self.parked and not self._borrowed:
            with self.lock.undisturbed:
                self._borrow(done, deadline)
        else:
            self._lent_until = time.monotonic() + LEND

    def _borrow(self, done: Callable[[], bool], deadline: float | None) -> None:
        with self.lock.inner:
            if not self.parked or self._borrowed or self.closing:
                return
            self._borrowed, self._serving = True, get_ident()
        try:
            while not done() and self._lent_until and not self.closing:
                left = None if deadline is None else _left(deadline)
                if left == 0:
                    break
                wait = self._prepare(left)
                events = self.lock.undisturbed.wait(self._poller.wait, wait)
                try:
                    self._handle(events or [])
                except BaseException as error:
                    self._fail(error)
        finally:
            with self.lock.inner:
                self._borrowed, self._serving = False, None
                if self._lent_until and self.idle():
                    self._lent_until = time.monotonic() + LEND
                else:
                    self._lent_until = 0.0
                    self._ring()

    def step(self, timeout: float | None) -> None:
        """Serve once: wait at most `timeout` seconds for something to do, and do it.

        Only for the thread that serves; a callback that waits for something calls it again.
        """
        self._handle(self._poller.wait(self._prepare(timeout)))

    # Who serves is the loop's own thread, or undisturbed already: it takes the lock as it is.

    def _prepare(self, timeout: float | None) -> float | None:
        """Before waiting: tell the poller for what; how many seconds."""
        with self.lock.inner:
            if self._to_watch:
                for connection in self._to_watch:
                    self._watch(connection)
                self._to_watch.clear()
            if timeout is None and not (
                self._timed
                or self.space.deadlines
                or self._deferred
                or self._wake_at is not None
                or self._accept_again is not None
                or self.closing
            ):
                self._sleeps_until = None  # nothing is to be done at any time
                return None
            return self._patience(timeout)

    def _handle(self, events: list[tuple[int, int]]) -> None:
        """Do what there is to do."""
        with self.lock.inner:
            # Who has set a time since we began to wait has woken us: see `_wake`.
            timed, self._sleeps_until = self._sleeps_until is not None, 0.0  # awake
            for descriptor, events_of_it in events:
                if (connection := self._connections.get(descriptor)) is not None:
                    if events_of_it != READ:
                        self._flush(connection)
                    if events_of_it != WRITE or connection.has_more():
                        self._read(connection)
                elif descriptor in self._doors:
                    self._accept(descriptor)
                elif descriptor == self._wakened.fileno():
                    with contextlib.suppress(BlockingIOError):
                        self._wakened.recv(4096)
            if timed:
                self._keep_time(time.monotonic())
            if self.after_round is not None:
                self.after_round()
        if self._deferred:
            self._run_deferred()

    def _keep_time(self, now: float) -> None:
        """Do what is due."""
        self.dispatch(self.space.tick(now))
        self._expire(now)
        if self._wake_at is not None and self._wake_at <= now:
            self._wake_at = None
            if self.on_time is not None:
                self.on_time(now)

    def _patience(self, timeout: float | None) -> float | None:
        """How long the loop may sleep, where there is a limit to it."""
        now = time.monotonic()
        times = [c.deadline for c in self._timed if c.deadline is not None]
        for at in (self.space.next_deadline(), self._accept_again, self._wake_at):
            if at is not None:
                times.append(at)
        if timeout is not None:
            times.append(now + timeout)
        if self._deferred or self.closing:
            times.append(now)
        self._sleeps_until = min(times) if times else None
        # Not for ever in one go: the system knows no more than some weeks.
        return None if self._sleeps_until is None else min(max(0.0, self._sleeps_until - now), 3600)

    def _flush(self, connection: Connection) -> None:
        connection.flush()
        if not connection.waiting_out:
            self._watch(connection)

    def _read(self, connection: Connection, until_empty: bool = False) -> None:
        """Handle what came. One read a round, so that a talkative peer starves nobody."""
        while not connection.closed and connection.waiting_replies is None:
            try:
                if connection.handshake is not None:
                    count = self._greet(connection)
                else:
                    count = connection.socket.recv_into(connection.decoder.buffer())
                    connection.handle(connection.decoder.received(count))
            except (BlockingIOError, InterruptedError):
                return
            except (AuthenticationError, ProtocolError) as error:
                self._warn(f"connection {connection.number} was closed: {error}")
                count = 0
            except OSError:
                count = 0
            except Exception:  # one peer's message may cost its connection, never the server
                log.exception("sleighexec: a message could not be handled")
                count = 0
            if count == 0:
                self._close(connection)
                return
            if not until_empty and (connection.pending is None or not connection.has_more()):
                return

    def _greet(self, connection: Connection) -> int:
        assert connection.handshake is not None
        assert connection.door is not None
        if connection.shaking:
            connection.socket.shake_hands()
            connection.shaking = False
            connection.send_bytes([connection.handshake.start()])
            return 1
        data = connection.socket.recv(4096)
        try:
            answer = connection.handshake.feed(data) if data else b""
        except AuthenticationError as error:
            with contextlib.suppress(OSError):
                connection.socket.send(getattr(error, "farewell", b""))
            raise
        if answer:
            connection.send_bytes([answer])
        if connection.handshake.ready:
            handshake, connection.handshake = connection.handshake, None
            connection.deadline, connection.rest = None, handshake.rest
            assert handshake.role is not None
            connection.door.admit(connection, handshake.role)
            if not connection.closed:
                for tag, message in connection.decoder.feed(connection.rest):
                    connection.handler(connection, tag, message)
        return len(data)

    def _accept(self, descriptor: int) -> None:
        door = self._doors[descriptor]
        listener, limits = door.socket, door.limits
        sock: Any
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away(listener)
            else:  # of the network, of a firewall, or the system is short of memory
                self._warn(f"a client could not be let in: {error}")
                self._pause(listener)
            return
        sock.setblocking(False)
        if sock.family == socket.AF_UNIX:
            if not _same_user(sock):
                sock.close()
                return
        else:
            with contextlib.suppress(OSError):  # some systems say so if it has gone already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        from sleighexec.session import Handshake  # most listen nowhere: they need no cryptography

        strangers = [c for c in self._timed if c.handshake is not None]
        if len(self._connections) - len(strangers) >= limits.connections:
            _say_full(sock)
            self._warn(f"a client was turned away: there are {limits.connections} already")
            return
        if door.context is not None:
            from sleighexec import tls

            try:
                tls.notice_silence(sock)
                sock = tls.TlsSocket(sock, door.context, server_side=True)
            except OSError:  # it has gone already
                sock.close()
                return
        connection = Connection(self, sock, self.apply)
        connection.handshake, connection.limits = Handshake(door.key, door.binding), limits
        connection.door, connection.shaking = door, door.context is not None
        if len(strangers) >= MAX_STRANGERS:
            self._close(strangers[0])
        connection.deadline = time.monotonic() + HANDSHAKE_SECONDS
        self._connections[sock.fileno()] = connection
        self._watch(connection)
        if not connection.shaking:
            connection.send_bytes([connection.handshake.start()])

    def _turn_away(self, listener: socket.socket) -> None:
        """Out of descriptors: tell who comes, by a spare one; who is connected is served."""
        self._warn("a client was turned away: no file descriptor is left, raise `ulimit -n`")
        if self._spare is not None:
            self._spare.close()
            self._spare = None
            with contextlib.suppress(OSError):
                _say_full(listener.accept()[0])
        with contextlib.suppress(OSError):
            self._spare = socket.socket()
        if self._spare is None:  # somebody else was quicker
            self._pause(listener)

    def _pause(self, listener: socket.socket) -> None:
        """Let those who come wait a little: the poller would tell of them again at once."""
        self._poller.leave(listener.fileno())
        self._accept_again = time.monotonic() + ACCEPT_PAUSE

    def _time(self, connection: Connection) -> None:
        """The deadline of a connection has changed."""
        with self.lock:
            if connection.deadline is None or connection.closed:
                self._timed.pop(connection, None)
                return
            self._timed[connection] = None
            if self._sleeps_until is None or connection.deadline < self._sleeps_until:
                self._wake()

    def _expire(self, now: float) -> None:
        """Close those whose time is up; accept again after a pause."""
        for connection in list(self._timed):
            if connection.deadline is not None and connection.deadline <= now:
                if connection.limits is not None:
                    what = "read its replies" if connection.handshake is None else "show the key"
                    text = f"connection {connection.number} was closed: it did not {what} in time"
                    self._warn(text)
                self._close(connection)
        if self._accept_again is not None and self._accept_again <= now:
            self._accept_again = None
            for descriptor in self._doors:
                self._poller.watch(descriptor, READ)

    def _watch(self, connection: Connection) -> None:
        """Tell the poller what this connection waits for."""
        if connection.closed:
            return
        events = READ if connection.waiting_replies is None else 0
        if connection.waiting_out:
            events |= WRITE
        try:
            self._poller.watch(connection.socket.fileno(), events)
        except (OSError, ValueError):
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        if connection.closed:
            return
        connection.closed = True
        connection.drop_unsent()
        self._timed.pop(connection, None)
        self._forget(connection)
        connection.socket.close()
        if self._pool is not None:
            self._pool.lost(connection.number)
        if connection.on_closed is not None:
            connection.on_closed(connection)
        else:
            self.dispatch(self.space.disconnect(connection))

    def _close_all(self) -> None:
        with self.lock:
            for connection in list(self._connections.values()):
                self._close(connection)
            for door in self._doors.values():
                door.socket.close()
            self._doors.clear()
            if self._spare is not None:
                self._spare.close()
            if self._pool is not None:
                self._pool.close()
            self._poller.close()
            self._waker.close()
            self._wakened.close()
            for local in self._locals:
                local.release()
        self._run_deferred()

    def _warn(self, text: str) -> None:
        """One line a minute: a flood of strangers is not to fill the log as well."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._unlogged += 1
            return
        more = f" (and {self._unlogged} before, of which nothing was said)" * bool(self._unlogged)
        self._quiet_until, self._unlogged = now + LOG_PAUSE, 0
        log.warning("sleighexec: %s%s", text, more)

    # ------------------------------------------------------------------ waking the loop

    def attend(self) -> None:
        """Somebody waits without serving: the loop's own thread is to serve."""
        if self.parked:
            self._lent_until = 0.0
            if self._borrowed:
                self._nudge()
            self._ring()

    def _ring(self) -> None:
        """Wake the loop's own thread where it has left its place."""
        with contextlib.suppress(RuntimeError):  # it is not waiting
            self._bell.release()

    def _wake_for(self, connection: Connection) -> None:
        self._to_watch.append(connection)
        self._wake()

    def _wake(self) -> None:
        """There is something to do for the loop."""
        if self._thread is not None and not self.in_loop():
            self.attend()
            self._nudge()

    def _nudge(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"!")


def _left(deadline: float | None) -> float | None:
    """Seconds until then."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _say_full(sock: socket.socket) -> None:
    """Tell a client that there is no room for it, and hang up."""
    from sleighexec.session import full_hello

    with sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(full_hello())


def _same_user(sock: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket is ours. Elsewhere the key decides."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, 12))
    return bool(uid == os.getuid())
