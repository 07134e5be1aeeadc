"""Memory that processes of one machine share: how big buffers travel without a socket.

    owner   Pool    copies a buffer into a segment, or lends an empty one ──Place──▶
    user    Shelf   maps a segment when it first sees it ─▶ a buffer, whose death gives it back
            ◀──Place── copies a result into a segment that it was lent

What costs is not to copy, but to touch new pages of memory. So segments are used again and again:
one of 64 MiB takes 80 ms at first and 7 ms from then on. A size that was never there before is no
reason to make one; the bytes go through the socket then, which is the quicker way for once.

Laws: 1. All segments belong to one owner, which outlives what others do with them: a user that
         dies costs its segments, and no data that it has handed over.
      2. A segment is in one place: free, lent to one user, or under a buffer of the owner. It is
         free again when the last buffer on it has died, wherever that was.
      3. A process that forks while it has buffers gives their segments back as spoilt: the child
         has the same memory, so nobody may write there any more.

Segments have no name that could be left behind. A user opens them through the owner's entry in
/proc, which the system allows to processes of the same user. Everything here happens under a lock
of its caller, but for what the death of a buffer does: that may be in any thread.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import weakref
from collections import deque, namedtuple
from collections.abc import Iterable

from sleighexec.hints import Any

LEAST = 64 * 1024  # bytes of a buffer that is worth it
LIMIT = 1024**3  # bytes of all segments of a pool; what does not fit goes through sockets
FREE_LIMIT = 256 * 1024**2  # bytes of those that are free; the oldest go first
MAX_SEGMENTS = 64  # of a pool: each takes two descriptors, its own and that of its mapping
MAX_GRANTS = 4  # segments that a user has for its next results
SEEN_LIMIT = 1024  # sizes that are remembered
ALIGNED = 64  # bytes: where a buffer begins is a multiple of it
NONCE = 16  # bytes by which a user makes sure that it sees the owner's memory

_PLACE = struct.Struct("!QIQBQQ")
EXCLUSIVE, CONSTANT = 0, 1  # one user, which may write; or any number, which may not


class Place(namedtuple("Place", "number descriptor inode kind capacity size")):
    """Where a buffer lies: all that a user needs to find it.

    Attributes:
        number: Of the segment; never used again.
        descriptor: Of it, in its owner's process.
        inode: By which a user sees that the descriptor is still that of this segment.
        kind: EXCLUSIVE or CONSTANT.
        capacity: Bytes of the segment.
        size: Bytes of the buffer, from its beginning.
    """

    __slots__ = ()

    def pack(self) -> bytes:
        return _PLACE.pack(*self)


def unpack(data: Any) -> Place:
    """The place that these bytes tell of."""
    return Place(*_PLACE.unpack(data))


class _Segment:
    """A piece of shared memory, in its owner's process."""

    __slots__ = ("capacity", "descriptor", "hint", "inode", "kind", "mapping", "number")

    def __init__(self, number: int, capacity: int, kind: int) -> None:
        self.number, self.capacity, self.kind = number, capacity, kind
        self.hint: Any = None  # the user that has put a result into it last
        self.descriptor = os.memfd_create("sleighexec", os.MFD_CLOEXEC)
        try:
            # Now, or an error: later a page that cannot be had is a SIGBUS.
            os.posix_fallocate(self.descriptor, 0, capacity)
            self.inode = os.fstat(self.descriptor).st_ino
            self.mapping = _mapped(self.descriptor, capacity)
        except BaseException:
            os.close(self.descriptor)
            raise

    def place(self, size: int) -> Place:
        return Place(self.number, self.descriptor, self.inode, self.kind, self.capacity, size)

    def close(self, *, unused: bool) -> None:
        """Let go of it; `unused`: nobody has it any more, so its pages can go at once."""
        if unused:
            with contextlib.suppress(OSError):
                os.ftruncate(self.descriptor, 0)
            with contextlib.suppress(BufferError):
                self.mapping.close()
        os.close(self.descriptor)


class Pool:
    """The segments of one owner. `whom` is anything hashable that stands for a user."""

    def __init__(self) -> None:
        """Raises OSError or AttributeError where there is no memory of this kind."""
        self._numbers = iter(range(1, 2**62))
        self._free: dict[int, _Segment] = {}  # by number, the one that is free for longest first
        self._lent: dict[int, tuple[_Segment, Any]] = {}  # by number, with the user
        self._ours: dict[int, tuple[_Segment, Any]] = {}  # by number, with a watch on its buffer
        self._back: deque[tuple[int, bool]] = deque()  # of these, those whose buffer has died
        self._constants: dict[int, _Segment] = {}  # by number
        self._seen: dict[int, None] = {}  # capacities that were wanted
        self._bytes = 0  # of all segments
        self.closed = False
        self._nonce = os.urandom(NONCE)
        self._probe = os.memfd_create("sleighexec", os.MFD_CLOEXEC)
        os.write(self._probe, self._nonce)

    def probe(self) -> tuple[int, int, str]:
        """What a user needs to find out, by `reachable`, whether it can have segments."""
        return os.getpid(), self._probe, self._nonce.hex()

    # ------------------------------------------------------------------ to users, and back

    def put(self, view: memoryview, whom: Any) -> Place | None:
        """Copy a buffer into a segment for this user; None: it is to go in another way."""
        if self.closed:
            return None
        constant = place_of(view)
        if constant is not None and constant.number in self._constants:
            return constant
        segment = self._take(view.nbytes, None)
        if segment is None:
            return None
        segment.mapping[: view.nbytes] = view
        self._lent[segment.number] = segment, whom
        return segment.place(view.nbytes)

    def lend(self, size: int, whom: Any) -> Place | None:
        """An empty segment for a result of so many bytes; None: there is none."""
        segment = self._take(size, whom)
        if segment is None:
            return None
        self._lent[segment.number] = segment, whom
        return segment.place(segment.capacity)

    def grants(self, whom: Any) -> list[Place]:
        """Free segments that results of this user came in: it may have more such results."""
        if not (self._back or self._free):
            return []
        self._collect()
        found = [segment for segment in self._free.values() if segment.hint == whom]
        del found[MAX_GRANTS:]
        for segment in found:
            del self._free[segment.number]
            self._lent[segment.number] = segment, whom
        return [segment.place(segment.capacity) for segment in found]

    def adopt(self, place: Place, whom: Any) -> memoryview:
        """A result of this user is in a segment that it was lent: the buffer.

        Raises:
            ValueError: It was not lent this segment.
        """
        segment, holder = self._lent.get(place.number, (None, None))
        if segment is None or holder != whom or not 0 < place.size <= segment.capacity:
            raise ValueError(f"segment {place.number} was not lent to this user")
        del self._lent[place.number]
        segment.hint = whom
        view, exporter = _buffer(segment.mapping, place.size)
        self._ours[place.number] = segment, _watch(exporter, place.number, self._back)
        return view

    def give_back(self, numbers: Iterable[int], whom: Any, *, spoilt: bool = False) -> None:
        """A user has no buffer on these segments any more; or has, but will not say when not."""
        for number in numbers:
            segment, holder = self._lent.get(number, (None, None))
            if segment is not None and holder == whom:
                del self._lent[number]
                self._put_away(segment, sound=not spoilt)

    def lost(self, whom: Any) -> None:
        """A user is gone. What it has left behind may still use its segments."""
        for number, (segment, holder) in list(self._lent.items()):
            if holder == whom:
                del self._lent[number]
                self._drop(segment, unused=False)

    def hold(self, size: int) -> memoryview | None:
        """An empty buffer for this process itself; None: there is none."""
        segment = self._take(size, None)
        if segment is None:
            return None
        view, exporter = _buffer(segment.mapping, size)
        self._ours[segment.number] = segment, _watch(exporter, segment.number, self._back)
        return view

    # ------------------------------------------------------------------ constants

    def keep(self, *data: Any) -> memoryview | None:
        """A copy of buffers that any number of users can read where it is; None: there is none.

        Several lie behind each other, as `spread` says. They are kept as long as what is returned.
        """
        views = [memoryview(each).cast("B") for each in data]
        starts, size = spread([view.nbytes for view in views])
        self._collect()
        segment = None
        if size >= LEAST and not self.closed:
            segment = self._make(rounded(size), CONSTANT)
        if segment is None:
            return None
        for start, view in zip(starts, views):
            segment.mapping[start : start + view.nbytes] = view
        self._constants[segment.number] = segment
        kept, exporter = _buffer(segment.mapping, size)
        exporter.sleighexec_place = segment.place(size)
        self._ours[segment.number] = segment, _watch(exporter, segment.number, self._back)
        return kept.toreadonly()

    def tidy(self) -> None:
        """Let go of constants that nobody keeps any more: now, and not when more is wanted."""
        self._collect()

    # ------------------------------------------------------------------ making and forgetting

    def _take(self, size: int, whom: Any) -> _Segment | None:
        """A segment for so many bytes: the smallest free one that fits, or a new one."""
        if self.closed:
            return None
        self._collect()
        fitting = [s for s in self._free.values() if size <= s.capacity <= _largest(size)]
        if fitting:
            best = max(fitting, key=lambda s: (s.hint == whom, -s.capacity))
            return self._free.pop(best.number)
        capacity = rounded(size)
        if capacity not in self._seen:
            while len(self._seen) >= SEEN_LIMIT:
                del self._seen[next(iter(self._seen))]
            self._seen[capacity] = None
            return None
        return self._make(capacity, EXCLUSIVE)

    def _make(self, capacity: int, kind: int) -> _Segment | None:
        while self._free and self._is_full(capacity):
            self._drop(self._free.pop(next(iter(self._free))), unused=True)
        if self._is_full(capacity):
            return None
        try:
            segment = _Segment(next(self._numbers), capacity, kind)
        except OSError:  # no memory, no descriptor: sockets need neither
            return None
        self._bytes += capacity
        return segment

    def _is_full(self, more: int) -> bool:
        count = len(self._free) + len(self._lent) + len(self._ours)
        return self._bytes + more > LIMIT or count >= MAX_SEGMENTS

    def _collect(self) -> None:
        """Take back what buffers of this process lay on that have died."""
        while self._back:
            number, sound = self._back.popleft()
            segment, _ = self._ours.pop(number)
            if self._constants.pop(number, None) is not None:
                self._drop(segment, unused=False)  # users may look at it as long as they like
            else:
                self._put_away(segment, sound=sound)

    def _put_away(self, segment: _Segment, *, sound: bool) -> None:
        if not sound or self.closed:
            self._drop(segment, unused=False)
            return
        self._free[segment.number] = segment
        while sum(each.capacity for each in self._free.values()) > FREE_LIMIT:
            self._drop(self._free.pop(next(iter(self._free))), unused=True)

    def _drop(self, segment: _Segment, *, unused: bool) -> None:
        self._bytes -= segment.capacity
        segment.close(unused=unused)

    def close(self) -> None:
        """Let go of all segments. Buffers that are still there keep their memory."""
        if self.closed:
            return
        self._collect()
        self.closed = True
        for segment in self._free.values():
            self._drop(segment, unused=True)
        for segment, _ in (*self._lent.values(), *self._ours.values()):
            self._drop(segment, unused=False)
        for kept in (self._free, self._lent, self._ours, self._constants):
            kept.clear()
        os.close(self._probe)

    def forget(self) -> None:
        """In a forked child: close its descriptors. What is in the segments is the parent's."""
        if self.closed:  # another has our descriptor's number
            return
        self.closed = True
        for segment in self._free.values():
            segment.close(unused=False)
        for segment, _ in (*self._lent.values(), *self._ours.values()):
            segment.close(unused=False)
        os.close(self._probe)


class Shelf:
    """The segments that a user has to do with: all of one owner."""

    def __init__(self, owner: int) -> None:
        self._owner = owner  # its process id
        self._mappings: dict[int, mmap.mmap] = {}  # by number
        self._out: dict[int, Any] = {}  # by number: a watch on the buffer that is there
        self._granted: list[Place] = []
        self.back: deque[tuple[int, bool]] = deque()  # those whose buffer has died

    def buffer(self, place: Place) -> memoryview:
        """The buffer at a place. The segment is given back when the last user of it has died.

        An empty one if it was a constant and the owner has dropped it: then nobody needs it.

        Raises:
            OSError: The owner is gone.
        """
        if place.kind == CONSTANT:
            try:
                return memoryview(self._open(place, writable=False))[: place.size]
            except FileNotFoundError:
                return memoryview(b"")
        view, exporter = _buffer(self._mapping(place), place.size)
        self._out[place.number] = _watch(exporter, place.number, self.back)
        return view

    def own(self, place: Place) -> memoryview:
        """A constant as if it were ours alone: what we write there nobody else sees.

        Raises:
            OSError: The owner has dropped it, or is gone.
        """
        return memoryview(self._open(place, writable=True, private=True))[: place.size]

    def grant(self, places: Iterable[Place]) -> None:
        """The owner lends these for results."""
        self._granted += places

    def find(self, size: int) -> Place | None:
        """One of the segments that were lent for results, if one fits: no longer granted then."""
        fitting = [p for p in self._granted if size <= p.capacity <= _largest(size)]
        if not fitting:
            return None
        best = min(fitting, key=lambda place: place.capacity)
        with contextlib.suppress(ValueError):  # another thread was quicker
            self._granted.remove(best)
            return best._replace(size=size)
        return None

    def put(self, view: memoryview, place: Place) -> None:
        """Copy a buffer to its place."""
        self._mapping(place)[: view.nbytes] = view

    def give_back(self) -> tuple[list[int], list[int]]:
        """The numbers of segments that the owner may have again, and of those that are spoilt."""
        sound: list[int] = []
        spoilt: list[int] = []
        while self.back:
            number, is_sound = self.back.popleft()
            (sound if is_sound else spoilt).append(number)
            del self._out[number]
        self._forget_old()
        return sound, spoilt

    def _mapping(self, place: Place) -> mmap.mmap:
        mapping = self._mappings.pop(place.number, None)
        if mapping is None:
            mapping = self._open(place, writable=True)
        self._mappings[place.number] = mapping  # the one that was used last is the last one
        return mapping

    def _open(self, place: Place, *, writable: bool, private: bool = False) -> mmap.mmap:
        flags = os.O_RDWR if writable and not private else os.O_RDONLY
        descriptor = os.open(f"/proc/{self._owner}/fd/{place.descriptor}", flags | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_ino != place.inode:
                raise FileNotFoundError(f"segment {place.number} is not there any more")
            return _mapped(descriptor, place.capacity, writable=writable, private=private)
        finally:
            os.close(descriptor)

    def _forget_old(self) -> None:
        """The owner drops segments without a word: do not keep more mappings than it may have."""
        for number in list(self._mappings):
            if len(self._mappings) <= MAX_SEGMENTS:
                return
            if number not in self._out:
                with contextlib.suppress(BufferError, KeyError):
                    self._mappings.pop(number).close()


def reachable(owner: int, descriptor: int, nonce: str) -> bool:
    """Whether this process can have segments of an owner; see `Pool.probe`."""
    try:
        opened = os.open(f"/proc/{owner}/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pread(opened, NONCE, 0).hex() == nonce
    except OSError:
        return False
    finally:
        os.close(opened)


def _buffer(mapping: mmap.mmap, size: int) -> tuple[memoryview, Any]:
    """A buffer at the beginning of a mapping, and the object that lives as long as it is used."""
    import ctypes  # most processes never need it

    exporter = (ctypes.c_char * size).from_buffer(mapping)
    return memoryview(exporter).cast("B"), exporter


def spread(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Where buffers of these sizes begin that lie behind each other, and where the last ends."""
    starts, end = [], 0
    for size in sizes:
        starts.append(-(-end // ALIGNED) * ALIGNED)
        end = starts[-1] + size
    return starts, end


def place_of(view: memoryview) -> Place | None:
    """Where a constant lies; None: it is none."""
    return getattr(_exporter(view), "sleighexec_place", None)


def _exporter(view: Any) -> Any:
    """What a memoryview, of a memoryview, shows in the end."""
    while type(view) is memoryview:
        view = view.obj
    return view


def _mapped(
    descriptor: int, size: int, *, writable: bool = True, private: bool = False
) -> mmap.mmap:
    flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    more: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    return mmap.mmap(descriptor, size, flags=flags, prot=protection, **more)


def rounded(size: int) -> int:
    """The capacity of a segment for so many bytes: at most an eighth more."""
    step = max(LEAST, 1 << max(size.bit_length() - 4, 0))
    return -(-size // step) * step


def _largest(size: int) -> int:
    """The largest capacity that is not a waste for so many bytes."""
    return 2 * size + LEAST


def _watch(exporter: Any, number: int, back: deque[tuple[int, bool]]) -> Any:
    """When it dies: its number is added to `back`, and whether there was no fork meanwhile."""
    forks = _forks
    return weakref.ref(exporter, lambda _: back.append((number, forks == _forks)))


_forks = 0  # of this process so far


def _before_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
