"""What importing costs, what the examples print, and that the public names are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sleighexec

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
HEAVY = {"paramiko", "asyncio", "http", "cloudpickle", "numpy", "socketserver", "typing"}
HEAVY |= {"dataclasses", "hashlib", "inspect", "pathlib", "ssl", "tempfile"}


def imported_by(statement: str) -> set[str]:
    """Without what the site-packages of this interpreter load by themselves."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statement}; print(*sys.modules)"
    command = [sys.executable, "-S", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import sleighexec",
        "from sleighexec import SleighExecutor; SleighExecutor(2)",
        "import sleighexec.agent",
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    of_a_worker = "agent" in statement
    assert not imported_by(statement) & (HEAVY | (set() if of_a_worker else {"multiprocessing"}))


def test_what_can_be_imported_runs_without_cloudpickle() -> None:
    code = """
import fractions, sys
from sleighexec import SleighExecutor
with SleighExecutor(1) as executor:
    half = fractions.Fraction(1, 2)
    print(executor.submit(fractions.Fraction.limit_denominator, half, 5).result())
    print(executor.submit(eval, "'cloudpickle' in __import__('sys').modules").result())
print("cloudpickle" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1/2", "False", "False"]


def test_every_public_name_can_be_had() -> None:
    for name in sleighexec.__all__:
        assert getattr(sleighexec, name) is not None
    assert set(sleighexec.__all__) <= set(dir(sleighexec))
    for name in sleighexec.errors.__all__:
        assert getattr(sleighexec, name) is getattr(sleighexec.errors, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sleighexec.no_such_name


@pytest.mark.once
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_what_it_promises(script: Path) -> None:
    for needed in re.findall(r"^# needs: (.*)$", script.read_text(), re.MULTILINE):
        pytest.importorskip(needed)
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    promised = re.findall(r"^# prints: (.*)$", script.read_text(), re.MULTILINE)
    assert promised
    assert run.stdout.splitlines() == promised
