"""`sleighexec worker`: this machine joins the pool of an executor on another one.

    connection file ─▶ TLS, handshake as a worker ─▶ introduction ─▶ outpost: relay, and the agent

The executor starts workers here when it has calls for them. The first SIGTERM or Ctrl-C asks it to
let us go: workers end after their present calls, and then we do. The second one ends all at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path

from sleighexec import agent, introduction
from sleighexec.address import TLS, Address, find, parse
from sleighexec.dial import reach
from sleighexec.errors import ConnectError
from sleighexec.hints import Any
from sleighexec.importer import MINOR
from sleighexec.outpost import agent_status, fork_agent
from sleighexec.relay import AGENT_ENDED, Relay
from sleighexec.session import WORKER
from sleighexec.tlsstream import TlsStream
from sleighexec.version import __version__

# What the agent gets at the first request, the second, and later ones.
WAYS_TO_LEAVE = (signal.SIGTERM, agent.AT_ONCE, signal.SIGKILL)


def join(
    where: str,
    workers: int,
    resources: dict[str, int],
    say: Callable[[str], object],
) -> int:
    """Be part of a pool until it ends, or we are to; the exit status.

    Args:
        where: The URL of the executor, if its connection file is in our run directory; or such a
            file; or "-", a connection file on our standard input.
        workers: How many at most.
        resources: What each of them has.
        say: Called with a line for people.

    Raises:
        ConnectError, AuthenticationError: We cannot join.
    """
    address = _address(where)
    sock, rest = reach(address, WORKER)
    try:
        facts = {"release": __version__, "python": MINOR, "host": os.uname().nodename}
        sock.settimeout(introduction.SECONDS)
        introduction.say(sock, {**facts, "workers": workers, "resources": resources})
        answer, rest = introduction.hear(sock, rest)
        if "refused" in answer:
            raise ConnectError(f"{address.url} refuses: {answer['refused']}")
    except OSError as error:
        sock.close()
        if isinstance(error, ConnectError):
            raise
        raise ConnectError(f"{address.url} does not let us join: {error}") from error
    return _serve(address.url, sock, rest, say)


def _address(where: str) -> Address:
    if where == "-":
        address = parse(sys.stdin.read(), "standard input", role=WORKER)
    elif "://" in where or Path(where).exists():
        address = find(where, WORKER)
    else:
        raise ConnectError(f"{where!r} is neither a URL nor a connection file")
    if not address.url.startswith(TLS):
        raise ConnectError(f"{address.url} is no executor that listens: see SleighExecutor.listen")
    return address


def _serve(url: str, sock: Any, rest: bytes, say: Callable[[str], object]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, agent.POLITE)  # until both of us are ready for them
    ours, prints, child = fork_agent(sock.fileno())
    if not child:
        # What is called __main__ in a worker belongs to the caller.
        sys.modules["__main__"] = types.ModuleType("__main__")
        agent.main(polite=True)
        raise SystemExit
    asked = 0

    def leave(*_: object) -> None:
        nonlocal asked
        times, asked = asked, asked + 1  # first of all: the next signal may come while we say so
        if not times:
            say("leaving after the present calls; once more to leave at once")
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.kill(child, WAYS_TO_LEAVE[min(times, 2)])

    for number in agent.POLITE:
        signal.signal(number, leave)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, agent.POLITE)
    say(f"joined {url}")
    stream = TlsStream(sock, rest)
    reason = Relay(stream, ours, prints, far=True).serve()
    status = agent_status(child)
    stream.close()
    say("left" if asked else f"it is over: {reason}")
    return status if reason == AGENT_ENDED else status or 1
