"""A peer's side of shared memory: buffers come in segments, and go in those that we are lent.

Offer(owner, …) ─▶ do we see that memory? ─▶ Borrower, and Accept
a big buffer is to be sent: granted already, or Lease ─▶ Leased ─▶ copied there ─▶ its place
a buffer that came in a segment has died: Release, with what is sent next
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable

from sleighexec.client import ONE_WAY, SocketConnection
from sleighexec.hints import Any
from sleighexec.messages import Accept, Lease, Leased, Offer, Release
from sleighexec.segments import Place, Shelf, reachable, unpack


class Borrower:
    """What one connection has of the segments of the process at its other end."""

    def __init__(self, connection: SocketConnection, owner: int) -> None:
        """`owner`: the id of that process."""
        self._connection = weakref.proxy(connection)  # which holds us
        self._shelf = Shelf(owner)
        self._giving_back = threading.Lock()

    def put(self, view: memoryview) -> bytes | None:
        """Put a buffer on its way into a segment; None: there is none for it."""
        place = self._shelf.find(view.nbytes)
        if place is None:
            reply: Any = self._connection.call(Lease(view.nbytes))
            if type(reply) is not Leased:
                return None
            place = Place(*reply.place)._replace(size=view.nbytes)
        self._shelf.put(view, place)
        return place.pack()

    def locate(self, data: Any) -> memoryview:
        """The buffer that came in a segment."""
        return self._shelf.buffer(unpack(data))

    def grant(self, places: Iterable[tuple[int, ...]]) -> None:
        """We are lent these without having asked."""
        self._shelf.grant(Place(*place) for place in places)

    def tidy(self) -> None:
        """Give back the segments on which nothing lies any more."""
        if self._shelf.back:
            with self._giving_back:
                release = Release(*map(tuple, self._shelf.give_back()))
            self._connection.post(release, ONE_WAY)


def accept(connection: SocketConnection, offer: Offer) -> None:
    """Use the memory of a peer from now on, if we see it."""
    if connection.memory is None and reachable(offer.owner, offer.descriptor, offer.nonce):
        connection.share_memory(Borrower(connection, offer.owner))
        connection.post(Accept(), ONE_WAY)
