"""Exceptions as bytes and back, with all that belongs to them."""

from __future__ import annotations

import dataclasses
import sys
import threading
import traceback
import types

import pytest

from sleighexec import SleighExecutor
from sleighexec.errors import RemoteError, SerializationError, WorkerLost
from sleighexec.raised import MAX_FRAMES, add_note, dumps_error, loads_error
from tests.test_payload import sent

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


@pytest.mark.once
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
    add_note(error, "one")
    add_note(error, "two\nlines")
    assert travelled(error).__notes__ == ["one", "two\nlines"]


def test_notes_of_causes_and_of_the_inflexible_come_along():
    error = Frozen(1, "x")
    error.__dict__["__notes__"] = ["of the frozen"]
    outer = TwoArguments(1, "x")
    add_note(outer, "of two arguments")
    outer.__cause__ = error
    its = travelled(outer)
    assert its.__notes__ == ["of two arguments"]
    assert its.__cause__.__notes__ == ["of the frozen"]


def test_a_remote_error_keeps_the_notes():
    error = Locked("x")
    add_note(error, "note")
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


# ---------------------------------------------------------------------- what never ends


class Ring(Exception):
    """Says of itself that it is its cause."""

    __cause__ = property(lambda self: self)  # type: ignore[assignment]


class Endless(Exception):
    """Has ever new contexts, each time that one looks."""

    __context__ = property(lambda self: Endless())  # type: ignore[assignment]


class Silent(Exception):
    """Does not say why."""

    @property  # type: ignore[misc]
    def __cause__(self) -> None:  # type: ignore[override]
        raise LookupError("nobody knows")


def raise_in_a_circle(count: int) -> None:
    errors = [ValueError(number) for number in range(count)]
    for number, error in enumerate(errors):
        error.__cause__ = errors[(number + 1) % count]
    raise errors[0]


def raise_one(cls: type[BaseException]) -> None:
    raise cls


@pytest.mark.parametrize("count", [1, 2, 3])
def test_causes_may_go_round_in_a_circle(executor: SleighExecutor, count: int) -> None:
    error = executor.submit(raise_in_a_circle, count).exception(20)
    assert isinstance(error, ValueError)
    for number in (*range(1, count), 0):
        error = error.__cause__
        assert isinstance(error, ValueError)
        assert error.args == (number,)
    assert executor.submit(abs, -1).result() == 1


@pytest.mark.parametrize("cls", [Ring, Endless, Silent])
def test_a_class_may_say_what_it_likes_of_its_causes(
    executor: SleighExecutor, cls: type[BaseException]
) -> None:
    assert type(executor.submit(raise_one, cls).exception(20)) is cls
    assert executor.submit(abs, -1).result() == 1
