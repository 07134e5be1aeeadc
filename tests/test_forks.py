"""A forked child of a busy process is told at once whose all this is, and hangs nowhere.

Each use is tried in a child of its own, or in one after the other, below an alarm that ends it.
"""

from __future__ import annotations

import concurrent.futures
import errno
import faulthandler
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sleighexec import NwsServer, SleighExecutor, WorkspaceServer, errors, future, interrupts
from sleighexec.forks import forget_in_child
from tests.conftest import PATIENCE

WATCHDOG = 30  # seconds after which a child that hangs is ended
HUNG = -signal.SIGALRM


class Things:
    """All that a parent may have when it forks."""

    def __init__(self, executor: SleighExecutor, server: NwsServer) -> None:
        self.executor, self.server = executor, server
        self.shared, self.own = executor.workspace, server.openWs("forks")
        self.values = self.shared.ifind("nothing yet")
        self.slow = executor.submit(time.sleep, 0.01)
        self.slow.result(PATIENCE)
        self.kept: list[int] = []
        self.busy = executor.eachElem(time.sleep, [60] * 3, blocking=False)
        self.gathered = executor.eachElem(
            time.sleep, [60], blocking=False, accumulator=self.kept.append
        )
        self.future = self.busy[2]
        self.results = executor.map(time.sleep, [60])


TOLD: dict[str, Callable[[Things], object]] = {  # a ForkedProcessError, at once
    "submit": lambda my: my.executor.submit(abs, -1),
    "submit a lambda": lambda my: my.executor.submit(lambda: 1),
    "submit to a view": lambda my: my.executor.options(priority=1).submit(abs, -1),
    "map": lambda my: list(my.executor.map(abs, [-1])),
    "imap": lambda my: list(my.executor.imap(abs, [-1])),
    "eachElem": lambda my: my.executor.eachElem(abs, [-1]),
    "eachWorker": lambda my: my.executor.eachWorker(abs, -1),
    "resize": lambda my: my.executor.resize(3),
    "listen": lambda my: my.executor.listen(),
    "wait_for_workers": lambda my: my.executor.wait_for_workers(99),
    "store": lambda my: my.shared.store("x", 1),
    "store of an array": lambda my: my.shared.store("x", bytearray(200_000)),
    "fetch": lambda my: my.shared.fetch("x"),
    "an iterator": lambda my: next(my.values),
    "result": lambda my: my.future.result(),
    "exception": lambda my: my.future.exception(),
    "kill": lambda my: my.executor.kill(my.future),
    "add_done_callback": lambda my: my.future.add_done_callback(print),
    "wait": lambda my: concurrent.futures.wait([my.slow, my.future]),
    "as_completed": lambda my: list(concurrent.futures.as_completed(my.busy)),
    "wait of many": lambda my: my.busy.wait(),
    "wait with an accumulator": lambda my: my.gathered.wait(),
    "a result of a map": lambda my: next(my.results),
    "store at a server": lambda my: my.own.store("x", 1),
    "store without waiting": lambda my: my.own.store("x", 1, wait=False),
    "fetch at a server": lambda my: my.own.fetch("x"),
    "listWss": lambda my: my.server.listWss(),
}
QUIET: dict[str, tuple[Callable[[Things], object], object]] = {  # with what comes back
    "len": (lambda my: len(my.busy), 3),
    "check": (lambda my: my.busy.check(), 3),
    "done": (lambda my: my.future.done(), False),
    "cancelled": (lambda my: my.future.cancelled(), False),
    "cancel": (lambda my: my.future.cancel(), False),
    "cancel of many": (lambda my: my.busy.cancel(), 0),
    "repr": (lambda my: repr(my.future), "<SleighFuture of the parent process>"),
    "repr of the executor": (lambda my: repr(my.executor)[:15], "<SleighExecutor"),
    "what has ended": (lambda my: my.slow.result(), None),
    "wait for what has ended": (lambda my: len(concurrent.futures.wait([my.slow]).done), 1),
    "as_completed of it": (lambda my: len(list(concurrent.futures.as_completed([my.slow]))), 1),
    "_processes": (lambda my: my.executor._processes, {}),
    "close": (lambda my: my.server.close(), None),
    "kill_workers": (lambda my: my.executor.kill_workers(), None),
    "shutdown": (lambda my: my.executor.shutdown(cancel_futures=True), None),
}


def in_child(check: Callable[[], object]) -> int:
    """How a forked child ends that does this: 0, or 1 if it raises, or HUNG."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are other threads: we know
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, file=2, chain=True)
            signal.alarm(WATCHDOG)
            check()
            status = 0
        except BaseException as error:
            os.write(2, f"in a forked child: {error!r}\n".encode())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def use_all(my: Things) -> None:
    for name, use in TOLD.items():
        try:
            found = use(my)
        except errors.ForkedProcessError:
            continue
        except BaseException as error:
            raise AssertionError(f"{name} raised {error!r}") from error
        raise AssertionError(f"{name} gave {found!r}")
    for name, (use, expected) in QUIET.items():
        found = use(my)
        assert found == expected, f"{name} gave {found!r}"


@pytest.fixture
def things(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Things]:
    monkeypatch.setenv("SLEIGHEXEC_RUN_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    with WorkspaceServer() as server, NwsServer(url=server.url) as connection:
        executor = SleighExecutor(2)
        my = Things(executor, connection)
        try:
            yield my
        finally:
            my.future = my.busy[0]
            executor.kill_workers()
            executor.shutdown()


@pytest.mark.parametrize("name", TOLD)
def test_a_forked_child_is_told_whatever_it_asks_for(things: Things, name: str) -> None:
    def use() -> None:
        with pytest.raises(errors.ForkedProcessError, match="parent process"):
            TOLD[name](things)

    assert in_child(use) == 0


@pytest.mark.parametrize("name", QUIET)
def test_what_needs_nobody_else_works_in_a_forked_child(things: Things, name: str) -> None:
    use, expected = QUIET[name]

    def check() -> None:
        found = use(things)
        assert found == expected, found

    assert in_child(check) == 0
    assert things.executor.submit(abs, -2).cancel()  # there is still who would run it
    things.own.store("x", 3)
    assert things.own.fetch("x") == 3


def locks_of(my: Things) -> dict[str, Any]:
    """What a thread of the parent may hold at the very moment of a fork."""
    connection: Any = my.server._connection
    arrivals, gathered = my.busy._arrivals, my.gathered._arrivals
    return {
        "server": my.executor._engine.server.lock,  # type: ignore[attr-defined]
        "futures": future._lock,
        "one future": my.future._condition,
        "one that has ended": my.slow._condition,
        "functions": my.executor._functions._lock,
        "ranks": my.executor._ranks_stay,
        "many": arrivals._lock,
        "many with an accumulator": gathered._lock,
        "accumulator": my.gathered._accumulating,
        "values": my.values._lock,
        "sending": connection._sending,
        "connection": connection._lock,
    }


LOCKS = (
    "server",
    "futures",
    "one future",
    "one that has ended",
    "functions",
    "ranks",
    "many",
    "many with an accumulator",
    "accumulator",
    "values",
    "sending",
    "connection",
)


@pytest.mark.parametrize("name", LOCKS)
def test_a_forked_child_does_not_wait_for_a_lock_that_a_thread_of_its_parent_holds(
    things: Things, name: str
) -> None:
    locks = locks_of(things)
    assert tuple(locks) == LOCKS
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with locks[name]:
            held.set()
            over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(PATIENCE)
        status = in_child(lambda: use_all(things))
    finally:
        over.set()
        holder.join()
    assert status == 0


def test_a_child_that_is_forked_amid_everything_is_told(things: Things) -> None:
    with SleighExecutor(2) as executor:
        my, stop = things, threading.Event()
        my.executor.workspace.store("seed", 0)

        def call() -> None:
            while not stop.is_set():
                for each in [executor.submit(abs, n) for n in range(20)]:
                    each.result(PATIENCE)
                list(executor.map(abs, range(50)))
                executor.eachElem(abs, range(20))
                concurrent.futures.wait([executor.submit(lambda n=n: n) for n in range(5)])

        def store() -> None:
            while not stop.is_set():
                my.own.store("x", 1)
                my.own.store("x", 2, wait=False)
                my.own.fetch("x")
                my.own.fetch("x")
                executor.workspace.store("y", 1)
                executor.workspace.fetch("y")

        def use() -> None:
            use_all(my)
            my.executor = executor
            for name in ("submit", "submit a lambda", "map", "eachElem", "eachWorker"):
                with pytest.raises(errors.ForkedProcessError):
                    TOLD[name](my)
            with pytest.raises(errors.ForkedProcessError):
                executor.workspace.store("y", 1)
            executor.shutdown()

        threads = [threading.Thread(target=call), threading.Thread(target=store)]
        for thread in threads:
            thread.start()
        try:
            ends = [in_child(use) for _ in range(30)]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert ends == [0] * 30
        assert executor.submit(abs, -3).result(PATIENCE) == 3


def test_a_child_can_make_an_executor_of_its_own_amid_everything(things: Things) -> None:
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with things.executor._engine.server.lock, future._lock:  # type: ignore[attr-defined]
            held.set()
            over.wait()

    def use() -> None:
        with SleighExecutor(1) as executor:
            assert executor.submit(abs, -4).result(PATIENCE) == 4
            with pytest.raises(errors.ForkedProcessError):
                executor.submit(print, things.future)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(PATIENCE)
        status = in_child(use)
    finally:
        over.set()
        holder.join()
    assert status == 0


def test_a_child_of_another_thread_has_the_signal_handlers_of_the_program() -> None:
    lock = interrupts.QuietLock()
    ends: list[int] = []

    def check() -> None:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("nothing came")
        with lock:
            pass

    with lock:
        thread = threading.Thread(target=lambda: ends.append(in_child(check)))
        thread.start()
        thread.join()
    assert ends == [0]


def test_a_child_does_not_end_the_server_of_its_parent(things: Things) -> None:
    with WorkspaceServer("127.0.0.1:0") as server:
        assert in_child(server.close) == 0
        with NwsServer(url=server.url) as connection:
            assert connection.listWss() == ""


def test_a_forked_child_of_a_task_is_told_too(executor: SleighExecutor) -> None:
    def fork() -> int:
        from sleighexec import current_worker

        workspace = current_worker().workspace
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                workspace.store("x", 1)
            except errors.ForkedProcessError:
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        workspace.store("x", 2)
        return status

    assert executor.submit(fork).result(PATIENCE) == 0
    assert executor.workspace.fetch("x") == 2


def test_what_cannot_let_go_keeps_no_other_from_it(things: Things) -> None:
    class Stubborn:
        def forget(self) -> None:
            raise OSError(errno.EBADF, "its descriptor was closed by somebody")

    stubborn = [Stubborn() for _ in range(50)]  # some of them come first, whatever the order
    for each in stubborn:
        forget_in_child(each)
    assert in_child(lambda: use_all(things)) == 0


def test_a_forked_child_keeps_no_store_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLEIGHEXEC_RUN_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    store = str(tmp_path / "store")
    begun, go_on = os.pipe(), os.pipe()

    def outlive_the_server() -> None:
        os.write(begun[1], b"!")
        os.close(go_on[1])
        os.read(go_on[0], 1)

    with WorkspaceServer(store=store):
        child = concurrent.futures.ThreadPoolExecutor(1)
        ended = child.submit(in_child, outlive_the_server)
        os.read(begun[0], 1)
    with WorkspaceServer(store=store):
        pass
    for descriptor in (go_on[1], go_on[0], *begun):
        os.close(descriptor)
    assert ended.result(PATIENCE) == 0
    child.shutdown()
