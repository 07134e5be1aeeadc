"""What happens in workers and in partner processes. Imports next to nothing: it is imported there.

numpy is used only through the arrays that come in.
"""

from __future__ import annotations

import importlib
import socket
import time
from typing import Any

KEPT: dict[str, Any] = {}  # what `keep` was given, in this process


class Point:
    """An object as many are."""

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y


def given(value: Any) -> Any:
    """What is given."""
    return value


def stay(path: str, module: str) -> None:
    """Import a module, say so at the Unix socket at `path`, and stay until it answers or closes."""
    importlib.import_module(module)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.connect(path)
        door.recv(1)


def rest(seconds: float) -> None:
    """Sleep so long; 0 is really nothing: `time.sleep(0)` may take a tenth of a millisecond."""
    if seconds:
        time.sleep(seconds)


def touch(array: Any) -> float:
    """Read the array once in each page of 4 KiB (its items have 8 bytes)."""
    return float(array[::512].sum())


def same(array: Any) -> Any:
    """Touch the array and send it back."""
    touch(array)
    return array


def part(index: int, array: Any) -> float:
    """One item of a big argument."""
    return float(array[index])


def keep(array: Any) -> None:
    """As initializer: leave the array where `kept_part` finds it."""
    KEPT["array"] = array


def kept_part(index: int) -> float:
    """One item of what the initializer left."""
    return float(KEPT["array"][index])


def echo(ping: Any, pong: Any) -> None:
    """Put into `pong` what comes out of `ping`, until that is None."""
    while (value := ping.get()) is not None:
        pong.put(value)
