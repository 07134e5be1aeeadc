"""The classic face: `Sleigh`, a SleighExecutor with the names and answers of 2008.

Where the standard library and the classic disagree, SleighExecutor follows the one and Sleigh the
other; both are one engine. What differs from the original on purpose is listed in
docs/howto/move-from-networkspaces.md.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError
from functools import partial

from sleighexec.errors import IllegalValueError, SleighError, UnsupportedOptionError
from sleighexec.executor import SleighExecutor
from sleighexec.hints import Any
from sleighexec.launchers.base import is_remote
from sleighexec.launchers.command import AGENT, Command
from sleighexec.launchers.local import Local
from sleighexec.messages import DEFAULT_PORT
from sleighexec.pending import Policy, ResultIterator, SleighPending
from sleighexec.scripting import enter_if_there
from sleighexec.version import __version__
from sleighexec.workspace import NetWorkSpace, NwsServer

SleighException = SleighError
SleighIllegalValueException = IllegalValueError


class SleighTaskException(SleighException):
    """Stands in a list of results for a task that failed; `__cause__` is the real exception."""


class SleighGatheredException(SleighException):
    """The results of this SleighPending were taken already."""


class SleighOccupiedException(SleighException):
    """An earlier call that does not block has not been waited for."""


class SleighStoppedException(SleighException, RuntimeError):
    """The sleigh was stopped."""


class SleighNotAllowedException(SleighException):
    """A task may not start a Sleigh; a SleighExecutor it may."""


class SleighScriptException(SleighException):
    """The worker script cannot be had. Never raised: there is no worker script any more."""


class SleighJoinException(SleighException):
    """A worker may not join. Never raised: workers that are late are waited for."""


class SleighNwsException(SleighException):
    """Never raised, as in the original."""


# What a Sleigh is made with unless its constructor says otherwise; programs may change it.
defaultSleighOptions: dict[str, Any] = {
    "launch": "local",
    "workerCount": 3,
    "nodeList": None,
    "nwsHost": None,
    "nwsPort": DEFAULT_PORT,
    "modulePath": None,
    "workingDir": None,
    "user": None,
    "wsNameTemplate": "sleigh_ride_%04d",
    "userWsNameTemplate": "sleigh_user_%04d",
    "verbose": False,
    "redirectOutput": True,
    "progress": None,
    "engine": None,
}

_GONE = {
    "nwsHostRemote": "workers reach the workspaces as the caller does",
    "scriptExec": "there is no worker script any more",
    "logDir": "what workers print is in output@RANK",
}
_GONE["nwsPortRemote"] = _GONE["nwsHostRemote"]
_GONE["scriptDir"] = _GONE["scriptName"] = _GONE["scriptExec"]
_GONE["outfile"] = _GONE["logDir"]

_numbers = iter(range(1, 2**62))


class _ClassicPending(SleighPending):
    """A SleighPending whose results can be taken once."""

    released = False

    @property
    def numTasks(self) -> int:
        """How many tasks there are."""
        return len(self)

    def wait(self, timeout: float | None = None) -> Any:
        """As `SleighPending.wait`, once.

        Raises:
            SleighGatheredException: The results were taken before.
        """
        if self.released:
            raise SleighGatheredException("results already gathered")
        try:
            result = super().wait(timeout)
        except (TimeoutError, KeyboardInterrupt):
            raise  # wait again
        except BaseException:
            self.released = True
            raise
        self.released = True
        return result

    def cancel(self) -> int:
        count = super().cancel()
        self.released = True
        return count


class Sleigh(SleighExecutor):
    """A group of workers, and two workspaces that they share with the caller.

    A task that fails does not raise: a SleighTaskException stands in its place in the list of
    results, with the real exception as its `__cause__`. After a call that does not block, the
    sleigh is occupied until its results are taken.

    Args:
        nodeList: Names of machines, one worker on each, for a `launch` function. Else ignored.
        launch: "local"; or a function `f(machine, **options)` that returns the words to be put
            before the worker's command, such as `["nice"]`.
        workerCount: Workers of a local launch; 3 by default.
        nwsHost, nwsPort: Of a workspace server on this machine (`sleighexec server`) that is to
            hold the workspaces; the environment may have them as PythonSleighNwsHost and
            PythonSleighNwsPort. None: they are in this process.
        modulePath: Folders, joined by `os.pathsep`, to be searched by the imports of workers.
        workingDir: Where workers run; the present directory by default.
        wsNameTemplate, userWsNameTemplate: Names of the two workspaces, given a number.
        redirectOutput: What workers print also comes into `output@RANK` of the workspace `nws`.
        progress: As for `SleighExecutor`.
        verbose: Say on stderr what is started.
        user: For launch functions.
        engine: A Dask cluster instead of machines, as `SleighExecutor` takes it: its workers are
            those of the sleigh, and what says where workers live is ignored.

    Raises:
        TypeError: There is no such option.
        SleighNotAllowedException: In a worker.
    """

    _pending_class = _ClassicPending

    def __init__(self, nodeList: list[str] | None = None, **options: Any) -> None:
        _check_not_in_worker()
        for option in options:
            if option in _GONE:
                raise UnsupportedOptionError(f"{option}= does nothing any more: {_GONE[option]}")
            if option not in defaultSleighOptions:
                known = ", ".join(sorted(defaultSleighOptions))
                raise TypeError(f"Sleigh has no option {option!r}; there are {known}")
        if nodeList is not None:
            options["nodeList"] = nodeList
        self.settings = {**defaultSleighOptions, **_of_environment(), **options}
        self._ride_number = next(_numbers)
        engine = self.settings["engine"]
        launchers = None if engine is not None else self._launchers()
        self._occupant: Callable[[], Any] = lambda: None
        self._closed_group = False
        given = self.settings["workingDir"]
        directory = given or os.getcwd()
        remote = launchers is None or is_remote(launchers[0])
        if not remote and not os.path.isdir(directory):
            raise IllegalValueError(f"workingDir is not a folder: {directory!r}")
        host = self.settings["nwsHost"]
        super().__init__(
            engine=engine,
            launcher=launchers,
            # Ours need not be there on another machine; one that was asked for must.
            initializer=enter_if_there if remote and given is None else os.chdir,
            initargs=(directory,),
            capture_output=self.settings["redirectOutput"],
            progress=self.settings["progress"],
            workspace=None if host is None else f"sleigh://{host}:{self.settings['nwsPort']}",
        )
        self._engine.stop_at_exit = True  # workers end with their master
        self._engine.start()
        if engine is not None:
            self.nodeList = [worker.host for worker in self.workers()]
        if self.settings["verbose"]:
            print(f"{self!r} on {', '.join(self.nodeList)}", file=sys.stderr)

    def _launchers(self) -> list[Any]:
        launch, nodes = self.settings["launch"], self.settings["nodeList"]
        if launch == "local":
            count = self.settings["workerCount"]
            if not isinstance(count, int) or count < 1:
                raise IllegalValueError(f"workerCount must be at least 1, not {count!r}")
            self.nodeList = [socket.gethostname()] * count
            return [Local(count)]
        if not callable(launch):
            raise IllegalValueError(f'launch must be "local" or a function, not {launch!r}')
        self.nodeList = ["localhost"] * 3 if nodes is None else list(nodes)
        places: list[Any] = []
        for node in self.nodeList:
            if launch in (sshcmd, sshforwardcmd):
                from sleighexec.launchers.ssh import SSH  # paramiko takes long to load

                places.append(SSH(node, user=_user(node, self.settings)))
                continue
            words = launch(node, **self.settings)
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise IllegalValueError(f"launch must return a list of strings, not {words!r}")
            places.append(Command((*words, AGENT), name=node))
        if not places:
            raise IllegalValueError("nodeList is empty")
        return places

    def _module_path(self) -> list[str]:
        path: str | None = self.settings["modulePath"]
        return path.split(os.pathsep) if path else []

    def _workspace_names(self) -> tuple[str, str]:
        templates = self.settings["wsNameTemplate"], self.settings["userWsNameTemplate"]
        try:
            ride, user = [template % self._ride_number for template in templates]
        except (TypeError, ValueError) as error:
            raise IllegalValueError(
                f"a workspace template takes one number, as in 'ride_%d': {error}"
            ) from None
        return ride, user

    # ------------------------------------------------------------------ what a Sleigh knows

    @property
    def nws(self) -> NetWorkSpace:
        """The workspace of the sleigh itself: `output@RANK`, and what workers share in it."""
        return self._workspaces[0]

    @property
    def userNws(self) -> NetWorkSpace:
        """The workspace that is the user's alone; tasks know it as SleighUserNws."""
        return self._workspaces[1]

    @property
    def nwss(self) -> NwsServer:
        """The server of both workspaces."""
        return self.nws.server

    @property
    def nwsName(self) -> str:
        """The name of `nws`."""
        return self.nws.currentWs()

    @property
    def userNwsName(self) -> str:
        """The name of `userNws`."""
        return self.userNws.currentWs()

    @property
    def workerCount(self) -> int:
        """How many workers there are, or will be when all have come."""
        return self._max_workers

    @property
    def rankCount(self) -> int:
        """How many workers have come."""
        return len(self.workerInfo())

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._shut_down

    @property
    def occupied(self) -> bool:
        """Whether the results of a call that does not block are still to be taken."""
        occupant = self._occupant()
        if isinstance(occupant, _ClassicPending):
            return not occupant.released
        return isinstance(occupant, ResultIterator) and not occupant.stopped

    def workerInfo(self) -> list[dict[str, Any]]:
        """What is known of the workers that have come, by rank."""
        return [
            {
                "host": worker.host,
                "os": worker.system,
                "pid": worker.pid,
                "python": worker.python,
                "nws": __version__,
                "rank": worker.rank,
                "logfile": None,
            }
            for worker in self.workers()
            if worker.python
        ]

    def status(self, closeGroup: bool = False, timeout: float = 0.0) -> tuple[int, int]:
        """How many workers have come, and 1 if no more are waited for.

        Waits up to `timeout` seconds for all. With `closeGroup` the group counts as complete then;
        workers that come later are welcome all the same.
        """
        deadline = time.monotonic() + timeout
        while (count := self.rankCount) < self.workerCount and time.monotonic() < deadline:
            time.sleep(0.01)
        self._closed_group = self._closed_group or closeGroup or count == self.workerCount
        return count, int(self._closed_group)

    # ------------------------------------------------------------------ the end

    def stop(self) -> None:
        """End the workers at once, and with them what they run; return when they are gone.

        May be called again, and while the sleigh is occupied.
        """
        self._engine.stop()
        self.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------ the classic answers

    def _admit(self, on_error: str | None, accumulator: Any, kind: str) -> Policy:
        if self.occupied:
            raise SleighOccupiedException(
                "sleigh is occupied: take the results of the earlier call with its wait() first"
            )
        if self._shut_down:
            raise SleighStoppedException("sleigh is stopped")
        return Policy(on_error or "return", accumulator, partial(_task_exception, kind))

    def _given(self, pending: Any) -> Any:
        self._occupant = weakref.ref(pending)
        return pending


def _task_exception(kind: str, error: BaseException) -> SleighTaskException:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" [{frames[-1].filename}:{frames[-1].lineno}]" if frames else ""
    what = "evaluation" if kind == "eval" else "invocation"
    name = type(error).__name__
    made = SleighTaskException(f"Task {what} failed - '{name}': {error}{where}")
    made.__cause__ = error
    return made


def _of_environment() -> dict[str, Any]:
    """The options that the environment sets."""
    names = {"nwsHost": "PythonSleighNwsHost", "nwsPort": "PythonSleighNwsPort"}
    return {option: os.environ[name] for option, name in names.items() if name in os.environ}


def _check_not_in_worker() -> None:
    from sleighexec import context

    if context.of_process is not None:
        raise SleighNotAllowedException(
            "a task cannot start a Sleigh; for a pool inside a task use SleighExecutor"
        )


# ---------------------------------------------------------------------- launch methods


def sshcmd(machine: str, **options: Any) -> list[str]:
    """The words that run a command on another machine by ssh. `launch=sshcmd`."""
    # No -n, which the classic had: it would keep our words from the other side.
    return ["ssh", "-x", *_login(machine, options), machine]


def rshcmd(machine: str, **options: Any) -> list[str]:
    """The words that run a command on another machine by rsh."""
    return ["rsh", machine, *_login(machine, options)]


def sshforwardcmd(machine: str, **options: Any) -> list[str]:
    """As `sshcmd`: nothing needs to be forwarded any more."""
    return sshcmd(machine, **options)


def envcmd(machine: str, *environment: str, **options: Any) -> list[str]:
    """The words that run a command with environment variables, each NAME=VALUE."""
    return ["/usr/bin/env", *environment]


def scriptcmd(machine: str, *arguments: str, **options: Any) -> list[str]:
    """No words: the command runs as it is. Arguments of a worker script are of no use now."""
    return []


def _login(machine: str, options: Mapping[str, Any]) -> list[str]:
    user = _user(machine, options)
    return ["-l", user] if user else []


def _user(machine: str, options: Mapping[str, Any]) -> str | None:
    user: Any = options.get("user")
    if isinstance(user, Mapping):
        user = user.get(machine, user.get("default"))
    return user or None
