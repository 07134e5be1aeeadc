"""Objects as bytes and back: the only place that pickles.

    client ── calls ──▶ worker     FunctionTable.dumps_call(), Definition   (functions.py)
    client ◀─ outcomes ─ worker    dumps(); errors: raised.py
    anybody ── values ──▶ space    dumps(), loads()

Plain pickle does what it can, and cloudpickle the rest, with what it lacks (byvalue.py): lambdas,
closures, and whatever functions and classes of `__main__` are in. Buffers of 64 KiB and more stay
outside the pickle (protocol 5) and travel untouched.

By-value functions of one module share **one namespace for the life of a worker**: `CallPickler`
sends a function's code with a reference to that namespace, and the globals that it names apart
from it, so that they can be sent when they changed and not otherwise (functions.py).
"""

from __future__ import annotations

import io
import itertools
import pickle
import sys
import types
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Sequence

from sleighexec.forks import importing
from sleighexec.hints import Any, ClassVar
from sleighexec.messages import BYTES, PICKLE, TEXT, Payload

PROTOCOL = 5
OUT_OF_BAND = 64 * 1024  # bytes from which a buffer stays outside the pickle
STACK_GLOBAL = b"\x93"  # what stands in a pickle where something goes by its name

Keep = Callable[[pickle.PickleBuffer], bool]  # a buffer_callback; see _keeper

# Types whose values cannot be shared and changed: many of them may travel in one pickle.
SIMPLE: frozenset[type] = frozenset({int, str, float, bool, bytes, type(None), complex})
SHORT = 1024  # characters or bytes of a text that may travel so; some thousand make a batch
WIDE = 128  # values in a dict or list that may
FIELDS = 8  # …and how many of the longest texts, if it has such
AT_ONCE = 10_000  # values that are looked at together
# Those that hold nothing but simple values are shallow; and how they are copied.
COPIES: dict[type, Callable[[Any], Any]] = {dict: dict.copy, list: list.copy}
TEXTS: frozenset[type] = frozenset({str, bytes})
ATOMS = SIMPLE - TEXTS
SIMPLE_OR_TUPLE = SIMPLE | {tuple}
PLAIN_KINDS = SIMPLE_OR_TUPLE | COPIES.keys()  # what may be simple or shallow


def all_simple(values: Collection[Any], *, tuples: bool = True) -> bool:
    """Whether these are values of simple types, or `tuples` of some of them, and none is long."""
    # Kind by kind: a step in Python for each costs ten times as much, and there may be many.
    kinds = set(map(type, values))
    if kinds <= ATOMS:
        return True
    if tuple in kinds:
        rows = _of(tuple, values, kinds)
        if not tuples or max(map(len, rows)) >= SHORT:
            return False
        if not all_simple([*itertools.chain.from_iterable(rows)], tuples=False):
            return False
    return kinds <= SIMPLE_OR_TUPLE and _longest_text(values, kinds) < SHORT


def _of(kind: type, values: Collection[Any], kinds: set[type]) -> Collection[Any]:
    """Those of this type, if these are the types that there are."""
    return values if len(kinds) == 1 else [value for value in values if type(value) is kind]


def _longest_text(values: Collection[Any], kinds: set[type]) -> int:
    """Characters or bytes of the longest text among them, 0 if there is none."""
    return max([max(map(len, _of(kind, values, kinds))) for kind in TEXTS & kinds], default=0)


def copies_of_shallow(values: list[Any]) -> list[Any] | None:
    """These values, of dicts and lists copies; None: not all of them are shallow and small.

    Many copies may travel in one pickle, since nothing that can be changed is in two of them. They
    stay as they are now, whatever becomes of the values.
    """
    copies: list[Any] = []
    for first in range(0, len(values), AT_ONCE):
        part = values[first : first + AT_ONCE]
        kinds = set(map(type, part))
        if not (kinds <= PLAIN_KINDS and _are_shallow(part, kinds)):
            return None
        if len(kinds) == 1 and kinds <= COPIES.keys():
            copies += map(COPIES[kinds.pop()], part)
        else:
            copies += [COPIES[type(v)](v) if type(v) in COPIES else v for v in part]
    return copies


def copy_of_shallow(values: tuple[Any, ...]) -> Any:
    """A copy of the only value, a shallow dict or list; None: it is none, or not small."""
    if len(values) != 1 or not is_shallow(values[0], WIDE):
        return None
    [value] = values
    inner = value if type(value) is list else [*value, *value.values()]
    texts = sum([len(each) for each in inner if type(each) in TEXTS])
    return COPIES[type(value)](value) if texts < SHORT else None


def is_shallow(value: Any, most: int = SHORT) -> bool:
    """Whether that is a dict or list of simple values, and of less than `most`."""
    kind = type(value)
    if kind not in COPIES or len(value) >= most or not SIMPLE.issuperset(map(type, value)):
        return False
    return kind is list or SIMPLE.issuperset(map(type, value.values()))


def _are_shallow(values: list[Any], kinds: set[type]) -> bool:
    chain, dicts, lists = itertools.chain.from_iterable, list[Any](), list[Any]()
    if dict in kinds:
        dicts = [*_of(dict, values, kinds)]
    if list in kinds:
        lists = [*_of(list, values, kinds)]
    try:
        inner = [*chain(dicts), *chain(map(dict.values, dicts)), *chain(lists)]
    except RuntimeError:  # another thread changes one of them
        return False
    longest = max(map(len, (*dicts, *lists)), default=0)
    types = set(map(type, inner))
    if not types <= SIMPLE or longest >= WIDE:
        return False
    if longest * _longest_text(inner, types) >= FIELDS * SHORT:
        return False
    return all_simple([value for value in values if type(value) not in COPIES])


def is_simple(value: Any) -> bool:
    """Whether that is one of them, asked about results one by one."""
    if type(value) is tuple:
        few = len(value) < SHORT
        return few and (ATOMS.issuperset(map(type, value)) or all_simple(value, tuples=False))
    return type(value) in ATOMS or (type(value) in TEXTS and len(value) < SHORT)


# ------------------------------------------------------------------ values


def dumps(value: object) -> Payload:
    """The object as a payload.

    Raises:
        Exception: Whatever pickling it raises (PicklingError, TypeError, …).
    """
    if type(value) in SIMPLE:
        return Payload(pickle.dumps(value, PROTOCOL))
    return dumps_named(value) or dump_with(byvalue().Pickler, value)


def dumps_named(value: object) -> Payload | None:
    """What the plain pickle makes of it: all functions and classes in it go by their names.

    It is several times as quick as cloudpickle, which asks Python about each object. None: it
    cannot do it, or not rightly, since what is of `__main__` has no name elsewhere.
    """
    buffers: list[Any] = []
    head = _dump_named(value, _keeper(buffers))
    return None if head is None else Payload(head, buffers)


def _dump_named(value: object, keep: Keep) -> bytes | None:
    """The head of that; `keep` has got the buffers."""
    if _any_by_value():
        return None
    try:
        head = pickle.dumps(value, PROTOCOL, buffer_callback=keep)
    except Exception:  # whatever it is, cloudpickle will raise it again, or can do it
        return None
    return None if b"__main__" in head else head


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
    # While another thread imports it, nothing can have been registered yet.
    return bool(getattr(module, "_PICKLE_BY_VALUE_MODULES", None))


class Dumper:
    """Pickles one value after the other, long texts outside of their pickles. For one thread."""

    def __init__(self) -> None:
        self._buffers: list[Any] = []
        self._keep = _keeper(self._buffers)  # made once: that takes longer than a small pickle

    def dump(self, value: object) -> bytes | Payload:
        """Bytes that `loads_small` reads, or a payload where that has more, or much, in it.

        Raises:
            Exception: Whatever pickling it raises.
        """
        buffers = self._buffers
        try:
            head = _dump_named(outside(value), self._keep)
            if head is None:
                buffers.clear()
                head = _dump_with(byvalue().Pickler, outside(value), self._keep)
            if not buffers and len(head) < OUT_OF_BAND:
                return head
            return Payload(head, [*buffers])
        finally:
            buffers.clear()  # they are the value's own memory


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
    with io.BytesIO() as file:
        byvalue().Pickler(file, PROTOCOL).dump(value)
        return file.getvalue()


def loads(payload: Payload) -> Any:
    """The object again. Raises whatever unpickling it raises."""
    if payload.kind == TEXT:
        return str(payload.head, "utf-8", "surrogatepass")
    if payload.kind == BYTES:
        return bytes(payload.head)
    if payload.buffers:
        return pickle.loads(payload.head, buffers=payload.buffers)
    return pickle.loads(payload.head)  # without the keyword it takes half as long


def loads_all(payloads: Sequence[Payload]) -> list[Any]:
    """Each of these objects again. Raises whatever unpickling them raises."""
    heads = [each.head for each in payloads if each.kind == PICKLE and not each.buffers]
    if len(heads) == len(payloads):
        return [*map(pickle.loads, heads)]
    return [*map(loads, payloads)]


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


def dump_with(pickler_class: Callable[..., Any], value: object) -> Payload:
    """The object as a payload, by a pickler of this class."""
    buffers: list[Any] = []
    return Payload(_dump_with(pickler_class, value, _keeper(buffers)), buffers)


def _dump_with(pickler_class: Callable[..., Any], value: object, keep: Keep) -> bytes:
    with io.BytesIO() as file:
        pickler_class(file, PROTOCOL, buffer_callback=keep).dump(value)
        return file.getvalue()


def _keeper(buffers: list[Any]) -> Keep:
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


def pack_small(value: object) -> bytes:
    """The head of that, if there are no bytes from `carried` in it."""
    return pickle.dumps(value, PROTOCOL)


def carried(data: Any) -> Any:
    """Bytes on their way into `pack`: big ones by reference."""
    return pickle.PickleBuffer(data) if len(data) >= OUT_OF_BAND else data


_byvalue: Any = None


def byvalue() -> Any:
    """The module byvalue, imported when first needed: it brings in cloudpickle."""
    global _byvalue
    if _byvalue is None:
        with importing:
            from sleighexec import byvalue as module

            _byvalue = module
    return _byvalue


def travels_by_name(function: Any) -> bool:
    """Whether a worker can import this function or class: then only its name is sent."""
    if isinstance(function, types.BuiltinFunctionType):
        return isinstance(function.__self__, types.ModuleType)
    module = getattr(function, "__module__", None)
    if module in (None, "__main__"):
        return False
    if _any_by_value():
        return bool(byvalue().goes_by_name(function))
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


Needed = dict[tuple[NamespaceKey, str], dict[str, Any]]  # globals, and where they are now


def dump_call(
    value: object,
    namespace_of: Callable[[dict[str, Any]], NamespaceKey],
    *,
    of_global: bool = False,
) -> tuple[Payload, Needed, list[Any]]:
    """A payload for a worker, the globals that its by-value functions need there, and all that
    the Shared handles in it need.

    `namespace_of` gives the key of the namespace that stands for a `__globals__` dict. `of_global`:
    objects of the script's classes get their own locks and queues in the worker (fresh.py).
    """
    needed: Needed = {}
    shared: list[Any] = []

    def pickler(*args: Any, **kwargs: Any) -> Any:
        made = _call_pickler()(*args, **kwargs)
        made.namespace_of, made.needed, made.shared = namespace_of, needed, shared
        made.of_global = of_global
        return made

    return dump_with(pickler, value), needed, shared


def dump_global(
    name: str, value: object, namespace_of: Callable[[dict[str, Any]], NamespaceKey]
) -> tuple[Payload, Needed, list[Any], bool]:
    """The same for what a global variable has, and whether that is all that it can ever mean.

    What the script has from a module by `from module import name` is taken from there again where
    it cannot be pickled: it is one object with what the functions of the module see.
    """
    module = byvalue()
    own = module.own(value)
    if own is value:
        try:
            return *dump_call(value, namespace_of), False
        except Exception:  # it is raised again, if nothing else helps
            pass
    home = module.home_of(name, value)
    if home is not None:
        return dumps(module.Imported(home, name)), {}, [], True
    return *dump_call(own, namespace_of, of_global=True), own is not value


_call_pickler_class: Any = None


def _call_pickler() -> Any:
    """`CallPickler`, made when first needed, since its base class is cloudpickle's."""
    global _call_pickler_class
    if _call_pickler_class is None:
        module = byvalue()

        class CallPickler(module.Pickler):  # type: ignore[misc, name-defined]
            """Pickles by-value functions without their globals, which travel apart."""

            dispatch_table: ClassVar[Any] = ChainMap(
                {types.CodeType: _reduce_code}, module.Pickler.dispatch_table
            )
            whole = True
            namespace_of: Callable[[dict[str, Any]], NamespaceKey]
            needed: Needed
            shared: list[Any]
            of_global: bool

            def reducer_override(self, value: Any) -> Any:
                if type(value) is Shared:
                    self.shared += value._needs
                    return shared_value, (value._needs[-1].name,)
                if self.of_global and type(value).__module__ == "__main__":
                    return self._reduce_with_own(value)
                return super().reducer_override(value)

            def _reduce_with_own(self, value: Any) -> Any:
                made = super().reducer_override(value)
                known = made is not NotImplemented or type(value) in self.dispatch_table
                return made if known else module.reduce_with_own(value)

            def _dynamic_function_reduce(self, function: types.FunctionType) -> Any:
                made = super()._dynamic_function_reduce(function)
                make, (code, basics, *newargs), (state, slots), *rest = made
                key = self.namespace_of(function.__globals__)
                # Also names that have no value yet: they may get one before the next call.
                for name in module.names_of_globals(function.__code__):
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
    _, parts = byvalue().parts_of_code(code)
    # A copy: whether the text is one object with others must not show in the pickle.
    return _code_of_file, ("".join(list(code.co_filename)), parts)


def _code_of_file(filename: str, parts: tuple[Any, ...]) -> types.CodeType:
    return types.CodeType(*parts).replace(co_filename=filename)


class Template:
    """In a worker: from which each call gets an object of its own, over the same big buffers."""

    def __init__(self, head: Any, *buffers: Any) -> None:
        self._payload = Payload(head, buffers)

    def __reduce__(self) -> Any:
        head, buffers = self._payload.head, self._payload.buffers
        return Template, (carried(head), *map(pickle.PickleBuffer, buffers))

    def make(self) -> Any:
        """One more. Raises whatever unpickling it raises."""
        return loads(self._payload)


def shared_value(name: str) -> Any:
    """In a worker: what a Shared handle stands for."""
    value = namespace(SHARED)[name]
    return value.make() if type(value) is Template else value


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


def forget_namespaces() -> None:
    """Let go of what by-value functions have left there."""
    if any(name == "__main__" for _, name in _namespaces):
        sys.modules["__main__"] = types.ModuleType("__main__")
    _namespaces.clear()
