"""A value on loan: out of its variable, and back in it unless somebody says it is done with."""

from __future__ import annotations

from types import TracebackType

from sleighexec.access import Access
from sleighexec.hints import Any
from sleighexec.messages import Values


class Borrowed:
    """A value that comes back into its variable if its borrower dies before he has settled it.

        with workspace.borrow("job") as job:
            work_on(job.value)

    At the end of the block the value is settled; if an exception leaves the block it goes back,
    first in line. Until it is settled or given back it is on loan, even if this object is
    forgotten: then it comes back when the connection ends, which is when the process ends.

    Attributes:
        value: The value, an object of the borrower's own: what he does to it does not go back.

    Ending a loan that has ended does nothing.
    """

    def __init__(self, access: Access, reply: Values) -> None:
        self._access, self._loan = access, reply.loan
        self._variable, self._ended = reply.variable, False
        try:
            self.value: Any = access.value(reply)
        except BaseException:
            self.give_back()
            raise

    def __enter__(self) -> Borrowed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.settle()
        else:
            self.give_back()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "on loan"
        return f"<Borrowed from {self._variable!r} of {self._access.name!r}, {state}>"

    def __reduce__(self) -> Any:
        raise TypeError("a loan cannot be sent elsewhere, it is this process's; send its value")

    def settle(self) -> None:
        """Done with it: the value is gone for good.

        Raises:
            ConnectionLostError: The server went away, and the value is back unless it went too.
        """
        if not self._ended:
            self._access.settle(self._loan)
            self._ended = True

    def give_back(self) -> None:
        """Put the value back, first in line, for whoever comes next."""
        if not self._ended:
            self._access.give_back(self._loan)
            self._ended = True
