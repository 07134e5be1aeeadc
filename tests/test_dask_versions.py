"""What the engine does in Dask's scheduler is not part of Dask's promises: is it there?"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("distributed")

from tests.daskcluster import ROOT

LONG = 90.0

pytestmark = pytest.mark.once

# In a process of its own: the scheduler is in it, and Dask leaves something open.
OTHER_DASK = """
import logging
from distributed import LocalCluster
from sleighexec import SleighExecutor
from sleighexec.engines.dask import cluster as known
from sleighexec.errors import UnsupportedOptionError

logging.disable(logging.CRITICAL)
known.distributed.__version__ = "2031.5.0"
with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster:
    CHANGE
    try:
        SleighExecutor(engine=cluster)
    except UnsupportedOptionError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("known.SLOTS -= {'run_spec'}", "TaskState.run_spec"),
        ("known.NEEDED += ('launch_tasks',)", "Scheduler.launch_tasks"),
        ("known.DaskTask = lambda key, call: lambda: None", "dask Task"),
    ],
    ids=["tasks", "scheduler", "graphs"],
)
def test_a_dask_that_is_built_otherwise_is_refused_by_its_version(change, words):
    run = subprocess.run(
        [sys.executable, "-c", OTHER_DASK.replace("CHANGE", change)],
        capture_output=True,
        text=True,
        timeout=LONG,
        cwd=ROOT,
        check=False,
    )
    assert "distributed 2031.5.0" in run.stdout, run.stderr
    assert words in run.stdout


WITHOUT = """
import sys
sys.modules["dask._task_spec"] = None
from sleighexec import SleighExecutor
try:
    SleighExecutor(engine="dask://127.0.0.1:1")
except ImportError as error:
    print(error)
"""


def test_a_dask_without_what_we_need_is_said_to_be_missing():
    command = [sys.executable, "-c", WITHOUT]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LONG, cwd=ROOT)
    assert 'pip install "sleighexec[dask]"' in run.stdout, run.stderr
