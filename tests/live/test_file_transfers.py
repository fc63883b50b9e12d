"""Transfers of files to and from real sandboxes: compressed, described, passed on, and cut on their way."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sandbox_sync import (
    ConnectionException,
    InvalidArgumentException,
    Sandbox,
)

DATA = random.Random(9).randbytes(1_500_000)
TEXT = "line \u00e4\u20ac\U0001f600\r\n" * 50_000


def digest(sandbox: Sandbox, path: str) -> str:
    """What the sandbox itself has."""
    return sandbox.commands.run(f"sha256sum {path}").stdout.split()[0]


# Compression


@pytest.mark.documented("Filesystem.write[one]")
@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
def test_what_goes_up_comes_down(sandbox: Sandbox, gzip: bool) -> None:
    for data in (b"", b"x", DATA, bytes(3_000_000)):
        written = sandbox.files.write("f", data, gzip=gzip)
        assert (written.name, written.path) == ("f", "/home/user/f")
        assert digest(sandbox, "f") == hashlib.sha256(data).hexdigest()
        assert sandbox.files.read("f", format="bytes", gzip=gzip) == data
        with sandbox.files.read("f", format="stream", gzip=gzip, stream_idle_timeout=20) as stream:
            assert b"".join(stream) == data
    sandbox.files.write("f", TEXT, gzip=gzip)
    assert sandbox.files.read("f", gzip=gzip) == TEXT
    files = [
        {"path": "a/1", "data": DATA},
        {"path": "a/2", "data": io.StringIO(TEXT)},
        {"path": "3", "data": [b"3"]},
    ]
    several: Any = files
    assert [file.name for file in sandbox.files.write(several, gzip=gzip)] == ["1", "2", "3"]
    assert sandbox.files.read("a/1", format="bytes") == DATA
    assert sandbox.files.read("a/2") == TEXT
    assert sandbox.files.read("3") == "3"


# Metadata


def test_metadata_is_recorded_beside_the_contents(sandbox: Sandbox) -> None:
    files = sandbox.files
    most = {"k" * 246: "v", "rest": "x" * (4096 - 9 - 246 - 1 - 9 - 4)}
    for metadata in (
        {"made-by": "a test, 100% !\"#$%&'()*+,-./:;<=>?@[]^_`{|}~", "empty": ""},
        {"one": "1"},
        most,
    ):
        written = files.write("f", "x", metadata=metadata)
        assert written.metadata == metadata
        assert files.get_info("f").metadata == metadata
        assert [entry.metadata for entry in files.list(".") if entry.name == "f"] == [metadata]
    assert files.write("f", "x", metadata={"MiXed": "Case"}).metadata == {"mixed": "Case"}
    assert files.write("f", "y").metadata is None, "writing replaces it"
    assert files.get_info("f").metadata is None
    several = files.write_files(
        [{"path": "a", "data": "1"}, {"path": "b", "data": "2"}], metadata={"of": "both"}, gzip=True
    )
    assert [file.metadata for file in several] == [{"of": "both"}] * 2
    assert files.get_info("b").metadata == {"of": "both"}


def test_metadata_that_cannot_be_recorded_changes_nothing(sandbox: Sandbox) -> None:
    sandbox.files.write("f", "before", metadata={"k": "v"})
    for metadata in ({"k": "\u00fc"}, {"a b": "v"}, {"k": "x" * 4096}, {"k" * 247: "v"}):
        with pytest.raises(InvalidArgumentException, match="metadata"):
            sandbox.files.write("f", "after", metadata=metadata)
    assert sandbox.files.read("f") == "before"
    assert sandbox.files.get_info("f").metadata == {"k": "v"}


# File objects


def test_a_stream_serves_as_a_file(sandbox: Sandbox) -> None:
    sandbox.files.write("value", json.dumps([TEXT] * 3))
    with sandbox.files.read("value", format="stream") as stream:
        assert json.load(stream) == [TEXT] * 3
    sandbox.files.write("lines", TEXT)
    with io.TextIOWrapper(sandbox.files.read("lines", format="stream"), "utf-8", newline="") as lines:
        assert "".join(lines) == TEXT


def test_a_file_goes_from_one_sandbox_to_another_without_being_held(sandbox: Sandbox) -> None:
    sandbox.files.write("f", DATA)
    with Sandbox.create(timeout=60) as other:
        other.files.write("f", sandbox.files.read("f", format="stream"))
        assert digest(other, "f") == hashlib.sha256(DATA).hexdigest()
        other.files.write("g", iter(sandbox.files.read("f", format="stream")), gzip=True)
        assert digest(other, "g") == hashlib.sha256(DATA).hexdigest()


def test_pipes_and_open_files_are_read_to_their_end(sandbox: Sandbox, tmp_path: Path) -> None:
    """G46: from where they stand."""
    (tmp_path / "f").write_bytes(DATA)
    with open(tmp_path / "f", "rb", buffering=0) as raw:
        raw.seek(7)
        sandbox.files.write("f", raw)
    assert digest(sandbox, "f") == hashlib.sha256(DATA[7:]).hexdigest()
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(writing, "wb") as feed:

        def give() -> None:
            with feed:
                feed.write(DATA)

        feeder = threading.Thread(target=give)
        feeder.start()
        sandbox.files.write("f", pipe)
        feeder.join(10)
    assert digest(sandbox, "f") == hashlib.sha256(DATA).hexdigest()
    (tmp_path / "latin").write_text("gr\u00fc\u00df", encoding="latin-1")
    with open(tmp_path / "latin", encoding="latin-1") as text:
        text.read(2)
        sandbox.files.write("f", text)
    assert sandbox.files.read("f") == "\u00fc\u00df"


@pytest.mark.documented("Filesystem.write[several]")
def test_when_one_of_several_cannot_be_written_those_before_it_stay(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("d")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.write(
            [{"path": "1", "data": "1"}, {"path": "d", "data": "2"}, {"path": "3", "data": "3"}]
        )
    assert sandbox.files.read("1") == "1"
    assert not sandbox.files.exists("3")
    with pytest.raises(InvalidArgumentException, match="same path"):
        sandbox.files.write([{"path": "same", "data": "1"}, {"path": "./same", "data": "2"}])
    assert sandbox.files.read("same") == "1"


# Transfers that are cut


@contextlib.contextmanager
def cutting(server: str, up: int | None, down: int | None) -> Iterator[str]:
    """A way to the server that ends each connection after so many bytes in a direction."""
    target = urlsplit(server)
    listener = socket.create_server(("127.0.0.1", 0))
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def end(*ended: socket.socket) -> None:
        for sock in ended:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def pump(source: socket.socket, sink: socket.socket, left: int) -> None:
        with contextlib.suppress(OSError):
            while left and (data := source.recv(min(left, 1 << 16))):
                sink.sendall(data)
                left -= len(data)
        end(source, sink)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((target.hostname or "", target.port or 0))
                sockets.extend((near, far))
                for source, sink, most in ((near, far, up), (far, near, down)):
                    pumping = threading.Thread(target=pump, args=(source, sink, most or 1 << 40))
                    threads.append(pumping)
                    pumping.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        end(listener)
        listener.close()
        acceptor.join(10)
        end(*sockets)
        for thread in threads:
            thread.join(10)
        for sock in sockets:
            sock.close()


def over(sandbox: Sandbox, url: str) -> Sandbox:
    """The same sandbox, reached another way."""
    return Sandbox.connect(sandbox.sandbox_id, sandbox_url=url)


UPLOADS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: DATA,
    "file": lambda: io.BytesIO(DATA),
    "iterable": lambda: (DATA[start : start + 10_000] for start in range(0, len(DATA), 10_000)),
}


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("source", UPLOADS.values(), ids=UPLOADS.keys())
@pytest.mark.parametrize("after", [100, 3_000, 400_000, 1_499_900])
def test_an_upload_that_is_cut_is_an_error_and_leaves_a_beginning(
    sandbox: Sandbox, server_env: dict[str, str], source: Callable[[], Any], after: int, gzip: bool
) -> None:
    """G47: and leaves no more than the beginning of what was sent."""
    with (
        cutting(server_env["E2B_SANDBOX_URL"], after, None) as url,
        pytest.raises(ConnectionException) as caught,
    ):
        over(sandbox, url).files.write("f", source(), gzip=gzip)
    assert caught.value.maybe_executed
    if sandbox.files.exists("f"):
        came = sandbox.files.read("f", format="bytes")
        assert len(came) < len(DATA)
        assert DATA.startswith(came)
    assert sandbox.files.write("f", DATA).name == "f"
    assert digest(sandbox, "f") == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("format", ["text", "bytes", "stream"])
@pytest.mark.parametrize("after", [600, 3_000, 400_000, 1_499_900])
def test_a_download_that_is_cut_is_an_error(
    sandbox: Sandbox, server_env: dict[str, str], format: Any, after: int, gzip: bool
) -> None:
    """G47."""
    sandbox.files.write("f", DATA)
    with cutting(server_env["E2B_SANDBOX_URL"], None, after) as url:
        files = over(sandbox, url).files
        with pytest.raises(ConnectionException) as caught:
            list(files.read("f", format=format, gzip=gzip))
    assert caught.value.sandbox_state == "alive"
    assert sandbox.files.read("f", format="bytes", gzip=gzip) == DATA


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
def test_a_file_that_gets_shorter_while_it_is_read_is_an_error(sandbox: Sandbox, gzip: bool) -> None:
    """G47: what was promised did not come."""
    # Content that does not get small, so that most of it is not on its way yet when the rest is cut off.
    sandbox.commands.run("head -c 64M /dev/urandom > f")
    with sandbox.files.read("f", format="stream", gzip=gzip) as stream:
        next(stream)
        sandbox.commands.run("truncate -s 1000 f")
        with pytest.raises(ConnectionException):
            stream.read()
