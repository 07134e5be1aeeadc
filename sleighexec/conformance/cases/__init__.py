"""The cases, a file for each part of the contract."""

from __future__ import annotations

from importlib import import_module

from sleighexec.conformance.case import CASES, Case

GROUPS = ("submitting", "waiting", "ending", "dying", "pickling", "scripts")


def all_cases() -> list[Case]:
    """Every case, in the order of the groups."""
    for group in GROUPS:
        import_module(f"sleighexec.conformance.cases.{group}")
    return sorted(CASES, key=lambda case: GROUPS.index(case.group))
