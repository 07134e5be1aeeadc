"""How fast, beside `ProcessPoolExecutor` and others in the same run.

    python -m tests.benchmarks [--quick] [--only NAME]… [--json FILE] [--markdown]
    python -m tests.benchmarks --list
    python -m tests.benchmarks --from FILE --markdown      a table of a run that has been

Contenders take turns (ours, theirs, ours, …), so that what else the machine does hits all of them.
"Times better" is the median of the ratios within rounds. Absolute figures are of this moment.
"""

from __future__ import annotations

import argparse
import compileall
import json
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import sleighexec
from tests.benchmarks import (
    crashes,
    data,
    fairness,
    latency,
    memory,
    network,
    ondask,
    report,
    startup,
    throughput,
    workspace,
)
from tests.benchmarks.measure import Measure, run

SUBJECTS: tuple[ModuleType, ...] = (
    throughput,
    latency,
    data,
    fairness,
    startup,
    memory,
    workspace,
    network,
    crashes,
    ondask,
)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    assert __doc__ is not None
    top = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    top.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="only this row: a name of --list, or a pattern such as 'start-*'; may be repeated",
    )
    top.add_argument("--list", action="store_true", help="the names of the rows, and their goals")
    top.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    top.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    top.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="measure nothing: print what --json has written",
    )
    return top


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the exit status. It does not depend on the figures."""
    options = parser().parse_args(arguments)
    if options.source is not None:
        outcome = json.loads(options.source.read_text())
    else:
        found = chosen(options.only or ["*"], options.quick)
        if not found:
            print("no row has such a name: see --list", file=sys.stderr)
            return 2
        if options.list:
            print("\n".join(map(title, found)))
            return 0
        outcome = measured(found, options.quick)
    if options.json is not None:
        options.json.write_text(json.dumps(outcome, indent=1))
    print(report.markdown(outcome) if options.markdown else report.text(outcome))
    return 0


def chosen(patterns: list[str], quick: bool) -> list[Measure]:
    """The measures of all subjects whose names fit one of the patterns."""
    return [
        measure
        for subject in SUBJECTS
        for measure in subject.measures(quick)
        if any(fnmatchcase(measure.name, pattern) for pattern in patterns)
    ]


def title(measure: Measure) -> str:
    """A measure in a line: its name, its goals, what it measures."""
    claims = [goal for row in measure.rows for goal in row.goals]
    numbers = sorted({str(goal.number) for goal in claims if goal.number is not None})
    goals = f"goal {', '.join(numbers)}" if numbers else ""
    return f"{measure.name:14}{goals:12}{measure.rows[0].what}"


def measured(measures: list[Measure], quick: bool) -> report.Report:
    """Run the measures, saying on standard error where we are; the report."""
    # As an installation is; a checkout may not be, if Python is told not to write bytecode.
    compileall.compile_dir(Path(sleighexec.__file__).parent, quiet=2)
    begin = time.monotonic()
    outcome = {"machine": report.machine(), "quick": quick, "rows": []}
    for subject in SUBJECTS:
        if missing := getattr(subject, "MISSING", ""):
            print(f"left out: {subject.__name__.rpartition('.')[2]}, {missing}", file=sys.stderr)
    for measure in measures:
        print(f"{time.monotonic() - begin:5.0f} s  {measure.name}", file=sys.stderr, flush=True)
        outcome["rows"] += report.entries(measure, run(measure))
    return outcome | {"seconds": time.monotonic() - begin}


if __name__ == "__main__":
    sys.exit(main())
