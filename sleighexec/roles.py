"""What the peers of a server that listens may ask for, each by its role.

client    everything
worker    everything but to delete a workspace that it does not own: it runs other people's code
monitor   how the server is, and nothing else
"""

from __future__ import annotations

import json
from collections.abc import Callable

from sleighexec.connections import Connection, Handler
from sleighexec.errors import AuthenticationError
from sleighexec.hints import Any
from sleighexec.messages import DeleteWorkspace, Failed, Payload, Status, Values
from sleighexec.session import CLIENT, MONITOR, ROLE_NAMES, WORKER

Facts = Callable[[], dict[str, Any]]  # how a server is; called under its lock


def admit_by_role(facts: Facts, serve: Handler) -> Callable[[Connection, int], None]:
    """What `Server.listen` is to do with who has shown a key: a workspace server's way.

    `serve`: does what somebody who may ask for anything asks for, the state of the server too.
    """

    def worker(connection: Connection, tag: int, message: Any) -> None:
        if type(message) is DeleteWorkspace and not owns(connection, message.name):
            text = f"a worker may not delete {message.name!r}, which is not its own"
            connection.deliver(tag, Failed("role", text))
        else:
            serve(connection, tag, message)

    handlers = {CLIENT: serve, WORKER: worker, MONITOR: monitor(facts)}

    def admit(connection: Connection, role: int) -> None:
        connection.handler = handlers[role]

    return admit


def monitor(facts: Facts) -> Callable[[Connection, int, Any], None]:
    """The handler of one who only looks."""

    def handle(connection: Connection, tag: int, message: Any) -> None:
        if type(message) is not Status:
            raise AuthenticationError("the key of a monitor was used for more than looking")
        state(connection, tag, facts)

    return handle


def state(connection: Connection, tag: int, facts: Facts) -> None:
    """Say how the server is, as JSON."""
    connection.deliver(tag, Values((Payload(json.dumps(facts()).encode()),)))


def refused(role: int) -> AuthenticationError:
    """The error of who shows a good key at a door that is not for its role."""
    return AuthenticationError(f"a {ROLE_NAMES[role]} has no business here")


def owns(connection: Connection, name: str) -> bool:
    """Whether a workspace is that of a client."""
    return connection.server.space.owner(name) is connection
