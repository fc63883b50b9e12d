"""From a socket to a file through the kernel."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from sandbox_local.http.pipe import Pipe
from tests.descriptors import none_left_open


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection; the second end does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        far.setblocking(False)
        yield near, far


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def move_for_ever(pipe: Pipe, source: socket.socket, fd: int) -> NoReturn:
    while True:
        pipe.move(source, fd, 100)


@pytest.mark.parametrize("small", [False, True], ids=["usual", "small"])
def test_bytes_arrive_whole_in_a_pipe_of_any_size(
    ends: tuple[socket.socket, socket.socket], file: int, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> int:
        raise PermissionError(1, "over the limit of this user's pipes")

    if small:
        monkeypatch.setattr(fcntl, "fcntl", refuse)
    near, far = ends
    sent = os.urandom(3 << 20)
    moved = offset = 0
    near.setblocking(False)
    with none_left_open(), Pipe() as pipe:
        while moved < len(sent):
            try:
                offset += near.send(sent[offset:]) if offset < len(sent) else 0
            except BlockingIOError:
                pass
            moved += pipe.move(far, file, len(sent) - moved)
    assert os.pread(file, len(sent) + 1, 0) == sent


def test_no_more_is_taken_than_asked_for(ends: tuple[socket.socket, socket.socket], file: int) -> None:
    near, far = ends
    near.sendall(b"body next request")
    with Pipe() as pipe:
        assert pipe.move(far, file, 4) == 4
        assert pipe.move(far, file, 0) == 0
    assert os.pread(file, 100, 0) == b"body"
    assert far.recv(100) == b" next request"


def test_nothing_yet_and_nothing_ever_are_told_apart(
    ends: tuple[socket.socket, socket.socket], file: int
) -> None:
    near, far = ends
    with Pipe() as pipe:
        assert pipe.move(far, file, 100) == 0
        near.sendall(b"last")
        near.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            move_for_ever(pipe, far, file)
    assert os.pread(file, 100, 0) == b"last"


def test_file_that_takes_nothing_is_an_error(
    ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    near, far = ends
    near.sendall(b"x")
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with Pipe() as pipe, pytest.raises(OSError, match="Bad file descriptor"):
            move_for_ever(pipe, far, fd)
    finally:
        os.close(fd)
