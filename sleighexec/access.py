"""What all verbs of a workspace are made of: ask, get an answer or an error, rebuild the value.

    NetWorkSpace, ValueIterator, Borrowed ──▶ Access ──▶ any Connection ──▶ Space

A value that the space keeps, because it was only looked at or lent, is copied for the caller.
"""

from __future__ import annotations

import contextlib
import sys
import unicodedata
import weakref
from functools import lru_cache

from sleighexec import payload as pickling
from sleighexec.errors import (
    ConnectionLostError,
    DeletedError,
    ModeError,
    NoSuchVariableError,
    NoSuchWorkspaceError,
    OperationError,
    OperationUnknownError,
    OrderError,
    ValuePicklingError,
    ValueUnpicklingError,
    WorkspaceFullError,
    timeout_error,
)
from sleighexec.files import write_all
from sleighexec.hints import Any, Protocol
from sleighexec.limits import MAX_NAME
from sleighexec.messages import (
    Failed,
    Fetch,
    Find,
    GiveBack,
    Payload,
    Reply,
    Request,
    Settle,
    Store,
    Values,
)

ERRORS: dict[str, type[OperationError]] = {
    "workspace": NoSuchWorkspaceError,
    "variable": NoSuchVariableError,
    "mode": ModeError,
    "order": OrderError,
    "deleted": DeletedError,
    "full": WorkspaceFullError,
}


class Connection(Protocol):
    """How a workspace is reached: in this process, or over a socket."""

    local: bool
    space: str  # the identity of the space, if it is an executor's

    def call(self, request: Request, again: OperationUnknownError | None = None) -> Reply:
        """The reply to a request; blocks as long as the request does.

        `again`: the error of an earlier try of this store.
        """

    def call_ahead(self, request: Store) -> Failed | None:
        """Store without waiting for the reply; what an earlier one there was refused with."""

    def flush(self, workspace: int | None, seconds: float | None = None) -> Failed | None:
        """Wait until such stores into one workspace, or all, are done; a refusal among them."""

    def close(self) -> None:
        """Leave: blocked calls end, what was owned is deleted. Closing twice is allowed."""


# The spaces of executors that this process reaches: its own executors', or that of its worker.
embedded: weakref.WeakValueDictionary[str, Connection] = weakref.WeakValueDictionary()


def ask(
    connection: Connection, request: Request, again: OperationUnknownError | None = None
) -> Reply:
    """The reply to a request, if it is not a refusal.

    Raises:
        OperationError: The server said no; the class says why.
        ConnectionLostError: The server went away.
    """
    reply = connection.call(request, again)
    if type(reply) is Failed:
        raise refusal(reply)
    return reply


def flush(connection: Connection, workspace: int | None, seconds: float | None = None) -> None:
    """Wait until all is stored there, or anywhere, that nobody has waited for.

    Raises:
        OperationError: The server has said no to some of it; this is the first.
        ConnectionLostError: The server went away, or did not answer in time.
    """
    if failed := connection.flush(workspace, seconds):
        raise refusal(failed)


def refusal(failed: Failed) -> OperationError:
    """The error for what the server says no to."""
    return ERRORS.get(failed.reason, OperationError)(failed.text)


class Access:
    """One workspace: its number at the server, and its name for messages. Thread-safe."""

    def __init__(self, connection: Connection, number: int, name: str) -> None:
        self.number, self.name = number, name
        self._connection = connection

    def ask(self, request: Request, again: OperationUnknownError | None = None) -> Reply:
        """See the function of this name."""
        return ask(self._connection, request, again)

    def send(self, request: Store) -> None:
        """Have something stored without waiting for it.

        Raises:
            OperationError: The server has said no to something that was stored before.
        """
        if failed := self._connection.call_ahead(request):
            raise refusal(failed)

    def flush(self) -> None:
        """See the function of this name."""
        flush(self._connection, self.number)

    def get(self, request: Fetch | Find) -> Values | None:
        """One value as it is, in the caller's hands alone; None: there was none in time."""
        reply = self.ask(request)
        if type(reply) is not Values:
            return None
        if self._connection.local and (type(request) is Find or reply.loan):
            reply.values = list(map(self._copied, reply.values))
        return reply

    def wait(self, request: Fetch | Find) -> Values:
        """As `get`, but it must be there in time.

        Raises:
            TimeoutError: No value came. Nothing was taken.
        """
        reply = self.get(request)
        if reply is None:
            raise self.late(request.variables[0], request.timeout)
        return reply

    def late(self, variable: str, seconds: float | None) -> Exception:
        """The error for a value that did not come in time."""
        return timeout_error(f"no value came into {variable!r} of {self.name!r} within {seconds} s")

    def payload(self, variable: str, value: object) -> Payload:
        """A value as it travels.

        Raises:
            ValuePicklingError: It cannot be pickled.
        """
        try:
            payload = pickling.value_payload(value)
        except Exception as error:
            raise ValuePicklingError(variable, self.name, error) from error
        return self._copied(payload) if self._connection.local else payload

    def _copied(self, payload: Payload) -> Payload:
        """A payload to whose buffers nobody else writes, nor sees what is written to them."""
        if not payload.buffers:
            return payload
        connection: Any = self._connection
        buffers = [connection.copy(buffer) for buffer in payload.buffers]
        return Payload(payload.head, buffers, payload.kind)

    def value(self, reply: Values) -> Any:
        """The value in a reply, rebuilt.

        Raises:
            ValueUnpicklingError: It cannot be rebuilt in this process.
        """
        return self._rebuilt(reply.values[0], reply)

    def values(self, reply: Values) -> list[Any]:
        """All values in a reply; raises what `value` raises."""
        with contextlib.suppress(Exception):  # it comes again below, and tells which one it is of
            return pickling.loads_all(reply.values)
        return [self._rebuilt(payload, reply) for payload in reply.values]

    def _rebuilt(self, payload: Payload, reply: Values) -> Any:
        try:
            return pickling.loads(payload)
        except Exception as error:
            head = bytes(payload.head)
            raise ValueUnpicklingError(reply.variable, self.name, error, head) from error

    def write(self, reply: Values, fobj: Any) -> int:
        """Write the value in a reply to a binary file; the number of bytes.

        Bytes are written as they are, text as UTF-8, anything else as one pickle.
        """
        payload = reply.values[0]
        if not payload.buffers:
            return write_all(fobj, payload.head)
        # The big buffers of arrays stay apart from their pickle; a file is to have all in one.
        return write_all(fobj, pickling.dumps_whole(self.value(reply)))

    def settle(self, loan: int) -> None:
        """A lent value is done with: it is gone for good."""
        self.ask(Settle(loan, 1))

    def give_back(self, loan: int) -> None:
        """A lent value goes back, first in line. If the connection is lost, it has done so."""
        with contextlib.suppress(ConnectionLostError):
            self.ask(GiveBack(loan, 1))


def checked(name: str) -> str:
    """A name of a workspace or variable, if it is one.

    Raises:
        TypeError: It is not a str.
        ValueError: It is empty, too long, or has control characters.
    """
    if not isinstance(name, str):
        raise TypeError(f"a name must be a str, not {type(name).__name__}")
    return _checked(name)


@lru_cache(maxsize=256)  # a program uses few of them, again and again
def _checked(name: str) -> str:
    if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} bytes of UTF-8, not {len(name)} characters")
    if not name.isprintable() and any(
        unicodedata.category(character) in ("Cc", "Cs") for character in name
    ):
        raise ValueError(f"a name has no control characters or lone surrogates: {name!r}")
    return name


def seconds(timeout: float | None) -> float | None:
    """A timeout as it travels: of no time, or of some; None if it has no end.

    Raises:
        TypeError, ValueError: It is not a number.
    """
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if timeout <= 0:
        return 0.0
    if timeout <= sys.float_info.max:
        return float(timeout)  # a bool is an int too, but none at the other side
    if not timeout > 0:
        raise ValueError("timeout must be a number of seconds or None, not NaN")
    return None  # infinity, or an int that is near it
