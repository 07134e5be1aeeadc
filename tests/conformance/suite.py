"""Finds CPython's own tests of `concurrent.futures`, wherever an interpreter of ours keeps them.

Most installations ship them as `test.test_concurrent_futures`. Some leave them out; then those of
Debian's `libpython3.x-testsuite` or of a neighbouring interpreter are taken: the same minor
version, or 3.13's for 3.12, whose executor is the same.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import shutil
import sys
import sysconfig
import tempfile
import types
from pathlib import Path

PARTS = ("test_init", "test_shutdown", "test_wait", "test_as_completed", "test_process_pool")
MIXINS = (  # the classes that, mixed with an executor, make tests
    "InitializerMixin",
    "FailingInitializerMixin",
    "ProcessPoolShutdownTest",
    "WaitTests",
    "AsCompletedTests",
    "ProcessPoolExecutorTest",
    "ExecutorDeadlockTest",
)

path_entry = ""  # what scripts must have on sys.path to import the suite, if anything


def _foreign_folders() -> list[Path]:
    minor = sys.version_info[1]
    folders = []
    for version in (minor, 13) if minor == 12 else (minor,):
        name = f"python3.{version}"
        folders += [
            Path("/usr/lib") / name / "test",
            *sorted(Path(sys.base_prefix).parent.glob(f"3.{version}*/lib/{name}/test")),
        ]
    return [path for path in folders if list(path.glob("test_concurrent_futures*"))]


def _assemble(folder: Path) -> Path:
    """A folder with a package `test` made of a foreign suite and the support modules it needs."""
    made = Path(tempfile.mkdtemp(prefix="sleighexec-suite-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    package = made / "test"
    own = Path(sysconfig.get_path("stdlib")) / "test"
    same_version = f"python3.{sys.version_info[1]}" in str(folder)
    source = own if same_version and (own / "support").exists() else folder
    shutil.copytree(source / "support", package / "support")
    shutil.copy(source / "__init__.py", package)
    for path in folder.glob("test_concurrent_futures*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, package / path.name)
    return made


def load() -> list[types.ModuleType]:
    """The modules of CPython's suite, or none where it cannot be found."""
    global path_entry
    if importlib.util.find_spec("test") is None:
        return []
    if importlib.util.find_spec("test.test_concurrent_futures") is None:
        folders = _foreign_folders()
        if not folders:
            return []
        path_entry = str(_assemble(folders[0]))
        sys.path.insert(0, path_entry)  # workers and scripts follow
        for name in [name for name in sys.modules if name.split(".")[0] == "test"]:
            del sys.modules[name]
    package = importlib.import_module("test.test_concurrent_futures")
    if not hasattr(package, "__path__"):
        return [package]
    parts = (*PARTS, "test_deadlock")
    return [importlib.import_module(f"{package.__name__}.{part}") for part in parts]
