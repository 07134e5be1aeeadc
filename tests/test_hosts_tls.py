"""Hosts with networks of their own that speak TLS to us, and what a cut cable does to that."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from socket import gethostname

import pytest

from sleighexec import (
    NwsServer,
    SleighExecutor,
    WorkerLost,
    WorkspaceServer,
    current_worker,
)
from tests.conftest import wait_for
from tests.hosts import NAMES, Host, Hosts, why_no_loss
from tests.test_hosts import NO_NAMESPACES, all_hosts, hosts, real

__all__ = ["all_hosts", "hosts"]
PATIENCE = 60
NO_LOSS = NO_NAMESPACES or why_no_loss()
pytestmark = [real, pytest.mark.once]


def on(host: Host, *words: str) -> subprocess.Popen[str]:
    """A command over there; its output comes by a pipe."""
    setup = 'hostname "$0" && exec "$@"'
    words = ("unshare", "--uts", "sh", "-c", setup, host.name, *words)
    return subprocess.Popen(
        ["ip", "netns", "exec", host.namespace, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def hippo(hosts: Hosts, run_directory: Path) -> Host:
    return hosts["hippo"]


def test_a_host_joins_and_is_lost_when_its_cable_is_cut(hippo: Host) -> None:
    with SleighExecutor(1) as executor:
        url = executor.listen(f"{hippo.client_address}:0")
        words = sys.executable, "-m", "sleighexec", "worker", url
        with on(hippo, *words) as machine:
            wait_for(lambda: executor.worker_count == 2, "it does not join", PATIENCE)
            assert executor.eachWorker(gethostname) == [gethostname(), "hippo"]
            running = executor.eachWorker(_stay, gethostname(), blocking=False)
            assert running[0].result(PATIENCE) == gethostname()
            wait_for(running[1].running, "it does not run")
            with hippo.cut():
                error = running[1].exception(PATIENCE)
                assert isinstance(error, WorkerLost)
                assert error.host == "hippo"
                assert "no sign of life for 5 s" in error.reason
                assert executor.worker_count == 1
                assert list(executor.map(abs, range(-100, 0))) == list(range(100, 0, -1))
            # It learns of it when the cable is there again, and ends; nothing of it comes back.
            machine.communicate(timeout=PATIENCE)
            assert machine.returncode == 1
        assert executor.eachWorker(gethostname) == [gethostname()]


def test_a_big_constant_is_sent_once_to_a_host_that_has_joined(hippo: Host) -> None:
    data = os.urandom(8_000_000)
    with SleighExecutor(1) as executor:
        url = executor.listen(f"{hippo.client_address}:0")
        words = sys.executable, "-m", "sleighexec", "worker", url, "--workers", "4"
        with on(hippo, *words) as machine:
            wait_for(lambda: executor.worker_count == 5, "it does not join", PATIENCE)
            executor.eachWorker(abs, -1)
            handle, before = executor.share(data), hippo.received()
            assert executor.eachWorker(lambda data: data[-9:], handle) == [data[-9:]] * 5
            assert hippo.received() - before < 1.5 * len(data)
            machine.terminate()
            machine.communicate(timeout=PATIENCE)


@pytest.mark.skipif(NO_LOSS is not None, reason=str(NO_LOSS))
def test_on_lines_that_lose_packets_every_call_is_run_once(hosts: Hosts, hippo: Host) -> None:
    """Two hosts by ssh and two that have joined; each line loses one packet of twenty."""
    with contextlib.ExitStack() as machines, contextlib.ExitStack() as stack:
        executor = stack.enter_context(SleighExecutor(nodes=["hippo", "newt"]))
        for count, name in enumerate(NAMES[2:], 3):
            url = executor.listen(f"{hosts[name].client_address}:0")
            words = sys.executable, "-m", "sleighexec", "worker", url
            machines.enter_context(on(hosts[name], *words))
            wait_for(lambda count=count: executor.worker_count == count, "no one joins", PATIENCE)
        assert executor.eachWorker(gethostname) == list(NAMES)
        for name in NAMES:
            stack.enter_context(hosts[name].lossy(5))
        futures = [executor.submit(_note, number) for number in range(2000)]
        done = [future.result(PATIENCE) for future in futures]
        assert [data for data, _ in done] == [_made_of(number) for number in range(2000)]
        assert {host for _, host in done} == set(NAMES)
        noted = list(executor.workspace.ifetchTry("ran"))
        assert sorted(noted) == list(range(2000))
        assert all(hosts[name].lost() > 0 for name in NAMES)
        assert executor.eachWorker(gethostname) == list(NAMES), "nobody was taken for dead"


def _note(number: int) -> tuple[bytes, str]:
    current_worker().workspace.store("ran", number)
    return _made_of(number), gethostname()


def _made_of(number: int) -> bytes:
    return bytes([number % 251]) * (number % 7 * 5_000)


def _stay(home: str) -> str:
    import time

    if gethostname() != home:
        time.sleep(600)
    return gethostname()


CLIENT = """
    import sys
    from sleighexec import NwsServer
    with NwsServer(url=sys.argv[1]) as server:
        ws = server.useWs("shared")
        lent = ws.borrow("x")
        print("has", lent.value, flush=True)
        try:
            ws.fetch("never")
        except ConnectionError as error:
            print(type(error).__name__, flush=True)
"""


def test_a_server_frees_what_a_cut_connection_has_held(hippo: Host) -> None:
    with (
        WorkspaceServer(f"{hippo.client_address}:0") as server,
        NwsServer(url=server.url) as here,
    ):
        ws = here.openWs("shared")
        ws.store("x", "a value")
        program = textwrap.dedent(CLIENT)
        with on(hippo, sys.executable, "-c", program, server.url) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "has a value\n"
            assert ws.fetchTry("x") is None
            with hippo.cut():
                assert ws.fetch("x", timeout=PATIENCE) == "a value"
                assert client.stdout.readline() == "ConnectionLostError\n"
            assert client.wait(PATIENCE) == 0
