"""What `nws.client` had, under its old names."""

from __future__ import annotations

from sleighexec.errors import ConnectError as NwsConnectException
from sleighexec.errors import ConnectionLostError as NwsConnectionDroppedException
from sleighexec.errors import ModeError as NwsDeclarationFailedException
from sleighexec.errors import NoSuchWorkspaceError as NwsNoWorkSpaceException
from sleighexec.errors import OperationError as NwsOperationException
from sleighexec.errors import ServerError as NwsServerException
from sleighexec.errors import ValuePicklingError as NwsPicklingException
from sleighexec.errors import ValueUnpicklingError as NwsUnpicklingException
from sleighexec.errors import WorkspaceError as NwsException
from sleighexec.iterators import ValueIterator as NwsValueIterator
from sleighexec.messages import DEFAULT_PORT as NWS_PORT
from sleighexec.textfile import TextFile as NwsTextFile
from sleighexec.workspace import (
    DICT,
    FIFO,
    LIFO,
    MULTI,
    SINGLE,
    STRING,
    V_FETCHERS,
    V_FINDERS,
    V_MODE,
    V_VALUES,
    V_VARIABLE,
    WS_MINE,
    WS_NAME,
    WS_NUMVARS,
    WS_OWNER,
    WS_PERSISTENT,
    WS_VARLIST,
    NetWorkSpace,
    NwsServer,
)


class NwsUnsupportedOperationException(NwsServerException):
    """The server is too old for this. Never raised: client and server are of one version."""


__all__ = [
    "DICT",
    "FIFO",
    "LIFO",
    "MULTI",
    "NWS_PORT",
    "SINGLE",
    "STRING",
    "V_FETCHERS",
    "V_FINDERS",
    "V_MODE",
    "V_VALUES",
    "V_VARIABLE",
    "WS_MINE",
    "WS_NAME",
    "WS_NUMVARS",
    "WS_OWNER",
    "WS_PERSISTENT",
    "WS_VARLIST",
    "NetWorkSpace",
    "NwsConnectException",
    "NwsConnectionDroppedException",
    "NwsDeclarationFailedException",
    "NwsException",
    "NwsNoWorkSpaceException",
    "NwsOperationException",
    "NwsPicklingException",
    "NwsServer",
    "NwsServerException",
    "NwsTextFile",
    "NwsUnpicklingException",
    "NwsUnsupportedOperationException",
    "NwsValueIterator",
]
