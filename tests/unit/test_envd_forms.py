"""Many small files in one form: what is stored, what is not, and in which order that shows."""

from __future__ import annotations

import os
import random
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.unit.envd_standin import EnvdServer

FORM = "multipart/form-data; boundary=b"
END = b"--b--\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EnvdServer]:
    with EnvdServer(tmp_path) as server:
        yield server


def part(name: str, content: bytes) -> bytes:
    head = f'--b\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n"


def parts(files: dict[str, bytes]) -> bytes:
    return b"".join(part(name, content) for name, content in files.items())


def some(count: int, size: int = 1000) -> dict[str, bytes]:
    """Files of about a length, with a few that are empty and a few that are long."""
    chance = random.Random(count)
    lengths = [chance.choice((size, size, size, 0, size // 7)) for _ in range(count)]
    return {f"d{i % 7}/{i:04}": chance.randbytes(length) for i, length in enumerate(lengths)}


def post(server: EnvdServer, body: Any, query: str = "") -> requests.Response:
    headers = {"content-type": FORM}
    return requests.post(f"{server.url}/files{query}", data=body, headers=headers, timeout=60)


def contents(home: Path) -> dict[str, bytes]:
    return {str(file.relative_to(home)): file.read_bytes() for file in home.rglob("*") if file.is_file()}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_thousand_files_are_stored_each_in_its_place(server: EnvdServer) -> None:
    files = some(1000)
    for _ in range(2):  # made, and replaced
        answer = post(server, parts(files) + END)
        assert answer.status_code == 200, answer.text
        assert [told["path"] for told in answer.json()] == [str(server.home / name) for name in files]
        assert {told["type"] for told in answer.json()} == {"file"}
        assert contents(server.home) == files
        files = {name: content[::-1][: len(content) // 2] for name, content in files.items()}


def test_small_and_large_files_keep_their_order(server: EnvdServer) -> None:
    chance = random.Random(1)
    sizes = [0, 65536, 65537, 300_000, 1, 65535, 2_000_000, 5, 5, 70_000]
    files = {f"f{i}": chance.randbytes(size) for i, size in enumerate(sizes)}
    answer = post(server, parts(files) + END)
    assert [told["name"] for told in answer.json()] == list(files)
    assert contents(server.home) == files


def test_no_more_than_a_few_files_wait_in_memory(server: EnvdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []
    run = server.box.files

    async def watched(operation: str, **arguments: Any) -> Any:
        asked.append((operation, len(arguments.get("contents", "")), len(arguments.get("files", ()))))
        return await run(operation, **arguments)

    monkeypatch.setattr(server.box, "files", watched)
    files = {f"{i}": os.urandom(60_000) for i in range(200)}
    assert post(server, parts(files) + END).status_code == 200
    assert contents(server.home) == files
    assert max(size for _, size, _ in asked) <= 430_000, "256 KiB and one file more, in base64"
    asked.clear()
    assert post(server, parts(dict.fromkeys(map(str, range(500)), b"")) + END).status_code == 200
    assert max(count for _, _, count in asked) <= 128
    assert len(asked) < 100, "a message is for many files"


# -- failures


@pytest.mark.parametrize("position", [0, 1, 127, 128, 500, 999])
def test_one_that_cannot_be_written_stops_the_form(server: EnvdServer, position: int) -> None:
    names = [f"{i:04}" for i in range(1000)]
    (server.home / names[position]).mkdir()
    answer = post(server, parts({name: name.encode() for name in names}) + END)
    assert (answer.status_code, answer.json()["code"]) == (400, 400)
    assert "is a directory" in answer.json()["message"]
    assert contents(server.home) == {name: name.encode() for name in names[:position]}


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("file/below", 500),
        ("~root/x", 400),
        ("x" * 300, 400),
        ("", 400),
        ("fifo", 400),
        ("/proc/self/comm", 400),
        ("loop", 500),
    ],
)
def test_a_bad_name_among_many_is_told_as_that_of_one(server: EnvdServer, name: str, status: int) -> None:
    (server.home / "file").write_text("old")
    (server.home / "loop").symlink_to("loop")
    os.mkfifo(server.home / "fifo")
    alone = post(server, part(name, b"x") + END)
    before, after = some(300), {"after": b"x"}
    among = post(server, parts(before) + part(name, b"x") + parts(after) + END)
    assert (alone.status_code, among.status_code) == (status, status)
    assert alone.json() == among.json()
    assert contents(server.home) == {"file": b"old", **before}


def test_what_goes_wrong_first_is_told(server: EnvdServer) -> None:
    """Also where the form is seen to be broken before the file that can't be written is tried."""
    (server.home / "dir").mkdir()
    for rest in (b"--b\r\nbroken", part("~root", b""), part("dir", b"again") + END, b"--b\r\ncut"):
        answer = post(server, part("dir", b"x") + rest)
        assert answer.status_code == 400
        assert "is a directory" in answer.json()["message"]


def test_the_same_target_far_apart_is_400_and_the_first_is_kept(server: EnvdServer) -> None:
    files = some(400)
    for again in ("d0/0000", "./d0/0000", "d1//../d0/0000", str(server.home / "d0/0000"), "~/d0/0000"):
        answer = post(server, parts(files) + part(again, b"again") + part("after", b"") + END)
        assert answer.status_code == 400
        assert answer.json()["message"] == (
            f"you cannot upload two files to the same path: {server.home / 'd0/0000'}"
        )
        assert contents(server.home) == files


@pytest.mark.parametrize("rest", [b"--b\r\nbroken", b"--b\r\ncut", part("last", b"new")[:-3]])
def test_files_before_a_broken_end_are_stored_and_the_one_in_it_is_untouched(
    server: EnvdServer, rest: bytes
) -> None:
    files = some(300)
    (server.home / "last").write_text("old")
    answer = post(server, parts(files) + rest)
    assert answer.status_code == 500
    assert "multipart body is broken" in answer.json()["message"]
    assert contents(server.home) == {**files, "last": b"old"}


def test_a_client_that_vanishes_leaves_what_came_whole_and_blocks_nothing(server: EnvdServer) -> None:
    files = {"last": b"old", **some(300)}
    body = parts(some(300)) + part("last", b"x" * 5000)[:-3000]
    head = f"POST /files HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\ncontent-length: 9000000\r\n\r\n"
    (server.home / "last").write_text("old")
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(head.encode() + body)
        until(lambda: contents(server.home) == files)
    answer = post(server, part("next", b"x") + END)
    assert answer.status_code == 200
    assert contents(server.home) == {**files, "next": b"x"}


def test_a_file_that_is_here_waits_for_no_other(server: EnvdServer) -> None:
    """A form may take its time: what has come of it is seen."""
    seen = []

    def body() -> Iterator[bytes]:
        for name in ("one", "two"):
            yield part(name, name.encode())
            yield b"--b\r\ncontent-disposition: form-data; name=x\r\n\r\n\r\n"
            until((server.home / name).exists)
            seen.append(name)
        yield part("three", b"three") + END

    assert post(server, body()).status_code == 200
    assert seen == ["one", "two"]
    assert contents(server.home) == {name: name.encode() for name in ("one", "two", "three")}


def test_a_disk_that_is_full_in_the_middle_keeps_what_is_before(server: EnvdServer) -> None:
    """A bound of the file worker on the length of files stands in; the live tests fill a real disk."""
    pid = server.box.worker.process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    files = some(200)
    answer = post(server, parts(files) + part("too-large", b"x" * 5000) + part("after", b"x") + END)
    assert (answer.status_code, answer.json()["message"]) == (500, "File too large")
    found = contents(server.home)
    assert found.pop("too-large") == b"x" * 4096
    assert found == files
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert post(server, part("too-large", b"y" * 5000) + END).status_code == 200
    assert (server.home / "too-large").read_bytes() == b"y" * 5000


def test_metadata_is_of_each_file(server: EnvdServer) -> None:
    headers = {"content-type": FORM, "x-metadata-k": "v"}
    files = some(150)
    stored = requests.post(f"{server.url}/files", data=parts(files) + END, headers=headers, timeout=60).json()
    if "metadata" not in stored[0]:
        pytest.skip("the file system of the temporary directory has no user attributes")
    assert [told["metadata"] for told in stored] == [{"k": "v"}] * len(files)
    plain = post(server, parts(files) + END).json()
    assert not any("metadata" in told for told in plain)
    assert os.listxattr(server.home / "d0/0000") == []
