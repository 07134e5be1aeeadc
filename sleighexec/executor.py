"""SleighExecutor: a `concurrent.futures.Executor` whose workers stand on a workspace.

    submit(fn, *args) ─▶ Definition + arguments, pickled in the caller's thread ─▶ Engine.put
    eachElem, imap …  ─▶ a Future for each row, put in bulk (each.py) ─────────────┤
    map(fn, *items)   ─▶ one MapJob, cut into spans as workers ask (maps.py) ──────┘

This file knows Futures, order, retries and options; engines know workers.
"""

from __future__ import annotations

import itertools
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial

from sleighexec import payload as pickling
from sleighexec.dependencies import (
    Dependent,
    Gaps,
    Unfilled,
    any_future,
    not_pickled,
    unpicklable,
)
from sleighexec.each import EachCalls
from sleighexec.elements import Row
from sleighexec.engines.base import Engine, Prepared
from sleighexec.errors import UnsupportedOptionError
from sleighexec.forks import free_in_child
from sleighexec.functions import (
    PICKLED,
    PLAIN,
    SHALLOW,
    SMALL,
    UNFILLED,
    Definition,
    FunctionTable,
    GlobalValue,
    constant,
    named,
    simple_form,
)
from sleighexec.future import Chunk, Group, SleighFuture
from sleighexec.hints import TYPE_CHECKING, Any, TypeVar
from sleighexec.launchers.base import LAUNCH_SECONDS, Launcher, is_remote
from sleighexec.maps import MapCalls
from sleighexec.messages import Payload
from sleighexec.options import (
    check_engine,
    checked_int,
    checked_seconds,
    checked_workers,
    dask_engine,
    launchers_of,
    on_nodes,
    settings_of,
)
from sleighexec.output import CAPTURE, LOG, PASS
from sleighexec.payload import Shared
from sleighexec.task import Settings, Task
from sleighexec.views import Optioned, View, displays
from sleighexec.wire import MAX_FRAME

if TYPE_CHECKING:
    from sleighexec.address import Address
    from sleighexec.progress import MakeDisplay
    from sleighexec.repeats import Repeats
    from sleighexec.workerinfo import WorkerInfo
    from sleighexec.workspace import NetWorkSpace, NwsServer

T = TypeVar("T")

HEADROOM = 1024 * 1024  # bytes of a frame for all that travels beside the arguments

_counter = itertools.count()


class SleighExecutor(MapCalls, EachCalls, Optioned, Executor):
    """A pool of worker processes that stands where `ProcessPoolExecutor` stood.

    Functions may be lambdas, closures and things typed into `__main__` or a notebook; a script
    needs no `if __name__ == "__main__"` guard. A worker that dies fails only the task it had
    begun, with `WorkerLost`; the pool heals by itself. Tasks, workers and the caller share
    `workspace`. Beside `submit` and `map` it has the calls of the classic Sleigh.

    Args:
        max_workers: How many workers at most; None: the CPUs this process may use. They are
            started when tasks wait for them.
        mp_context: Accepted for `ProcessPoolExecutor`'s sake; workers are always started afresh,
            never forked from this process.
        initializer: Called in each worker before its first task.
        initargs: Its arguments.
        max_tasks_per_child: Calls after which a worker is replaced; None: never.
        idle_timeout: Seconds after which a worker that has nothing to do ends. It is started again
            when a task needs it, as a new worker of its rank. None: workers stay.
        workspace: URL or connection file of a workspace server that holds the workspaces, such as
            "unix" for that of this user; it may be looked into and used by others. None: they are
            in this process.
        engine: A Dask cluster that is to run the calls instead of workers of ours: its URL,
            "dask://host:8786", or a Dask `Client` or cluster object. Needs `sleighexec[dask]`.
            `max_workers` is then how many calls Dask has at a time; None: as many as its workers
            have threads. What Dask cannot do raises UnsupportedOptionError.
        launcher: Where workers live: a launcher, or a list of them, each with its number of
            `workers`; ranks count through them. None: `Local()`, this machine. An empty list: only
            on machines that join by themselves, see `listen`.
        timeout, retries, memory_limit: Of every call that does not say otherwise; see `options`.
        max_pending: How many calls may wait until a worker takes them: `submit` blocks while there
            are so many, `map` and `eachElem` read their input as there is room. None: any number.
            Calls that wait for other calls, or for one certain worker, do not count; those that
            were cancelled do, until a worker comes to their place. A callback of a Future never
            blocks, since results come in where it runs: what it submits is taken.
        on_crash: "heal", or "break": a worker's death breaks the pool, as in the standard library.
        capture_output: What tasks print also comes, line by line, into the variable `output@RANK`
            of the workspace `sleigh_ride` of this executor's server, which keeps the last 1000.
        capture_logging: What tasks log arrives in the logging tree of this process, with the rank
            as `record.sleigh_worker`: the root logger of a worker has a handler for it, and the
            levels of loggers are those of this process when the worker started.
        output: What becomes of what tasks print: "pass": it goes to the standard output and error
            of this process; "log": each line is logged here by the logger "sleighexec.output"; a
            function: called here with the rank and each line; "capture": nothing. `Future.output`
            has it in any case.
        progress: Show how far `map` and `eachElem` are while they run. True: by tqdm, or a line of
            text if it is not installed, in terminals and notebooks only; "tqdm", "rich" or "text":
            by this, wherever standard error goes; a function: called with a `Progress`. See
            `options` to show that of some calls only.
        inner_threads: How many threads numerical libraries (BLAS, OpenMP) may use in each worker,
            unless the environment says it (OMP_NUM_THREADS and its kind). None: the CPUs of the
            machine, divided among its workers; 0: as many as they like.
        name: What threads of this executor are called in stack dumps.
        nodes: Names of machines, each for one worker that is started there by ssh: short for
            `launcher=[SSH(name), …]`.
        min_workers: Wait for the machines now, and begin with those that have come after
            `start_timeout` seconds, if there is room for that many workers; a warning says who
            did not come. None: do not wait; a machine that does not come breaks the pool.
        start_timeout: Seconds for a machine to come; None: 60. Where machines only join by
            themselves: how long calls wait when there is none.

    Raises:
        PoolBrokenError: With `min_workers`: fewer have come; it says why the others have not.
        ValueError, TypeError: An argument is wrong.
        UnsupportedOptionError: An option is not available with this engine.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        idle_timeout: float | None = None,
        launcher: Launcher | Sequence[Launcher] | None = None,
        nodes: list[str] | None = None,
        engine: Any = None,
        workspace: str | None = None,
        timeout: float | None = None,
        retries: int = 0,
        memory_limit: int | str | None = None,
        on_crash: str = "heal",
        capture_output: bool = True,
        capture_logging: bool = True,
        output: str | Callable[[int, str], object] = PASS,
        progress: Any = None,
        inner_threads: int | None = None,
        name: str | None = None,
        min_workers: int | None = None,
        start_timeout: float | None = None,
        max_pending: int | None = None,
    ) -> None:
        if idle_timeout is not None:
            idle_timeout = checked_seconds("idle_timeout", idle_timeout)
        if engine is not None:
            not_there = {
                "launcher": launcher,
                "nodes": nodes,
                "max_tasks_per_child": max_tasks_per_child,
                "idle_timeout": idle_timeout,
                "inner_threads": inner_threads,
                "max_pending": max_pending,
            }
            check_engine(engine, not_there)
            checked_workers(max_workers)
        if nodes is not None:
            launcher = on_nodes(nodes, launcher)
        launchers = [] if engine is not None else launchers_of(launcher, max_workers)
        if min_workers is not None and engine is None and not launchers:
            raise ValueError(
                "with launcher=[] no machine can have come yet: leave min_workers out, and call "
                "wait_for_workers after listen"
            )
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if not isinstance(initargs, Iterable):
            raise TypeError(f"initargs must be a tuple of arguments, not {initargs!r}")
        if max_tasks_per_child is not None:
            checked_int("max_tasks_per_child", max_tasks_per_child, 1)
        if max_pending is not None:
            checked_int("max_pending", max_pending, 1)
        self._max_pending = max_pending
        self._start_timeout = LAUNCH_SECONDS if start_timeout is None else start_timeout
        if on_crash not in ("heal", "break"):
            raise ValueError(f'on_crash must be "heal" or "break", not {on_crash!r}')
        if output not in (PASS, CAPTURE, LOG) and not callable(output):
            raise ValueError(
                f'output must be "pass", "capture", "log" or a function, not {output!r}'
            )
        if inner_threads is not None:
            checked_int("inner_threads", inner_threads, 0)
        self._settings = settings_of(Settings(), retries, timeout, memory_limit)
        self._progress = None if progress is None else displays(progress)
        self._functions = FunctionTable(self._module_path())
        prepared: Prepared | None = None
        if initializer is not None:
            payload, needs = self._functions.dumps_call(((initializer, *initargs), {}))
            prepared = constant(payload), needs
        far = any(map(is_remote, launchers)) or (engine is None and not launchers)
        self._repeats = _new_repeats() if far else None
        self._known_workspaces: tuple[NetWorkSpace, NetWorkSpace] | None = None
        server = None if workspace is None else self._on_server(workspace, far)
        if engine is not None:
            kind: Any = dask_engine()
            own: dict[str, Any] = {"engine": engine, "max_workers": max_workers}
        else:
            from sleighexec.engines.builtin import BuiltinEngine as kind

            own = {
                "launchers": launchers,
                "max_tasks_per_child": max_tasks_per_child,
                "idle_timeout": idle_timeout,
                "capture_logging": bool(capture_logging),
                "inner_threads": inner_threads,
                "max_pending": max_pending,
            }
        try:
            self._engine: Engine = kind(
                functions=self._functions,
                initializer=prepared,
                on_crash=on_crash,
                capture_output=bool(capture_output),
                output=output,
                workspaces=self._workspace_names() if server is None else server[1],
                address=None if server is None else server[2],
                on_end=_nothing if server is None else server[0].close,
                name=name or f"sleigh-{next(_counter)}",
                start_timeout=start_timeout,
                **own,
            )
        except BaseException:
            if server is not None:
                server[0].close()
            raise
        self._shut_down = False
        # Held from counting the workers to giving each a call.
        self._ranks_stay = free_in_child(threading.RLock())
        self._url: str | None = None
        # Nothing that runs may hold the executor: when nobody else does, it ends by itself.
        self._finalizer = weakref.finalize(self, self._engine.abandon)
        self._finalizer.atexit = False
        try:
            self._engine.admit(self._settings)
        except BaseException:
            self.shutdown()
            raise
        if min_workers is not None:
            self._gather(checked_int("min_workers", min_workers, 1))

    def _gather(self, least: int) -> None:
        """Wait for the hosts, and go on with those that have come."""
        engine: Any = self._engine
        try:
            engine.gather(least, self._start_timeout)
        except BaseException:
            self.shutdown()
            raise

    def _module_path(self) -> list[str]:
        """Folders that the imports of workers search besides those of ours."""
        return []

    def _workspace_names(self) -> tuple[str, str]:
        """What the workspaces of the system and of the user are called."""
        return "sleigh_ride", "sleigh_user"

    # ------------------------------------------------------------------ running things

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> SleighFuture[T]:
        """Schedule `fn(*args, **kwargs)` and return its Future at once.

        The call is taken as it is now: what happens to its arguments later does not matter, but
        for buffers of 64 KiB and more (numpy arrays), which are read when the call is sent.

        Raises:
            TypeError: `fn` is not callable.
            RuntimeError: After `shutdown`.
            PoolBrokenError: No worker can be had any more.

        An argument that cannot be pickled is the error of the future, not of this call.

        A Future of any SleighExecutor among the arguments (itself one, not within a list) stands
        for its result: the call waits for it, and no worker does. If there will be no result,
        the call fails with `DependencyError`.
        """
        return self._submit(self._settings, fn, args, kwargs)

    def _submit(
        self, settings: Settings, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> SleighFuture[Any]:
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {type(fn).__name__}: {fn!r}")
        if settings.needs:
            self._put(settings, ())  # raises, before anything is pickled, if nobody has that
        try:
            definition, needs, form, item = self._call(fn, args, kwargs)
        except BaseException as error:
            if not isinstance(error, Exception) and not isinstance(error, SystemExit):
                raise  # Ctrl-C is not the task's
            return self._failed(fn, args, kwargs, error)
        if form == UNFILLED:
            group = Dependent(self._engine, self._functions, named(fn), item, _fitting)
            future: SleighFuture[Any] = SleighFuture(
                self._engine, definition, needs, PICKLED, None, settings, group
            )
            group.wait_for_all(future)
            return future
        future = SleighFuture(self._engine, definition, needs, form, item, settings)
        if self._max_pending is not None:
            self._engine.wait_for_room()
        if settings.ranked:
            self._engine.put_ranked((future,), settings.priority, settings.needs)
        else:
            self._engine.put((future,))
        return future

    def _is_watched(self) -> bool:
        """Whether submit is another one (a progress bar's), which is to see every call of a map."""
        return "submit" in self.__dict__ or type(self).submit is not SleighExecutor.submit

    def _put(self, settings: Settings, tasks: Sequence[Task]) -> None:
        if self._max_pending is not None and len(tasks):
            for task in tasks[:-1]:
                self._put(settings, (task,))
            tasks = tasks[-1:]
            self._engine.wait_for_room()
        if settings.ranked:
            self._engine.put_ranked(tasks, settings.priority, settings.needs)
        else:
            self._engine.put(tasks)

    def _call(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Definition, tuple[GlobalValue, ...], int, Any]:
        """A call in the form in which it travels."""
        definition = self._functions.define(fn)
        if definition is None:
            definition, args = self._functions.apply_as(fn), (fn, *args)
            first = 1
        elif not kwargs and (form := simple_form(args)) is not None:
            return definition, (), form, args
        elif not kwargs and (copy := pickling.copy_of_shallow(args)) is not None:
            return definition, (), SHALLOW, copy
        else:
            first = 0
            # Nearly always it is no more than that; a Future would not be.
            if (named := self._functions.dumps_named((args, kwargs))) is not None:
                return definition, named[1], *self._travelling(named[0])
        if any_future(args, kwargs):
            gaps = Gaps(args[first:], kwargs)
            payload, needs = self._functions.dumps_call(gaps.cut(args, kwargs))
            return definition, needs, UNFILLED, Unfilled(payload, gaps, first)
        payload, needs = self._functions.dumps_rich((args, kwargs))
        return definition, needs, *self._travelling(payload)

    def _travelling(self, payload: Payload) -> tuple[int, Any]:
        """The form in which the pickled arguments of a call travel, and these."""
        if payload.buffers or len(payload.head) >= pickling.OUT_OF_BAND:
            return PICKLED, self._fit(payload)
        return SMALL, payload.head

    def _fit(self, payload: Payload) -> Payload:
        """The arguments of a call as they travel."""
        if self._repeats is not None:
            self._repeats.replace(payload)
        return _fitting(payload)

    def _failed(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: BaseException
    ) -> SleighFuture[Any]:
        """The future of a call that could not be pickled."""
        what = unpicklable(self._functions, args, kwargs)
        self._engine.put(())  # raises what a submit would raise now
        apply, settings = self._functions.apply, self._settings
        future: SleighFuture[Any] = SleighFuture(self._engine, apply, (), PLAIN, (), settings)
        future.fail(partial(not_pickled, named(fn), error, what))
        return future

    def _submit_rows(self, fn: Any, rows: list[Row], group: Group, chunk_size: int) -> None:
        self._bulk(self._settings, fn, rows, group, chunk_size)

    def _shared_if_big(self, value: Any) -> Any:
        if type(value) is pickling.Shared or self._functions.define(value) is not None:
            return value
        return self._functions.shared_if_big(value)

    def _submit_each(self, fn: Any, args: Row, group: Group, sticky: bool) -> None:
        self._one_each(self._settings, fn, args, group, sticky)

    def _bulk(
        self, settings: Settings, fn: Any, rows: list[Row], group: Group, chunk_size: int
    ) -> None:
        """Make a future for each row, and put them together."""
        if settings.needs:
            self._put(settings, ())  # raises, before anything is pickled, if nobody has that
        engine, functions = self._engine, self._functions
        definition = None if type(fn) is pickling.Shared else functions.define(fn)
        known = definition or functions.apply_as(fn)
        # What travels in one chunk travels in one form.
        whole = chunk_size > 1 and any([simple_form(row) is None for row in rows])
        by_key = definition is not None and not whole
        futures: list[SleighFuture[Any]] = []
        failed: list[tuple[int, Callable[[], BaseException]]] = []
        for row in rows:
            future: SleighFuture[Any]
            if by_key and (simple := simple_form(row)) is not None:
                future = SleighFuture(engine, known, (), simple, row, settings, group)
            elif by_key and (copy := pickling.copy_of_shallow(row)) is not None:
                future = SleighFuture(engine, known, (), SHALLOW, copy, settings, group)
            else:
                args = row if definition is not None else (fn, *row)
                form, item = PICKLED, None
                try:
                    payload, needs = functions.dumps_call((args, {}))
                    form, item = (form, self._fit(payload)) if whole else self._travelling(payload)
                except Exception as error:
                    needs = ()
                    what = unpicklable(functions, row, {})
                    failed.append((len(futures), partial(not_pickled, named(fn), error, what)))
                future = SleighFuture(engine, known, needs, form, item, settings, group)
            futures.append(future)
        group.submitted(futures)
        for index, problem in failed:
            futures[index].fail(problem)
        sent = [future for future in futures if future._item is not None] if failed else futures
        starts = range(0, len(sent), chunk_size)
        tasks = sent if chunk_size == 1 else [Chunk(sent[i : i + chunk_size]) for i in starts]
        self._put(settings, tasks)

    def _one_each(self, settings: Settings, fn: Any, args: Row, group: Group, sticky: bool) -> None:
        """Make a future for each worker, by rank, and put each into its mailbox."""
        if settings.needs:
            raise UnsupportedOptionError(
                "eachWorker runs on every worker, whatever it has: leave resources= out"
            )
        engine, apply = self._engine, self._functions.apply_as(fn)
        if not engine.max_workers:  # a machine is to join first
            self.wait_for_workers(1, self._start_timeout)
        payload, needs = self._functions.dumps_call(((fn, *args), {}))
        item = constant(_fitting(payload))
        prepared = (item, needs) if sticky else None
        if prepared is not None:
            group = _Unstick(engine, prepared, group)
        with self._ranks_stay:
            futures: list[SleighFuture[Any]] = [
                SleighFuture(engine, apply, needs, PICKLED, item, settings, group)
                for _ in range(engine.max_workers)
            ]
            group.submitted(futures)
            engine.put_each(futures, prepared)

    def share(self, value: object) -> Shared:
        """A handle that any call of this executor takes in place of `value`.

        The value, as it is now, travels once to each worker that needs it, or once to all those of
        another machine, however many calls have the handle among their arguments. They get the
        value itself: on one worker all the same one, with arrays that are read-only. Workers forget
        it, at their next call, when neither the handle nor a call that has it exists any more.

        Raises:
            Exception: Whatever pickling the value raises.
        """
        return self._functions.share(value)

    def kill(self, future: SleighFuture[Any]) -> bool:
        """Stop a call even if it runs: its worker is killed and replaced, no other call is lost.

        The future is cancelled then. Returns whether it was stopped; False if it had finished.
        Blocks until that is known, a moment.
        """
        if not isinstance(future, SleighFuture):
            raise TypeError(f"kill takes a Future of this executor, not {future!r}")
        return future.kill()

    def _view(self, settings: Settings, progress: MakeDisplay | None) -> View:
        return View(self, settings, progress)

    # ------------------------------------------------------------------ the pool

    @property
    def workspace(self) -> NetWorkSpace:
        """The workspace that the caller and all tasks of this executor share."""
        return self._workspaces[1]

    @property
    def _workspaces(self) -> tuple[NetWorkSpace, NetWorkSpace]:
        """Those of the system and of the user."""
        if self._known_workspaces is None:
            from sleighexec.workspace import NwsServer  # not all executors use theirs

            engine: Any = self._engine
            server = NwsServer(connection=engine.connection, shared=True)
            ride, user = [server.useWs(name) for name, _ in engine.workspaces]
            self._known_workspaces = ride, user
        return self._known_workspaces

    def _on_server(self, url: str, far: bool) -> tuple[NwsServer, list[str], Address]:
        """Make our workspaces on another server, to be deleted when we leave it.

        Their names, and where workers, which may be `far`, find the server.
        """
        from sleighexec.address import TLS, find
        from sleighexec.session import WORKER
        from sleighexec.workspace import NwsServer

        server = NwsServer(url=url)
        address = find(str(server.url))
        if address.url.startswith(TLS):
            address = address.only_for(WORKER)
        elif far:
            server.close()
            raise UnsupportedOptionError(
                f"workers on other machines cannot reach {address.url}: start the server with "
                "`sleighexec server --bind HOST:PORT`, or leave workspace= out, then they share "
                "the workspace of their executor"
            )
        names = [server.mktempWs(f"{name}__%d") for name in self._workspace_names()]
        ride, user = map(server.openWs, names)
        self._known_workspaces = ride, user
        return server, names, address

    @property
    def worker_count(self) -> int:
        """How many workers there may be; `resize` changes it."""
        return self._engine.max_workers

    @property
    def _max_workers(self) -> int:
        return self._engine.max_workers

    def resize(self, max_workers: int) -> None:
        """Have at most so many workers from now on. Returns at once; calls go on meanwhile.

        More: the new ranks are started when tasks wait for them, each prepared by the initializer
        and the sticky calls so far. Ranks beyond those that the launchers were meant for live
        where the last launcher puts them. A host that is given up does not count.

        Fewer: the workers of the highest ranks leave: those that are idle at once, the others when
        their present call has ended; other calls that they have not begun are for the rest.
        Calls of `eachWorker` that wait for a worker that is to leave are run by it before.

        `current_worker().count` and `SleighWorkerCount` stay what they were when their worker
        started.

        Raises:
            TypeError, ValueError: `max_workers` is not a number of workers.
            RuntimeError: After `shutdown`.
            PoolBrokenError: No worker can be had any more.
        """
        count = checked_workers(checked_int("max_workers", max_workers, 1))
        with self._ranks_stay:
            self._engine.resize(count)

    def listen(self, bind: str = "127.0.0.1:0") -> str:
        """Let machines join this pool by themselves, by `sleighexec worker`; the URL for them.

        Each of their workers gets a rank of its own, so the pool grows; when they leave or are
        lost it shrinks. The connection file of the URL is in the run directory of the user:
        machines that do not share it need a copy. It has keys to join and to look
        (`sleighexec status`), and goes when the executor ends.

        Args:
            bind: "host:port" of this machine, port 0 for a free one. There is TLS on all of them.

        Raises:
            OSError, ValueError: There it cannot listen.
            RuntimeError: After `shutdown`.
            PoolBrokenError: No worker can be had any more.
        """
        engine: Any = self._engine
        if not hasattr(engine, "listen"):
            raise UnsupportedOptionError("with this engine no machine can join by itself")
        url: str = engine.listen(bind)
        self._repeats = self._repeats or _new_repeats()
        self._url = url
        return url

    def wait_for_workers(self, count: int = 1, timeout: float | None = None) -> None:
        """Wait until there are so many workers, or places for them: until machines have joined.

        Raises:
            TimeoutError: There are fewer after `timeout` seconds.
            RuntimeError: After `shutdown`.
            PoolBrokenError: No worker can be had any more.
        """
        engine: Any = self._engine
        if not hasattr(engine, "await_places"):
            raise UnsupportedOptionError("with this engine: give min_workers to the constructor")
        engine.await_places(checked_int("count", count, 1), timeout)

    @property
    def url(self) -> str | None:
        """What the last `listen` returned; None: nothing listens."""
        return None if self._shut_down else self._url

    def workers(self) -> list[WorkerInfo]:
        """The workers there are now, by rank."""
        return self._engine.workers()

    @property
    def _processes(self) -> Any:
        """The workers by pid, for those who look into `ProcessPoolExecutor._processes`."""
        return None if self._shut_down else self._engine.processes()

    @property
    def _broken(self) -> bool:
        return getattr(self._engine, "broken", None) is not None

    # ------------------------------------------------------------------ the end

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, finish those submitted, end the workers. May be called again.

        Args:
            wait: Return when everything has ended; else at once, and it ends by itself.
            cancel_futures: Cancel the calls that have not begun; who waits for them is told.
        """
        self._shut_down = True
        self._engine.shutdown(cancel=cancel_futures)
        if wait:
            self._engine.join()

    def terminate_workers(self) -> None:
        """Shut down at once: SIGTERM to every worker, what they run is lost, the rest cancelled."""
        self._kill(signal.SIGTERM)

    def kill_workers(self) -> None:
        """Shut down at once: SIGKILL to every worker, what they run is lost, the rest cancelled."""
        self._kill(signal.SIGKILL)

    def _kill(self, number: int) -> None:
        self._engine.signal_workers(number)
        self.shutdown(wait=False, cancel_futures=True)

    def __exit__(self, *exc_info: Any) -> bool | None:
        if exc_info[0] is KeyboardInterrupt:  # nobody will look at what still runs
            self.kill_workers()
        try:
            self.shutdown(wait=True)
        except KeyboardInterrupt:  # nor if it comes here
            self.kill_workers()
            self.shutdown(wait=True)
            raise
        return None

    def __reduce__(self) -> Any:
        raise TypeError(
            "an executor cannot be sent to a task; make one inside the task, or return the work "
            "to be done and submit it here"
        )

    def __repr__(self) -> str:
        if self._shut_down:
            return f"<{type(self).__name__} shut down>"
        return f"<{type(self).__name__} {len(self.workers())} of {self._max_workers} workers>"


def _new_repeats() -> Repeats:
    from sleighexec.repeats import Repeats  # a pool of this machine does not need it

    return Repeats()


def _nothing() -> None:
    pass


class _Unstick:
    """The group of a sticky call: if that fails or is cancelled, no later worker makes it.

    That is so before anybody hears that it has failed.
    """

    def __init__(self, engine: Engine, prepared: Prepared, group: Group) -> None:
        """`group`: of those who wait for the call."""
        self._engine, self._prepared, self._group = engine, prepared, group
        self.submitted = group.submitted

    def ended(self, future: SleighFuture[Any]) -> None:
        from sleighexec.errors import WorkerLost

        if future.cancelled() or not isinstance(future.exception(), (WorkerLost, type(None))):
            self._engine.unstick(self._prepared)
        self._group.ended(future)


def _fitting(payload: Payload) -> Payload:
    """The payload, if it can travel."""
    if payload.size_bytes > MAX_FRAME - HEADROOM:
        raise ValueError(
            f"the arguments take {payload.size_bytes} bytes, more than the {MAX_FRAME} that a call "
            "may have: pass a file name, or cut them into parts"
        )
    return payload
