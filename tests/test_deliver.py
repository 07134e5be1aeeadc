"""Outcomes on their last step, from the engine to who waits for them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from sleighexec import SleighExecutor, runs
from sleighexec.engines.outcomes import deliver
from tests.conftest import wait_behind, wait_until_behind

PATIENCE = 20


class Waiting:
    """Somebody who waits for calls; with an `error`, somebody who cannot be told."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.got: list[Any] = []

    def deliver(self, index: int, value: Any, error: BaseException | None) -> None:
        self.deliver_run(index, [value])

    def deliver_run(self, index: int, values: list[Any], *, objects: bool = False) -> None:
        if self.error is not None:
            raise self.error
        self.got += values


@pytest.mark.parametrize("error", [MemoryError(), SystemExit(), KeyboardInterrupt()])
def test_who_cannot_be_told_keeps_no_outcome_from_others(caplog: Any, error: BaseException) -> None:
    waiting, gone = Waiting(), Waiting(error)
    who = [waiting, gone, waiting, gone, waiting]
    deliver([(each, 0, runs.RUN, [n, n], ()) for n, each in enumerate(who)])
    assert waiting.got == [0, 0, 2, 2, 4, 4]
    assert [record.levelname for record in caplog.records] == ["CRITICAL"] * 2


def test_a_callback_may_wait_for_what_came_together_with_its_own() -> None:
    got: list[Any] = []
    with SleighExecutor(1) as executor:
        blocker = executor.submit(time.sleep, 0.2)  # the others are sent together
        pending = executor.eachElem(abs, range(200), chunkSize=200, blocking=False)
        other = executor.map(abs, range(200))
        pending[0].add_done_callback(lambda _: got.append(pending[-1].result(PATIENCE)))
        pending[1].add_done_callback(lambda _: got.append(list(other)))
        assert pending.wait(2 * PATIENCE) == list(range(200))
        blocker.result(PATIENCE)
    assert sorted(got, key=str) == [199, list(range(200))]  # whichever had to wait for longer


MANY = 300  # callbacks that no thread could begin within each other


@pytest.mark.parametrize("which", ["the last of them", "another one"])
def test_many_callbacks_may_wait(which: str, tmp_path: Path) -> None:
    got: list[Any] = []
    with SleighExecutor(2) as executor:
        other = executor.submit(wait_behind, tmp_path / "gate")
        wait_until_behind(tmp_path / "gate")
        blocker = executor.submit(time.sleep, 0.2)  # the others are sent together
        pending = executor.eachElem(abs, range(MANY), chunkSize=MANY, blocking=False)
        awaited = pending[-1] if which == "the last of them" else other
        for future in pending:
            future.add_done_callback(lambda _: got.append(awaited.result(PATIENCE)))
        blocker.result(PATIENCE)
        assert pending.wait(PATIENCE) == list(range(MANY))
        (tmp_path / "gate").touch()
    assert got == [awaited.result()] * MANY


def test_a_callback_may_wait_for_all_calls_of_which_its_own_is_one() -> None:
    waited: list[Any] = []
    outstanding: list[int] = []
    with SleighExecutor(1) as executor:
        blocker = executor.submit(time.sleep, 0.2)
        pending = executor.eachElem(abs, range(4), blocking=False)
        for future in pending:
            future.add_done_callback(lambda _: outstanding.append(pending.check()))
        pending[1].add_done_callback(lambda _: waited.append(pending.wait(PATIENCE)))
        blocker.result(PATIENCE)
    assert waited == [[0, 1, 2, 3]]
    assert all(left <= 3 - number for number, left in enumerate(outstanding))
    assert len(outstanding) == 4
