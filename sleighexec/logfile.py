"""A file that only grows, of records with checksums, so that what was torn or spoilt is seen.

    magic │ record │ record │ …     record: size u64, crc u32 of the data, crc u32 of these, data

The end may be torn: whoever wrote it died, or the power went. What is damaged before the end was
not torn but spoilt, and nobody can say what else is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from sleighexec.errors import DamagedStoreError
from sleighexec.forks import forget_in_child
from sleighexec.hints import Any, BinaryIO

MAGIC = b"sleighexec log 1\n"
SIZES = struct.Struct("!QI")  # bytes of data, their checksum
CHECK = struct.Struct("!I")  # checksum of these
HEADER = SIZES.size + CHECK.size
PIECES = 512  # buffers in one write; the kernel's own limit is 1024
CHUNK = 1024 * 1024


class LogFile:
    """A log that this process alone may use, at its end.

    Attributes:
        size: Bytes of the file.
        dropped: Bytes at the end that were torn, and are gone.
    """

    def __init__(self, path: Path) -> None:
        """Open it, or make it.

        Raises:
            BlockingIOError: Another process has it.
            OSError: It cannot be opened or made.
        """
        self.path = path
        self.size = self.dropped = 0
        self._closed = False
        while True:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(self._file, path):
                    forget_in_child(self)
                    return
            except BlockingIOError as error:
                os.close(self._file)
                raise BlockingIOError(
                    error.errno, "another server has this store", str(path)
                ) from None
            except BaseException:
                os.close(self._file)
                raise
            os.close(self._file)  # its owner has just put a shorter one in its place

    def read(self) -> Iterator[bytes]:
        """The data of all records. To the end, before anything is appended.

        Raises:
            DamagedStoreError: A record that is not the last one is not as it was written.
        """
        with open(os.dup(self._file), "rb") as file:
            end = os.fstat(self._file).st_size
            start = file.read(len(MAGIC))
            if not MAGIC.startswith(start):
                raise DamagedStoreError(str(self.path), 0, 0, "it does not begin as a store does")
            position, number = len(MAGIC), 0
            while position < end:
                number += 1
                data = self._record(file, number, position, end)
                if data is None:
                    self.dropped = end - position
                    break
                yield data
                position += HEADER + len(data)
        if position == len(MAGIC):
            os.ftruncate(self._file, 0)
            _write(self._file, [memoryview(MAGIC)], 0)
        self.size = position
        os.ftruncate(self._file, position)

    def _record(self, file: BinaryIO, number: int, position: int, end: int) -> bytes | None:
        """The data of the next record; None: it is the last one, and torn."""
        header = file.read(HEADER)
        if len(header) < HEADER:
            return None
        (check,) = CHECK.unpack_from(header, SIZES.size)
        if zlib.crc32(header[: SIZES.size]) != check:
            if _only_zeros(file, header):  # space that was got, and never written
                return None
            raise DamagedStoreError(str(self.path), number, position, "its header is spoilt")
        size, check = SIZES.unpack_from(header)
        if position + HEADER + size > end:
            return None
        data = file.read(size)
        if zlib.crc32(data) == check:
            return data
        if position + HEADER + size == end:
            return None
        raise DamagedStoreError(str(self.path), number, position, "its data are spoilt")

    def append(self, pieces: Sequence[Any]) -> int:
        """Write a record, whole or not at all; its bytes.

        Raises:
            OSError: There is no room, or the disk fails.
        """
        views = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
        size = check = 0
        for view in views:
            size, check = size + view.nbytes, zlib.crc32(view, check)
        sizes = SIZES.pack(size, check)
        views.insert(0, memoryview(sizes + CHECK.pack(zlib.crc32(sizes))))
        try:
            _write(self._file, views, self.size)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
            raise
        self.size += HEADER + size
        return HEADER + size

    def take_back(self, size: int) -> None:
        """Forget the last record, of so many bytes."""
        self.size -= size
        with contextlib.suppress(OSError):  # the next one is written over it
            os.ftruncate(self._file, self.size)

    def sync(self) -> None:
        """Return when what was written is on the disk."""
        os.fsync(self._file)

    def take_place_of(self, other: LogFile) -> None:
        """Be at its path, from one moment to the next.

        Raises:
            OSError: It cannot be; the other one is there still.
        """
        self.sync()
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.rename(self.path, other.path)
            self.path = other.path
            # Not every file system can do this for a folder; and it is done, there is no way back.
            with contextlib.suppress(OSError):
                os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        os.close(self._file)
        self._closed = True

    def forget(self) -> None:
        """In a forked child: close its copy, which would keep the file locked after our end."""
        if not self._closed:  # else another file has the number
            self.close()


def _write(file: int, views: list[memoryview], position: int) -> None:
    """Write all of it at a position."""
    views = list(views)
    while views:
        os.lseek(file, position, os.SEEK_SET)
        written = os.writev(file, views[:PIECES])
        position += written
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]


def _only_zeros(file: BinaryIO, data: bytes) -> bool:
    """Whether there is nothing else in the data and the rest of the file."""
    while data:
        if data.strip(b"\0"):
            return False
        data = file.read(CHUNK)
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still that at its path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
