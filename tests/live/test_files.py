"""Files in real sandboxes."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from sandbox_sync import (
    FileNotFoundException,
    FileType,
    InvalidArgumentException,
    NotFoundException,
    Sandbox,
    SandboxException,
)

TEXT = "text \u00e4\u20ac\U0001f600\r\nline\n"


@pytest.mark.documented("Filesystem.read[text]", "Filesystem.write[one]")
def test_text_comes_back_as_it_was(sandbox: Sandbox) -> None:
    written = sandbox.files.write("note.txt", TEXT)
    assert (written.name, written.path, written.type) == ("note.txt", "/home/user/note.txt", FileType.FILE)
    assert sandbox.files.read("note.txt") == TEXT
    assert sandbox.files.read("/home/user/note.txt", format="text") == TEXT
    assert sandbox.commands.run("cat note.txt").stdout == TEXT


@pytest.mark.documented("Filesystem.read[bytes]", "Filesystem.write[one]")
def test_bytes_come_back_as_they_were(sandbox: Sandbox) -> None:
    data = os.urandom(1_000_000)
    sandbox.files.write("data", data)
    read = sandbox.files.read("data", format="bytes")
    assert isinstance(read, bytearray)
    assert read == data
    sandbox.files.write("empty", b"")
    assert sandbox.files.read("empty", format="bytes") == b""
    assert sandbox.files.read("empty") == ""


def pieces() -> Iterator[bytes]:
    for number in range(1000):
        yield b"%d\n" % number


@pytest.mark.documented("Filesystem.write[one]")
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"bytes", b"bytes"),
        (bytearray(b"bytearray"), b"bytearray"),
        (memoryview(b"0view")[1:], b"view"),
        (lambda: io.BytesIO(b"file"), b"file"),
        (lambda: io.StringIO("text \u20ac"), "text \u20ac".encode()),
        (pieces, b"".join(pieces())),
        (lambda: [b"a", b"b"], b"ab"),
    ],
    ids=["bytes", "bytearray", "memoryview", "file", "text file", "generator", "list"],
)
def test_everything_that_can_be_written(sandbox: Sandbox, data: Any, expected: bytes) -> None:
    sandbox.files.write("x", data() if callable(data) else data)
    assert sandbox.files.read("x", format="bytes") == expected


def test_a_file_is_written_from_where_it_stands(sandbox: Sandbox, tmp_path: Path) -> None:
    """G46."""
    (tmp_path / "local").write_bytes(b"0123456789")
    with open(tmp_path / "local", "rb") as file:
        file.seek(4)
        sandbox.files.write("x", file)
    assert sandbox.files.read("x") == "456789"


@pytest.mark.documented("Filesystem.write[one]")
def test_writing_replaces_makes_directories_and_belongs_to_the_user(sandbox: Sandbox) -> None:
    sandbox.files.write("a/b/c.txt", "long content")
    sandbox.files.write("a/b/c.txt", "short")
    assert sandbox.files.read("a/b/c.txt") == "short"
    assert sandbox.commands.run("stat -c %U a a/b a/b/c.txt").stdout == "user\n" * 3
    sandbox.files.write("r.txt", "x", user="root")
    assert sandbox.files.get_info("/root/r.txt").owner == "root"


@pytest.mark.documented("Filesystem.write[several]")
def test_several_files_are_written_at_once(sandbox: Sandbox) -> None:
    written = sandbox.files.write(
        [
            {"path": "one.txt", "data": "1"},
            {"path": "sub/two.bin", "data": b"\x00\xff"},
            {"path": "/tmp/three", "data": io.BytesIO(b"3")},
        ]
    )
    assert [file.path for file in written] == ["/home/user/one.txt", "/home/user/sub/two.bin", "/tmp/three"]
    assert sandbox.files.read("sub/two.bin", format="bytes") == b"\x00\xff"
    assert sandbox.files.write([]) == []
    assert sandbox.files.write_files([{"path": "four", "data": "4"}])[0].name == "four"
    assert [
        file.name for file in sandbox.files.write(files=[{"path": "five", "data": "5"}], user="root")
    ] == ["five"]
    assert sandbox.files.read("/root/five") == "5"


@pytest.mark.documented("Filesystem.read[stream]")
def test_a_stream_is_an_iterator_and_a_file(sandbox: Sandbox, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    sandbox.files.write("big", data)
    with sandbox.files.read("big", format="stream") as chunks:
        assert b"".join(chunks) == data
    with sandbox.files.read("big", format="stream") as stream, open(tmp_path / "copy", "wb") as copy:
        assert stream.read(0) == b""
        assert stream.read(10) == data[:10]
        copy.write(data[:10])
        shutil.copyfileobj(stream, copy)
    assert (tmp_path / "copy").read_bytes() == data
    with sandbox.files.read("big", format="stream") as stream:
        first = next(stream)
        assert first + stream.read() == data
        assert stream.read() == b""
        assert stream.read(5) == b""
    with sandbox.files.read("big", format="stream") as stream:
        next(stream)
    assert sandbox.files.read("big", format="bytes") == data


def test_a_stream_of_nothing_ends_at_once(sandbox: Sandbox) -> None:
    sandbox.files.write("empty", b"")
    with sandbox.files.read("empty", format="stream") as stream:
        assert list(stream) == []


@pytest.mark.documented("Filesystem.list")
def test_listing_goes_as_deep_as_asked(sandbox: Sandbox) -> None:
    sandbox.files.write([{"path": path, "data": ""} for path in ("t/a/x", "t/a/b/y", "t/z")])

    def names(depth: int | None) -> list[str]:
        return [entry.path.removeprefix("/home/user/t/") for entry in sandbox.files.list("t", depth=depth)]

    assert names(1) == names(None) == ["a", "z"]
    assert names(2) == ["a", "a/b", "a/x", "z"]
    assert names(9) == ["a", "a/b", "a/b/y", "a/x", "z"]
    assert sandbox.files.list("t/a/b", 1)[0].type is FileType.FILE


@pytest.mark.documented("Filesystem.list")
def test_large_directories_are_listed_whole(sandbox: Sandbox) -> None:
    """G39: an answer of more than 4 MiB."""
    sandbox.commands.run(
        "mkdir many && cd many && seq -f file-with-a-rather-long-name-%g 30000 | xargs touch"
    )
    assert len(sandbox.files.list("many")) == 30_000


def test_path_objects_will_do(sandbox: Sandbox) -> None:
    path = PurePosixPath("dir", "file")
    sandbox.files.write(path, "x")
    assert sandbox.files.read(path) == "x"
    assert sandbox.files.list(path.parent)[0].name == "file"


BAD_PATHS = ["", "a\0b", "x\udc80", "~nobody_of_that_name/x", "x" * 5000, "y" * 300]


@pytest.mark.parametrize(
    "path", BAD_PATHS, ids=["empty", "NUL", "not Unicode", "~other", "long", "long name"]
)
@pytest.mark.parametrize(
    "call", ["read", "write", "write_files", "list", "exists", "get_info", "remove", "rename", "make_dir"]
)
def test_a_path_that_cannot_be_is_an_invalid_argument(sandbox: Sandbox, call: str, path: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "write": (path, "x"),
        "write_files": ([{"path": path, "data": "x"}],),
        "rename": (path, "new"),
    }
    with pytest.raises(InvalidArgumentException):
        getattr(sandbox.files, call)(*arguments.get(call, (path,)))


def test_what_is_missing_is_not_found(sandbox: Sandbox) -> None:
    for call in (
        lambda: sandbox.files.read("missing"),
        lambda: sandbox.files.read("missing", format="bytes"),
        lambda: sandbox.files.read("missing", format="stream"),
        lambda: sandbox.files.list("missing"),
        lambda: sandbox.files.get_info("missing/below"),
    ):
        with pytest.raises(FileNotFoundException) as caught:
            call()
        assert isinstance(caught.value, NotFoundException)
        assert caught.value.sandbox_id == sandbox.sandbox_id


def test_a_directory_is_no_file_and_a_file_no_directory(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("d")
    sandbox.files.write("f", "x")
    for call in (
        lambda: sandbox.files.read("d"),
        lambda: sandbox.files.write("d", "x"),
        lambda: sandbox.files.list("f"),
    ):
        with pytest.raises(InvalidArgumentException):
            call()
    with pytest.raises(SandboxException):
        sandbox.files.write("f/below", "x")
    assert sandbox.files.read("f") == "x"


@pytest.mark.parametrize(
    "call",
    [
        lambda files: files.list(".", depth=0),
        lambda files: files.read("x", format="pdf"),
        lambda files: files.write("x", 7),
        lambda files: files.write(7, "x"),
        lambda files: files.list(7),
    ],
)
def test_arguments_that_cannot_be_are_refused(sandbox: Sandbox, call: Any) -> None:
    with pytest.raises(InvalidArgumentException):
        call(sandbox.files)


def test_errors_of_what_is_read_are_the_callers_own(sandbox: Sandbox) -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sandbox.files.write("x", broken())
    assert sandbox.files.write("y", "still works").name == "y"


def test_links_lead_nowhere_outside(sandbox: Sandbox) -> None:
    secret = Path("/tmp") / f"outside-{os.getpid()}"
    secret.write_text("of the host")
    try:
        sandbox.commands.run(f"ln -s {secret} link; ln -s / root")
        for path in ("link", f"root{secret}", f"../../../..{secret}"):
            with pytest.raises(FileNotFoundException):
                sandbox.files.read(path)
    finally:
        secret.unlink()


def test_threads_write_and_read_at_once(sandbox: Sandbox) -> None:
    """G16."""

    def work(number: int) -> None:
        data = bytes([number]) * 200_000
        for _ in range(5):
            sandbox.files.write(f"f{number}", data)
            assert sandbox.files.read(f"f{number}", format="bytes") == data

    with ThreadPoolExecutor(16) as pool:
        for one in [pool.submit(work, number) for number in range(16)]:
            one.result(60)
