"""What is asked of Dask, all of it: this is the one file that imports it.

Cluster     the scheduler, from here: members, scatter, run, plugins; see also orders.py
Attendant   a WorkerPlugin: a run in every worker there is and will be, restarted ones too
Watcher     a SchedulerPlugin: tells who comes and goes and what was lost with it, and sees that
            nothing of ours runs twice: Dask would run again whatever was on a lost worker
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
from collections.abc import Callable
from concurrent import futures
from functools import partial
from urllib.parse import urlsplit

import distributed
from dask._task_spec import Task as DaskTask
from distributed import Client, Status, Worker, WorkerPlugin
from distributed.deploy.cluster import Cluster as DaskCluster
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import TaskState

from sleighexec.address import LOOPBACK
from sleighexec.engines.dask import remote
from sleighexec.engines.dask.orders import Arrived, Orders
from sleighexec.engines.dask.run import Facts
from sleighexec.errors import ConnectError, UnsupportedOptionError
from sleighexec.hints import Any

SETTLE_SECONDS = 10.0  # that a nanny may take to see that its worker is there
RUN_SECONDS = 10.0  # that workers may take to answer what is asked at once
TRIED = "distributed 2026.1 to 2026.8"
SLOTS = frozenset(getattr(TaskState, "__slots__", ()))
NOT_BEGUN = ("waiting", "ready", "constrained")  # states of a task in a worker
NEEDED = ("tasks", "workers", "worker_plugins", "get_events", "log_event")  # of a scheduler
SCHEMES = {"dask": "tcp", "dask+tcp": "tcp", "dask+tls": "tls"}

Tell = Callable[[Any], object]


class Attendant(WorkerPlugin):  # type: ignore[misc]
    """A run in each worker; or one call more that prepares them."""

    def __init__(self, run: str, setup: dict[str, Any], number: int, call: Any = None) -> None:
        """`number` of the call that prepares; 0: the plugin stands for the run itself."""
        self.name = f"{run}-{number}"
        self._run, self._setup, self._number, self._call = run, setup, number, call

    def setup(self, worker: Worker) -> None:
        """A worker starts, or is there."""
        threads = worker.state.nthreads
        killable = threads == 1 and bool(worker.nanny)
        name = str(worker.name)
        calls = worker.log_event, partial(_settle, worker), partial(_waiting, worker)
        facts = Facts(name, worker.address, threads, killable, *calls)
        remote.attach(self._run, facts, self._setup, self._number, self._call)

    def teardown(self, worker: Worker) -> None:
        """The run is over, or the worker ends."""
        remote.detach(self._run, self._number, ends=worker.status != Status.running)

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """A task changes its state in this worker; of ours, one whose outcome nobody needs."""
        if finish == "forgotten" or (finish == "released" and start == "memory"):
            run, _, number = str(key).rpartition("-")
            if run == self._run and not self._number:
                remote.make_safe(run, int(number))


def _settle(worker: Worker) -> None:
    """Called by a task: wait until the nanny has seen this process come.

    One that ends before that it does not start again, and the cluster has a worker less for good.
    """
    if worker.nanny:
        asking = _until_seen(worker)
        with contextlib.suppress(Exception):  # a nanny that cannot tell is not waited for
            loop = worker.loop.asyncio_loop
            asyncio.run_coroutine_threadsafe(asking, loop).result(SETTLE_SECONDS)


async def _until_seen(worker: Worker) -> None:
    nanny, pid = worker.rpc(worker.nanny), os.getpid()
    while True:
        answer = await nanny.run(function=pickle.dumps(_has_seen), args=pickle.dumps((pid,)))
        if answer["status"] != "OK" or answer["result"]:
            return
        await asyncio.sleep(SETTLE_SECONDS / 500)


def _has_seen(pid: int, dask_worker: Any) -> bool:
    """In a nanny: whether it knows that this process runs."""
    process = dask_worker.process
    return bool(process.pid == pid and process.status == Status.running)


def _waiting(worker: Worker) -> list[str]:
    """Keys of the tasks that a worker has and has not begun. Called in any thread."""
    tasks = list(worker.state.tasks.values())  # in one step: Dask's own thread changes them
    return [str(task.key) for task in tasks if task.state in NOT_BEGUN]


class Watcher(SchedulerPlugin):  # type: ignore[misc]
    """In the scheduler: a run's keys and the workers."""

    def __init__(self, run: str, client: str) -> None:
        self.name = run
        self._run, self._client = run, client
        self._calls: list[int] = []
        self._gone: set[str] = set()  # keys that had begun, or had a result, and have not any more

    def start(self, scheduler: Any) -> None:
        """We are in the scheduler now.

        Raises:
            UnsupportedOptionError: It is none that we know.
        """
        check(scheduler)
        self._scheduler = scheduler

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """A task changes its state; of ours, one that goes back is not to run again."""
        if finish == "released" and start in ("processing", "memory"):
            if type(key) is not str or not key.startswith(self._run):
                return
            task = self._scheduler.tasks.get(key)
            if task is not None and task.who_wants:  # else its result has been taken
                task.run_spec = DaskTask(key, remote.lost)
                self._gone.add(key)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """A worker has come."""
        self._tell(["joined", member(worker, scheduler.workers[worker].identity())])

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
        """A worker has gone."""
        gone, self._gone = self._gone, set()
        wanted = [key for key in gone if key in scheduler.tasks]
        self._tell(["left", worker, self._expected(worker), wanted])

    def remove_client(self, scheduler: Any, client: str) -> None:
        """The executor's process has ended without a word: nothing of it stays here."""
        if client == self._client:
            scheduler.loop.add_callback(self.clean_up)

    async def clean_up(self) -> None:
        """Let go of all that the run has here and in the workers."""
        scheduler = self._scheduler
        for name in [name for name in scheduler.worker_plugins if name.startswith(self._run)]:
            with contextlib.suppress(Exception):  # a worker may have ended with what it ran
                await scheduler.unregister_worker_plugin(comm=None, name=name)
        with contextlib.suppress(ValueError):
            await scheduler.unregister_scheduler_plugin(name=self.name)

    def _tell(self, event: list[Any]) -> None:
        self._scheduler.log_event(self._run, event)

    def _expected(self, worker: str) -> bool:
        """Whether it was sent away: then nobody starts it again."""
        for _, event in self._scheduler.get_events(worker):
            said = event.get("action") == "closing-worker" and "restart" not in event["reason"]
            if said or event.get("expected", False):
                return True
        return False


def check(scheduler: Any) -> None:
    """See that Dask is as `Watcher` knows it: what it does there is not part of Dask's promises.

    Raises:
        UnsupportedOptionError: It is not.
    """
    missing = [f"TaskState.{name}" for name in ("run_spec", "who_wants") if name not in SLOTS]
    missing += [f"Scheduler.{name}" for name in NEEDED if not hasattr(scheduler, name)]
    if missing or DaskTask("probe", remote.lost)() != remote.lost():
        raise UnsupportedOptionError(
            f"the Dask scheduler has distributed {distributed.__version__}, with which nothing "
            f"could keep calls from running twice ({', '.join(missing) or 'dask Task'}): "
            f"sleighexec was tried with {TRIED}"
        )


def member(address: str, identity: dict[str, Any]) -> dict[str, Any]:
    """What there is to know of a worker, as plain values."""
    return {
        "address": address,
        "name": str(identity["name"]),
        "threads": identity["nthreads"],
        "nanny": bool(identity.get("nanny")),
        "host": identity.get("host", ""),
        "resources": dict(identity.get("resources", {})),
    }


class Cluster:
    """A Dask cluster, as an engine uses it. Thread-safe."""

    def __init__(self, engine: Any, run: str, tell: Callable[[Arrived], object]) -> None:
        """`engine`: the URL of a scheduler, or a Client or Cluster object of Dask.

        `tell` hears of outcomes, in Dask's own thread.

        Raises:
            ConnectError: No scheduler answers.
        """
        self.run_name = run
        self._ours = not isinstance(engine, Client)
        self.cluster: Any = None
        if isinstance(engine, Client):
            if engine.asynchronous:
                raise TypeError("engine= takes a Dask Client that is not asynchronous")
            self.client = engine
            self.cluster = engine.cluster
        elif isinstance(engine, DaskCluster):
            self.cluster = engine
            self.client = Client(engine, set_as_default=False)
        else:
            parts = urlsplit(engine)
            address = f"{SCHEMES[parts.scheme]}://{parts.netloc}"
            try:
                self.client = Client(address, set_as_default=False)
            except (OSError, TypeError) as error:  # no certificate is a TypeError
                raise ConnectError(f"no Dask scheduler answers at {engine}: {error}") from error
        self.orders = Orders(self.client, tell)

    def watch(self, setup: dict[str, Any], tell: Tell) -> None:
        """From now on `tell` hears of events, and workers have the run."""
        self.client.subscribe_topic(self.run_name, lambda event: tell(event[1]))
        try:
            self.client.register_plugin(Watcher(self.run_name, self.client.id))
        except UnsupportedOptionError:
            raise
        except Exception as error:
            raise ConnectError(f"the Dask scheduler cannot serve: {error!r}") from error
        self._register(Attendant(self.run_name, setup, 0))

    def prepare(self, setup: dict[str, Any], number: int, call: Any) -> None:
        """Workers are prepared by this call as well, those too that come later."""
        self._register(Attendant(self.run_name, setup, number, call))

    def _register(self, plugin: Attendant) -> None:
        answers = self.client.register_plugin(plugin)
        for address, answer in answers.items():
            if answer.get("status") == "error":
                error = answer.get("exception")
                raise ConnectError(f"the Dask worker {address} cannot serve: {error}")

    def forget(self, number: int) -> None:
        """The call of this number prepares no more. Returns at once."""

        async def forget() -> None:
            with contextlib.suppress(Exception):  # it may be gone already, or the scheduler
                await self.client.unregister_worker_plugin(f"{self.run_name}-{number}")

        self.client.loop.add_callback(forget)

    def members(self) -> list[dict[str, Any]]:
        """The workers there are now."""
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        return [member(address, identity) for address, identity in found.items()]

    def our_host(self) -> str:
        """The address of this machine by which workers can reach it."""
        host = urlsplit(self.client.scheduler.address).hostname or "127.0.0.1"
        hosts = {host, *(each["host"] for each in self.members())}
        if all(each in LOOPBACK for each in hosts):
            return "127.0.0.1"
        far = next(each for each in hosts if each not in LOOPBACK)
        with socket.socket(
            socket.AF_INET6 if ":" in far else socket.AF_INET, socket.SOCK_DGRAM
        ) as s:
            s.connect((far, 9))  # sends nothing: the system only looks up the way
            ours: str = s.getsockname()[0]
        return f"[{ours}]" if ":" in ours else ours

    def wait_for(self, count: int, timeout: float) -> None:
        """Wait until so many workers are there. Raises TimeoutError."""
        self.client.wait_for_workers(count, timeout=timeout)

    def scatter(self, data: bytes, broadcast: bool) -> Any:
        """Bytes that Dask carries to the workers which need them, once to each."""
        return self.client.scatter(data, broadcast=broadcast, hash=False)

    def cancel(self, held: list[Any]) -> None:
        """Nobody wants these Dask Futures any more. Does not stop what runs."""
        if held:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                self.client.cancel(held, force=True)

    def run(
        self, function: Callable[..., Any], *args: Any, workers: list[str] | None = None
    ) -> dict[str, Any]:
        """Answers of workers by address, quickly: in the loop that does all their talking.

        One that does not answer, since it has just died, is left out.
        """
        loop = self.client.loop.asyncio_loop
        asking = self._ask(function, args, workers)
        with contextlib.suppress(futures.TimeoutError):
            return asyncio.run_coroutine_threadsafe(asking, loop).result(RUN_SECONDS)
        return {}

    def ask(self, tell: Callable[[dict[str, Any]], object], function: Any, *args: Any) -> None:
        """As `run`, of all workers, but without waiting: `tell` gets the answers."""

        async def ask() -> None:
            tell(await self._ask(function, args, None))

        self.client.loop.add_callback(ask)

    async def _ask(
        self, function: Any, args: tuple[Any, ...], workers: list[str] | None
    ) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        with contextlib.suppress(Exception):  # those that were named have gone, or the scheduler
            answers = await self.client.run(function, *args, workers=workers, on_error="return")
        return {k: v for k, v in answers.items() if not isinstance(v, BaseException)}

    def alive(self) -> bool:
        """Whether the scheduler is there."""
        return bool(self.client.status == "running")

    def close(self) -> None:
        """Leave the cluster. What we have there goes later: no dying worker is waited for."""
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self.client.unsubscribe_topic(self.run_name)
            self.client.run_on_scheduler(clean_up, self.run_name)
        if self._ours:
            self.client.close()


def clean_up(run: str, dask_scheduler: Any) -> None:
    """In the scheduler: a run is over."""
    watcher = dask_scheduler.plugins.get(run)
    if watcher is not None:
        dask_scheduler.loop.add_callback(watcher.clean_up)
