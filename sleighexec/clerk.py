"""Does what the clients of a server that listens ask for, and each store once, even if tried again.

    Connection ─▶ roles: may it? ─▶ Clerk: was it done? ─▶ FileStore, if there is one ─▶ Space

Used under the server's lock.
"""

from __future__ import annotations

import time

from sleighexec.client import ONE_WAY
from sleighexec.connections import Connection, Handler
from sleighexec.hints import Any
from sleighexec.ledger import STORES, Ledger
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
    Status,
    Store,
)
from sleighexec.roles import Facts, state
from sleighexec.space import Effects, Space
from sleighexec.store import FileStore

KEPT = {Open, Store, Declare, DeleteVariable, DeleteWorkspace}  # what a file is told of


class Clerk:
    """Serves requests to a space that others have made and will ask for again."""

    def __init__(self, facts: Facts = dict, file: FileStore | None = None) -> None:
        """`facts`: how the server is. `file`: keeps what is in persistent workspaces."""
        self._file = file
        self._ledger = Ledger()
        self._handlers: dict[type, Handler] = {
            Store: self._store,
            Identify: self._meet,
            Again: self._note,
            Accept: Connection.share,
            Lease: Connection.share,
            Release: Connection.share,
            Status: lambda connection, tag, message: state(connection, tag, facts),
        }

    def serve(self, connection: Connection, tag: int, message: Any) -> None:
        """The handler of who may ask for anything."""
        self._handlers.get(type(message), self._serve)(connection, tag, message)

    def _serve(self, connection: Connection, tag: int, message: Any) -> None:
        connection.server.dispatch(self._do(connection, tag, message))

    def _meet(self, connection: Connection, tag: int, message: Identify) -> None:
        connection.identity = message.client
        self._ledger.meet(message.client)
        connection.offer_memory()

    def _note(self, connection: Connection, tag: int, message: Again) -> None:
        connection.again[message.store] = message
        if len(connection.again) > STORES:  # no store has come for the first of them
            del connection.again[next(iter(connection.again))]

    def _store(self, connection: Connection, tag: int, message: Store) -> None:
        """Store something, unless this is another try of what has been done."""
        name, known_as = connection.identity, tag
        if connection.again and (again := connection.again.pop(tag, None)) is not None:
            name, known_as = again.client, again.tag
            workspace = self._ledger.workspace(name, known_as)
            if workspace is None:
                connection.deliver(tag, FORGOTTEN)
                return
            if workspace == message.workspace:  # else it has gone with another one of that name
                connection.deliver(tag, Done())
                return
        effects = self._do(connection, tag, message)
        if name and tag != ONE_WAY and type(effects[0][2]) is Done:
            self._ledger.note(name, known_as, message.workspace)
        connection.server.dispatch(effects)

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
