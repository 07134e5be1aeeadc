"""A peer's side of shared memory: buffers come in segments, and go in those that we are lent.

Offer(owner, …) ─▶ do we see that memory? ─▶ Borrower, and Accept
a big buffer is to be sent: granted already, or Lease ─▶ Leased ─▶ copied there ─▶ its place
                                                      └▶ Nothing: it goes through the socket
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

MOST_REFUSALS = 4  # in a row that count


class Borrower:
    """What one connection has of the segments of the process at its other end."""

    def __init__(self, connection: SocketConnection, owner: int) -> None:
        """`owner`: the id of that process."""
        self._connection = weakref.proxy(connection)  # which holds us
        self._shelf = Shelf(owner)
        self._giving_back = threading.Lock()
        # To ask takes as long as a small call. While all segments are in use, as when somebody
        # keeps many big results, it is in vain: after the second refusal in a row two buffers go
        # without asking, after the third six, …
        self._refusals = self._unasked = 0

    def put(self, view: memoryview) -> bytes | None:
        """Put a buffer on its way into a segment; None: there is none for it."""
        place = self._shelf.find(view.nbytes)
        if place is None:
            if self._unasked > 0:
                self._unasked -= 1
                return None
            reply: Any = self._connection.call(Lease(view.nbytes))
            if type(reply) is not Leased:
                self._refusals = min(self._refusals + 1, MOST_REFUSALS)
                self._unasked = 2**self._refusals - 2
                return None
            self._refusals = 0
            place = Place(*reply.place)._replace(size=view.nbytes)
        self._shelf.put(view, place)
        return place.pack()

    def locate(self, data: Any) -> memoryview:
        """The buffer that came in a segment."""
        return self._shelf.buffer(unpack(data))

    def grant(self, places: Iterable[tuple[int, ...]]) -> None:
        """We are lent these without having asked."""
        self._refusals = self._unasked = 0
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
