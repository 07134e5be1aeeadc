"""Clusters of Dask as the how-to makes them: by ssh, and in jobs of Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.clusters import needs_slurm, slurm
from tests.hosts import Hosts, why_no_namespaces, why_not

__all__ = ["slurm"]

needs_ssh = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

pytestmark = [pytest.mark.once, pytest.mark.timeout(300)]

WORK = """
    with SleighExecutor(engine=cluster, min_workers=2, start_timeout=100) as executor:
        assert list(executor.map(abs, range(-100, 0))) == list(range(100, 0, -1))
        executor.eachWorker(lambda: current_worker().state.update(here=True))
        print(executor.eachElem(lambda n: (n * n, current_worker().state), [1, 2, 3]))
        executor.workspace.store("there", 4)
        print(executor.submit(lambda: current_worker().workspace.fetch("there")).result())
"""
DONE = "[(1, {'here': True}), (4, {'here': True}), (9, {'here': True})]\n4\n"


def printed(program: str, folder: Path) -> str:
    """What a program prints that makes a `cluster`, with which WORK is done."""
    script = folder / "program.py"
    script.write_text(textwrap.dedent(program) + WORK)
    words = [sys.executable, script]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=250, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_slurm
def test_workers_of_dask_in_jobs_of_slurm(slurm: Path, tmp_path: Path) -> None:
    program = f"""
    from dask_jobqueue import SLURMCluster
    from sleighexec import SleighExecutor, current_worker

    with SLURMCluster(
        cores=1,
        processes=1,
        memory="1GB",
        walltime="00:05:00",
        python={sys.executable!r},
    ) as cluster:
        cluster.scale(jobs=2)
    """
    assert printed(program, tmp_path) == DONE


@needs_ssh
def test_workers_of_dask_on_a_host_by_ssh(tmp_path: Path) -> None:
    hosts = Hosts(real=os.getuid() == 0 and why_no_namespaces() is None)
    try:
        here = hosts["hippo"].address  # Dask would take that of the loopback: there is no route
        program = f"""
        from distributed import SSHCluster
        from sleighexec import SleighExecutor, current_worker

        with SSHCluster(
            ["hippo"] * 3,
            connect_options={{
                "config": [{str(hosts.config)!r}],
                "known_hosts": {str(hosts.known_hosts)!r},
                "client_keys": [{str(hosts.folder / "key")!r}],
            }},
            scheduler_options={{"host": {here!r}, "port": 0, "dashboard": False}},
            worker_options={{"host": {here!r}, "nthreads": 1}},
            remote_python={sys.executable!r},
        ) as cluster:
        """
        assert printed(program, tmp_path) == DONE
    finally:
        hosts.close()
