"""Where the workspaces of an executor on a Dask cluster are."""

from __future__ import annotations

import random
from collections.abc import Sequence

from sleighexec.access import embedded
from sleighexec.address import TLS, Address
from sleighexec.clerk import Clerk
from sleighexec.engines.dask.reach import machine
from sleighexec.importer import MINOR
from sleighexec.inprocess import LocalConnection
from sleighexec.limits import Limits
from sleighexec.messages import Open, Opened
from sleighexec.roles import admit_by_role
from sleighexec.server import Server
from sleighexec.session import WORKER, new_key
from sleighexec.space import Space
from sleighexec.standalone import bound
from sleighexec.version import __version__


class House:
    """The two workspaces of an executor: in this process, where workers reach them; or elsewhere.

    Attributes:
        workspaces: Their names, and numbers in our own space.
        setup: What a worker must know of the executor.
    """

    def __init__(self, host: str, names: Sequence[str], address: Address | None, name: str) -> None:
        """`host`: where we are to listen; `address`: of the server that has them instead."""
        self.server = Server(Space(choose=random.randrange), name=f"{name}-server")
        self.connection = LocalConnection(self.server)
        self.workspaces: list[tuple[str, int]] = [(each, 0) for each in names]
        identity: str | None = None
        if address is None:
            embedded[self.connection.space] = self.connection
            for number, each in enumerate(names):
                [(_, _, opened)] = self.server.space.apply(self, 0, Open(each, own=False), 0)
                assert type(opened) is Opened
                self.workspaces[number] = each, opened.workspace
            address = self._listen(host).only_for(WORKER)
            identity = self.server.identity
        self.setup = {
            "versions": (__version__, MINOR),
            "machine": machine(),
            "address": address.parts(),
            "space": identity,
            "workspaces": list(names),
        }

    def _listen(self, host: str) -> Address:
        """Have the server listen where workers of the cluster come from."""
        # Where nobody else is, on the loopback; else with TLS, as `bound` has it.
        listener, url = bound(f"{host}:0")
        fingerprint, context = b"", None
        if url.startswith(TLS):
            from sleighexec.tls import Certificate

            certificate = Certificate()
            fingerprint, context = certificate.fingerprint, certificate.context
        address = Address(url, new_key(), fingerprint)
        admit = admit_by_role(dict, Clerk().serve)
        self.server.listen(
            listener, address.key, address.binding, Limits(), admit=admit, context=context
        )
        self.server.start()
        return address
