"""How far a map or an eachElem is, shown while it runs: by a bar, or a function of the caller's.

expect(n), ended(n) ─▶ Meter ─ ten times a second at most, and at the end ─▶ show(Progress)
                                              a line of text, tqdm, rich, a function ◀─┘
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

from sleighexec.errors import UnsupportedOptionError
from sleighexec.forks import free_in_child

SECONDS = 0.1  # between two looks at a bar
LINE_SECONDS = 10.0  # between two lines of text where a line cannot be written over
WIDTH = 24  # characters of a bar of text

log = logging.getLogger("sleighexec")


class Progress(NamedTuple):
    """How far many calls are: calls in all, ended, and of these failed or cancelled."""

    total: int
    done: int
    failed: int


class Display(Protocol):
    """Something that shows progress."""

    def show(self, progress: Progress) -> None:
        """Show how far it is now."""

    def close(self) -> None:
        """There will be no more."""


MakeDisplay = Callable[[], Display]


class Meter:
    """Counts the calls of one map or eachElem, and has them shown. Thread-safe."""

    def __init__(self, make: MakeDisplay, hint: int = 0) -> None:
        """`hint`: how many calls there will be, if that is known before they are submitted."""
        self._make = make
        self._display: Display | None = None
        self._lock = free_in_child(threading.Lock())  # guards the numbers
        # Guards the display. What shows it may well make calls end, by cancelling them.
        self._showing = free_in_child(threading.RLock())
        self._hint, self._submitted, self._done, self._failed = hint, 0, 0, 0
        self._complete = self._closed = False
        self._next = 0.0  # when to show it again

    def expect(self, count: int, *, last: bool = False) -> None:
        """So many more calls are submitted; the `last` ones, perhaps."""
        with self._lock:
            self._submitted += count
            self._complete = self._complete or last
        self._look()

    def ended(self, count: int, failed: int = 0) -> None:
        """So many calls have ended, and of these so many failed."""
        with self._lock:
            self._done += count
            self._failed += failed
        try:
            self._look()
        except KeyboardInterrupt:  # the display's own: who tells of an end is not to be stopped
            self._give_up()

    def close(self) -> None:
        """Show the last of it: nobody waits for more."""
        with self._showing:
            if not self._closed:
                self._closed = True
                if self._display is not None or self._submitted:
                    self._show()
                    self._call(lambda display: display.close())
                self._display = None

    def _look(self) -> None:
        if self._complete and self._done >= self._submitted:
            self.close()
        elif time.monotonic() >= self._next and self._showing.acquire(blocking=False):
            try:
                if not self._closed:
                    self._next = time.monotonic() + SECONDS
                    self._show()
            finally:
                self._showing.release()

    def _show(self) -> None:
        with self._lock:
            total = self._submitted if self._complete else max(self._submitted, self._hint)
            progress = Progress(total, self._done, self._failed)
        self._call(lambda display: display.show(progress))

    def _call(self, use: Callable[[Display], None]) -> None:
        """A display that fails costs no result: it is not used any more."""
        try:
            if self._display is None:
                self._display = self._make()
            use(self._display)
        except KeyboardInterrupt:
            raise
        except BaseException:  # SystemExit too must not keep a result from who waits for it
            self._give_up()

    def _give_up(self) -> None:
        """Show nothing more, after an error."""
        log.exception("progress cannot be shown")
        self._display, self._make = None, _Nothing


def maker(progress: Any) -> MakeDisplay | None:
    """What makes the displays that the option `progress=` asks for; None: none is wanted.

    Raises:
        UnsupportedOptionError: The library that it names is not installed.
        ValueError: There is no such display.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        if not _is_watched():
            return None
        return _Tqdm if find_spec("tqdm") else _Text
    if progress == "text":
        return _Text
    if progress in ("tqdm", "rich"):
        if find_spec(progress) is None:
            raise UnsupportedOptionError(
                f'progress="{progress}" needs {progress}: pip install {progress}, '
                "or take progress=True"
            )
        return _Tqdm if progress == "tqdm" else _Rich
    if callable(progress):
        return lambda: _Function(progress)
    raise ValueError(
        f'progress must be True, "text", "tqdm", "rich" or a function, not {progress!r}'
    )


def _is_watched() -> bool:
    """Whether a person sees standard error: in a terminal, or below the cell of a notebook."""
    return "ipykernel" in sys.modules or bool(sys.stderr and sys.stderr.isatty())


class _Nothing:
    def show(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


class _Function(_Nothing):
    def __init__(self, function: Callable[[Progress], object]) -> None:
        self._function = function

    def show(self, progress: Progress) -> None:
        self._function(progress)


class _Text(_Nothing):
    """A line on standard error, written over again and again; or lines, if it is no terminal."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._file = sys.stderr
        self._over = _is_watched()
        self._length, self._next, self._last = 0, 0.0, ""

    def show(self, progress: Progress) -> None:
        line = self._last = _line(progress, time.monotonic() - self._started)
        if self._over:
            self._file.write("\r" + line.ljust(self._length))
            self._file.flush()
            self._length = len(line)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            self._file.write(line + "\n")

    def close(self) -> None:
        self._file.write("\n" if self._over else self._last + "\n")
        self._file.flush()


def _line(progress: Progress, seconds: float) -> str:
    total, done, failed = progress
    share = done / total if total else 0.0
    bar = ("█" * int(share * WIDTH)).ljust(WIDTH, "░")
    line = f"{bar} {done} of {total}, {_clock(seconds)}"
    if 0 < done < total:
        line += f", {_clock(seconds * (total - done) / done)} left"
    return f"{line}, {failed} failed" if failed else line


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _Tqdm(_Nothing):
    def __init__(self) -> None:
        with warnings.catch_warnings():  # about widgets that are not installed: it does without
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
        self._make: Callable[..., Any] = tqdm
        self._bar: Any = None

    def show(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = self._make(total=progress.total, unit="call")
        bar = self._bar
        bar.total = progress.total
        if progress.failed:
            bar.set_postfix(failed=progress.failed, refresh=False)
        bar.n = progress.done
        bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Rich(_Nothing):
    def __init__(self) -> None:
        from rich import progress as rich
        from rich.console import Console

        columns = (*rich.Progress.get_default_columns(), rich.MofNCompleteColumn())
        self._bars = rich.Progress(*columns, console=Console(stderr=True))
        self._bar = self._bars.add_task("calls")
        self._bars.start()

    def show(self, progress: Progress) -> None:
        text = f"calls, {progress.failed} failed" if progress.failed else "calls"
        self._bars.update(
            self._bar, total=progress.total, completed=progress.done, description=text
        )

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._bars.refresh()
        self._bars.stop()
