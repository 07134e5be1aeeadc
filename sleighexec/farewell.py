"""The end of a worker: that of any Python program, but for two things that take long.

    told to leave ─▶ threads, processes of multiprocessing: GRACE seconds ─▶ atexit handlers
                  ─▶ finalizers of what tasks have left
                  ─▶ is something left yet that has to do something when it goes?
                       no: gone              yes: Python takes all apart ─▶ gone

Python itself waits for threads as long as they take, and whoever shuts a pool down would wait too.
The handlers run in any case, once, and to their end.

At last Python takes all modules and objects apart. In a worker most of them are those that it has
inherited from its agent, and to touch them is to copy their pages: more work than all that it took
to start the worker. So that is left out where nobody could see a difference.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from multiprocessing.process import active_children

from sleighexec.hints import Any

GRACE = 2.0  # seconds: enough to finish a write, and nobody who shuts down takes it for a hang
# Modules of the standard library through which C code may have something to do at the end: a file
# of a database that has been left open, a terminal. What ctypes has loaded has its turn anyway.
IN_C = {"_curses", "_dbm", "_gdbm", "_sqlite3", "_tkinter", "readline"}
FREES_ONLY = {"numpy"}  # modules in C of others that have nothing to do at the end but free memory
OURS = 2  # threads: the main one and the helper

_modules: set[str] | None = None  # that were there before any code of a user


def set_aside() -> None:
    """What is here now does not matter at the end. Called before any code of a user runs."""
    global _modules
    _modules = set(sys.modules)
    gc.freeze()


def bid_farewell() -> None:
    """Have this process end soon, whatever its threads do. The caller then ends as ever."""
    if _threads() or active_children():
        # Whoever has it runs the handlers: the main thread, if it gets so far, or else ours.
        turn = threading.RLock()
        atexit.register(turn.acquire)  # as the last one, so that it is called first
        watch = threading.Thread(target=_end, args=(turn,), name="sleigh-farewell", daemon=True)
        watch.start()


def finish(let_go: Callable[[], None]) -> None:
    """End at once if nothing is left that has to do something when it goes, or return.

    `let_go`: drops what is held of a user's code.
    """
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads; then the handlers
    atexit._run_exitfuncs()
    if finalizers_left():
        let_go()
        gc.collect()  # while all modules are there, which finalizers may need
    if c_code_left() or finalizers_left():
        return
    _flush()
    if "ctypes" not in sys.modules:
        os._exit(0)
    if threading.active_count() <= OURS:  # no other goes on while handlers of C libraries run
        with contextlib.suppress(Exception):
            sys.modules["ctypes"].CDLL(None).exit(0)  # which ctypes may have loaded


def finalizers_left() -> bool:
    """Whether an object of a user's code has one: a file with a buffer, a generator, any other."""
    with contextlib.suppress(Exception):  # a metaclass can make anything of the question
        kinds = set(map(type, gc.get_objects())) - {io.FileIO}
        return any(hasattr(kind, "__del__") for kind in kinds)
    return True


def c_code_left() -> bool:
    """Whether a library may have something to do when the program exits, or we do not know."""
    if _modules is None:
        return True
    for name in sys.modules.keys() - _modules:
        top = name.partition(".")[0]
        harmless = top in sys.stdlib_module_names or top in FREES_ONLY
        if top in IN_C or (not harmless and _is_in_c(sys.modules[name])):
            return True
    return False


def _is_in_c(module: Any) -> bool:
    try:  # past what a module that is not loaded yet does when it is asked
        file = object.__getattribute__(module, "__dict__").get("__file__")
    except AttributeError:
        return True
    return isinstance(file, str) and file.endswith(tuple(EXTENSION_SUFFIXES))


def _end(turn: threading.RLock) -> None:
    """Thread: when the time is up, end what is left, and ourselves if that was not enough."""
    time.sleep(GRACE)
    for child in active_children():
        child.kill()
    if not turn.acquire(blocking=False):
        return  # the main thread is at it, as it should be
    names = ", ".join(_threads())
    text = f"sleighexec: a worker ends, and with it threads that tasks have left: {names}\n"
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="replace"))
    atexit._run_exitfuncs()
    _flush()
    os._exit(0)


def _flush() -> None:
    """Write what is in the buffers of the standard streams: ours, and those that we began with."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):  # a task may have closed or replaced them
            stream.flush()  # type: ignore[union-attr]


def _threads() -> list[str]:
    """The names of the threads that Python would wait for."""
    mine = threading.main_thread(), threading.current_thread()
    return [each.name for each in threading.enumerate() if not each.daemon and each not in mine]
