"""What checkers of types say to users of the executor: read by mypy in CI, never run."""

from __future__ import annotations

from concurrent.futures import Future, as_completed, wait
from typing import TYPE_CHECKING

from sleighexec import SleighExecutor

if TYPE_CHECKING:
    from typing_extensions import assert_type


def name(number: int) -> str:
    return str(number)


def uses(executor: SleighExecutor) -> None:
    future = executor.submit(name, 1)
    assert_type(future.result(), str)
    of_library: Future[str] = future
    assert_type([each.result() for each in as_completed([future])], list[str])
    assert_type(wait([of_library]).done, set[Future[str]])
    assert_type(executor.options(retries=1).submit(name, 1).result(), str)
    assert_type(list(executor.map(name, [1])), list[str])


async def waits(executor: SleighExecutor) -> None:
    assert_type(await executor.submit(name, 1), str)
