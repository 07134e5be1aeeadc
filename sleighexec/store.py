"""What a server keeps in a file of its persistent workspaces, and finds there when it starts.

    before a value is in the space  ─▶ Store     a record of the log, see logfile.py
    when it has left it for good    ─▶ Settle    (a loan that can come back is no end)
    workspaces, modes, deletions    ─▶ Open, Declare, DeleteVariable, DeleteWorkspace

The records are frames of the wire with numbers of the file's own: each value and each workspace has
one. The space knows nothing of all that: its requests are done here, then there, and its account
tells which values have gone. Values stay bytes.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from sleighexec import wire
from sleighexec.errors import DamagedStoreError, ProtocolError, WorkspaceFullError
from sleighexec.hints import Any
from sleighexec.logfile import LogFile
from sleighexec.messages import (
    FIFO,
    UNKNOWN,
    Declare,
    DeleteVariable,
    DeleteWorkspace,
    Failed,
    Open,
    Settle,
    Store,
)
from sleighexec.space import Space, Workspace

ALWAYS, SECOND, NEVER = "always", "second", "never"  # when to see that all is on the disk
SYNC_SECONDS = 1.0
COMPACT_AT = 4 * 1024 * 1024  # bytes of records that are of no use, from which on it is rewritten

log = logging.getLogger("sleighexec")


class _Found:
    """A workspace as the file has it."""

    def __init__(self, opened: Open) -> None:
        self.opened = opened
        self.modes: dict[str, str] = {}
        self.values: dict[str, dict[int, Any]] = {}  # variable -> number -> value


class FileStore:
    """The persistent workspaces of one space, in a file. Used under the server's lock.

    Raises:
        DamagedStoreError: The file is damaged elsewhere than at its end.
        OSError: It cannot be used, or another server has it.
    """

    def __init__(self, path: str, sync: str = SECOND) -> None:
        if sync not in (ALWAYS, SECOND, NEVER):
            raise ValueError(f'sync must be "always", "second" or "never", not {sync!r}')
        self._log, self._sync = LogFile(Path(path).absolute()), sync
        self._numbers = itertools.count(1)
        self._values: dict[int, tuple[int, int]] = {}  # id of a value -> its number, bytes
        self._workspaces: dict[int, int] = {}  # number in the space -> number in the file
        self._live = 0  # bytes of the records of values that are there
        self._unwritten: deque[Any] = deque()  # records that there was no room for
        self._compact_at = 0
        self._error: OSError | None = None  # the disk has failed
        self._dirty = False
        self._guard = threading.Lock()  # of the log, between us and who has it written to disk
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ finding

    def fill(self, space: Space) -> None:
        """Put into the space what the file has.

        Raises:
            WorkspaceFullError: It is more than the space may keep.
        """
        for number, workspace in self._read().items():
            self._restore(space, number, workspace)
        if self._log.dropped:
            text = "sleighexec: the last %d bytes of %s were torn and are dropped"
            log.warning(text, self._log.dropped, self._log.path)
        space.disconnect(self)
        self.compact_if_useful(space)
        if self._sync == SECOND:
            self._thread = threading.Thread(
                target=self._sync_often, name="sleigh-store", daemon=True
            )
            self._thread.start()

    def _read(self) -> dict[int, _Found]:
        found: dict[int, _Found] = {}
        places: dict[int, dict[int, Any]] = {}  # number of a value -> where it is
        last = 0
        for count, data in enumerate(self._log.read(), 1):
            try:
                [(tag, message)] = wire.Decoder().feed(data)
                kind = type(message)
                if kind is Open:
                    found[tag] = _Found(message)
                elif kind is Store:
                    workspace = found[message.workspace]
                    workspace.modes.setdefault(message.variable, FIFO)  # also when it is empty
                    values = workspace.values.setdefault(message.variable, {})
                    for number, value in enumerate(message.values, tag):
                        values[number], places[number] = value, values
                        last = max(last, number)
                elif kind is Settle:
                    places.pop(message.loan, {}).pop(message.loan, None)
                elif kind is Declare:
                    found[message.workspace].modes[message.variable] = message.mode
                elif kind is DeleteVariable:
                    found[message.workspace].modes.pop(message.variable, None)
                    found[message.workspace].values.pop(message.variable, None)
                elif kind is DeleteWorkspace:
                    found = {n: w for n, w in found.items() if w.opened.name != message.name}
                last = max(last, tag)
            except (ProtocolError, ValueError, KeyError) as error:
                text = f"it is no record of a store: {error!r}"
                raise DamagedStoreError(str(self._log.path), count, 0, text) from error
        self._numbers = itertools.count(last + 1)
        return found

    def _restore(self, space: Space, number: int, found: _Found) -> None:
        def ask(request: Any) -> Any:
            reply = space.apply(self, 0, request, 0)[0][2]
            if type(reply) is Failed:
                raise WorkspaceFullError(f"{self._log.path}: {reply.text}")
            return reply

        workspace = ask(found.opened).workspace
        self._workspaces[workspace] = number
        for name, mode in found.modes.items():
            ask(Declare(workspace, name, mode))
        for name, values in found.values.items():
            for value_number, value in values.items():
                self._know(value, value_number, value.size_bytes)
                ask(Store(workspace, name, (value,)))

    # ------------------------------------------------------------------ keeping

    def keeps(self, workspace: int) -> bool:
        """Whether the workspace of this number is in the file."""
        return workspace in self._workspaces

    def store(self, message: Store) -> None:
        """Values are about to be stored in a workspace that is kept.

        Raises:
            OSError: They cannot be written: nothing was.
        """
        self._write_values(self._workspaces[message.workspace], message.variable, message.values)

    def gone(self, values: Iterable[Any]) -> None:
        """These values have left the space."""
        ends = []
        for value in values:
            number, size = self._values.pop(id(value), (0, 0))
            if number:
                self._live -= size
                ends.append(Settle(number, 1))
        self._note(*ends)

    def declared(self, message: Declare) -> None:
        number = self._workspaces[message.workspace]
        self._note(Declare(number, message.variable, message.mode))

    def variable_deleted(self, message: DeleteVariable) -> None:
        self._note(DeleteVariable(self._workspaces[message.workspace], message.variable))

    def workspace_deleted(self, number: int, name: str) -> None:
        del self._workspaces[number]
        self._note(DeleteWorkspace(name))

    def adopt(self, space: Space, workspace: Workspace) -> None:
        """A workspace is persistent from now on.

        Raises:
            OSError: What is in it cannot be written.
        """
        known = self._known()
        try:
            self._catch_up()
            self._write_workspace(self._log, workspace, space.lent_values())
            self._written()
        except OSError:
            self._values, self._workspaces, self._live = known
            self._note(DeleteWorkspace(workspace.name))
            raise

    # ------------------------------------------------------------------ writing

    def _write_values(self, number: int, variable: str, values: Any) -> None:
        if self._error is not None:
            # A new one: to the same one each try would add its frames, and with them the values.
            raise OSError(*self._error.args)
        self._catch_up()
        first = next(self._numbers)
        for _ in values[1:]:
            next(self._numbers)
        size = self._log.append(wire.encode(first, Store(number, variable, values)))
        try:
            self._written()
        except OSError:
            self._log.take_back(size)  # it is refused, so the next start is not to find it
            raise
        for value_number, value in enumerate(values, first):
            self._know(value, value_number, size // len(values))

    def _known(self) -> tuple[dict[int, tuple[int, int]], dict[int, int], int]:
        """What is known now of the file, to be known again if something fails."""
        return dict(self._values), dict(self._workspaces), self._live

    def _know(self, value: Any, number: int, size: int) -> None:
        self._values[id(value)] = number, size
        self._live += size

    def _note(self, *messages: Any) -> None:
        """Write small records; if there is no room, as soon as there is."""
        is_first = not self._unwritten
        self._unwritten.extend(messages)
        try:
            self._catch_up()
        except OSError as error:
            if is_first:
                log.warning("sleighexec: %s cannot be written to: %s", self._log.path, error)

    def _catch_up(self) -> None:
        if not self._unwritten:
            return
        while self._unwritten:
            self._log.append(wire.encode(0, self._unwritten[0]))
            self._unwritten.popleft()
        self._written()  # of all of them at once: a disk takes its time

    def _written(self) -> None:
        self._dirty = True
        if self._sync == ALWAYS:
            self._force()

    def _force(self) -> None:
        """Return when all is on the disk.

        Raises:
            OSError: The disk has failed: what was said to be stored may not be. We take no more,
                for another try would only say that there is nothing left to be written.
        """
        try:
            self._log.sync()
        except OSError as error:
            if self._error is None:
                log.critical("sleighexec: %s is not safe on its disk: %s", self._log.path, error)
            self._error = error
            raise

    def _write_workspace(self, file: LogFile, workspace: Workspace, lent: Any) -> None:
        number = next(self._numbers)
        opened = Open(workspace.name, True, True, True, workspace.owner_text)
        file.append(wire.encode(number, opened))
        for variable in workspace.variables.values():
            if variable.mode != UNKNOWN:
                file.append(wire.encode(0, Declare(number, variable.name, variable.mode)))
            for value in variable.with_lent(lent.get(variable, ())):
                value_number = next(self._numbers)
                frame = wire.encode(value_number, Store(number, variable.name, (value,)))
                old = self._values.pop(id(value), (0, 0))
                self._live -= old[1]
                self._know(value, value_number, file.append(frame))
        self._workspaces[workspace.number] = number

    def compact_if_useful(self, space: Space) -> None:
        """Write the file anew if most of it is of no use."""
        useless = self._log.size - self._live
        if useless < COMPACT_AT + self._live or self._log.size < self._compact_at:
            return
        known = self._known()
        try:
            self._write_anew(space)
        except OSError as error:
            self._values, self._workspaces, self._live = known
            self._compact_at = self._log.size + COMPACT_AT
            log.warning("sleighexec: %s could not be written anew: %s", self._log.path, error)

    def _write_anew(self, space: Space) -> None:
        """Write what is there to a file beside the present one, and put it in its place.

        Raises:
            OSError: That cannot be done; the present file is as it was.
        """
        path = self._log.path.with_name(f"{self._log.path.name}.new")
        path.unlink(missing_ok=True)
        new = LogFile(path)
        try:
            for _ in new.read():
                pass
            lent = space.lent_values()
            for workspace in space.persistent():
                self._write_workspace(new, workspace, lent)
            with self._guard:
                new.take_place_of(self._log)
                old, self._log = self._log, new
        except BaseException:
            new.close()
            path.unlink(missing_ok=True)
            raise
        old.close()
        self._unwritten.clear()

    # ------------------------------------------------------------------ on the disk, and the end

    def _sync_often(self) -> None:
        while not self._closed.wait(SYNC_SECONDS):
            if self._dirty:
                self._dirty = False
                try:
                    with self._guard:
                        self._force()
                except OSError:
                    return

    def close(self) -> None:
        """Write what is left. After the server. Twice is allowed."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._catch_up()
            if self._sync != NEVER:
                self._log.sync()
        except OSError as error:
            log.warning("sleighexec: %s cannot be written to: %s", self._log.path, error)
        self._log.close()
