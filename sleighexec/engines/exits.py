"""What becomes of engines when the interpreter ends, and in a forked child."""

from __future__ import annotations

import os
import sys
import threading
import weakref

from sleighexec.hints import Any

_engines: weakref.WeakSet[Any] = weakref.WeakSet()
_exiting = False


def register(engine: Any) -> None:
    """Have the engine finish what was put before the interpreter ends, and hear of forks."""
    _engines.add(engine)


def hook_in() -> None:
    """Have this file called when the interpreter ends, before what hooks itself in earlier."""
    global _exiting
    try:
        # The standard library's own hook for executors: it runs before threads are joined at exit.
        threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
    except RuntimeError:  # it ends already: an atexit handler makes the first executor of all
        _exiting = True


def is_too_late() -> bool:
    """Whether the interpreter ends, so that no task is taken any more."""
    return _exiting


def shut_down() -> RuntimeError:
    """The error of who puts tasks too late."""
    what = "interpreter shutdown" if _exiting else "shutdown"
    return RuntimeError(f"cannot schedule new futures after {what}")


def _at_exit() -> None:
    """The interpreter ends: finish what was submitted, as the standard library does.

    Not after a Ctrl-C that ended the program, and no longer after one while waiting here.
    """
    global _exiting
    _exiting = True
    engines = list(_engines)
    interrupted = not hasattr(sys, "ps1") and getattr(sys, "last_type", None) is KeyboardInterrupt
    try:
        for engine in engines:
            if interrupted or engine.stop_at_exit:
                engine.stop()
            engine.shutdown()
        for engine in engines:
            engine.join()
    except KeyboardInterrupt:
        for engine in engines:
            engine.stop()
        raise


def _in_child() -> None:
    for engine in list(_engines):
        engine.forget()
    _engines.clear()


hook_in()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
