"""What no worker can import, by value: cloudpickle's pickler, and what it does not do.

    class of a script  ─▶ with its slots, and its own locks; at home nothing of it is changed
    @lru_cache         ─▶ its function; each process keeps one cache, empty at first
    @singledispatch    ─▶ its functions, and the classes that they are for
    @cached_property   ─▶ without the lock that it has before Python 3.12

Imported only when something travels by value: cloudpickle takes longer to import than all of ours.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import pickle
import sys
import types
import typing
import weakref
from collections.abc import Callable

from cloudpickle import cloudpickle

from sleighexec.fresh import UNMARKED, own_ones
from sleighexec.fresh import own as own
from sleighexec.hints import Any

names_of_globals = cloudpickle._extract_code_globals
parts_of_code = cloudpickle._code_reduce


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, and what it does not do."""

    whole = False  # classes that came from another process as if they were at home here

    def reducer_override(self, value: Any) -> Any:
        """How to make this again; NotImplemented: as the plain pickle has it."""
        kind = type(value)
        reduce = _REDUCERS.get(kind)
        if reduce is not None:
            return reduce(value)
        if issubclass(kind, type):
            return _reduce_class(value) if self.whole else _reduce_known_class(value)
        if isinstance(value, types.FunctionType):
            if value.__code__ is _DISPATCHER and not goes_by_name(value):
                return _reduce_dispatcher(value)
            return self._function_reduce(value)
        return NotImplemented

    def _dynamic_function_reduce(self, function: types.FunctionType) -> Any:
        made = super()._dynamic_function_reduce(function)
        slots = made[2][1]
        slots["__globals__"] = own_ones(slots["__globals__"])
        return made


def goes_by_name(value: Any) -> bool:
    """Whether a function, a class or a cache of a function can be imported elsewhere."""
    found = cloudpickle._lookup_module_and_qualname(value, name=value.__qualname__)
    return found is not None and not cloudpickle._is_registered_pickle_by_value(found[0])


def home_of(name: str, value: object) -> str | None:
    """The module from which others can import this under this name; None: there is none."""
    for module_name, module in list(sys.modules.items()):
        if (
            getattr(module, "__dict__", {}).get(name) is value
            and module.__dict__.get("__spec__") is not None  # or no file is behind it
            and module_name not in ("__main__", "__mp_main__")
            and not cloudpickle._is_registered_pickle_by_value(module)
        ):
            return module_name
    return None


class Imported:
    """Stands in a pickle for what a module has under a name."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __reduce__(self) -> Any:
        return _imported, (self._module, self._name)


def _imported(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


# ------------------------------------------------------------------ classes

# Classes, and functions with caches, that came from another process, and whether they are complete;
# all others are at home here.
_foreign: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def _reduce_class(cls: type) -> Any:
    slots = cls.__dict__.get("__slots__")
    if isinstance(slots, str) and slots.startswith("__"):
        # cloudpickle looks for it among the attributes, and there it has another name.
        args = cloudpickle._class_getnewargs(cls)
        make, attributes = cloudpickle._make_skeleton_class, cloudpickle._extract_class_dict(cls)
    else:
        made = cloudpickle._class_reduce(cls)
        if made is NotImplemented or len(made) < 3:
            return made
        make, args, (attributes, _), *_ = made
    if slots is not None and make is cloudpickle._make_skeleton_class:
        # A NamedTuple forbids it, and has no slots by itself.
        if typing.NamedTuple not in cls.__dict__.get("__orig_bases__", ()):
            args[3]["__slots__"] = _slots_of(cls)
        attributes = {k: v for k, v in attributes.items() if not _is_slot(cls, v)}
    state = own_ones(attributes), cls not in _foreign
    return _make_class, (make, args), state, None, None, _set_attributes


def _reduce_known_class(cls: type) -> Any:
    """How a class goes back: as the one that is known there, with a copy for those who lack it.

    The methods may use what this process has made in its globals, and that cannot be pickled; it
    would do nothing at home.
    """
    if not _foreign.get(cls):
        return _reduce_class(cls)
    mark, copy = cloudpickle._get_or_create_tracker_id(cls), None
    with contextlib.suppress(Exception), io.BytesIO() as file:
        pickler = Pickler(file, pickle.HIGHEST_PROTOCOL)
        pickler.whole = True
        pickler.dump(cls)
        copy = file.getvalue()
    return _known_class, (mark, cls.__qualname__, copy)


def _known_class(mark: str, name: str, copy: bytes | None) -> Any:
    known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(mark)
    if known is not None:
        return known
    if copy is None:
        raise pickle.UnpicklingError(
            f"the class {name} is not known here, and could not be pickled where it comes from"
        )
    return pickle.loads(copy)


def _is_slot(cls: type, attribute: Any) -> bool:
    """Whether this is what Python has made of a slot of the class."""
    kinds = (types.MemberDescriptorType, types.GetSetDescriptorType)
    return isinstance(attribute, kinds) and attribute.__objclass__ is cls


def _slots_of(cls: type) -> tuple[str, ...]:
    """The slots as the class has them: private ones under their full names."""
    return tuple([name for name, value in cls.__dict__.items() if _is_slot(cls, value)])


def _make_class(make: Callable[..., type], args: tuple[Any, ...]) -> type:
    known: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(args[-2])
    if known is not None:
        return known
    made = make(*args)
    _foreign[made] = False
    return made


def _set_attributes(cls: type, state: tuple[dict[str, Any], bool]) -> None:
    """Only where a class is at home it can become another one: what others say comes second."""
    attributes, from_home = state
    complete = _foreign.get(cls)
    if complete is None or (complete and not from_home):
        return
    for name in [name for name, value in attributes.items() if isinstance(value, UNMARKED)]:
        if name in cls.__dict__:  # this process has its own by now
            del attributes[name]
    cloudpickle._class_setstate(cls, (attributes, {}))
    _foreign[cls] = True


def reduce_with_own(value: Any) -> Any:
    """How to make an object again, where the locks and their kind that it has are made there."""
    made = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    if isinstance(made, str) or len(made) < 3:
        return made
    make, args, state, *rest = made
    if type(state) is dict:
        state = own_ones(state)
    elif type(state) is tuple:  # attributes, and slots
        state = tuple([own_ones(part) if type(part) is dict else part for part in state])
    return make, args, state, *rest


# ------------------------------------------------------------------ functools


def _reduce_cached(cached: Any) -> Any:
    if goes_by_name(cached):
        return NotImplemented
    function, parameters = cached.__wrapped__, cached.cache_parameters()
    state = {k: v for k, v in vars(cached).items() if k not in ("__wrapped__", "cache_parameters")}
    # A closure is taken as it is at each call, and so is a cache of what it returns.
    free = getattr(getattr(function, "__code__", None), "co_freevars", ())
    mark = cloudpickle._get_or_create_tracker_id(cached) if set(free) <= {"__class__"} else None
    return _make_cached, (function, parameters, mark), state, None, None, _set_cached


def _make_cached(function: Any, parameters: dict[str, Any], mark: str | None) -> Any:
    known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(mark)
    if known is not None:
        return known
    made = functools.lru_cache(**parameters)(function)
    _foreign[made] = False
    return made if mark is None else cloudpickle._lookup_class_or_track(mark, made)


def _set_cached(cached: Any, attributes: dict[str, Any]) -> None:
    if cached in _foreign:
        vars(cached).update(attributes)


# The code that all functions of singledispatch have in common.
_DISPATCHER = functools.singledispatch(len).__code__  # type: ignore[attr-defined]
_DISPATCHER_PARTS = ("register", "dispatch", "registry", "_clear_cache", "__wrapped__")


def _reduce_dispatcher(function: Any) -> Any:
    names = {k: getattr(function, k) for k in functools.WRAPPER_ASSIGNMENTS if hasattr(function, k)}
    others = {k: v for k, v in vars(function).items() if k not in _DISPATCHER_PARTS}
    state = dict(function.registry), {**names, **others}
    return functools.singledispatch, (function.__wrapped__,), state, None, None, _set_dispatched


def _set_dispatched(function: Any, state: tuple[dict[type, Any], dict[str, Any]]) -> None:
    registry, attributes = state
    for cls, one in registry.items():
        function.register(cls, one)
    for name, value in attributes.items():
        setattr(function, name, value)


def _reduce_cached_property(value: Any) -> Any:
    state = {k: v for k, v in vars(value).items() if k != "lock"}
    return functools.cached_property, (value.func,), state


def _reduce_dispatcher_method(value: Any) -> Any:
    # Python 3.13 has weak references in it besides.
    return functools.singledispatchmethod, (value.func,), {"dispatcher": value.dispatcher}


_REDUCERS: dict[type, Callable[[Any], Any]] = {
    functools._lru_cache_wrapper: _reduce_cached,
    functools.cached_property: _reduce_cached_property,
    functools.singledispatchmethod: _reduce_dispatcher_method,
}
