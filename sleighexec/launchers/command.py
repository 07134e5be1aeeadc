"""Workers behind any command that carries stdin and stdout: srun, docker, kubectl, ssh itself."""

from __future__ import annotations

import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sleighexec.launchers import boot
from sleighexec.launchers.base import Handle
from sleighexec.launchers.link import Link
from sleighexec.launchers.process import Process
from sleighexec.resources import needs_of
from sleighexec.streams import Pipes

AGENT = "{agent}"


class ProcessStreams(Pipes):
    """A child process and its pipes. See `sleighexec.launchers.link.FarEnd`."""

    def __init__(self, words: Sequence[str], name: str) -> None:
        self._process = Process(words, name, subprocess.PIPE, subprocess.PIPE)
        super().__init__(self._process.stdout.fileno(), self._process.stdin.fileno())

    def kill(self) -> None:
        # Not SIGKILL: srun and its kind have something to end elsewhere. If it stays, see close.
        self._process.signal(signal.SIGTERM)

    def close(self) -> tuple[int | None, str]:
        self._process.stdin.close()
        return self._process.end()

    def forget(self) -> None:
        self._process.forget()


@dataclass(frozen=True)
class Command:
    """Workers behind a command that runs another one and carries its stdin and stdout.

    `Command("srun -u -n1 {agent}")`, `Command("ssh -T -o BatchMode=yes hippo {agent}")`,
    `Command("docker run --rm -i python:3.11 {agent}", workers=4)`. `{agent}` becomes the word
    `sh`; where it is missing it comes last. Nothing need be installed over there but Python of
    this version.

    Attributes:
        template: The command, as a line that is cut into words as a shell would, or as words.
        workers: How many workers.
        python: The interpreter there; None: the path of this one, else its version, else python3.
        env: Environment variables of the agent and its workers.
        prelude: Lines of shell before anything else, such as `module load python/3.11`.
        cwd: The folder to work in, in which `~` is the home there; None: where the command begins.
        ship: Which modules of the caller workers may have that lack them: "auto", those outside
            of site-packages; or names of packages; or none.
        name: What messages call it; None: the command.
        resources: What each of these workers has, such as `{"gpu": 1}`.
    """

    template: str | tuple[str, ...]
    workers: int = 1
    python: str | None = None
    env: Mapping[str, str] | None = field(default=None, hash=False)
    prelude: str = ""
    cwd: str | None = None
    ship: str | tuple[str, ...] = "auto"
    name: str | None = None
    resources: Mapping[str, int] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        needs_of(self.resources)
        if not isinstance(self.template, str):
            object.__setattr__(self, "template", tuple(self.template))
        if not self.words():
            raise ValueError("the template of a Command is empty")
        boot.opening(self)

    def words(self) -> list[str]:
        """The command that is started here."""
        template = self.template
        words = shlex.split(template) if isinstance(template, str) else list(template)
        if words and not any(AGENT in word for word in words):
            words.append(AGENT)
        return [word.replace(AGENT, "sh") for word in words]

    @property
    def host(self) -> str:
        """What messages call it."""
        return self.name or shlex.join(self.words()[:4])

    def launch(
        self,
        command: list[str],
        environ: dict[str, str],
        *,
        timeout: float = 60,
        delay: float = 0,
    ) -> Handle:
        """Start it, `delay` seconds from now; `command`, made for this machine, has no use."""
        words, host = self.words(), self.host
        return Link(
            host,
            lambda link: ProcessStreams(words, host),
            boot.opening(self),
            timeout=timeout,
            delay=delay,
        )
