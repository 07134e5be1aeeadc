"""Does what the clients of a server that listens ask for, and each store once, even if tried again.

    Connection ─▶ roles: may it? ─▶ Clerk: was it done? ─▶ Space

Used under the server's lock.
"""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

from sleighexec.client import ONE_WAY
from sleighexec.ledger import Ledger
from sleighexec.messages import FORGOTTEN, Again, Done, Identify, Store
from sleighexec.server import Connection
from sleighexec.space import Effects


class Clerk:
    """Serves requests to a space that others have made and will ask for again."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._names: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()
        self._tries: WeakKeyDictionary[Connection, dict[int, Again]] = WeakKeyDictionary()

    def serve(self, connection: Connection, tag: int, message: Any) -> None:
        """The handler of who may ask for anything."""
        kind = type(message)
        if kind is Store:
            connection.server.dispatch(self._store(connection, tag, message))
        elif kind is Identify:
            self._names[connection] = message.client
            self._ledger.meet(message.client)
        elif kind is Again:
            self._tries.setdefault(connection, {})[message.store] = message
        else:
            connection.server.dispatch(self._do(connection, tag, message))

    def _do(self, connection: Connection, tag: int, message: Any) -> Effects:
        return connection.server.space.apply(connection, tag, message, time.monotonic())

    def _store(self, connection: Connection, tag: int, message: Store) -> Effects:
        """Store something, unless this is another try of what has been done."""
        name, known_as = self._names.get(connection, ""), tag
        again = self._tries.get(connection, {}).pop(tag, None)
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
