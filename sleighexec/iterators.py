"""Iterators over the values of one variable: what ifetch, ifind and their Try forms give back.

The space gives every stored value an index for life. An iterator says with each request which
variable it walks over and up to which index it has seen it, and nobody keeps anything for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from sleighexec.access import Access
from sleighexec.errors import DeletedError, NoSuchWorkspaceError
from sleighexec.files import check_binary
from sleighexec.forks import free_in_child
from sleighexec.hints import Any
from sleighexec.messages import Fetch, Find, Values

_START = (0, -1)  # of no certain variable yet, none seen


class ValueIterator(Iterator[Any]):
    """The values of a variable, each once, in the order in which they were stored.

    Those of `ifetch` take each value, those of `ifind` look at it. They wait for the next one;
    those of the Try forms stop when there is none. All stop when the variable is deleted. Once
    stopped they stay so until `restart` or `reset`.

    Values that others have fetched meanwhile, and values of a SINGLE that were replaced, are not
    seen. Two iterators do not disturb each other, but those of `ifetch` compete.

    Raises, with each step:
        OrderError: The variable is a LIFO or MULTI.
        TimeoutError: The iterator has a timeout, and no value came in time. It has not stopped.
        ValueUnpicklingError: This value cannot be rebuilt; the next step gives the next one.
        ConnectionLostError: The server went away.

    Safe from several threads: each value goes to one of them.
    """

    def __init__(
        self,
        access: Access,
        verb: type[Fetch] | type[Find],
        variable: str,
        timeout: float | None = None,
        *,
        tries: bool = False,
    ) -> None:
        """`timeout` is in seconds for each step; `tries`: do not wait, stop instead."""
        self._access, self._verb, self._variable = access, verb, variable
        self._timeout, self._tries = (0.0 if tries else timeout), tries
        # Guards all below. Nobody waits for a value with it.
        self._lock = free_in_child(threading.Lock())
        self._seen = _START
        self._stopped = self._deleted = False

    def __next__(self) -> Any:
        reply = self._step()
        if reply is None:
            raise StopIteration
        return self._access.value(reply)

    def restart(self) -> None:
        """Go on where it stopped, if values have come since. Not if the variable was deleted."""
        with self._lock:
            self._stopped = self._deleted

    def reset(self) -> None:
        """Begin again: with the oldest value that is there now, of whatever has this name now."""
        with self._lock:
            self._seen = _START
            self._stopped = self._deleted = False

    def writeTo(self, fobj: Any) -> int:
        """Write the next value to a binary file, as `fetchFile` does; 0 if the iterator stops.

        Raises:
            TypeError: It is a file of text.
            Exception: Whatever writing raises; the value is not lost and comes next again.
        """
        check_binary(fobj)
        reply = self._step(lend=True)
        if reply is None:
            return 0
        try:
            count = self._access.write(reply, fobj)
        except BaseException:
            if self._verb is Fetch:
                self._access.give_back(reply.loan)
            self._unsee(reply)
            raise
        if self._verb is Fetch:
            self._access.settle(reply.loan)
        return count

    def _step(self, lend: bool = False) -> Values | None:
        """The next value that no other thread has got from us; None: the iterator has stopped."""
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            with self._lock:
                if self._stopped:
                    return None
                seen = self._seen
            left = None if end is None else max(end - time.monotonic(), 0)
            try:
                reply = self._access.get(self._request(left, lend, seen))
            except (DeletedError, NoSuchWorkspaceError) as error:
                if seen == _START and isinstance(error, NoSuchWorkspaceError):
                    raise  # there was nothing to walk over from the beginning
                self._stop(deleted=True)
                return None
            if reply is None:
                if not self._tries:
                    raise self._access.late(self._variable, self._timeout)
                self._stop()
                return None
            with self._lock:
                if self._verb is Fetch or self._seen == seen:
                    self._seen = reply.variable_id, reply.index
                    return reply
            # Another thread has got this value meanwhile: the one behind it is ours.

    def _request(self, timeout: float | None, lend: bool, seen: tuple[int, int]) -> Fetch | Find:
        number, names = self._access.number, (self._variable,)
        if self._verb is Fetch:
            return Fetch(number, names, timeout=timeout, lend=lend, after=seen)
        return Find(number, names, timeout, seen)

    def _stop(self, deleted: bool = False) -> None:
        with self._lock:
            self._stopped = True
            self._deleted |= deleted

    def _unsee(self, reply: Values) -> None:
        """The value in this reply is to come again, unless another thread has gone on."""
        with self._lock:
            if self._seen == (reply.variable_id, reply.index):
                self._seen = reply.variable_id, reply.index - 1
