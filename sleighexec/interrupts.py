"""A Ctrl-C comes between two steps, not within one.

A signal handler written in Python runs in the main thread, between any two instructions, and may
raise there. What a thread does for others must not be left half done.
"""

from __future__ import annotations

import importlib
import signal
import threading
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)

try:  # the module signal turns numbers into enums and back, which takes ten times as long
    _signals: Any = importlib.import_module("_signal")
except ImportError:
    _signals = signal


class Undisturbed:
    """With it, in the main thread: signal handlers in Python wait for its end. Reentrant.

    with undisturbed:
        ...
        with undisturbed.pause():
            ...  # handlers run here, as ever
    """

    __slots__ = ("_came", "_depth", "_put_off")

    def __init__(self) -> None:
        self._depth = 0
        self._put_off: list[tuple[int, Any]] = []
        self._came: list[int] = []

    def __enter__(self) -> None:
        if _in_main_thread():
            if self._depth == 0:
                self.take()
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        if _in_main_thread():
            self._depth -= 1
            if self._depth == 0:
                self.let_go()

    def pause(self) -> _Pause:
        """A part of it in which handlers run."""
        return _Pause(self)

    def take(self) -> None:
        """From now on, write down what comes."""
        self._put_off += [
            (number, handler)
            for number in SIGNALS
            if callable(handler := _signals.getsignal(number))
        ]
        try:
            for number, _ in self._put_off:
                _signals.signal(number, self._note)
        except BaseException:  # one came just before
            self.let_go()
            raise

    def let_go(self) -> None:
        """Set the handlers again, and have those run that were put off. May raise what they do."""
        try:
            while self._put_off:
                _signals.signal(*self._put_off[-1])
                self._put_off.pop()
            while self._came:
                signal.raise_signal(self._came.pop(0))
        except BaseException:
            self.let_go()
            raise

    def _note(self, number: int, frame: object) -> None:
        self._came.append(number)


class _Pause:
    __slots__ = ("_whole",)

    def __init__(self, whole: Undisturbed) -> None:
        self._whole = whole

    def __enter__(self) -> None:
        if _in_main_thread():
            self._whole.let_go()

    def __exit__(self, *_: object) -> None:
        # A handler may raise at the very beginning of this: then they stay set until the end of
        # the whole, which is on its way out with what was raised.
        if _in_main_thread():
            self._whole.take()


class QuietLock:
    """A reentrant lock. Whoever holds it is undisturbed.

    Attributes:
        undisturbed: What the main thread is meanwhile.
        inner: The lock itself, for a condition: its waiting must be disturbed.
    """

    __slots__ = ("inner", "undisturbed")

    def __init__(self) -> None:
        self.inner = threading.RLock()
        self.undisturbed = Undisturbed()

    def __enter__(self) -> None:
        self.undisturbed.__enter__()
        self.inner.acquire()

    def __exit__(self, *_: object) -> None:
        self.inner.release()
        self.undisturbed.__exit__()


def _in_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident
