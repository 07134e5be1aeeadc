"""A process of this machine that carries bytes to another one.

It has a session of its own: a Ctrl-C in the terminal is not for the workers, nor for what carries
their bytes. What it writes to stderr is passed on to ours, and its end is kept for the error.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence

from sleighexec.hints import Any
from sleighexec.launchers.link import TAIL

PIPE = 4096  # bytes that a pipe takes at once when it says that it is writable
END_SECONDS = 1.0  # for a process to end when its stdin has


class Process:
    """A child of ours, with a thread that reads its stderr."""

    def __init__(self, words: Sequence[str], name: str, stdin: Any, stdout: Any) -> None:
        """Start it. `stdin` and `stdout` are as `subprocess.Popen` takes them."""
        self._process = subprocess.Popen(
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self.stdin: Any = self._process.stdin
        self.stdout: Any = self._process.stdout
        self._stderr: Any = self._process.stderr
        self._over = False
        self._tail = bytearray()
        self._woken, self._waker = self._descriptors = list(os.pipe())
        self._reader = threading.Thread(
            target=self._keep_tail, name=f"sleigh-stderr-{name}", daemon=True
        )
        self._reader.start()

    def _keep_tail(self) -> None:
        """Thread: keep the end of what it writes to stderr, and pass it on to ours."""
        stderr = self._stderr.fileno()
        os.set_blocking(stderr, False)
        with selectors.DefaultSelector() as selector:
            selector.register(stderr, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if stderr in ready:
                    data = os.read(stderr, TAIL)
                    if not data:
                        return
                    self._tail += data
                    del self._tail[:-TAIL]
                    pass_on(data)
                elif self._woken in ready:
                    return  # something else holds the pipe open still

    def signal(self, number: int) -> None:
        """Send it a signal, and to all that it has started and left in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not self._over:
                os.killpg(self._process.pid, number)

    def end(self) -> tuple[int, str]:
        """See that it ends, now that its stdin has: its exit status, and the end of its stderr."""
        process = self._process
        status = None
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                status = process.wait(END_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self.signal(number)
        if status is None:
            status = process.wait()
        self.signal(signal.SIGTERM)  # what it has left in the background
        self._over = True  # its number may be given to another one
        self._reader.join(0.1)
        os.write(self._waker, b"!")
        self._reader.join()
        self.forget()
        return status, self._tail.decode("utf-8", "replace")

    def forget(self) -> None:
        """Close our descriptors of it."""
        for pipe in (self.stdin, self.stdout, self._stderr):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        while self._descriptors:
            os.close(self._descriptors.pop())


class Proxy:
    """The command of a ProxyCommand.

    Attributes:
        sock: What the command reads from its stdin and writes to its stdout. It ends when the
            command does.
    """

    def __init__(self, command: str, name: str) -> None:
        # The user's shell and its `exec`, as OpenSSH has it.
        words = [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"]
        self.sock, theirs = socket.socketpair()
        try:
            self._process = Process(words, name, theirs, theirs)
        except BaseException:
            self.sock.close()
            raise
        finally:
            theirs.close()
        self._said: str | None = None

    def kill(self) -> None:
        """End it at once."""
        # Before its connection ends: not all of them end with that, and some complain.
        self._process.signal(signal.SIGTERM)
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # whoever else waits for it wakes up

    def close(self) -> str:
        """See that it ends; the end of what it wrote to stderr. More than once is allowed."""
        if self._said is None:
            self.kill()
            self.sock.close()
            _, self._said = self._process.end()
        return self._said

    def forget(self) -> None:
        """In a forked child: close our copies of its descriptors."""
        self.sock.close()
        self._process.forget()


def pass_on(data: bytes) -> None:
    """Show what a host writes to its stderr; whoever does not read ours loses it."""
    with contextlib.suppress(OSError, ValueError):
        while data and select.select([], [2], [], 0)[1]:
            data = data[os.write(2, data[:PIPE]) :]
