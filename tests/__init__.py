"""The tests.

A worker imports a test's module for the sake of one function in it. What the module needs only to
be a test takes half a second there, many thousand times in a run of all tests: where nobody runs
tests, nothing stands in for it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Base:
    TestCase: Any = None  # of a state machine


class _Nothing(ModuleType):
    """A module, or whatever is taken from it or made by it, that nobody will use."""

    def __init__(self, name: str = "nothing") -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: object, **kwargs: object) -> Any:
        return self

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        return (_Base,)

    def __or__(self, other: object) -> Any:
        return self


if "_pytest" not in sys.modules:
    for _name in ("pytest", "hypothesis", "hypothesis.strategies", "hypothesis.stateful"):
        sys.modules.setdefault(_name, _Nothing(_name))
