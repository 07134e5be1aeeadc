"""Objects as bytes and back: the only place that pickles.

    client ── calls ──▶ worker     FunctionTable.dumps_call(), Definition   (functions.py)
    client ◀─ outcomes ─ worker    dumps(), dumps_error()
    anybody ── values ──▶ space    dumps(), loads()

Plain pickle does what it can, and cloudpickle the rest: lambdas, closures, and whatever functions
and classes of `__main__` are in. Tracebacks are tblib's. Buffers of 64 KiB and more stay outside
the pickle (protocol 5) and travel untouched.

By-value functions of one module share **one namespace for the life of a worker**: `CallPickler`
sends a function's code with a reference to that namespace, and the globals that it names apart
from it, so that they can be sent when they changed and not otherwise (functions.py).
"""

from __future__ import annotations

import copyreg
import io
import marshal
import pickle
import struct
import sys
import types
from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence

from sleighexec.errors import RemoteError
from sleighexec.hints import TYPE_CHECKING, Any, ClassVar
from sleighexec.messages import BYTES, TEXT, Payload

if TYPE_CHECKING:
    from types import TracebackType

PROTOCOL = 5
OUT_OF_BAND = 64 * 1024  # bytes from which a buffer stays outside the pickle
STACK_GLOBAL = b"\x93"  # what stands in a pickle where something goes by its name
MAX_FRAMES = 200  # of one traceback; the middle of a longer one is left out

# Types whose values cannot be shared and changed: many of them may travel in one pickle.
SIMPLE: frozenset[type] = frozenset({int, str, float, bool, bytes, type(None), complex})
SHORT = 1024  # characters or bytes of a text that may travel so; some thousand make a batch
ATOMS = SIMPLE - {str, bytes}


def all_simple(values: Iterable[Any], *, tuples: bool = True) -> bool:
    """Whether these are values of simple types, or `tuples` of some of them, and none is long."""
    return all(
        [
            type(value) in ATOMS
            or (type(value) in (str, bytes) and len(value) < SHORT)
            or (
                tuples
                and type(value) is tuple
                and len(value) < SHORT
                and all_simple(value, tuples=False)
            )
            for value in values
        ]
    )


# ------------------------------------------------------------------ values


def dumps(value: object) -> Payload:
    """The object as a payload.

    Raises:
        Exception: Whatever pickling it raises (PicklingError, TypeError, …).
    """
    if type(value) in SIMPLE:
        return Payload(pickle.dumps(value, PROTOCOL))
    return dumps_named(value) or _dump(_cloudpickle().Pickler, value)


def dumps_named(value: object) -> Payload | None:
    """What the plain pickle makes of it: all functions and classes in it go by their names.

    It is several times as quick as cloudpickle, which asks Python about each object. None: it
    cannot do it, or not rightly, since what is of `__main__` has no name elsewhere.
    """
    if _any_by_value():
        return None
    buffers: list[Any] = []
    try:
        head = pickle.dumps(value, PROTOCOL, buffer_callback=_keeper(buffers))
    except Exception:  # whatever it is, cloudpickle will raise it again, or can do it
        return None
    return None if b"__main__" in head else Payload(head, buffers)


def dumps_small(values: Iterable[object], most: int = OUT_OF_BAND) -> list[bytes] | None:
    """Each of these as a plain pickle of its own, see `dumps_named`, below `most` bytes.

    None: one of them is more than that, or has a buffer that stays outside.
    """
    if _any_by_value():
        return None
    dumps, buffers = pickle.dumps, list[Any]()
    keep, heads = _keeper(buffers), list[bytes]()
    try:
        for value in values:
            head = dumps(value, PROTOCOL, buffer_callback=keep)
            if buffers or len(head) >= most or b"__main__" in head:
                return None
            heads.append(head)
    except Exception:
        return None
    return heads


loads_small = pickle.loads  # one of them


def names_something(head: bytes) -> bool:
    """Whether functions or classes may go by their names in this pickle, so that it needs modules.

    There is one, or a byte of the data looks like it.
    """
    return STACK_GLOBAL in head


def _any_by_value() -> bool:
    """Whether cloudpickle was told to take along what is of certain modules."""
    module = sys.modules.get("cloudpickle.cloudpickle")
    return module is not None and bool(module._PICKLE_BY_VALUE_MODULES)


def dumps_outside(value: object) -> Payload:
    """As `dumps`, where the value may be a long text: its content stays outside of the pickle."""
    return dumps(outside(value))


def outside(value: Any) -> Any:
    """What stands in a pickle for a value: for a long text, what keeps its content outside."""
    if isinstance(value, (str, bytes)) and len(value) >= OUT_OF_BAND:
        return _Outside(value)
    return value


class _Outside:
    """Is pickled as what makes a text of a buffer."""

    def __init__(self, text: str | bytes) -> None:
        self._text = text

    def __reduce__(self) -> Any:
        if isinstance(self._text, bytes):
            return bytes, (pickle.PickleBuffer(self._text),)
        content = self._text.encode("utf-8", "surrogatepass")
        return str, (pickle.PickleBuffer(content), "utf-8", "surrogatepass")


def dumps_whole(value: object) -> bytes:
    """The object as one pickle, with its big buffers in it."""
    pickled: bytes = _cloudpickle().dumps(value, PROTOCOL)
    return pickled


def loads(payload: Payload) -> Any:
    """The object again. Raises whatever unpickling it raises."""
    if payload.kind == TEXT:
        return str(payload.head, "utf-8", "surrogatepass")
    if payload.kind == BYTES:
        return bytes(payload.head)
    return pickle.loads(payload.head, buffers=payload.buffers)


def value_payload(value: object) -> Payload:
    """A workspace value: text and bytes as themselves, all else pickled.

    Its buffers are those of the value itself, not copies.
    """
    kind = type(value)
    if kind is int or kind is float:
        return Payload(pickle.dumps(value, PROTOCOL))
    if kind is str:
        return Payload(value.encode("utf-8", "surrogatepass"), (), TEXT)  # type: ignore[attr-defined]
    if kind is bytes:
        return Payload(value, (), BYTES)  # type: ignore[arg-type]
    return dumps(value)


def _dump(pickler_class: Callable[..., Any], value: object) -> Payload:
    buffers: list[Any] = []
    with io.BytesIO() as file:
        pickler_class(file, PROTOCOL, buffer_callback=_keeper(buffers)).dump(value)
        return Payload(file.getvalue(), buffers)


def _keeper(buffers: list[Any]) -> Callable[[pickle.PickleBuffer], bool]:
    """Keeps big contiguous buffers out of the pickle, in `buffers`."""

    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < OUT_OF_BAND:
            return True
        buffers.append(raw)
        return False

    return keep


def pack(value: object) -> Payload:
    """Plain lists, tuples, numbers and bytes as a payload; big bytes are not copied."""
    buffers: list[Any] = []
    head = pickle.dumps(value, PROTOCOL, buffer_callback=buffers.append)
    return Payload(head, [buffer.raw() for buffer in buffers]) if buffers else Payload(head)


def carried(data: Any) -> Any:
    """Bytes on their way into `pack`: big ones by reference."""
    return pickle.PickleBuffer(data) if len(data) >= OUT_OF_BAND else data


_cloudpickle_module: Any = None


def _cloudpickle() -> Any:
    """The cloudpickle module, imported when first needed: it takes longer than all of ours."""
    global _cloudpickle_module
    if _cloudpickle_module is None:
        import cloudpickle.cloudpickle

        _cloudpickle_module = cloudpickle.cloudpickle
    return _cloudpickle_module


def travels_by_name(function: Any) -> bool:
    """Whether a worker can import this function or class: then only its name is sent."""
    if isinstance(function, types.BuiltinFunctionType):
        return isinstance(function.__self__, types.ModuleType)
    module = getattr(function, "__module__", None)
    if module in (None, "__main__"):
        return False
    if _any_by_value():
        return bool(_cloudpickle()._should_pickle_by_reference(function))
    found: Any = sys.modules.get(module)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


# ------------------------------------------------------------------ calls, with shared namespaces

NamespaceKey = tuple[int, str]  # a number of the client's, and the module's name
SHARED: NamespaceKey = (-1, "shared")  # where a worker keeps the values of Shared handles


class Shared:
    """Stands for an object in the arguments of calls; made by `SleighExecutor.share`.

    The object travels once to each worker that needs it, or to its machine, and the call gets it
    in the handle's place: all calls on a worker get the same one, and its arrays are read-only.
    """

    __slots__ = ("_needs", "value")

    def __init__(self, value: Any, needs: Any) -> None:
        self.value, self._needs = value, needs

    def __reduce__(self) -> Any:
        raise TypeError("a shared object goes into the calls of its executor only; use its value")

    def __repr__(self) -> str:
        return f"<Shared {type(self.value).__name__}>"


def dump_call(
    value: object, namespace_of: Callable[[dict[str, Any]], NamespaceKey]
) -> tuple[Payload, dict[tuple[NamespaceKey, str], dict[str, Any]], list[Any]]:
    """A payload for a worker, the globals that its by-value functions need there, and all that
    the Shared handles in it need.

    `namespace_of` gives the key of the namespace that stands for a `__globals__` dict.
    """
    needed: dict[tuple[NamespaceKey, str], dict[str, Any]] = {}
    shared: list[Any] = []

    def pickler(*args: Any, **kwargs: Any) -> Any:
        made = _call_pickler()(*args, **kwargs)
        made.namespace_of, made.needed, made.shared = namespace_of, needed, shared
        return made

    return _dump(pickler, value), needed, shared


_call_pickler_class: Any = None


def _call_pickler() -> Any:
    """`CallPickler`, made when first needed, since its base class is cloudpickle's."""
    global _call_pickler_class
    if _call_pickler_class is None:
        module = _cloudpickle()

        class CallPickler(module.Pickler):  # type: ignore[misc, name-defined]
            """Pickles by-value functions without their globals, which travel apart."""

            dispatch_table: ClassVar[Any] = ChainMap(
                {types.CodeType: _reduce_code}, module.Pickler.dispatch_table
            )
            namespace_of: Callable[[dict[str, Any]], NamespaceKey]
            needed: dict[tuple[NamespaceKey, str], dict[str, Any]]
            shared: list[Any]

            def reducer_override(self, value: Any) -> Any:
                if type(value) is Shared:
                    self.shared += value._needs
                    return shared_value, (value._needs[-1].name,)
                return super().reducer_override(value)

            def _dynamic_function_reduce(self, function: types.FunctionType) -> Any:
                made = super()._dynamic_function_reduce(function)
                make, (code, basics, *newargs), (state, slots), *rest = made
                key = self.namespace_of(function.__globals__)
                # Also names that have no value yet: they may get one before the next call.
                for name in module._extract_code_globals(function.__code__):
                    self.needed[key, name] = function.__globals__
                slots["__globals__"] = {}
                return (
                    make,
                    (code, _NamespaceReference(key, basics), *newargs),
                    (state, slots),
                    *rest,
                )

        _call_pickler_class = CallPickler
    return _call_pickler_class


def _reduce_code(code: types.CodeType) -> Any:
    """Code with the name of its file, by which tracebacks show the source: cloudpickle drops it."""
    _, parts = _cloudpickle()._code_reduce(code)
    # A copy: whether the text is one object with others must not show in the pickle.
    return _code_of_file, ("".join(list(code.co_filename)), parts)


def _code_of_file(filename: str, parts: tuple[Any, ...]) -> types.CodeType:
    return types.CodeType(*parts).replace(co_filename=filename)


def shared_value(name: str) -> Any:
    """In a worker: what a Shared handle stands for."""
    return namespace(SHARED)[name]


class _NamespaceReference:
    """Stands in a pickle for the globals of a by-value function."""

    def __init__(self, key: NamespaceKey, basics: dict[str, Any]) -> None:
        self._key, self._basics = key, basics

    def __reduce__(self) -> Any:
        return namespace, (self._key, self._basics)


_namespaces: dict[NamespaceKey, dict[str, Any]] = {}


def namespace(key: NamespaceKey, basics: dict[str, Any] | None = None) -> dict[str, Any]:
    """In a worker: the one namespace that by-value functions of a module share."""
    found = _namespaces.get(key)
    if found is None:
        name = key[1]
        if name == "__main__":
            # So that `import __main__` in a task finds what `__main__` functions see.
            module = types.ModuleType(name)
            sys.modules[name] = module
            found = module.__dict__
        else:
            found = {"__name__": name}
        _namespaces[key] = found
    for item in basics or ():
        if item != "__file__":  # the main file must not look importable to children of a task
            found.setdefault(item, basics[item])  # type: ignore[index]
    return found


# ------------------------------------------------------------------ exceptions


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

    nodes = []
    for this in found:
        members = getattr(this, "exceptions", ()) if _is_group(this) else ()
        nodes.append(
            {
                "own": _dump_own(this),
                "frames": _frames(this.__traceback__, skip),
                "notes": _notes(this),
                "suppress": this.__suppress_context__,
                "cause": number(this.__cause__),
                "context": number(this.__context__),
                "members": [number(member) for member in members],
            }
        )
    text = _formatted(error)
    return Payload(pickle.dumps((text, nodes), PROTOCOL))


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", None)
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _formatted(error: BaseException) -> str:
    """The exception as the interpreter would print it."""
    import traceback  # only where something failed

    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException:  # its text may do anything
        return f"{type(error).__qualname__}: <its text cannot be made>\n"


def loads_error(data: Any) -> tuple[BaseException, str]:
    """The exception of `dumps_error`, and its traceback as the worker would have printed it."""
    text, nodes = pickle.loads(data)
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


def set_slot(error: BaseException, name: str, value: object) -> None:
    """Set an attribute that every exception has, even if its class forbids to set any."""
    getattr(BaseException, name).__set__(error, value)


def _is_group(error: BaseException) -> bool:
    return sys.version_info >= (3, 11) and isinstance(error, BaseExceptionGroup)  # noqa: F821


def _dump_own(error: BaseException) -> tuple[str, Any]:
    """The exception itself, in the first form that can be rebuilt: whole, by parts, as text."""
    if _is_group(error):
        try:
            state = (type(error), error.message, error.__dict__)  # type: ignore[attr-defined]
            blob = _dump(_cloudpickle().Pickler, state).head
            pickle.loads(blob)
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
    plain = type(error).__module__ == "builtins" and all([type(part) in SIMPLE for part in parts])
    for form, content in forms:
        try:
            blob = _dump(_error_pickler(error, plain=plain), content).head
            if type(_load_own((form, blob), [])) is type(error):
                return form, blob
        except BaseException:
            pass
    try:
        message = str(error)
    except BaseException as problem:
        message = f"<its text cannot be made: {type(problem).__name__}>"
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return "text", (name, message, _formatted(error))


def _error_pickler(error: BaseException, *, plain: bool) -> Any:
    """What pickles an exception as its own class says, whatever others have registered for it.

    Dask has tblib make exceptions anew without their __init__: they lack what that has set, such
    as the file name of an OSError.
    """
    usual: Any = pickle.Pickler if plain else _cloudpickle().Pickler
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
    loaded = pickle.loads(data)
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


# ------------------------------------------------------------------ outcomes

# Outcomes are records that stand behind each other: size u32, flag u8, number of the call u64,
# bytes. Each says which call it answers, so that a frame that was never sent can be read to its
# last record, and one that was sent twice does no harm.
#
# Results of simple types stand together in a run: a list as `marshal` writes it, "[", how many they
# are, and one behind the other. So each is written on its own, by itself complete, and a thousand
# are read by one call. A run that is still being written has the size OPEN, goes to the end of what
# is there, and says that it has none. Tuples of simple values stand there as well. In a mixed run,
# small results of other types stand too, each as the bytes of its pickle, in a list. In a run of
# numbers all are of one type, int or float, of eight bytes each: many calls return nothing else.
RECORD = struct.Struct("!IBQ")
GOOD, BAD, LARGE, RUN = 0, 1, 2, 3  # a value; an error; one whose buffers follow outside; a run
PRINTED = 4  # no outcome yet: what the call has printed, UTF-8
MIXED = 5  # a mixed run
INTS, FLOATS = 6, 7  # a run of numbers
RUNS = frozenset({RUN, MIXED})
NUMBERS: dict[type, int] = {int: INTS, float: FLOATS}
NUMBER = 8  # bytes of one
FORMATS: dict[int, Any] = {INTS: "q", FLOATS: "d"}  # as `memoryview.cast` has them
OPEN = 0xFFFFFFFF
EVERYWHERE = 2  # the version of marshal's format that every Python reads and that has no references
_SIZE, _COUNT = struct.Struct("!I"), struct.Struct("<I")
FLAG_AT = _SIZE.size  # where the flag is in a record
_EMPTY = b"[" + bytes(_COUNT.size)
RUN_HEAD = RECORD.size + len(_EMPTY)  # bytes before the first result of a run


def run_head(number: int, flag: int = RUN) -> bytes:
    """How a run begins, the first result of which is that of call `number`; it is open."""
    head = RECORD.pack(OPEN, flag, number)
    return head if flag in FORMATS else head + _EMPTY


def close_run(memory: Any, start: int, end: int, count: int) -> None:
    """Write into the head of the run that lies there how long it is, and of how many results."""
    _SIZE.pack_into(memory, start, end - start - RECORD.size)
    if memory[start + FLAG_AT] not in FORMATS:
        _COUNT.pack_into(memory, start + RECORD.size + 1, count)


def dump_simple(value: Any) -> bytes:
    """A value of a simple type, as it stands in a run."""
    return marshal.dumps(value, EVERYWHERE)


def dump_mixed(pickled: bytes) -> bytes:
    """A value of another type, pickled, as it stands in a mixed run."""
    return marshal.dumps([pickled], EVERYWHERE)


def _load_open_run(data: memoryview) -> list[Any]:
    values = []
    with io.BytesIO(data[len(_EMPTY) :]) as file:
        while file.tell() < len(data) - len(_EMPTY):
            values.append(marshal.load(file))
    return values


def outcomes(payload: Payload) -> list[tuple[int, int, Any, Sequence[Any]]]:
    """The records of a worker's frame: number of the (first) call, flag, bytes, buffers.

    The bytes of a run are the list of its values.
    """
    data, position, length = memoryview(payload.head), 0, len(payload.head)
    records: list[tuple[int, int, Any, Sequence[Any]]] = []
    while position < length:
        size, flag, number = RECORD.unpack_from(data, position)
        position += RECORD.size
        end = length if size == OPEN else position + size
        record: Any = data[position:end]
        if flag in FORMATS:
            flag, record = RUN, record.cast(FORMATS[flag]).tolist()
        elif flag in RUNS:
            record = _load_open_run(record) if size == OPEN else marshal.loads(record)
        records.append((number, flag, record, payload.buffers if flag == LARGE else ()))
        position = end
    return records


def last_answered(payload: Payload) -> int:
    """The number of the last call that has a record; 0: there is none."""
    last = 0
    for number, flag, data, _ in outcomes(payload):
        if flag != PRINTED:
            last = number + len(data) - 1 if flag in RUNS else number
    return last
