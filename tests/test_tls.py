"""Servers beyond the loopback: always TLS, one known certificate, and keys that are for one role.

127.0.0.2 stands for an address of the network: it is none of those that are served in the clear.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import sleighexec.server
from sleighexec import (
    Command,
    NetWorkSpace,
    NwsServer,
    Sleigh,
    SleighExecutor,
    WorkspaceServer,
    errors,
)
from sleighexec.access import ask
from sleighexec.address import Address, connection_file, find, save
from sleighexec.dial import connect, reach
from sleighexec.limits import Limits
from sleighexec.messages import Fetch, ListWorkspaces, Open, Status, Store
from sleighexec.session import CLIENT, MONITOR, WORKER
from sleighexec.tls import Certificate, TlsSocket
from tests.conftest import in_threads, wait_for

ELSEWHERE = "127.0.0.2:0"
PATIENCE = 20


@pytest.fixture
def server(run_directory: Path) -> Iterator[WorkspaceServer]:
    with WorkspaceServer(ELSEWHERE) as server:
        yield server


def place(server: WorkspaceServer) -> tuple[str, int]:
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def test_a_server_beyond_the_loopback_has_tls(server: WorkspaceServer) -> None:
    assert server.url.startswith("sleigh+tls://127.0.0.2:")
    with NwsServer(url=server.url) as found, found.openWs("x") as ws:
        ws.store("y", "z" * 100_000)
        assert ws.fetch("y") == "z" * 100_000
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(place(server)) as sock, context.wrap_socket(sock) as secure:
        assert secure.version() == "TLSv1.3"
        assert len(secure.recv(40)) == 40
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(place(server)) as sock, pytest.raises(OSError):  # noqa: PT011
        context.wrap_socket(sock)


def test_who_names_host_and_port_need_not_know_of_tls(server: WorkspaceServer) -> None:
    host, port = place(server)
    with NetWorkSpace("x", host, port) as ws:
        ws.store("y", 1)
        assert ws.server.url == server.url
    with Sleigh(nwsHost=host, nwsPort=port, workerCount=1) as sleigh:
        assert sleigh.eachElem(abs, [-1, -2]) == [1, 2]
        with NwsServer(host, port) as found:
            assert "sleigh_user" in found.listWss()


def test_its_connection_file_is_the_users_alone_and_any_copy_of_it_will_do(
    server: WorkspaceServer, run_directory: Path, tmp_path: Path
) -> None:
    [path] = run_directory.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    copy = tmp_path / "copy.json"
    copy.write_text(path.read_text())
    copy.chmod(0o644)
    path.rename(tmp_path / "away.json")
    with pytest.raises(errors.AuthenticationError, match="chmod"):
        NwsServer(url=str(copy))
    copy.chmod(0o600)
    with NwsServer(url=str(copy)) as found:
        assert found.url == server.url
        with pytest.raises(errors.NoSuchWorkspaceError):
            found.useWs("x", create=False)


def test_a_server_that_was_started_again_is_found_by_who_knew_the_one_before(
    server: WorkspaceServer, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.json"
    copy.write_text(connection_file(server.url).read_text())
    copy.chmod(0o600)
    with NwsServer(url=str(copy)):
        pass  # from now on this process knows the server by its URL too
    server.close()
    with pytest.raises(errors.ConnectError):
        NwsServer(url=server.url)
    bind = "{}:{}".format(*place(server))
    with WorkspaceServer(bind) as again, NwsServer(url=server.url) as found:
        assert (again.url, found.url) == (server.url, server.url)


def test_another_certificate_is_refused_before_anything_is_said(server: WorkspaceServer) -> None:
    address = find(server.url)
    other = Address(address.url, address.key, bytes(32))
    with pytest.raises(errors.AuthenticationError, match="another certificate"):
        reach(other, CLIENT)


def test_who_stands_in_between_is_refused_by_both_sides(server: WorkspaceServer) -> None:
    """Even one whose certificate the client takes for the server's."""
    certificate = Certificate()
    address = find(server.url)
    with socket.create_server(("127.0.0.3", 0)) as listener:
        said: list[bytes] = []

        def between() -> None:
            sock, _ = listener.accept()
            client = TlsSocket(sock, certificate.context, server_side=True)
            client.settimeout(PATIENCE)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            onward = TlsSocket(socket.create_connection(place(server)), context, server_side=False)
            onward.settimeout(PATIENCE)
            with contextlib.suppress(OSError):
                client.sendall(onward.recv(40))
                onward.sendall(client.recv(88))
                said.append(onward.recv(40))
                client.sendall(said[0])
            client.close()
            onward.close()

        thread = threading.Thread(target=between)
        thread.start()
        url = f"sleigh+tls://127.0.0.3:{listener.getsockname()[1]}"
        with pytest.raises(errors.AuthenticationError):
            reach(Address(url, address.key, certificate.fingerprint), CLIENT)
        thread.join()
    assert said[0][4] == 1  # the server has refused it too


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n" * 20, b"slx1" + bytes(200), b"\x16\x03\x01\xff\xff" * 50]
)
def test_a_stranger_who_speaks_no_tls_is_cut_off(server: WorkspaceServer, data: bytes) -> None:
    with socket.create_connection(place(server), PATIENCE) as sock, contextlib.suppress(OSError):
        sock.sendall(data)
        while sock.recv(4096):
            pass
    with NwsServer(url=server.url) as found:
        found.openWs("x").store("y", 1)


def test_silent_strangers_are_cut_off_in_time_and_cost_no_work(
    server: WorkspaceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleighexec.server, "HANDSHAKE_SECONDS", 1.0)
    with socket.create_connection(place(server), PATIENCE) as sock:
        before = time.process_time()
        assert sock.recv(1) == b""
        assert time.process_time() - before < 0.7


def test_the_files_of_a_certificate_do_not_stay(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Certificate().fingerprint != Certificate().fingerprint
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ roles


def test_a_worker_uses_workspaces_but_deletes_none_of_others(server: WorkspaceServer) -> None:
    address = find(server.url).only_for(WORKER)
    sock, _ = reach(address, WORKER)
    from sleighexec.client import SocketConnection

    with NwsServer(url=server.url) as mine, mine.openWs("mine") as ws:
        worker = NwsServer(connection=SocketConnection(sock, server.url))
        worker.useWs("mine").store("x", 1)
        assert ws.fetch("x") == 1
        with pytest.raises(errors.OperationError, match="not its own"):
            worker.deleteWs("mine")
        worker.openWs("own")
        worker.deleteWs("own")
        worker.close()
        mine.deleteWs("mine")


def test_a_monitor_only_looks(server: WorkspaceServer) -> None:
    connection = connect(server.url, MONITOR)
    assert b"workspaces" in bytes(ask(connection, Status()).values[0].head)  # type: ignore[union-attr]
    with pytest.raises(errors.ConnectionLostError):
        ask(connection, ListWorkspaces())
    connection.close()


def test_a_key_for_one_role_opens_no_other(server: WorkspaceServer) -> None:
    worker = find(server.url).only_for(WORKER)
    with pytest.raises(errors.AuthenticationError, match="not for a client"):
        reach(worker, CLIENT)
    for wrong in (CLIENT, MONITOR):  # who says so all the same
        forged = Address(worker.url, worker.key, worker.fingerprint, wrong)
        with pytest.raises(errors.AuthenticationError, match="refused"):
            reach(forged, wrong)


def test_a_connection_file_may_have_the_keys_of_some_roles_only(
    server: WorkspaceServer, run_directory: Path
) -> None:
    address = find(server.url)
    path = save(address, (WORKER, MONITOR))
    assert address.key.hex() not in path.read_text()
    with pytest.raises(errors.AuthenticationError, match="worker, monitor; not for a client"):
        NwsServer(url=server.url)
    connect(server.url, WORKER).close()
    connect(str(path), MONITOR).close()
    path.write_text("[]")
    with pytest.raises(errors.ConnectError, match="no connection file"):
        NwsServer(url=server.url)


# ------------------------------------------------------------------ much at once


def test_many_threads_share_one_connection(server: WorkspaceServer) -> None:
    with NwsServer(url=server.url) as found:
        ws = found.openWs("x")

        def work(number: int) -> None:
            for size in (10, 5_000, 70_000, 300_000) * 10:
                ws.store(f"v{number}", bytes([number]) * size)
                assert ws.fetch(f"v{number}", timeout=PATIENCE) == bytes([number]) * size

        in_threads(work, range(8))


def test_who_reads_late_gets_everything(run_directory: Path, monkeypatch: Any) -> None:
    """Requests that came while its replies waited are answered when it reads again."""
    monkeypatch.setattr(
        "sleighexec.standalone.Limits",
        lambda **given: Limits(**given, unsent_bytes=200_000),
    )
    with WorkspaceServer(ELSEWHERE) as server, NwsServer(url=server.url) as found:
        connection: Any = found._connection
        ws = found.openWs("x")
        number = ws._access.number
        ws.store("big", b"b" * 100_000)
        from sleighexec.messages import Find

        tags = [connection.post(Find(number, ("big",), 0)) for _ in range(200)]
        wait_for(lambda: _stalls(server), "the server does not wait for its reader")
        for tag in tags:
            assert len(connection.wait(tag).values[0].head) == 100_000


def _stalls(server: WorkspaceServer) -> bool:
    with server._server.lock:
        connections = list(server._server._connections.values())
        return any(connection.waiting_replies is not None for connection in connections)


# ------------------------------------------------------------------ executors


@pytest.mark.parametrize("by", ["url", "file"])
def test_workers_elsewhere_use_a_workspace_server(
    server: WorkspaceServer, run_directory: Path, tmp_path: Path, by: str
) -> None:
    """They have no connection file; their executor tells them what they need."""
    [path] = run_directory.iterdir()
    where = server.url if by == "url" else str(path)
    nowhere = tmp_path / "nowhere"
    place = Command("{agent}", 2, env={"SLEIGHEXEC_RUN_DIR": str(nowhere)})

    def put(ws: NetWorkSpace, number: int) -> None:
        from sleighexec import current_worker

        current_worker().workspace.store("mine", number)
        ws.store("given", number)

    with SleighExecutor(launcher=place, workspace=where) as executor:
        with NwsServer(url=server.url) as other:
            ws = other.openWs("another")
            list(executor.map(put, [ws] * 20, range(20)))
            for workspace, name in ((executor.workspace, "mine"), (ws, "given")):
                got = sorted(workspace.fetch(name, timeout=PATIENCE) for _ in range(20))
                assert got == list(range(20))
        error = executor.submit(delete, executor.workspace).exception(PATIENCE)
        assert isinstance(error, errors.OperationError)
        assert executor.submit(os.path.exists, nowhere).result(PATIENCE) is False


def delete(ws: NetWorkSpace) -> None:
    ws.server.deleteWs(ws.curWs)


# ------------------------------------------------------------------ status


def status(*arguments: str) -> str:
    command = [sys.executable, "-m", "sleighexec", "status", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_status_of_a_server(server: WorkspaceServer, run_directory: Path) -> None:
    with NwsServer(url=server.url) as found, found.openWs("x") as ws:
        ws.store("y", 1)
        [path] = run_directory.iterdir()
        facts = json.loads(status(str(path), "--json"))
        assert facts["url"] == server.url
        assert facts["pid"] == os.getpid()
        assert facts["values"] == 1
        assert facts["connections"] == 2
        assert "values: 1\n" in status(server.url)


def test_a_blocked_fetch_counts(server: WorkspaceServer) -> None:
    connection = connect(server.url)
    opened: Any = ask(connection, Open("x"))
    connection.post(Fetch(opened.workspace, ("y",)))
    wait_for(lambda: "blocked: 1\n" in status(server.url), "it is not counted")
    ask(connection, Store(opened.workspace, "z", [sleighexec.payload.value_payload(1)]))
    connection.close()
