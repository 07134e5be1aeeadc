"""What may not be left behind: processes, threads and descriptors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.conftest import children, descriptors, threads, wait_for


@contextlib.contextmanager
def nothing_is_left() -> Iterator[None]:
    """Raise AssertionError if there is more at the end than at the beginning."""
    before = children(), threads(), descriptors()
    yield
    wait_for(lambda: threads() <= before[1], f"threads are left: {threads() - before[1]}")
    wait_for(lambda: children() <= before[0], f"processes are left: {children() - before[0]}")
    wait_for(lambda: descriptors() <= before[2] + 1, "descriptors are left")
