"""Handles of shared objects, where they meet the rest of the executor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sleighexec import SleighExecutor


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
