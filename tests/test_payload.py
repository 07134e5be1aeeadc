"""Objects as bytes and back: values, exceptions with all that belongs to them, outcome records."""

from __future__ import annotations

import dataclasses
import pickle
import sys
import threading
import traceback
import types
from fractions import Fraction

import cloudpickle
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleighexec import payload as pickling
from sleighexec import wire
from sleighexec.errors import RemoteError, SerializationError, WorkerLost
from sleighexec.messages import BYTES, PICKLE, TEXT, Payload, Results
from sleighexec.payload import MAX_FRAMES, OUT_OF_BAND, dumps, dumps_error, loads, loads_error


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


@settings(deadline=None)
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
    payload = sent(pickling.dumps_outside(value))
    its = loads(payload)
    assert its == value
    assert type(its) is type(value)
    is_long = isinstance(value, (str, bytes)) and len(value) > OUT_OF_BAND
    assert bool(payload.buffers) == is_long
    assert len(payload.head) < 200


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


@settings(deadline=None)
@given(st.text())
def test_a_text_is_stored_as_text(text):
    payload = pickling.value_payload(text)
    assert payload.kind == TEXT
    assert bytes(payload.head) == text.encode()
    assert loads(sent(payload)) == text


def test_a_text_with_lone_surrogates_comes_back():
    text = "file\udcff"  # what os.fsdecode makes of a name that is no UTF-8
    assert loads(pickling.value_payload(text)) == text


@settings(deadline=None)
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


# ------------------------------------------------------------------ exceptions


def travelled(error):
    """An exception as its caller gets it."""
    return loads_error(sent(dumps_error(error)).head)[0]


def raised(error):
    """The same exception with a traceback."""
    try:
        raise error
    except BaseException as same:
        return same


class TwoArguments(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class KeywordsOnly(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int
    text: str


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class KeywordsOfTheSystem(OSError):
    def __init__(self, *, code):
        super().__init__(code, "my text", "my file")


class Locked(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def _fail():
    raise ValueError("cannot be rebuilt")


class Rebuilt:
    """Something that does this when it is unpickled."""

    def __init__(self, does, *args):
        self.how = does, args

    def __reduce__(self):
        return self.how


class Holding(Exception):
    def __init__(self, text, thing):
        super().__init__(text)
        self.thing = thing


class ReducedBadly(Exception):
    """Its own way to be pickled does not work, but its parts are fine."""

    def __init__(self, text, how):
        super().__init__(text)
        self.how = how

    def __reduce__(self):
        if self.how == "interrupt":
            raise KeyboardInterrupt
        return {"fail": (_fail, ()), "exit": (sys.exit, (3,)), "other": (dict, ())}[self.how]


class NoText(Holding):
    def __str__(self):
        raise SystemExit("no text")


ERRORS = [
    ValueError("text"),
    ValueError(),
    KeyError("key"),
    ZeroDivisionError("division by zero"),
    OSError(2, "No such file", "name"),
    FileNotFoundError(2, "No such file", "name"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    StopIteration(5),
    SystemExit(3),
    KeyboardInterrupt(),
    ImportError("no", name="module", path="path"),
    SyntaxError("bad", ("file", 3, 4, "text")),
    RemoteError("a.B", "message", "traceback"),
    WorkerLost("f(1)", 3, 4711, "host", -9, "last words", 2),
    SerializationError("text"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_exception_comes_back_with_its_type_its_arguments_and_its_text(error):
    its = travelled(raised(error))
    assert type(its) is type(error)
    assert its.args == error.args
    assert str(its) == str(error)


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (OSError(2, "No", "name"), ["errno", "strerror", "filename"]),
        (ImportError("no", name="n", path="p"), ["name", "path", "msg"]),
        (StopIteration(5), ["value"]),
        (SystemExit(3), ["code"]),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ["object", "reason", "end"]),
        (TwoArguments(3, "x"), ["code", "text"]),
        (KeywordsOnly(code=3), ["code"]),
        (WorkerLost("f", 1, 2, "h", 3), ["task", "rank", "pid", "host", "exitcode", "signal"]),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, BaseException) else "",
)
def test_an_exception_keeps_its_attributes(error, names):
    its = travelled(raised(error))
    assert type(its) is type(error)
    assert [getattr(its, name) for name in names] == [getattr(error, name) for name in names]


def test_attributes_that_somebody_added_come_along():
    error = ValueError("text")
    error.hint = {"try": [1, 2]}
    assert travelled(error).hint == {"try": [1, 2]}


def test_a_frozen_exception_comes_back():
    its = travelled(raised(Frozen(3, "x")))
    assert type(its) is Frozen
    assert (its.code, its.text, its.args) == (3, "x", (3, "x"))
    assert traceback.extract_tb(its.__traceback__)[-1].name == "raised"


def test_an_exception_with_slots_comes_back():
    its = travelled(raised(Slotted(7)))
    assert (type(its), its.args, its.code) == (Slotted, (7,), 7)


def test_an_error_of_the_system_keeps_its_number_whatever_its_init_wants():
    its = travelled(raised(KeywordsOfTheSystem(code=2)))
    assert type(its) is KeywordsOfTheSystem
    assert (its.errno, its.strerror, its.filename) == (2, "my text", "my file")


def test_an_exception_class_of_a_script_comes_back():
    module = types.ModuleType("not_importable")
    exec("class Own(Exception):\n    def __init__(self, a, b): self.a, self.b = a, b", vars(module))
    its = travelled(raised(module.Own(1, 2)))
    assert (type(its).__name__, its.a, its.b) == ("Own", 1, 2)


CANNOT_BE_REBUILT = [
    Locked("text"),
    Holding("text", Rebuilt(_fail)),
    Holding("text", Rebuilt(sys.exit, 3)),
    Holding("text", threading.current_thread()),
    Holding("text", (n for n in "generator")),
]


@pytest.mark.parametrize("error", CANNOT_BE_REBUILT, ids=lambda error: type(error).__name__)
def test_an_exception_that_cannot_be_rebuilt_becomes_a_remote_error(error):
    its = travelled(raised(error))
    assert type(its) is RemoteError
    assert its.type_name == f"{__name__}.{type(error).__name__}"
    assert its.message == "text"
    assert str(its) == f"{its.type_name}: text"
    assert "in raised" in its.traceback_text


@pytest.mark.parametrize("how", ["fail", "exit", "other", "interrupt"])
def test_an_exception_that_is_reduced_badly_is_rebuilt_from_its_parts(how):
    its = travelled(raised(ReducedBadly("text", how)))
    assert (type(its), its.args, its.how) == (ReducedBadly, ("text",), how)


def test_a_remote_error_names_builtins_without_their_module():
    error = ValueError("text")
    error.lock = threading.Lock()
    assert travelled(error).type_name == "ValueError"


def test_an_exception_without_a_text_becomes_a_remote_error():
    its = travelled(raised(NoText("x", threading.Lock())))
    assert type(its) is RemoteError
    assert "SystemExit" in its.message


def test_the_text_of_the_traceback_is_what_the_worker_would_have_printed():
    error = raised(ValueError("text"))
    _, text = loads_error(dumps_error(error).head)
    assert text == "".join(traceback.format_exception(type(error), error, error.__traceback__))


def test_a_failing_bystander_does_not_spoil_the_error():
    error = ValueError("good")
    error.__cause__ = Locked("bad")
    its = travelled(error)
    assert (type(its), type(its.__cause__)) == (ValueError, RemoteError)


# ------------------------------------------------------------------ cause, context, notes


def chained():
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise TypeError("second") from first
    except TypeError:
        try:
            raise ValueError("third")
        except ValueError as third:
            return third


def test_cause_and_context_come_along():
    its = travelled(chained())
    assert (type(its), its.args, its.__cause__) == (ValueError, ("third",), None)
    second = its.__context__
    assert (type(second), second.args) == (TypeError, ("second",))
    assert second.__suppress_context__
    assert not its.__suppress_context__
    assert second.__cause__ is second.__context__
    assert (type(second.__cause__), second.__cause__.args) == (KeyError, ("first",))


def test_a_suppressed_context_is_suppressed():
    try:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("shown") from None
    except ValueError as error:
        its = travelled(error)
    assert its.__suppress_context__
    assert (its.__cause__, type(its.__context__)) == (None, KeyError)


def test_every_error_of_a_chain_keeps_its_traceback():
    its = travelled(chained())
    assert [traceback.extract_tb(e.__traceback__)[-1].name for e in (its, its.__context__)] == [
        "chained",
        "chained",
    ]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_cycle_of_causes_comes_back_as_a_cycle(length):
    errors = [ValueError(n) for n in range(length)]
    for n, error in enumerate(errors):
        error.__cause__ = errors[(n + 1) % length]
    its = travelled(errors[0])
    around = its
    for n in range(length):
        assert around.args == (n,)
        around = around.__cause__
    assert around is its


def test_a_cause_that_two_errors_share_is_shared():
    shared, error = KeyError("shared"), ValueError("x")
    error.__cause__, error.__context__ = shared, TypeError("between")
    error.__context__.__cause__ = shared
    its = travelled(error)
    assert its.__cause__ is its.__context__.__cause__


def test_a_long_chain_comes_back():
    error = first = ValueError(0)
    for n in range(1, 3000):
        error.__context__ = ValueError(n)
        error = error.__context__
    its, length = travelled(first), 0
    while its is not None:
        assert its.args == (length,)
        its, length = its.__context__, length + 1
    assert length == 3000


def test_notes_come_along():
    error = raised(ValueError("text"))
    pickling.add_note(error, "one")
    pickling.add_note(error, "two\nlines")
    assert travelled(error).__notes__ == ["one", "two\nlines"]


def test_notes_of_causes_and_of_the_inflexible_come_along():
    error = Frozen(1, "x")
    error.__dict__["__notes__"] = ["of the frozen"]
    outer = TwoArguments(1, "x")
    pickling.add_note(outer, "of two arguments")
    outer.__cause__ = error
    its = travelled(outer)
    assert its.__notes__ == ["of two arguments"]
    assert its.__cause__.__notes__ == ["of the frozen"]


def test_a_remote_error_keeps_the_notes():
    error = Locked("x")
    pickling.add_note(error, "note")
    assert travelled(error).__notes__ == ["note"]


def test_an_exception_without_notes_gets_none():
    assert not hasattr(travelled(ValueError()), "__notes__")


class BadNote:
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize("notes", [5, [BadNote()]])
def test_notes_of_any_kind_do_not_spoil_the_error(notes):
    error = ValueError("text")
    error.__notes__ = notes
    assert travelled(error).args == ("text",)


# ------------------------------------------------------------------ tracebacks


def deep():
    return 1 / 0  # the line that fails


def shallow():
    deep()


def test_the_frames_of_the_traceback_are_real():
    try:
        shallow()
    except ZeroDivisionError as error:
        before = traceback.extract_tb(error.__traceback__)
        its = travelled(error)
    after = traceback.extract_tb(its.__traceback__)
    assert [(f.filename, f.lineno, f.name) for f in after] == [
        (f.filename, f.lineno, f.name) for f in before
    ]
    assert after[-1].name == "deep"
    assert after[-1].line == "return 1 / 0  # the line that fails"
    assert its.__traceback__.tb_frame.f_globals["__name__"] == __name__


def test_an_exception_that_was_never_raised_has_no_traceback():
    assert travelled(ValueError()).__traceback__ is None


def test_the_outer_frames_of_a_file_can_be_left_out():
    module = types.ModuleType("user")
    code = compile("def call(f):\n    f()", "/user/code.py", "exec")
    exec(code, vars(module))
    try:
        module.call(deep)
    except ZeroDivisionError as error:
        payload = dumps_error(error, skip=__file__)
    frames = traceback.extract_tb(loads_error(payload.head)[0].__traceback__)
    assert [frame.name for frame in frames] == ["call", "deep"]


def endless(n):
    return endless(n + 1)


def test_a_recursion_error_is_cut_to_a_few_frames():
    try:
        endless(0)
    except RecursionError as error:
        its = travelled(error)
    assert type(its) is RecursionError
    frames = traceback.extract_tb(its.__traceback__)
    assert 2 <= len(frames) <= MAX_FRAMES
    assert frames[-1].name == "endless"
    assert frames[0].name == "test_a_recursion_error_is_cut_to_a_few_frames"


def test_an_exception_can_travel_twice():
    """A task that itself waits for a task: the error passes two workers."""
    its = travelled(raised(travelled(chained())))
    assert type(its.__context__.__cause__) is KeyError
    names = [frame.name for frame in traceback.extract_tb(its.__traceback__)]
    assert names == ["raised", "chained"]


# ------------------------------------------------------------------ groups


if sys.version_info >= (3, 11):  # there are no groups before

    def test_a_group_comes_back_with_its_members():
        group = ExceptionGroup(  # noqa: F821
            "several", [raised(ValueError(1)), Locked("lock"), TwoArguments(3, "x")]
        )
        its = travelled(raised(group))
        assert (type(its).__name__, its.message) == ("ExceptionGroup", "several")
        assert [type(e) for e in its.exceptions] == [ValueError, RemoteError, TwoArguments]
        assert traceback.extract_tb(its.exceptions[0].__traceback__)[-1].name == "raised"

    def test_groups_in_groups_come_back_with_causes_and_notes():
        inner = ExceptionGroup("inner", [KeyError("k"), OSError(2, "no")])  # noqa: F821
        inner.__cause__ = TypeError("why")
        inner.exceptions[0].__cause__ = ExceptionGroup("of a member", [ValueError(5)])  # noqa: F821
        inner.add_note("a note")
        outer = ExceptionGroup("outer", [inner, ValueError(1)])  # noqa: F821
        outer.hint = "added"
        its = travelled(outer)
        assert its.hint == "added"
        again = its.exceptions[0]
        assert (again.message, again.__notes__) == ("inner", ["a note"])
        assert again.__cause__.args == ("why",)
        assert again.exceptions[1].errno == 2
        assert again.exceptions[0].__cause__.exceptions[0].args == (5,)

    def test_a_group_of_what_is_no_exception_comes_back():
        group = BaseExceptionGroup("stop", [KeyboardInterrupt(), SystemExit(2)])  # noqa: F821
        its = travelled(group)
        assert type(its) is type(group)
        assert [type(e) for e in its.exceptions] == [KeyboardInterrupt, SystemExit]

    def test_a_member_may_name_its_group_as_its_cause():
        group = ExceptionGroup("outer", [ValueError("member")])  # noqa: F821
        member = group.exceptions[0]
        member.__cause__ = group
        its = travelled(member)
        assert its.args == ("member",)
        assert its.__cause__.exceptions == (its,)

    def unwrapped():
        """What people do with a group that has one member: raise that instead."""
        try:
            inner = ExceptionGroup("inner", [ValueError(1)])  # noqa: F821
            raise ExceptionGroup("outer", [inner])  # noqa: F821
        except ExceptionGroup as outer:  # noqa: F821
            raise outer.exceptions[0] from None

    def test_a_group_raised_out_of_its_group_comes_back():
        try:
            unwrapped()
        except ExceptionGroup as inner:  # noqa: F821
            its = travelled(inner)
        assert its.message == "inner"
        assert its.exceptions[0].args == (1,)
        assert its.__context__.message == "outer"
        assert its.__context__.exceptions == (its,)

    class Coded(ExceptionGroup):  # noqa: F821
        """As in the documentation of Python: a group with an argument of its own."""

        def __new__(cls, errors, code):
            self = super().__new__(cls, f"code {code}", errors)
            self.code = code
            return self

        def derive(self, errors):
            return Coded(errors, self.code)

    def test_a_group_with_arguments_of_its_own_comes_back():
        its = travelled(raised(Coded([ValueError(1)], 5)))
        assert type(its) is Coded
        assert (its.code, its.message, its.exceptions[0].args) == (5, "code 5", (1,))


# ------------------------------------------------------------------ records


def record(number, flag, data):
    return pickling.RECORD.pack(len(data), flag, number) + data


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1),
        st.sampled_from([pickling.GOOD, pickling.BAD]),
        st.binary(max_size=50),
    )
)


@settings(deadline=None)
@given(RECORDS)
def test_records_come_back_in_their_order(records):
    payload = sent(Payload(b"".join(record(*each) for each in records)))
    its = [(n, flag, bytes(data)) for n, flag, data, buffers in pickling.outcomes(payload)]
    assert its == records


def test_a_large_record_has_its_buffers():
    array = numpy.arange(OUT_OF_BAND)
    inner = dumps(array)
    entry = record(1, pickling.GOOD, b"small") + record(2, pickling.LARGE, inner.head)
    small, large = pickling.outcomes(sent(Payload(entry, inner.buffers)))
    assert not small[3]
    number, flag, data, buffers = large
    assert (number, flag) == (2, pickling.LARGE)
    numpy.testing.assert_array_equal(pickle.loads(data, buffers=buffers), array)


def test_no_records_are_none():
    assert list(pickling.outcomes(Payload(b""))) == []


SIMPLE_VALUES = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.none(), st.booleans(),
    st.complex_numbers(allow_nan=False),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(SIMPLE_VALUES), st.lists(SIMPLE_VALUES), st.booleans())
def test_a_run_of_simple_results_is_read_at_once(first, second, still_open):
    """Each was written on its own; together they are the inside of a list."""

    def run(number, values, is_open=False):
        entry = bytearray(b"before" + pickling.run_head(number))
        entry += b"".join(map(pickling.dump_simple, values))
        if not is_open:
            pickling.close_run(entry, len(b"before"), len(entry), len(values))
        return entry[len(b"before") :]

    number = 1 + len(first)
    entry = run(1, first) + record(number, pickling.BAD, b"bad")
    entry += run(number + 1, second, still_open)
    its = list(pickling.outcomes(Payload(entry)))
    assert [(n, flag) for n, flag, *_ in its] == [
        (1, pickling.RUN),
        (number, pickling.BAD),
        (number + 1, pickling.RUN),
    ]
    assert (its[0][2], its[2][2]) == (first, second)
    assert [type(value) for value in its[0][2]] == [type(value) for value in first]
    assert pickling.last_answered(Payload(entry)) == number + len(second)
    assert pickling.last_answered(Payload(b"")) == 0
