"""What a process that an agent has just forked does to become a worker."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import resource
import signal
import socket

from sleighexec.hints import Any
from sleighexec.journal import Journal
from sleighexec.resources import visible
from sleighexec.segments import reachable
from sleighexec.worker import Worker

DUMP = signal.SIGUSR2  # has a worker write the stacks of its threads to its stderr
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)  # that a worker may have
# What numerical libraries go by when they are loaded: BLAS in all its kinds, OpenMP, numexpr.
THREADS = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "VECLIB")


def raise_limit() -> None:
    """For who has descriptors of each worker: let us have as many as the system allows."""
    _, most = DESCRIPTORS
    with contextlib.suppress(OSError, ValueError):  # not all systems take "as many as you like"
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def begin(
    setup: dict[str, Any], descriptor: int, stderr: int, life_line: int, journal: Journal
) -> Worker:
    """Become one.

    Args:
        setup: See `messages.Start`.
        descriptor: Of its connection.
        stderr: Where it is to write to.
        life_line: A pipe whose other end only the agent has.
    """
    os.setsid()  # a Ctrl-C in the terminal is the client's business
    _end_with(life_line)
    resource.setrlimit(resource.RLIMIT_NOFILE, DESCRIPTORS)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # Not SIG_IGN, which the children of a task would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(stderr, 2)
    if not setup["pass_on"]:
        os.dup2(stderr, 1)
    os.close(null)
    os.close(stderr)
    for name, value in setup["environ"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.environ.update(visible(setup["slots"], os.environ))
    _share_cpus(setup["threads"], setup["beside"])
    with contextlib.suppress(OSError):
        os.chdir(setup["cwd"])
    faulthandler.enable(file=2)
    faulthandler.register(DUMP, file=2)
    owner, keeper = map(_reached, (setup["memory"], setup["depot"]))
    return Worker(socket.socket(fileno=descriptor), journal, owner, keeper)


def _end_with(life_line: int) -> None:
    """Have the kernel kill us and what our calls start when the agent, by any death, closes a pipe.

    Who runs C code does not see that its connection ends. Only Linux does this; a pipe for each of
    us, since it is the end of a pipe that knows whom to kill.
    """
    os.set_blocking(life_line, False)
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(life_line, fcntl.F_SETOWN, -os.getpid())  # our process group
        fcntl.fcntl(life_line, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(life_line, fcntl.F_GETFL)
        fcntl.fcntl(life_line, fcntl.F_SETFL, flags | os.O_ASYNC)
    with contextlib.suppress(BlockingIOError):
        os.read(life_line, 1)
        os._exit(1)  # it has died before


def _reached(memory: list[Any] | None) -> int | None:
    """The process id of an owner of segments, if we can have them."""
    return memory[0] if memory and reachable(*memory) else None


def _share_cpus(threads: int | None, beside: int) -> None:
    """Tell numerical libraries how many threads to use, unless the user has told them."""
    count = max(1, CPUS // beside) if threads is None else threads
    if count:
        for name in THREADS:
            kind = "MAXIMUM" if name == "VECLIB" else "NUM"
            os.environ.setdefault(f"{name}_{kind}_THREADS", str(count))
