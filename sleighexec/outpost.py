"""The far end of a link: the process on another machine whose child is the agent.

    ssh, srun, docker ── stdin, stdout ── outpost ══ socket ══ agent ── fork ─▶ workers

It carries bytes and gives the sign of life, and never runs a user's code. When the link ends, by
any death at the other side, the agent's socket does, and the agent takes its workers with it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import NoReturn

from sleighexec.relay import END_SECONDS, Relay


def main() -> None:
    """Be the far end: our stdin and stdout are the link, and a child of ours is the agent."""
    # Before anything else runs that might print.
    read, write = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    ours, theirs = socket.socketpair()
    prints, printed = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child:
        theirs.close()
        os.close(printed)
        Relay(read, write, ours, prints, far=True).serve()
        os.close(read)
        os.close(write)
        _leave(child)
    ours.close()
    for descriptor in (read, write, prints):
        os.close(descriptor)
    os.dup2(theirs.fileno(), 0)
    os.dup2(printed, 1)
    theirs.close()
    os.close(printed)
    sys.argv = ["sleighexec-agent", str(parent)]
    from sleighexec.agent import main

    main()


def _leave(child: int) -> NoReturn:
    """Wait for the agent, which ends by itself, and end as it did."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os._exit(1)
