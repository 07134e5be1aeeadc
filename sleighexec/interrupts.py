"""A Ctrl-C comes between two steps, not within one.

A signal handler written in Python runs in the main thread, between any two instructions, and may
raise there. What a thread does for others must not be left half done.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
import weakref
from collections.abc import Callable
from threading import get_ident

from sleighexec.forks import free_in_child
from sleighexec.hints import Any, TypeVar

T = TypeVar("T")
W = TypeVar("W")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)

try:  # the module signal turns numbers into enums and back, which takes ten times as long
    _signals: Any = importlib.import_module("_signal")
except ImportError:
    _signals = signal


class Undisturbed:
    """With it, in the main thread: signal handlers in Python wait for its end. Reentrant.

    with undisturbed:
        ...
        undisturbed.wait(call, argument)  # handlers run here, as ever
    """

    __slots__ = ("__weakref__", "_came", "_depth", "_found", "_put_off", "_taken", "_waiting")

    def __init__(self) -> None:
        self._depth = 0
        self._found: tuple[Any, ...] = ()  # the handlers that there were last time
        self._taken: list[tuple[int, Any]] = []  # those of them that are in Python, by number
        self._put_off: list[tuple[int, Any]] = []  # those that are to be set again
        self._came: list[int] = []
        self._waiting = False
        _all.add(self)

    def __enter__(self) -> None:
        if get_ident() == _main:
            if self._depth == 0:
                self.take()
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        if get_ident() == _main:
            self._depth -= 1
            if self._depth == 0:
                self.let_go()

    def wait(self, call: Callable[[W], T], argument: W) -> T | None:
        """`call(argument)`, which may take long: handlers run as ever. None if one has.

        Where the call is cut short what it found must not be lost: it is made again.
        """
        if get_ident() != _main:
            return call(argument)
        try:
            self._waiting = True
            if self._came:
                raise _CameError
            found = call(argument)
            self._waiting = False
            return found
        except _CameError:
            try:
                self.let_go()
            finally:
                self.take()
            return None
        finally:
            self._waiting = False

    def take(self) -> None:
        """From now on, write down what comes."""
        found = tuple(map(_signals.getsignal, SIGNALS))
        if found != self._found:  # nearly always they are those of last time
            self._taken = [each for each in zip(SIGNALS, found) if callable(each[1])]
            self._found = found
        self._put_off = self._taken.copy()
        try:
            for number, _ in self._taken:
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

    def forget(self) -> None:
        """In a child that another thread has forked: the main thread that was undisturbed is gone.

        Its handlers are set again. What has come meanwhile has come to the parent.
        """
        for number, handler in self._put_off:
            # Else it is another one's: that one knows what was there before.
            if getattr(handler, "__func__", None) is not Undisturbed._note:
                _signals.signal(number, handler)
        self._depth, self._put_off, self._came, self._waiting = 0, [], [], False

    def _note(self, number: int, frame: object) -> None:
        self._came.append(number)
        if self._waiting:  # out of it, and it is over: this is not to happen twice
            self._waiting = False
            raise _CameError


class _CameError(BaseException):
    """A signal has come while the main thread waits."""


class QuietLock:
    """A reentrant lock. Whoever holds it is undisturbed.

    Attributes:
        undisturbed: What the main thread is meanwhile.
        inner: The lock itself, for a condition: its waiting must be disturbed.
    """

    __slots__ = ("inner", "undisturbed")

    def __init__(self) -> None:
        self.inner = free_in_child(threading.RLock())
        self.undisturbed = Undisturbed()

    # Entered some ten times for each call that is waited for: what is cheap here stays cheap.

    def __enter__(self) -> None:
        if get_ident() == _main:
            undisturbed = self.undisturbed
            if undisturbed._depth == 0:
                undisturbed.take()
            undisturbed._depth += 1
        self.inner.acquire()

    def __exit__(self, *_: object) -> None:
        self.inner.release()
        if get_ident() == _main:
            undisturbed = self.undisturbed
            undisturbed._depth -= 1
            if undisturbed._depth == 0:
                undisturbed.let_go()


_main = threading.main_thread().ident
_all: weakref.WeakSet[Undisturbed] = weakref.WeakSet()


def _in_child() -> None:
    """The thread that has forked is the main thread from now on."""
    global _main
    before, _main = _main, threading.main_thread().ident
    if _main != before:
        for each in list(_all):
            each.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
