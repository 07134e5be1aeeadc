"""What pytest loads wherever sleighexec is installed: nothing, unless a run names this package."""

from __future__ import annotations

import pytest

SUITE = {"sleighexec.conformance", "sleighexec.conformance.test_contract"}


def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Add the options of the suite to the runs that it is part of, and to no others."""
    if SUITE & {argument.partition("::")[0] for argument in args}:
        early_config.pluginmanager.import_plugin("sleighexec.conformance.plugin")
