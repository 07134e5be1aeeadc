"""What the end of an interpreter, and that of a worker, wait for and what they refuse."""

from __future__ import annotations

import builtins
import importlib
import os
import threading
from collections.abc import Callable
from functools import partial

import pytest

from sleighexec import SleighExecutor, farewell
from tests.test_faults import run_script

PATIENCE = 60  # seconds after which a program hangs
TOO_LATE = "RuntimeError: cannot schedule new futures after interpreter shutdown"

AT_EXIT = """
    import atexit
    from sleighexec import SleighExecutor

    def late():
        with SleighExecutor(1) as executor:
            for use in (
                lambda: executor.submit(abs, -1),
                lambda: executor.submit(lambda: 1),
                lambda: list(executor.map(abs, [-1])),
                lambda: executor.eachElem(abs, [-1]),
                lambda: executor.eachWorker(abs, -1),
            ):
                try:
                    print(use())
                except BaseException as error:
                    print(f"{{type(error).__name__}}: {{error}}")

    atexit.register(late)
    {before}
"""


@pytest.mark.parametrize("before", ["", "SleighExecutor(1).submit(abs, -1).result()"])
def test_an_executor_that_an_atexit_handler_makes_takes_nothing(before: str) -> None:
    with run_script(AT_EXIT.format(before=before)) as program:
        printed, complaints = program.communicate(timeout=PATIENCE)
    assert printed.splitlines() == [TOO_LATE] * 5
    assert (complaints, program.returncode) == ("", 0)


LEFT = """
    import atexit, multiprocessing, os, sys, threading, time
    from concurrent.futures import ThreadPoolExecutor
    from sleighexec import SleighExecutor

    def leave():
        atexit.register(print, "handled")
        sys.stdout.write("written, ")
        {left}

    with SleighExecutor(1) as executor:
        executor.submit(leave).result()
    print("shut down", flush=True)
"""
NEVER_ENDS = {  # what a task leaves behind; it would hold up the end of the worker for ever
    "a thread": 'threading.Thread(target=threading.Event().wait, name="left").start()',
    "a thread that writes": (
        'threading.Thread(target=lambda: [time.sleep(0.01) for _ in iter(int, 1)], name="left")'
        ".start()"
    ),
    "a pool of threads": (
        'ThreadPoolExecutor(1, thread_name_prefix="left").submit(threading.Event().wait)'
    ),
}


@pytest.mark.parametrize("left", NEVER_ENDS)
def test_a_thread_that_a_task_has_left_does_not_hold_up_the_end(left: str) -> None:
    with run_script(LEFT.format(left=NEVER_ENDS[left])) as program:
        printed, complaints = program.communicate(timeout=PATIENCE)
    assert printed.splitlines() == ["written, handled", "shut down"]
    assert "threads that tasks have left: left" in complaints
    assert program.returncode == 0


def test_a_process_of_multiprocessing_that_a_task_has_left_does_not_hold_up_the_end() -> None:
    left = 'multiprocessing.get_context("fork").Process(target=time.sleep, args=(999,)).start()'
    with run_script(LEFT.format(left=left)) as program:
        printed, _ = program.communicate(timeout=PATIENCE)
    assert printed.splitlines() == ["written, handled", "shut down"]
    assert program.returncode == 0


def test_a_thread_that_a_task_has_left_can_finish_what_takes_a_moment() -> None:
    left = (
        "threading.Thread(target=lambda: (time.sleep(0.3), print('all of it', flush=True))).start()"
    )
    with run_script(LEFT.format(left=left)) as program:
        printed, complaints = program.communicate(timeout=PATIENCE)
    assert printed.splitlines() == ["written, all of it", "handled", "shut down"]
    assert (complaints, program.returncode) == ("", 0)


def test_a_worker_that_is_replaced_does_not_keep_its_rank_for_a_thread() -> None:
    def leave() -> int:
        threading.Thread(target=threading.Event().wait).start()
        return os.getpid()

    with SleighExecutor(1, max_tasks_per_child=1, output="capture") as executor:
        pids = [executor.submit(leave).result(PATIENCE) for _ in range(2)]
    assert len(set(pids)) == 2


# What a task leaves that has something to do at the end, and what is printed then.
GOES_LOUDLY = {
    "a file": ("keep.append(open(1, 'w', closefd=False)); keep[0].write('from a file')", "a file"),
    "an object": ("keep.append(Loud())", "an object"),
    "in a module": (
        "sys.modules['kept'] = types.ModuleType('kept'); sys.modules['kept'].loud = Loud()",
        "an object",
    ),
    "in a cycle": ("one = Loud(); one.self = one", "an object"),
    "a generator": ("keep.append(generator()); next(keep[0])", "a generator"),
    "C code": ("import ctypes; ctypes.CDLL(None).printf(b'from C code')", "C code"),
    "C code beside a thread": (
        "import ctypes; ctypes.CDLL(None).printf(b'from C code'); "
        "threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "C code",
    ),
    "C code and arrays": (
        "import ctypes, numpy; ctypes.CDLL(None).printf(b'from C code')",
        "C code",
    ),
    "a stream": ("sys.__stdout__.write('from a stream')", "a stream"),
    "a handler": ("atexit.register(os.write, 1, b'from a handler')", "a handler"),
    "a finalizer": ("weakref.finalize(keep, os.write, 1, b'from a finalizer')", "a finalizer"),
}

LOUDLY = """
    import atexit, os, sys, threading, types, weakref
    from sleighexec import SleighExecutor

    class Loud:
        def __del__(self):
            os.write(1, b"from an object")

    class Keep(list):
        pass

    keep = Keep()

    def generator():
        try:
            yield
        finally:
            os.write(1, b"from a generator")

    def leave():
        {left}

    if __name__ == "__main__":
        with SleighExecutor(1) as executor:
            executor.submit(leave).result()
        print(", shut down", flush=True)
"""


@pytest.mark.parametrize("left", GOES_LOUDLY)
def test_what_a_task_has_left_does_at_the_end_what_it_has_to(left: str) -> None:
    code, name = GOES_LOUDLY[left]
    with run_script(LOUDLY.format(left=code)) as program:
        printed, complaints = program.communicate(timeout=PATIENCE)
    assert (printed, complaints) == (f"from {name}, shut down\n", "")


def test_a_worker_knows_whether_something_is_left() -> None:
    def after(task: Callable[[], object]) -> tuple[bool, bool]:
        with SleighExecutor(1) as executor:
            executor.submit(task).result()
            list(executor.map(abs, range(100)))
            finalizers = executor.submit(farewell.finalizers_left).result()
            return finalizers, executor.submit(farewell.c_code_left).result()

    def import_much() -> None:
        for name in ("decimal", "json", "random", "email.message"):
            importlib.import_module(name)

    def keep_numbers() -> None:
        builtins.kept = [{"number": n} for n in range(1000)]  # type: ignore[attr-defined]

    def keep_a_file() -> None:
        builtins.kept = open(os.devnull, "w")  # type: ignore[attr-defined] # noqa: SIM115

    assert after(import_much) == (False, False)
    assert after(keep_numbers) == (False, False)
    assert after(keep_a_file) == (True, False)
    assert after(partial(importlib.import_module, "numpy")) == (False, False)
    assert after(partial(importlib.import_module, "sqlite3")) == (False, True)
    assert after(partial(importlib.import_module, "cryptography.hazmat.bindings._rust")) == (
        False,
        True,
    )


def test_what_was_there_before_is_not_taken_apart() -> None:
    code = """
        from sleighexec import farewell

        class Loud:
            def __del__(self):
                print("taken apart", flush=True)

        before = Loud()
        farewell.set_aside()
        print("still here", end="")
        {left}
        farewell.finish(lambda: None)
        print(", and so are we")
    """
    for left, printed in (
        ("", "still here"),
        ("after = Loud()", "still here, and so are we\n"),
        ("loop = Loud(); loop.self = loop; del loop", "still heretaken apart\n"),
    ):
        with run_script(code.format(left=left)) as program:
            assert program.communicate(timeout=PATIENCE) == (printed, "")
            assert program.returncode == 0
