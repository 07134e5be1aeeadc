"""A variable as a text file: one value for each line, what `makefile` gives back."""

from __future__ import annotations

import contextlib
import io

from sleighexec.errors import NoSuchVariableError
from sleighexec.hints import TYPE_CHECKING, Any
from sleighexec.messages import FIFO

if TYPE_CHECKING:
    from sleighexec.workspace import NetWorkSpace

_END: Any = object()


class TextFile(io.TextIOBase):
    """Text in a FIFO variable, to read, write or append to as to a file of Python.

    Every written line is stored as a value of its own, with its newline; text without one is kept
    back until its newline, `flush` or `close`. Reading takes nothing and does not wait: the end of
    the file is where no value is now, and stays there for this object. What was stored otherwise
    can be read too if it is text.

    Opening declares the variable as a FIFO; "w" deletes it first. There is no position to seek or
    tell. For one thread at a time, as files of Python are.

    Attributes:
        name: The variable.
        mode: "r", "w" or "a".

    Raises, besides what `store` and `findTry` raise:
        ValueError: The file is closed, or not open for this, or a value to read is not text.
        ModeError: The variable has another mode than FIFO.
    """

    def __init__(self, workspace: NetWorkSpace, name: str, mode: str = "r") -> None:
        self.name, self.mode = name, mode
        self._text, self._at = "", 0  # not stored yet; or found, and read by the caller up to here
        if mode not in ("r", "w", "a"):
            raise ValueError(f"a file of text has mode 'r', 'w' or 'a', not {mode!r}")
        self._workspace = workspace
        if mode == "w":
            with contextlib.suppress(NoSuchVariableError):
                workspace.deleteVar(name)
        workspace.declare(name, FIFO)
        self._values = workspace.ifindTry(name)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{state} nws file {self.name!r}, mode {self.mode!r} at {id(self):#x}>"

    def readable(self) -> bool:
        return self.mode == "r"

    def writable(self) -> bool:
        return self.mode != "r"

    def read(self, size: int | None = -1, /) -> str:
        """The next `size` characters, or fewer at the end; all if it is negative or None."""
        return self._take(-1 if size is None else size)

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """The next line with its newline, which only the last one may lack; "" at the end."""
        return self._take(-1 if size is None else size, line=True)

    def write(self, text: str, /) -> int:
        """Store the lines of a text, and keep back what follows the last newline."""
        self._check("wa")
        if not isinstance(text, str):
            raise TypeError(f"write() takes a str, not {type(text).__name__}")
        waiting, start = self._text + text, 0
        try:
            while end := waiting.find("\n", start) + 1:
                self._workspace.store(self.name, waiting[start:end])
                start = end
        finally:
            self._text = waiting[start:]
        return len(text)

    def flush(self) -> None:
        """Store what has no newline yet as a value of its own."""
        if self.closed:
            raise ValueError(f"the file {self.name!r} is closed")
        if self.mode != "r" and self._text:
            self._workspace.store(self.name, self._text)
            self._text = ""

    def _check(self, modes: str) -> None:
        if self.closed:
            raise ValueError(f"the file {self.name!r} is closed")
        if self.mode not in modes:
            raise io.UnsupportedOperation(f"the file {self.name!r} has mode {self.mode!r}")

    def _take(self, size: int, line: bool = False) -> str:
        """The next `size` characters (negative: all), or those of one line."""
        self._check("r")
        self._find(size, line)
        end = len(self._text) if size < 0 else self._at + size
        if line:
            newline = self._text.find("\n", self._at, end)
            end = newline + 1 or end
        text = self._text[self._at : end]
        self._at += len(text)
        return text

    def _find(self, size: int, line: bool) -> None:
        """Look at as many values as that takes, or as there are."""
        parts = [self._text[self._at :]]
        count = len(parts[0])
        try:
            while not 0 <= size <= count and not (line and "\n" in parts[-1]):
                value = next(self._values, _END)
                if value is _END:
                    break
                if not isinstance(value, str):
                    kind = type(value).__name__
                    raise ValueError(f"a value of {self.name!r} is no text, but {kind}")
                parts.append(value)
                count += len(value)
        finally:
            if len(parts) > 1:
                self._text, self._at = "".join(parts), 0
