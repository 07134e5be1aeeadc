"""Unix sockets, and the descriptors that are passed over them, carried over two byte streams.

    engine ══ sockets ══ near relay ──── stdin, stdout ──── far relay ══ sockets ══ agent, workers
                                     (ssh, a pipe, srun …)

Here and there everything is as on one machine: an engine passes its agent one end of a socket pair
for each worker. A relay takes the place of the missing half: channel 0 is the agent's connection,
channel 1 what workers print, and each descriptor that comes along opens a channel of its own.

Laws: 1. What one side has not taken is bounded: a channel may be WINDOW bytes ahead, no more, and
         none waits for another.
      2. What the agent says comes after all that its workers had written before it said so.
      3. A side that hears nothing for too long takes the other for dead, and ends. Beats go once a
         second, from processes and threads that never run a user's code.

A frame is kind u8, 3 bytes of nothing, channel u32, number u32 (big-endian); DATA has that number
of bytes behind it. Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import math
import os
import select
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable
from operator import attrgetter

from sleighexec.channels import CONTROL, OUTPUT, WINDOW, Channel, SocketChannel
from sleighexec.polling import READ, WRITE, Poller
from sleighexec.streams import Stream

FRAME = struct.Struct("!BxxxII")
DATA, CREDIT, OPEN, CLOSE, BEAT = range(1, 6)
CHUNK = 64 * 1024  # bytes of one DATA frame at most: a small one waits no longer than for that
AT_ONCE = 256 * 1024  # bytes taken from the stream at once
MANY = 8  # frames for the stream after which no more is read in a round
BEAT_SECONDS = 1.0
NEAR_PATIENCE = 5.0  # seconds of silence after which a host counts as lost
FAR_PATIENCE = 300.0  # …and after which a host gives its client up: a laptop's lid was closed
AGENT_ENDED = "the agent ended"  # why a far end ends in order
END_SECONDS = 2.0  # for what is on its way when a side ends
FEW = "raise `ulimit -n` there, or have fewer workers"  # descriptors


class LinkError(Exception):
    """The other side of a link did something that no relay does, or wants what we cannot do."""


class Relay:
    """One end of a link. Serves until the end of it, in the thread or process that it is given."""

    def __init__(self, stream: Stream, control: socket.socket, output: int, *, far: bool) -> None:
        """`output`: where to take or put prints."""
        self._stream, self._far = stream, far
        self._channels: dict[int, Channel] = {}  # by number
        self._by_descriptor: dict[int, Channel] = {}
        # Those that are to be looked at before we wait: what they wait for may have changed. There
        # may be hundreds of channels, and a message concerns one of them.
        self._changed: dict[Channel, None] = {}
        self._full: dict[Channel, None] = {}  # those whose descriptor has not taken all
        ends = {stream.read_end, stream.write_end}
        kind = None if all(map(_can_wait_for, ends)) else select.poll
        self._poller = Poller(kind)
        self._poller_full = Poller(kind)  # the same while the stream is full: nothing to be read
        self._control = SocketChannel(CONTROL, control)
        self._add(self._control)
        self._add(Channel(OUTPUT, output))
        self._numbers = OUTPUT
        self._turns = 0  # of channels that were read
        self._out: deque[memoryview] = deque()  # for the stream
        self._head = b""  # of a frame that is not complete
        self._rest, self._channel = 0, 0  # bytes to come of the present DATA frame, and its channel
        self._arrived: list[int] = []  # descriptors that go with the next bytes of the control
        self._debts: dict[Channel, int] = {}  # what must leave before the agent's next words
        self._due = 0  # bytes of these words
        self._patience = FAR_PATIENCE if far else math.inf  # the other side may take long to begin
        self._heard = self._round_at = time.monotonic()
        self._beaten = -math.inf
        self._gone_since = math.inf  # the other side takes nothing any more
        self._deadline: float | None = None  # of the end
        self.reason = ""  # why it ended
        self.fault = ""  # …if that was no end of the stream, but something that cannot be
        self.silent = False  # …because nothing was heard any more
        self.on_heard: Callable[[], object] = lambda: None  # called at the first sign
        self._watch_stream()

    # ------------------------------------------------------------------ the loop

    def serve(self) -> str:
        """Carry bytes until one side ends; why it did."""
        try:
            while not self._over():
                self._round()
        except OSError as error:
            self._end(f"the connection broke: {error}")
        except LinkError as error:
            self.fault = str(error)
            self._end(f"the connection broke: {error}")
        finally:
            for channel in self._channels.values():
                if channel is not self._control or self._far:  # the near one's owner ends it last
                    channel.close()
            for descriptor in self._arrived:
                os.close(descriptor)
            self.forget()
        return self.reason

    def forget(self) -> None:
        """Close what is ours alone. In a forked child: no more than that."""
        self._poller.close()
        self._poller_full.close()

    def _over(self) -> bool:
        """Whether the end has come and nothing is on its way any more, or for too long."""
        if self._deadline is None:
            return False
        waiting = self._out if self._far else self._full
        return not waiting or time.monotonic() >= self._deadline

    def _end(self, reason: str) -> None:
        """Begin to end."""
        if self._deadline is None:
            self.reason = reason
            self._deadline = time.monotonic() + END_SECONDS
            self._changed.update(dict.fromkeys(self._channels.values()))
            self._watch_stream()

    def _round(self) -> None:
        before = time.monotonic()
        if before - self._round_at > 2 * BEAT_SECONDS:
            # We were late ourselves (stopped, or another thread kept the interpreter): what the
            # other side has sent meanwhile is still to be read, so it is not silent.
            self._heard = before
        self._round_at = before
        self._beat(before)
        self._send()
        free = not self._out  # while the stream is full, nothing more is read for it
        self._watch()
        next_ = min(self._beaten + BEAT_SECONDS, self._heard + self._patience)
        pending = self._stream.pending()
        wait = (self._poller if free else self._poller_full).wait
        ready = [at for at, _ in wait(0 if pending else max(0, next_ - before) + 0.001)]
        if self._deadline is None:
            if pending or self._stream.read_end in ready:
                self._hear()
            if free:
                self._look([self._by_descriptor[at] for at in ready if at in self._by_descriptor])
        for channel in [*self._full]:
            self._write(channel)
        self._send()

    # ------------------------------------------------------------------ what is waited for

    def _add(self, channel: Channel) -> None:
        self._channels[channel.number] = self._by_descriptor[channel.descriptor] = channel
        self._changed[channel] = None

    def _watch(self) -> None:
        """Tell the poll objects what the channels wait for now, as far as that has changed."""
        for channel in (*self._changed, *self._full):
            reads = READ if self._may_read(channel) else 0
            writes = WRITE if channel.waiting and self._may_write(channel) else 0
            if channel.watched != (reads, writes):
                self._register(channel.descriptor, reads | writes, writes)
                channel.watched = reads, writes
        self._changed.clear()

    def _watch_stream(self) -> None:
        stream = self._stream
        reads = READ if self._deadline is None else 0
        self._register(stream.read_end, reads, reads)
        both = reads if stream.write_end == stream.read_end else 0
        self._poller_full.watch(stream.write_end, both | WRITE)

    def _register(self, descriptor: int, events: int, events_full: int) -> None:
        """Who waits for nothing is not registered: a hang-up would be told for ever."""
        for poller, wanted in ((self._poller, events), (self._poller_full, events_full)):
            if wanted:
                with contextlib.suppress(PermissionError):  # a file, which takes all at once
                    poller.watch(descriptor, wanted)
            else:
                poller.leave(descriptor)

    def _may_read(self, channel: Channel) -> bool:
        if channel.credit <= 0 or channel.ending or self._deadline is not None:
            return False
        if channel.number == OUTPUT:
            return self._far
        return channel is not self._control or not self._debts

    def _may_write(self, channel: Channel) -> bool:
        return all(other.ended or other.written >= count for other, count in channel.waiting[0][2])

    def _beat(self, now: float) -> None:
        """Give a sign, and see whether the other side has given one."""
        if now - self._beaten >= BEAT_SECONDS:
            self._beaten = now
            if not self._out:  # else something goes out anyway, as soon as it can
                self._put(BEAT, 0, 0)
        if now - self._heard > self._patience:
            self._out.clear()
            self.silent = True
            self._end(f"no sign of life for {self._patience:.0f} s")

    # ------------------------------------------------------------------ from our sockets

    def _look(self, ready: list[Channel]) -> None:
        """Read our sockets, one chunk of each; the agent's after what its workers have written."""
        control = self._control
        if self._due and not self._debts:
            limit, self._due = self._due, 0
            self._take(control, limit)
        elif control in ready and self._may_read(control):
            if self._far:
                self._mark()
            else:
                self._take(control, min(CHUNK, control.credit))
        if len(ready) > 1:  # who was read last comes last
            ready.sort(key=attrgetter("turn"))
        for channel in ready:
            if channel is not control and not channel.ended and self._may_read(channel):
                self._turns = channel.turn = self._turns + 1
                self._take(channel, min(CHUNK, channel.credit))
                if len(self._out) > MANY:
                    return

    def _mark(self) -> None:
        """The agent has said something: first comes all that its workers have written until now."""
        self._due = min(_readable(self._control.descriptor), self._control.credit, CHUNK) or 1
        for channel in self._channels.values():
            if channel is not self._control and not channel.ending and channel.number != OUTPUT:
                count = _readable(channel.descriptor)
                if count:
                    self._debts[channel] = count
        self._changed[self._control] = None
        if not self._debts:
            limit, self._due = self._due, 0
            self._take(self._control, limit)

    def _take(self, channel: Channel, limit: int) -> None:
        try:
            data, descriptors = channel.read(limit)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        self._changed[channel] = None
        if channel in self._debts:
            self._debts[channel] -= len(data)
            if self._debts[channel] <= 0 or not data:
                self._settle(channel)
        for descriptor in descriptors:
            self._numbers += 1
            self._add(SocketChannel(self._numbers, socket.socket(fileno=descriptor)))
            self._put(OPEN, self._numbers, 0)
        if data:
            channel.credit -= len(data)
            self._put(DATA, channel.number, len(data), data)
        elif channel is self._control:
            self._end(AGENT_ENDED if self._far else "it was closed here")
        elif channel.number == OUTPUT:
            channel.ending = True
        else:
            self._put(CLOSE, channel.number, 0)
            self._drop(channel)

    def _settle(self, channel: Channel) -> None:
        """The agent's next words need not wait for it."""
        if self._debts.pop(channel, None) is not None:
            self._changed[self._control] = None

    def _drop(self, channel: Channel) -> None:
        self._register(channel.descriptor, 0, 0)  # before its number is used again
        self._settle(channel)
        self._changed.pop(channel, None)
        self._full.pop(channel, None)
        self._by_descriptor.pop(channel.descriptor, None)
        self._channels.pop(channel.number, None)
        channel.close()

    # ------------------------------------------------------------------ to the stream

    def _put(self, kind: int, channel: int, number: int, data: bytes = b"") -> None:
        self._out.append(memoryview(FRAME.pack(kind, channel, number) + data))

    def _send(self) -> None:
        while self._out:
            try:
                sent = self._stream.write(self._out[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._out.clear()
                # Where the other side has gone, its last words may be there still, and its end.
                if not isinstance(error, BrokenPipeError) or self._is_late():
                    self._end(f"the connection broke: {error}")
                return
            if sent < len(self._out[0]):
                self._out[0] = self._out[0][sent:]
                return
            self._out.popleft()

    def _is_late(self) -> bool:
        """Whether the other side has been gone for long, and its end was not seen."""
        now = time.monotonic()
        self._gone_since = min(self._gone_since, now)
        return now - self._gone_since > END_SECONDS

    # ------------------------------------------------------------------ from the stream

    def _hear(self) -> None:
        try:
            data = self._stream.read(AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        if not data:
            self._out.clear()
            self._end("the connection ended")
            return
        self._heard = time.monotonic()
        if self._patience == math.inf:
            self._patience = NEAR_PATIENCE
            self.on_heard()
        view = memoryview(data)
        while view:
            if self._rest:
                part, view = view[: self._rest], view[self._rest :]
                self._rest -= len(part)
                self._pass_on(part)
                continue
            need = FRAME.size - len(self._head)
            self._head += view[:need]
            view = view[need:]
            if len(self._head) == FRAME.size:
                kind, channel, number = FRAME.unpack(self._head)
                self._head = b""
                self._do(kind, channel, number)

    def _do(self, kind: int, number: int, count: int) -> None:
        channel = self._channels.get(number)
        if kind == DATA and count <= CHUNK:
            self._channel, self._rest = number, count
        elif kind == CREDIT:
            if channel is not None:
                channel.credit = min(channel.credit + count, WINDOW)
                self._changed[channel] = None
        elif kind == OPEN and self._far and channel is None:
            try:
                ours, theirs = socket.socketpair()
            except OSError as error:
                raise LinkError(f"no more workers can be here ({error}): {FEW}") from error
            self._add(SocketChannel(number, ours))
            self._arrived.append(theirs.detach())
        elif kind == CLOSE and number > OUTPUT:
            if channel is not None:
                channel.ending = True
                self._settle(channel)
                self._changed[channel] = None
                if not channel.waiting:
                    self._drop(channel)
        elif kind != BEAT:
            raise LinkError(f"a frame of kind {kind} for channel {number} does not belong here")

    def _pass_on(self, data: memoryview) -> None:
        """Bytes for one of our sockets."""
        channel = self._channels.get(self._channel)
        if channel is None or channel.ending:
            return  # it was closed here meanwhile
        channel.received += len(data)
        if channel.received - channel.granted > WINDOW:
            raise LinkError("more bytes came than were asked for")
        descriptors: tuple[int, ...] = ()
        before: tuple[tuple[Channel, int], ...] = ()
        if channel is self._control:
            descriptors, self._arrived = tuple(self._arrived), []
            if not self._far:
                before = tuple((c, c.received) for c in self._full if c is not channel)
        self._full[channel] = None
        channel.waiting.append((data, descriptors, before))
        if len(channel.waiting) == 1:
            self._write(channel)

    def _write(self, channel: Channel) -> None:
        """Give a socket what it takes now, and ask for as much again."""
        try:
            while channel.waiting and self._may_write(channel):
                data, descriptors, before = channel.waiting[0]
                sent = channel.write(data, descriptors)
                channel.written += sent
                if sent < len(data):
                    channel.waiting[0] = data[sent:], (), before
                else:
                    channel.waiting.popleft()
        except (BlockingIOError, InterruptedError):
            pass
        except (OSError, ValueError):  # nobody reads it any more
            if channel.number == OUTPUT:
                channel.written = channel.received
                channel.waiting.clear()
            elif channel is self._control:
                self._end(AGENT_ENDED if self._far else "it was closed here")
                return
            else:
                self._put(CLOSE, channel.number, 0)
                self._drop(channel)
                return
        if channel.written - channel.granted >= WINDOW // 4:
            self._put(CREDIT, channel.number, channel.written - channel.granted)
            channel.granted = channel.written
        if not channel.waiting:
            self._full.pop(channel, None)
            self._changed[channel] = None
            if channel.ending and channel.number > OUTPUT:
                self._drop(channel)


def _can_wait_for(descriptor: int) -> bool:
    """Whether `epoll` can, where there is one: it cannot wait for a file."""
    poller = Poller()
    try:
        poller.watch(descriptor, READ)
        return True
    except PermissionError:
        return False
    finally:
        poller.close()


def _readable(descriptor: int) -> int:
    """How many bytes a socket or pipe holds for us."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]
