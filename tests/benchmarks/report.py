"""A report of what was measured: first as plain data (JSON), from that as text or Markdown.

The data has everything: the machine, each sample of each contender, each line of the table.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from tests.benchmarks.measure import TIMES, Measure, Samples, lines

PACKAGES = ("sleighexec", "numpy", "cloudpickle", "loky", "redis", "distributed")
HEAD = ("goal", "measured", "ours", "theirs", "times better", "floor", "")

Report = dict[str, Any]


def machine() -> dict[str, Any]:
    """What all figures of a run depend on."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cores": _cores(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def entries(measure: Measure, samples: Samples) -> list[Report]:
    """A measure's rows as plain data."""
    return [
        {
            "row": measure.name,
            "figure": row.figure,
            "what": row.what,
            "unit": row.unit,
            "better": "more" if row.more else "less",
            "rounds": measure.rounds,
            "samples": {
                name: [figures[row.figure] for figures in rounds]
                for name, rounds in samples.items()
                if row.figure in rounds[0]
            },
            "lines": [
                asdict(line) | _spread(line.figures) for line in lines(measure, row, samples)
            ],
        }
        for row in measure.rows
    ]


def _spread(figures: Sequence[float]) -> dict[str, float]:
    if not figures:
        return {}
    return {"median": statistics.median(figures), "min": min(figures), "max": max(figures)}


# ------------------------------------------------------------------ for people


def text(report: Report) -> str:
    """The report for a terminal: a title for each row, a line for each comparison."""
    cells = [_cells(line) for entry in report["rows"] for line in entry["lines"]]
    widths = [max(map(len, column)) for column in zip(*cells)]
    shown = [_machine(report)]
    for entry in report["rows"]:
        shown += ["", f"{entry['row']}: {_what(entry)}"]
        for line in entry["lines"]:
            padded = (cell.ljust(width) for cell, width in zip(_cells(line), widths))
            shown.append("   " + "   ".join(padded).rstrip())
    return "\n".join([*shown, "", _verdict(report)])


def markdown(report: Report) -> str:
    """The report as a table in Markdown, with the machine above it."""
    shown = [_machine(report), "", _row(HEAD), _row(["---"] * len(HEAD))]
    for entry in report["rows"]:
        titles = iter([f"`{entry['row']}` {_what(entry)}"])
        for line in entry["lines"]:
            goal, *cells = _cells(line)
            shown.append(_row([goal.removeprefix("goal "), next(titles, ""), *cells]))
    return "\n".join([*shown, "", _verdict(report)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine(report: Report) -> str:
    facts = report["machine"]
    packages = [f"{name} {version}" for name, version in facts["packages"].items() if version]
    size = "quick: small sizes, few rounds; " if report["quick"] else ""
    return (
        f"{facts['python']}, {facts['cores']} cores, {facts['system']}, {facts['date']}, "
        f"load {facts['load']} at the start; {', '.join(packages)}; "
        f"{size}{report['seconds']:.0f} s. Medians (least – most) of rounds."
    )


def _what(entry: Report) -> str:
    unit = f"{entry['unit']}, " if entry["unit"] else ""
    rounds = entry["rounds"]
    return (
        f"{entry['what']} ({unit}{entry['better']} is better, "
        f"{rounds} round{'s' if rounds > 1 else ''})"
    )


def _cells(line: Report) -> list[str]:
    goal = f"goal {line['goal']}" if line["goal"] is not None else ""
    theirs = "" if line["against"] is None else f"{line['against']} {_number(line['theirs'])}"
    verdict = {True: "reached", False: "NOT reached", None: ""}[line["reached"]]
    if line["bound"] and line["reached"] is None:
        verdict = f"no {line['against']} here"
    ours = f"{line['of']} {_number(line['ours'])}"
    return [goal, ours, theirs, _figures(line), line["bound"], verdict]


def _figures(line: Report) -> str:
    if "median" not in line:
        return ""
    unit = "×" if line["shows"] == TIMES else line["shows"]
    median, least, most = (_number(line[key]) for key in ("median", "min", "max"))
    return " ".join(f"{median} {unit} ({least} – {most})".split())


def _number(value: float | None) -> str:
    """Three digits that matter, or all before the point; groups of three."""
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}".replace(",", " ")


def _verdict(report: Report) -> str:
    """How many of the claims hold, and which do not."""
    claims = [
        (f"{line['goal']} {entry['row']}", line["reached"]) for entry, line in _claims(report)
    ]
    holding = [name for name, reached in claims if reached]
    failing = dict.fromkeys(name for name, reached in claims if reached is False)
    unknown = dict.fromkeys(name for name, reached in claims if reached is None)
    words = f"{len(holding)} of {len(claims)} floors reached"
    if failing:
        words += f"; not: {', '.join(failing)}"
    if unknown:
        words += f"; nobody to compare with: {', '.join(unknown)}"
    if report["quick"]:
        words += ". The floors are meant for the full sizes"
    return f"{words}."


def _claims(report: Report) -> Iterator[tuple[Report, Report]]:
    return ((entry, line) for entry in report["rows"] for line in entry["lines"] if line["bound"])
