"""The short form of the stress kit; the long one is `tox -e stress`, see tests/stress.

Its seed is fixed, but the moments are not.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleighexec import FIFO, LIFO, MULTI, SINGLE, SleighExecutor, WorkspaceServer
from tests.stress.chaos import Chaos
from tests.stress.linear import (
    BACK,
    LOOK,
    STORE,
    TAKE,
    TOOK,
    UNDID,
    Step,
    UndecidedError,
    linearizable,
)
from tests.stress.planted import (
    WORKERS,
    Planting,
    ServesAFetcherBeforeAFinder,
    ServesTheNewestFetcherFirst,
)
from tests.stress.traffic import Round, serve_in_turn

pytestmark = pytest.mark.once

SEED = "1"  # of what happens; when it happens is never the same


@pytest.fixture
def server(run_directory: Path) -> Iterator[WorkspaceServer]:
    with WorkspaceServer("unix") as server:
        yield server


def test_an_executor_under_fire_keeps_its_promises(tmp_path: Path) -> None:
    chaos = Chaos(SEED, tmp_path / "ran")
    chaos.run(4)
    assert "done" in chaos.results.values()


def test_the_history_of_a_workspace_under_fire_can_be_explained(
    server: WorkspaceServer, tmp_path: Path
) -> None:
    history = Round(server.url, SEED, tmp_path / "histories").play(threads=3, processes=2)
    with contextlib.suppress(UndecidedError):  # rarely: too many orders to try
        history.check()


def serve_often(url: str) -> None:
    for number in range(10):
        serve_in_turn(url, f"{SEED}/{number}")


def test_who_waits_is_served_in_turn(server: WorkspaceServer) -> None:
    serve_often(server.url)


@pytest.mark.parametrize("broken", [ServesAFetcherBeforeAFinder, ServesTheNewestFetcherFirst])
def test_a_planted_bug_in_the_order_of_service_is_found(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, broken: type
) -> None:
    """The others take longer: `python -m tests.stress --planted`."""
    monkeypatch.setattr("sleighexec.standalone.Space", broken)
    with WorkspaceServer("unix") as server, pytest.raises(AssertionError, match="served"):
        serve_often(server.url)


@pytest.mark.parametrize("what", WORKERS)
def test_a_bug_of_workers_can_be_planted(what: str) -> None:
    """Else no worker could be had, and that would pass for a bug that is found."""
    with SleighExecutor(launcher=Planting(WORKERS[what], 1)) as executor:
        assert executor.submit(abs, -1).result(30) == 1


# ---------------------------------------------------------------------- the checker itself


def after_each_other(*rows: tuple[str, str | None]) -> list[Step]:
    return [Step(kind, value, 2 * n, 2 * n + 1) for n, (kind, value) in enumerate(rows)]


def at_once(*rows: tuple[str, str | None]) -> list[Step]:
    return [Step(kind, value, 0, 1) for kind, value in rows]


A, B, C = "abc"
STORED = [(STORE, A), (STORE, B)]

ROWS = [  # mode, a history, whether it is possible
    (FIFO, after_each_other(*STORED, (TAKE, A), (LOOK, B), (TAKE, B), (TAKE, None)), True),
    (FIFO, after_each_other(*STORED, (TAKE, B)), False),
    (FIFO, after_each_other(*STORED, (TAKE, None)), False),
    (FIFO, after_each_other((STORE, A), (TAKE, A), (TAKE, A)), False),
    (FIFO, after_each_other((STORE, A), (TAKE, A), (LOOK, A)), False),
    (FIFO, after_each_other((TAKE, A), (STORE, A)), False),
    (FIFO, [*at_once(*STORED), *after_each_other((TAKE, B), (TAKE, A))], True),
    (FIFO, at_once((STORE, A), (TAKE, A), (TAKE, None)), True),
    (LIFO, after_each_other(*STORED, (TAKE, B), (TAKE, A)), True),
    (LIFO, after_each_other(*STORED, (TAKE, A)), False),
    (MULTI, after_each_other(*STORED, (TAKE, B), (LOOK, A), (TAKE, A)), True),
    (MULTI, after_each_other(*STORED, (TAKE, C)), False),
    (SINGLE, after_each_other(*STORED, (LOOK, B), (TAKE, B), (TAKE, None)), True),
    (SINGLE, after_each_other(*STORED, (TAKE, A)), False),
    (SINGLE, after_each_other(*STORED, (TAKE, B), (TAKE, A)), False),
]


@pytest.mark.parametrize(("mode", "steps", "possible"), ROWS)
def test_the_checker_knows_what_is_possible(mode: str, steps: list[Step], possible: bool) -> None:
    assert linearizable(steps, mode) is possible


def test_a_loan_comes_back_first_in_line_or_in_no_history_at_all() -> None:
    taken = after_each_other(*STORED, (STORE, C), (TAKE, A), (TAKE, B))
    back = Step(BACK, None, 10, 11, back=(A, B))
    later = {value: Step(TAKE, value, 12 + 2 * n, 13 + 2 * n) for n, value in enumerate("abc")}
    assert linearizable([*taken, back, *later.values()], FIFO)
    swapped = [Step(TAKE, value, 12 + 2 * n, 13 + 2 * n) for n, value in enumerate("bac")]
    assert not linearizable([*taken, back, *swapped], FIFO)
    assert not linearizable([*taken, *later.values()], FIFO)


def test_what_was_cut_short_happened_or_did_not() -> None:
    store = Step(STORE, A, 0, 99, sure=False)
    for answer in (A, None):
        assert linearizable([store, Step(TAKE, answer, 1, 2)], FIFO)
    took = [Step(kind, None, 2, 99, False, 1) for kind in (TOOK, UNDID)]
    before = Step(STORE, A, 0, 1)
    for answers in itertools.product((A, None), repeat=2):
        takes = [Step(TAKE, answer, 3 + 2 * n, 4 + 2 * n) for n, answer in enumerate(answers)]
        possible = answers != (A, A)
        assert linearizable([before, *took, *takes], FIFO) is possible
