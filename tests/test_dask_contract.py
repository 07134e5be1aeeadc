"""What is expected of any executor, over Dask: the cases of `sleighexec.conformance`.

Each runs here, not in an interpreter of its own as with `pytest --pyargs sleighexec.conformance`:
to bring in Dask takes longer than most of them. `SLEIGHEXEC_TEST_DASK=all` has all of them run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from sleighexec.conformance import case, cases
from sleighexec.conformance.case import Case, NotOffered
from sleighexec.conformance.child import maker
from tests.daskcluster import DaskCluster, dask_cluster

pytestmark = [
    pytest.mark.once,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("dask contract"),
]

PRINTS = "what calls print goes to the streams of the worker"
FOLDER = "workers have a working folder of their own"
OTHERWISE = {
    "a worker lives on after a call": "max_workers is how many calls run, on any of the workers",
    "a program that ends finishes its calls": PRINTS,
    "a program that ends after shutdown without waiting is quiet": PRINTS,
    "workers end when their program is killed (SIGKILL)": FOLDER,
    "workers end when their program is killed (SIGTERM)": FOLDER,
    "ctrl c ends a program promptly (result)": FOLDER,
    "ctrl c ends a program promptly (with)": FOLDER,
    "ctrl c ends a program promptly (map)": FOLDER,
}
# The others take minutes, as an interpreter is started for each worker that ends.
GROUPS = {"submitting", "pickling"}
EVERYTHING = os.environ.get("SLEIGHEXEC_TEST_DASK") == "all"
CASES = [case_ for case_ in cases.all_cases() if EVERYTHING or case_.group in GROUPS]


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskCluster]:
    """As many workers as any case asks for."""
    with dask_cluster(3) as cluster:
        yield cluster


@pytest.mark.parametrize(
    "case_", CASES, ids=lambda case_: f"{case_.group}-{case_.name}".replace(" ", "-")
)
def test_case(
    case_: Case, cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case_.name in OTHERWISE:
        pytest.skip(f"named exception: on Dask {OTHERWISE[case_.name]}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(case, "PATIENCE", 60.0)  # Dask starts an interpreter for each that ends
    cluster.settle()
    try:
        case_.run(maker("sleighexec:SleighExecutor", {"engine": cluster.url}))
    except NotOffered as reason:
        pytest.skip(f"named exception: {reason}")
