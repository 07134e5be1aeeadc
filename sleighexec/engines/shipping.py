"""On the client: the source of a module that a worker on another machine lacks, or why not."""

from __future__ import annotations

import importlib.machinery
import json
import sys
from importlib.machinery import ModuleSpec, PathFinder

from sleighexec.hints import Any
from sleighexec.importer import is_users
from sleighexec.messages import Failed, Nothing, Payload, Reply, Values


def source_for(module: str, ship: str | tuple[str, ...] | None) -> Reply:
    """The answer to a worker's Need. Nothing is imported here for it.

    Args:
        module: Its full name.
        ship: The `ship` of the worker's launcher.
    """
    try:
        spec = _spec(module)
    except Exception as error:
        return Failed("module", f"the caller's own import system failed: {error!r}")
    if spec is None or spec.origin in ("built-in", "frozen"):
        return Nothing()
    remedy = "install it there"
    if not ship:
        return Failed("module", f'{remedy}, or let the caller send it: ship="auto"')
    named = ship != "auto" and module.partition(".")[0] in ship
    if not named and not (ship == "auto" and is_users(spec.origin or "")):
        return Failed("module", f"{remedy}, or name it in ship=(…) if it is Python text only")
    if spec.loader is None:  # a folder without __init__.py
        return _answer(True, "", "")
    loader: Any = spec.loader
    text = None
    if hasattr(loader, "get_source") and not isinstance(
        loader, importlib.machinery.ExtensionFileLoader
    ):
        text = loader.get_source(module)
    if text is None:
        return Failed("module", f"{remedy}: the caller's is no Python text ({spec.origin})")
    return _answer(spec.submodule_search_locations is not None, spec.origin or "", text)


def _answer(is_package: bool, file: str, text: str) -> Values:
    return Values((Payload(json.dumps((is_package, file, text)).encode()),))


def _spec(module: str) -> ModuleSpec | None:
    """How the caller would import it, found without importing its packages."""
    path: Any = None
    name, spec = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        known = getattr(sys.modules.get(name), "__spec__", None)
        spec = known or PathFinder.find_spec(name, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and name != module:
            return None
    return spec
