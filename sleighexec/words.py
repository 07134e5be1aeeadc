"""Numbers in memory that another process reads at any moment, or when this one is dead.

Each is eight bytes at a multiple of eight, copied in one step: a reader finds what was there or
what is there now. `struct.pack_into` will not do: it clears the bytes before it writes them one by
one, and `unpack_from` reads them so.
"""

from __future__ import annotations

import struct

from sleighexec.hints import Any

WORD = struct.Struct("=Q")
SIZE = WORD.size


def put(memory: Any, at: int, value: int) -> None:
    """Write a number from 0 to 2**64 - 1."""
    memory[at : at + SIZE] = WORD.pack(value)


def get(memory: Any, at: int) -> int:
    """The number that stands there."""
    (value,) = WORD.unpack(memory[at : at + SIZE])
    return int(value)
