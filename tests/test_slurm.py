"""Workers in jobs of a real Slurm: its daemons run in this test, one node on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleighexec import Command, PoolBrokenError, SleighExecutor, WorkerLost
from tests.conftest import wait_for
from tests.hosts import free_port

PATIENCE = 20
THERE = all(shutil.which(name) for name in ("srun", "slurmctld", "slurmd")) and os.getuid() == 0
pytestmark = pytest.mark.skipif(
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
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
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


def output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE).stdout


def test_workers_run_in_a_job_that_ends_with_them(slurm: Path) -> None:
    with SleighExecutor(launcher=Command("srun -u -n1 {agent}", workers=2)) as executor:
        jobs = executor.eachWorker(os.getenv, "SLURM_JOB_ID")
        assert jobs[0] is not None
        assert jobs[0] == jobs[1]
        assert list(executor.map(abs, range(-500, 0))) == list(range(500, 0, -1))
    wait_for(lambda: output("squeue", "-h") == "", "no job is left")


def test_a_cancelled_job_is_noticed_at_once_and_another_one_begins(slurm: Path) -> None:
    with SleighExecutor(launcher=Command("srun -u -n1 {agent}")) as executor:
        running = executor.submit(time.sleep, 60)
        wait_for(running.running, "it runs")
        began = time.monotonic()
        output("scancel", "-u", "root")
        assert isinstance(running.exception(PATIENCE), WorkerLost)
        assert time.monotonic() - began < 3
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_what_slurm_says_is_in_the_error(slurm: Path) -> None:
    with SleighExecutor(launcher=Command("srun -u -n1 -p nowhere {agent}")) as executor:
        error = executor.submit(abs, -1).exception(PATIENCE)
    assert isinstance(error, PoolBrokenError)
    assert "invalid partition" in str(error)


def test_who_does_not_wait_for_a_job_that_waits_leaves_none_behind(slurm: Path) -> None:
    with SleighExecutor(launcher=Command("srun -u -n1 -c2 --begin=now+1hour {agent}")) as executor:
        future = executor.submit(abs, -1)
        wait_for(lambda: output("squeue", "-h") != "", "it is in the queue")
        executor.shutdown(cancel_futures=True)
        assert future.cancelled()
    wait_for(lambda: output("squeue", "-h") == "", "no job is left")
