"""sleighexec: an executor on a tuple space. See https://pypi.org/project/sleighexec/."""

from __future__ import annotations

from sleighexec.hints import TYPE_CHECKING
from sleighexec.version import __version__ as __version__

if TYPE_CHECKING:
    from sleighexec import errors
    from sleighexec.broken import (
        PoolBrokenError,
        SerializationError,
        TaskTimeoutError,
        WorkerLost,
        WorkerOutOfMemory,
    )
    from sleighexec.context import current_worker
    from sleighexec.errors import (
        AuthenticationError,
        ConnectError,
        ConnectionLostError,
        DamagedStoreError,
        DeletedError,
        DependencyError,
        ExecutorError,
        ForkedProcessError,
        HostError,
        HostKeyError,
        IllegalValueError,
        LoginError,
        ModeError,
        NoSuchVariableError,
        NoSuchWorkspaceError,
        OperationError,
        OperationUnknownError,
        OrderError,
        ProtocolError,
        RemoteError,
        ServerError,
        SleighError,
        UnsupportedOptionError,
        ValuePicklingError,
        ValueUnpicklingError,
        WorkspaceError,
        WorkspaceFullError,
    )
    from sleighexec.executor import SleighExecutor
    from sleighexec.launchers.command import Command
    from sleighexec.launchers.local import Local
    from sleighexec.launchers.slurm import Slurm
    from sleighexec.launchers.ssh import SSH
    from sleighexec.messages import FIFO, LIFO, MULTI, SINGLE
    from sleighexec.pending import SleighPending
    from sleighexec.sleigh import Sleigh, scriptcmd, sshcmd
    from sleighexec.standalone import WorkspaceServer
    from sleighexec.workspace import NetWorkSpace, NwsServer

# Each name is loaded when it is first asked for: a worker needs few of them, and quickly. Those
# without a home here are errors.
_HOMES = {
    "SleighExecutor": "executor",
    "Sleigh": "sleigh",
    "SleighPending": "pending",
    "sshcmd": "sleigh",
    "scriptcmd": "sleigh",
    "NetWorkSpace": "workspace",
    "NwsServer": "workspace",
    "FIFO": "messages",
    "LIFO": "messages",
    "MULTI": "messages",
    "SINGLE": "messages",
    "Local": "launchers.local",
    "SSH": "launchers.ssh",
    "Command": "launchers.command",
    "Slurm": "launchers.slurm",
    "WorkspaceServer": "standalone",
    "current_worker": "context",
}

__all__ = [
    "FIFO",
    "LIFO",
    "MULTI",
    "SINGLE",
    "SSH",
    "AuthenticationError",
    "Command",
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
    "Local",
    "LoginError",
    "ModeError",
    "NetWorkSpace",
    "NoSuchVariableError",
    "NoSuchWorkspaceError",
    "NwsServer",
    "OperationError",
    "OperationUnknownError",
    "OrderError",
    "PoolBrokenError",
    "ProtocolError",
    "RemoteError",
    "SerializationError",
    "ServerError",
    "Sleigh",
    "SleighError",
    "SleighExecutor",
    "SleighPending",
    "Slurm",
    "TaskTimeoutError",
    "UnsupportedOptionError",
    "ValuePicklingError",
    "ValueUnpicklingError",
    "WorkerLost",
    "WorkerOutOfMemory",
    "WorkspaceError",
    "WorkspaceFullError",
    "WorkspaceServer",
    "current_worker",
    "errors",
    "scriptcmd",
    "sshcmd",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "errors":
        return import_module("sleighexec.errors")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"sleighexec.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
