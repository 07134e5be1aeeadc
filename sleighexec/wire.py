"""Messages as frames, and frames as messages. No sockets here: bytes in, messages out.

A frame is

    header   32 bytes: kind u8, flags u8, buffers u16, head u32, tag u64, x u64, y u64 (big-endian)
    sizes    8 bytes for each buffer
    head     JSON, at most 64 KiB; absent when every field has its usual value
    buffers  the bytes of payloads, never looked at

A buffer whose size has the highest bit set is not the payload's itself: it says where that lies,
in memory that both sides share (segments.py). Only those who have agreed on it take such frames.

A message's one or two busiest numbers travel as `x` and `y`, its payloads as buffers and the rest
as a JSON list, so that the frames of the straight path carry no JSON that changes, and nothing
that is read here can run code. Every length is checked against a limit, and memory grows with the
bytes received, not with those announced.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter, itemgetter

from sleighexec import messages as m
from sleighexec.errors import ProtocolError
from sleighexec.hints import Any
from sleighexec.messages import PICKLE, Payload

HEADER = struct.Struct("!BBHIQQQ")
SIZE = struct.Struct("!Q")
_SMALL = struct.Struct(HEADER.format + "Q")  # what is before the only buffer and its head
SMALL = _SMALL.size
_START = struct.Struct("!BBHI")  # the first eight bytes of a header…
_AS_WORDS = struct.Struct("!5Q")  # …and a header, with one size, read with these as one number
MAX_HEAD = 64 * 1024  # bytes of JSON
SHORT_HEAD = 256  # bytes: such ones are remembered with what they mean
MAX_DEPTH = 8  # lists in lists of a head; we need four
MAX_FRAME = 2 * 1024**3  # bytes of all buffers of a frame
SCRATCH = 64 * 1024  # bytes read at a time: a bigger bytes object is an mmap and a munmap each time
JOIN = 16 * 1024  # bytes up to which a frame is copied together: cheaper than a scattered send
MAX_ROW = 1000  # small buffers that are received together
SHORT = 1024  # bytes: so are buffers that are no longer than this on the average
SHARED = 64 * 1024  # bytes from which a buffer may lie in shared memory
ELSEWHERE = 1 << 63  # in the size of one that does
MAPPED = 2 * 1024 * 1024  # bytes from which a buffer is received into pages of its own

Buffer = bytes | bytearray | memoryview
Message = Any


class _Form:
    """How a class of messages is laid out in a frame.

    Attributes:
        code: Its kind in the header.
        x, y: The fields that travel in the header.
        values: Whether it has payloads.
        rest: The other fields.
        defaults: What these are where a head does not say it.
        usual: The values of these for which the head is absent, None if there are none.
        small: Whether its frame may be but header, size and buffer.
        bare: Whether there is nothing else that it could have.
        direct: Whether its fields are the values, x and y, in this order.
        checks: Whether a value may stand in one of these fields.
        rest_of: The values of these in a message, as a tuple.
        numbers_of: What travels as x and y.
        arrange: All fields in their order, out of (x, y, values, *rest).
    """

    def __init__(self, code: int, cls: type[m.Message], x: str | None, y: str | None) -> None:
        self.code, self.cls, self.x, self.y = code, cls, x, y
        fields = cls.fields()
        self.values = "values" in fields
        self.rest = tuple(name for name in fields if name not in (x, y, "values"))
        self.defaults = tuple(fields[name][1] for name in self.rest)
        self.usual = None if m.REQUIRED in self.defaults else self.defaults
        self.small = self.values and self.usual is not None
        self.bare = self.values and not self.rest
        self.direct = tuple(fields) == ("values", x, y)
        self.checks = tuple(_CHECKS[fields[name][0]] for name in self.rest)
        self.rest_of = _getter(attrgetter, self.rest)
        self.numbers_of = attrgetter(x or "NO_NUMBER", y or "NO_NUMBER")
        sources = (x, y, "values", *self.rest)
        self.arrange = _getter(itemgetter, tuple(sources.index(name) for name in fields))

    def maker(self, rest: tuple[Any, ...]) -> Callable[[Any, int, int], Message]:
        """What makes a message out of values, x and y; `rest` may have more behind its own."""
        cls, arrange = self.cls, self.arrange
        if self.direct:
            return cls
        return lambda values, x, y: cls(*arrange((x, y, values, *rest)))


def _getter(kind: Any, keys: tuple[Any, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """An attrgetter or itemgetter that gives a tuple, however many keys there are."""
    if not keys:
        return lambda thing: ()
    if len(keys) == 1:
        get = kind(keys[0])
        return lambda thing: (get(thing),)
    return kind(*keys)  # type: ignore[no-any-return]


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


# What the annotations of messages demand of what comes over a wire.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: type(value) is str,
    "int": lambda value: type(value) is int,
    "bool": lambda value: type(value) is bool,
    "int | None": lambda value: value is None or type(value) is int,
    "str | None": lambda value: value is None or type(value) is str,
    "float": _number,
    "float | None": lambda value: value is None or _number(value),
    "tuple[str, ...]": lambda value: (
        type(value) is tuple and all(type(part) is str for part in value)
    ),
    "tuple[int, ...]": lambda value: (
        type(value) is tuple and all(type(part) is int for part in value)
    ),
    "tuple[int, int] | None": lambda value: (
        value is None or (type(value) is tuple and [type(part) for part in value] == [int, int])
    ),
}

_PLAIN = 1  # flag: all buffers belong to one pickled value
_EACH = 2  # flag: each buffer is a value, all of the kind in the upper four bits
_FLAGS = {PICKLE: _PLAIN, m.TEXT: _EACH | m.TEXT << 4, m.BYTES: _EACH | m.BYTES << 4}

_FORMS: dict[type, _Form] = {}
_BY_CODE: dict[int, _Form] = {}
# By the first eight bytes of a frame of one buffer and no head: what makes its message.
_MAKE: dict[int, Callable[[Any, int, int], Message]] = {}
# By the first four bytes of a frame of one buffer or none: how the buffer is to be read.
_KIND_OF: dict[int, int | None] = {}


def _form(code: int, cls: type[m.Message], x: str | None = None, y: str | None = None) -> None:
    form = _FORMS[cls] = _BY_CODE[code] = _Form(code, cls, x, y)
    if form.small:
        _MAKE[int.from_bytes(_START.pack(code, _PLAIN, 1, 0), "big")] = form.maker(form.defaults)
    if form.values:
        _KIND_OF.update({code << 24 | flags << 16 | 1: kind for kind, flags in _FLAGS.items()})
    else:
        _KIND_OF[code << 24] = None


_form(1, m.Open)
_form(2, m.Store, "workspace")
_form(3, m.Fetch, "workspace", "count")
_form(4, m.Find, "workspace")
_form(5, m.Settle, "loan", "count")
_form(6, m.GiveBack, "loan", "count")
_form(7, m.Abandon, "waiting")
_form(8, m.Declare, "workspace")
_form(9, m.DeleteVariable, "workspace")
_form(10, m.DeleteWorkspace)
_form(11, m.ListVariables, "workspace")
_form(12, m.ListWorkspaces)
_form(13, m.MakeTemporary)
_form(14, m.Status)
_form(15, m.Identify)
_form(22, m.Again, "tag", "store")
_form(16, m.Join, "pid")
_form(17, m.Results, "ask", "count")
_form(18, m.SetupFailed)
_form(19, m.Report)
_form(25, m.Ask, "count", "ahead")
_form(26, m.Return, "loan", "count")
_form(20, m.Lease, "size")
_form(21, m.Release)
_form(23, m.Accept)
_form(24, m.Need)
_form(32, m.Done)
_form(33, m.Opened, "workspace")
_form(34, m.Values, "loan", "index")
_form(35, m.Nothing)
_form(36, m.Failed)
_form(37, m.Listing)
_form(38, m.Welcome, "rank", "count")
_form(39, m.Leave)
_form(40, m.Leased)
_form(42, m.Offer, "owner", "descriptor")
_form(41, m.Revoked, "loan", "begun")
_form(43, m.Calls, "loan", "more")
_form(64, m.Start, "worker")
_form(65, m.Started, "worker", "pid")
_form(66, m.Signal, "worker", "signal")
_form(67, m.Exited, "worker")
_form(68, m.StopAgent)
_form(69, m.KillCall, "worker", "call")
_form(70, m.Watch)
_form(71, m.Halted, "worker", "begun")
_form(72, m.Moved, "worker")
_form(73, m.Leaving)
_form(74, m.Attach)
_form(75, m.Keep, "number")
_form(76, m.Kept, "number")
_form(77, m.Forget)
_form(78, m.Recall, "worker")


@lru_cache(maxsize=1024)
def _head(code: int, rest: tuple[Any, ...]) -> bytes:
    """`code`: 1, 1.0 and True are equal, but only one of them may stand in a field."""
    if rest == _BY_CODE[code].usual:
        return b""
    import json  # no frame of the straight path needs it

    return json.dumps(rest, separators=(",", ":")).encode()


@lru_cache(maxsize=4096)
def _shape(word: int) -> tuple[int, int, int | None] | None:
    """How a small frame lies that begins with these eight bytes; None: it need not be small.

    Where its head begins, and its only buffer, and how that is to be read; None: it has none.
    """
    first, length = divmod(word, 1 << 32)
    if first not in _KIND_OF or length > SHORT_HEAD:
        return None
    kind = _KIND_OF[first]
    head = HEADER.size if kind is None else SMALL
    return head, head + length, kind


@lru_cache(maxsize=1024)
def _short_head(code: int, head: bytes) -> tuple[Any, ...]:
    return _parsed(code, head)


@lru_cache(maxsize=1024)
def _maker(code: int, head: bytes) -> Callable[[Any, int, int], Message]:
    """What makes the messages of this kind with this short head."""
    return _BY_CODE[code].maker(_short_head(code, head))


def _parsed(code: int, head: bytes) -> tuple[Any, ...]:
    """The fields in a head, each of the type that it must have, and the others by default."""
    import json

    try:
        rest = _tuples(json.loads(head)) if head else ()
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"head of a frame is not JSON: {error}") from None
    if not isinstance(rest, tuple):
        raise ProtocolError("head of a frame is not a list")
    form = _BY_CODE[code]
    for name, check, value in zip(form.rest, form.checks, rest):
        if not check(value):
            raise ProtocolError(f"{form.cls.__name__}.{name} cannot be {value!r:.100}")
    rest += form.defaults[len(rest) :]
    if m.REQUIRED in rest:
        raise ProtocolError(f"a {form.cls.__name__} came without its fields")
    return rest


def _tuples(item: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"lists nested deeper than {MAX_DEPTH}")
    return tuple(_tuples(part, depth + 1) for part in item) if isinstance(item, list) else item


# Where a buffer has been put in shared memory, in the form that a `Locate` reads; or None.
Put = Callable[[memoryview], bytes | None]
# The buffer that lies there. Raises ValueError or OSError if none does.
Locate = Callable[[Any], Any]


def encode(tag: int, message: Message, put: Put | None = None) -> list[Buffer]:
    """The frame of a message, in pieces for one scattered send.

    `put` may take big buffers, if the peer finds them again.

    Raises:
        ProtocolError: The message does not fit into a frame; nothing of it may be sent.
    """
    form = _FORMS[type(message)]
    x, y = form.numbers_of(message)
    try:
        if not form.values:
            head = _head_of(form, form.rest_of(message)) if form.rest else b""
            if (length := len(head)) <= MAX_HEAD:
                return [HEADER.pack(form.code, 0, 0, length, tag, x, y) + head]
            return _encode_any(form, tag, x, y, head, 0, [], put)
        values = message.values
        if len(values) == 1 and not (value := values[0]).buffers:
            data = value.head
            if (size := len(data)) < JOIN and (flags := _FLAGS.get(value.kind)):
                if form.bare:  # the straight path
                    return [_SMALL.pack(form.code, flags, 1, 0, tag, x, y, size) + data]
                head = _head_of(form, form.rest_of(message))
                if (length := len(head)) <= MAX_HEAD:
                    start = _SMALL.pack(form.code, flags, 1, length, tag, x, y, size)
                    return [start + head + data]
        rest = form.rest_of(message)
        flags, buffers, shapes = _row_of(values)
        head = _head_of(form, rest if shapes is None else (*rest, shapes))
        return _encode_any(form, tag, x, y, head, flags, buffers, put)
    except struct.error as error:
        text = f"a number of a {form.cls.__name__} does not fit: {error}"
        raise ProtocolError(text) from None


def _encode_any(
    form: _Form,
    tag: int,
    x: int,
    y: int,
    head: bytes,
    flags: int,
    buffers: list[Any],
    put: Put | None,
) -> list[Buffer]:
    """A frame with any number of buffers, of any size."""
    sizes = [len(b) if type(b) is bytes else memoryview(b).nbytes for b in buffers]
    total = sum(sizes)
    if len(head) > MAX_HEAD or total > MAX_FRAME or len(buffers) > 0xFFFF:
        raise ProtocolError(
            f"a {form.cls.__name__} of {total} bytes in {len(buffers)} buffers is too large "
            f"for one frame (at most {MAX_FRAME} bytes, {0xFFFF} buffers): store it in parts"
        )
    header = HEADER.pack(form.code, flags, len(buffers), len(head), tag, x, y)
    if put is not None and total >= SHARED:
        _put_elsewhere(buffers, sizes, put)
        total = sum(map(len, buffers))
    start = b"".join((header, struct.pack(f"!{len(sizes)}Q", *sizes), head))
    if total <= max(JOIN, SHORT * len(buffers)):
        return [b"".join((start, *buffers))]
    return [start, *(memoryview(buffer).cast("B") for buffer in buffers if len(buffer))]


def frame_of(cls: type[m.Message], tag: int, data: bytes, x: int, y: int) -> list[Buffer]:
    """As `encode`, of a message that has two numbers and bytes: it need not be made for that."""
    form = _FORMS[cls]
    if len(data) >= JOIN:
        return encode(tag, form.maker(form.defaults)((Payload(data),), x, y))
    return [_SMALL.pack(form.code, _PLAIN, 1, 0, tag, x, y, len(data)) + data]


def _row_of(values: Any) -> tuple[int, list[Any], tuple[tuple[int, int], ...] | None]:
    """Flags, the buffers of the values, and how these belong together if it must be said."""
    kind = values[0].kind if values else None
    if kind == PICKLE and len(values) == 1:
        return _PLAIN, [values[0].head, *values[0].buffers], None
    buffers: list[Any] = [v.head for v in values if v.kind == kind and not v.buffers]
    if kind in _FLAGS and len(buffers) == len(values):
        return _EACH | kind << 4, buffers, None
    buffers = []
    for value in values:
        buffers += value.head, *value.buffers
    return 0, buffers, tuple((1 + len(v.buffers), v.kind) for v in values)


def _head_of(form: _Form, rest: tuple[Any, ...]) -> bytes:
    try:
        return _head(form.code, rest)
    except TypeError:  # a list in it: not worth remembering
        return _head.__wrapped__(form.code, rest)


def _put_elsewhere(buffers: list[Any], sizes: list[int], put: Put) -> None:
    """Let `put` take what it wants of the big ones."""
    for number, size in enumerate(sizes):
        if size >= SHARED:
            place = put(memoryview(buffers[number]).cast("B"))
            if place is not None:
                buffers[number], sizes[number] = place, ELSEWHERE | len(place)


def _message(form: _Form, flags: int, x: int, y: int, head: bytes, buffers: list[Any]) -> Message:
    rest = (_short_head if len(head) <= SHORT_HEAD else _parsed)(form.code, head)
    count = len(form.rest)
    values: Any = None
    if form.values:
        if flags & _EACH:
            kind = flags >> 4
            values = [Payload(buffer, (), kind) for buffer in buffers]
        elif not flags & _PLAIN:
            values = _payloads(rest[count] if len(rest) > count else (), buffers)
        elif buffers:
            values = (Payload(buffers[0], buffers[1:]),)
        else:
            raise ProtocolError(f"a {form.cls.__name__} came without its value")
    return form.maker(rest)(values, x, y)


def _payloads(shapes: Any, buffers: list[Any]) -> list[Payload]:
    values, position = [], 0
    try:
        for count, kind in shapes:
            own = buffers[position : position + count]
            if count < 1 or len(own) != count or type(kind) is not int:
                raise ValueError(f"{count} buffers of kind {kind!r}")
            values.append(Payload(own[0], own[1:], kind))
            position += count
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"values do not match their buffers: {error}") from None
    if position != len(buffers):
        raise ProtocolError("there are more buffers than values need")
    return values


class Decoder:
    """Turns received bytes into messages, however they were cut.

    Read into `buffer()` and say with `received(n)` how much came; or just `feed(data)`.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self.locate: Locate | None = None  # for buffers in shared memory; None: there are none
        self._scratch = memoryview(bytearray(SCRATCH + SIZE.size))  # what is read as one more size
        self._filled = 0
        self._large: _LargeFrame | None = None

    def buffer(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self._large is not None:
            return self._large.target
        return self._scratch[self._filled : SCRATCH]

    def received(self, count: int) -> list[tuple[int, Message]]:
        """`count` more bytes stand in `buffer()`: the messages that are complete now.

        Raises:
            ProtocolError: These bytes are no frame; the connection cannot be used any more.
        """
        if self._large is not None:
            if not self._large.received(count):
                return []
            message = self._large.message()
            self._large = None
            return [message]
        filled = self._filled = self._filled + count
        out: list[tuple[int, Message]] = []
        start, scratch = 0, self._scratch
        while filled - start >= HEADER.size:
            word, tag, x, y, size = _AS_WORDS.unpack_from(scratch, start)
            if (make := _MAKE.get(word)) is not None:  # the straight path: one buffer and no head
                position = start + SMALL
                end = position + size
                if end <= filled and size <= self._max_frame:
                    values = (Payload(scratch[position:end].tobytes()),)
                    out.append((tag, make(values, x, y)))
                    start = end
                    if start == filled:  # nearly always
                        self._filled = 0
                        return out
                    continue
            elif (shape := _shape(word)) is not None:
                to_head, to_data, kind = shape
                head_at, position = start + to_head, start + to_data
                end = position if kind is None else position + size
                if end <= filled and end - position <= self._max_frame:
                    make = _maker(word >> 56, scratch[head_at:position].tobytes())
                    if kind is None:
                        out.append((tag, make(None, x, y)))
                    else:
                        values = (Payload(scratch[position:end].tobytes(), (), kind),)
                        out.append((tag, make(values, x, y)))
                    start = end
                    if start == filled:
                        self._filled = 0
                        return out
                    continue
            if (end := self._decode(start, out)) == start:
                break
            start = end
        left = self._filled - start
        if start and left:
            scratch[:left] = scratch[start : start + left].tobytes()
        self._filled = left
        return out

    def _decode(self, start: int, out: list[tuple[int, Message]]) -> int:
        """Add the message that begins there, of any form, if it is whole; where it ends."""
        scratch = self._scratch
        code, flags, n_buffers, head_size, tag, x, y = HEADER.unpack_from(scratch, start)
        form = _BY_CODE.get(code)
        if form is None:
            raise ProtocolError(f"unknown kind of frame: {code}")
        if head_size > MAX_HEAD:
            raise ProtocolError(f"head of {head_size} bytes is larger than {MAX_HEAD}")
        position = start + HEADER.size
        need = 8 * n_buffers + head_size
        lengths, elsewhere = list[int](), list[int]()
        if n_buffers and need <= self._filled - position:
            sizes = struct.unpack_from(f"!{n_buffers}Q", scratch, position)
            lengths, elsewhere = self._lengths(sizes)
            need += sum(lengths)
        if need > SCRATCH - HEADER.size:
            self._large = _LargeFrame(form, flags, n_buffers, head_size, tag, x, y, self)
            self._large.take(scratch[position : self._filled])
            if self._large.complete:  # cannot be: it does not fit into the scratch buffer
                raise ProtocolError("a large frame ended early")
            return self._filled
        if need > self._filled - position:
            return start
        position += 8 * n_buffers
        head = scratch[position : position + head_size].tobytes()
        position += head_size
        end: int = position + sum(lengths)
        buffers = _cut(scratch[position:end].tobytes(), lengths)
        for number in elsewhere:
            buffers[number] = self._located(buffers[number])
        out.append((tag, _message(form, flags, x, y, head, buffers)))
        return end

    def feed(self, data: Buffer) -> list[tuple[int, Message]]:
        """The messages that are complete after these bytes."""
        out, view = [], memoryview(data)
        while view:
            target = self.buffer()
            count = min(len(target), len(view))
            target[:count] = view[:count]
            out += self.received(count)
            view = view[count:]
        return out

    def _located(self, place: Any) -> Any:
        locate = self.locate
        if locate is None:  # closed by another thread
            raise ProtocolError("no memory is shared any more")
        try:
            return locate(place)
        except (OSError, ValueError, struct.error) as error:
            raise ProtocolError(f"a buffer is not where it should be: {error}") from error

    def _lengths(self, sizes: Sequence[int]) -> tuple[list[int], list[int]]:
        """The lengths of buffers, and the positions of those that only say where they are."""
        lengths, elsewhere = [*sizes], list[int]()
        if self.locate is not None and max(sizes, default=0) >= ELSEWHERE:
            elsewhere = [number for number, size in enumerate(sizes) if size >= ELSEWHERE]
            lengths = [size & ~ELSEWHERE for size in sizes]
        if (total := sum(lengths)) > self._max_frame:
            raise ProtocolError(f"frame of {total} bytes is larger than {self._max_frame}")
        return lengths, elsewhere


class _LargeFrame:
    """A frame that does not fit into the scratch buffer: sizes and head, then buffer by buffer."""

    def __init__(
        self,
        form: _Form,
        flags: int,
        n_buffers: int,
        head_size: int,
        tag: int,
        x: int,
        y: int,
        decoder: Decoder,
    ) -> None:
        self._fields = (form, flags, tag, x, y)
        self._decoder = decoder
        self._n_buffers = n_buffers
        self._start: bytearray | None = bytearray(8 * n_buffers + head_size)
        self._head = b""
        self._sizes: list[int] = []
        self._elsewhere: list[int] = []  # positions of buffers that only say where they are
        self._buffers: list[Any] = []
        self._current: Any = self._start
        self._row = 1  # buffers that are received into it
        self.target = memoryview(self._start)
        self.complete = False

    def take(self, data: memoryview) -> None:
        while data and not self.complete:
            count = min(len(self.target), len(data))
            self.target[:count] = data[:count]
            self.received(count)
            data = data[count:]

    def received(self, count: int) -> bool:
        self.target = self.target[count:]
        while not self.target and not self.complete:
            self._next()
        return self.complete

    def _next(self) -> None:
        """The target is full: make the next one."""
        if self._start is not None:
            split = 8 * self._n_buffers
            sizes = struct.unpack_from(f"!{self._n_buffers}Q", self._start)
            self._sizes, self._elsewhere = self._decoder._lengths(sizes)
            self._head = bytes(self._start[split:])
            self._start = None
        else:
            self._keep()
        if len(self._buffers) == self._n_buffers:
            self.complete = True
            return
        first, self._row = len(self._buffers), 1
        size = self._sizes[first]
        for more in self._sizes[first + 1 : first + MAX_ROW]:
            if size + more > SCRATCH:
                break
            size += more
            self._row += 1
        # Pages of an anonymous mapping cost nothing until bytes arrive in them.
        self._current = _mapped(size) if size >= MAPPED else bytearray(size)
        self.target = memoryview(self._current)

    def _keep(self) -> None:
        """The target is full, of one buffer or of a row of small ones, which are cut apart."""
        if self._row == 1:
            self._buffers.append(self._current)
            return
        first = len(self._buffers)
        self._buffers += _cut(bytes(self._current), self._sizes[first : first + self._row])

    def message(self) -> tuple[int, Message]:
        form, flags, tag, x, y = self._fields
        buffers = [memoryview(b) if isinstance(b, mmap.mmap) else b for b in self._buffers]
        for number in self._elsewhere:
            buffers[number] = self._decoder._located(buffers[number])
        return tag, _message(form, flags, x, y, self._head, buffers)


def _cut(data: bytes, sizes: Sequence[int]) -> list[Any]:
    """Cut bytes apart, into parts of these sizes."""
    end = 0
    return [data[end : (end := end + size)] for size in sizes]


def _mapped(size: int) -> mmap.mmap:
    """Pages that cost nothing until bytes arrive in them, and few faults then."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    # Private: shared pages, mmap's default, are never huge.
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # not every system has huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages
