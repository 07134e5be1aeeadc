"""What a worker writes is what its agent and its client read, wherever it is cut off."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleighexec import SleighExecutor, WorkerLost, runs
from sleighexec.journal import BEGUN, END, ROOM, Journal, Records
from sleighexec.messages import Payload
from tests.conftest import wait_for, wait_for_file
from tests.steps import CANNOT

PATIENCE = 60

SIMPLE = st.integers() | st.text(max_size=50) | st.none() | st.floats(allow_nan=False)
SIMPLE |= st.tuples(SIMPLE, SIMPLE) | st.just(())
INTS = st.integers(-(2**63), 2**63 - 1)
STEPS = st.lists(
    st.tuples(st.just("simple"), SIMPLE)
    | st.tuples(st.just("ints"), st.lists(INTS))
    | st.tuples(st.just("floats"), st.lists(st.floats(allow_nan=False)))
    | st.tuples(st.just("mixed"), st.lists(st.integers(), max_size=5) | st.sets(st.text()))
    | st.tuples(st.sampled_from([runs.GOOD, runs.BAD]), st.binary(max_size=30))
    | st.tuples(st.just("send"), st.sampled_from(["main", "helper"])),
    max_size=30,
)


def values_in(payload: bytes) -> list[tuple[int, object]]:
    """Each outcome with the number of its call."""
    found: list[tuple[int, object]] = []
    for number, flag, data, _ in runs.outcomes(Payload(payload)):
        if flag in runs.RUNS:
            assert flag == runs.MIXED or list not in map(type, data)
            data = [runs.load_mixed(v) if type(v) is list else v for v in data]
            found += enumerate(data, number)
        else:
            found.append((number, (flag, bytes(data))))
    if (lone := runs.of_one(payload)) is not None:
        number, value = lone
        assert found == [(number, runs.load_mixed(value) if type(value) is list else value)]
    return found


@given(STEPS)
def test_every_outcome_is_read_in_time_and_in_what_is_left(steps):
    """After each step the agent could read; now and then something is sent; none is missing."""
    journal = Journal()
    records = Records(journal)
    written: list[tuple[int, object]] = []
    seen: dict[int, object] = {}
    sent = b""
    try:
        for kind, what in steps:
            number = len(written) + 1
            if kind in ("ints", "floats"):
                records.close_run(number - 1)
                assert records.open_run(number, runs.INTS if kind == "ints" else runs.FLOATS)
                for at, value in enumerate(what, number):
                    records.words[BEGUN] = at
                    left, _ = journal.read()
                    assert seen | dict(values_in(left)) == dict(written)
                    records.slots[at - records.first] = value
                    written.append((at, value))
                if what:
                    records.commit(len(written))
            elif kind == "simple":
                if records.slots is not None:
                    records.close_run(number - 1)
                assert records.open_run(number)
                records.words[END] += journal.memory.write(runs.dump_simple(what))
                written.append((number, what))
            elif kind == "mixed":
                if records.slots is not None:
                    records.close_run(number - 1)
                assert records.open_run(number)
                records.mix()
                data = runs.dump_shallow(what) or runs.dump_mixed(pickle.dumps(what))
                records.words[END] += journal.memory.write(data)
                written.append((number, what))
            elif kind == "send":
                if what == "main":
                    records.close_run(number - 1)
                sent = records.take()
                seen.update(values_in(sent))
                assert seen == dict(written)
                if what == "main":
                    records.clear()
            else:
                records.close_run(number - 1)
                assert records.write(number, kind, what)
                written.append((number, (kind, what)))
            left, _ = journal.read()
            assert seen | dict(values_in(left)) == dict(written)
    finally:
        records.slots = None
        records.words.release()
        journal.memory.close()


@given(st.integers(1, 2**63), SIMPLE | st.lists(st.integers()) | st.sets(st.text()))
def test_a_frame_that_is_one_value_is_known_for_it(number, value):
    flag, data = runs.RUN, runs.dump_simple(value) if type(value) not in (list, set) else b""
    if not data:
        flag, data = runs.MIXED, runs.dump_shallow(value) or runs.dump_mixed(pickle.dumps(value))
    data = runs.run_of_one(data)
    head = runs.RECORD.pack(len(data), flag, number)
    assert values_in(head + data) == [(number, value)]
    assert runs.of_one(head + data) is not None
    printed = runs.RECORD.pack(0, runs.PRINTED, number)
    for other in (b"", head, head[:-1], head + data + printed, printed + head + data):
        assert runs.of_one(other) is None


def test_a_full_journal_takes_nothing_more_and_keeps_what_it_has():
    journal = Journal()
    records = Records(journal)
    journal.text.add("printed")
    assert records.open_run(1)
    for _ in range((ROOM - runs.RUN_HEAD) // 1000):
        records.words[END] += journal.memory.write(bytes(1000))
    with pytest.raises(ValueError, match="out of range"):
        journal.memory.write(bytes(1000))
    full, _ = journal.read()
    assert ROOM - 1000 < len(full) <= ROOM
    records.close_run(1)
    assert not records.write(2, runs.GOOD, bytes(1000))
    assert journal.text.read() == b"printed"
    records.take()
    records.clear()
    assert records.write(2, runs.GOOD, bytes(1000))
    records.words.release()
    journal.memory.close()


@pytest.mark.once
@pytest.mark.skipif(sys.platform != "linux", reason="ptrace is of another kind elsewhere")
@pytest.mark.parametrize("whose", ["worker", "lone", "dask"])
def test_it_can_be_read_whatever_instruction_was_the_last(whose: str) -> None:
    command = [sys.executable, "-m", "tests.steps", whose]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode == CANNOT:
        pytest.skip("named exception: here no process can run its child step by step")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 10_000


# ------------------------------------------------------------------ in a pool


def outcome(kind: str, number: int) -> object:
    """One of all that a call can come to."""
    if kind == "error":
        raise LookupError(number)
    if kind in ("printed", "told"):
        print(kind, number)
        return number if kind == "printed" else [number]
    results = {"small": number, "list": [number], "text": "x" * number, "set": {number, 1}}
    results |= {"pair": (number, kind), "nested": (number, (kind, [number]))}
    results |= {"long": "long" * 10_000, "longer": b"longer" * 50_000, "none": None}
    return results[kind]


KINDS = [
    "small",
    "list",
    "pair",
    "nested",
    "text",
    "set",
    "long",
    "longer",
    "none",
    "error",
    "printed",
    "told",
]


@pytest.mark.parametrize("seed", range(3))
def test_outcomes_of_all_kinds_among_each_other_belong_to_their_calls(seed: int) -> None:
    choose = random.Random(seed)
    with SleighExecutor(2) as executor:
        calls = [(choose.choice(KINDS), number) for number in range(600)]
        futures = [executor.submit(outcome, *call) for call in calls]
        for call, future in zip(calls, futures):
            if call[0] == "error":
                with pytest.raises(LookupError, match=str(call[1])):
                    future.result(PATIENCE)
            else:
                assert future.result(PATIENCE) == outcome(*call), call
            printed = f"{call[0]} {call[1]}\n" if call[0] in ("printed", "told") else ""
            assert future.output == printed, call


class Point(NamedTuple):
    x: int
    y: int


def pick(kind: str, number: int) -> object:
    """Mostly numbers, some of which have no room in eight bytes; or tuples, short and long."""
    if kind == "printed":
        print(number)
    values = {"int": number, "float": number / 7, "bool": number % 2 == 0, "none": None}
    values |= {"huge": number << 70, "edge": -(2**63), "nan": float("nan"), "text": "x" * number}
    values |= {"big": "x" * 1000, "list": [number], "printed": number}
    values |= {"pair": (number, number / 7), "named": ("a", number), "nested": ((number,), [1])}
    values |= {"long": (number,) * 5000, "too long": (number,) * 50_000, "point": Point(1, number)}
    values |= {"dict": {"id": number, "name": "x"}, "texts": ["x" * 900] * 60, "deep": {1: [2]}}
    return values[kind]


@pytest.mark.parametrize(
    "kinds",
    [
        ["int"] * 9000,
        ["float", *["int"] * 3000, *["float"] * 3000],
        ["huge", *["int"] * 100, "huge", *["edge"] * 100],
        [*["big"] * 115, *["int"] * 3000, *["big"] * 115, *["float"] * 3000],
        ["int", *["printed"] * 3, *["int"] * 50, "printed", *["float"] * 50, "list"] * 30,
        [*["pair"] * 500, "named", "pair", "nested", "printed", "pair", "point", "int"] * 3,
        ["long", "pair", "too long", *["long"] * 10, "int", "too long", "pair"] * 3,
        [
            *["dict"] * 3000,
            "list",
            "int",
            "dict",
            "deep",
            "printed",
            "dict",
            *["texts"] * 9,
            "dict",
        ],
        ["nan", "float", "nan", "bool", "none", "text", "list", "huge", "int"] * 200,
    ],
    ids=[
        "ints",
        "one, then the other",
        "huge",
        "no room",
        "printed",
        "pairs",
        "long",
        "dicts",
        "all",
    ],
)
@pytest.mark.once
def test_results_that_are_numbers_or_tuples(kinds: list[str]) -> None:
    with SleighExecutor(1) as executor:
        list(executor.map(abs, range(2000)))  # many calls travel together from now on
        found = list(executor.map(pick, kinds, range(len(kinds))))
        ours = [executor.submit(pick, kind, n) for n, kind in enumerate(kinds[:500])]
        found += [future.result(PATIENCE) for future in ours]
        expected = [pick(kind, n) for n, kind in enumerate(kinds)]
        expected += expected[:500]
        assert list(map(repr, found)) == list(map(repr, expected))
        assert list(map(type, found)) == list(map(type, expected))
        printed = [f"{n}\n" if kind == "printed" else "" for n, kind in enumerate(kinds[:500])]
        assert [future.output for future in ours] == printed


def test_numbers_for_which_the_journal_has_no_room() -> None:
    """In one batch, short calls with long texts, and then many with numbers."""
    text = "x" * 1000
    with SleighExecutor(1) as executor:
        list(executor.map(abs, range(5000)))  # many calls travel together from now on
        for _ in range(10):
            futures = [executor.submit(abs, n) for n in range(5000)]
            futures += [executor.submit(str, text) for _ in range((ROOM - 4000) // len(text))]
            futures += [executor.submit(abs, -n) for n in range(5000)]
            results = [future.result(PATIENCE) for future in futures]
            assert results[:5000] == results[-5000:] == list(range(5000))
            assert set(results[5000:-5000]) == {text}


class Deadly:
    """Ends any process but its maker's when it goes, if its number is 3."""

    def __init__(self, number: int) -> None:
        self.number, self.maker = number, os.getpid()

    def __del__(self) -> None:
        if self.number == 3 and os.getpid() != self.maker:
            os.kill(os.getpid(), signal.SIGKILL)


def number_of(deadly: Deadly) -> int:
    return deadly.number


def test_a_result_is_safe_before_what_its_call_held_goes() -> None:
    with SleighExecutor(1) as executor:
        list(executor.map(abs, range(2000)))  # many calls travel together from now on
        pid = executor.submit(os.getpid).result(PATIENCE)
        calls = [Deadly(number) for number in range(10)]
        assert list(executor.map(number_of, calls)) == list(range(10))
        assert executor.submit(os.getpid).result(PATIENCE) != pid


def put_into(given: dict[str, object]) -> int:
    number = given["number"]
    assert type(number) is int
    given["deadly"] = Deadly(number)
    given["deadly"].maker = 0  # type: ignore[attr-defined]
    return number


def test_it_is_safe_too_before_what_its_call_has_put_into_an_argument_goes() -> None:
    with SleighExecutor(1) as executor:
        list(executor.map(abs, range(2000)))
        pid = executor.submit(os.getpid).result(PATIENCE)
        calls = [{"number": number} for number in range(10)]
        assert list(executor.map(put_into, calls)) == list(range(10))
        assert executor.submit(os.getpid).result(PATIENCE) != pid


def step(number: int, path: Path) -> int:
    """A short call; number 7 waits for the file, and number 8 is the end of its worker."""
    if number == 7:
        path.with_suffix(".here").touch()
        wait_for_file(path)
    if number == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_in_front_of_a_long_call_come_at_once_and_once(tmp_path: Path) -> None:
    """They are sent while the run stays open, and stand in the journal of the dead worker too."""
    path = tmp_path / "gate"
    counts: dict[int, int] = {}
    with SleighExecutor(1) as executor:
        executor.submit(abs, 1).result(PATIENCE)
        futures = [executor.submit(step, number, path) for number in range(10)]
        for number, future in enumerate(futures):
            future.add_done_callback(lambda _, n=number: counts.update({n: counts.get(n, 0) + 1}))
        assert [future.result(PATIENCE) for future in futures[:7]] == list(range(7))
        wait_for(path.with_suffix(".here").exists, "the long call does not begin")
        assert not futures[7].done()
        path.touch()
        assert futures[7].result(PATIENCE) == 7
        with pytest.raises(WorkerLost):
            futures[8].result(PATIENCE)
        assert futures[9].result(PATIENCE) == 9
        assert executor.submit(abs, -3).result(PATIENCE) == 3
    assert counts == dict.fromkeys(range(10), 1)
