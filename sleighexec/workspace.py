"""The workspace as a person holds it: named variables to store to, fetch from and look into.

    NwsServer ── openWs / useWs ──▶ NetWorkSpace ── store / fetch / find ──▶ any Connection

Names and behaviour follow NetWorkSpaces; what differs on purpose is in docs/explanation/space.md.
Every object here may be used by several threads at once, also while one of them is blocked.
"""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Iterable

from sleighexec.access import Access, Connection, ask, checked, embedded, flush, seconds
from sleighexec.client import LAST_SECONDS
from sleighexec.errors import OperationUnknownError, WorkspaceError
from sleighexec.files import check_binary, read_up_to
from sleighexec.hints import Any
from sleighexec.iterators import ValueIterator
from sleighexec.listings import (
    DICT,
    STRING,
    V_FETCHERS,
    V_FINDERS,
    V_MODE,
    V_VALUES,
    V_VARIABLE,
    WS_MINE,
    WS_NAME,
    WS_NUMVARS,
    WS_OWNER,
    WS_PERSISTENT,
    WS_VARLIST,
    variables,
    workspaces,
)
from sleighexec.loans import Borrowed
from sleighexec.messages import (
    DEFAULT_PORT,
    FIFO,
    LIFO,
    MODES,
    MULTI,
    SINGLE,
    Declare,
    DeleteVariable,
    DeleteWorkspace,
    Fetch,
    Find,
    Listing,
    ListVariables,
    ListWorkspaces,
    MakeTemporary,
    Open,
    Opened,
    Payload,
    Store,
    Values,
)
from sleighexec.textfile import TextFile

MOST_BYTES = 8 * 1024 * 1024  # of values in one frame, after which it takes no further one
STORED = 4 * 1024  # bytes that one counts for, beside its own
MAX_FETCHED = 5_000  # values in one frame


class NwsServer:
    """A connection to a workspace server, and what can be asked of the server as a whole.

    Args:
        host, port: Of a server on this machine that listens on TCP.
        url: Instead of these, its URL or connection file; "unix" for the Unix socket of this user's
            server.

    Attributes:
        url: Where it is; None if it is the server of an executor.

    Raises:
        ConnectError: There is no server of this user.
        AuthenticationError: It has another key.
        ValueError, TypeError: That is no URL of a server, or no port.

    It can be pickled: into the tasks of the executor whose server it is; or anywhere if it has a
    URL: where it is unpickled it connects anew then, and is to be closed there too.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = DEFAULT_PORT,
        *,
        url: str | os.PathLike[str] | None = None,
        connection: Connection | None = None,
        shared: bool = False,
    ) -> None:
        """`connection`, if there is one already; `shared`: others use it too, never close it."""
        self.url = None
        if connection is None:
            from sleighexec.dial import connect  # most have a connection: no need to load this

            connection = connect(url if url is not None else f"sleigh://{host}:{port}")
            self.url = str(connection)
        self._connection, self._shared = connection, shared

    def __enter__(self) -> NwsServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"NwsServer {self._connection}"

    __repr__ = __str__

    def openWs(self, wsName: str, *, persistent: bool = False, create: bool = True) -> NetWorkSpace:
        """The workspace of this name, made if it is not there, owned by us if it has no owner.

        A workspace ends with its owner's connection unless it is `persistent`.

        Raises:
            NoSuchWorkspaceError: There is none and `create` is false.
        """
        return NetWorkSpace(wsName, server=self, persistent=persistent, create=create)

    def useWs(self, wsName: str, *, create: bool = True) -> NetWorkSpace:
        """The workspace of this name, without ever owning it."""
        return NetWorkSpace(wsName, server=self, useUse=True, create=create)

    def deleteWs(self, wsName: str) -> None:
        """Delete a workspace with all its values; whoever is blocked in it gets an error.

        Raises:
            NoSuchWorkspaceError: There is none.
        """
        ask(self._connection, DeleteWorkspace(checked(wsName)))

    def listWss(self, format: str = STRING) -> Any:
        """The workspaces: as text, a line each; or as a dict of tuples (see WS_NAME and on).

        A line has `>` (ours) or a blank, the name, the owner, whether it is persistent, how many
        variables it has and their names, separated by tabs.
        """
        listing = ask(self._connection, ListWorkspaces())
        assert isinstance(listing, Listing)
        return workspaces(listing.rows, format)

    def mktempWs(self, wsName: str = "__pyws__%d") -> str:
        """Make an unowned workspace with a new name, `wsName` % number; the name."""
        template = MakeTemporary(checked(wsName), f"__{os.urandom(3).hex()}")
        reply = ask(self._connection, template)
        assert isinstance(reply, Opened)
        return reply.name

    def close(self) -> None:
        """Leave the server: our workspaces are deleted, blocked calls end. Twice is allowed.

        Does nothing to the connection of an executor or a worker, which others use too.

        Raises:
            WorkspaceError: What was stored without waiting for it did not come to its end: see
                `NetWorkSpace.flush`. The connection is closed all the same.
        """
        if not self._shared:
            try:
                flush(self._connection, None, LAST_SECONDS)
            finally:
                self._connection.close()

    def __reduce__(self) -> Any:
        if self.url is not None:
            return functools.partial(type(self), url=self.url), ()
        if embedded.get(self._connection.space) is not self._connection:
            raise TypeError(
                "a server without a URL cannot be sent; tasks have current_worker().workspace"
            )
        return _of_executor, (type(self), self._connection.space)

    def _open(self, name: str, *, own: bool, persistent: bool, create: bool) -> Access:
        owner = f"{os.uname().nodename} ({os.getpid()})"
        reply = ask(self._connection, Open(checked(name), own, persistent, create, owner))
        assert isinstance(reply, Opened)
        return Access(self._connection, reply.workspace, name)


class NetWorkSpace:
    """Named variables that tasks, workers and clients share.

    `store` puts a value into a variable, `fetch` takes one out, `find` looks at it; the latter
    two wait until there is one, their `Try` forms do not. A variable is a queue (`FIFO`, the
    default), a stack (`LIFO`), a bag (`MULTI`: any value) or one value that is replaced (`SINGLE`).

    Args:
        wsName: The workspace; it is opened, and made if it is not there.
        serverHost, serverPort: Of the server, if `server` is not given.
        server: A connection that exists already.
        useUse: Never own the workspace, so that it stays when we leave.
        persistent: It stays although we own it.
        create: Make it if it is not there.

    It can be pickled as its server can, and be an argument of a task. Where it is unpickled the
    workspace is used without being owned; NoSuchWorkspaceError if it is gone.
    """

    def __init__(
        self,
        wsName: str = "__default",
        serverHost: str = "localhost",
        serverPort: int = DEFAULT_PORT,
        useUse: bool = False,
        server: NwsServer | None = None,
        persistent: bool = False,
        create: bool = True,
        *,
        number: int | None = None,
    ) -> None:
        """`number`: of a workspace that the server has given us already; it is not opened again."""
        self.server = server if server is not None else NwsServer(serverHost, serverPort)
        self.curWs = wsName
        if number is not None:
            self._access = Access(self.server._connection, number, wsName)
            return
        try:
            self._access = self.server._open(
                wsName, own=not useUse, persistent=persistent, create=create
            )
        except BaseException:
            if server is None:
                self.server.close()
            raise

    def __enter__(self) -> NetWorkSpace:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"NetWorkSpace {self.curWs!r} [{self.server}]"

    __repr__ = __str__

    def __reduce__(self) -> Any:
        return _used_again, (type(self), self.curWs, self.server)

    def currentWs(self) -> str:
        """The name of this workspace."""
        return self.curWs

    def close(self) -> None:
        """Leave the server of this workspace."""
        self.server.close()

    # ------------------------------------------------------------------ values

    def store(
        self,
        varName: str,
        val: object,
        *,
        keep: int | None = None,
        again: OperationUnknownError | None = None,
        wait: bool = True,
    ) -> None:
        """Put a value into a variable, as it is now; who waited for one gets it at once.

        A variable that nobody declared is a FIFO.

        Args:
            varName: The variable.
            val: The value.
            keep: Afterwards at most so many values stay in the variable, and the oldest go: a log
                that does not grow. None: all stay.
            again: The error of an earlier try, over a connection that is lost now: then nothing is
                stored if the value of that time is there.
            wait: Until the server says that it has the value. If not, the value is on its way: it
                comes before whatever this thread does next in the workspaces of this server, but
                what goes wrong is only heard of later: see `flush`. Many times as fast.

        Raises:
            ValuePicklingError: It cannot be pickled; nothing was stored.
            OperationUnknownError: The connection was lost meanwhile; `again` takes this error.
            OperationError: With `again`: the server does not know what became of that store.
                Without `wait`: an earlier store into this workspace was refused, and this one was
                not sent.
        """
        keep = _checked_keep(keep)
        payload = self._access.payload(checked(varName), val)
        request = Store(self._access.number, varName, (payload,), keep)
        if wait or again is not None:
            self._access.ask(request, again)
        else:
            self._access.send(request)

    def flush(self) -> None:
        """Wait until the server has all that was stored here without waiting for it.

        `close` does the same for all workspaces of a connection.

        Raises:
            OperationError: It was refused, since the workspace was deleted, or the server is full.
                This is the error of the first of them.
            ConnectionLostError: The server went away. Some may have been stored.
        """
        self._access.flush()

    def storeMany(self, varName: str, values: Iterable[object], *, keep: int | None = None) -> None:
        """Put values into a variable, in their order: what so many calls of `store` do, faster.

        They travel many at a time, and others may store in between. `keep` is as in `store`.

        Raises:
            ValuePicklingError: One cannot be pickled; those before it may have been stored.
        """
        keep = _checked_keep(keep)
        name, batch, room = checked(varName), list[Payload](), MOST_BYTES
        payload_of = self._access.payload
        for value in values:
            payload = payload_of(name, value)
            batch.append(payload)
            room -= STORED + (payload.size_bytes if payload.buffers else len(payload.head))
            if room < 0:
                self._access.ask(Store(self._access.number, name, batch, keep))
                batch, room = [], MOST_BYTES
        if batch:
            self._access.ask(Store(self._access.number, name, batch, keep))

    def fetchMany(self, varName: str, count: int, *, timeout: float | None = None) -> list[Any]:
        """Take up to `count` values: those that are there, once there is one.

        Where others wait for values too, or have borrowed some, it is a fair share of them.

        Args:
            varName: The variable.
            count: How many at most.
            timeout: Seconds to wait for the first one; 0 tries once, None waits for ever.

        Returns:
            The values, at least one, in the order in which so many fetches would have got them.

        Raises:
            TimeoutError: No value came in time. Nothing was taken.
            ValueUnpicklingError: One cannot be rebuilt in this process. All of them are gone.
        """
        if (count := int(operator.index(count))) < 1:
            raise ValueError(f"count must be at least 1, not {count}")
        request = self._fetch(varName, timeout)
        request.count = min(count, MAX_FETCHED)
        return self._access.values(self._access.wait(request))

    def fetch(self, varName: str, *, timeout: float | None = None) -> Any:
        """Take the next value out of a variable.

        Args:
            varName: The variable; it need not exist yet.
            timeout: Seconds to wait; 0 tries once, None waits for ever.

        Raises:
            TimeoutError: No value came in time. Nothing was taken.
            DeletedError: The variable or the workspace was deleted while we waited.
            ValueUnpicklingError: The value cannot be rebuilt in this process. It is gone.
            ConnectionLostError: The server went away.

        Blocks the calling thread only.
        """
        return self._access.value(self._access.wait(self._fetch(varName, timeout)))

    def fetchTry(self, varName: str, missing: object = None) -> Any:
        """Take the next value if there is one now, else `missing`."""
        reply = self._access.get(self._fetch(varName, 0))
        return missing if reply is None else self._access.value(reply)

    def find(self, varName: str, *, timeout: float | None = None) -> Any:
        """Look at the value that `fetch` would take; waits as `fetch` does, takes nothing."""
        return self._access.value(self._access.wait(self._find(varName, timeout)))

    def findTry(self, varName: str, missing: object = None) -> Any:
        """Look at the next value if there is one now, else `missing`."""
        reply = self._access.get(self._find(varName, 0))
        return missing if reply is None else self._access.value(reply)

    def borrow(self, varName: str, *, timeout: float | None = None) -> Borrowed:
        """Take the next value on loan: it comes back if this process dies before it is settled.

        Waits as `fetch` does and raises what `fetch` raises; but a value that cannot be rebuilt
        in this process goes back.
        """
        reply = self._access.wait(self._fetch(varName, timeout, lend=True))
        return Borrowed(self._access, reply)

    # ------------------------------------------------------------------ iterators

    def ifetch(self, varName: str, *, timeout: float | None = None) -> ValueIterator:
        """An iterator that takes each value, and waits for the next one; `timeout` is per step."""
        return ValueIterator(self._access, Fetch, checked(varName), seconds(timeout))

    def ifetchTry(self, varName: str) -> ValueIterator:
        """An iterator that takes each value, and stops when there is none."""
        return ValueIterator(self._access, Fetch, checked(varName), tries=True)

    def ifind(self, varName: str, *, timeout: float | None = None) -> ValueIterator:
        """An iterator that looks at each value, and waits for the next one; `timeout` is per step.

        It sees values that were stored before it began and are still there, oldest first.
        """
        return ValueIterator(self._access, Find, checked(varName), seconds(timeout))

    def ifindTry(self, varName: str) -> ValueIterator:
        """An iterator that looks at each value, and stops when there is no other."""
        return ValueIterator(self._access, Find, checked(varName), tries=True)

    # ------------------------------------------------------------------ files

    def makefile(self, varName: str, mode: str = "r") -> TextFile:
        """The variable as a file of text, open to read ("r"), write ("w") or append ("a")."""
        return TextFile(self, checked(varName), mode)

    def storeFile(self, varName: str, fobj: Any, n: int = 0) -> int:
        """Store the next `n` bytes of a binary file, 0: all the rest, as one value of bytes.

        Returns:
            How many bytes that were. At the end of the file it is 0, and nothing is stored; so
            `while ws.storeFile(name, file, n=size): pass` stores it in pieces.

        Raises:
            TypeError: It is a file of text.
        """
        name = checked(varName)
        data = read_up_to(fobj, n)
        if data:
            self.store(name, data)
        return len(data)

    def fetchFile(self, varName: str, fobj: Any, *, timeout: float | None = None) -> int:
        """Take the next value and write it to a binary file; waits as `fetch` does.

        Bytes are written as they are, text as UTF-8, and anything else as its pickle.

        Returns:
            How many bytes were written.

        Raises:
            TypeError: It is a file of text. Nothing was taken.
            Exception: Whatever writing raises. The value is back, first in line.
        """
        check_binary(fobj)
        return self._fetch_into(fobj, self._access.wait(self._fetch(varName, timeout, lend=True)))

    def fetchTryFile(self, varName: str, fobj: Any) -> int:
        """As `fetchFile` if there is a value now, else False."""
        check_binary(fobj)
        reply = self._access.get(self._fetch(varName, 0, lend=True))
        return False if reply is None else self._fetch_into(fobj, reply)

    def findFile(self, varName: str, fobj: Any, *, timeout: float | None = None) -> int:
        """As `fetchFile`, but the value stays where it is."""
        check_binary(fobj)
        return self._access.write(self._access.wait(self._find(varName, timeout)), fobj)

    def findTryFile(self, varName: str, fobj: Any) -> int:
        """As `findFile` if there is a value now, else False."""
        check_binary(fobj)
        reply = self._access.get(self._find(varName, 0))
        return False if reply is None else self._access.write(reply, fobj)

    # ------------------------------------------------------------------ variables

    def declare(self, varName: str, mode: str) -> None:
        """Give a variable its mode: FIFO, LIFO, MULTI or SINGLE. Again the same is fine.

        Raises:
            ModeError: It has another mode already.
            ValueError: There is no such mode.
        """
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        self._access.ask(Declare(self._access.number, checked(varName), mode))

    def deleteVar(self, varName: str) -> None:
        """Delete a variable with its values; who is blocked at it gets DeletedError.

        Iterators over it stop.

        Raises:
            NoSuchVariableError: There is none.
        """
        self._access.ask(DeleteVariable(self._access.number, checked(varName)))

    def listVars(self, wsName: str | None = None, format: str = STRING) -> Any:
        """The variables: as text, a line each; or as a dict of tuples (see V_VARIABLE and on).

        A line has name, number of values, of blocked fetchers and finders, and the mode,
        separated by tabs.

        Args:
            wsName: Another workspace of the same server instead of this one.
            format: STRING or DICT.

        Raises:
            NoSuchWorkspaceError: There is none of that name.
        """
        if wsName is not None:
            return self.server.useWs(wsName, create=False).listVars(format=format)
        listing = self._access.ask(ListVariables(self._access.number))
        assert isinstance(listing, Listing)
        return variables(listing.rows, format)

    # ------------------------------------------------------------------ how

    def _fetch(self, name: str, timeout: float | None, lend: bool = False) -> Fetch:
        return Fetch(self._access.number, (checked(name),), 1, seconds(timeout), lend)

    def _find(self, name: str, timeout: float | None) -> Find:
        return Find(self._access.number, (checked(name),), seconds(timeout))

    def _fetch_into(self, fobj: Any, reply: Values) -> int:
        """Write a lent value to a file, and let it go when it is there."""
        try:
            count = self._access.write(reply, fobj)
        except BaseException:
            self._access.give_back(reply.loan)
            raise
        self._access.settle(reply.loan)
        return count


def _checked_keep(keep: int | None) -> int | None:
    if keep is not None and (keep := int(operator.index(keep))) < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    return keep


def _of_executor(cls: type[NwsServer], space: str) -> NwsServer:
    """What the server of an executor is unpickled to: this process's own connection to it."""
    connection = embedded.get(space)
    if connection is None:
        raise WorkspaceError(
            "this workspace belongs to another executor; a task reaches its own executor's only, "
            "and those of servers that have a URL"
        )
    return cls(connection=connection, shared=True)


def _used_again(cls: type[NetWorkSpace], name: str, server: NwsServer) -> NetWorkSpace:
    """An unpickled workspace; its server has been unpickled with it, for it."""
    try:
        return cls(name, server=server, useUse=True, create=False)
    except BaseException:
        server.close()
        raise


__all__ = [
    "DICT",
    "FIFO",
    "LIFO",
    "MULTI",
    "SINGLE",
    "STRING",
    "V_FETCHERS",
    "V_FINDERS",
    "V_MODE",
    "V_VALUES",
    "V_VARIABLE",
    "WS_MINE",
    "WS_NAME",
    "WS_NUMVARS",
    "WS_OWNER",
    "WS_PERSISTENT",
    "WS_VARLIST",
    "NetWorkSpace",
    "NwsServer",
]
