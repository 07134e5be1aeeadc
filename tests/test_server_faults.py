"""A workspace server that dies: who waits is told, and nobody takes its successor for it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from sleighexec import NetWorkSpace, NwsServer, SleighExecutor, current_worker, errors
from sleighexec.client import SocketConnection
from tests.conftest import blocked, wait_for

PATIENCE = 20

Daemon = tuple[subprocess.Popen[str], str]
StartDaemon = Callable[[str], Daemon]


@pytest.fixture
def start(run_directory: Path) -> Iterator[StartDaemon]:
    """Starts `sleighexec server` at an address; the process and its URL."""
    started: list[subprocess.Popen[str]] = []

    def start(bind: str) -> Daemon:
        command = [sys.executable, "-m", "sleighexec", "server", "--bind", bind, "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())["url"]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("bind", ["unix", "127.0.0.1:0"])
def test_when_a_server_is_killed_who_waits_is_told(start: StartDaemon, bind: str) -> None:
    process, url = start(bind)
    with (
        NetWorkSpace("room", server=NwsServer(url=url)) as ws,
        ThreadPoolExecutor(3) as threads,
    ):
        ws.store("lent", 1)
        loan = ws.borrow("lent")
        waiting = [
            threads.submit(ws.fetch, "nothing"),
            threads.submit(ws.find, "nothing"),
            threads.submit(next, ws.ifetch("nothing")),
        ]
        blocked(ws, "nothing", fetchers=2, finders=1)
        process.kill()
        for future in waiting:
            assert isinstance(future.exception(PATIENCE), errors.ConnectionLostError)
        with pytest.raises(errors.ConnectionLostError):
            ws.store("x", 1)
        with pytest.raises(errors.ConnectionLostError):
            loan.settle()


def test_a_server_that_was_started_again_is_another_one(start: StartDaemon) -> None:
    process, url = start("127.0.0.1:0")
    with NetWorkSpace("room", server=NwsServer(url=url)) as old:
        old.store("x", "of the first")
        process.kill()
        process.wait(PATIENCE)
        _, again = start(url.removeprefix("sleigh://"))
        assert again == url
        with NetWorkSpace("room", server=NwsServer(url=url)) as new:
            assert new.findTry("x", "nothing") == "nothing"
            new.store("x", "of the second")
            for _ in range(2):
                with pytest.raises(errors.ConnectionLostError):
                    old.fetch("x", timeout=1)
            assert new.fetchTry("x") == "of the second"


def wait_in_the_workspace() -> object:
    current_worker().workspace.store("here", 1)
    return current_worker().workspace.fetch("never")


def test_an_executor_outlives_the_server_of_its_workspace(start: StartDaemon) -> None:
    """Calls that need the workspace fail; the others know nothing of it."""
    process, url = start("unix")
    with SleighExecutor(2, workspace=url) as executor:
        waiting = executor.submit(wait_in_the_workspace)
        executor.workspace.fetch("here", timeout=PATIENCE)
        running = executor.submit(time.sleep, 0.2)
        process.kill()
        assert isinstance(waiting.exception(PATIENCE), errors.ConnectionLostError)
        assert running.result(PATIENCE) is None
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_store_that_failed_may_have_happened_and_a_lost_fetch_takes_nothing(
    start: StartDaemon,
) -> None:
    """What the connection's end leaves open: a store; what it does not: a fetch."""
    _, url = start("unix")
    with NetWorkSpace("room", server=NwsServer(url=url), persistent=True) as ws:
        other = NetWorkSpace("room", server=NwsServer(url=url), useUse=True)
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(other.fetch, "x")
            blocked(ws, "x", fetchers=1)
            other.close()
            assert isinstance(waiting.exception(PATIENCE), errors.ConnectionLostError)
        ws.store("x", 1)
        wait_for(lambda: ws.findTry("x") == 1, "the value is there for somebody else")
        with pytest.raises(errors.ConnectionLostError):
            other.store("x", 2)
        assert list(ws.ifetchTry("x")) == [1]


def test_what_is_lent_over_a_connection_that_is_lost_here_goes_back(
    start: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = start("unix")
    with NwsServer(url=url) as watcher, NwsServer(url=url) as interrupted:
        room = watcher.useWs("room")
        interrupted.openWs("its own").store("x", 1)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(interrupted.useWs("room").fetch, "x")
            blocked(room, "x", fetchers=1)

            def interrupt(count: int) -> object:
                raise KeyboardInterrupt

            connection = cast("SocketConnection", interrupted._connection)
            monkeypatch.setattr(connection._decoder, "received", interrupt)  # once: it is lost then
            room.store("x", "for whoever is there")
            assert isinstance(waiting.exception(PATIENCE), KeyboardInterrupt)
        with pytest.raises(errors.ConnectionLostError, match="KeyboardInterrupt came amid"):
            interrupted.listWss()
        assert room.fetch("x", timeout=PATIENCE) == "for whoever is there"
        wait_for(lambda: "its own" not in watcher.listWss(), "its workspace is deleted")
