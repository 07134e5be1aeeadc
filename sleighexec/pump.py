"""A connection with TLS as two descriptors, which is what a relay takes.

thread "sleigh-tls-in"   connection ─▶ socket pair ─▶ relay
thread "sleigh-tls-out"  relay ─▶ socket pair ─▶ connection
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

from sleighexec.tls import TlsSocket

PIECE = 64 * 1024  # bytes read at a time
END_SECONDS = 2.0  # for what is on its way, and for the other side to hang up too


class Pump:
    """See `sleighexec.launchers.link.Streams`."""

    def __init__(self, sock: TlsSocket, rest: bytes, name: str) -> None:
        """`rest`: what has been read of it already."""
        sock.setblocking(True)
        self._sock, self._rest = sock, rest
        self._ours, self._theirs = socket.socketpair()
        self.read, self.write = self._ours.fileno(), os.dup(self._ours.fileno())
        self._in, self._out = [
            threading.Thread(target=work, name=f"sleigh-tls-{way}-{name}", daemon=True)
            for way, work in (("in", self._carry_in), ("out", self._carry_out))
        ]
        self._in.start()
        self._out.start()

    def _carry_in(self) -> None:
        with contextlib.suppress(OSError):
            self._theirs.sendall(self._rest)
            while data := self._sock.recv(PIECE):
                self._theirs.sendall(data)
        with contextlib.suppress(OSError):
            self._theirs.shutdown(socket.SHUT_WR)

    def _carry_out(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._theirs.recv(PIECE):
                self._sock.sendall(data)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        for sock in (self._sock, self._theirs):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> tuple[int | None, str]:
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)
        self._out.join(END_SECONDS)
        self._in.join(END_SECONDS)  # the other side has read our last words when it hangs up
        self.kill()
        self._out.join()
        self._in.join()
        os.close(self.write)
        for sock in (self._ours, self._theirs, self._sock):
            sock.close()
        return None, ""

    def forget(self) -> None:
        for sock in (self._ours, self._theirs, self._sock):
            sock.close()
        with contextlib.suppress(OSError):
            os.close(self.write)
