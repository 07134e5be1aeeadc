"""imap and starmap of SleighExecutor, and the iterator they give."""

from __future__ import annotations

import itertools
import time

import pytest

from sleighexec import SleighExecutor, errors
from tests.conftest import in_threads


def args(*a: object) -> tuple[object, ...]:
    return a


def invert(x: float) -> float:
    return 1 / x


def test_imap_and_starmap(three: SleighExecutor) -> None:
    assert list(three.imap(args, range(3), "abc")) == [(0, "a"), (1, "b"), (2, "c")]
    assert list(three.starmap(args, [(1, 2), [3, 4], "ab"])) == [(1, 2), (3, 4), ("a", "b")]
    assert list(three.imap(args, [])) == []
    endless = three.imap(abs, itertools.count())
    assert [next(endless) for _ in range(100)] == list(range(100))
    assert endless.submitted <= 100 + 30
    assert endless.returned == 100
    with pytest.raises(errors.IllegalValueError):
        three.imap(abs)
    with pytest.raises(errors.IllegalValueError):
        three.imap(args, [1], 5)  # type: ignore[arg-type]
    with pytest.raises(errors.IllegalValueError):
        three.starmap(args, 5)  # type: ignore[arg-type]


def test_an_error_in_imap_comes_in_its_turn(three: SleighExecutor) -> None:
    results = three.imap(invert, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert list(three.imap(invert, [1, 0, 2], on_error="skip")) == [1, 0.5]
    bad = three.starmap(args, [(1,), (2,), 3])  # type: ignore[list-item]
    assert [next(bad), next(bad)] == [(1,), (2,)]
    with pytest.raises(TypeError):
        next(bad)


def test_shutdown_and_stop_of_an_imap(three: SleighExecutor) -> None:
    results = three.imap(abs, itertools.count(), loadFactor=1)
    assert next(results) == 0
    results.shutdown()
    assert list(results) == [1, 2, 3]
    assert results.stopped
    slow = three.imap(time.sleep, itertools.repeat(0.05))
    slow.stop()
    assert list(slow) == []
    assert slow.buffered == 0


def test_the_results_of_an_imap_can_be_taken_after_the_end_of_its_executor() -> None:
    with SleighExecutor(2) as executor:
        results = executor.imap(abs, itertools.count(), loadFactor=2)
        assert next(results) == 0
    assert [next(results) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="after shutdown"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("load", [0.1, 10, 0])
def test_each_result_of_an_imap_goes_to_one_of_several_threads(
    three: SleighExecutor, load: float
) -> None:
    results = three.imap(rest, (number for number in range(200)), loadFactor=load)
    taken: list[int] = []
    in_threads(lambda _: taken.extend(results), range(6))
    assert sorted(taken) == list(range(200))
    assert (results.submitted, results.returned) == (200, 200)


def rest(number: int) -> int:
    time.sleep(0.002)
    return number
