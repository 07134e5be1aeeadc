"""The suite as a pytest plugin: its options, and the table at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleighexec.conformance import table
from sleighexec.conformance.runner import Verdict

LIMIT = 30.0  # seconds that a case may take; the longest of a good executor takes a few


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "the conformance of executors")
    group.addoption(
        "--executor",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="an executor class to test; may be given several times",
    )
    group.addoption(
        "--executor-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a further argument of its constructor, a Python literal or text",
    )
    group.addoption(
        "--conformance-limit",
        type=float,
        default=LIMIT,
        metavar="SECONDS",
        help=f"what a case may take before it is a hang (default: {LIMIT:g})",
    )
    group.addoption(
        "--conformance-table",
        type=Path,
        metavar="FILE",
        help="write the table to a file: .json, or else Markdown",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Table(config.getoption("--conformance-table")))


class _Table:
    """Collects the verdicts of a run and shows them at its end."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._verdicts: list[Verdict] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # By way of the report: a case may have run in another process than this one.
        if report.when == "call":
            found = (value for name, value in report.user_properties if name == "verdict")
            self._verdicts += (Verdict(*value) for value in found)  # type: ignore[misc]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._verdicts:
            return
        terminalreporter.section("conformance")
        terminalreporter.write(table.text(self._verdicts))
        if self._path is not None:
            form = table.as_json if self._path.suffix == ".json" else table.markdown
            self._path.write_text(form(self._verdicts), encoding="utf-8")
            terminalreporter.line(f"written to {self._path}")
