"""Every case over every executor that was named on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sleighexec.conformance import cases, runner
from sleighexec.conformance.case import Case


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    executors = metafunc.config.getoption("--executor", default=None)
    if not executors:
        raise pytest.UsageError(
            "name the class to test: pytest --pyargs sleighexec.conformance --executor=module:Class"
        )
    pairs = [(executor, case) for executor in executors for case in cases.all_cases()]
    ids = [f"{executor}-{case.group}-{case.name}".replace(" ", "-") for executor, case in pairs]
    metafunc.parametrize(("executor", "case"), pairs, ids=ids)


def test_executor(
    executor: str,
    case: Case,
    tmp_path: Path,
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    options = runner.parsed(pytestconfig.getoption("--executor-option"))
    limit = pytestconfig.getoption("--conformance-limit")
    verdict = runner.run(case, executor, options, tmp_path, limit)
    record_property("verdict", list(verdict))
    if verdict.result == runner.SKIP:
        pytest.skip(verdict.reason)
    if verdict.result != runner.PASS:
        pytest.fail(f"{verdict.result}: {verdict.reason}", pytrace=False)
