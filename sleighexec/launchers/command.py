"""Workers behind any command that carries stdin and stdout: srun, docker, kubectl, ssh itself."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sleighexec.hints import Any
from sleighexec.launchers import boot
from sleighexec.launchers.base import Handle
from sleighexec.launchers.link import TAIL, Link
from sleighexec.resources import needs_of
from sleighexec.streams import Pipes

AGENT = "{agent}"
PIPE = 4096  # bytes that a pipe takes at once when it says that it is writable
END_SECONDS = 1.0  # for a command to end when its stdin has


class ProcessStreams(Pipes):
    """A child process and its three pipes. See `sleighexec.launchers.link.FarEnd`."""

    def __init__(self, words: Sequence[str], name: str) -> None:
        # A session of its own: a Ctrl-C in the terminal is not for the workers.
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self._pipes: list[Any] = [
            self._process.stdin,
            self._process.stdout,
            self._process.stderr,
        ]
        write_end, read_end, self._stderr = [pipe.fileno() for pipe in self._pipes]
        super().__init__(read_end, write_end)
        self._tail = bytearray()
        self._woken, self._waker = os.pipe()
        self._reader = threading.Thread(
            target=self._keep_tail, name=f"sleigh-stderr-{name}", daemon=True
        )
        self._reader.start()

    def _keep_tail(self) -> None:
        """Thread: keep the end of what it writes to stderr, and pass it on to ours."""
        stderr = self._stderr
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

    def kill(self) -> None:
        # Not SIGKILL: srun and its kind have something to end elsewhere. If it stays, see close.
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)

    def close(self) -> tuple[int | None, str]:
        process = self._process
        self._pipes[0].close()
        status = None
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                status = process.wait(END_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self._signal(number)
        if status is None:
            status = process.wait()
        self._reader.join(0.1)
        os.write(self._waker, b"!")
        self._reader.join()
        for descriptor in (self._woken, self._waker):
            os.close(descriptor)
        for pipe in self._pipes:
            pipe.close()
        return status, self._tail.decode("utf-8", "replace")

    def forget(self) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.close()
        for descriptor in (self._woken, self._waker):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def pass_on(data: bytes) -> None:
    """Show what a host writes to its stderr; whoever does not read ours loses it."""
    with contextlib.suppress(OSError, ValueError):
        while data and select.select([], [2], [], 0)[1]:
            data = data[os.write(2, data[:PIPE]) :]


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
        cwd: The folder to work in; None: where the command begins.
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
