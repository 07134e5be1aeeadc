"""Messages as frames and back: whole, cut anywhere, large, wrong, and hostile."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import struct
import tracemalloc

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sleighexec import messages as m
from sleighexec import wire
from sleighexec.errors import ProtocolError
from sleighexec.messages import BYTES, PICKLE, REQUIRED, TEXT, Payload
from sleighexec.space import Space
from sleighexec.wire import HEADER, MAX_HEAD, SCRATCH, Decoder, encode

PROPERTY = settings(max_examples=150)

# ------------------------------------------------------------------ messages, any of them

TEXTS = st.text(max_size=20)
UNSIGNED = st.integers(0, 2**64 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from([PICKLE, TEXT, BYTES])
BYTES_OF_ONE = st.binary(max_size=200)
PAYLOADS = st.builds(Payload, BYTES_OF_ONE, st.lists(BYTES_OF_ONE, max_size=3), KINDS)
OF_ONE_KIND = KINDS.flatmap(
    lambda kind: st.lists(st.builds(Payload, BYTES_OF_ONE, st.just(()), st.just(kind)), max_size=6)
)
TIMEOUTS = st.none() | st.integers(0, 100) | st.floats(0, 1e9)
AFTER = st.none() | st.tuples(UNSIGNED, st.integers(-1, 2**40))
NAMES = st.lists(TEXTS, max_size=3).map(tuple)
FIELDS = {  # what a field of this name or this type may hold
    "values": st.lists(PAYLOADS, max_size=4) | OF_ONE_KIND,
    "variables": NAMES,
    "timeout": TIMEOUTS,
    "after": AFTER,
    "lost_to": st.none() | TEXTS,
    "place": st.lists(UNSIGNED, max_size=6).map(tuple),
    "sound": st.lists(UNSIGNED, max_size=3).map(tuple),
    "numbers": st.lists(UNSIGNED, max_size=3).map(tuple),
    "spoilt": st.lists(UNSIGNED, max_size=3).map(tuple),
    "keep": st.none() | st.integers(1, 2**40),
    "status": st.integers(-64, 255),
    "rows": st.lists(st.tuples(TEXTS, st.integers(), st.booleans(), NAMES), max_size=4),
    "int": UNSIGNED,
    "str": TEXTS,
    "bool": st.booleans(),
    "float": st.integers(0, 100) | st.floats(0, 1e9),
}


def messages_of(cls):
    kinds = {name: FIELDS.get(name, FIELDS.get(kind)) for name, (kind, _) in cls.fields().items()}
    return st.builds(cls, **kinds)


CLASSES = sorted(wire._FORMS, key=lambda cls: cls.__name__)
MESSAGES = st.one_of([messages_of(cls) for cls in CLASSES])
FRAMES = st.lists(st.tuples(UNSIGNED, MESSAGES), max_size=6)


def plain(thing):
    """A message as something that compares: payloads by their bytes, lists as tuples."""
    if isinstance(thing, Payload):
        return bytes(thing.head), tuple(map(bytes, thing.buffers)), thing.kind
    if isinstance(thing, (list, tuple)):
        return tuple(plain(part) for part in thing)
    if type(thing) in wire._FORMS:
        return type(thing).__name__, *(plain(getattr(thing, name)) for name in thing.fields())
    return thing


def frame(tag, message) -> bytes:
    return b"".join(encode(tag, message))


def decode(data, decoder=None):
    return (decoder or Decoder()).feed(data)


def by_buffer(data, decoder, chunk=10**9):
    """As a socket does it: into `buffer()`, then `received()`."""
    out, view = [], memoryview(data)
    while view:
        target = decoder.buffer()
        assert len(target), "there must always be room"
        count = min(len(target), len(view), chunk)
        target[:count] = view[:count]
        out += decoder.received(count)
        view = view[count:]
    return out


def header(code, *, flags=0, buffers=0, head=0, tag=1, x=0, y=0) -> bytes:
    return HEADER.pack(code, flags, buffers, head, tag, x, y)


def raw(cls, head=None, buffers=(), *, flags=0, x=0, y=0) -> bytes:
    """A frame made by hand: `head` is anything that JSON has, or bytes."""
    if head is None:
        head = b""
    elif not isinstance(head, bytes):
        head = json.dumps(head).encode()
    code = wire._FORMS[cls].code
    sizes = struct.pack(f"!{len(buffers)}Q", *map(len, buffers))
    start = header(code, flags=flags, buffers=len(buffers), head=len(head), x=x, y=y)
    return start + sizes + head + b"".join(buffers)


# ------------------------------------------------------------------ messages themselves


def test_a_field_has_its_annotation_and_its_usual_value():
    assert m.Find.fields() == {
        "workspace": ("int", REQUIRED),
        "variables": ("tuple[str, ...]", REQUIRED),
        "timeout": ("float | None", None),
        "after": ("tuple[int, int] | None", None),
    }


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_message_keeps_each_field_under_its_name(cls):
    given_ = {name: object() for name in cls.fields()}
    message = cls(**given_)
    assert {name: getattr(message, name) for name in given_} == given_


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_field_without_a_usual_value_is_required(cls):
    required = [name for name, (_, default) in cls.fields().items() if default is REQUIRED]
    message = cls(**dict.fromkeys(required, 1))
    for name, (_, default) in cls.fields().items():
        assert getattr(message, name) == (1 if default is REQUIRED else default)
    for name in required:
        with pytest.raises(TypeError):
            cls(**{other: 1 for other in required if other != name})


def test_messages_are_equal_if_all_their_fields_are():
    assert m.Settle(1, 2) == m.Settle(1, count=2)
    assert m.Settle(1, 2) != m.Settle(1, 3)
    assert m.Settle(1, 2) != m.GiveBack(1, 2)
    assert m.Done() == m.Done() != m.Nothing()
    assert repr(m.Settle(1, 2)) == "Settle(loan=1, count=2)"


# ------------------------------------------------------------------ there and back


def test_every_message_has_a_form():
    requests = set(m.Request.__args__) | set(m.Reply.__args__)
    others = {m.Join, m.Welcome, m.Ask, m.Calls, m.Results, m.Return, m.Revoked, m.Leave}
    others |= {m.SetupFailed, m.Need, m.Report}
    others |= {m.Lease, m.Leased, m.Release, m.Offer, m.Accept, m.Identify, m.Again}
    agents = {m.Start, m.Started, m.Signal, m.KillCall, m.Exited, m.StopAgent, m.Watch}
    agents |= {m.Recall, m.Halted, m.Moved, m.Leaving, m.Attach, m.Keep, m.Kept, m.Forget}
    assert set(CLASSES) == requests | others | agents


def test_no_two_messages_have_the_same_code():
    codes = [form.code for form in wire._FORMS.values()]
    assert len(codes) == len(set(codes)) == len(wire._BY_CODE)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_message_comes_back_as_it_was(cls):
    @settings(PROPERTY, max_examples=40)
    @given(UNSIGNED, messages_of(cls))
    def check(tag, message):
        [(its_tag, its)] = decode(frame(tag, message))
        assert its_tag == tag
        assert type(its) is cls
        assert plain(its) == plain(message)

    check()


@PROPERTY
@given(UNSIGNED, st.binary(max_size=200) | st.just(bytes(wire.JOIN)), UNSIGNED, UNSIGNED)
def test_a_frame_may_be_had_without_its_message(tag, data, x, y):
    message = m.Results((Payload(data),), x, y)
    assert wire.frame_of(m.Results, tag, data, x, y) == encode(tag, message)


def test_equal_fields_of_different_types_are_not_mistaken_for_each_other():
    """1 == 1.0: what a limit of one second is sent as is nothing for a field of whole numbers."""
    frame(1, m.Watch(12345.0))
    [(_, revoked)] = decode(frame(1, m.Revoked(1, 2, 12345)))
    assert type(revoked.halt) is int


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_message_of_usual_fields_comes_back_as_it_was(cls):
    usual = {"int": 1, "bool": True, "float": 0.5}
    required = {name: kind for name, (kind, default) in cls.fields().items() if default is REQUIRED}
    given_ = {name: usual.get(kind, "x") for name, kind in required.items()}
    rows = ("values", "variables", "rows", "place", "sound", "numbers")
    given_.update({name: () for name in rows if name in given_})
    message = cls(**given_)
    [(_, its)] = decode(frame(1, message))
    assert plain(its) == plain(message)


@PROPERTY
@given(FRAMES)
def test_messages_come_back_in_their_order(frames):
    data = b"".join(frame(tag, message) for tag, message in frames)
    assert plain(decode(data)) == plain(frames)


@PROPERTY
@given(FRAMES, st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_any_split_of_the_bytes_gives_the_same_messages(frames, sizes):
    data = b"".join(frame(tag, message) for tag, message in frames)
    decoder, out, turn = Decoder(), [], 0
    while data:
        size = sizes[turn % len(sizes)]
        out += decoder.feed(data[:size])
        data, turn = data[size:], turn + 1
    assert plain(out) == plain(frames)


def test_a_frame_that_comes_byte_by_byte_is_complete_with_its_last_one():
    data = frame(7, m.Store(1, "x", [Payload(b"head", [b"one", b""])]))
    decoder = Decoder()
    for byte in data[:-1]:
        assert decoder.feed(bytes([byte])) == []
    assert len(decoder.feed(data[-1:])) == 1


def test_the_straight_path_carries_no_json():
    for message in (m.Values((Payload(b"x"),), 3), m.Results((Payload(b"x"),)), m.Done()):
        *_, head_size, _, _, _ = HEADER.unpack_from(frame(1, message))
        assert head_size == 0


# ------------------------------------------------------------------ large frames

KIB, MIB = 1024, 1024 * 1024
EDGES = [0, 1, SCRATCH - 100, SCRATCH - 40, SCRATCH - 32, SCRATCH, SCRATCH + 1, 300 * KIB]
LARGE = [*EDGES, MIB - 1, MIB, MIB + 1, 3 * MIB + 7]
WAYS = {
    "feed": decode,
    "buffer": by_buffer,
    "pieces": lambda data, decoder: by_buffer(data, decoder, 50_000),
    "crumbs": lambda data, decoder: by_buffer(data, decoder, 4_099),
}


@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("way", WAYS)
def test_a_large_buffer_comes_back_as_it_was(way, size):
    data = random.Random(size).randbytes(size)
    before, after = m.Done(), m.Opened(3, "ws")
    message = m.Store(1, "x", [Payload(b"h", [data]), Payload(data[:5])])
    stream = frame(1, before) + frame(2, message) + frame(3, after)
    out = WAYS[way](stream, Decoder())
    assert plain(out) == plain([(1, before), (2, message), (3, after)])


@pytest.mark.parametrize("sizes", [[2 * MIB, 0, 3, MIB], [0, 70_000, 0], [40_000] * 20, [0] * 9000])
@pytest.mark.parametrize("way", WAYS)
def test_buffers_of_any_sizes_stand_beside_each_other(way, sizes):
    buffers = [random.Random(i).randbytes(size) for i, size in enumerate(sizes)]
    message = m.Values([Payload(b"head", buffers)], 5, "x", 7, 9)
    [(tag, its)] = WAYS[way](frame(11, message), Decoder())
    assert (tag, plain(its)) == (11, plain(message))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [PICKLE, TEXT, BYTES])
def test_many_values_of_one_kind_need_no_description(way, kind):
    choose = random.Random(kind)
    values = [Payload(choose.randbytes(choose.randrange(300)), (), kind) for _ in range(5000)]
    message = m.Values(values, 5, "x", 7, 9)
    stream = frame(11, message)
    *_, head_size, _, _, _ = HEADER.unpack_from(stream)
    assert head_size < 20
    [(tag, its)] = WAYS[way](stream, Decoder())
    assert (tag, plain(its)) == (11, plain(message))


@pytest.mark.parametrize("size", [SCRATCH, MIB, 2 * MIB])
def test_a_large_buffer_can_be_written_to(size):
    [(_, its)] = decode(frame(1, m.Values([Payload(b"head", [bytes(size)])])))
    view = memoryview(its.values[0].buffers[0])
    view[0] = 1
    assert not view.readonly


def test_a_head_may_be_as_large_as_its_limit_and_no_larger():
    name = "x" * (MAX_HEAD - len(json.dumps([""])))
    message = m.DeleteWorkspace(name)
    [(_, its)] = decode(frame(1, message))
    assert its == message
    with pytest.raises(ProtocolError):
        encode(1, m.DeleteWorkspace(name + "x"))


def test_a_big_buffer_is_not_copied_to_be_sent():
    data = bytearray(MIB)
    pieces = encode(1, m.Results([Payload(b"head", [data])]))
    assert any(memoryview(piece).obj is data for piece in pieces)


def test_a_small_frame_is_one_piece():
    assert len(encode(1, m.Results([Payload(b"head", [b"x"] * 5)]))) == 1


# ------------------------------------------------------------------ limits


def test_too_many_buffers_for_one_frame_are_refused_before_anything_is_sent():
    with pytest.raises(ProtocolError, match="in parts"):
        encode(1, m.Results([Payload(b"")] * 0x10000))


def test_a_message_beyond_the_limit_of_a_frame_is_refused(monkeypatch):
    monkeypatch.setattr(wire, "MAX_FRAME", 100_000)
    assert encode(1, m.Results([Payload(bytes(100_000))]))
    with pytest.raises(ProtocolError, match="too large"):
        encode(1, m.Results([Payload(bytes(100_001))]))


@pytest.mark.parametrize(
    "message",
    [m.Fetch(1, ("x",), -1), m.Settle(-1, 1), m.Abandon(2**64), m.Values((), 0, "x", 1, -2)],
    ids=repr,
)
def test_a_number_that_does_not_fit_is_refused(message):
    with pytest.raises(ProtocolError):
        encode(1, message)


def test_a_decoder_with_a_small_limit_takes_what_is_below_it():
    data = frame(1, m.Results([Payload(bytes(1000))]))
    assert len(decode(data, Decoder(max_frame=1000))) == 1
    with pytest.raises(ProtocolError, match="larger than 999"):
        decode(data, Decoder(max_frame=999))


@pytest.mark.parametrize("size", [wire.MAX_FRAME + 1, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("count", [1, 2, 5000, 0xFFFF])
def test_an_announced_length_beyond_the_limit_is_refused_and_costs_no_memory(size, count):
    sizes = struct.pack("!Q", size) * count
    data = header(2, buffers=count) + sizes
    decoder = Decoder()
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="larger than"):
            decoder.feed(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * len(data) + 256 * KIB


def test_lengths_that_are_fine_one_by_one_are_refused_together():
    data = header(2, buffers=3) + struct.pack("!3Q", *[wire.MAX_FRAME // 2] * 3)
    with pytest.raises(ProtocolError, match="larger than"):
        decode(data)


def resident() -> int:
    """Bytes of memory that this process really uses."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_memory_grows_with_what_came_not_with_what_was_announced():
    before, decoders = resident(), []
    for _ in range(20):
        decoder = Decoder()
        decoder.feed(header(2, buffers=1, head=5) + struct.pack("!Q", wire.MAX_FRAME) + b'["x"]')
        decoder.feed(bytes(100))
        decoders.append(decoder)
    assert resident() - before < 50 * MIB


@pytest.mark.parametrize("code", sorted(set(range(256)) - set(wire._BY_CODE)))
def test_an_unknown_kind_of_frame_is_refused_by_its_header(code):
    with pytest.raises(ProtocolError, match=f"unknown kind of frame: {code}"):
        decode(header(code))


@pytest.mark.parametrize("size", [MAX_HEAD + 1, 2**31, 2**32 - 1])
def test_a_head_beyond_its_limit_is_refused_by_its_header(size):
    with pytest.raises(ProtocolError, match="head"):
        decode(header(2, head=size))


# ------------------------------------------------------------------ wrong frames

BAD_HEADS = [
    b"{",
    b"[1,",
    b"nonsense",
    b"\xff\xfe\x00",
    b"\x00",
    b'"text"',
    b"{}",
    b"17",
    b"null",
    b'["\\ud8',
    b"[" + b"9" * 5000 + b"]",
    "[\u20ac".encode(),
]


@pytest.mark.parametrize("head", BAD_HEADS, ids=lambda head: repr(head[:12]))
@pytest.mark.parametrize("cls", [m.Open, m.Store, m.Nothing, m.Fetch])
def test_a_head_that_is_no_json_list_is_refused(cls, head):
    with pytest.raises(ProtocolError):
        decode(raw(cls, head))


def nested(opening, closing, depth):
    """A head as deep as asked, or as its limit allows."""
    depth = min(depth, (MAX_HEAD - 10) // len(opening + closing))
    return b"[" + opening * depth + b"1" + closing * depth + b"]"


def test_lists_of_any_depth_are_a_message_or_refused():
    for depth in (100, 300, 450, 600, 990, 2_000, 20_000):
        with contextlib.suppress(ProtocolError):
            [(_, message)] = decode(raw(m.Open, nested(b"[", b"]", depth)))
            assert type(message) is m.Open


def test_objects_of_any_depth_are_a_message_or_refused():
    for depth in (100, 300, 450, 600, 990, 2_000, 20_000):
        with contextlib.suppress(ProtocolError):
            [(_, message)] = decode(raw(m.Open, nested(b'{"":', b"}", depth)))
            assert type(message) is m.Open


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_message_without_its_fields_is_refused_unless_all_are_usual(cls):
    form = wire._FORMS[cls]
    for head in (None, []):
        try:
            [(_, message)] = decode(raw(cls, head))
        except ProtocolError:
            assert any(cls.fields()[name][1] is REQUIRED for name in form.rest)
        else:
            assert all(cls.fields()[name][1] is not REQUIRED for name in form.rest)
            assert type(message) is cls


def test_a_plain_value_needs_a_buffer():
    with pytest.raises(ProtocolError, match="without its value"):
        decode(raw(m.Results, flags=wire._PLAIN))


SHAPES = [
    1,
    "abc",
    {"a": 1},
    [1],
    [[1]],
    [[1, 0]],
    [[1, 0, "", 4]],
    [["1", 0, ""]],
    [[None, 0, ""]],
    [[1.5, 0, ""]],
    [[[1], 0, ""]],
    [[0, 0, ""]],
    [[-5, 0, ""]],
    [[1, 0, ""], [1, 0, ""], [1, 0, ""]],
]


@pytest.mark.parametrize("shapes", SHAPES, ids=repr)
def test_values_that_do_not_match_their_buffers_are_refused(shapes):
    with pytest.raises(ProtocolError):
        decode(raw(m.Results, [shapes], [b"a", b"b"]))


@pytest.mark.parametrize("shapes", [[[-1, 0, ""]], [[3, 0, ""]], [[1, 0, ""]], []], ids=repr)
def test_each_buffer_belongs_to_exactly_one_value(shapes):
    with pytest.raises(ProtocolError):
        decode(raw(m.Results, [shapes], [b"a", b"b"]))


WRONG = [
    (m.Open, [5]),
    (m.Open, [["x"]]),
    (m.Open, [{"x": 1}]),
    (m.Open, [None]),
    (m.Store, [["x"], []]),
    (m.Store, [{}, []]),
    (m.Store, ["x", "all", []]),
    (m.Fetch, ["x", None, False, None, None]),
    (m.Fetch, [[["x"]], None, False, None, None]),
    (m.Fetch, [[{}], None, False, None, None]),
    (m.Fetch, [5, None, False, None, None]),
    (m.Fetch, [["x"], "soon", False, None, None]),
    (m.Fetch, [["x"], [1], False, None, None]),
    (m.Fetch, [["x"], None, False, {}, None]),
    (m.Fetch, [["x"], 0, False, None, 7]),
    (m.Fetch, [["x"], 0, False, None, [1]]),
    (m.Fetch, [["x"], 0, False, None, ["a", "b"]]),
    (m.Find, [None, 0, None]),
    (m.Declare, [[], "fifo"]),
    (m.Declare, ["x", {}]),
    (m.DeleteVariable, [{}]),
    (m.DeleteWorkspace, [{}]),
    (m.MakeTemporary, [5, ""]),
    (m.MakeTemporary, [["%d"], ""]),
]


@pytest.mark.parametrize(("cls", "head"), WRONG, ids=lambda part: getattr(part, "__name__", None))
def test_fields_of_a_wrong_type_are_refused(cls, head):
    with pytest.raises(ProtocolError):
        decode(raw(cls, head))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_timeout_is_a_finite_number(number):
    with pytest.raises(ProtocolError):
        decode(raw(m.Fetch, f'[["x"],{number},false,null,null]'.encode()))


@PROPERTY
@given(st.sampled_from(CLASSES), JSON | st.lists(JSON, max_size=7), st.lists(st.binary(max_size=9)))
def test_whatever_the_fields_are_only_a_protocol_error_is_raised(cls, head, buffers):
    try:
        [(_, message)] = decode(raw(cls, head, buffers))
    except ProtocolError:
        return
    assert type(message) is cls


@settings(PROPERTY, phases=[Phase.generate], derandomize=True, database=None)
@given(st.sampled_from(m.Request.__args__), st.lists(JSON, max_size=7), st.integers(0, 3))
def test_the_space_survives_whatever_the_decoder_lets_through(cls, head, x):
    try:
        [(tag, request)] = decode(raw(cls, head, x=x, y=1))
    except ProtocolError:
        return
    space = Space()
    space.apply("a", 0, m.Open("ws", own=False), 0.0)
    for client in "abc":
        for _, _, reply in space.apply(client, tag, request, 0.0):
            encode(1, reply)
    space.tick(1.0)
    space.disconnect("a")


@PROPERTY
@given(st.binary(max_size=300))
def test_garbage_is_refused_or_waits_for_more(garbage):
    try:
        decode(garbage)
    except ProtocolError:
        return


@PROPERTY
@given(
    st.sampled_from(sorted(wire._BY_CODE)),
    st.integers(0, 255),
    st.integers(0, 5) | st.integers(0, 0xFFFF),
    st.integers(0, 40) | st.integers(0, 2**32 - 1),
    st.binary(max_size=400),
)
def test_garbage_behind_a_good_header_is_refused_or_waits(code, flags, buffers, head, garbage):
    try:
        decode(header(code, flags=flags, buffers=buffers, head=head) + garbage)
    except ProtocolError:
        return


@PROPERTY
@given(st.tuples(UNSIGNED, MESSAGES), st.data())
def test_a_frame_with_one_wrong_byte_is_a_frame_or_refused_or_waits(one, data):
    whole = bytearray(frame(*one))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] = data.draw(st.integers(0, 255))
    try:
        decode(whole)
    except ProtocolError:
        return


@pytest.mark.parametrize("seed", range(20))
def test_much_garbage_is_refused_soon(seed):
    source = random.Random(seed)
    decoder = Decoder()
    chunks = (source.randbytes(1000) for _ in range(2000))
    with pytest.raises(ProtocolError):
        list(map(decoder.feed, chunks))


def test_other_languages_are_refused_at_once():
    for text in (
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
        b"\x80\x05\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix" + bytes(60),
        b"SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13.5\r\n",
    ):
        with pytest.raises(ProtocolError):
            decode(text)


# ------------------------------------------------------------------ buffers that lie elsewhere


class Elsewhere:
    """Keeps big buffers; they are found again by their number."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def put(self, view: memoryview) -> bytes | None:
        if bytes(view[:1]) == b"-":  # this one is not wanted
            return None
        self.kept.append(bytes(view))
        return b"%d" % (len(self.kept) - 1)

    def locate(self, place: object) -> bytes:
        return self.kept[int(bytes(place))]  # type: ignore[call-overload]


BIG = [b"a" * wire.SHARED, b"-" * wire.SHARED, b"small", b"c" * (wire.SHARED + 1)]


@pytest.mark.parametrize("sizes", [[10**9], [1], [7, 64]], ids=str)
@pytest.mark.parametrize("buffers", [BIG[:1], BIG[2:], BIG, BIG[::-1]])
def test_big_buffers_may_lie_elsewhere(buffers, sizes):
    elsewhere, decoder = Elsewhere(), Decoder()
    decoder.locate = elsewhere.locate
    message = m.Values((Payload(buffers[0], buffers[1:]),), 7)
    data = b"".join(encode(3, message, elsewhere.put)) + frame(4, m.Done())
    assert elsewhere.kept == [b for b in buffers if len(b) >= wire.SHARED and b[:1] != b"-"]
    out, view = [], memoryview(data)
    for size in itertools.cycle(sizes):
        out += decoder.feed(view[:size])
        view = view[size:]
        if not view:
            break
    assert plain(out) == plain([(3, message), (4, m.Done())])


def test_who_has_agreed_on_no_place_takes_no_buffer_from_there():
    data = b"".join(encode(1, m.Results((Payload(BIG[0]),)), Elsewhere().put))
    with pytest.raises(ProtocolError, match="larger than"):
        decode(data)


@pytest.mark.parametrize("error", [ValueError("no"), OSError("gone")])
def test_a_buffer_that_is_not_where_it_should_be_ends_the_connection(error):
    def locate(place: object) -> object:
        raise error

    decoder = Decoder()
    decoder.locate = locate
    data = b"".join(encode(1, m.Results((Payload(BIG[0]),)), Elsewhere().put))
    with pytest.raises(ProtocolError, match="not where it should be"):
        decode(data, decoder)
