"""The frames between server, zygote, agents and file workers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from sandbox_local.isolation import wire


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    left.settimeout(10)
    right.settimeout(10)
    with left, right:
        yield left, right


def test_a_message_arrives_as_it_was_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    message = {"id": 1, "op": "x", "args": {"path": os.fsdecode(b"/a\xff\n\0"), "text": 'é\U0001f600\\"'}}
    wire.send(pair[0], message)
    wire.send(pair[0], {})
    assert wire.recv(pair[1]) == (message, [])
    assert wire.recv(pair[1]) == ({}, [])


def test_each_message_comes_with_its_own_descriptors_and_they_are_not_inherited(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pipes = [os.pipe() for _ in range(3)]
    for number, (reader, _) in enumerate(pipes):
        wire.send(pair[0], {"n": number})
        wire.send(pair[0], {"n": number, "fd": True}, [reader] * (number + 1))
    for number, (reader, writer) in enumerate(pipes):
        assert wire.recv(pair[1]) == ({"n": number}, [])
        message, fds = wire.recv(pair[1])
        assert message == {"n": number, "fd": True}
        assert len(fds) == number + 1
        os.write(writer, b"%d" % number)
        assert os.read(fds[0], 10) == b"%d" % number
        assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds)
        for fd in (reader, writer, *fds):
            os.close(fd)


def test_a_message_of_many_megabytes_passes(pair: tuple[socket.socket, socket.socket]) -> None:
    message = {"argv": ["\0" * (2 << 20)], "envs": {"A": "\udcff" * (1 << 20)}}
    reader, writer = os.pipe()
    sender = threading.Thread(target=wire.send, args=(pair[0], message, [reader]))
    sender.start()
    received, fds = wire.recv(pair[1])
    sender.join()
    assert received == message
    for fd in (reader, writer, *fds):
        os.close(fd)


def test_a_frame_is_decoded_from_a_non_blocking_socket_byte_by_byte(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[1].setblocking(False)
    decoder = wire.Decoder()
    with pytest.raises(BlockingIOError):
        decoder.read(pair[1])
    frames = []
    for byte in wire.encode({"a": 1}, 0) + wire.encode({"b": 2}, 0):
        pair[0].send(bytes([byte]))
        frames.append(decoder.read(pair[1]))
    assert [frame for frame in frames if frame] == [({"a": 1}, []), ({"b": 2}, [])]


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!IB", wire.MAX_BODY + 1, 0),
        struct.pack("!IB", 2, wire.MAX_FDS + 1),
        struct.pack("!IB", 2, 1) + b"{}",
        struct.pack("!IB", 0, 0),
        struct.pack("!IB", 2, 0) + b"[]",
        struct.pack("!IB", 2, 0) + b"\xff\xff",
        struct.pack("!IB", 200_000, 0) + b"[" * 200_000,
        struct.pack("!IB", 10_000, 0) + b"1" * 10_000,
    ],
)
def test_what_is_no_frame_is_refused(pair: tuple[socket.socket, socket.socket], sent: bytes) -> None:
    pair[0].sendall(sent)
    with pytest.raises(wire.WireError):
        wire.recv(pair[1])


def test_descriptors_nobody_announced_are_refused_and_closed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    reader, writer = os.pipe()
    pair[0].sendmsg([wire.encode({}, 0)], wire.ancillary([writer] * 3))
    os.close(writer)
    with pytest.raises(wire.WireError):
        wire.recv(pair[1])
    assert os.read(reader, 1) == b"", "a copy of the other end is still open"
    os.close(reader)


def test_descriptors_without_room_are_lost_and_no_more(pair: tuple[socket.socket, socket.socket]) -> None:
    """The rest of the message comes, what came of its descriptors is closed, the next message is whole."""
    reader, writer = os.pipe()
    with low_on_descriptors(1):
        wire.send(pair[0], {"id": 7}, [writer] * 3)
        with pytest.raises(wire.DescriptorsLost) as lost:
            wire.recv(pair[1])
    assert lost.value.message == {"id": 7}
    wire.send(pair[0], {"id": 8}, [writer])
    message, (passed,) = wire.recv(pair[1])
    assert message == {"id": 8}
    for fd in (writer, passed):
        os.close(fd)
    assert os.read(reader, 1) == b"", "a copy of the other end is still open"
    os.close(reader)


@contextlib.contextmanager
def low_on_descriptors(left: int) -> Iterator[None]:
    """Let this process open so many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probes = [os.dup(0) for _ in range(left + 1)]
    for fd in probes:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probes[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_end_of_the_stream_is_told_also_within_a_frame(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(wire.encode({"a": 1}, 0)[:-1])
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        wire.recv(pair[1])
    with pytest.raises(EOFError):
        wire.recv(pair[1])


def test_a_message_that_is_too_large_is_not_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(ValueError, match="too large"):
        wire.send(pair[0], {"a": "x" * wire.MAX_BODY})
    wire.send(pair[0], {"a": 1})
    assert wire.recv(pair[1]) == ({"a": 1}, [])
