"""How tasks on a Dask worker reach the workspaces of their executor."""

from __future__ import annotations

import os
import uuid
from urllib.parse import urlsplit

from sleighexec import dial
from sleighexec.access import embedded
from sleighexec.address import TLS, Address, remember
from sleighexec.client import SocketConnection
from sleighexec.errors import ConnectError, ServerError
from sleighexec.hints import Any
from sleighexec.session import CLIENT
from sleighexec.workspace import NwsServer


def machine() -> str:
    """What this machine is called, since it was started."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
    except OSError:
        boot = str(uuid.getnode())
    return f"{os.uname().nodename} {boot}"


class Reach:
    """The connection of a run to its workspaces.

    Attributes:
        workspaces: Of the system and of the user; or what says why they cannot be reached.
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self._connection: SocketConnection | None = None
        self.workspaces: list[Any] = []
        address = Address(*setup["address"])
        try:
            if urlsplit(address.url).scheme != TLS and setup["machine"] != machine():
                raise ConnectError(
                    f"the workspace at {address.url} can be reached on its own machine only, "
                    f"{setup['machine'].split()[0]}, and this Dask worker is on "
                    f"{os.uname().nodename}: start its server with "
                    "`sleighexec server --bind HOST:PORT`"
                )
            sock, _ = dial.reach(address, address.role or CLIENT)
        except ServerError as error:
            self.workspaces = [Unreachable(error)] * 2
            return
        self._connection = SocketConnection(sock, address.url)
        server = NwsServer(connection=self._connection, shared=True)
        identity = setup["space"]
        if identity is not None:  # it is that of the executor itself
            self._connection.space = identity
            embedded[identity] = self._connection
        else:
            remember(address)
            server.url = address.url
        self.workspaces = [server.useWs(name) for name in setup["workspaces"]]

    def close(self) -> None:
        """Leave."""
        if self._connection is not None:
            self._connection.close()


class Unreachable:
    """Stands for a workspace that cannot be had here. Whatever is asked of it says why."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise type(self._error)(*self._error.args)
