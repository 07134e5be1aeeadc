"""Imports of modules whose source comes from somewhere else than a file of this machine.

An agent on another machine has sleighexec and its needs from the client, and its workers ask the
client for modules that only it has. This file imports nothing of sleighexec: its own text is the
first thing that travels.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

# Whether it is a package, the file that it was read from over there, and its text.
Source = tuple[bool, str, str]

MINOR = ".".join(map(str, sys.version_info[:2]))  # functions travel between equal ones only


class Importer:
    """A finder and loader for `sys.meta_path`."""

    def __init__(self, source_of: Callable[[str], Source | None]) -> None:
        """`source_of`: the source of a module by its full name, None if there is none."""
        self._source_of = source_of
        self._sources: dict[str, Source | None] = {}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """What the import system asks: how is this module to be had?"""
        if name not in self._sources:
            self._sources[name] = self._source_of(name)
        source = self._sources[name]
        if source is None:
            return None
        spec = ModuleSpec(name, self, origin=source[1], is_package=source[0])  # type: ignore[arg-type]
        spec.has_location = True  # a traceback that is shown where the file is has its lines
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The usual module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the source."""
        source = self._sources[module.__name__]
        assert source is not None
        exec(compile(source[2], source[1], "exec", dont_inherit=True), module.__dict__)

    def is_package(self, name: str) -> bool:
        """Whether the module is a package."""
        source = self._sources.get(name)
        return source is not None and source[0]

    def get_source(self, name: str) -> str | None:
        """The text, for tracebacks and inspect."""
        source = self._sources.get(name)
        return None if source is None else source[2]


def joined_path(path: list[str], own: list[str]) -> list[str]:
    """The `sys.path` of a worker on another machine: the caller's folders that are here too, ours.

    Another machine has its own standard library and its own installed packages; what it may share
    with the caller's machine are folders of the user.
    """
    user = [
        entry
        for entry in path
        if entry not in own and is_users(entry) and os.path.isdir(entry or ".")
    ]
    return user + own


def is_users(entry: str) -> bool:
    """Whether a folder of `sys.path` is neither the standard library nor one of installations."""
    parts = entry.replace(os.sep, "/").split("/")
    return not {"site-packages", "dist-packages", "lib-dynload", f"python{MINOR}"} & {*parts}
