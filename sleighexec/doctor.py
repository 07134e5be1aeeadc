"""What sleighexec needs of this machine and of others, and whether it is there.

    checks ─▶ Finding (what was looked at, whether it is well, in words) ─▶ `sleighexec doctor`

Each check tries the thing itself: a memory file is made, a worker started, a host logged in to.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from sleighexec.address import run_directory
from sleighexec.errors import SleighError
from sleighexec.executor import SleighExecutor

SECONDS = 30.0  # for a worker or a host to answer
LIBRARIES = ("cloudpickle", "paramiko", "tblib")


class Finding(NamedTuple):
    """The outcome of one check."""

    check: str
    well: bool
    text: str


def examine(hosts: Iterable[str] = ()) -> Iterator[Finding]:
    """Look at this machine, and log in to each of these hosts as `nodes=[host]` would."""
    yield _finding("python", _python)
    yield _finding("libraries", _libraries)
    yield _finding("run directory", lambda: str(run_directory()))
    yield _finding("shared memory", _shared_memory)
    yield _finding("a worker here", lambda: _worker(SleighExecutor(1)))
    yield _finding("ssh", _ssh)
    for host in hosts:
        yield _finding(f"a worker on {host}", partial(_host, host))


def _finding(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, look())
    except Exception as error:
        text = str(error) if isinstance(error, SleighError) else f"{type(error).__name__}: {error}"
        return Finding(check, False, text.replace("\n", "; "))


def _python() -> str:
    if os.name != "posix":
        raise OSError(f"a POSIX system is needed, this is {platform.system()}")
    return f"{_version()}, {sys.executable}"


def _libraries() -> str:
    return ", ".join(f"{name} {version(name)}" for name in LIBRARIES)


def _shared_memory() -> str:
    if not hasattr(os, "memfd_create"):
        return "none on this system: big arrays go through sockets, which is slower"
    descriptor = os.memfd_create("sleighexec-doctor")
    try:
        os.truncate(descriptor, 1024 * 1024)
    finally:
        os.close(descriptor)
    return "memory files carry big arrays to local workers"


def _ssh() -> str:
    """Only what there is: who has no other machines needs none of it."""
    folder = Path.home() / ".ssh"
    there = [name for name in ("config", "known_hosts") if (folder / name).exists()]
    reader = "OpenSSH" if shutil.which("ssh") else "paramiko, without OpenSSH"
    agent = "an agent" if os.environ.get("SSH_AUTH_SOCK") else "no agent"
    return (
        f"configuration read by {reader}; {agent}; in {folder}: {' and '.join(there) or 'nothing'}"
    )


def _host(host: str) -> str:
    return _worker(SleighExecutor(nodes=[host], min_workers=1, start_timeout=SECONDS))


def _worker(made: SleighExecutor) -> str:
    began = time.monotonic()
    with made as executor:
        answer: Any = executor.submit(_version).result(SECONDS)
        return f"{answer}, answered after {time.monotonic() - began:.1f} s"


def _version() -> str:
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
