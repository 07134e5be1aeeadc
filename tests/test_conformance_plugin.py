"""The conformance suite as outsiders run it: all of it over ours, some of it over others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sleighexec.conformance.cases import GROUPS
from tests.conftest import alive

pytestmark = pytest.mark.once

OURS = "sleighexec:SleighExecutor"
STANDARD = "concurrent.futures:ProcessPoolExecutor"

BAD = """
import os, subprocess, sys
from concurrent.futures import Future, ThreadPoolExecutor

class Bad(ThreadPoolExecutor):
    def submit(self, fn, /, *args, **kwargs):
        return Future() if kwargs else super().submit(fn, *args, **kwargs)

    def map(self, fn, *iterables, **options):
        print("the last words", file=sys.stderr, flush=True)
        os._exit(7)

class Untidy(ThreadPoolExecutor):
    def shutdown(self, *args, **kwargs):
        subprocess.Popen(["sleep", "50"], start_new_session=True)
        super().shutdown(*args, **kwargs)

class Stuck(ThreadPoolExecutor):
    def shutdown(self, *args, **kwargs):
        super().submit(__import__("time").sleep, 50).result()
"""


def run(folder: Path, *options: str) -> tuple[str, int, dict[str, dict[str, Any]]]:
    """What a run of the suite prints, its status, and its verdicts by the names of the cases."""
    table = folder / "table.json"
    command = [sys.executable, "-m", "pytest", "-p", "sleighexec.conformance.entry", "-W", "error"]
    command += ["--pyargs", "sleighexec.conformance", f"--conformance-table={table}", *options]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    rows = json.loads(table.read_text()) if table.exists() else []
    return ended.stdout + ended.stderr, ended.returncode, {row["name"]: row for row in rows}


@pytest.mark.parametrize("group", GROUPS)
def test_our_executor_passes_every_case(tmp_path: Path, group: str) -> None:
    shown, status, rows = run(tmp_path, f"--executor={OURS}", "-k", f"Executor-{group}-")
    assert status == 0, shown[-20_000:]
    assert len(rows) > 10
    assert {row["result"] for row in rows.values()} <= {"pass", "skip"}
    assert f"{OURS}: " in shown


def test_the_standard_library_fails_where_it_is_known_to(tmp_path: Path) -> None:
    known = {
        "submit gives the result": "pass",
        "map keeps the order": "pass",
        "a call whose worker dies fails promptly (SIGKILL)": "pass",
        "a call that runs beside a dying worker survives (SIGKILL)": "fail",
        "a pool takes calls after a death (SIGKILL)": "fail",
        "a lambda can be called": "fail",
    }
    chosen = " or ".join(name.partition(" (")[0].replace(" ", "-") for name in known)
    _, status, rows = run(tmp_path, f"--executor={STANDARD}", "-k", chosen)
    assert status == 1
    assert {name: rows[name]["result"] for name in known} == known


def test_a_bad_executor_fails_its_cases_and_harms_no_other(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    chosen = "submit-gives or keeps-the-order or submit-without or unused-pool"
    names = ["--executor=bad:Bad", "--executor-option=thread_name_prefix=x"]
    shown, _, rows = run(tmp_path, *names, "--conformance-limit=4", "-k", chosen)
    assert {name: row["result"] for name, row in rows.items()} == {
        "submit gives the result": "hang",
        "submit without a function is a type error": "pass",
        "map keeps the order": "fail",
        "shutdown of an unused pool returns": "pass",
    }
    assert "status 7" in rows["map keeps the order"]["reason"]
    assert "the last words" in rows["map keeps the order"]["reason"]
    assert "hang  submitting: submit gives the result" in shown


def test_a_hang_is_ended_and_shows_where_it_hangs(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    options = "--executor=bad:Stuck", "--conformance-limit=2", "-k", "unused-pool"
    _, status, rows = run(tmp_path, *options)
    [row] = rows.values()
    assert (status, row["result"]) == (1, "hang")
    assert "bad.py" in row["reason"]


def test_a_process_that_is_left_is_a_failure_and_is_ended(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    _, _, rows = run(tmp_path, "--executor=bad:Untidy", "-k", "unused-pool")
    [row] = rows.values()
    assert row["result"] == "fail"
    assert "sleep 50" in row["reason"]
    assert not alive(int(row["reason"].split()[3]))


def test_the_table_can_be_markdown(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    options = f"--executor={OURS}", "-k", "submit-gives", f"--conformance-table={table}"
    assert run(tmp_path, *options)[1] == 0
    assert "### Submitting" in table.read_text()
    assert "| submit gives the result | pass |" in table.read_text()


def test_without_an_executor_a_run_says_what_is_missing(tmp_path: Path) -> None:
    shown, status, _ = run(tmp_path)
    assert status != 0
    assert "--executor=module:Class" in shown


def test_other_runs_of_pytest_know_nothing_of_the_suite(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text("def test_something():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "sleighexec.conformance.entry"]
    ended = subprocess.run(
        [*command, "--executor=x:y"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "unrecognized arguments" in ended.stderr
