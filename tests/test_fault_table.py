"""The table of faults in the documentation names tests that exist, and every row of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = (TESTS.parent / "docs" / "reference" / "faults.md").read_text()
ROWS = re.findall(r"^\| (F\d\d) \| .* \| (.*) \|$", TABLE, re.MULTILINE)
NAMED = sorted(set(re.findall(r"`(test_\w+)::(test_\w+)`", TABLE)))


def test_the_table_has_every_row_once() -> None:
    assert [name for name, _ in ROWS] == [f"F{number:02}" for number in range(1, 86)]


@pytest.mark.parametrize(("row", "proof"), ROWS)
def test_every_row_has_a_test_or_says_why_not(row: str, proof: str) -> None:
    assert "::" in proof or "**not yet**" in proof


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_it_names_exists(file: str, name: str) -> None:
    source = (TESTS / f"{file}.py").read_text()
    assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"no {name} in {file}.py"
