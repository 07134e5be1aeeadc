"""Workers on this machine: the agent is a child of this process, joined by a socket pair."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping

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


class Local:
    """Workers on this machine.

    Attributes:
        workers: How many; None means as many as the executor's `max_workers` says.
        prefix: Words before the command of the agent, such as `("nice", "-n", "5")`.
        resources: What each of these workers has, such as `{"gpu": 1}`.
        shared_memory: Whether big buffers travel by memory that workers share with this process,
            where the system has it, instead of through sockets.
    """

    # No dataclass, as the other launchers: that module takes longer to load than most pools
    # need to begin, and all pools need this one.

    workers: int | None
    prefix: tuple[str, ...]
    resources: Mapping[str, int] | None
    shared_memory: bool

    def __init__(
        self,
        workers: int | None = None,
        prefix: tuple[str, ...] = (),
        resources: Mapping[str, int] | None = None,
        shared_memory: bool = True,
    ) -> None:
        needs_of(resources)
        self.__dict__.update(
            workers=workers, prefix=prefix, resources=resources, shared_memory=shared_memory
        )

    def __repr__(self) -> str:
        return f"Local({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.workers, self.prefix, self.shared_memory))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a launcher is not changed: make another Local with this {name}")

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
