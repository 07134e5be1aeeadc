"""Runs a case in a process of its own, says what came of it, and leaves nothing behind."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from sleighexec.conformance.case import Case

PASS, FAIL, HANG, SKIP = "pass", "fail", "hang", "skip"

LEAVE_SECONDS = 5.0  # for processes of a case to end after the case
DUMP_SECONDS = 2.0  # for a hanging interpreter to say where it hangs
MARK = "SLEIGHEXEC_CONFORMANCE_RUN"  # in the environment of all processes of a run
TAIL = 4000  # characters of a process's last words that are worth showing


class Verdict(NamedTuple):
    executor: str
    group: str
    name: str
    result: str
    reason: str
    seconds: float


def parsed(options: list[str]) -> dict[str, Any]:
    """Arguments for a constructor from `KEY=VALUE` texts."""
    found: dict[str, Any] = {}
    for option in options:
        key, _, text = option.partition("=")
        try:
            found[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[key] = text
    return found


def run(case: Case, executor: str, options: dict[str, Any], folder: Path, limit: float) -> Verdict:
    """What becomes of a case, within `limit` seconds and a few for what is left over.

    Args:
        executor: The class, as "module:Class".
        options: Further arguments of its constructor.
        folder: An empty folder for the case's files; it runs there.
    """
    began = time.monotonic()
    mark = uuid.uuid4().hex
    errors, answer = folder / "stderr", folder / "verdict"
    order = json.dumps([case.group, case.name, executor, options, str(answer)])
    with open(errors, "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "sleighexec.conformance.child", order],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_path()), MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,  # a Ctrl-C of a case is for the case
        )
    try:
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            _dump_stacks(process)
            result, reason = HANG, f"not done after {limit:g} s\n{_tail(errors)}"
        else:
            result, reason = _judged(answer, errors, status)
            left = _left(mark) if result == PASS else {}
            if left:
                result, reason = FAIL, "processes were left: " + "; ".join(left.values())
    finally:
        _end(process, mark)
    return Verdict(executor, case.group, case.name, result, reason, time.monotonic() - began)


def _path() -> list[str]:
    """Where the class under test is found, from another folder."""
    return [os.path.abspath(entry) for entry in ("", *sys.path)]


def _judged(answer: Path, errors: Path, status: int) -> tuple[str, str]:
    try:
        result, reason = json.loads(answer.read_text())
    except (OSError, ValueError):
        return FAIL, f"the process ended with status {status} amid the case\n{_tail(errors)}"
    if result == PASS and status != 0:
        return FAIL, f"the process ended with status {status} after the case\n{_tail(errors)}"
    return result, reason


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-TAIL:]


def _dump_stacks(process: subprocess.Popen[bytes]) -> None:
    """Have a hanging interpreter write where its threads are; that ends it."""
    process.send_signal(signal.SIGABRT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(DUMP_SECONDS)


def _marked(mark: str) -> dict[int, str]:
    """The processes of a run and their command lines; none where there is no /proc."""
    found, text = {}, f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX" and text in (path / "environ").read_bytes().split(b"\0"):
                words = (
                    (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                found[int(path.name)] = f"{path.name} {words.strip():.100}"
    return found


def _left(mark: str) -> dict[int, str]:
    """The processes that are still there when a case is long over."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill all that is left of a case."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while left := _marked(mark):  # a manager may replace its workers until it is killed itself
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
