"""Big buffers that come again and again among the arguments of calls to other machines.

    first time    a sample of its bytes is remembered
    second time   a copy is made, which stands for it from now on
    from then on  whatever has the same bytes is that copy, of which a machine needs but one

Bytes are compared, not objects: an array that was changed in between is another one. On the way
they are compared by a digest of 32 bytes (BLAKE2b), and a copy once made does not change.
"""

from __future__ import annotations

import hashlib
import threading

from sleighexec.forks import free_in_child
from sleighexec.hints import Any
from sleighexec.messages import Payload

LEAST = 1024 * 1024  # bytes of a buffer that is worth it
MOST = 512 * 1024 * 1024  # bytes of all copies; the one that was wanted last is the last to go
SAMPLE = 256  # bytes by which we see that a buffer may have come before
SAMPLES = 1024  # that are remembered


class Repeats:
    """Finds what has come before. Thread-safe."""

    def __init__(self) -> None:
        self._lock = free_in_child(threading.Lock())
        self._samples: dict[tuple[int, bytes], None] = {}
        self._copies: dict[bytes, memoryview] = {}  # by digest
        self._bytes = 0  # of these

    def replace(self, payload: Payload) -> None:
        """Put copies in place of those of its buffers that have come before."""
        if any(len(buffer) >= LEAST for buffer in payload.buffers):
            payload.buffers = [self._known(buffer) for buffer in payload.buffers]

    def _known(self, buffer: Any) -> Any:
        view = memoryview(buffer)
        if view.nbytes < LEAST or not self._is_perhaps_known(view):
            return buffer
        digest = hashlib.blake2b(view, digest_size=32).digest()
        with self._lock:
            copy = self._copies.pop(digest, None)
            if copy is None:
                copy = _copy_of(view)
                self._bytes += copy.nbytes
            self._copies[digest] = copy
            while self._bytes > MOST:
                self._bytes -= self._copies.pop(next(iter(self._copies))).nbytes
        return copy

    def _is_perhaps_known(self, view: memoryview) -> bool:
        sample = view.nbytes, view[:: view.nbytes // SAMPLE].tobytes()
        with self._lock:
            known = sample in self._samples
            self._samples[sample] = None
            if len(self._samples) > SAMPLES:
                del self._samples[next(iter(self._samples))]
        return known


def _copy_of(view: memoryview) -> memoryview:
    import ctypes  # most processes never need it

    exporter: Any = (ctypes.c_char * view.nbytes).from_buffer_copy(view)
    exporter.sleighexec_repeats = True
    return memoryview(exporter).cast("B")


def repeated(buffer: Any) -> Any:
    """What a copy that was made here lives in; None: it is no such copy."""
    while type(buffer) is memoryview:
        buffer = buffer.obj
    return buffer if getattr(buffer, "sleighexec_repeats", False) else None
