"""Does what the clients of a server that listens ask for, and each store once, even if tried again.

    Connection ─▶ roles: may it? ─▶ Clerk: was it done? ─▶ FileStore, if there is one ─▶ Space

Used under the server's lock.
"""

from __future__ import annotations

import time
from weakref import WeakKeyDictionary

from sleighexec.client import ONE_WAY
from sleighexec.connections import Connection
from sleighexec.hints import Any
from sleighexec.ledger import Ledger
from sleighexec.messages import (
    FORGOTTEN,
    Accept,
    Again,
    Declare,
    DeleteVariable,
    DeleteWorkspace,
    Done,
    Failed,
    Identify,
    Lease,
    Open,
    Opened,
    Release,
    Store,
)
from sleighexec.space import Effects, Space
from sleighexec.store import FileStore

KEPT = {Open, Store, Declare, DeleteVariable, DeleteWorkspace}  # what a file is told of


class Clerk:
    """Serves requests to a space that others have made and will ask for again."""

    def __init__(self, file: FileStore | None = None) -> None:
        """`file`: keeps what is in persistent workspaces."""
        self._file = file
        self._ledger = Ledger()
        self._tries: WeakKeyDictionary[Connection, dict[int, Again]] = WeakKeyDictionary()

    def serve(self, connection: Connection, tag: int, message: Any) -> None:
        """The handler of who may ask for anything."""
        kind = type(message)
        if kind is Store:
            connection.server.dispatch(self._store(connection, tag, message))
        elif kind is Identify:
            connection.identity = message.client
            self._ledger.meet(message.client)
            connection.offer_memory()
        elif kind in (Accept, Lease, Release):
            connection.share(tag, message)
        elif kind is Again:
            self._tries.setdefault(connection, {})[message.store] = message
        else:
            connection.server.dispatch(self._do(connection, tag, message))

    def _do(self, connection: Connection, tag: int, message: Any) -> Effects:
        space = connection.server.space
        if self._file is None or type(message) not in KEPT:
            return space.apply(connection, tag, message, time.monotonic())
        try:
            effects = self._keep(self._file, space, connection, tag, message)
        except OSError as error:
            text = f"the store of this server cannot be written to: {error}"
            return [(connection, tag, Failed("full", text))]
        self._file.compact_if_useful(space)
        return effects

    def _keep(
        self, file: FileStore, space: Space, connection: Connection, tag: int, message: Any
    ) -> Effects:
        """Do what changes a workspace that may be kept.

        Raises:
            OSError: What has to be written before it is done cannot be: nothing was done.
        """
        kind = type(message)
        if kind is DeleteWorkspace:
            workspace = space.named(message.name)
            number = 0 if workspace is None else workspace.number
        else:
            number = 0 if kind is Open else message.workspace
        if kind is Store and file.keeps(number):
            file.store(message)
        effects = space.apply(connection, tag, message, time.monotonic())
        reply = effects[0][2]
        if type(reply) is Opened:
            workspace = space.workspace(reply.workspace)
            if workspace.persistent and not file.keeps(workspace.number):
                try:
                    file.adopt(space, workspace)
                except OSError:
                    workspace.persistent = False
                    raise
        elif file.keeps(number):
            if kind is Store and type(reply) is not Done:
                file.gone(message.values)
            elif kind is Declare and type(reply) is Done:
                file.declared(message)
            elif kind is DeleteVariable and type(reply) is Done:
                file.variable_deleted(message)
            elif kind is DeleteWorkspace:
                file.workspace_deleted(number, message.name)
        return effects

    def _store(self, connection: Connection, tag: int, message: Store) -> Effects:
        """Store something, unless this is another try of what has been done."""
        name, known_as = connection.identity, tag
        again = self._tries.get(connection, {}).pop(tag, None) if self._tries else None
        if again is not None:
            name, known_as = again.client, again.tag
            workspace = self._ledger.workspace(name, known_as)
            if workspace is None:
                return [(connection, tag, FORGOTTEN)]
            if workspace == message.workspace:  # else it has gone with another one of that name
                return [(connection, tag, Done())]
        effects = self._do(connection, tag, message)
        if name and tag != ONE_WAY and type(effects[0][2]) is Done:
            self._ledger.note(name, known_as, message.workspace)
        return effects
