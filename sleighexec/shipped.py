"""In a worker on another machine: modules that only the caller has, one by one as they are needed.

import mymodule ─▶ every other finder first ─▶ Shipped ─▶ Need("mymodule") ─▶ the client
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec

from sleighexec.errors import ConnectionLostError
from sleighexec.hints import Any
from sleighexec.importer import Importer, Source
from sleighexec.messages import Failed, Need, Reply, Values

ASK_AGAIN = 5.0  # seconds after which a module that was not there is asked for again
_NEVER = object()


class Shipped(Importer):
    """The last finder of `sys.meta_path`: what nobody here has, the caller may have."""

    def __init__(self, call: Callable[[Any], Reply]) -> None:
        super().__init__(self._ask)
        self._call = call
        self._process = os.getpid()
        self._asked: dict[str, float] = {}  # module -> when, on the monotonic clock
        self.refused: dict[str, str] = {}  # module -> why the caller does not send it

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As every finder. What the caller did not have it may have later, but not at once."""
        late = time.monotonic() - self._asked.get(name, 0.0) > ASK_AGAIN
        if late and self._sources.get(name, _NEVER) is None:
            del self._sources[name]
        return super().find_spec(name, path, target)

    def _ask(self, name: str) -> Source | None:
        package = name.rpartition(".")[0]
        if package and self._sources.get(package) is None:
            return None  # its package is from here, so it would be here too
        if os.getpid() != self._process or name.partition(".")[0] == "sleighexec":
            return None
        self._asked[name] = time.monotonic()
        try:
            reply = self._call(Need(name))
        except ConnectionLostError:
            return None
        if type(reply) is Failed:
            self.refused[name] = reply.text
        if type(reply) is not Values:
            return None
        is_package, file, text = json.loads(bytes(reply.values[0].head))
        return bool(is_package), str(file), str(text)
