"""A Slurm to test with: the real one, its daemons run by the tests, one node on this machine; and
a stand-in for `srun` where that is not installed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.hosts import free_port

PATIENCE = 20
THERE = all(shutil.which(name) for name in ("srun", "slurmctld", "slurmd")) and os.getuid() == 0
needs_slurm = pytest.mark.skipif(
    not THERE, reason="named exception: needs root and slurm-wlm, which is big and changes a system"
)

CONFIG = """\
ClusterName=zoo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SlurmUser=root
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=zoo Nodes=ALL Default=YES State=UP
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "spool").mkdir()
    path, host = folder / "slurm.conf", socket.gethostname()
    path.write_text(CONFIG.format(host=host, folder=folder, ports=(free_port(), free_port())))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(path)
    daemons = []
    try:
        for words in (["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            daemons.append(
                subprocess.Popen(
                    [*words, "-f", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
        wait_for(lambda: "idle" in output("sinfo", "-h", "-o", "%T"), "the node is there", 20)
        yield path
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(PATIENCE)
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def run_anywhere(where: str) -> str:
    """What the example prints that runs wherever its argument says."""
    script = Path(__file__).parents[1] / "examples" / "anywhere.py"
    words = [sys.executable, script, where]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE).stdout


# What it knows of srun: the options that come before the command, the environment of a job, and
# that a job whose time is over, or that is cancelled, is killed with all that it has started.
STAND_IN = """\
#!{python}
import os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path({folder!r})
words = sys.argv[1:]
limit = float("inf")
while words[0].startswith("-"):
    word = words.pop(0)
    if word == "--partition=nowhere":
        sys.exit("srun: error: Unable to allocate resources: Invalid partition name specified")
    if word.startswith("--time="):
        minutes, _, rest = word.removeprefix("--time=").partition(":")
        limit = time.monotonic() + int(minutes) * 60 + int(rest or 0)
number = str(os.getpid())
environ = {{**os.environ, "SLURM_JOB_ID": number}}
job = subprocess.Popen(words, env=environ, start_new_session=True)
def end(*_):
    os.killpg(job.pid, signal.SIGKILL)
for name in (signal.SIGTERM, signal.SIGINT):
    signal.signal(name, end)
(folder / "jobs" / number).touch()
while job.poll() is None:
    if time.monotonic() > limit or not (folder / "jobs" / number).exists():
        text = f"slurmstepd: error: *** STEP {{number}}.0 CANCELLED ***"
        print(text, file=sys.stderr, flush=True)
        end()
        job.wait()
    time.sleep(0.02)
(folder / "jobs" / number).unlink(missing_ok=True)
sys.exit(job.returncode if job.returncode >= 0 else 128 - job.returncode)
"""


class Real:
    """Slurm itself."""

    def jobs(self) -> list[str]:
        return output("squeue", "-h", "-o", "%i").split()

    def cancel(self) -> None:
        output("scancel", "-u", "root")


class StandIn:
    """A script of the name `srun`, first in the path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "jobs").mkdir()
        script = folder / "srun"
        script.write_text(STAND_IN.format(python=sys.executable, folder=str(folder)))
        script.chmod(0o755)

    def jobs(self) -> list[str]:
        return [path.name for path in (self._folder / "jobs").iterdir()]

    def cancel(self) -> None:
        for path in (self._folder / "jobs").iterdir():
            path.unlink()
