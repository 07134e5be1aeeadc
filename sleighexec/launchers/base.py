"""The seam between the engine and the places where workers can live.

A launcher starts one command, the agent, somewhere, and hands back a stream to it. ssh, `srun`,
`docker run -i` and their kind all carry stdin and stdout, so one transport serves them all.
"""

from __future__ import annotations

from sleighexec.hints import TYPE_CHECKING, Protocol, TypeGuard

if TYPE_CHECKING:
    import socket


LAUNCH_SECONDS = 60.0  # for an agent to answer that was launched, unless it is said otherwise


class Handle(Protocol):
    """A running agent."""

    @property
    def stream(self) -> socket.socket:
        """The stream to the agent: what it reads from stdin and writes back."""

    def kill(self) -> None:
        """End the agent at once, if it has not ended yet."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, when it has ended. Raises TimeoutError when it has not in time."""


class Launcher(Protocol):
    """Starts agents in one kind of place."""

    def launch(self, command: list[str], environ: dict[str, str]) -> Handle:
        """Start `command` with these environment variables changed. Returns without waiting."""


class RemoteLauncher(Protocol):
    """Starts agents on another machine, with a boot of its own. Its handles are Links.

    Attributes:
        host: What messages call the machine.
        ship: See `sleighexec.launchers.command.Command`.
    """

    @property
    def host(self) -> str: ...

    @property
    def ship(self) -> str | tuple[str, ...]: ...

    def launch(
        self,
        command: list[str],
        environ: dict[str, str],
        *,
        timeout: float = 60,
        delay: float = 0,
    ) -> Handle:
        """Start an agent, `delay` seconds from now. Returns without waiting."""


def is_remote(launcher: object) -> TypeGuard[RemoteLauncher]:
    """Whether its workers are on another machine, as far as we know."""
    return hasattr(launcher, "host") and hasattr(launcher, "ship")
