"""A store whose connection is lost is done or not; another try makes it done, once."""

from __future__ import annotations

import array
import fcntl
import pickle
import socket
import termios
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sleighexec import NetWorkSpace, NwsServer, SleighExecutor, WorkspaceServer
from sleighexec.errors import ConnectionLostError, OperationError, OperationUnknownError
from sleighexec.ledger import CLIENTS, STORES, Ledger
from tests.conftest import wait_for


@pytest.fixture
def standalone(run_directory: Path) -> Iterator[WorkspaceServer]:
    with WorkspaceServer("unix") as server:
        yield server


def stored_and_cut(standalone: WorkspaceServer, ws: NetWorkSpace, value: object) -> Exception:
    """Store a value of which the server's word does not come back."""
    ws.server._connection._socket.shutdown(socket.SHUT_RD)  # type: ignore[attr-defined]
    with pytest.raises(OperationUnknownError) as caught:
        ws.store("x", value)
    return caught.value


def waiting_bytes(sock: socket.socket) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, count)
    return count[0]


def cut_and_not_stored(standalone: WorkspaceServer, ws: NetWorkSpace, value: object) -> Exception:
    """Store a value that the server never reads."""
    server, caught = standalone._server, list[Exception]()

    def store() -> None:
        try:
            ws.store("x", value)
        except ConnectionLostError as error:
            caught.append(error)

    with server.lock:
        [connection] = server._connections.values()
        thread = threading.Thread(target=store)
        thread.start()
        # The word that it sees the server's memory may stand before the request: 32 bytes.
        wait_for(lambda: waiting_bytes(connection.socket) > 32, "the request has been sent")
        server._close(connection)
    thread.join()
    return caught[0]


@pytest.mark.parametrize("cut", [stored_and_cut, cut_and_not_stored])
def test_a_store_that_was_cut_is_not_known_and_its_next_try_stores_it_once(
    standalone: WorkspaceServer, cut: Callable[..., Exception]
) -> None:
    with NwsServer(url=standalone.url) as server:
        ws = server.useWs("kept")
        ws.store("x", 1)
        error = cut(standalone, ws, 2)
    assert isinstance(error, OperationUnknownError)
    assert isinstance(error, ConnectionLostError)
    assert "it is not known whether the value was stored" in str(error)
    assert pickle.loads(pickle.dumps(error)).args == error.args
    with NwsServer(url=standalone.url) as server:
        ws = server.useWs("kept")
        for _ in range(3):
            ws.store("x", 2, again=error)
        ws.store("x", 3)
        assert [*ws.ifetchTry("x")] == [1, 2, 3]


def test_the_next_try_may_be_cut_as_well(standalone: WorkspaceServer) -> None:
    error = None
    for cut in (cut_and_not_stored, stored_and_cut, stored_and_cut):
        with NwsServer(url=standalone.url) as server:
            ws = server.useWs("kept")
            ws.store = partial(ws.store, again=error)  # type: ignore[method-assign]
            error = cut(standalone, ws, 5)
    with NwsServer(url=standalone.url) as server:
        ws = server.useWs("kept")
        ws.store("x", 5, again=error)  # type: ignore[arg-type]
        assert [*ws.ifetchTry("x")] == [5]


def test_what_has_gone_with_its_workspace_is_stored_in_the_new_one(
    standalone: WorkspaceServer,
) -> None:
    with NwsServer(url=standalone.url) as server:
        error = stored_and_cut(standalone, server.openWs("mine"), 1)  # it ends with us
    with NwsServer(url=standalone.url) as server:
        wait_for(lambda: "mine" not in server.listWss("dict"), "the workspace is gone")
        ws = server.openWs("mine")
        ws.store("x", 1, again=error)  # type: ignore[arg-type]
        assert [*ws.ifetchTry("x")] == [1]


def test_another_server_says_that_it_does_not_know(run_directory: Path) -> None:
    with WorkspaceServer("unix") as standalone, NwsServer(url=standalone.url) as server:
        error = stored_and_cut(standalone, server.useWs("kept"), 1)
    with WorkspaceServer("unix") as standalone, NwsServer(url=standalone.url) as server:
        ws = server.useWs("kept")
        with pytest.raises(OperationError, match="not known here"):
            ws.store("x", 1, again=error)  # type: ignore[arg-type]
        assert ws.fetchTry("x") is None
    with SleighExecutor(1) as executor, pytest.raises(OperationError, match="not known here"):
        executor.workspace.store("x", 1, again=error)  # type: ignore[arg-type]


def test_what_was_never_sent_was_not_stored_and_the_error_says_so(
    standalone: WorkspaceServer,
) -> None:
    with NwsServer(url=standalone.url) as server:
        ws = server.useWs("kept")
    with pytest.raises(ConnectionLostError) as caught:
        ws.store("x", 1)
    assert not isinstance(caught.value, OperationUnknownError)


# ---------------------------------------------------------------------- what is remembered


def test_a_ledger_knows_what_was_done_and_what_was_not() -> None:
    ledger = Ledger()
    assert ledger.workspace("a", 1) is None
    ledger.meet("a")
    ledger.note("a", 2, 7)
    assert [ledger.workspace("a", tag) for tag in (1, 2, 3)] == [0, 7, 0]


def test_a_ledger_that_has_forgotten_says_so() -> None:
    ledger = Ledger()
    ledger.meet("a")
    for tag in range(1, STORES + 11):
        ledger.note("a", tag, 7)
    assert [ledger.workspace("a", tag) for tag in (1, 10, 11, STORES + 11)] == [None, None, 7, 0]
    for number in range(CLIENTS):
        ledger.meet(f"b{number}")
    assert ledger.workspace("a", 11) is None
    ledger.note("a", 500, 7)  # a client that is there still
    assert [ledger.workspace("a", tag) for tag in (499, 500, 501)] == [None, 7, 0]
