"""Stores that nobody waits for: in order, bounded, and what goes wrong is heard of."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleighexec import NetWorkSpace, NwsServer, SleighExecutor, WorkspaceServer, current_worker
from sleighexec.client import MOST_AHEAD, SocketConnection
from sleighexec.errors import (
    ConnectionLostError,
    NoSuchWorkspaceError,
    OperationError,
    ValuePicklingError,
    WorkspaceFullError,
)
from sleighexec.ledger import STORES
from sleighexec.messages import Store
from tests.conftest import Local, Socket, blocked, in_threads, wait_for

MANY = 3 * MOST_AHEAD


def test_they_come_in_order_before_what_is_asked_next(ws: NetWorkSpace) -> None:
    for number in range(MANY):
        ws.store("x", number, wait=False)
    assert ws.fetchMany("x", MANY) == list(range(MANY))
    ws.flush()
    ws.flush()


def test_who_waits_for_a_value_gets_it_though_nobody_flushes(
    ws: NetWorkSpace, house: Local | Socket
) -> None:
    with house.connect() as other:
        found: list[object] = []
        waiting = threading.Thread(target=lambda: found.append(other.useWs("test").fetch("x")))
        waiting.start()
        blocked(ws, "x", fetchers=1)
        ws.store("x", "hello", wait=False)
        waiting.join(10)
    assert found == ["hello"]


def test_options_of_a_store_hold(ws: NetWorkSpace) -> None:
    for number in range(10):
        ws.store("log", number, keep=3, wait=False)
    assert ws.fetchMany("log", 10) == [7, 8, 9]


def test_big_arrays_are_as_they_were_when_they_were_stored(ws: NetWorkSpace) -> None:
    array = numpy.zeros(300_000)
    for number in range(20):
        array[:] = number
        ws.store("x", array, wait=False)
    for number in range(20):
        assert (ws.fetch("x") == number).all()


def test_a_refusal_comes_once_with_the_next_store_or_flush(
    ws: NetWorkSpace, house: Local | Socket
) -> None:
    with house.connect() as other:
        gone = other.openWs("gone")
        ours = ws.server.useWs("gone")
        other.deleteWs("gone")
        assert gone is not None
    if isinstance(house, Local):  # there is nothing on the way: it says so at once
        with pytest.raises(NoSuchWorkspaceError):
            ours.store("x", 1, wait=False)
        ws.flush()
        return
    ours.store("x", 1, wait=False)
    ws.store("x", 2, wait=False)
    ws.flush()
    with pytest.raises(NoSuchWorkspaceError):
        ours.flush()
    ours.flush()
    ours.store("x", 3, wait=False)
    assert ws.fetch("x") == 2  # by then the refusal is here
    ws.store("x", 4, wait=False)  # it is none of this workspace
    ws.flush()
    with pytest.raises(NoSuchWorkspaceError):
        ours.store("x", 5, wait=False)
    assert ws.fetch("x") == 4
    ours.store("x", 6, wait=False)
    with pytest.raises(NoSuchWorkspaceError):
        ws.server.close()


def test_what_cannot_be_pickled_is_told_at_once(ws: NetWorkSpace) -> None:
    with pytest.raises(ValuePicklingError):
        ws.store("x", threading.Lock(), wait=False)
    with pytest.raises(ValueError, match="keep"):
        ws.store("x", 1, keep=0, wait=False)
    ws.flush()
    assert ws.fetchTry("x") is None


def test_threads_do_not_disturb_each_other(ws: NetWorkSpace) -> None:
    def store(thread: int) -> None:
        for number in range(MOST_AHEAD):
            ws.store(f"x{thread}", number, wait=False)
            if number % 100 == 0:
                ws.store(f"y{thread}", number)
        ws.flush()

    in_threads(store, range(4))
    for thread in range(4):
        assert ws.fetchMany(f"x{thread}", MOST_AHEAD) == list(range(MOST_AHEAD))
        assert len(ws.fetchMany(f"y{thread}", 100)) == 1 + MOST_AHEAD // 100


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ahead", "wait", "fetch"]))))
def test_waiting_or_not_makes_no_difference_to_what_is_there(
    steps: list[tuple[str, str]],
) -> None:
    told = []
    with ExitStack() as stack:
        executor = stack.enter_context(SleighExecutor(1))
        url = stack.enter_context(WorkspaceServer("127.0.0.1:0")).url
        there = stack.enter_context(NwsServer(url=url))
        for ws in (executor.workspace, there.openWs("test")):
            heard = []
            for number, (name, how) in enumerate(steps):
                if how == "fetch":
                    heard.append(ws.fetchTry(name))
                else:
                    ws.store(name, number, wait=how == "wait")
            told.append((heard, [ws.fetchTry(name) for name in "abc" for _ in steps]))
    assert told[0] == told[1]


# ---------------------------------------------------------------------- servers of their own


@pytest.fixture
def standalone(run_directory: Path) -> Iterator[WorkspaceServer]:
    with WorkspaceServer("unix", max_bytes=10_000) as server:
        yield server


def test_a_server_that_is_full_is_heard_of_when_the_connection_is_closed(
    standalone: WorkspaceServer,
) -> None:
    server = NwsServer(url=standalone.url)
    ws = server.useWs("test")
    for number in range(5):
        ws.store("x", bytes([number]) * 3_000, wait=False)
    with pytest.raises(WorkspaceFullError, match="--max-bytes"):
        server.close()
    server.close()
    with NwsServer(url=standalone.url) as server:
        values = server.useWs("test").fetchMany("x", 20)
        assert [value[0] for value in values] == [0, 1, 2]


def test_who_closes_has_stored_all(run_directory: Path) -> None:
    with WorkspaceServer("127.0.0.1:0") as standalone:
        with NwsServer(url=standalone.url) as server:
            ws = server.useWs("test")
            for number in range(MANY):
                ws.store("x", number, wait=False)
        with NwsServer(url=standalone.url) as server:
            assert server.useWs("test").fetchMany("x", MANY) == list(range(MANY))


def test_a_server_that_dies_leaves_a_word_about_what_is_not_known(run_directory: Path) -> None:
    words = [sys.executable, "-m", "sleighexec", "server"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(_answers, "it is there")
        server = NwsServer(url="unix")
        ws = server.useWs("test")
        ws.store("x", 0)
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # until it stands still
        for number in range(7):
            ws.store("x", number, wait=False)
        process.kill()
    with pytest.raises(ConnectionLostError, match="which of 7 stores"):
        ws.flush()
    with pytest.raises(ConnectionLostError):
        ws.store("x", 8, wait=False)
    server.close()


def _answers() -> bool:
    try:
        NwsServer(url="unix").close()
    except OSError:
        return False
    return True


@pytest.mark.filterwarnings("ignore:.*unclosed:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_connection_that_is_forgotten_loses_nothing(run_directory: Path) -> None:
    with WorkspaceServer("127.0.0.1:0") as standalone:
        for _ in range(5):
            for number in range(4):  # nobody has the workspace but the call
                _workspace_at(standalone.url).store("x", number, wait=False)
            ws = _workspace_at(standalone.url)
            for number in range(MANY):
                ws.store("y", number, wait=False)
            del ws
            gc.collect()
        with NwsServer(url=standalone.url) as server:
            ws = server.useWs("test")
            assert ws.fetchMany("x", 100) == [0, 1, 2, 3] * 5
            assert list(ws.ifetchTry("y")) == [*range(MANY)] * 5


def _workspace_at(url: str) -> NetWorkSpace:
    return NwsServer(url=url).useWs("test")


def test_a_flush_does_not_wait_for_what_others_store_meanwhile(ws: NetWorkSpace) -> None:
    stop = threading.Event()

    def store() -> None:
        while not stop.is_set():
            ws.store("y", 1, keep=10, wait=False)

    thread = threading.Thread(target=store)
    thread.start()
    try:
        for number in range(20):
            ws.store("x", number, wait=False)
            ws.flush()
            assert ws.fetchTry("x") == number
    finally:
        stop.set()
        thread.join(10)


def test_no_more_are_on_their_way_than_a_bounded_number() -> None:
    ours, theirs = socket.socketpair()
    connection = SocketConnection(ours)
    sent: list[int] = []

    def store() -> None:
        with suppress(ConnectionLostError):
            while True:
                connection.call_ahead(Store(1, "x", ()))
                sent.append(1)

    def hear() -> None:  # and never answer
        while theirs.recv(65536):
            pass

    works = [threading.Thread(target=work) for work in (store, hear)]
    for work in works:
        work.start()
    wait_for(lambda: len(sent) == MOST_AHEAD, "so many are sent")
    time.sleep(0.05)
    assert len(sent) == MOST_AHEAD < STORES
    with pytest.raises(ConnectionLostError, match=r"did not answer within 0\.05 s"):
        connection.flush(None, 0.05)
    connection.close()
    for work in works:
        work.join(10)
        assert not work.is_alive()
    theirs.close()


def test_a_task_stores_without_waiting(executor: SleighExecutor) -> None:
    executor.submit(_count, 100).result()
    assert executor.workspace.fetchMany("count", 200) == list(range(100))


def _count(number: int) -> None:
    workspace = current_worker().workspace
    for each in range(number):
        workspace.store("count", each, wait=False)


def test_a_refusal_in_a_task_is_an_error_of_the_task(executor: SleighExecutor) -> None:
    with pytest.raises(OperationError):
        executor.submit(_refused).result()
    assert executor.submit(os.getpid).result()


def _refused() -> None:
    workspace = current_worker().workspace
    gone = workspace.server.openWs("gone")
    workspace.server.deleteWs("gone")
    gone.store("x", 1, wait=False)
    gone.flush()


# ---------------------------------------------------------------------- amid a frame


class Late(BaseException):
    """What a signal handler raises."""


def signals_amid(test: Any) -> Any:
    """For a test with SIGALRM, which pytest-timeout needs too unless it is told otherwise.

    Where a moment falls into the callback of a weak reference, Python drops what is raised there.
    """
    ignored = r"ignore:Exception ignored[\s\S]*Late:pytest.PytestUnraisableExceptionWarning"
    return pytest.mark.timeout(method="thread")(pytest.mark.filterwarnings(ignored)(test))


@signals_amid
@pytest.mark.parametrize("bind", ["127.0.0.1:0", "127.0.0.2:0"], ids=["tcp", "tls"])
@pytest.mark.parametrize("wait", [True, False])
def test_who_is_interrupted_amid_a_big_store_hangs_at_nothing_afterwards(
    run_directory: Path, bind: str, wait: bool
) -> None:
    """The connection may be lost with it, or not; a new one finds the server well."""

    def interrupt(*_: object) -> None:
        raise Late

    with WorkspaceServer(bind) as standalone:
        old = signal.signal(signal.SIGALRM, interrupt)
        server = NwsServer(url=standalone.url)
        try:
            ws, big = server.useWs("test"), bytearray(60_000_000)
            for seconds in (0.001, 0.005, 0.02):
                with suppress(Late, ConnectionLostError):
                    signal.setitimer(signal.ITIMER_REAL, seconds)
                    ws.store("x", big, wait=wait)
                    time.sleep(0.05)  # it may have come where nobody heeds it
                with suppress(ConnectionLostError):
                    ws.fetchTry("nothing")
                if ws.server._connection.closed:  # type: ignore[attr-defined]
                    with suppress(ConnectionLostError):
                        server.close()
                    server = NwsServer(url=standalone.url)
                    ws = server.useWs("test")
        finally:
            signal.signal(signal.SIGALRM, old)
        ws.store("y", 1)
        assert ws.fetch("y", timeout=20) == 1
        server.close()


@signals_amid
@pytest.mark.parametrize("bind", ["unix", "127.0.0.1:0"], ids=["unix", "tcp"])
def test_who_is_interrupted_at_any_time_hangs_at_nothing_afterwards(
    run_directory: Path, bind: str
) -> None:
    armed: list[bool] = []

    def interrupt(*_: object) -> None:
        if armed:
            armed.clear()
            raise Late

    with WorkspaceServer(bind) as standalone:
        server = NwsServer(url=standalone.url)
        ws = server.useWs("test")
        old = signal.signal(signal.SIGALRM, interrupt)
        # It may come between our own steps, and amid one of the connection, which is lost then.
        with suppress(ConnectionLostError, Late):
            try:
                for number in range(300):
                    with suppress(Late):
                        armed.append(True)
                        signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + number % 30))
                        # Not for ever: in a weak reference's callback nobody hears it.
                        for _ in range(1000):
                            ws.store("x", number, keep=3, wait=number % 2 == 0)
            finally:
                armed.clear()
                signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        if ws.server._connection.closed:  # type: ignore[attr-defined]
            with suppress(ConnectionLostError):
                server.close()
            server = NwsServer(url=standalone.url)
            ws = server.useWs("test")
        ws.store("x", "last")
        assert ws.fetchMany("x", 10)[-1] == "last"
        server.close()
