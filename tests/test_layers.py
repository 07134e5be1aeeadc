"""The ladder of the architecture: a file imports only from rows above its own; some stay pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1] / "sleighexec"
FILES = sorted(ROOT.rglob("*.py"))

LADDER = [
    "version",
    "hints",
    "importer",
    "errors",
    "broken",
    "forks",
    "interrupts",
    "elements",
    "words",
    "messages",
    "resources",
    "limits",
    "ledger",
    "space",
    "wire",
    "logfile",
    "store",
    "session",
    "fresh",
    "byvalue",
    "payload",
    "runs",
    "raised",
    "functions",
    "scripting",
    "task",
    "workerinfo",
    "address",
    "segments",
    "tls",
    "streams",
    "tlsstream",
    "client",
    "borrowing",
    "dial",
    "files",
    "listings",
    "access",
    "iterators",
    "loans",
    "textfile",
    "workspace",
    "connections",
    "polling",
    "server",
    "inprocess",
    "roles",
    "clerk",
    "standalone",
    "output",
    "introduction",
    "channels",
    "relay",
    "shipped",
    "records",
    "depot",
    "context",
    "journal",
    "failures",
    "outcomes",
    "farewell",
    "worker",
    "repeats",
    "newborn",
    "child",
    "agent",
    "outpost",
    "join",
    "launchers",
    "engines",
    "future",
    "dependencies",
    "progress",
    "mapping",
    "gathering",
    "pending",
    "each",
    "options",
    "maps",
    "views",
    "executor",
    "sleigh",
    "nws",
    "__init__",
    "doctor",
    "monitor",
    "cli",
    "conformance",
    "__main__",
]

PURE = {"errors", "elements", "messages", "space", "wire", "session", "payload", "task"}
PURE |= {"files", "ledger", "limits", "listings", "resources", "runs"}
IMPURE = {
    "asyncio",
    "multiprocessing",
    "os",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
}
# They are heavy to import, or need not be there: only the file that uses one knows it.
ONE_HOME = {"cloudpickle", "cryptography", "tblib", "paramiko", "distributed", "dask"}
ONE_HOME |= {"tqdm", "rich"}

# errors gives out the errors of broken as its own, by name and when asked.
LAZY_EXPORTS = {("errors", "broken")}


def rung(path: Path) -> str:
    """The row of the ladder that a file belongs to; a package is one row."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement that can run, also inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            for other in node.orelse:
                yield from imports(ast.Module([other], []))
        else:
            yield from imports(node)


@cache
def imported(path: Path) -> tuple[str, ...]:
    """The modules that a file imports, by their full names."""
    return tuple(names_in(path))


def names_in(path: Path) -> Iterator[str]:
    for node in imports(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
        assert node.module is not None
        if node.module == "sleighexec":  # its modules, or names of the package itself
            for alias in node.names:
                known = (ROOT / f"{alias.name}.py").exists() or (ROOT / alias.name).is_dir()
                yield f"sleighexec.{alias.name if known else '__init__'}"
        else:
            yield node.module


by_path = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def test_every_file_has_its_rung_and_every_rung_a_file():
    assert {rung(path) for path in FILES} == set(LADDER)


@by_path
def test_imports_point_up_the_ladder(path):
    own = rung(path)
    above = LADDER[: LADDER.index(own)]
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top != "sleighexec":
            continue
        part = rest.split(".")[0] or "__init__"
        lazy = (own, part) in LAZY_EXPORTS
        assert part in above or part == own or lazy, f"{own} imports {part}, which is below it"


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_file_knows_no_socket_thread_clock_or_process(name):
    found = {module.partition(".")[0] for module in imported(ROOT / f"{name}.py")}
    assert not found & IMPURE


@pytest.mark.parametrize("library", sorted(ONE_HOME))
def test_an_optional_library_is_imported_in_one_file_at_most(library):
    homes = [path for path in FILES if library in {n.partition(".")[0] for n in imported(path)}]
    assert len(homes) <= 1, f"{library} is imported in {homes}"


def test_an_import_for_type_checkers_only_does_not_count(tmp_path):
    text = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\nelse:\n    import b\n"
    )
    path = tmp_path / "x.py"
    path.write_text(text + "def f():\n    from sleighexec import wire, SleighExecutor\n")
    expected = ["typing", "b", "sleighexec.wire", "sleighexec.__init__"]
    assert [*imported(path)] == expected
