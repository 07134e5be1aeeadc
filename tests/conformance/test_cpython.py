"""CPython's own executor tests, run with SleighExecutor instead of ProcessPoolExecutor.

Nothing is changed in a test but the class it makes. The exceptions are named below, each with its
reason; most are multiprocessing's internals, the others the pool that heals, and those run
unchanged with `on_crash="break"`.
"""

from __future__ import annotations

import functools
import gc
import multiprocessing
import sys
import threading
import unittest
from collections.abc import Collection
from typing import Any

import pytest

from sleighexec import SleighExecutor
from tests.conformance import suite
from tests.conftest import wait_for

INTERNALS = "looks into the machinery of multiprocessing, which is not used here: "
EXCEPTIONS = {
    "test_saturation": INTERNALS
    + "submits a bound method of a C semaphore, which cannot be pickled (replaced: "
    "test_blocked_tasks_start_exactly_max_workers)",
    "test_shutdown_deadlock_pickle": INTERNALS
    + "_executor_manager_thread (replaced: test_an_unpicklable_argument_and_shutdown_do_not_hang)",
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": INTERNALS + "_ThreadWakeup",
    "test_python_finalization_error": INTERNALS + "the number of threads it starts",
    "test_spawn_process_exception_on_start": INTERNALS + "Process.start",
    "test_max_tasks_per_child_defaults_to_spawn_context": INTERNALS + "_mp_context",
    "test_processes_terminate": INTERNALS + "submits a bound method of a C semaphore",
    "test_max_workers_too_large": "a limit of Windows handles",
    "test_spawn": INTERNALS + "the resource tracker",
    "test_forkserver": INTERNALS + "the resource tracker",
}
QUEUES = INTERNALS + (
    "passes a multiprocessing.Queue, which only inheritance can share (replaced: "
    "test_a_failing_initializer_is_logged_in_the_worker)"
)
HEALS = "the pool heals (replaced: tests/test_faults.py; runs unchanged with on_crash='break')"
REPLACED = {"test_killed_child"}
# Where the two ways to take a crash may differ; elsewhere one of them is enough.
CRASHES = {"ProcessPoolShutdownTest", "ProcessPoolExecutorTest", "ExecutorDeadlockTest"}
FAST_WATCHDOG = 20.0  # seconds after which CPython's deadlock tests speak of a deadlock


def _in_script(source: str) -> str:
    """The script of a test, with our class where the standard library's was."""
    for name in ("SleighExecutor", "BreakingExecutor"):
        source = source.replace(
            f"from concurrent.futures import {name}",
            f"from sleighexec import SleighExecutor as {name}",
        )
    if source.startswith("if"):
        path = [suite.path_entry] if suite.path_entry else []
        first, _, rest = source.partition("\n")
        # One of them forgets an import where the standard library's own run is skipped.
        source = (
            f"{first}\n            import multiprocessing, sys; sys.path[:0] = {path!r}\n{rest}"
        )
    return source


class BreakingExecutor(SleighExecutor):
    """As the standard library: a crash breaks the pool."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, on_crash="break", **kwargs)  # type: ignore[arg-type]


def _make(module: object, mixin: type, executor: type) -> type:
    base = getattr(module, "BaseTestCase", None) or unittest.TestCase
    executor_mixin = getattr(module, "ExecutorMixin", None)
    if executor_mixin is None:  # the package: in its util module
        import test.test_concurrent_futures.util as util

        base, executor_mixin = util.BaseTestCase, util.ExecutorMixin

    class Pool(executor_mixin):  # type: ignore[misc, valid-type]
        executor_type = executor
        ctx = "spawn"

        def get_context(self) -> object:
            return multiprocessing.get_context("spawn")

    name = f"{executor.__name__}{mixin.__name__}"
    bases = (mixin, base) if issubclass(mixin, executor_mixin) else (mixin, Pool, base)
    members: dict[str, object] = {"__module__": __name__, "executor_type": executor}
    members |= {"ctx": "spawn", "get_context": Pool.get_context, "TIMEOUT": FAST_WATCHDOG}
    if executor is BreakingExecutor:
        members["pytestmark"] = [pytest.mark.once]
    made = type(name, bases, members)
    for test in [name for name in dir(made) if name.startswith("test_")]:
        reason = EXCEPTIONS.get(test)
        if test == "test_initializer" and "Failing" in mixin.__name__:
            reason = QUEUES
        if executor is SleighExecutor and test in REPLACED:
            reason = HEALS
        if reason is not None:
            setattr(made, test, unittest.skip(f"named exception: {reason}")(getattr(made, test)))
    return made


MODULES = suite.load()


def _all_tests() -> dict[str, type]:
    made = {}
    for module in MODULES:
        for name in suite.MIXINS:
            mixin = getattr(module, name, None)
            if mixin is not None and mixin.__module__ == module.__name__:
                for executor in (
                    (SleighExecutor, BreakingExecutor) if name in CRASHES else (SleighExecutor,)
                ):
                    test = _make(module, mixin, executor)
                    made[test.__name__] = test
    return made


globals().update(_all_tests())


@pytest.fixture(autouse=True)
def _scripts_import_our_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that run a script import the executor by name from `concurrent.futures`."""
    for module in MODULES:
        run = getattr(module, "assert_python_ok", None)
        if run is not None:

            @functools.wraps(run)
            def patched(*args: str, _run: object = run, **env: str) -> object:
                return _run(*map(_in_script, args), **env)  # type: ignore[operator]

            monkeypatch.setattr(module, "assert_python_ok", patched)


@pytest.fixture(autouse=sys.version_info < (3, 11))
def _stopped_threads_are_collected_before_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """3.10 keeps a stopped thread that it finds, and then waits a hundred collections for it."""
    from test.support import threading_helper

    def cleanup(
        count: int, before: Collection[object], _cleanup: Any = threading_helper.threading_cleanup
    ) -> None:
        wait_for(lambda: _no_thread_is_garbage(before), "something keeps a stopped thread")
        _cleanup(count, before)

    monkeypatch.setattr(threading_helper, "threading_cleanup", cleanup)


def _no_thread_is_garbage(before: Collection[object]) -> bool:
    """Whether none has stopped and is there still, but for those that had been there before."""
    threads = list(threading._dangling)  # type: ignore[attr-defined]
    if all(thread in before or thread.is_alive() for thread in threads):
        return True
    del threads
    gc.collect()
    return False


def test_cpythons_suite_was_found() -> None:
    if not MODULES:
        pytest.skip("this Python has no test.test_concurrent_futures: install its test suite")
