"""What `sleighexec monitor` shows, and that nobody whom it shows can do anything with it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sleighexec import SleighExecutor, WorkspaceServer
from sleighexec.monitor import page, plain
from tests.conftest import wait_for

PATIENCE = 30
MONITOR = [sys.executable, "-m", "sleighexec", "monitor"]


def facts(*workers: dict[str, Any], waiting: int = 7) -> dict[str, Any]:
    usual = {"host": "hippo", "state": "busy", "finished": 0}
    rows = [usual | {"rank": rank, "pid": 100 + rank} | row for rank, row in enumerate(workers)]
    head = {"kind": "executor", "pid": 42, "places": len(rows), "waiting": waiting}
    return {"url": "sleigh+tls://hippo:1", **head, "workers": rows}


def test_a_page_has_the_pool_its_workers_and_what_they_do_in_a_second() -> None:
    before = facts({"finished": 1000}, {"finished": 5}, waiting=9)
    now = facts({"finished": 3000}, {"finished": 5, "state": "idle"}, {"state": "starting"})
    assert page(now, before, 2.0) == [
        "executor at sleigh+tls://hippo:1",
        "pid 42, places 3, waiting 7",
        "1 busy, 1 idle, 1 starting, 1,000 calls per second",
        "rank  host   pid  state     finished  per second",
        "   0  hippo  100  busy         3,000       1,000",
        "   1  hippo  101  idle             5           0",
        "   2  hippo  102  starting         0",
    ]


def test_the_first_page_knows_no_rates_and_a_new_worker_of_a_rank_has_none() -> None:
    first = page(facts({"finished": 5}), None, 1.0)
    assert "per second" not in first[2]
    again = page(facts({"finished": 1, "pid": 7}), facts({"finished": 500}), 1.0)
    assert again[-1].split() == ["0", "hippo", "7", "busy", "1"]


@pytest.mark.parametrize("height", range(6, 40))
def test_a_page_is_no_longer_than_its_terminal(height: int) -> None:
    lines = page(facts(*[{}] * 30), None, 1.0, height)
    assert len(lines) <= height
    shown = [line for line in lines if "hippo  " in line]
    more = 30 - len(shown)
    assert (f"… and {more} more" in lines) == (more > 0)


def test_a_pool_without_workers_and_a_server_have_a_page_too() -> None:
    assert page(facts(), None, 1.0)[1] == "pid 42, places 0, waiting 7"
    server = {"kind": "server", "url": "unix", "pid": 1, "workspaces": 3}
    assert page(server, server, 1.0) == ["server at unix", "pid 1, workspaces 3"]


def test_a_name_gives_a_terminal_no_orders() -> None:
    assert plain("zoo\x1b]0;title\x07é\n") == "zoo�]0;title�é�"
    lines = page(facts({"host": "\x1b[2Jhippo"}), None, 1.0)
    assert "\x1b" not in "".join(lines)


def test_it_shows_a_pool_until_that_ends(run_directory: Path) -> None:
    with SleighExecutor(2) as executor:
        url = executor.listen()
        list(executor.map(abs, range(100)))
        words = [*MONITOR, url, "--every", "0.05"]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as monitor:
            assert monitor.stdout is not None
            pages = 0
            while pages < 3:
                pages += monitor.stdout.readline().startswith("executor at")
            executor.shutdown()
            rest, error = monitor.communicate(timeout=PATIENCE)
    assert monitor.returncode == 1
    assert error.startswith("sleighexec: ")
    assert "\x1b" not in rest


def test_in_a_terminal_each_page_is_where_the_last_one_was(run_directory: Path) -> None:
    with WorkspaceServer("127.0.0.1:0") as server:
        ours, theirs = pty.openpty()
        words = [*MONITOR, server.url, "--every", "0.05"]
        with subprocess.Popen(words, stdout=theirs, start_new_session=True) as monitor:
            os.close(theirs)
            shown = b""
            while shown.count(b"\x1b[Hserver at") < 3:
                shown += os.read(ours, 4096)
            monitor.send_signal(signal.SIGINT)
            wait_for(lambda: monitor.poll() is not None, "it does not end", PATIENCE)
        os.close(ours)
    assert monitor.returncode == 130


def test_it_says_what_is_wrong(run_directory: Path) -> None:
    wrong = [(["--every", each], 2, "number of seconds") for each in ("0", "-1", "nan", "soon")]
    for words, status, text in [([], 1, "sleighexec server"), *wrong]:
        done = subprocess.run([*MONITOR, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == status
        assert text in done.stderr


def test_what_it_shows_is_what_status_says(run_directory: Path) -> None:
    with SleighExecutor(1) as executor:
        url = executor.listen()
        executor.submit(abs, -1).result()
        status = [sys.executable, "-m", "sleighexec", "status", url, "--json"]
        done = subprocess.run(status, capture_output=True, text=True, timeout=60, check=True)
        lines = page(json.loads(done.stdout), None, 1.0)
        assert lines[0] == f"executor at {url}"
        assert lines[-1].split()[0] == "0"
