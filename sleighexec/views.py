"""`options`, and what it gives: an executor with settings of its own on the pool of another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor

from sleighexec.each import EachCalls, Pending
from sleighexec.elements import Row
from sleighexec.errors import UnsupportedOptionError
from sleighexec.future import Group, SleighFuture
from sleighexec.hints import TYPE_CHECKING, Any, TypeVar
from sleighexec.maps import check_sizes
from sleighexec.options import settings_of
from sleighexec.pending import Policy, SleighPending
from sleighexec.resources import needs_of
from sleighexec.task import Settings

if TYPE_CHECKING:
    from sleighexec.engines.base import Engine
    from sleighexec.executor import SleighExecutor
    from sleighexec.progress import MakeDisplay

T = TypeVar("T")


class Optioned:
    """The method `options` of an executor and of its views."""

    _engine: Engine
    _settings: Settings
    _progress: MakeDisplay | None

    # What it asks of the rest.
    _view: Callable[[Settings, MakeDisplay | None], View]

    def options(
        self,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        memory_limit: int | str | None = None,
        priority: int | None = None,
        resources: Mapping[str, int] | None = None,
        progress: Any = None,
        **others: Any,
    ) -> View:
        """A light view of the same pool with other settings for its calls; None: as they are.

            executor.options(timeout=60, memory_limit="4 GB").map(f, xs)

        Args:
            timeout: Seconds that a call may run. Then its worker is ended (first by SIGTERM, after
                two seconds by SIGKILL) and replaced, and the call gets `TaskTimeoutError` with
                the stack of what it was doing. It is not tried again. Waiting does not count.
                `math.inf`: as long as it takes.
            retries: How often a call whose worker died is tried again, but never a third time
                when it has killed two workers.
            memory_limit: Bytes (or "500 MB", "2 GB") that the worker may have resident while it
                runs a call. It is looked at some times a second; beyond, the worker is killed and
                the call gets `WorkerOutOfMemory`.
            priority: Calls that wait with a higher one begin before those with a lower one, equal
                ones in the order of their submission; 0 is that of all others, and it may be
                negative. What has begun is not interrupted. `eachWorker` does not go by it.
            resources: What the worker must have, as launchers say it: `{"gpu": 1}`. A call that
                needs more than any worker has raises `UnsupportedOptionError` when it is
                submitted.
            progress: As for the constructor; False: none.

        Raises:
            UnsupportedOptionError: An option is not available with this engine.
        """
        if others:
            names = ", ".join(Optioned.options.__kwdefaults__ or ())
            raise UnsupportedOptionError(f"no such option: {', '.join(others)} (there are {names})")
        needs = None if resources is None else needs_of(resources)
        settings = settings_of(self._settings, retries, timeout, memory_limit, priority, needs)
        self._engine.admit(settings)
        return self._view(settings, self._progress if progress is None else displays(progress))


class View(EachCalls, Optioned, Executor):
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

    def _view(self, settings: Settings, progress: MakeDisplay | None) -> View:
        return View(self._executor, settings, progress)

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


def displays(progress: Any) -> MakeDisplay | None:
    """What makes the displays that this option asks for."""
    from sleighexec.progress import maker  # few want it

    return maker(progress)
