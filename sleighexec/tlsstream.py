"""A connection with TLS as the streams of a link."""

from __future__ import annotations

import contextlib
import socket
import time

from sleighexec.tls import TlsSocket

RECORD = 16 * 1024  # bytes that come at once at most: who asks for as many leaves nothing behind
END_SECONDS = 2.0  # for the other side to hang up too


class TlsStream:
    """See `sleighexec.streams.Stream` and `sleighexec.launchers.link.FarEnd`."""

    def __init__(self, sock: TlsSocket, rest: bytes) -> None:
        """`rest`: what has been read of it already."""
        sock.setblocking(False)
        self._sock, self._rest = sock, rest
        self.read_end = self.write_end = sock.fileno()

    def read(self, limit: int) -> bytes:
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        pieces, count = [self._sock.recv(RECORD)], RECORD
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while len(pieces[-1]) == RECORD and count < limit:  # there is more, most likely
                pieces.append(self._sock.recv(RECORD))
                count += RECORD
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, data: memoryview) -> int:
        return self._sock.send(data)

    def pending(self) -> bool:
        return bool(self._rest) or self._sock.pending() > 0

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> tuple[int | None, str]:
        # What the other side has not read yet is lost if we close while something has come that
        # we have not read. When it hangs up, it has read our last words.
        deadline = time.monotonic() + END_SECONDS
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self._sock.settimeout(left)
                if not self._sock.recv(RECORD):
                    break
        self._sock.close()
        return None, ""

    def forget(self) -> None:
        self._sock.close()
