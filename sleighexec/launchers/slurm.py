"""Workers in jobs of Slurm, with an eye on the walltime.

job 1  ├── calls ──┤ drain_before: present calls end, no new ones │ its time is over
job 2                          asked for when job 1 has ended ─▶ waits in the queue ├── calls …
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sleighexec.launchers.base import Handle
from sleighexec.launchers.command import Command

QUEUE_SECONDS = 14 * 86400.0  # in which a job may wait in the queue, unless it is said otherwise


@dataclass(frozen=True)
class Slurm:
    """Workers in a job of Slurm, which `srun` starts when calls wait for them.

    `Slurm(workers=8, time="02:00:00", partition="long")` is one job on one node. When it is near
    its end, its workers get no more calls and leave after their present ones; if calls still wait
    then, another job begins. Jobs side by side have names of their own:
    `[Slurm(8, name="a"), Slurm(8, name="b")]`.

    Attributes:
        workers: How many workers.
        time: The walltime, as `sbatch --time` takes it ("30", "02:00:00", "1-12"), or a number of
            seconds. None: that of the partition, and we do not know when it ends.
        drain_before: Seconds before the end of the walltime from which on there are no new calls.
        again: Calls that the end of the walltime cuts off all the same are run again, though not
            more than twice; that is no retry, and may have them run in part more than once.
        cpus: For each worker.
        partition, account: As Slurm has them.
        options: More words for `srun`, such as `("--mem=16G", "--gres=gpu:2")`.
        start_timeout: Seconds in which the job must begin; None: two weeks.
        python, env, prelude, cwd, ship, resources: As of `Command`.
        name: Of the job, and what messages call it.
    """

    workers: int = 1
    time: str | float | None = None
    drain_before: float = 60.0
    again: bool = True
    cpus: int = 1
    partition: str | None = None
    account: str | None = None
    options: tuple[str, ...] = ()
    start_timeout: float | None = None
    python: str | None = None
    env: Mapping[str, str] | None = field(default=None, hash=False)
    prelude: str = ""
    cwd: str | None = None
    ship: str | tuple[str, ...] = "auto"
    name: str = "sleighexec"
    resources: Mapping[str, int] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        object.__setattr__(self, "start_timeout", self.start_timeout or QUEUE_SECONDS)
        if self.lifetime is not None and not 0 <= self.drain_before < self.lifetime:
            raise ValueError(
                f"drain_before is {self.drain_before} s, but a job has {self.lifetime:.0f} s"
            )
        self._command()

    @property
    def host(self) -> str:
        """What messages call it."""
        return self.name

    @property
    def lifetime(self) -> float | None:
        """Seconds that a job has."""
        return seconds(self.time) if isinstance(self.time, str) else self.time

    def words(self) -> list[str]:
        """The command that is started here."""
        return self._command().words()

    def _command(self) -> Command:
        words = ["srun", "-u", "-N1", "-n1", f"-c{self.workers * self.cpus}"]
        words.append(f"--job-name={self.name}")
        if self.lifetime is not None:
            minutes, rest = divmod(int(self.lifetime), 60)
            words.append(f"--time={minutes}:{rest:02}")
        for option in ("partition", "account"):
            if value := getattr(self, option):
                words.append(f"--{option}={value}")
        return Command(
            (*words, *self.options, "{agent}"),
            self.workers,
            self.python,
            self.env,
            self.prelude,
            self.cwd,
            self.ship,
            self.name,
            self.resources,
        )

    def launch(
        self,
        command: list[str],
        environ: dict[str, str],
        *,
        timeout: float = 60,
        delay: float = 0,
    ) -> Handle:
        """Ask for a job, `delay` seconds from now; `command` has no use."""
        return self._command().launch(command, environ, timeout=timeout, delay=delay)


def seconds(time: str) -> float:
    """A walltime as Slurm writes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if match is None:
        raise ValueError(f'a walltime is written like "02:00:00" or "1-12", not {time!r}')
    days, *rest = match.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return float(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds)
