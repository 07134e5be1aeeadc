"""What `nws.sleigh` had, under its old names."""

from __future__ import annotations

from sleighexec.pending import Accumulator, SleighPending
from sleighexec.pending import ResultIterator as SleighResultIterator
from sleighexec.sleigh import (
    Sleigh,
    SleighException,
    SleighGatheredException,
    SleighIllegalValueException,
    SleighJoinException,
    SleighNotAllowedException,
    SleighNwsException,
    SleighOccupiedException,
    SleighScriptException,
    SleighStoppedException,
    SleighTaskException,
    defaultSleighOptions,
    envcmd,
    rshcmd,
    scriptcmd,
    sshcmd,
    sshforwardcmd,
)

__all__ = [
    "Accumulator",
    "Sleigh",
    "SleighException",
    "SleighGatheredException",
    "SleighIllegalValueException",
    "SleighJoinException",
    "SleighNotAllowedException",
    "SleighNwsException",
    "SleighOccupiedException",
    "SleighPending",
    "SleighResultIterator",
    "SleighScriptException",
    "SleighStoppedException",
    "SleighTaskException",
    "defaultSleighOptions",
    "envcmd",
    "rshcmd",
    "scriptcmd",
    "sshcmd",
    "sshforwardcmd",
]
