"""What a forked child finds: locks that are free, and things that know that they are its parent's.

A child has one thread, a copy of the one that has forked. What the others held in the parent nobody
would ever release there, and who asks for it would hang.

What such a lock guards may be half changed in the child. That does no harm, since the child is to
get no further than to the error that says whose all this is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref

from sleighexec.hints import Any, NoReturn, TypeVar

L = TypeVar("L")

# Held while something is imported that a child may need. No fork comes amid it: the child would
# wait for ever for the thread that imports.
importing = threading.RLock()

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_things: weakref.WeakSet[Any] = weakref.WeakSet()


def free_in_child(lock: L) -> L:
    """The same lock, which no forked child finds held by a thread that it does not have."""
    _locks.add(lock)
    return lock


def forget_in_child(thing: Any) -> None:
    """Call its `forget()` in each forked child, which lets go of what is its parent's."""
    _things.add(thing)


def leave(error: BaseException | None) -> NoReturn:
    """End a child that was forked in a call and has come out of it: the call is its parent's.

    As a program of its own would end there, but for what is done at the very end of one, since that
    is the parent's, too. `error`: with which it came out.
    """
    code: object = 0
    try:
        if isinstance(error, SystemExit):
            code = 0 if error.code is None else error.code
            if not isinstance(code, int):
                print(code, file=sys.stderr)
        elif error is not None:
            code = 1
            sys.excepthook(type(error), error, error.__traceback__)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF if isinstance(code, int) else 1)


def _in_child() -> None:
    importing.release()
    for lock in list(_locks):
        # What the one thread of the child holds itself, it is to release itself. Of a lock that is
        # not reentrant nobody can tell who holds it.
        if not (hasattr(lock, "_is_owned") and lock._is_owned()):
            lock._at_fork_reinit()  # as the standard library does with its own
    for thing in list(_things):
        # Somebody may have closed its descriptor: no reason for the others to go on as they were.
        with contextlib.suppress(Exception):
            thing.forget()
    _things.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=importing.acquire, after_in_parent=importing.release, after_in_child=_in_child
    )
