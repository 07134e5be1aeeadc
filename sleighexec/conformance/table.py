"""Verdicts as a table: a row for each case, a column for each executor."""

from __future__ import annotations

import json
from collections import Counter

from sleighexec.conformance.runner import FAIL, HANG, PASS, SKIP, Verdict

_MARKS = {PASS: "pass", FAIL: "**fail**", HANG: "**hang**", SKIP: "–"}


def _columns(verdicts: list[Verdict]) -> list[str]:
    return list(dict.fromkeys(verdict.executor for verdict in verdicts))


def _rows(verdicts: list[Verdict]) -> dict[tuple[str, str], dict[str, str]]:
    """For each case its results by executor."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for verdict in verdicts:
        rows.setdefault((verdict.group, verdict.name), {})[verdict.executor] = verdict.result
    return rows


def _sums(verdicts: list[Verdict], executor: str) -> Counter[str]:
    return Counter(verdict.result for verdict in verdicts if verdict.executor == executor)


def text(verdicts: list[Verdict]) -> str:
    """The table for a terminal."""
    columns, lines = _columns(verdicts), []
    for (group, name), results in _rows(verdicts).items():
        marks = "  ".join(f"{results.get(column, ''):4}" for column in columns)
        lines.append(f"{marks}  {group}: {name}")
    for column in columns:
        sums = ", ".join(f"{count} {result}" for result, count in _sums(verdicts, column).items())
        lines.append(f"{column}: {sums}")
    return "\n".join(lines) + "\n"


def markdown(verdicts: list[Verdict]) -> str:
    """The table for a document, with a heading for each group."""
    columns = _columns(verdicts)
    head = "| {} |\n|{}\n".format(" | ".join(["", *columns]), " --- |" * (1 + len(columns)))
    parts, last = [], None
    for (group, name), results in _rows(verdicts).items():
        if group != last:
            parts.append(f"\n### {group.capitalize()}\n\n{head}")
            last = group
        marks = (_MARKS.get(results.get(column, ""), "") for column in columns)
        parts.append("| {} |\n".format(" | ".join([name, *marks])))
    parts.append(f"\n### All\n\n{head}")
    for result in (PASS, FAIL, HANG, SKIP):
        sums = (str(_sums(verdicts, column)[result]) for column in columns)
        parts.append("| {} |\n".format(" | ".join([result, *sums])))
    return "".join(parts).lstrip("\n")


def as_json(verdicts: list[Verdict]) -> str:
    """Every verdict with its reason, for a program."""
    return json.dumps([verdict._asdict() for verdict in verdicts], indent=1) + "\n"
