"""What a relay carries: descriptors of its own side, each with what still waits for it.

Bounds are counted in bytes: `credit` is what may still be sent to the other side, and what it has
sent us is `received`, of which `written` has found its way and `granted` was asked for again.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections import deque

CONTROL, OUTPUT = 0, 1  # the channels that are always there
WINDOW = 2 * 1024 * 1024  # bytes of a channel on their way, or waiting at the other side
PIPE = 4096  # bytes that a pipe takes at once when it says that it is writable
CMSG_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
RIGHTS = socket.CMSG_SPACE(16 * array.array("i").itemsize)

# Bytes, the descriptors that go with the first of them, and what must have been written before.
Item = tuple[memoryview, tuple[int, ...], "tuple[tuple[Channel, int], ...]"]


class Channel:
    """One descriptor of this side and its way to the other."""

    def __init__(self, number: int, descriptor: int) -> None:
        self.number, self.descriptor = number, descriptor
        self.credit = WINDOW  # bytes that we may send
        self.waiting: deque[Item] = deque()  # what the descriptor did not take yet
        self.received = self.written = self.granted = 0  # bytes for our descriptor, in all
        self.ending = False  # the other side has closed it: it ends when all is written
        self.ended = False
        self.watched = 0, 0  # what it is watched for, to be read and to be written
        self.turn = 0  # when it was read last

    def read(self, limit: int) -> tuple[bytes, list[int]]:
        return os.read(self.descriptor, limit), []

    def write(self, data: memoryview, descriptors: tuple[int, ...]) -> int:
        if not select.select([], [self.descriptor], [], 0)[1]:
            raise BlockingIOError
        return os.write(self.descriptor, data[:PIPE])

    def close(self) -> None:
        self.ended = True
        for _, descriptors, _ in self.waiting:
            for descriptor in descriptors:
                os.close(descriptor)
        self.waiting.clear()


class SocketChannel(Channel):
    """A channel whose descriptor is a Unix socket."""

    def __init__(self, number: int, sock: socket.socket) -> None:
        super().__init__(number, sock.fileno())
        sock.setblocking(False)
        self._socket = sock

    def read(self, limit: int) -> tuple[bytes, list[int]]:
        if self.number != CONTROL:
            return self._socket.recv(limit), []
        data, ancillary, *_ = self._socket.recvmsg(limit, RIGHTS, CMSG_CLOEXEC)
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                whole = len(content) - len(content) % descriptors.itemsize
                descriptors.frombytes(content[:whole])
        return data, list(descriptors)

    def write(self, data: memoryview, descriptors: tuple[int, ...]) -> int:
        if not descriptors:
            return self._socket.send(data)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        sent = self._socket.sendmsg([data], rights)
        for descriptor in descriptors:
            os.close(descriptor)
        return sent

    def close(self) -> None:
        super().close()
        self._socket.close()
