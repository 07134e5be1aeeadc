"""The end of a worker: that of any Python program, but for long waits for what tasks have left.

    told to leave ─▶ threads, processes of multiprocessing: GRACE seconds ─▶ atexit handlers ─▶ gone

Python itself waits for threads as long as they take, and whoever shuts a pool down would wait too.
The handlers run in any case, once, and to their end.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from multiprocessing.process import active_children

GRACE = 2.0  # seconds: enough to finish a write, and nobody who shuts down takes it for a hang


def bid_farewell() -> None:
    """Have this process end soon, whatever its threads do. The caller then ends as ever."""
    if _threads() or active_children():
        # Whoever has it runs the handlers: the main thread, if it gets so far, or else ours.
        turn = threading.RLock()
        atexit.register(turn.acquire)  # as the last one, so that it is called first
        watch = threading.Thread(target=_end, args=(turn,), name="sleigh-farewell", daemon=True)
        watch.start()


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
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a task may have closed or replaced them
            stream.flush()
    os._exit(0)


def _threads() -> list[str]:
    """The names of the threads that Python would wait for."""
    mine = threading.main_thread(), threading.current_thread()
    return [each.name for each in threading.enumerate() if not each.daemon and each not in mine]
