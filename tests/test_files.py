"""The contract of storeFile, fetchFile, findFile and their Try forms."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest

from sleighexec import NetWorkSpace
from tests.conftest import PATIENCE, Local, Socket, blocked

DATA = bytes(range(256)) * 10


class Trickle(io.RawIOBase):
    """A raw file that gives and takes a few bytes at a time."""

    def __init__(self, data: bytes = b"") -> None:
        self.inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target)[:7]
        return self.inner.readinto(view)

    def write(self, data: Any) -> int:
        return self.inner.write(memoryview(data)[:7])


class OnlyMethods:
    """A file that has nothing but read and write, and does not count."""

    def __init__(self, data: bytes = b"") -> None:
        self.inner = io.BytesIO(data)

    def read(self, n: int = -1) -> bytes:
        return self.inner.read(n)

    def write(self, data: Any) -> None:
        self.inner.write(data)


class FullDisk(io.BytesIO):
    """A file that fails after a few bytes."""

    def write(self, data: Any) -> int:
        if self.tell():
            raise OSError("no space left")
        return super().write(bytes(data)[:3])


# ------------------------------------------------------------------ storing


def test_a_file_is_stored_as_one_value_of_bytes(ws: NetWorkSpace) -> None:
    assert ws.storeFile("x", io.BytesIO(DATA)) == len(DATA)
    assert ws.fetch("x") == DATA
    assert ws.fetchTry("x", "nothing") == "nothing"


def test_the_idiom_stores_a_file_in_pieces(ws: NetWorkSpace) -> None:
    file, sizes = io.BytesIO(DATA), []
    while n := ws.storeFile("x", file, n=1000):
        sizes.append(n)
    assert sizes == [1000, 1000, 560]
    assert b"".join(ws.ifetchTry("x")) == DATA


@pytest.mark.parametrize("n", [0, 100])
def test_at_the_end_of_a_file_nothing_is_stored(ws: NetWorkSpace, n: int) -> None:
    assert ws.storeFile("x", io.BytesIO(), n) == 0
    assert ws.listVars() == ""


@pytest.mark.parametrize("mode", ["rb", "r+b", "w+b", "a+b"])
def test_any_binary_mode_will_do(ws: NetWorkSpace, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with open(path, mode) as file:
        if "r" not in mode:
            file.write(DATA)
            file.seek(-len(DATA), os.SEEK_END)
        file.read(10)
        assert ws.storeFile("x", file) == len(DATA) - 10
    assert ws.fetch("x") == DATA[10:]


@pytest.mark.parametrize("file_class", [Trickle, OnlyMethods])
def test_what_a_file_gives_in_small_parts_is_one_value(ws: NetWorkSpace, file_class: type) -> None:
    file = file_class(DATA)
    assert [ws.storeFile("x", file, 1000), ws.storeFile("x", file)] == [1000, len(DATA) - 1000]
    assert [ws.fetch("x"), ws.fetch("x")] == [DATA[:1000], DATA[1000:]]


def test_a_pipe_is_stored_until_its_writer_closes_it(ws: NetWorkSpace) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as source, open(writing, "wb", buffering=0) as sink:
        sink.write(b"first ")
        later = threading.Timer(0.05, lambda: (sink.write(b"second"), sink.close()))
        later.start()
        assert ws.storeFile("x", source) == len(b"first second")
        later.join()
    assert ws.fetch("x") == b"first second"


@pytest.mark.parametrize(
    "use", ["storeFile", "fetchFile", "fetchTryFile", "findFile", "findTryFile"]
)
def test_a_file_of_text_is_refused_before_anything_happens(ws: NetWorkSpace, use: str) -> None:
    ws.store("x", b"value")
    with tempfile.NamedTemporaryFile("w+") as wrapped, ws.makefile("y") as own:
        for file in (io.StringIO("text"), wrapped, own):
            with pytest.raises(TypeError, match="binary mode"):
                getattr(ws, use)("x", file)
    assert list(ws.ifindTry("x")) == [b"value"]


def test_what_reads_no_bytes_is_refused(ws: NetWorkSpace) -> None:
    class Strange:
        def read(self) -> object:
            return "text"

    with pytest.raises(TypeError, match="gave str, not bytes"):
        ws.storeFile("x", Strange())
    with pytest.raises(ValueError, match="not -1"):
        ws.storeFile("x", io.BytesIO(DATA), -1)
    closed = io.BytesIO(DATA)
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        ws.storeFile("x", closed)
    assert ws.listVars() == ""


# ------------------------------------------------------------------ fetching and finding


VALUES = [b"", DATA, "", "text ä ∀", None, [1, {"k": "v"}]]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("use", ["fetchFile", "fetchTryFile", "findFile", "findTryFile"])
def test_a_value_is_written_as_its_bytes(ws: NetWorkSpace, use: str, value: object) -> None:
    ws.store("x", value)
    file = io.BytesIO()
    count = getattr(ws, use)("x", file)
    assert count is not False
    assert count == len(file.getvalue())
    if isinstance(value, (str, bytes)):
        assert file.getvalue() == (value.encode() if isinstance(value, str) else value)
    else:
        assert pickle.loads(file.getvalue()) == value
    assert len(list(ws.ifindTry("x"))) == (1 if "find" in use else 0)


@pytest.mark.parametrize("use", ["fetchFile", "findFile"])
def test_a_value_with_big_arrays_is_written_as_one_pickle(ws: NetWorkSpace, use: str) -> None:
    array = numpy.arange(100_000)
    ws.store("x", {"array": array})
    file = io.BytesIO()
    assert getattr(ws, use)("x", file) > array.nbytes
    assert (pickle.loads(file.getvalue())["array"] == array).all()


@pytest.mark.parametrize("file_class", [Trickle, OnlyMethods])
def test_a_file_that_takes_little_at_a_time_gets_all(ws: NetWorkSpace, file_class: type) -> None:
    ws.store("x", DATA)
    file = file_class()
    assert ws.fetchFile("x", file) == len(DATA)
    assert file.inner.getvalue() == DATA


def test_a_value_of_many_megabytes_comes_through(ws: NetWorkSpace, tmp_path: Path) -> None:
    path, data = tmp_path / "file", DATA * 2000
    path.write_bytes(data)
    with open(path, "rb") as file:
        ws.storeFile("x", file)
    with open(tmp_path / "copy", "wb") as copy:
        assert ws.fetchFile("x", copy) == len(data)
    assert (tmp_path / "copy").read_bytes() == data


@pytest.mark.parametrize("use", ["fetchTryFile", "findTryFile"])
def test_the_try_forms_say_false_when_there_is_none(ws: NetWorkSpace, use: str) -> None:
    file = io.BytesIO()
    assert getattr(ws, use)("x", file) is False
    assert file.getvalue() == b""


@pytest.mark.parametrize("use", ["fetchFile", "findFile"])
def test_the_others_wait(ws: NetWorkSpace, use: str) -> None:
    file = io.BytesIO()
    with pytest.raises(TimeoutError):
        getattr(ws, use)("x", file, timeout=0.05)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(getattr(ws, use), "x", file)
        blocked(ws, "x", **{"fetchers" if use == "fetchFile" else "finders": 1})
        ws.store("x", b"now")
        assert future.result(PATIENCE) == 3
    assert file.getvalue() == b"now"


@pytest.mark.parametrize("use", ["fetchFile", "fetchTryFile", "findFile", "findTryFile"])
def test_what_could_not_be_written_is_first_in_line_again(ws: NetWorkSpace, use: str) -> None:
    ws.store("x", DATA)
    ws.store("x", b"behind")
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(OSError, match="no space"):
        getattr(ws, use)("x", FullDisk())
    with pytest.raises(ValueError, match="closed"):
        getattr(ws, use)("x", closed)
    assert [ws.fetch("x", timeout=0), ws.fetch("x", timeout=0)] == [DATA, b"behind"]


def test_what_was_written_does_not_come_back_when_the_connection_ends(
    house: Local | Socket, ws: NetWorkSpace
) -> None:
    for value in (b"1", b"2", b"3", b"mark"):
        ws.store("x", value)
    with house.connect() as other:
        theirs, file = other.useWs("test"), io.BytesIO()
        theirs.fetchFile("x", file)
        theirs.fetchTryFile("x", file)
        theirs.ifetch("x").writeTo(file)
        theirs.borrow("x")
    assert ws.fetch("x", timeout=PATIENCE) == b"mark"
    assert ws.fetchTry("x", "nothing") == "nothing"
    assert file.getvalue() == b"123"


def test_two_threads_fetch_each_value_once(ws: NetWorkSpace) -> None:
    for number in range(200):
        ws.store("x", b"%d\n" % number)

    def drain() -> bytes:
        file = io.BytesIO()
        while ws.fetchTryFile("x", file):
            pass
        return file.getvalue()

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(drain) for _ in range(2)]
        lines = b"".join(future.result(PATIENCE) for future in futures).splitlines()
    assert sorted(map(int, lines)) == list(range(200))
