"""Bytes between values and binary files: anything with `read` or `write` will do.

A file may be raw and give or take less than it was asked to; nothing here needs its size.
"""

from __future__ import annotations

import io

from sleighexec.hints import Any

Bytes = bytes | bytearray | memoryview


def check_binary(fobj: Any) -> None:
    """Refuse a file of text, before anything has been taken for it.

    Raises:
        TypeError: It is one.
    """
    # Wrappers as those of tempfile are no TextIOBase, but have the attributes of one.
    if isinstance(fobj, io.TextIOBase) or hasattr(fobj, "encoding"):
        raise TypeError(
            f"values are bytes, but {fobj!r} is a file of text: open it in binary mode ('rb', 'wb')"
        )


def read_up_to(fobj: Any, n: int) -> bytes:
    """The next `n` bytes of a file, fewer at its end; 0: all the rest.

    Raises:
        ValueError: `n` is negative, or the file is closed.
        TypeError: It is a file of text, or none.
    """
    if n < 0:
        raise ValueError(f"n must be a number of bytes, or 0 for all of them, not {n}")
    check_binary(fobj)
    parts, left = [], n
    while left > 0 or n == 0:
        part = fobj.read(left) if n else fobj.read()
        if not isinstance(part, (bytes, bytearray)):
            raise TypeError(f"read() of {fobj!r} gave {type(part).__name__}, not bytes")
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def write_all(fobj: Any, data: Bytes) -> int:
    """Write all of `data` to a file; how many bytes that were. Raises what `write` raises."""
    view = memoryview(data).cast("B").toreadonly()
    while view:
        written = fobj.write(view)
        if written is None:  # not all who have a `write` count
            break
        view = view[written:]
    return len(data)
