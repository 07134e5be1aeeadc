"""Calls that need what only some workers have, such as a GPU."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from sleighexec import (
    Command,
    DependencyError,
    Local,
    PoolBrokenError,
    SleighExecutor,
    WorkerLost,
    current_worker,
)
from sleighexec.engines.losses import Losses
from sleighexec.errors import UnsupportedOptionError
from sleighexec.resources import needs_of, visible
from tests.conftest import alive, wait_for

PATIENCE = 20
GPU = {"gpu": 1}
PLACES = [Local(1), Local(2, resources=GPU)]


def rank(*_: Any) -> int:
    return current_worker().rank


def when_there(path: Path) -> int:
    wait_for(path.exists, "nobody opened the gate", PATIENCE)
    return rank()


def test_calls_run_on_workers_that_have_what_they_need() -> None:
    with SleighExecutor(launcher=PLACES) as executor:
        with_gpu = executor.options(resources=GPU)
        assert with_gpu.submit(rank).result(PATIENCE) in (1, 2)
        assert set(with_gpu.map(rank, range(200))) <= {1, 2}
        assert set(with_gpu.eachElem(rank, range(200))) <= {1, 2}
        assert set(with_gpu.imap(rank, range(50))) <= {1, 2}
        first = with_gpu.submit(abs, -1)
        assert with_gpu.submit(rank, first).result(PATIENCE) in (1, 2)
        assert list(executor.map(abs, range(-50, 0))) == list(range(50, 0, -1))


def test_any_mixture_of_needs_is_routed_right() -> None:
    draw = random.Random(7)
    offers: list[dict[str, int]] = [{}, {"gpu": 1}, {"gpu": 2, "big": 1}, {"big": 1, "disk": 3}]
    wishes = [None, {"gpu": 1}, {"gpu": 2}, {"big": 1}, {"disk": 2}, {"gpu": 1, "big": 1}]
    with SleighExecutor(launcher=[Local(1, resources=offer) for offer in offers]) as executor:
        calls = []
        for _ in range(400):
            wish, priority = draw.choice(wishes), draw.choice([-1, 0, 0, 5])
            view = executor.options(resources=wish, priority=priority)
            calls.append((wish or {}, view.submit(rank)))
        for wish, future in calls:
            offer = offers[future.result(PATIENCE)]
            assert all(offer.get(name, 0) >= count for name, count in wish.items())


def test_only_the_workers_that_are_needed_are_started() -> None:
    with SleighExecutor(launcher=[Local(3), Local(2, resources=GPU)]) as executor:
        executor.options(resources=GPU).submit(abs, -1).result(PATIENCE)
        assert [worker.rank for worker in executor.workers()] == [3]


def test_a_worker_that_has_nothing_to_do_gets_what_only_it_can_run() -> None:
    with SleighExecutor(launcher=PLACES) as executor:
        executor.eachWorker(rank)
        wait_for(lambda: all(w.state == "idle" for w in executor.workers()), "they are idle")
        futures = [executor.options(resources=GPU).submit(rank) for _ in range(20)]
        assert {future.result(PATIENCE) for future in futures} <= {1, 2}


def test_while_calls_wait_for_a_gpu_the_others_go_on(tmp_path: Path) -> None:
    with SleighExecutor(launcher=[Local(1), Local(1, resources=GPU)]) as executor:
        with_gpu = executor.options(resources=GPU)
        held = with_gpu.submit(when_there, tmp_path / "gate")
        wait_for(held.running, "it does not run")
        waiting = [with_gpu.submit(rank) for _ in range(5)]
        assert set(executor.map(rank, range(100))) == {0}
        assert not any(future.done() for future in waiting)
        (tmp_path / "gate").touch()
        assert {future.result(PATIENCE) for future in waiting} == {1}


def test_what_few_can_run_comes_first_and_a_higher_priority_before_it(tmp_path: Path) -> None:
    notes = tmp_path / "notes"

    def note(text: str) -> None:
        with open(notes, "a") as file:
            file.write(f"{text}\n")

    with SleighExecutor(launcher=Local(1, resources=GPU)) as executor:
        gate = executor.submit(when_there, tmp_path / "gate")
        wait_for(gate.running, "it does not run")
        executor.options(priority=-1, resources=GPU).submit(note, "low, gpu")
        executor.submit(note, "plain")
        executor.options(resources=GPU).submit(note, "gpu")
        executor.options(priority=1).submit(note, "high")
        (tmp_path / "gate").touch()
    assert notes.read_text().splitlines() == ["high", "gpu", "plain", "low, gpu"]


@pytest.mark.parametrize("wish", [{"gpu": 2}, {"tpu": 1}, {"gpu": 1, "big": 1}])
def test_what_no_worker_has_is_refused_when_it_is_submitted(wish: dict[str, int]) -> None:
    with SleighExecutor(launcher=PLACES) as executor:
        view = executor.options(resources=wish)
        for submit in (
            lambda: view.submit(rank),
            lambda: view.map(rank, [1]),
            lambda: view.eachElem(rank, [1]),
            lambda: view.submit(rank, executor.submit(abs, -1)),
        ):
            with pytest.raises(
                UnsupportedOptionError, match=r"no worker has .* one has .*'gpu': 1.*; ask for less"
            ):
                submit()
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_each_worker_call_has_no_needs() -> None:
    with (
        SleighExecutor(launcher=PLACES) as executor,
        pytest.raises(UnsupportedOptionError, match="every worker"),
    ):
        executor.options(resources=GPU).eachWorker(rank)


# ------------------------------------------------------------------ devices


def devices() -> tuple[Any, ...]:
    names = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR"
    return tuple(os.environ.get(name) for name in names)


def test_each_worker_sees_its_own_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR"):
        monkeypatch.delenv(name, raising=False)
    places = [Local(1), Local(2, resources={"gpu": 2}), Local(1, resources={"big": 1})]
    with SleighExecutor(launcher=places) as executor:
        nothing = None, None, None
        assert executor.eachWorker(devices) == [
            nothing,
            ("0,1", "0,1", "level_zero:0,1"),
            ("2,3", "2,3", "level_zero:2,3"),
            nothing,
        ]
        have = executor.eachWorker(lambda: current_worker().resources)
        assert have == [{}, {"gpu": [0, 1]}, {"gpu": [2, 3]}, {"big": [0]}]


def test_a_replacement_sees_the_devices_of_the_dead() -> None:
    with SleighExecutor(launcher=Local(2, resources=GPU)) as executor:
        before = executor.eachWorker(devices)
        os.kill(executor.eachWorker(os.getpid)[0], signal.SIGKILL)
        assert executor.eachWorker(devices) == before


@pytest.mark.parametrize("kind", ["local", "command"])
def test_slots_are_places_in_what_the_machine_lets_us_see(kind: str) -> None:
    if kind == "local":
        place: Any = Local(2, ("env", "CUDA_VISIBLE_DEVICES=5,7,9"), GPU)
    else:
        place = Command("{agent}", 2, env={"CUDA_VISIBLE_DEVICES": "5,7,9"}, resources=GPU)
    with SleighExecutor(launcher=place) as executor:
        assert executor.eachWorker(os.getenv, "CUDA_VISIBLE_DEVICES") == ["5", "7"]


def test_more_workers_than_devices_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sleighexec.engines.losses.START_PAUSE", 0.01)
    place = Local(2, ("env", "CUDA_VISIBLE_DEVICES=5"), GPU)
    with SleighExecutor(launcher=place) as executor:
        error = executor.eachWorker(rank, blocking=False)[1].exception(PATIENCE)
    assert isinstance(error, PoolBrokenError)
    assert "GPUs [1] of those in CUDA_VISIBLE_DEVICES='5'" in str(error)


def test_variables_that_are_there_already() -> None:
    slots = {"gpu": [1, 2]}
    environ = {
        "ONEAPI_DEVICE_SELECTOR": "opencl:4,5,6",
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c",
    }
    assert visible(slots, environ) == {
        "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-c",
        "ROCR_VISIBLE_DEVICES": "1,2",
        "ONEAPI_DEVICE_SELECTOR": "opencl:5,6",
    }
    assert visible({"big": [0]}, environ) == visible({}, environ) == {}


# ------------------------------------------------------------------ workers that go


def test_a_call_that_is_tried_again_gets_what_it_needs_again(tmp_path: Path) -> None:
    def die_once(path: Path) -> int:
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return rank()

    with SleighExecutor(launcher=PLACES) as executor:
        view = executor.options(resources=GPU, retries=1)
        assert view.submit(die_once, tmp_path / "died").result(PATIENCE) in (1, 2)


def test_calls_fail_when_the_last_worker_that_had_it_leaves(tmp_path: Path) -> None:
    with SleighExecutor(launcher=[Local(1), Local(1, resources=GPU)]) as executor:
        with_gpu = executor.options(resources=GPU)
        held = executor.submit(when_there, tmp_path / "gate")
        running = with_gpu.submit(when_there, tmp_path / "gate")
        wait_for(lambda: held.running() and running.running(), "they do not run")
        waiting = with_gpu.submit(rank)
        depending = with_gpu.submit(rank, held)
        executor.resize(1)
        assert isinstance(waiting.exception(PATIENCE), UnsupportedOptionError)
        (tmp_path / "gate").touch()
        assert isinstance(depending.exception(PATIENCE), UnsupportedOptionError)
        assert running.result(PATIENCE) == 1
        with pytest.raises(UnsupportedOptionError):
            with_gpu.submit(rank)
        executor.resize(2)
        assert with_gpu.submit(rank).result(PATIENCE) == 1


@pytest.mark.parametrize("heard", [True, False])
def test_calls_fail_when_the_machine_that_had_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    monkeypatch.setattr("sleighexec.engines.places.FIRST_PAUSE", 0.05)
    gate = tmp_path / "gate"
    gate.touch()
    command = ("sh", "-c", f"test -e {gate} || exit 4; {{agent}}")
    newt = Command(command, name="newt", resources=GPU)
    if not heard:  # its worker may be read, and work, before the agent's word that it was started
        hear = Losses._hear_agent

        def hear_others(engine: Losses, launcher: Any, *message: Any) -> None:
            if launcher != newt:
                hear(engine, launcher, *message)

        monkeypatch.setattr(Losses, "_hear_agent", hear_others)
    with SleighExecutor(launcher=[Local(1), newt]) as executor:
        with_gpu = executor.options(resources=GPU, retries=1)
        agent = with_gpu.submit(os.getppid).result(PATIENCE)
        running = with_gpu.submit(time.sleep, 60)
        waiting = with_gpu.submit(rank)
        wait_for(running.running, "it does not run")
        gate.unlink()
        os.kill(agent, signal.SIGKILL)
        for future in (running, waiting):
            error = future.exception(PATIENCE)
            assert isinstance(error, (UnsupportedOptionError, WorkerLost))
            assert "newt" in str(error)
        assert executor.submit(rank).result(PATIENCE) == 0
        wait_for(lambda: not alive(agent), "the agent is gone")


def test_who_waits_for_such_a_call_is_told(tmp_path: Path) -> None:
    with SleighExecutor(launcher=[Local(1), Local(1, resources=GPU)]) as executor:
        held = executor.options(resources=GPU).submit(when_there, tmp_path / "gate")
        wait_for(held.running, "it does not run")
        waiting = executor.options(resources=GPU).submit(rank)
        behind = executor.submit(abs, waiting)
        executor.resize(1)
        assert isinstance(behind.exception(PATIENCE), DependencyError)
        (tmp_path / "gate").touch()
        wait([held], PATIENCE)


# ------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("gpu", TypeError),
        ({"gpu": 1.5}, TypeError),
        ({"gpu": True}, TypeError),
        ({1: 1}, TypeError),
        ({"": 1}, TypeError),
        ({"gpu": -1}, ValueError),
    ],
)
def test_wrong_resources_are_refused_at_once(wrong: Any, error: type[Exception]) -> None:
    with SleighExecutor(1) as executor, pytest.raises(error, match="resource"):
        executor.options(resources=wrong)
    for place in (Local, lambda **given: Command("{agent}", **given)):
        with pytest.raises(error, match="resource"):
            place(resources=wrong)


def test_needing_nothing_is_no_need() -> None:
    assert needs_of(None) == needs_of({}) == needs_of({"gpu": 0}) == ()
    assert needs_of({"b": 2, "a": 1}) == needs_of({"a": 1, "b": 2})
