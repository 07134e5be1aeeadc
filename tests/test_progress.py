"""progress=: what is shown of map and eachElem while they run, and where."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest

from sleighexec import Sleigh, SleighExecutor, SleighPending, errors
from sleighexec.progress import Meter, Progress
from tests.conftest import wait_for

LIBRARIES = ["text", "tqdm", "rich"]


def invert(x: float) -> float:
    return 1 / x


def test_a_function_is_told_of_the_first_and_of_the_last(executor: SleighExecutor) -> None:
    seen: list[Progress] = []
    view = executor.options(progress=seen.append)
    assert list(view.map(abs, range(100))) == list(range(100))
    assert (seen[0], seen[-1]) == ((100, 0, 0), (100, 100, 0))
    assert seen == sorted(seen)
    seen.clear()
    assert view.eachElem(abs, range(2500)) == list(range(2500))
    assert (seen[0], seen[-1]) == ((2500, 0, 0), (2500, 2500, 0))


def test_failures_are_counted(executor: SleighExecutor) -> None:
    seen: list[Progress] = []
    executor.options(progress=seen.append).eachElem(invert, [1, 0, 0], on_error="return")
    assert seen[-1] == (3, 3, 2)


@pytest.mark.parametrize("how", ["buffersize", "loadFactor", "iterator"])
def test_the_total_grows_with_what_is_read(executor: SleighExecutor, how: str) -> None:
    seen: list[Progress] = []
    view = executor.options(progress=seen.append)
    if how == "buffersize":
        assert list(view.map(abs, range(50), buffersize=3)) == list(range(50))
    else:
        load = 1 if how == "loadFactor" else None
        assert view.eachElem(abs, iter(range(50)), loadFactor=load) == list(range(50))
    assert seen[-1] == (50, 50, 0)


def test_of_a_pending_too(executor: SleighExecutor) -> None:
    seen: list[Progress] = []
    pending = executor.options(progress=seen.append).eachElem(abs, [1, 2], blocking=False)
    assert pending.wait() == [1, 2]
    wait_for(lambda: seen[-1] == (2, 2, 0), "the last is told")


def test_a_constructor_shows_all_and_a_view_may_show_none() -> None:
    seen: list[Progress] = []
    with SleighExecutor(1, progress=seen.append) as executor:
        list(executor.options(progress=False).map(abs, [1]))
        assert executor.submit(abs, -1).result() == 1
        assert executor.eachWorker(abs, 1) == [1]
        assert list(executor.map(abs, [])) == []
        assert seen == []
        list(executor.options(retries=1).map(abs, [1]))
        assert seen[-1] == (1, 1, 0)
    s = Sleigh(workerCount=1, progress=seen.append)
    s.eachElem(invert, [0, 1])
    assert seen[-1] == (2, 2, 1)
    s.stop()


@pytest.mark.parametrize(
    ("error", "done"),
    # Where calls are submitted a KeyboardInterrupt is the caller's: it ends the call.
    [(ValueError, 0), (SystemExit, 0), (ValueError, 20), (SystemExit, 20), (KeyboardInterrupt, 20)],
)
@pytest.mark.timeout(30)
def test_a_function_that_fails_costs_no_result(
    executor: SleighExecutor, caplog: Any, error: type[BaseException], done: int
) -> None:
    def fail(progress: Progress) -> None:
        if progress.done >= done:
            raise error("not today")

    view = executor.options(progress=fail)
    for results in (view.map(rest, range(100)), view.eachElem(rest, range(100))):
        assert list(results) == list(range(100))
    assert [record.message for record in caplog.records] == ["progress cannot be shown"] * 2


def rest(number: int) -> int:
    time.sleep(0.005)
    return number


def test_a_function_may_cancel_what_it_is_told_about(executor: SleighExecutor) -> None:
    pendings: list[SleighPending] = []

    def cancel(progress: Progress) -> None:
        if progress.done and pendings:
            pendings[0].cancel()

    view = executor.options(progress=cancel)
    go = executor.workspace
    pending = view.eachElem(lambda n: _workspace().fetch("go"), range(100), blocking=False)
    pendings.append(pending)
    for _ in range(100):
        go.store("go", 1)
    wait_for(pending.done, "all have ended, by themselves or not")


def _workspace() -> Any:
    from sleighexec import current_worker

    return current_worker().workspace


def test_the_display_ends_with_the_call_whatever_ends_it(executor: SleighExecutor) -> None:
    class Display:
        open = 0

        def __init__(self) -> None:
            Display.open += 1

        def show(self, progress: Progress) -> None:
            pass

        def close(self) -> None:
            Display.open -= 1

    view = executor.options(progress=print)
    view._progress = Display
    results = view.map(abs, range(1000), buffersize=2)
    next(results)
    assert Display.open == 1
    results.close()  # type: ignore[attr-defined]
    assert Display.open == 0
    with pytest.raises(ZeroDivisionError):
        view.eachElem(invert, [0] * 10)
    assert Display.open == 0
    seen: list[Progress] = []
    with pytest.raises(ZeroDivisionError):
        executor.options(progress=seen.append).eachElem(invert, [0] * 5000)
    assert seen[-1].done < 5000  # what was cancelled is not shown as done

    def elements() -> Any:
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        view.eachElem(abs, elements())
    assert Display.open == 0


def test_a_meter_counts_what_it_is_not_given_time_to_show() -> None:
    seen: list[Progress] = []

    class Display:
        def show(self, progress: Progress) -> None:
            seen.append(progress)

        def close(self) -> None:
            pass

    meter = Meter(Display, hint=1000)
    meter.expect(1000, last=True)
    for _ in range(1000):
        meter.ended(1)
    assert len(seen) < 1000
    assert seen[-1] == (1000, 1000, 0)
    meter.ended(1)  # too late
    assert seen[-1] == (1000, 1000, 0)


# ---------------------------------------------------------------------- where it is shown

SCRIPT = """
    import sys
    from sleighexec import SleighExecutor
    with SleighExecutor(2, progress={progress!r}) as executor:
        print(sum(executor.map(abs, range(300))))
        print(sum(executor.eachElem(abs, range(300))))
"""


def script(progress: Any) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(SCRIPT.format(progress=progress))]


def in_terminal(command: list[str]) -> str:
    """What a program writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as program:
        os.close(theirs)
        text = b""
        try:
            while data := os.read(ours, 4096):
                text += data
        except OSError:  # its end
            pass
    os.close(ours)
    assert program.returncode == 0, text.decode()
    return text.decode()


@pytest.mark.parametrize("progress", [True, *LIBRARIES])
def test_it_is_shown_in_a_terminal(progress: Any) -> None:
    text = in_terminal(script(progress))
    assert text.count("44850") == 2
    assert "300" in text.replace("44850", "")


@pytest.mark.parametrize("progress", LIBRARIES)
def test_what_is_asked_for_by_name_is_shown_anywhere(progress: str) -> None:
    done = subprocess.run(script(progress), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "44850\n44850\n"
    assert "300" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_nobody_looks_true_is_silent() -> None:
    done = subprocess.run(script(True), capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("44850\n44850\n", "")


def test_without_tqdm_true_shows_a_line_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "tqdm")
    monkeypatch.setattr("sleighexec.progress._is_watched", lambda: True)
    from sleighexec import progress

    assert progress.maker(True) is progress._Text


@pytest.mark.parametrize("library", ["tqdm", "rich"])
def test_a_library_that_is_not_there_is_an_error_at_once(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, library)
    with pytest.raises(errors.UnsupportedOptionError, match=f"pip install {library}"):
        SleighExecutor(1, progress=library)


def _without(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    find: Callable[[str], Any] = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "sleighexec.progress.find_spec", lambda name: None if name == library else find(name)
    )
