"""Programs of their own, for what is about the `__main__` module of a script."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path


def run(source: str, tmp_path: Path, how: str = "file") -> list[str]:
    """The lines that a program prints; it must end well and say nothing else."""
    source = textwrap.dedent(source)
    script = tmp_path / "script.py"
    script.write_text(source)
    command = {"file": [str(script)], "-c": ["-c", source], "stdin": ["-"]}[how]
    done = subprocess.run(
        [sys.executable, *command],
        input=source if how == "stdin" else "",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()
