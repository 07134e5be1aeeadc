"""Handles of shared objects, where they meet the rest of the executor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from sleighexec import SleighExecutor, WorkerLost


@pytest.fixture
def one() -> Iterator[SleighExecutor]:
    with SleighExecutor(1) as executor:
        yield executor


def test_a_handle_of_another_executor_is_refused_and_never_taken_for_one_of_ours(
    one: SleighExecutor,
) -> None:
    def get(value: Any) -> Any:
        return value

    with SleighExecutor(1) as other:
        theirs, ours = other.share(["theirs"]), one.share(["ours"])
        calls = [one.submit(get, theirs), one.submit(get, ours), one.submit(get, [theirs])]
        for call in calls[::2]:
            with pytest.raises(ValueError, match="share its value here too"):
                call.result(60)
        with pytest.raises(ValueError, match="share its value here too"):
            one.share({"inner": theirs})
        assert calls[1].result(60) == ["ours"]
        assert one.submit(get, one.share(theirs.value)).result(60) == ["theirs"]
        assert other.submit(get, theirs).result(60) == ["theirs"]


def test_a_handle_in_a_global_variable_stands_for_its_object(
    one: SleighExecutor,
) -> None:
    handle = one.share({"a": 1})

    class Owner:
        table = handle

    space = {"TABLE": handle, "TABLES": [handle], "Owner": Owner, "__name__": "__main__"}
    exec(  # as a script would have it
        "def look(key): return TABLE[key], TABLES[0][key], Owner.table[key]\n"
        "def same(): return TABLE is TABLES[0]\n",
        space,
    )
    look: Any = space["look"]
    assert one.submit(look, "a").result(60) == (1, 1, 1)
    assert list(one.map(look, "aa")) == [(1, 1, 1)] * 2
    assert one.submit(space["same"]).result(60)
    assert isinstance(one.submit(os._exit, 1).exception(60), WorkerLost)
    assert one.submit(look, "a").result(60) == (1, 1, 1)  # the next worker has it, too
    space["TABLE"] = one.share({"a": 2})
    assert one.submit(look, "a").result(60) == (2, 1, 1)
