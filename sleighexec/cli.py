"""The command line: `sleighexec server`, `worker` and so on; also `python -m sleighexec`."""

from __future__ import annotations

import argparse
import ast
import io
import json
import signal
import sys
import threading

from sleighexec import __version__
from sleighexec.access import ask
from sleighexec.errors import SleighError
from sleighexec.hints import Any
from sleighexec.messages import Status, Values
from sleighexec.session import MONITOR
from sleighexec.standalone import WorkspaceServer
from sleighexec.store import ALWAYS, NEVER, SECOND
from sleighexec.workspace import DICT, NetWorkSpace, NwsServer


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(prog="sleighexec", description="Workspaces for tasks and people.")
    top.add_argument("--version", action="version", version=f"sleighexec {__version__}")
    commands = top.add_subparsers(dest="command", required=True)

    server = commands.add_parser("server", help="run a workspace server until it is interrupted")
    server.add_argument(
        "--bind",
        default="unix",
        metavar="WHERE",
        help="unix (default), the path of a Unix socket, or HOST:PORT",
    )
    server.add_argument("--json", action="store_true", help="print the URL as JSON")
    server.add_argument(
        "--max-bytes", type=int, metavar="N", help="of all values (default: half of the memory)"
    )
    server.add_argument(
        "--max-connections", type=int, metavar="N", help="of clients (default: 10000)"
    )

    server.add_argument("--store", metavar="FILE", help="keep persistent workspaces in this file")
    server.add_argument(
        "--sync",
        choices=(SECOND, ALWAYS, NEVER),
        default=SECOND,
        help="when to force the file to the disk: once a second (default), always, or never",
    )

    worker = commands.add_parser("worker", help="join the pool of an executor that listens")
    worker.add_argument("where", metavar="URL-OR-FILE", help="-: such a file on standard input")
    worker.add_argument("--workers", type=int, default=1, metavar="N", help="at most (default: 1)")
    worker.add_argument(
        "--resource",
        action="append",
        default=[],
        metavar="NAME=N",
        help="what each of them has, such as gpu=1",
    )

    status = commands.add_parser("status", help="say how a server or executor is")
    status.add_argument("where", nargs="?", default="unix", metavar="URL-OR-FILE")
    status.add_argument("--json", action="store_true", help="print for a program to read")

    monitor = commands.add_parser("monitor", help="show how a server or executor is, all the time")
    monitor.add_argument("where", nargs="?", default="unix", metavar="URL-OR-FILE")
    monitor.add_argument(
        "--every", type=_seconds, default=1.0, metavar="SECONDS", help="between looks (default: 1)"
    )

    doctor = commands.add_parser("doctor", help="check this machine, and log in to others")
    doctor.add_argument("hosts", nargs="*", metavar="HOST", help="as in nodes=[…]")
    doctor.add_argument("--json", action="store_true", help="print for a program to read")

    ws = commands.add_parser("ws", help="look into the workspaces of a server")
    ws.add_argument("--url", help="of the server; default: the Unix socket of this user")
    ws.add_argument("--json", action="store_true", help="print for a program to read")
    verbs = ws.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="the workspaces")
    for verb, text in (("vars", "the variables of a workspace"), ("delete", "delete a workspace")):
        verbs.add_parser(verb, help=text).add_argument("workspace")
    for verb, text in (
        ("store", "store a Python literal, or else text"),
        ("fetch", "take a value"),
        ("find", "look at a value"),
    ):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("workspace")
        sub.add_argument("variable")
        if verb == "store":
            sub.add_argument("value")
        else:
            sub.add_argument("--timeout", type=float, metavar="SECONDS")
    return top


def _seconds(text: str) -> float:
    """What an option that takes a number of seconds, above 0, was given."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status."""
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that it has no letters for
    try:
        return _COMMANDS[options.command](options)
    except (SleighError, OSError, ValueError) as error:
        print(f"sleighexec: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _server(options: argparse.Namespace) -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with WorkspaceServer(
        options.bind,
        max_bytes=options.max_bytes,
        max_connections=options.max_connections,
        store=options.store,
        sync=options.sync,
    ) as server:
        text = json.dumps({"url": server.url}) if options.json else f"serving at {server.url}"
        print(text, flush=True)
        server.on_failure = stop.set
        if server.failure is None:
            stop.wait()
    if server.failure is not None:
        print(f"sleighexec: the server ended by an error: {server.failure!r}", file=sys.stderr)
        return 1
    return 0


def _worker(options: argparse.Namespace) -> int:
    from sleighexec.join import join

    resources = {}
    for text in options.resource:
        name, equals, count = text.partition("=")
        if not equals or not count.isdigit():
            raise ValueError(f"--resource takes NAME=N, not {text!r}")
        resources[name] = int(count)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    return join(options.where, options.workers, resources, say)


def _status(options: argparse.Namespace) -> int:
    from sleighexec.dial import connect

    connection = connect(options.where, MONITOR)
    try:
        reply = ask(connection, Status())
    finally:
        connection.close()
    assert isinstance(reply, Values)
    facts = json.loads(bytes(reply.values[0].head))
    if options.json:
        print(json.dumps(facts))
        return 0
    rows = facts.pop("workers", [])
    for name, fact in facts.items():
        print(f"{name.replace('_', ' ')}: {fact}")
    for row in rows:
        print("worker " + " ".join(f"{name}={fact}" for name, fact in row.items()))
    return 0


def _monitor(options: argparse.Namespace) -> int:
    from sleighexec.monitor import watch

    watch(options.where, options.every, sys.stdout)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from sleighexec.doctor import examine

    findings = []
    for finding in examine(options.hosts):
        findings.append(finding)
        if not options.json:
            print(
                f"{'ok  ' if finding.well else 'FAIL'} {finding.check}: {finding.text}", flush=True
            )
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings]))
    return 0 if all(finding.well for finding in findings) else 1


def _workspace(options: argparse.Namespace) -> int:
    with NwsServer(url=options.url or "unix") as server:
        if options.verb == "list":
            _show(options, server.listWss(DICT), server.listWss)
            return 0
        if options.verb == "delete":
            server.deleteWs(options.workspace)
            return 0
        store = options.verb == "store"
        # What is stored by hand stays when this command ends.
        workspace = NetWorkSpace(options.workspace, server=server, useUse=True, create=store)
        if options.verb == "vars":
            _show(options, workspace.listVars(format=DICT), workspace.listVars)
        elif store:
            workspace.store(options.variable, _literal(options.value))
        elif options.verb == "find":
            _show_value(options, workspace.find(options.variable, timeout=options.timeout))
        else:
            with workspace.borrow(options.variable, timeout=options.timeout) as lent:
                _show_value(options, lent.value)  # it is taken when it is written
    return 0


def _show_value(options: argparse.Namespace, value: object) -> None:
    print(json.dumps(value, default=repr) if options.json else repr(value), flush=True)


def _show(options: argparse.Namespace, table: dict[str, Any], text: Any) -> None:
    if options.json:
        print(json.dumps(table))
    elif table:
        print(text().rstrip("\n"))


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


_COMMANDS = {
    "server": _server,
    "worker": _worker,
    "status": _status,
    "monitor": _monitor,
    "doctor": _doctor,
    "ws": _workspace,
}
