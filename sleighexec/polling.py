"""Which of many sockets can be read or written: as `selectors`, in fewer steps.

A lone call is waited for through it: there the keys and events that `selectors` makes of what the
system says take as long as sending the call.
"""

from __future__ import annotations

import contextlib
import math
import select
from collections.abc import Callable

from sleighexec.hints import Any

READ, WRITE = 1, 4  # as poll and epoll have them everywhere; errors and hang-ups come as others


class Poller:
    """Watches descriptors, by their numbers. One thread waits at a time.

    Attributes:
        wait: Blocks until some of them can do what they are watched for, or so many seconds have
            passed; None: for ever. Returns pairs of a descriptor and what it can do, which may
            have bits beyond those that it is watched for.
    """

    def __init__(self, kind: Callable[[], Any] | None = None) -> None:
        """`kind`: select.epoll, where the system has that, or select.poll."""
        best: Callable[[], Any] = getattr(select, "epoll", select.poll)
        self._poll = (kind or best)()
        self._watched: set[int] = set()
        self.wait: Callable[[float | None], list[tuple[int, int]]] = self._poll.poll
        if not hasattr(self._poll, "close"):
            self.wait = self._wait_by_poll

    def watch(self, descriptor: int, events: int) -> None:
        """From now on watch it for READ, WRITE, both or, but for its end, neither.

        Raises:
            OSError: There is no such descriptor, or it cannot be watched.
        """
        if descriptor in self._watched:
            self._poll.modify(descriptor, events)
        else:
            self._poll.register(descriptor, events)
            self._watched.add(descriptor)

    def leave(self, descriptor: int) -> None:
        """Watch it no more, if it was watched. To be said before it is closed."""
        if descriptor in self._watched:
            self._watched.discard(descriptor)
            with contextlib.suppress(OSError):  # somebody has closed it: the system has left it
                self._poll.unregister(descriptor)

    def close(self) -> None:
        """Let go of what the system has of it; nothing can be watched any more."""
        self._watched.clear()
        if hasattr(self._poll, "close"):
            self._poll.close()

    def _wait_by_poll(self, seconds: float | None) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = self._poll.poll(
            None if seconds is None else math.ceil(seconds * 1000)
        )
        return found
