"""What the clients of a server that listens may make it keep, so that none of them can fill it.

    Limits    the numbers
    Account   what a space keeps now, and whether there is room for more

An embedded server has neither: it keeps what its own process stores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sleighexec.messages import Value, bytes_of

MAX_NAME = 1024  # bytes of UTF-8
VALUE_BYTES = 256  # bytes of memory that a value takes beside its own
PIECE_BYTES = 256  # bytes of memory that a piece of unsent output takes beside its own

VALUES, VARIABLES, PLACES = "values", "variables", "places of blocked fetches and finds"
REMEDIES = {
    VALUES: "fetch some, or delete variables that nobody needs",
    VARIABLES: "delete variables or workspaces that nobody needs",
    PLACES: "let fewer clients wait at once, or give them a timeout",
}


class Limits:
    """How much a server keeps for its clients.

    Args:
        value_bytes: Of all values together, those on loan too; None: no limit.
        values: How many of them.
        variables: Variables and workspaces together.
        waiting: Places in the lines of variables; a blocked fetch or find takes one for each
            variable that it names.
        connections: Of clients that have shown the key.
        unsent_bytes: Output for a client that does not read it; from there on its replies wait
            and it is not heard.
        stall_seconds: How long that may last without a byte read before it is cut off.
    """

    def __init__(
        self,
        *,
        value_bytes: int | None = None,
        values: int = 10_000_000,
        variables: int = 1_000_000,
        waiting: int = 100_000,
        connections: int = 10_000,
        unsent_bytes: int = 64 * 1024**2,
        stall_seconds: float = 60.0,
    ) -> None:
        self.value_bytes, self.values = value_bytes, values
        self.variables, self.waiting = variables, waiting
        self.connections = connections
        self.unsent_bytes, self.stall_seconds = unsent_bytes, stall_seconds


class Account:
    """What the clients of a space have made it keep.

    Attributes:
        value_bytes, values, variables, waiting: As the limits of these names.
    """

    def __init__(
        self, limits: Limits, on_gone: Callable[[Sequence[Value]], None] | None = None
    ) -> None:
        """`on_gone`: is told of values that have left the space for good."""
        self._limits, self._on_gone = limits, on_gone
        self.value_bytes = self.values = self.variables = self.waiting = 0

    def stored(self, values: Sequence[Value]) -> None:
        self.values += len(values)
        self.value_bytes += _total(values)

    def gone(self, values: Sequence[Value]) -> None:
        if self._on_gone is not None:
            self._on_gone(values)
        self.values -= len(values)
        self.value_bytes -= _total(values)

    def admit(self, values: Sequence[Value]) -> str:
        """Count these values as stored; or else, why they are too many."""
        limits, count = self._limits, self.values + len(values)
        size = self.value_bytes + _total(values)
        if count > limits.values:
            return _too_many(self.values, VALUES, limits.values)
        if limits.value_bytes is not None and size > limits.value_bytes:
            return (
                f"{size - self.value_bytes} bytes do not fit beside the {self.value_bytes} that "
                f"the workspace server keeps, of {limits.value_bytes} at most: fetch or delete "
                "some values, or start the server with a higher --max-bytes"
            )
        self.values, self.value_bytes = count, size
        return ""

    def refusal(self, names: Collection[str], waiting: int = 0) -> str:
        """Why these new variables and places in line are too many; "" if they are not."""
        limits = self._limits
        if not names and self.waiting + waiting <= limits.waiting:  # nearly always
            return ""
        names = set(names)
        if any(len(name.encode("utf-8", "surrogatepass")) > MAX_NAME for name in names):
            return f"a name has at most {MAX_NAME} bytes: choose a shorter one"
        for count, more, limit, what in (
            (self.variables, len(names), limits.variables, VARIABLES),
            (self.waiting, waiting, limits.waiting, PLACES),
        ):
            if more and count + more > limit:
                return _too_many(count, what, limit)
        return ""


def _too_many(count: int, what: str, limit: int) -> str:
    return f"the workspace server keeps {count} {what} and no more than {limit}: {REMEDIES[what]}"


def _total(values: Sequence[Value]) -> int:
    """What payloads take in memory, about."""
    if len(values) == 1 and not values[0].buffers:  # nearly always
        return VALUE_BYTES + len(values[0].head)
    return VALUE_BYTES * len(values) + bytes_of(values)
