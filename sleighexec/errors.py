"""The error tree: one root, one class for each question a caller may ask.

    SleighError
      ExecutorError          something about the pool
        WorkerLost             the task had begun on a worker that died (also a BrokenProcessPool)
          WorkerOutOfMemory      it was killed since memory ran out
        TaskTimeoutError       the task ran longer than its timeout    (also a TimeoutError)
        PoolBrokenError        no worker can be had any more           (also a BrokenProcessPool)
        DependencyError        a call that it waited for has failed
        SerializationError     a call or a result could not be rebuilt (also a BrokenProcessPool)
        ForkedProcessError     an executor was used in a forked child  (also a RuntimeError)
        UnsupportedOptionError an engine cannot honour an option       (also a ValueError)
        HostError              no workers can be had on a host
          LoginError             it does not let us in
          HostKeyError           it is not known, or not the one that is known
      IllegalValueError      elements or arguments make no calls      (also a ValueError)
      RemoteError            stands for a remote exception that cannot be rebuilt here
      WorkspaceError         something about a workspace or its server
        OperationError         the server said no
          NoSuchWorkspaceError, NoSuchVariableError, ModeError, DeletedError
          WorkspaceFullError     the server keeps as much as it may
          OrderError             there is no order to iterate in         (also a ValueError)
          ValuePicklingError     a value cannot be stored                (also a PicklingError)
          ValueUnpicklingError   a value cannot be rebuilt here          (also an UnpicklingError)
        DamagedStoreError      the file of a server is spoilt
        ServerError            talking to the server failed              (also a ConnectionError)
          ConnectError           there is none, or none that lets us in
            AuthenticationError    it does not hold the same key
          ConnectionLostError    it went away
            OperationUnknownError  …and whether a value was stored is not known
      ProtocolError          it did not speak our language

Facts are attributes and go through `super().__init__`, so that pickle can rebuild every error.
"""

from __future__ import annotations

import pickle

from sleighexec.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from sleighexec.broken import (
        PoolBrokenError,
        SerializationError,
        TaskTimeoutError,
        WorkerLost,
        WorkerOutOfMemory,
    )

__all__ = [
    "AuthenticationError",
    "ConnectError",
    "ConnectionLostError",
    "DamagedStoreError",
    "DeletedError",
    "DependencyError",
    "ExecutorError",
    "ForkedProcessError",
    "HostError",
    "HostKeyError",
    "IllegalValueError",
    "LoginError",
    "ModeError",
    "NoSuchVariableError",
    "NoSuchWorkspaceError",
    "OperationError",
    "OperationUnknownError",
    "OrderError",
    "PoolBrokenError",
    "ProtocolError",
    "RemoteError",
    "SerializationError",
    "ServerError",
    "SleighError",
    "TaskTimeoutError",
    "UnsupportedOptionError",
    "ValuePicklingError",
    "ValueUnpicklingError",
    "WorkerLost",
    "WorkerOutOfMemory",
    "WorkspaceError",
    "WorkspaceFullError",
]


_BROKEN = (
    "PoolBrokenError",
    "SerializationError",
    "TaskTimeoutError",
    "WorkerLost",
    "WorkerOutOfMemory",
)


def __getattr__(name: str) -> object:
    """The errors that are also a `BrokenProcessPool`: its module is loaded when one is needed."""
    if name in _BROKEN:
        from sleighexec import broken

        return getattr(broken, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class SleighError(Exception):
    """The root of all errors that sleighexec raises by itself."""


class ExecutorError(SleighError):
    """Something about the pool of workers, not about the function that was called."""


class DependencyError(ExecutorError):
    """The call was not run: another one, whose result is an argument of it, has none.

    Its `__cause__` is the error of the call where the trouble began, or a CancelledError.

    Attributes:
        task: What was to be called, as text.
        argument: Which of its arguments: the position, or the keyword.
        reason: What became of the other call, as text.
    """

    def __init__(self, task: str, argument: int | str, reason: str) -> None:
        super().__init__(task, argument, reason)
        self.task, self.argument, self.reason = task, argument, reason

    def __str__(self) -> str:
        return (
            f"{self.task} was not run: the call whose result is its argument {self.argument!r} "
            f"{self.reason}"
        )


class ForkedProcessError(ExecutorError, RuntimeError):
    """The executor or connection belongs to the process that made it, not to its forked child."""


class UnsupportedOptionError(ExecutorError, ValueError):
    """The engine in use cannot honour this option; it is refused rather than ignored."""


class HostError(ExecutorError):
    """There are no workers on a host, or none any more.

    Attributes:
        host: As it was given to the launcher.
        reason: Why, and what can be done about it.
        stderr: What the command over there wrote last to its standard error.
    """

    def __init__(self, host: str, reason: str, stderr: str = "") -> None:
        super().__init__(host, reason, stderr)
        self.host, self.reason, self.stderr = host, reason, stderr

    def __str__(self) -> str:
        text = f"{self.host}: {self.reason}"
        if self.stderr.strip():
            text += "\nits standard error ends with:\n"
            text += "\n".join(self.stderr.strip().splitlines()[-20:])
        return text


class LoginError(HostError):
    """The host refused the login. It is not tried again."""


class HostKeyError(HostError):
    """The host has shown a key that is not known, or not the known one. Nothing was sent to it."""


class IllegalValueError(SleighError, ValueError):
    """The elements, fixed arguments or permutation of an eachElem do not make calls."""


class RemoteError(SleighError):
    """Stands for an exception of a task that could not be pickled or rebuilt here.

    Attributes:
        type_name: Full name of the original class.
        message: Its text.
        traceback_text: Its traceback as printed on the worker.
    """

    def __init__(self, type_name: str, message: str, traceback_text: str = "") -> None:
        super().__init__(type_name, message, traceback_text)
        self.type_name, self.message, self.traceback_text = type_name, message, traceback_text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"


class WorkspaceError(SleighError):
    """Something about a workspace, its values or its server."""


class OperationError(WorkspaceError):
    """The workspace server said no, or the value of an operation is not fit to travel."""


class NoSuchWorkspaceError(OperationError):
    """There is no such workspace (any more); open it first."""


class NoSuchVariableError(OperationError):
    """There is no such variable."""


class ModeError(OperationError):
    """The variable has another mode already; a mode never changes, delete the variable first."""


class DeletedError(OperationError):
    """What a blocked fetch or find was waiting at has been deleted."""


class WorkspaceFullError(OperationError):
    """The server keeps as much as it may; nothing was stored, nothing was dropped for it."""


class OrderError(OperationError, ValueError):
    """The variable is a LIFO or MULTI: it has no order in which an iterator could go on."""


class ValuePicklingError(OperationError, pickle.PicklingError):
    """A value cannot be pickled; nothing was stored.

    Attributes:
        variable, workspace: Where it was to be stored.
        exception: What pickling it raised.
    """

    def __init__(self, variable: str, workspace: str, exception: BaseException) -> None:
        super().__init__(variable, workspace, exception)
        self.variable, self.workspace, self.exception = variable, workspace, exception

    def __str__(self) -> str:
        cause = f"{type(self.exception).__name__}: {self.exception}"
        return f"the value for {self.variable} @ {self.workspace} cannot be pickled: {cause}"


class ValueUnpicklingError(OperationError, pickle.UnpicklingError):
    """A value cannot be rebuilt in this process.

    Attributes:
        variable, workspace: Where it came from.
        exception: What unpickling it raised.
        obj: Its bytes as they were stored; big buffers of arrays, which stay apart, are not in it.
    """

    def __init__(self, variable: str, workspace: str, exception: BaseException, obj: bytes) -> None:
        super().__init__(variable, workspace, exception, obj)
        self.variable, self.workspace = variable, workspace
        self.exception, self.obj = exception, obj

    def __str__(self) -> str:
        cause = f"{type(self.exception).__name__}: {self.exception}"
        return f"the value of {self.variable} @ {self.workspace} cannot be unpickled: {cause}"


class DamagedStoreError(WorkspaceError):
    """The file in which a server keeps its persistent workspaces is damaged, and not at its end.

    Attributes:
        path: The file.
        record, offset: Which record it is, counted from 1, and where it begins.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, record: int, offset: int, reason: str) -> None:
        super().__init__(path, record, offset, reason)
        self.path, self.record, self.offset, self.reason = path, record, offset, reason

    def __str__(self) -> str:
        return (
            f"{self.path} is damaged at record {self.record}, which begins at byte {self.offset}: "
            f"{self.reason}; take a copy of it from before, or cut it there with "
            f"`truncate -s {self.offset}` and lose what is behind"
        )


class ServerError(WorkspaceError, ConnectionError):
    """Talking to the workspace server failed."""


class ConnectError(ServerError):
    """There is no server at this address, or it does not answer as one."""


class AuthenticationError(ConnectError):
    """The other side does not hold the same key."""


class ConnectionLostError(ServerError):
    """The other side of a connection went away."""


class OperationUnknownError(ConnectionLostError):
    """The connection was lost while a value was on its way: it is there, or it is not.

        except OperationUnknownError as error:
            workspace = NwsServer(url=url).useWs(name)
            workspace.store("x", value, again=error)

    With `again` the value is there once, whether the first try had been done or not, as long as it
    is the same run of the same server.

    Attributes:
        client, tag: What the server knows this store by; the client is empty if it has no URL.
    """

    def __init__(self, text: str, client: str = "", tag: int = 0) -> None:
        super().__init__(text, client, tag)
        self.client, self.tag = client, tag

    def __str__(self) -> str:
        return str(self.args[0])


class ProtocolError(SleighError):
    """The other side sent something that does not belong to the protocol."""


def timeout_error(text: str) -> Exception:
    """The TimeoutError of `concurrent.futures`, the builtin one from Python 3.11 on."""
    from concurrent.futures import TimeoutError as FuturesTimeoutError

    if issubclass(FuturesTimeoutError, TimeoutError):
        return FuturesTimeoutError(text)

    class WorkspaceTimeoutError(FuturesTimeoutError, TimeoutError):  # type: ignore[misc]
        """Before Python 3.11 there are two TimeoutErrors: this is both."""

    return WorkspaceTimeoutError(text)
