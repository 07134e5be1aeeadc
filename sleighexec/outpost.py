"""The far end of a link: the process on another machine whose child is the agent.

    ssh, srun, docker ── stdin, stdout ── outpost ══ socket ══ agent ── fork ─▶ workers

It carries bytes and gives the sign of life, and never runs a user's code. When the link ends, by
any death at the other side, the agent's socket does, and the agent takes its workers with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time

from sleighexec import agent
from sleighexec.newborn import raise_limit
from sleighexec.relay import END_SECONDS, Relay
from sleighexec.streams import Pipes


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
    ours, prints, child = fork_agent(read, write)
    if not child:
        agent.main()
        return
    relay = Relay(Pipes(read, write), ours, prints, far=True)
    relay.serve()
    if relay.fault:  # the other side only sees that we end
        with contextlib.suppress(OSError):
            os.write(2, f"sleighexec: {relay.fault}\n".encode())
    os.close(read)
    os.close(write)
    os._exit(agent_status(child))


def fork_agent(*not_for_it: int) -> tuple[socket.socket, int, int]:
    """Fork the process that is to be the agent.

    Returns in the parent: our end of the agent's connection, where its workers print, its process
    id. In the child, which is to call `agent.main`: the last of them is 0.

    Args:
        not_for_it: Descriptors that it is to close.
    """
    ours, theirs = socket.socketpair()
    prints, printed = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child:
        theirs.close()
        os.close(printed)
        raise_limit()
        return ours, prints, child
    ours.close()
    for descriptor in (*not_for_it, prints):
        os.close(descriptor)
    os.dup2(theirs.fileno(), 0)
    os.dup2(printed, 1)
    theirs.close()
    os.close(printed)
    sys.argv = ["sleighexec-agent", str(parent)]
    return ours, prints, 0


def agent_status(child: int) -> int:
    """Wait for the agent, which ends by itself; how it did."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 1
