"""Persistent workspaces in a file: they survive their server, and no file is believed blindly."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy
import pytest

from sleighexec import (
    FIFO,
    LIFO,
    MULTI,
    SINGLE,
    NetWorkSpace,
    NwsServer,
    WorkspaceServer,
)
from sleighexec import store as stores
from sleighexec.errors import (
    DamagedStoreError,
    ModeError,
    NoSuchWorkspaceError,
    WorkspaceFullError,
)
from sleighexec.logfile import HEADER, MAGIC, LogFile
from sleighexec.workspace import DICT, V_MODE
from tests.conftest import wait_for


class House:
    """A server with a store that is started again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def server(self, **options: Any) -> Iterator[NwsServer]:
        with (
            WorkspaceServer("unix", store=str(self.path), **options) as server,
            NwsServer(url=server.url) as client,
        ):
            yield client

    @contextlib.contextmanager
    def workspace(self, name: str = "kept", **options: Any) -> Iterator[NetWorkSpace]:
        with self.server(**options) as client:
            yield client.openWs(name, persistent=True)

    def contents(self) -> dict[str, list[Any]]:
        """All values by variable, after another start; they are gone then."""
        with self.workspace() as ws:
            return {name: list(ws.ifetchTry(name)) for name in ws.listVars(format=DICT)}


@pytest.fixture
def house(run_directory: Path, tmp_path: Path) -> House:
    return House(tmp_path / "store")


# ---------------------------------------------------------------------- what survives


def test_what_is_in_a_persistent_workspace_is_there_after_the_next_start(house: House) -> None:
    array = numpy.arange(200_000)
    with house.workspace() as ws:
        for value in (1, "zwei", [3], None, b"5"):
            ws.store("queue", value)
        assert ws.fetch("queue") == 1
        assert ws.find("queue") == "zwei"
        ws.store("big", array)
        ws.declare("stack", LIFO)
        ws.store("stack", "below")
        ws.store("stack", "above")
        ws.declare("bag", MULTI)
        ws.declare("one", SINGLE)
        ws.store("one", 1)
        ws.store("one", 2)
        for number in range(9):
            ws.store("log", number, keep=3)
        ws.store("deleted", 1)
        ws.deleteVar("deleted")
        ws.storeMany("many", range(1000))
        assert ws.fetchMany("many", 990) == list(range(990))
    for _ in range(2):
        with house.workspace() as ws:
            modes = {name: row[V_MODE] for name, row in ws.listVars(format=DICT).items()}
            assert modes == {
                "queue": FIFO,
                "big": FIFO,
                "stack": LIFO,
                "bag": MULTI,
                "one": SINGLE,
                "log": FIFO,
                "many": FIFO,
            }
            assert (ws.find("big") == array).all()
    with house.workspace() as ws:
        assert list(ws.ifetchTry("queue")) == ["zwei", [3], None, b"5"]
        assert [ws.fetch("stack"), ws.fetch("stack")] == ["above", "below"]
        assert list(ws.ifetchTry("one")) == [2]
        assert list(ws.ifetchTry("log")) == [6, 7, 8]
        assert ws.fetchMany("many", 100) == list(range(990, 1000))
    with house.workspace() as ws:
        assert all(ws.fetchTry(name, "none") == "none" for name in ("queue", "stack", "one", "log"))


def test_a_queue_that_is_empty_is_a_queue_after_the_next_start(house: House) -> None:
    with house.workspace() as ws:
        ws.store("x", 1)
        assert ws.fetch("x") == 1
        ws.store("gone", 1)
        ws.deleteVar("gone")
    with house.workspace() as ws:
        assert ws.listVars(format=DICT)["x"][V_MODE] == FIFO
        with pytest.raises(ModeError):
            ws.declare("x", LIFO)
        assert "gone" not in ws.listVars(format=DICT)


def test_other_workspaces_and_deleted_ones_are_gone(house: House) -> None:
    with house.server() as server:
        server.openWs("mine").store("x", 1)
        server.useWs("everybodys").store("x", 1)
        server.openWs("kept", persistent=True).store("x", 1)
        server.openWs("deleted", persistent=True).store("x", 1)
        server.deleteWs("deleted")
        again = server.openWs("again", persistent=True)
        again.store("x", 1)
        server.deleteWs("again")
        server.openWs("again", persistent=True).store("x", 2)
    with house.server() as server:
        names = set(server.listWss(DICT))
        assert {"kept", "again"} <= names
        assert not {"mine", "everybodys", "deleted"} & names
        assert list(server.useWs("again").ifetchTry("x")) == [2]


def test_a_workspace_that_becomes_persistent_is_kept_with_what_is_in_it(house: House) -> None:
    with house.server() as server:
        ws = server.openWs("kept")
        ws.store("x", 1)
        ws.store("x", 2)
        with ws.borrow("x"):
            server.openWs("kept", persistent=True).store("x", 3)
            assert ws.fetch("x") == 2
    assert house.contents() == {"x": [3]}


def test_a_loan_that_was_out_when_the_server_died_is_first_in_line(house: House) -> None:
    with house.workspace() as ws:
        for number in range(3):
            ws.store("x", number)
        ws.borrow("x")
    assert house.contents() == {"x": [0, 1, 2]}


def test_a_loan_of_a_stack_is_its_top_when_it_was_written_anew(house: House) -> None:
    with house.server() as server:
        ws = server.openWs("kept")
        ws.declare("x", LIFO)
        for number in range(4):
            ws.store("x", number)
        loans = [ws.borrow("x"), ws.borrow("x")]
        ws.store("x", 4)
        server.openWs("kept", persistent=True)  # it is written now
        for loan in reversed(loans):
            loan.give_back()
    with house.workspace() as ws:
        assert [ws.fetchTry("x") for _ in range(6)] == [3, 2, 4, 1, 0, None]


def test_a_killed_server_has_lost_nothing_that_it_said_was_stored(house: House) -> None:
    for number in range(3):
        command = [sys.executable, "-m", "sleighexec", "server", "--store", str(house.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            with NwsServer(url=url) as server:
                ws = server.openWs("kept", persistent=True)
                for value in range(100):
                    ws.store("x", (number, value))
                for _ in range(50):
                    ws.fetch("x")
                process.send_signal(signal.SIGKILL)
                process.wait()
    # What was fetched last may be there again: its end was on its way.
    values = house.contents()["x"]
    assert values[-100:] == [(2, value) for value in range(100)]
    assert len(values) == len(set(values)) >= 150


# ---------------------------------------------------------------------- a file that is damaged


def fill(house: House, count: int = 20) -> list[int]:
    """Store numbers; where the records of the file end."""
    ends = []
    with house.workspace() as ws:
        for number in range(count):
            ws.store("x", number)
            ends.append(house.path.stat().st_size)
    return ends


def test_a_torn_end_is_dropped_with_a_warning(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    ends = fill(house)
    whole = house.path.read_bytes()
    for cut in (ends[-1] - 1, ends[-2] + HEADER + 2, ends[-2] + HEADER, ends[-2] + 3):
        house.path.write_bytes(whole[:cut])
        with caplog.at_level(logging.WARNING, "sleighexec"), house.workspace() as ws:
            assert list(ws.ifindTry("x")) == list(range(19))
            ws.store("x", "new")
        assert f"the last {cut - ends[-2]} bytes" in caplog.text
        with house.workspace() as ws:
            assert list(ws.ifindTry("x")) == [*range(19), "new"]
        caplog.clear()


def test_zeros_at_the_end_and_a_spoilt_last_record_were_torn(house: House) -> None:
    ends = fill(house)
    whole = house.path.read_bytes()
    house.path.write_bytes(whole + bytes(5000))
    assert house.contents() == {"x": list(range(20))}
    last = bytearray(whole[: ends[-1]])
    last[-1] ^= 1
    house.path.write_bytes(last)
    assert house.contents() == {"x": list(range(19))}


def test_a_bit_that_flipped_before_the_end_is_refused_and_named(house: House) -> None:
    ends = fill(house)
    whole = house.path.read_bytes()
    chance = random.Random(3)
    places = [0, len(MAGIC), len(MAGIC) + 8, *(chance.randrange(ends[-2]) for _ in range(40))]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        house.path.write_bytes(damaged)
        with pytest.raises(DamagedStoreError) as caught, house.workspace():
            pass
        assert caught.value.offset <= place < len(whole)
        assert f"at record {caught.value.record}" in str(caught.value)
        assert house.path.read_bytes() == bytes(damaged), "it was changed"
        if caught.value.offset:  # the remedy that it names
            os.truncate(house.path, caught.value.offset)
            with house.workspace() as ws:
                kept = list(ws.ifetchTry("x"))
            assert kept == list(range(len(kept)))


def test_a_file_that_is_no_store_is_left_alone(house: House) -> None:
    house.path.write_text("my novel\n" * 100)
    with pytest.raises(DamagedStoreError, match="does not begin as a store"), house.workspace():
        pass
    assert house.path.read_text() == "my novel\n" * 100


def test_two_servers_cannot_have_the_same_file(house: House, tmp_path: Path) -> None:
    with house.workspace(), pytest.raises(BlockingIOError, match="another server"):
        WorkspaceServer("127.0.0.1:0", store=str(house.path))


def test_only_the_user_may_read_the_file(house: House) -> None:
    fill(house, 1)
    assert house.path.stat().st_mode & 0o077 == 0


# ---------------------------------------------------------------------- no room


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process may be larger, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_what_does_not_fit_and_memory_and_file_agree(house: House) -> None:
    with house.workspace() as ws:
        ws.store("x", "before")
        with room_for(house.path.stat().st_size + 1000):
            with pytest.raises(WorkspaceFullError, match="cannot be written to"):
                ws.store("x", "a" * 2000)
            assert list(ws.ifindTry("x")) == ["before"]
            ws.store("x", "small")  # this one fits
        ws.store("x", "after")
        assert list(ws.ifindTry("x")) == ["before", "small", "after"]
    assert house.contents() == {"x": ["before", "small", "after"]}


def test_what_is_fetched_while_the_disk_is_full_is_gone_once_there_is_room(house: House) -> None:
    with house.workspace() as ws:
        for number in range(10):
            ws.store("x", number)
        with room_for(house.path.stat().st_size + 10):
            assert [ws.fetch("x") for _ in range(4)] == [0, 1, 2, 3]
            with pytest.raises(WorkspaceFullError):
                ws.store("x", "more")
            with pytest.raises(WorkspaceFullError):
                ws.server.openWs("another", persistent=True)
        ws.store("x", 10)
    assert house.contents() == {"x": list(range(4, 11))}
    with house.server() as server, pytest.raises(NoSuchWorkspaceError):
        server.openWs("another", create=False)


def test_a_store_that_holds_more_than_the_server_may_is_refused(house: House) -> None:
    with house.workspace() as ws:
        ws.store("x", "a" * 100_000)
    with pytest.raises(WorkspaceFullError, match="do not fit"), house.workspace(max_bytes=1000):
        pass
    assert house.contents() == {"x": ["a" * 100_000]}


# ---------------------------------------------------------------------- its size, and the disk


def test_a_file_is_written_anew_when_most_of_it_is_of_no_use(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "COMPACT_AT", 10_000)
    with house.workspace() as ws:
        ws.store("kept", "k" * 5000)
        lent = ws.borrow("kept")
        ws.declare("bag", MULTI)
        for number in range(1000):
            ws.store("x", number)
            if number >= 5:
                ws.fetch("x")
        assert house.path.stat().st_size < 40_000
        lent.give_back()
        ws.store("kept", 2)
    with house.workspace() as ws:
        assert ws.listVars(format=DICT)["bag"][V_MODE] == MULTI
        ws.deleteVar("bag")
    assert house.contents() == {"kept": ["k" * 5000, 2], "x": list(range(995, 1000))}
    assert [path.name for path in house.path.parent.glob("store*")] == ["store"]


def test_without_room_for_writing_it_anew_the_old_file_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stores, "COMPACT_AT", 10_000)
    original = LogFile.take_place_of

    def no_room(self: LogFile, other: LogFile) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LogFile, "take_place_of", no_room)
    with house.workspace() as ws:
        for number in range(500):
            ws.store("x", number)
            if number >= 5:
                ws.fetch("x")
        assert "could not be written anew" in caplog.text
        monkeypatch.setattr(LogFile, "take_place_of", original)
        for number in range(500, 1000):
            ws.store("x", number)
            ws.fetch("x")
        assert house.path.stat().st_size < 60_000
    assert house.contents() == {"x": list(range(995, 1000))}


def test_where_no_new_file_can_be_made_the_old_one_goes_on_and_every_reply_comes(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stores, "COMPACT_AT", 10_000)
    in_the_way = house.path.with_name("store.new")
    in_the_way.mkdir()
    with house.workspace() as ws:
        for number in range(500):
            ws.store("x", number)
            assert ws.fetch("x") == number
        assert "could not be written anew" in caplog.text
    with house.workspace() as ws:  # too much of it is of no use: that keeps no server from starting
        ws.store("x", "last")
    in_the_way.rmdir()
    assert house.contents() == {"x": ["last"]}


def test_a_folder_that_cannot_be_synced_costs_no_value(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.fsync

    def only_files(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(22, "Invalid argument")
        original(file)

    monkeypatch.setattr("os.fsync", only_files)
    monkeypatch.setattr(stores, "COMPACT_AT", 10_000)
    with house.workspace() as ws:
        for number in range(500):
            ws.store("x", number)
            if number >= 5:
                ws.fetch("x")
    assert house.contents() == {"x": list(range(495, 500))}


@pytest.mark.parametrize("sync", [stores.ALWAYS, stores.SECOND, stores.NEVER])
def test_the_disk_is_asked_as_often_as_was_said(
    house: House, monkeypatch: pytest.MonkeyPatch, sync: str
) -> None:
    synced = []
    monkeypatch.setattr(stores, "SYNC_SECONDS", 0.05)
    monkeypatch.setattr("os.fsync", lambda file: synced.append(file))
    with house.workspace(sync=sync) as ws:
        before = len(synced)
        ws.store("x", 1)
        if sync == stores.ALWAYS:
            assert len(synced) == before + 1
        elif sync == stores.SECOND:
            wait_for(lambda: len(synced) > before, "it is synced")
    assert bool(synced) == (sync != stores.NEVER)


def test_what_goes_together_is_forced_to_the_disk_together(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(file))
    with house.workspace(sync=stores.ALWAYS) as ws:
        ws.storeMany("x", range(100))
        ws.storeMany("y", range(100))
        ws.find("x")
        before = len(synced)
        assert len(ws.fetchMany("x", 100)) == 100
        ws.find("y")  # behind which all is done that has to do with the fetch
        assert len(synced) == before + 1
        ws.deleteVar("y")
        assert len(synced) == before + 3  # its values, and the variable


def test_a_disk_that_fails_is_not_trusted_any_more(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stores, "SYNC_SECONDS", 0.05)
    with house.workspace() as ws:
        ws.store("x", 1)
        monkeypatch.setattr("os.fsync", fail)
        with contextlib.suppress(WorkspaceFullError):  # what was stored before may have been enough
            ws.store("y", 1)
        wait_for(lambda: "is not safe on its disk" in caplog.text, "it is noticed")
        with pytest.raises(WorkspaceFullError, match="Input/output error"):
            ws.store("x", 2)
        assert list(ws.ifindTry("x")) == [1]
        ws.server.useWs("in memory only").store("x", 1)


def test_a_disk_that_fails_once_is_not_trusted_either(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original, failures = os.fsync, [OSError(5, "Input/output error")]

    def fail_once(file: int) -> None:
        if failures:
            raise failures.pop()
        original(file)

    with house.workspace(sync=stores.ALWAYS) as ws:
        ws.store("x", 1)
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", fail_once)
            for value in (2, 3):  # the second time the disk says that all is well
                with pytest.raises(WorkspaceFullError, match="Input/output error"):
                    ws.store("x", value)
        assert "is not safe on its disk" in caplog.text
        assert list(ws.ifindTry("x")) == [1]
    assert house.contents() == {"x": [1]}


def test_stores_that_a_failed_disk_refuses_take_no_memory(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: int) -> None:
        raise OSError(5, "Input/output error")

    def frames() -> int:
        gc.collect()
        return sum(type(each) is TracebackType for each in gc.get_objects())

    def store() -> None:
        with contextlib.suppress(WorkspaceFullError):
            ws.store("x", 1)

    with house.workspace(sync=stores.ALWAYS) as ws:
        monkeypatch.setattr("os.fsync", fail)
        store()
        store()
        before = frames()
        for _ in range(20):
            store()
        assert frames() < before + 20


def test_the_server_reads_no_pickle(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with house.workspace() as ws:
        ws.store("x", house.path)
        ws.store("x", 2)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    with monkeypatch.context() as patch:
        patch.setattr("pickle.loads", refuse)
        with WorkspaceServer("unix", store=str(house.path)):
            pass
    assert house.contents() == {"x": [house.path, 2]}


def test_random_traffic_is_found_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a model, over several starts, some with the file being written anew."""
    monkeypatch.setattr(stores, "COMPACT_AT", 2_000)
    chance, model = random.Random(5), dict[str, list[Any]]()
    for _ in range(6):
        with house.workspace() as ws:
            for number in range(150):
                name = chance.choice("abc")
                what = chance.random()
                if what < 0.5:
                    ws.store(name, number)
                    model.setdefault(name, []).append(number)
                elif what < 0.9:
                    values = model.get(name, [])
                    assert ws.fetchTry(name, "none") == (values.pop(0) if values else "none")
                    model.setdefault(name, values)
                elif what < 0.95:
                    with contextlib.suppress(LookupError, Exception):
                        ws.deleteVar(name)
                    model.pop(name, None)
                else:
                    ws.store(name, -number, keep=4)
                    model[name] = [*model.get(name, []), -number][-4:]
    got = {name: values for name, values in house.contents().items() if values}
    assert got == {name: values for name, values in model.items() if values}
