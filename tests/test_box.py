"""A host like a container: files, name, processes and network of its own, and nothing installed.

`docker run -i --network none python:3 {agent}` needs docker; what it does with the kernel needs
root only. This is the same: namespaces of all these kinds, and a root with an interpreter and its
standard library in it, but neither sleighexec nor any package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from sleighexec import Command, SleighExecutor, WorkerLost
from tests.conftest import wait_for

PATIENCE = 60
SYSTEM = ("/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64")


def why_not() -> str | None:
    """Why there can be no such host here; None: there can be."""
    if os.getuid() != 0:
        return "needs root, for namespaces"
    if shutil.which("unshare") is None:
        return "needs unshare: apt-get install util-linux"
    kinds = ["--mount", "--pid", "--fork", "--uts", "--net", "--ipc"]
    if subprocess.run(["unshare", *kinds, "true"], capture_output=True).returncode != 0:
        return "needs namespaces, which this kernel or container does not allow"
    return None


pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.once,
]

# What a container runtime does before it runs the command: its own root, name and processes.
RUN = """\
set -e
hostname box
cd "$BOX"
mount -t tmpfs none .
mkdir -p proc dev tmp python/lib/{python}
for name in {system}; do
    [ -d "$name" ] && ! [ -L "$name" ] || {{ [ -L "$name" ] && cp -a "$name" ".$name"; continue; }}
    mkdir -p ".$name" && mount --rbind "$name" ".$name"
done
mkdir python/bin && cp {binary} python/bin/python3
for name in {libraries}; do cp "$name" python/lib/; done
for name in {standard}/*; do
    case "$name" in */site-packages|*/test|*/__pycache__) continue;; esac
    ln -s "/standard/${{name##*/}}" python/lib/{python}/
done
mkdir standard python/lib/{python}/site-packages && mount --rbind {standard} standard
mount -t tmpfs none standard/site-packages
mount -t proc proc proc
for name in null urandom; do touch dev/$name; mount --bind /dev/$name dev/$name; done
exec chroot . /usr/bin/env -i PATH=/bin:/usr/bin LD_LIBRARY_PATH=/python/lib "$@"
"""


@pytest.fixture
def box(tmp_path: Path) -> Command:
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    prefix = Path(sys.base_prefix)
    script = RUN.format(
        python=python,
        system=" ".join(SYSTEM),
        binary=prefix / "bin" / python,
        libraries=" ".join(map(str, (prefix / "lib").glob("libpython*.so*"))) or "",
        standard=sysconfig.get_path("stdlib", vars={"installed_base": str(prefix)}),
    )
    root = tmp_path / "box"
    root.mkdir()
    words = ["unshare", "--mount", "--pid", "--fork", "--uts", "--net", "--ipc", "--kill-child"]
    words += ["env", f"BOX={root}", "sh", "-c", script, "box", "{agent}"]
    return Command(tuple(words), workers=2, python="/python/bin/python3", name="box")


def test_workers_in_a_box_without_anything_installed(box: Command) -> None:
    # Functions of this module would be sought by its name, and pytest has it from a cache.
    def look() -> dict[str, object]:
        import importlib.util
        import socket

        return {
            "host": socket.gethostname(),
            "root": sorted(os.listdir("/")),
            "packages": [n for n in ("paramiko", "pytest", "pip") if importlib.util.find_spec(n)],
            "first process": Path("/proc/1/comm").read_text().strip() != "",
            "networks": [name for _, name in socket.if_nameindex()],
        }

    def find_x() -> object:
        from sleighexec import current_worker

        return current_worker().workspace.find("x")

    with SleighExecutor(launcher=box) as executor:
        seen = executor.submit(look).result(PATIENCE)
        assert seen["host"] == "box"
        assert "root" not in seen["root"]
        assert "standard" in seen["root"]
        assert seen["packages"] == []
        assert seen["networks"] == ["lo"]
        assert sum(executor.map(abs, range(-1000, 0))) == 500_500
        assert executor.submit(lambda x: x**2, 12).result(PATIENCE) == 144
        executor.workspace.store("x", [1, 2])
        assert executor.submit(find_x).result(PATIENCE) == [1, 2]
        with pytest.raises(ZeroDivisionError):
            executor.submit(lambda: 1 / 0).result(PATIENCE)


def test_a_worker_that_dies_in_a_box_costs_its_call_only(box: Command) -> None:
    with SleighExecutor(launcher=box) as executor:
        assert isinstance(executor.submit(os._exit, 3).exception(PATIENCE), WorkerLost)
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        running = executor.submit(time.sleep, 600)
        wait_for(running.running, "it does not run")
        assert executor.kill(running)
