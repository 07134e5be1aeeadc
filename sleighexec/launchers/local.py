"""Workers on this machine: the agent is a child of this process, joined by a socket pair."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from sleighexec.launchers.base import Handle
from sleighexec.resources import needs_of


class _LocalHandle:
    def __init__(self, process: subprocess.Popen[bytes], stream: socket.socket) -> None:
        self._process, self.stream = process, stream

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(str(error)) from None


@dataclass(frozen=True)
class Local:
    """Workers on this machine.

    Attributes:
        workers: How many; None means as many as the executor's `max_workers` says.
        prefix: Words before the command of the agent, such as `("nice", "-n", "5")`.
        resources: What each of these workers has, such as `{"gpu": 1}`.
        shared_memory: Whether big buffers travel by memory that workers share with this process,
            where the system has it, instead of through sockets.
    """

    workers: int | None = None
    prefix: tuple[str, ...] = ()
    resources: Mapping[str, int] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        needs_of(self.resources)

    shared_memory: bool = True

    def launch(self, command: list[str], environ: dict[str, str]) -> Handle:
        ours, theirs = socket.socketpair()
        try:
            # A session of its own: a Ctrl-C in the terminal is not for the workers.
            process = subprocess.Popen(
                [*self.prefix, *command],
                stdin=theirs.fileno(),
                env=os.environ | environ,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return _LocalHandle(process, ours)
