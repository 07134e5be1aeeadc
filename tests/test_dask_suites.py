"""The tests of the executor, of `eachElem` and of the classic Sleigh once more, on Dask.

Those that are given an executor or a Sleigh; here it is another one. All of them run with
`SLEIGHEXEC_TEST_DASK=all`, and else as many as a minute has room for.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator

import pytest

pytest.importorskip("distributed")

from sleighexec import NetWorkSpace, Sleigh, SleighExecutor
from tests import test_classic, test_dependencies, test_each, test_executor, test_imap, test_sleigh
from tests.daskcluster import DaskCluster, dask_cluster

pytestmark = [
    pytest.mark.once,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("dask suites"),
]

MODULES = [test_executor, test_classic]
if os.environ.get("SLEIGHEXEC_TEST_DASK") == "all":
    MODULES += [test_each, test_imap, test_sleigh, test_dependencies]
GIVEN = {"executor", "three", "s", "user"}
OTHERWISE = {
    "test_workers_see_multiprocessings_parent_and_may_have_children": "workers are daemonic",
    "test_prints_come_into_output_at_rank": "both streams of a call are one text",
    "test_output_of_a_running_call_comes_while_it_runs": "it comes with the outcome",
}
LEFT_OUT = {"test_a_thousand_rounds_of_each_worker"}  # takes minutes

for module in MODULES:
    for name, function in vars(module).items():
        if name in LEFT_OUT or not name.startswith("test_"):
            continue
        if GIVEN & set(inspect.signature(function).parameters):
            globals()[f"{name}_in_{module.__name__.rpartition('.')[2]}"] = function


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskCluster]:
    with dask_cluster(3) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def is_there(request: pytest.FixtureRequest) -> None:
    """What is otherwise on Dask is said in a table of the documentation."""
    name = request.function.__name__
    if name in OTHERWISE:
        pytest.skip(f"named exception: on Dask {OTHERWISE[name]}")


@pytest.fixture
def three(cluster: DaskCluster) -> Iterator[SleighExecutor]:
    cluster.settle()
    with SleighExecutor(engine=cluster.url, min_workers=3) as executor:
        yield executor


@pytest.fixture
def executor(three: SleighExecutor) -> SleighExecutor:
    return three


@pytest.fixture
def s(cluster: DaskCluster) -> Iterator[Sleigh]:
    cluster.settle()
    sleigh = Sleigh(engine=cluster.url)
    yield sleigh
    sleigh.stop()


@pytest.fixture
def user(s: Sleigh) -> NetWorkSpace:
    return s.userNws
