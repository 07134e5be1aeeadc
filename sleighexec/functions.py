"""What a worker must know before it can run a call: functions and globals, each sent once.

    submit(fn, …) ─▶ FunctionTable.define(fn) ─▶ Definition(key, code, needs: [GlobalValue…])
                                                   │            the worker keeps it under its key
    per worker:  Known.news(definition) ───────────┘            what this worker has not seen yet

A function travels once to each worker and is then called by its key. A by-value function (of
`__main__`, a notebook cell, a lambda) travels without the globals it uses; these go to the
namespace that it shares in the worker with the other functions of its module, and only when their
value on the client is another than the one last sent: what a worker built there is not overwritten
by what the client never touched, and what the client changed arrives.
"""

from __future__ import annotations

import functools
import itertools
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence

from sleighexec import payload as pickling
from sleighexec import raised
from sleighexec.forks import free_in_child
from sleighexec.hints import Any, TypeGuard
from sleighexec.messages import Payload
from sleighexec.payload import SHARED

MAX_NAMES = 1000  # of functions that travel with their calls; more have no name in messages
BIG = 1024 * 1024  # bytes from which what all calls of an eachElem have is sent once to a worker
KEPT = 1024  # functions whose definition is remembered; more are pickled again when used again

# The form in which the arguments of a call travel: a tuple of simple values; one with long texts
# among them, so that not many such calls make a batch; the only argument, a simple value;
# (args, kwargs) as the bytes of a small pickle; those of many calls in one pickle, as its bytes and
# which of them it is; as a Payload; while they are not all there yet; and the only argument, a
# shallow dict or list or a simple value.
PLAIN, LONG, SINGLE, SMALL, ROWS, PICKLED, UNFILLED, SHALLOW = range(8)
ALONE = frozenset({SINGLE, SHALLOW})  # an argument as it is
LIGHT = ALONE | {PLAIN}  # arguments that weigh next to nothing
WITHIN = LIGHT | {SMALL}  # …that never have buffers outside of the pickle of a batch


def simple_form(args: Collection[Any]) -> int | None:
    """PLAIN or LONG; None: not all of these arguments, of one call or many, are simple."""
    if pickling.ATOMS.issuperset(map(type, args)) or pickling.all_simple(args):
        return PLAIN
    return LONG if pickling.SIMPLE.issuperset(map(type, args)) else None


def weight(form: int, item: Any) -> int:
    """Bytes, or characters, of the arguments of a call in this form, where they may be many."""
    if form == LONG:
        return sum([len(arg) for arg in item if type(arg) in (str, bytes)])
    if form == SMALL:
        return len(item)
    if form == ROWS:
        return len(item[0])
    return item.size_bytes if form == PICKLED else 0


# Builtins of every worker; what the client has under these names stays there.
CLASSIC_NAMES = ("SleighRank", "SleighWorkerCount", "SleighNws", "SleighUserNws")

_MISSING = object()
BRIEF = 128  # bytes of a pickle that is its own fingerprint
_SYS_PATH = (0, "sys.path")  # the namespace key under which the caller's sys.path travels
_DEFINABLE = frozenset({types.BuiltinFunctionType, type, functools._lru_cache_wrapper})
_STABLE = frozenset(
    {*pickling.SIMPLE, types.ModuleType, types.BuiltinFunctionType, pickling.Shared}
)


class Constant(Payload):
    """What each worker needs once, the same for all: another machine may get it once for all."""

    __slots__ = ("__weakref__",)


def constant(payload: Payload) -> Constant:
    """A payload as such a one."""
    return Constant(payload.head, payload.buffers, payload.kind)


class GlobalValue:
    """One global variable of a by-value function, as it was when a call was made."""

    __slots__ = ("name", "namespace", "payload", "version")

    def __init__(
        self, namespace: pickling.NamespaceKey, name: str, version: int, payload: Payload
    ) -> None:
        self.namespace, self.name = namespace, name
        self.version, self.payload = version, payload


Places = tuple[tuple[pickling.NamespaceKey, str], ...]  # which globals, by namespace and name


def places_of(needs: tuple[GlobalValue, ...]) -> Places:
    """Where the globals are that a call needs; the path of modules is not one of them."""
    return tuple((each.namespace, each.name) for each in needs if each.namespace != _SYS_PATH)


class SharedValue(GlobalValue):
    """The value of a Shared handle. When nobody needs it any more, workers forget it.

    `table`: stands for the FunctionTable that made the handle, whose workers know it by its name.
    """

    __slots__ = ("__weakref__", "table")

    def __init__(self, name: str, payload: Payload, table: object) -> None:
        super().__init__(SHARED, name, 1, payload)
        self.table = table


def named(function: Any) -> str:
    """What to call a function, or whatever is called, in a message."""
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        inner = getattr(function, "func", None)  # of a functools.partial
        name = named(inner) if inner is not None else type(function).__qualname__
    return name


class Definition:
    """A function as a worker needs it. `key` stands for exactly these bytes."""

    __slots__ = ("key", "name", "needs", "payload", "places")

    def __init__(
        self, key: int, name: str, payload: Payload, needs: tuple[GlobalValue, ...], places: Places
    ) -> None:
        self.key, self.name, self.payload = key, name, payload
        self.needs, self.places = needs, places


class _Global:
    """What the client last saw of a global: the very object, and what became of it."""

    __slots__ = ("inner", "print_", "sent", "shared", "stable", "value")

    def __init__(
        self,
        value: object,
        stable: bool,  # the same object cannot mean something else later
        print_: bytes,
        sent: GlobalValue,
        inner: pickling.Needed,
        shared: Sequence[GlobalValue] = (),  # what the handles in it need
    ) -> None:
        self.value, self.stable, self.print_ = value, stable, print_
        self.sent, self.inner, self.shared = sent, inner, shared


# Stands for a global that has no value here yet.
_ABSENT = _Global(_MISSING, True, b"", GlobalValue((0, ""), "", 0, Payload(b"")), {})


class _Entry:
    __slots__ = ("definition", "fingerprint", "watched")

    def __init__(
        self,
        definition: Definition,
        fingerprint: bytes,
        watched: list[tuple[dict[str, Any], str, _Global]],
    ) -> None:
        self.definition, self.fingerprint, self.watched = definition, fingerprint, watched


class FunctionTable:
    """The functions of one executor and the globals they use. Safe from several threads."""

    def __init__(self, more_path: Iterable[str] = ()) -> None:
        """`more_path`: folders that imports in workers search too."""
        # Guards everything below, but for reads of _entries.
        self._lock = free_in_child(threading.Lock())
        self._entries: dict[Any, _Entry] = {}
        self._globals: dict[tuple[pickling.NamespaceKey, str], _Global] = {}
        self._namespaces: dict[int, tuple[pickling.NamespaceKey, dict[str, Any]]] = {}
        self._keys = itertools.count(1)
        self._versions = itertools.count(1)
        self._path: GlobalValue | None = None
        self._seen_path: list[str] = []  # the sys.path that it is made of
        self.forgotten: list[str] = []  # names of shared values that nobody needs any more
        self._identity = object()  # by which our own handles are known
        self._more_path = list(more_path)
        self.keep: Callable[[Any], Any] = bytes  # copies a buffer, for as long as it is needed
        self.apply = Definition(0, "apply", Payload(b""), (), ())  # built into every worker
        self._applies: dict[str, Definition] = {}

    def apply_as(self, function: Any) -> Definition:
        """What calls a function that travels with each call, under that one's name."""
        name = named(function)
        if name not in self._applies:
            if len(self._applies) >= MAX_NAMES:
                return self.apply
            self._applies[name] = Definition(0, name, Payload(b""), (), ())
        return self._applies[name]

    def define(self, function: Any) -> Definition | None:
        """The definition of a function; None if it must travel with each call.

        That is so for what has state of its own: closures, bound methods, partials, objects.

        Raises:
            Exception: Whatever pickling the function or a global that it uses raises.
        """
        kind = type(function)
        if kind is not types.FunctionType:
            if kind not in _DEFINABLE:
                return None
        elif function.__closure__ is not None:
            return None
        entry = self._entries.get(function)
        if (
            entry is not None
            and sys.path == self._seen_path
            and (
                not entry.watched
                or all(
                    seen.stable and namespace.get(name, _MISSING) is seen.value
                    for namespace, name, seen in entry.watched
                )
            )
        ):
            return entry.definition
        with self._lock:
            return self._define(function, self._entries.get(function))

    def dumps_call(self, call: object) -> tuple[Payload, tuple[GlobalValue, ...]]:
        """Arguments (or anything else for a worker) pickled, with the globals they need there."""
        return self.dumps_named(call) or self.dumps_rich(call)

    def dumps_named(self, call: object) -> tuple[Payload, tuple[GlobalValue, ...]] | None:
        """The same; None if there is more in it than what goes by its name."""
        payload = pickling.dumps_named(call)
        return None if payload is None else (payload, self._path_for([payload.head]))

    def dumps_small(
        self, calls: Iterable[object], most: int = pickling.OUT_OF_BAND
    ) -> tuple[list[bytes], tuple[GlobalValue, ...]] | None:
        """Many calls, each below `most` bytes, and by itself; None: one is more than that."""
        heads = pickling.dumps_small(calls, most)
        return None if heads is None else (heads, self._path_for(heads))

    def _path_for(self, heads: Iterable[Any]) -> tuple[GlobalValue, ...]:
        """What plain pickles need: the path of modules, where something goes by its name."""
        if not any(map(pickling.names_something, heads)):
            return ()
        with self._lock:
            return self._needs([])

    def dumps_rich(self, call: object) -> tuple[Payload, tuple[GlobalValue, ...]]:
        """The same, of what is known to be more than that."""
        with self._lock:
            payload, needed, shared = pickling.dump_call(call, self._namespace_of)
            return payload, (*self._needs(self._values_of(needed)), *self._ours(shared))

    def share(self, value: object) -> pickling.Shared:
        """A handle that stands for a value, as it is now, in the arguments of calls.

        Raises:
            Exception: Whatever pickling the value raises.
        """
        return self._shared(value, *self.dumps_call(value))

    def shared_if_big(self, value: object) -> object:
        """A handle in place of a value that is too big to travel with each call of many.

        It travels once, and each call gets an object of its own all the same, as if it had come
        with it. Only the big buffers of all these are the same, and read-only.
        """
        kind = type(value)
        if kind is pickling.Shared:
            return value
        if kind in pickling.SIMPLE:
            big = kind in (str, bytes) and len(value) >= BIG  # type: ignore[arg-type]
            return self.share(value) if big else value
        payload, needs = self.dumps_call(value)
        if payload.size_bytes < BIG:
            return value
        template = pickling.pack(pickling.Template(payload.head, *payload.buffers))
        return self._shared(value, template, needs)

    def _shared(
        self, value: object, payload: Payload, needs: tuple[GlobalValue, ...]
    ) -> pickling.Shared:
        name = str(next(self._versions))
        # What becomes of the value's own buffers later does not matter.
        payload = Constant(payload.head, [self.keep(buffer) for buffer in payload.buffers])
        sent = SharedValue(name, payload, self._identity)
        weakref.finalize(sent, self.forgotten.append, name).atexit = False
        return pickling.Shared(value, (*needs, sent))

    def _ours(self, shared: list[GlobalValue]) -> list[GlobalValue]:
        """What handles need, if all of these are ours.

        Workers know handles by names that each table counts for itself: one of another executor
        would stand for whatever has the same name here.
        """
        for each in shared:
            if type(each) is SharedValue and each.table is not self._identity:
                raise ValueError(
                    "a handle goes into the calls of the executor only whose share() made it: "
                    "share its value here too"
                )
        return shared

    def _define(self, function: Any, entry: _Entry | None) -> Definition | None:
        if pickling.travels_by_name(function):
            payload = pickling.dumps(function)
            needed: pickling.Needed = {}
        else:
            inner = function.__wrapped__ if _is_cached(function) else function
            if not isinstance(inner, types.FunctionType) or not _is_plain(inner):
                return None
            payload, needed, _ = pickling.dump_call(function, self._namespace_of)
        watched = self._values_of(needed)
        fingerprint = _fingerprint(payload)
        if entry is not None and entry.fingerprint == fingerprint:
            key = entry.definition.key
        else:
            key = next(self._keys)
        needs = self._needs(watched)
        definition = Definition(key, named(function), constant(payload), needs, places_of(needs))
        if len(self._entries) >= KEPT:
            self._entries.clear()
        self._entries[function] = _Entry(definition, fingerprint, watched)
        return definition

    def _values_of(self, needed: pickling.Needed) -> list[tuple[dict[str, Any], str, _Global]]:
        """The present values of globals, and of those that they need in turn."""
        found = []
        todo, seen = list(needed.items()), set(needed)
        while todo:
            (key, name), namespace = todo.pop()
            value = namespace.get(name, _MISSING)
            if value is _MISSING:  # not defined yet; the worker may define it, or we later
                found.append((namespace, name, _ABSENT))
                continue
            known = self._global(key, name, value)
            found.append((namespace, name, known))
            for item in known.inner.items():
                if item[0] not in seen:
                    seen.add(item[0])
                    todo.append(item)
        return found

    def _global(self, key: pickling.NamespaceKey, name: str, value: object) -> _Global:
        known = self._globals.get((key, name))
        if known is not None and known.stable and known.value is value:
            return known
        try:
            payload, stable = pickling.dumps_named(value), _is_stable(value)
            inner: pickling.Needed = {}
            shared: list[GlobalValue] = []
            if payload is None:
                known_as = self._namespace_of
                payload, inner, shared, alone = pickling.dump_global(name, value, known_as)
                self._ours(shared)
                stable = stable or alone
        except Exception as error:
            raised.add_note(
                error,
                f"while pickling the global variable {name!r} of {key[1]}; what cannot be pickled "
                "can be made in each worker, by an initializer or the function itself",
            )
            raise
        inner.pop((key, name), None)
        fingerprint = _fingerprint(payload)
        if known is not None and known.print_ == fingerprint:
            sent = known.sent
        else:
            sent = GlobalValue(key, name, next(self._versions), constant(payload))
        known = _Global(value, stable, fingerprint, sent, inner, shared)
        self._globals[key, name] = known
        return known

    def _needs(self, values: list[tuple[dict[str, Any], str, _Global]]) -> tuple[GlobalValue, ...]:
        known = [seen for _, _, seen in values if seen is not _ABSENT]
        # A worker rebuilds them in this order: what handles stand for must be there before.
        shared = (each for seen in known for each in seen.shared)
        return tuple(dict.fromkeys((self._sys_path(), *shared, *(seen.sent for seen in known))))

    def _sys_path(self) -> GlobalValue:
        if self._path is None or self._seen_path != sys.path:
            self._seen_path = list(sys.path)
            self._entries.clear()  # they need the path as it was
            path = [*self._seen_path[:1], *self._more_path, *self._seen_path[1:]]
            self._path = GlobalValue(
                _SYS_PATH, "sys.path", next(self._versions), pickling.pack(path)
            )
        return self._path

    def _namespace_of(self, namespace: dict[str, Any]) -> pickling.NamespaceKey:
        found = self._namespaces.get(id(namespace))
        if found is None:
            name = str(namespace.get("__name__", "?"))
            main = sys.modules.get("__main__")
            number = (
                0 if main is not None and namespace is main.__dict__ else len(self._namespaces) + 1
            )
            # The dict is kept too: another one must not come to the same id.
            found = ((number, name), namespace)
            self._namespaces[id(namespace)] = found
        return found[0]


class Known:
    """What one worker has been told, on the client's side; the worker drops the same functions."""

    def __init__(self, table: FunctionTable) -> None:
        self._functions: dict[int, None] = {}
        self._globals: dict[tuple[pickling.NamespaceKey, str], int] = {}
        self._forgotten, self._forgot = table.forgotten, len(table.forgotten)
        # What the last call was, and what it needed. It keeps no shared value.
        self._latest: tuple[Definition | None, tuple[GlobalValue, ...]] = None, ()
        self.carry = carried  # how a payload travels to it: head and buffers, for `pack`

    def news(self, definition: Definition | None, needs: tuple[GlobalValue, ...]) -> list[Any]:
        """What must be sent along before a call, in the form that `Learned.learn` takes."""
        out: list[Any] = []
        if self.is_latest(definition, needs):
            return out  # nearly always
        shared = SharedValue in map(type, needs)
        self._latest = (None, ()) if shared else (definition, needs)
        while self._forgot < len(self._forgotten):
            name = self._forgotten[self._forgot]
            self._forgot += 1
            if self._globals.pop((SHARED, name), None) is not None:
                out.append((SHARED, name, None, []))
        for each in (definition.needs if definition is not None else ()) + needs:
            place = (each.namespace, each.name)
            if self._globals.get(place) != each.version:
                self._globals[place] = each.version
                out.append((each.namespace, each.name, *self.carry(each.payload)))
        if definition is not None and definition.key and definition.key not in self._functions:
            self._functions[definition.key] = None
            out.append((definition.key, None, *self.carry(definition.payload)))
        return out

    def is_latest(self, definition: Definition | None, needs: tuple[GlobalValue, ...]) -> bool:
        """Whether there is no news before such a call, since the last one was such, too."""
        latest, needed = self._latest
        same = latest is definition and needed == needs
        return same and self._forgot == len(self._forgotten)

    def take_back(self, news: list[Any]) -> None:
        """What `news` gave was not sent after all."""
        self._latest = None, ()
        for target, detail, head, _ in news:
            if isinstance(target, int):
                self._functions.pop(target, None)
            elif head is not None:
                self._globals.pop((target, detail), None)
            else:  # that of a handle, which is to be said again
                self._globals[target, detail] = self._forgot = 0

    def forget_old(self) -> None:
        """Before each frame, here and in the worker alike: the oldest functions are dropped."""
        while len(self._functions) > KEPT:
            del self._functions[next(iter(self._functions))]
            self._latest = None, ()


class Learned:
    """What this worker has been told: functions by key, and the namespaces that they share."""

    def __init__(self) -> None:
        self._functions: dict[int, Any] = {0: apply}
        self.failed: dict[tuple[pickling.NamespaceKey, str], BaseException] = {}
        self.own_path: list[str] | None = None  # sys.path of a worker on another machine
        self.constants: Any = None  # …and what its machine has for it: see depot.Constants

    def learn(self, news: list[Any]) -> None:
        """Take in what came along with calls; what cannot be rebuilt fails those that use it."""
        self._forget_old()
        for target, detail, head, buffers in news:
            self.await_constant(head)
            if isinstance(target, int):
                self._functions[target] = _Unread(head, buffers)
                continue
            place = (tuple(target), detail)
            if detail in CLASSIC_NAMES:
                continue
            self.failed.pop(place, None)
            if head is None:
                pickling.namespace(place[0]).pop(detail, None)
                continue
            try:
                value = pickling.loads(self.payload(head, buffers, common=place[0] == SHARED))
            except BaseException as error:  # user code may raise anything while unpickling
                self.failed[place] = error
                continue
            if place[0] == _SYS_PATH:
                if self.own_path is not None:
                    from sleighexec.importer import joined_path

                    value = joined_path(value, self.own_path)
                sys.path[:] = value
            else:
                pickling.namespace(place[0])[detail] = value

    def ready(self, key: int) -> Any:
        """The function with this key, if it was rebuilt already."""
        function = self._functions[key]
        return None if type(function) is _Unread else function

    def function(self, key: int) -> Any:
        """The function with this key.

        Raises:
            BaseException: What unpickling it raised.
        """
        function = self._functions[key]
        if type(function) is _Unread:
            payload = self.payload(function.head, function.buffers, common=True)
            function = self._functions[key] = pickling.loads(payload)
        return function

    def await_constant(self, head: Any) -> None:
        """Wait until it is known where this is, if that is not said here.

        Raises:
            ConnectionLostError: Nobody will say it any more.
        """
        if type(head) is tuple:
            self.constants.wait(head)

    def await_constants(self, head: Any, buffers: list[Any]) -> None:
        """The same, for all of which what has come in the form of `Known.carry` is made."""
        self.await_constant(head)
        for buffer in buffers:
            if type(buffer) is tuple:
                self.constants.wait(buffer[0])

    def payload(self, head: Any, buffers: list[Any], *, common: bool = False) -> Payload:
        """What has come in the form of `Known.carry`. `common`: all calls get the same one."""
        if type(head) is tuple:
            payload: Payload = self.constants.payload(head, buffers, common=common)
            return payload
        if common:
            buffers = [memoryview(buffer).toreadonly() for buffer in buffers]
        elif self.constants is not None:
            buffers = [self._buffer(each) if type(each) is tuple else each for each in buffers]
        return Payload(head, buffers)

    def _buffer(self, reference: tuple[Any, list[int]]) -> Any:
        """A buffer that this machine has already, as if it had come for this call alone."""
        [buffer] = self.constants.payload(*reference, common=False).buffers
        return buffer

    def check(self, places: Places) -> None:
        """Raise what unpickling one of these globals raised, if one could not be rebuilt."""
        for place in places:
            if place in self.failed:
                raise self.failed[place]

    def _forget_old(self) -> None:
        while len(self._functions) > KEPT + 1:
            del self._functions[next(itertools.islice(self._functions, 1, None))]


class _Unread:
    def __init__(self, head: Any, buffers: list[Any]) -> None:
        self.head, self.buffers = head, buffers


def apply(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """How a function that travels with its arguments is called."""
    return function(*args, **kwargs)


class Filled:
    """Arguments that were pickled with gaps, and values for these; a worker unpickles it whole."""

    def __init__(self, payload: Payload, places: list[int | str], values: list[Any]) -> None:
        self._payload, self._places, self._values = payload, places, values

    def __reduce__(self) -> Any:
        # Their buffers go on as they are, beside the pickle that we become a part of.
        buffers = [pickle.PickleBuffer(buffer) for buffer in self._payload.buffers]
        head = pickling.carried(self._payload.head)
        return _fill, (head, buffers, self._places, self._values)


def _fill(head: Any, buffers: list[Any], places: list[int | str], values: list[Any]) -> Any:
    """In the worker: the arguments of a call, positional ones and keywords."""
    args, kwargs = pickling.loads(Payload(head, buffers))
    args = list(args)
    for place, value in zip(places, values):
        if isinstance(place, int):
            args[place] = value
        else:
            kwargs[place] = value
    return tuple(args), kwargs


def carried(payload: Payload) -> tuple[Any, list[Any]]:
    """A payload on its way into `payload.pack`."""
    return pickling.carried(payload.head), [pickling.carried(each) for each in payload.buffers]


def _is_plain(function: types.FunctionType) -> bool:
    """Whether the function is its code and its globals, with nothing of its own that can change."""
    return (
        function.__closure__ is None
        and not function.__dict__
        and not function.__kwdefaults__
        and _all_simple(function)
    )


def _all_simple(function: types.FunctionType) -> bool:
    return all(type(value) in pickling.SIMPLE for value in function.__defaults__ or ())


def _is_cached(value: object) -> TypeGuard[functools._lru_cache_wrapper[Any]]:
    return type(value) is functools._lru_cache_wrapper and hasattr(value, "__wrapped__")


def _is_stable(value: object) -> bool:
    kind = type(value)
    if kind in _STABLE:
        return True
    if _is_cached(value):
        return pickling.travels_by_name(value) or _is_stable(value.__wrapped__)
    if isinstance(value, types.FunctionType):
        return pickling.travels_by_name(value) or _is_plain(value)
    return isinstance(value, type) and pickling.travels_by_name(value)


def _fingerprint(payload: Payload) -> bytes:
    """What tells it from others; nothing that is short needs a digest for that."""
    if len(payload.head) < BRIEF and not payload.buffers:
        return bytes(payload.head)
    import hashlib  # brings in OpenSSL: not for functions that go by their names

    digest = hashlib.blake2b(payload.head, digest_size=16)
    for buffer in payload.buffers:
        digest.update(buffer)
    return digest.digest()
