"""The calls of an eachElem that blocks: nobody sees their Futures, so there are none.

rows ─▶ Gathering, a job as that of `map` (mapping.py) ─▶ the results in order, by a Policy
                                                       └▶ or the first error that arrives
"""

from __future__ import annotations

from sleighexec.functions import Definition
from sleighexec.hints import TYPE_CHECKING, Any
from sleighexec.mapping import TAKEN, Failure, MapJob, Run
from sleighexec.task import Settings

if TYPE_CHECKING:
    from sleighexec.engines.base import Engine
    from sleighexec.pending import Policy
    from sleighexec.progress import Meter


class Gathering(MapJob):
    """A job whose results are taken all at once."""

    def __init__(
        self,
        policy: Policy,
        engine: Engine,
        definition: Definition,
        settings: Settings,
        chunk: int,
        apply_to: Any,
        meter: Meter | None,
    ) -> None:
        """`policy`: what becomes of errors. All else as for a MapJob."""
        super().__init__(
            engine, definition, (), settings, chunk, apply_to=apply_to, meter=meter, shares=False
        )
        self._policy = policy
        self._failed: int | None = None  # the item whose error was the first to arrive

    def deliver(self, index: int, value: Any, error: BaseException | None) -> None:
        super().deliver(index, value, error)
        # It counts only if nothing was there before, and nobody has looked at it yet.
        if self._failed is None and type(self.results[index]) is Failure:
            self._failed = index
            if self._policy.raises:
                self.wake()

    def is_there(self, index: int) -> bool:
        return super().is_there(index) or (self._policy.raises and self._failed is not None)

    def gather(self) -> list[Any]:
        """The results in order, when all are there.

        Raises:
            BaseException: The first error to arrive, if errors are to be raised.
        """
        policy, results = self._policy, self.results
        out: list[Any] = []
        index = 0
        while index < len(results):
            if not self.is_there(index):
                self.wait(index, None)
            if policy.raises and self._failed is not None:
                self.take(self._failed, None)  # raises it
            found, results[index] = results[index], TAKEN
            index += 1
            if type(found) is Run:
                out += found.values
                index += len(found) - 1
            elif type(found) is not Failure:
                out.append(found)
            elif not policy.skips:
                out.append(policy.failed(found.error))
        return out
