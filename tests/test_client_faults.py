"""What happens to the caller's own process: Ctrl-C twice, a stop, a clock that jumps."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sleighexec import SleighExecutor
from tests.conftest import wait_for
from tests.test_faults import CLIENT, gone, parent, read_pids, run_script

PATIENCE = 20
SOURCES = sorted((Path(__file__).parents[1] / "sleighexec").rglob("*.py"))


def test_a_second_ctrl_c_ends_a_client_that_is_about_to_end() -> None:
    rest = "with ex:\n        futures[0].result()"
    with run_script(CLIENT.format(rest=rest)) as client:
        pids = read_pids(client)
        time.sleep(0.2)  # so that it waits: what it does then is what is tested
        for _ in range(5):
            client.send_signal(signal.SIGINT)
            time.sleep(0.002)
        assert client.wait(PATIENCE) != 0
        wait_for(lambda: gone(pids), "the workers end")


GOES_ON = """
    import os, sys, time
    from sleighexec import SleighExecutor
    with SleighExecutor(2) as ex:
        print(os.getpid(), *[ex.submit(os.getpid).result() for _ in range(2)], *ex._processes)
        ex.workspace.store("x", 1)
        print("ready", flush=True)
        futures = [ex.submit(pow, 2, n) for n in range(2000)] + [ex.submit(time.sleep, 0.05)]
        list(ex.map(abs, range(2000)))
        sys.stdin.readline()
        assert [f.result() for f in futures[:-1]] == [2 ** n for n in range(2000)]
        assert futures[-1].result() is None and ex.workspace.fetch("x") == 1
        assert len(ex.submit(bytes, 1_000_000).result()) == 1_000_000
    print("done")
"""


@pytest.mark.parametrize("everybody", [False, True], ids=["client", "machine"])
def test_a_stop_is_no_death(everybody: bool) -> None:
    """Ctrl-Z, a debugger; or the lid of the machine."""
    with run_script(GOES_ON, stdin=subprocess.PIPE) as program:
        pids = read_pids(program)
        stopped = {program.pid}
        if everybody:
            workers = pids - {program.pid}
            stopped |= workers | {parent(pid) for pid in workers}
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.7)  # longer than any look of theirs at each other
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        out, err = program.communicate("go\n", timeout=60)
        assert (out.split(), err) == (["done"], "")


def test_a_wall_clock_that_jumps_disturbs_nobody(
    executor: SleighExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 3600.0 * next(hours))
    assert list(executor.map(abs, range(100), timeout=PATIENCE)) == list(range(100))
    assert executor.submit(abs, -1).result(PATIENCE) == 1
    with pytest.raises(TimeoutError):
        executor.workspace.fetch("x", timeout=0.05)


@pytest.mark.once
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_goes_by_the_wall_clock(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("time", "time"), f"line {node.lineno}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            assert "time" not in [alias.name for alias in node.names], f"line {node.lineno}"
