"""Objects as bytes and back: values, outcome records."""

from __future__ import annotations

import marshal
import pickle
import sys
import threading
import types
import weakref
from fractions import Fraction

import cloudpickle
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleighexec import payload as pickling
from sleighexec import runs, wire
from sleighexec.messages import BYTES, PICKLE, TEXT, Payload, Results
from sleighexec.payload import OUT_OF_BAND, dumps, loads


def repr_short(value):
    return repr(value)[:9]


def sent(payload):
    """A payload as it arrives at the other end of a socket."""
    data = b"".join(wire.encode(1, Results([payload])))
    [(_, message)] = wire.Decoder().feed(data)
    return message.values[0]


# ------------------------------------------------------------------ values

OBJECTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(OBJECTS)
def test_an_object_comes_back_as_it_was(value):
    its = loads(sent(dumps(value)))
    assert its == value
    assert type(its) is type(value)


@pytest.mark.parametrize("value", [{1, 2}, Fraction(1, 3), 3 + 4j, range(5), OSError, print, sys])
def test_other_objects_come_back_equal(value):
    assert loads(dumps(value)) == value


class Point:
    """One whose class can be imported."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is type(self) and other.x == self.x


class Failing:
    def __reduce__(self):
        raise OSError("not this one")


NAMED = [
    [Point(number) for number in range(3)],
    {"of": Fraction(1, 3), "type": Point},
    (sent, len, OSError),
    numpy.arange(5),
]


@pytest.mark.parametrize("value", NAMED, ids=lambda value: type(value).__name__)
def test_what_has_a_name_everywhere_is_pickled_plainly(value):
    payload = pickling.dumps_named(value)
    assert payload.head == pickle.dumps(value, pickling.PROTOCOL)
    assert pickling.names_something(payload.head)
    assert numpy.array_equal(loads(payload), value) or loads(payload) == value


@pytest.mark.parametrize("value", [[1, "a", {"b": (2.5, None)}], b"x", True])
def test_builtin_values_name_nothing(value):
    assert not pickling.names_something(pickling.dumps_named(value).head)


def test_while_another_thread_imports_cloudpickle_the_plain_pickle_goes_on(monkeypatch):
    begun = types.ModuleType("cloudpickle.cloudpickle")  # there is nothing in it yet
    monkeypatch.setitem(sys.modules, "cloudpickle.cloudpickle", begun)
    assert loads(pickling.dumps_named([1, 2])) == [1, 2]


def test_what_has_no_name_elsewhere_is_left_to_cloudpickle(monkeypatch):
    mine = type("Mine", (Point,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Mine", mine, raising=False)
    pickle.dumps(mine(1))  # plain pickle would send a name that only this process knows
    for value in (mine, mine(1), [Point(1), mine(2)], lambda: 1, [lambda: 1], "__main__"):
        assert pickling.dumps_named(value) is None
    assert b"Mine" in dumps(mine(1)).head
    monkeypatch.delattr(sys.modules["__main__"], "Mine")
    assert loads(dumps([mine(2)]))[0].x == 2
    assert loads(dumps("__main__ is only a text")) == "__main__ is only a text"


def test_a_module_that_is_to_travel_by_value_is_left_to_cloudpickle():
    here = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(here)
    try:
        assert pickling.dumps_named(Point(1)) is None
        assert not pickling.travels_by_name(Point)
        assert b"_make_skeleton_class" in dumps(Point(1)).head
    finally:
        cloudpickle.unregister_pickle_by_value(here)
    assert pickling.dumps_named(Point(1)) is not None


@pytest.mark.parametrize(
    "value",
    ["\u00e4\ud800" * OUT_OF_BAND, b"\0\xff" * OUT_OF_BAND, "short", b"", 5, None],
    ids=repr_short,
)
def test_the_content_of_a_long_text_stays_outside(value):
    dumper = pickling.Dumper()
    dumper.dump([bytes(2 * OUT_OF_BAND), pickle.PickleBuffer(bytes(2 * OUT_OF_BAND))])
    data = dumper.dump(value)
    payload = sent(data if isinstance(data, Payload) else Payload(data))
    its = loads(payload)
    assert its == value
    assert type(its) is type(value)
    is_long = isinstance(value, (str, bytes)) and len(value) > OUT_OF_BAND
    assert bool(payload.buffers) == is_long
    assert len(payload.head) < 200


def test_nothing_of_what_was_pickled_is_kept():
    dumper = pickling.Dumper()
    for failing in (False, True):
        array = numpy.zeros(OUT_OF_BAND)
        gone = weakref.ref(array)
        try:
            payload = dumper.dump([array, Failing()] if failing else array)
            assert payload.buffers
            payload = None
        except OSError:
            assert failing
        array = None
        assert gone() is None


def test_what_cannot_be_pickled_says_so_itself():
    with pytest.raises(OSError, match="not this one"):
        dumps([Point(1), Failing()])


def a_function_that_is_replaced():
    pass


def test_a_function_that_its_module_knows_no_more_has_no_name(monkeypatch):
    assert pickling.travels_by_name(a_function_that_is_replaced)
    before = a_function_that_is_replaced
    monkeypatch.setattr(sys.modules[__name__], "a_function_that_is_replaced", len)
    assert not pickling.travels_by_name(before)
    assert pickling.dumps_named(before) is None


def test_what_plain_pickle_cannot_do_comes_back():
    bound = 3
    twice = loads(dumps(lambda x: x * 2 + bound))
    assert twice(4) == 11


def test_an_object_that_cannot_be_pickled_raises():
    with pytest.raises(TypeError):
        dumps(threading.Lock())


def test_a_shared_object_stays_shared():
    part = [1]
    first, second = loads(dumps((part, part)))
    assert first is second


@pytest.mark.parametrize("dtype", ["u1", "f8", "c16", "i2", "?"])
@pytest.mark.parametrize("shape", [(OUT_OF_BAND,), (300, 400), (3, 0), (2, 3, 5), ()])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back_equal_and_writable(dtype, shape, order):
    array = numpy.asarray(numpy.arange(numpy.prod(shape)).reshape(shape), dtype, order=order)
    its = loads(sent(dumps(array)))
    numpy.testing.assert_array_equal(its, array)
    assert (its.dtype, its.shape) == (array.dtype, array.shape)
    assert its.flags.writeable
    its[...] = 1


def test_an_array_with_holes_comes_back_equal():
    array = numpy.arange(400_000).reshape(400, 1000)[::2, ::3]
    its = loads(sent(dumps(array)))
    numpy.testing.assert_array_equal(its, array)
    assert its.flags.writeable


def test_an_array_that_nobody_may_write_to_comes_back_equal():
    array = numpy.arange(100_000)
    array.flags.writeable = False
    numpy.testing.assert_array_equal(loads(sent(dumps(array))), array)


@pytest.mark.parametrize(
    ("size", "outside"), [(OUT_OF_BAND - 1, 0), (OUT_OF_BAND, 1), (OUT_OF_BAND + 1, 1)]
)
def test_big_buffers_stay_outside_and_small_ones_do_not(size, outside):
    payload = dumps(numpy.zeros(size, "u1"))
    assert len(payload.buffers) == outside
    assert (len(payload.head) > size) == (not outside)


def test_a_big_buffer_is_not_copied():
    array = numpy.zeros(OUT_OF_BAND, "u1")
    [buffer] = dumps(array).buffers
    array[0] = 9
    assert memoryview(buffer)[0] == 9


def test_several_arrays_keep_their_order():
    arrays = [numpy.full(OUT_OF_BAND + n, n, "u1") for n in range(5)]
    payload = dumps({"arrays": arrays, "small": numpy.arange(3)})
    assert len(payload.buffers) == 5
    its = loads(sent(payload))
    for array, other in zip(arrays, its["arrays"], strict=True):
        numpy.testing.assert_array_equal(array, other)


def test_the_size_of_a_payload_counts_its_buffers():
    payload = dumps(numpy.zeros(OUT_OF_BAND, "u1"))
    assert payload.size_bytes == len(payload.head) + OUT_OF_BAND


def test_a_packed_list_carries_big_bytes_by_reference():
    big, small = bytearray(OUT_OF_BAND), b"small"
    payload = pickling.pack([1, (pickling.carried(big), pickling.carried(small))])
    assert len(payload.buffers) == 1
    assert memoryview(payload.buffers[0]).obj is big
    number, (first, second) = loads(sent(payload))
    assert (number, bytes(first), second) == (1, bytes(big), b"small")


# ------------------------------------------------------------------ values of a workspace


@given(st.text())
def test_a_text_is_stored_as_text(text):
    payload = pickling.value_payload(text)
    assert payload.kind == TEXT
    assert bytes(payload.head) == text.encode()
    assert loads(sent(payload)) == text


def test_a_text_with_lone_surrogates_comes_back():
    text = "file\udcff"  # what os.fsdecode makes of a name that is no UTF-8
    assert loads(pickling.value_payload(text)) == text


@given(st.binary())
def test_bytes_are_stored_as_bytes(data):
    payload = pickling.value_payload(data)
    assert (payload.kind, payload.head) == (BYTES, data)
    assert loads(sent(payload)) == data


@pytest.mark.parametrize("value", [type("Text", (str,), {})("x"), bytearray(b"x"), 5, None, ["x"]])
def test_anything_else_is_stored_pickled(value):
    payload = pickling.value_payload(value)
    assert payload.kind == PICKLE
    its = loads(payload)
    assert its == value
    assert type(its).__name__ == type(value).__name__


# ------------------------------------------------------------------ simple values

LONG = pickling.SHORT * "x"
VALUES = st.recursive(
    st.sampled_from([1, 1.5, True, None, 2j, "a", b"a", LONG, LONG.encode(), [], {}, OSError]),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=6,
)


@given(VALUES | st.just((1,) * pickling.SHORT))
def test_one_value_is_simple_as_all_of_one_are(value):
    assert pickling.is_simple(value) is pickling.all_simple((value,))


def test_what_is_simple():
    assert pickling.all_simple([1, (2, "a", None), ()])
    assert not pickling.all_simple([1, [2]])
    assert not pickling.all_simple([((1,),)])
    assert not pickling.all_simple([LONG])
    assert not pickling.all_simple([(1, LONG)])
    assert not pickling.all_simple([(1,)], tuples=False)


# ------------------------------------------------------------------ shallow dicts and lists

KEYS = st.sampled_from([1, "a", "b", None, 2.5, b"c", (1,), LONG])
SHALLOW = VALUES | st.dictionaries(KEYS, VALUES, max_size=4) | st.lists(VALUES, max_size=4)


def is_shallow(value):
    if type(value) is dict:
        value = [*value, *value.values()]
    if type(value) is list:
        return all(type(each) in pickling.SIMPLE for each in value)
    return pickling.is_simple(value)


@given(st.lists(SHALLOW, max_size=5))
def test_copies_of_shallow_values_are_equal_and_share_nothing(values):
    copies = pickling.copies_of_shallow(values)
    assert (copies is not None) is all(map(is_shallow, values))
    if copies is not None:
        assert all(map(is_shallow, values))
        assert repr(copies) == repr(values)
        for copy, value in zip(copies, values):
            assert copy is not value or type(value) not in (dict, list)


@given(SHALLOW)
def test_the_copy_of_one_shallow_value_is_like_it(value):
    copy = pickling.copy_of_shallow((value,))
    if LONG not in repr(value):
        assert (copy is not None) is (type(value) in (dict, list) and is_shallow(value))
    if copy is not None:
        assert copy is not value
        assert repr(copy) == repr(value)


def test_no_copies_are_made_of_what_is_big_or_of_another_kind():
    class Own(dict):
        pass

    wide = dict.fromkeys(range(pickling.WIDE))
    for value in (wide, [*wide], {1: LONG * 20}, {LONG * 20: 1}, Own(), {1}, {1: Own()}, [OSError]):
        assert pickling.copies_of_shallow([value]) is None, value
        assert pickling.copy_of_shallow((value,)) is None, value
    assert pickling.copies_of_shallow([{"a": LONG[1:]}, [LONG[1:]], LONG[1:], (), 5]) is not None
    assert pickling.copies_of_shallow([{"a": 1}, LONG]) is None
    many = [{"number": number} for number in range(2 * pickling.AT_ONCE + 5)]
    assert pickling.copies_of_shallow(many) == many
    assert pickling.copies_of_shallow([*many, [many]]) is None


@given(SHALLOW)
def test_a_shallow_dict_or_list_stands_in_a_mixed_run(value):
    data = runs.dump_shallow(value)
    assert (data is not None) is (type(value) in (dict, list) and is_shallow(value))
    if data is not None:
        stands = marshal.loads(data)
        its = runs.load_mixed(stands) if type(stands) is list else stands
        assert repr(its) == repr(value)
        assert type(its) is type(value)


# ------------------------------------------------------------------ records


def record(number, flag, data):
    return runs.RECORD.pack(len(data), flag, number) + data


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1),
        st.sampled_from([runs.GOOD, runs.BAD]),
        st.binary(max_size=50),
    )
)


@given(RECORDS)
def test_records_come_back_in_their_order(records):
    payload = sent(Payload(b"".join(record(*each) for each in records)))
    its = [(n, flag, bytes(data)) for n, flag, data, buffers in runs.outcomes(payload)]
    assert its == records


def test_a_large_record_has_its_buffers():
    array = numpy.arange(OUT_OF_BAND)
    inner = dumps(array)
    entry = record(1, runs.GOOD, b"small") + record(2, runs.LARGE, inner.head)
    small, large = runs.outcomes(sent(Payload(entry, inner.buffers)))
    assert not small[3]
    number, flag, data, buffers = large
    assert (number, flag) == (2, runs.LARGE)
    numpy.testing.assert_array_equal(pickle.loads(data, buffers=buffers), array)


def test_no_records_are_none():
    assert list(runs.outcomes(Payload(b""))) == []


SIMPLE_VALUES = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.none(), st.booleans(),
    st.complex_numbers(allow_nan=False),
)  # fmt: skip


@given(st.lists(SIMPLE_VALUES), st.lists(SIMPLE_VALUES), st.booleans())
def test_a_run_of_simple_results_is_read_at_once(first, second, still_open):
    """Each was written on its own; together they are the inside of a list."""

    def run(number, values, is_open=False):
        entry = bytearray(b"before" + runs.run_head(number))
        entry += b"".join(map(runs.dump_simple, values))
        if not is_open:
            runs.close_run(entry, len(b"before"), len(entry), len(values))
        return entry[len(b"before") :]

    number = 1 + len(first)
    entry = run(1, first) + record(number, runs.BAD, b"bad")
    entry += run(number + 1, second, still_open)
    its = list(runs.outcomes(Payload(entry)))
    assert [(n, flag) for n, flag, *_ in its] == [
        (1, runs.RUN),
        (number, runs.BAD),
        (number + 1, runs.RUN),
    ]
    assert (its[0][2], its[2][2]) == (first, second)
    assert [type(value) for value in its[0][2]] == [type(value) for value in first]
    assert runs.last_answered(Payload(entry)) == number + len(second)
    assert runs.last_answered(Payload(b"")) == 0
