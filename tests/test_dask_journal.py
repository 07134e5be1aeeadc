"""Journals of batches on Dask workers: what of a batch is known when its worker has died."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sleighexec import payload as pickling
from sleighexec import runs
from sleighexec.engines.dask import journal
from sleighexec.engines.dask.journal import Journals
from sleighexec.messages import Payload
from tests.daskcluster import ROOT

RUN = "test-journal"


@pytest.fixture
def journals(tmp_path, monkeypatch) -> Iterator[Journals]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    journals = Journals(RUN)
    yield journals
    for written in list(journals._used.values()):
        journals.end(written)
    journals.close()
    journal.remove_all(RUN)


def files() -> int:
    return len(list(journal.folder_of(RUN).iterdir()))


def test_what_had_ended_and_what_had_begun_is_read_by_the_number_of_the_batch(journals):
    written = journals.start(7, rank=3)
    written.begin()
    written.write_simple(runs.dump_simple("first"))
    written.begin()
    written.write(runs.GOOD, pickling.dumps_whole({2}))
    written.begin()
    written.note("third")
    remains = journal.read(RUN, 7)
    assert remains is not None
    assert (remains.begun, remains.printed, remains.pid, remains.rank) == (
        3,
        b"third",
        os.getpid(),
        3,
    )
    flags = [flag for _, flag, _, _ in runs.outcomes(Payload(remains.records))]
    assert flags == [runs.RUN, runs.GOOD]
    assert journal.read(RUN, 8) is None


DYING = """
import os, sys, tempfile
from sleighexec.engines.dask import journal

tempfile.tempdir = sys.argv[1]
written = journal.Journals(sys.argv[2]).start(5, rank=0)
written.begin()
os.kill(os.getpid(), 9)
"""


def test_the_journal_of_a_process_that_was_killed_says_which_call_it_was(journals, tmp_path):
    command = [sys.executable, "-c", DYING, str(tmp_path), RUN]
    process = subprocess.run(command, cwd=ROOT, check=False)
    assert process.returncode == -9
    remains = journal.read(RUN, 5)
    assert remains is not None
    assert remains.begun == 1
    assert remains.pid != os.getpid()
    journal.remove(RUN, 5)
    assert journal.read(RUN, 5) is None
    assert files() == 0


@pytest.mark.parametrize("first", ["ended", "safe"])
def test_a_file_serves_the_next_batch_when_one_has_ended_and_its_outcome_is_safe(journals, first):
    written = journals.start(1, rank=0)
    written.begin()
    written.note("old")
    written.write_simple(runs.dump_simple(1))
    calls = [lambda: journals.end(written), lambda: journals.make_safe(1)]
    one, other = calls if first == "ended" else reversed(calls)
    one()
    assert 1 in journals
    assert journals.start(2, rank=0) is not written
    other()
    assert 1 not in journals
    assert journals.start(3, rank=0) is written
    assert files() == 2
    assert journal.read(RUN, 1) is None
    assert journal.read(RUN, 3) == journal.Remains(b"", 0, b"", "", os.getpid(), 0)


def test_a_batch_begins_once(journals):
    journals.start(1, rank=0)
    with pytest.raises(KeyError):
        journals.start(1, rank=0)


def test_a_file_that_has_become_big_is_not_kept(journals):
    written = journals.start(1, rank=0)
    written.begin()
    written.write(runs.GOOD, bytes(2 * journal.KEPT_ROOM))
    journals.end(written)
    journals.make_safe(1)
    assert files() == 0
    assert journals.start(2, rank=0) is not written


def test_the_stacks_of_a_call_are_read_with_its_journal_and_go_with_it(journals):
    written = journals.start(1, rank=0)
    written.begin()
    with open(written.stack_file, "w") as file:
        file.write("Thread 1")
    remains = journal.read(RUN, 1)
    assert remains is not None
    assert remains.stack == "Thread 1"
    journals.end(written)
    journals.close()
    assert files() == 0
