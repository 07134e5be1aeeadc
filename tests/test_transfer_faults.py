"""Workers that die while something big is on its way; and what is too big to travel."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy
import pytest

from sleighexec import SleighExecutor, WorkerLost
from sleighexec.wire import MAX_FRAME
from tests.conftest import alive, wait_for

PATIENCE = 30
BIG = 64 * 1024 * 1024  # bytes: no socket takes as much at once


class Telling:
    """Says where it is pickled, and takes long to travel."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        written = self.path.with_suffix(".part")  # whoever sees the file sees all of it
        written.write_text(str(os.getpid()))
        written.rename(self.path)
        return len, (numpy.zeros(BIG, numpy.uint8),)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_a_worker_killed_amid_its_result_costs_this_call_only(
    executor: SleighExecutor, tmp_path: Path
) -> None:
    list(executor.map(abs, range(10)))
    told = tmp_path / "told"
    victim = executor.submit(Telling, told)
    after = [executor.submit(abs, -n) for n in range(50)]
    wait_for(told.exists, "the result is pickled")
    with executor._engine.server.lock:  # nobody reads: the worker stands in the middle of it
        pid = int(told.read_text())
        wait_for(lambda: state(pid) == "S", "the worker waits for its socket")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), "the worker ends")
    assert isinstance(victim.exception(PATIENCE), WorkerLost)
    assert [future.result(PATIENCE) for future in after] == list(range(50))


def test_a_worker_killed_before_it_has_its_whole_argument_costs_nothing() -> None:
    with SleighExecutor(1) as executor:
        pid = executor.submit(os.getpid).result(PATIENCE)
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: state(pid) == "T", "the worker is stopped")
        future = executor.submit(len, numpy.zeros(BIG, numpy.uint8))
        os.kill(pid, signal.SIGKILL)
        assert future.result(PATIENCE) == BIG


def test_what_is_too_big_is_refused_before_anything_is_sent(executor: SleighExecutor) -> None:
    """Nobody touches the memory: it need not be there."""
    too_big = numpy.zeros(MAX_FRAME + 1, numpy.uint8)
    error = executor.submit(len, too_big).exception(PATIENCE)
    assert isinstance(error, ValueError)
    assert "pass a file name" in str(error)
    error = executor.submit(numpy.zeros, MAX_FRAME + 1, numpy.uint8).exception(PATIENCE)
    assert isinstance(error, ValueError)
    assert "write it to a file" in str(error)
    with pytest.raises(ValueError, match="pass a file name"):
        list(executor.map(len, [b"", too_big]))
    assert executor.submit(abs, -1).result(PATIENCE) == 1


TYPED_IN = """
big, small = bytes(1_000_000), 5

def both():
    return len(big) + small

def one():
    return small
"""


def test_globals_that_are_too_big_cost_the_calls_that_need_them_only(
    executor: SleighExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to come with them comes with the next call that needs it."""
    typed: dict[str, Any] = {"__name__": "__main__"}
    exec(TYPED_IN, typed)
    assert executor.submit(abs, -1).result(PATIENCE) == 1
    monkeypatch.setattr("sleighexec.wire.MAX_FRAME", 500_000)
    for _ in range(4):
        error = executor.submit(typed["both"]).exception(PATIENCE)
        assert "with the globals it needs it takes" in str(error)
    for _ in range(4):
        assert executor.submit(typed["one"]).result(PATIENCE) == 5
    typed["big"] = b""
    assert executor.submit(typed["both"]).result(PATIENCE) == 5
