"""Exceptions as bytes and back, with all that belongs to them.

worker  dumps_error() ─▶ nodes: each exception of the chain, its frames, notes, who causes whom
client  loads_error() ─▶ the same exceptions, their tracebacks rebuilt by tblib
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections import ChainMap

from sleighexec import payload as pickling
from sleighexec.errors import RemoteError
from sleighexec.hints import TYPE_CHECKING, Any
from sleighexec.messages import Payload

if TYPE_CHECKING:
    from types import TracebackType

MAX_FRAMES = 200  # of one traceback; the middle of a longer one is left out


def dumps_error(error: BaseException, skip: str = "") -> Payload:
    """An exception with all that belongs to it, as a payload that can always be rebuilt.

    Type, attributes, cause, context, notes, group members and traceback frames are kept. An
    exception of the chain that cannot be pickled and rebuilt becomes a `RemoteError`. Frames of
    the file `skip` at the outer end are left out.
    """
    numbers = {id(error): 0}
    found = [error]  # grows while we go through it; keeps ids unique

    def number(this: BaseException | None) -> int | None:
        if this is None:
            return None
        if id(this) not in numbers:
            numbers[id(this)] = len(found)
            found.append(this)
        return numbers[id(this)]

    nodes: list[dict[str, Any]] = []
    for this in found:
        members = getattr(this, "exceptions", ()) if _is_group(this) else ()
        nodes.append(
            {
                "frames": _frames(get_slot(this, "__traceback__"), skip),
                "notes": _notes(this),
                "suppress": get_slot(this, "__suppress_context__"),
                "cause": number(get_slot(this, "__cause__")),
                "context": number(get_slot(this, "__context__")),
                "members": [number(member) for member in members],
            }
        )
    # Who makes causes up, by a property, may make ever new ones.
    chain = all(type(this).__cause__ is BaseException.__cause__ for this in found)
    chain = chain and all(type(this).__context__ is BaseException.__context__ for this in found)
    for this, node in zip(found, nodes):
        node["own"] = _dump_own(this, chain=chain)
    return pickling.pack((_formatted(error, chain=chain), nodes))


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", None)
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _formatted(error: BaseException, *, chain: bool) -> str:
    """The exception as the interpreter would print it; without `chain`, it alone."""
    import traceback  # only where something failed

    try:
        tb = get_slot(error, "__traceback__")
        return "".join(traceback.format_exception(type(error), error, tb, chain=chain))
    except BaseException:  # its text may do anything
        return f"{type(error).__qualname__}: <its text cannot be made>\n"


def loads_error(data: Any) -> tuple[BaseException, str]:
    """The exception of `dumps_error`, and its traceback as the worker would have printed it."""
    text, nodes = pickling.loads_small(data)
    made: list[BaseException | None] = [None] * len(nodes)

    def get(index: int | None) -> BaseException | None:
        return made[index] if index is not None and index < len(made) else None

    def build(index: int) -> BaseException:
        this = made[index]
        if this is None:
            members = [build(member) for member in nodes[index]["members"] if member < len(nodes)]
            this = made[index] = _load_own(nodes[index]["own"], members)
        return this

    for index, node in enumerate(nodes):
        this = build(index)
        # The exception's class may forbid to set attributes (a frozen dataclass); its base not.
        set_slot(this, "__traceback__", _traceback(node["frames"]))
        if node["notes"]:
            this.__dict__["__notes__"] = node["notes"]
    for index, node in enumerate(nodes):
        this = build(index)
        set_slot(this, "__cause__", get(node["cause"]))
        set_slot(this, "__context__", get(node["context"]))
        set_slot(this, "__suppress_context__", node["suppress"])
    return build(0), text


def get_slot(error: BaseException, name: str) -> Any:
    """An attribute that every exception has, whatever its class has made of that name."""
    return getattr(BaseException, name).__get__(error)


def set_slot(error: BaseException, name: str, value: object) -> None:
    """Set an attribute that every exception has, even if its class forbids to set any."""
    getattr(BaseException, name).__set__(error, value)


def _is_group(error: BaseException) -> bool:
    return sys.version_info >= (3, 11) and isinstance(error, BaseExceptionGroup)  # noqa: F821


def _dump_own(error: BaseException, *, chain: bool) -> tuple[str, Any]:
    """The exception itself, in the first form that can be rebuilt: whole, by parts, as text."""
    if _is_group(error):
        try:
            state = (type(error), error.message, error.__dict__)  # type: ignore[attr-defined]
            blob = pickling.dump_with(pickling.byvalue().Pickler, state).head
            pickling.loads_small(blob)
            return "group", blob
        except BaseException:  # whatever user code raises here, the text below is safe
            pass
    forms: tuple[tuple[str, object], ...] = (
        ("whole", error),
        ("parts", (type(error), error.args, _base_args(error), error.__dict__)),
    )
    # Builtin errors of plain parts need no module that may not be loaded yet: a worker may be out
    # of memory or descriptors just then.
    parts = (*error.args, *error.__dict__.values())
    plain = type(error).__module__ == "builtins" and all(
        [type(part) in pickling.SIMPLE for part in parts]
    )
    for form, content in forms:
        try:
            blob = pickling.dump_with(_error_pickler(error, plain=plain), content).head
            if type(_load_own((form, blob), [])) is type(error):
                return form, blob
        except BaseException:
            pass
    try:
        message = str(error)
    except BaseException as problem:
        message = f"<its text cannot be made: {type(problem).__name__}>"
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return "text", (name, message, _formatted(error, chain=chain))


def _error_pickler(error: BaseException, *, plain: bool) -> Any:
    """What pickles an exception as its own class says, whatever others have registered for it.

    Dask has tblib make exceptions anew without their __init__: they lack what that has set, such
    as the file name of an OSError.
    """
    usual: Any = pickle.Pickler if plain else pickling.byvalue().Pickler
    if not _is_tblibs(copyreg.dispatch_table.get(type(error))):
        return usual
    others = {k: v for k, v in copyreg.dispatch_table.items() if not _is_tblibs(v)}

    class ErrorPickler(usual):  # type: ignore[misc]
        dispatch_table = others if plain else ChainMap(usual._dispatch_table, others)

    return ErrorPickler


def _is_tblibs(reducer: Any) -> bool:
    return getattr(reducer, "__module__", "").startswith("tblib")


def _base_args(error: BaseException) -> tuple[Any, ...]:
    """What the builtin class that the exception's own is derived from was made with."""
    if isinstance(error, OSError) and error.filename is not None:
        return error.errno, error.strerror, error.filename, None, error.filename2
    return error.args


def _load_own(own: tuple[str, Any], members: list[BaseException]) -> BaseException:
    form, data = own
    if form == "text":
        return RemoteError(*data)
    loaded = pickling.loads_small(data)
    if form == "whole":
        if not isinstance(loaded, BaseException):
            raise TypeError(f"{loaded!r} is no exception")
        return loaded
    if form == "group":
        cls, message, attributes = loaded
        error: BaseException = BaseExceptionGroup.__new__(cls, message, members)  # noqa: F821
    else:
        cls, args, base_args, attributes = loaded
        error = cls.__new__(cls, *args)
        base = next(base for base in cls.__mro__ if base.__module__ == "builtins")
        base.__init__(error, *base_args)  # an OSError's errno, a StopIteration's value
        set_slot(error, "args", args)
    error.__dict__.update(attributes)
    return error


def _frames(tb: TracebackType | None, skip: str) -> list[tuple[str, str, dict[str, str], int]]:
    frames = []
    while tb is not None:
        known = {k: v for k, v in tb.tb_frame.f_globals.items() if k in ("__file__", "__name__")}
        code = tb.tb_frame.f_code
        frames.append((code.co_filename, code.co_name, known, tb.tb_lineno))
        tb = tb.tb_next
    while frames and frames[0][0] == skip:
        del frames[0]
    if len(frames) > MAX_FRAMES:
        half = MAX_FRAMES // 2
        frames = frames[:half] + frames[-half:]
    return frames


def _traceback(frames: list[tuple[str, str, dict[str, str], int]]) -> TracebackType | None:
    if not frames:
        return None
    from tblib import Traceback  # only where something failed

    chain: dict[str, Any] | None = None
    for filename, name, known, line in reversed(frames):
        code = {"co_filename": filename, "co_name": name}
        frame = {"f_globals": known, "f_code": code, "f_lineno": line}
        chain = {"tb_frame": frame, "tb_lineno": line, "tb_next": chain}
    made: TracebackType | None = Traceback.from_dict(chain).as_traceback()
    return made


def add_note(error: BaseException, note: str) -> None:
    """`error.add_note(note)`, also before Python 3.11."""
    if isinstance(getattr(error, "__dict__", None), dict):
        error.__dict__["__notes__"] = [*getattr(error, "__notes__", ()), note]
