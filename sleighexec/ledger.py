"""What a server remembers of stores, so that one whose outcome is not known may be tried again.

    Identify("c1") ─▶ stores with the tags 7, 8 ─▶ connection lost
    another connection: Again("c1", 8, tag 3), store with the tag 3 ─▶ it was done: only said again

A client names itself once per connection; that name and the tag of a request say which one it is.
"""

from __future__ import annotations

from collections import OrderedDict

CLIENTS = 1000  # names that are remembered, those of the latest stores
# Of each: as many as it may have on their way without waiting, and more for threads that wait.
STORES = 640


class _Stores:
    """The latest stores of one client."""

    def __init__(self, since: int) -> None:
        self.since = since  # the lowest tag of which it is known whether it is among these
        self.done: OrderedDict[int, int] = OrderedDict()  # tag -> number of the workspace


class Ledger:
    """The stores that were done, by client and tag, and the workspace of each."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Stores] = OrderedDict()

    def meet(self, client: str) -> None:
        """A client has come, and has not stored anything yet."""
        if client in self._clients:
            self._clients.move_to_end(client)
        else:
            self._add(client, 0)

    def note(self, client: str, tag: int, workspace: int) -> None:
        """A store was done."""
        stores = self._clients.get(client)
        if stores is None:
            stores = self._add(client, tag)
        self._clients.move_to_end(client)
        stores.done[tag] = workspace
        if len(stores.done) > STORES:
            oldest, _ = stores.done.popitem(last=False)
            stores.since = max(stores.since, oldest + 1)

    def workspace(self, client: str, tag: int) -> int | None:
        """In which workspace this store was done; 0: it was not; None: that is not known.

        It is not known of what was long ago, nor of the clients of another server.
        """
        stores = self._clients.get(client)
        if stores is None or tag < stores.since:
            return None
        return stores.done.get(tag, 0)

    def _add(self, client: str, since: int) -> _Stores:
        while len(self._clients) >= CLIENTS:
            self._clients.popitem(last=False)
        stores = self._clients[client] = _Stores(since)
        return stores
