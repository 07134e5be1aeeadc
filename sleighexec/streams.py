"""The two byte streams of a link, as a relay uses them: it waits for both and never in one."""

from __future__ import annotations

import os

from sleighexec.hints import Protocol


class Stream(Protocol):
    """What comes from the other side, and what goes there."""

    read_end: int  # descriptor to wait for before a read
    write_end: int  # …and before a write; it may be the same

    def read(self, limit: int) -> bytes:
        """What has come, about `limit` bytes of it; nothing: it has ended.

        BlockingIOError: nothing has come.
        """

    def write(self, data: memoryview) -> int:
        """Send what goes at once; how many bytes. BlockingIOError: none."""

    def pending(self) -> bool:
        """Whether there is something to read that no descriptor tells of."""


class Pipes:
    """Two descriptors of pipes or sockets, which do not block from now on."""

    def __init__(self, read_end: int, write_end: int) -> None:
        self.read_end, self.write_end = read_end, write_end
        for descriptor in (read_end, write_end):
            os.set_blocking(descriptor, False)

    def read(self, limit: int) -> bytes:
        return os.read(self.read_end, limit)

    def write(self, data: memoryview) -> int:
        return os.write(self.write_end, data)

    def pending(self) -> bool:
        return False
