"""What calls on Dask workers have printed, when their outcome has come: to whoever wants it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence

from sleighexec import payload as pickling
from sleighexec.errors import ServerError, WorkspaceError
from sleighexec.hints import Any
from sleighexec.messages import Store
from sleighexec.output import CAPTURE, KEPT_LINES, PASS
from sleighexec.workspace import NwsServer

log = logging.getLogger("sleighexec")
output_log = logging.getLogger("sleighexec.output")


class Printed:
    """Lines for `output@RANK` of the system's workspace, and for the caller."""

    def __init__(
        self,
        connection: Any,
        workspaces: Sequence[tuple[str, int]],
        url: str | None,
        capture: bool,
        output: str | Callable[[int, str], object],
    ) -> None:
        """`url`: of the server that has the workspaces; None: `connection` has them."""
        self._connection, self._url, self._capture, self._output = connection, url, capture, output
        self._ride, self._number = workspaces[0]
        self._server: NwsServer | None = None

    def tell(self, rank: int, text: bytes) -> None:
        """A call on the worker of this rank has printed this."""
        lines = text.decode("utf-8", "replace").splitlines()
        if self._capture:
            with contextlib.suppress(ServerError, WorkspaceError):  # nobody is there to read them
                self._store(f"output@{rank}", lines)
        if self._output in (PASS, CAPTURE):
            return
        for line in lines:
            try:
                if callable(self._output):
                    self._output(rank, line)
                else:
                    output_log.info("%s", line, extra={"sleigh_worker": rank})
            except Exception:
                log.exception("sleighexec: what a task printed could not be handed on")

    def _store(self, variable: str, lines: list[str]) -> None:
        if self._url is not None and self._server is None:
            self._server = NwsServer(url=self._url)
            self._connection = self._server._connection
            self._number = self._server.useWs(self._ride)._access.number
        values = [pickling.value_payload(line) for line in lines[-KEPT_LINES:]]
        self._connection.call(Store(self._number, variable, values, KEPT_LINES))

    def close(self) -> None:
        """Leave the server."""
        if self._server is not None:
            self._server.close()
