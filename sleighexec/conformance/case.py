"""What a case is, and what cases are written with.

    @case
    def submit_gives_the_result(make):
        with make(2) as pool:
            expect(pool.submit(pow, 2, 5).result(PATIENCE), 32)

`make(max_workers, **options)` makes an executor of the class under test. What is asserted needs no
pytest: a case runs in a process that has none.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

# Seconds for one thing that ought to happen soon. An executor whose workers are slow to start may
# be given more.
PATIENCE = float(os.environ.get("SLEIGHEXEC_CONFORMANCE_PATIENCE", "10"))
MOMENT = 0.3  # seconds in which something that must not happen would have happened

Make = Callable[..., Executor]


class Case(NamedTuple):
    """One demand on an executor.

    Attributes:
        group: The file that it stands in, which is a heading of the table.
        name: What is demanded, as a sentence.
        function: Called with `make`; raises if the demand is not met.
        ways: What else it is called with.
    """

    group: str
    name: str
    function: Callable[..., None]
    ways: tuple[str, ...] = ()

    def run(self, make: Make) -> None:
        self.function(make, *self.ways)


class NotOffered(Exception):
    """The class has no such thing, and need not have it."""


CASES: list[Case] = []


def case(function: Callable[[Make], None]) -> Callable[[Make], None]:
    """A case whose name is that of its function."""
    CASES.append(_case(function))
    return function


def case_for(*ways: str) -> Callable[[Callable[[Make, str], None]], Callable[[Make, str], None]]:
    """A case for each of several ways."""

    def mark(function: Callable[[Make, str], None]) -> Callable[[Make, str], None]:
        CASES.extend(_case(function, way) for way in ways)
        return function

    return mark


def _case(function: Callable[..., None], *ways: str) -> Case:
    name = function.__name__.replace("_", " ").strip()
    shown = "".join(f" ({way})" for way in ways)
    return Case(function.__module__.rpartition(".")[2], name + shown, function, ways)


# ------------------------------------------------------------------ what is demanded


def expect(actual: object, wanted: object) -> None:
    if actual != wanted:
        raise AssertionError(f"got {actual!r:.300} instead of {wanted!r:.300}")


def expect_that(condition: object, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def expect_in(part: Any, whole: Any) -> None:
    if part not in whole:
        raise AssertionError(f"{part!r} is not in {whole!r:.1000}")


def expect_raises(kind: type[BaseException], call: Callable[..., object], *args: Any) -> Any:
    """The exception that a call raises, which must be of this kind."""
    try:
        value = call(*args)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised, got {value!r:.300}")


def expect_error(future: Future[Any], kind: type[BaseException] = BaseException) -> Any:
    """The exception of a future, which must be of this kind."""
    error = future.exception(PATIENCE)
    if not isinstance(error, kind):
        raise AssertionError(f"the future has {error!r:.300} instead of a {kind.__name__}")
    return error


def expect_usable(pool: Executor) -> None:
    """The pool still runs calls."""
    expect([pool.submit(abs, -n).result(PATIENCE) for n in range(5)], list(range(5)))


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something has come true; `what` says what it is that has not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)


# ------------------------------------------------------------------ calls that wait


class Gate:
    """Keeps the workers of a pool busy until it is left."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(dir=os.getcwd())

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.open()

    def open(self) -> None:
        Path(self.folder, "open").touch()

    def occupy(self, pool: Executor, count: int) -> list[Future[Any]]:
        """So many calls, all of which have begun and wait."""
        futures = [pool.submit(wait_at, self.folder, str(n)) for n in range(count)]
        wait_for(lambda: self.begun() >= set(map(str, range(count))), f"{count} calls begin")
        return futures

    def begun(self) -> set[str]:
        """The names of the calls that have begun."""
        return set(os.listdir(self.folder)) - {"open"}


def wait_at(folder: str, name: str) -> str:
    """In a worker: say that the call has begun, wait for the gate to open."""
    Path(folder, name).touch()
    wait_for(Path(folder, "open").exists, "the gate opens", 3 * PATIENCE)
    return name
