"""An executor with settings of its own on the pool of another: what `options` gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor

from sleighexec.each import EachCalls, Pending
from sleighexec.elements import Row
from sleighexec.future import Group, SleighFuture
from sleighexec.hints import TYPE_CHECKING, Any, TypeVar
from sleighexec.maps import check_sizes
from sleighexec.pending import Policy, SleighPending
from sleighexec.task import Settings

if TYPE_CHECKING:
    from sleighexec.executor import SleighExecutor
    from sleighexec.progress import MakeDisplay

T = TypeVar("T")


class View(EachCalls, Executor):
    """An executor with settings of its own on the pool of another."""

    def __init__(
        self, executor: SleighExecutor, settings: Settings, progress: MakeDisplay | None
    ) -> None:
        self._executor, self._settings, self._progress = executor, settings, progress
        self._engine, self._max_pending = executor._engine, executor._max_pending

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> SleighFuture[T]:
        return self._executor._submit(self._settings, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        check_sizes(chunksize, buffersize)
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._executor._map(
            self._settings, self._meter(), fn, iterables, deadline, chunksize, buffersize
        )

    def _submit_rows(self, fn: Any, rows: list[Row], group: Group, chunk_size: int) -> None:
        self._executor._bulk(self._settings, fn, rows, group, chunk_size)

    def _shared_if_big(self, value: Any) -> Any:
        return self._executor._shared_if_big(value)

    def _submit_each(self, fn: Any, args: Row, group: Group, sticky: bool) -> None:
        self._executor._one_each(self._settings, fn, args, group, sticky)

    # How it answers is its executor's business: a Sleigh has answers of its own.

    @property
    def _pending_class(self) -> type[SleighPending]:  # type: ignore[override]
        return self._executor._pending_class

    def _admit(self, on_error: str | None, accumulator: Any, kind: str) -> Policy:
        return self._executor._admit(on_error, accumulator, kind)

    def _given(self, pending: Pending) -> Pending:
        return self._executor._given(pending)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait, cancel_futures=cancel_futures)
