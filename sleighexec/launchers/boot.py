"""What is said to a shell on another machine so that it becomes an agent.

    ▶ a script for sh: prelude, folder, environment, then Python with the few lines of FIRST
    ◀ whatever a login prints, then a marked line: the version of that Python
    ▶ sleighexec and what it needs, as text
    ◀ the frames of a link (relay.py)

Everything goes over stdin. So the command is the word `sh` and nothing else, which no shell on the
way can misread, and nothing need be installed over there but Python.
"""

from __future__ import annotations

import importlib.util
import json
import re
import select
import shlex
import sys
import time
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from sleighexec.errors import HostError
from sleighexec.hints import Protocol
from sleighexec.importer import MINOR
from sleighexec.streams import Stream

MARK = b"\x02sleighexec python "
LONGEST = 86400.0  # seconds to wait in one go: poll knows no more than some weeks
NOISE = 64 * 1024  # bytes that a login may print before the mark
ENDED = "the command ended before it was an agent"
CARRIED = ("sleighexec", "cloudpickle", "tblib")  # packages of Python text only

# In the words of every Python since 2.7, so that an old one can say what it is.
FIRST = f"""\
import os, sys
sys.path[:] = [entry for entry in sys.path if entry]
os.write(1, b"\\n" + {MARK!r} + ("%d.%d.%d\\n" % sys.version_info[:3]).encode())
def read(count):
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            sys.exit(9)
        data += more
    return data
import json, zlib
names = {{}}
sources = json.loads(zlib.decompress(read(int(read(10)))).decode())
exec(sources["sleighexec.importer"][2], names)
sys.meta_path.insert(0, names["Importer"](sources.get))
del names, sources, read
from sleighexec.outpost import main
main()
"""


def pythons(python: str | None) -> list[str]:
    """The interpreters to try, in this order: what was asked for, or the caller's own kind."""
    if python is not None:
        return [python]
    return [sys.executable, f"python{MINOR}", "python3"]


def script(python: str | None, prelude: str, cwd: str | None, environ: Mapping[str, str]) -> bytes:
    """What the shell is told."""
    lines = []
    if prelude:
        # Neither it nor what it leaves in the background may read what is meant for sh, or write
        # amid our frames. And of comments alone there would be no command.
        lines += ["{", prelude, ":", "} </dev/null >&2"]
    for name, value in environ.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise ValueError(f"no name for an environment variable: {name!r}")
        lines.append(f"export {name}={shlex.quote(value)}")
    if cwd is not None:
        # A folder may be called like an option, and one of $CDPATH is not meant.
        here = "" if cwd.startswith(("/", "~")) else "./"
        lines.append(f"cd {here}{_path(cwd)} || exit 9")
    words = " ".join(map(_path, pythons(python)))
    lines.append(
        f"for python in {words}; do\n"
        '    command -v "$python" >/dev/null 2>&1 || continue\n'
        f'    exec "$python" -c {shlex.quote(FIRST)}\n'
        "done\n"
        f"echo {shlex.quote('no python there: tried ' + words)} >&2\n"
        "exit 127\n"
    )
    return "\n".join(lines).encode()


def _path(path: str) -> str:
    """A word for a shell: what begins with `~` or `~user` is in a home, all else as it stands."""
    home = re.match(r"~[\w.-]*(/|$)|", path, re.ASCII)
    assert home is not None
    rest = path[home.end() :]
    return home[0] + (shlex.quote(rest) if rest or not home[0] else "")  # a quoted ~ is no home


class Place(Protocol):
    """What a launcher says of a place where there is a shell. See `launchers.command.Command`."""

    @property
    def python(self) -> str | None: ...

    @property
    def prelude(self) -> str: ...

    @property
    def cwd(self) -> str | None: ...

    @property
    def env(self) -> Mapping[str, str] | None: ...


def opening(place: Place) -> bytes:
    """What the shell in a place is told. Raises ValueError if it cannot be said."""
    return script(place.python, place.prelude, place.cwd, place.env or {})


@lru_cache(maxsize=1)
def carried() -> bytes:
    """sleighexec and its needs, as they are here."""
    sources: dict[str, tuple[bool, str, str]] = {}
    for package in CARRIED:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        for folder in map(Path, spec.submodule_search_locations or ()):
            for path in sorted(folder.rglob("*.py")):
                parts = (package, *path.relative_to(folder).with_suffix("").parts)
                is_package = parts[-1] == "__init__"
                name = ".".join(parts[:-1] if is_package else parts)
                sources[name] = is_package, str(path), path.read_text(encoding="utf-8")
    data = zlib.compress(json.dumps(sources).encode())
    return b"%010d" % len(data) + data


def talk(host: str, stream: Stream, opening: bytes, deadline: float) -> None:
    """Have the shell at the other end become the far end of a link.

    Args:
        stream: Its stdout and stdin.
        opening: See `script`.
        deadline: When the patience ends, on the monotonic clock.

    Raises:
        HostError: It did not; what it printed may say why.
    """
    _send(host, stream, opening, deadline)
    heard = b""
    while not (found := re.search(re.escape(MARK) + rb"([\d.]+)\n", heard)):
        if len(heard) > NOISE:
            raise HostError(host, f"it prints without end at login: {heard[:200]!r}")
        _wait(host, stream.read_end, select.POLLIN, deadline)
        try:
            data = stream.read(NOISE)
        except (BlockingIOError, InterruptedError):
            continue
        if not data:
            said = heard.decode("utf-8", "replace").strip()
            raise HostError(host, ENDED, said)
        heard += data
    version = found[1].decode()
    if version.rpartition(".")[0] != MINOR:
        raise HostError(
            host,
            f"its Python is {version}, and functions travel only between equal minor versions: "
            f'say python="/path/to/python{MINOR}" for it, or run this program with its version',
        )
    _send(host, stream, carried(), deadline)


def _send(host: str, stream: Stream, data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
        _wait(host, stream.write_end, select.POLLOUT, deadline)
        try:
            view = view[stream.write(view) :]
        except (BlockingIOError, InterruptedError):
            continue
        except OSError:
            return  # what it says last is read next


def _wait(host: str, descriptor: int, events: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, events)
    while not poll.poll(min(max(0.0, deadline - time.monotonic()), LONGEST) * 1000):
        if time.monotonic() >= deadline:
            raise HostError(host, "it did not answer in time; start_timeout gives it longer")
