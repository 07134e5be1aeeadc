"""The kernel kills a worker since memory is short: for real, in a control group of our own."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sleighexec import SleighExecutor, WorkerLost, WorkerOutOfMemory
from sleighexec.launchers.base import Handle
from sleighexec.launchers.local import Local
from tests.conftest import wait_for

PATIENCE = 60
LIMIT = 256 * 1024**2  # bytes that all processes of the group may have


def make_group() -> Path | None:
    """A control group with little memory; None: none can be made here."""
    name = f"sleighexec-{os.getpid()}"
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kind, path = line.split(":", 2)
        top = Path(f"/sys/fs/cgroup/{kind}")
        for folder in (Path(f"{top}{path}"), top):
            if kind not in ("", "memory"):
                continue
            limit, swap = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
            if not kind:
                limit, swap = "memory.max", "memory.swap.max"
            group = folder / name
            try:
                group.mkdir()
            except OSError:
                continue
            try:
                (group / limit).write_text(str(LIMIT))
                with contextlib.suppress(OSError):
                    (group / swap).write_text("0" if not kind else str(LIMIT))
                (group / "cgroup.procs").open("a").close()
                return group
            except OSError:
                group.rmdir()
    return None


@dataclass(frozen=True)
class InGroup:
    """A launcher of agents in a control group."""

    group: Path
    workers: int | None = None

    def launch(self, command: list[str], environ: dict[str, str]) -> Handle:
        enter = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.group / "cgroup.procs")]
        return Local().launch([*enter, *command], environ)


@pytest.fixture
def group() -> Iterator[Path]:
    group = make_group()
    if group is None:
        pytest.skip("named exception: needs root and a memory control group that can be made")
    yield group

    def is_removed() -> bool:
        with contextlib.suppress(OSError):
            group.rmdir()
        return not group.exists()

    wait_for(is_removed, "processes are left in the control group")


def take(path: str) -> None:
    """Take memory until we are killed."""
    with open(path, "a") as file:
        file.write("x")
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1024)) * 8192)
        time.sleep(0.001)


def test_a_kill_by_the_kernel_for_want_of_memory_is_named_as_such(
    group: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    with SleighExecutor(launcher=InGroup(group, 1)) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        error = executor.options(retries=5).submit(take, str(ran)).exception(PATIENCE)
        assert isinstance(error, WorkerOutOfMemory)
        assert isinstance(error, WorkerLost)
        assert "killed by the kernel since memory ran out" in str(error)
        assert "not tried again" in str(error)
        assert ran.read_text() == "xx"
        assert executor.submit(abs, -1).result(PATIENCE) == 1
