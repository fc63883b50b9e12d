"""How fast output and files travel, for a client that does next to nothing and for the SDK."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from figures import memory
from figures.figure import Figure, throughput
from figures.raw import RawSandbox
from sandbox_local import LocalServer
from sandbox_sync import Sandbox

_MIB = 1 << 20
_BUFFER = 1 << 20
_PIECE = 256 << 10
_COMMAND = ("head", "-c", "200M", "/dev/zero")
_OUTPUT = 200 * _MIB


def measure_output(server: LocalServer, rounds: int) -> Iterator[Figure]:
    """A long output; the floor is the same bytes from a pipe to a socket to this process."""
    sandbox = RawSandbox(server)
    body = bytearray(b"\1") * (_OUTPUT + (32 << 20))
    speeds: list[float] = []
    floor: list[float] = []
    growth: list[float] = []
    size = sandbox.follow(" ".join(_COMMAND), body)
    if sandbox.output(body[:size]) != bytes(_OUTPUT):
        raise RuntimeError("the output is not what the command wrote")
    for _ in range(rounds):
        with _Growth(server, growth):
            speeds.append(throughput(_OUTPUT, lambda: sandbox.follow(" ".join(_COMMAND), body)))
        floor.append(throughput(_OUTPUT, lambda: _between(_relay, _swallow)))
    sandbox.kill()
    yield Figure("200 MiB of output", "MiB/s", speeds, 300, True, floor, "floor: pipe to socket")
    yield Figure("growth of the server's memory by it", "MiB", growth, 4)


def measure_files(server: LocalServer, options: dict[str, Any], rounds: int, size: int) -> Iterator[Figure]:
    """A large file up and down; the floor is the same between two processes of this machine."""
    sandbox = RawSandbox(server)
    path = "/home/user/file"
    buffer = memoryview(bytearray(_BUFFER))
    names = ("up", "down", "floor up", "floor down", "growth")
    figures: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryFile(dir="/dev/shm") as file, tempfile.TemporaryFile(dir="/dev/shm") as copy:
        for _ in range(size // _MIB):
            file.write(os.urandom(64 << 10) * 16)
        file.flush()

        def send(sock: socket.socket) -> None:
            _send_file(sock, file.fileno(), size)

        def store(sock: socket.socket) -> None:
            os.ftruncate(copy.fileno(), 0)
            os.lseek(copy.fileno(), 0, os.SEEK_SET)
            _store(sock, copy.fileno())

        for turn in range(rounds + 1):  # the first gets the machine to find the memory
            with _Growth(server, figures["growth"]):
                figures["up"].append(throughput(size, lambda: sandbox.upload(path, file.fileno(), size)))
                figures["down"].append(throughput(size, lambda: sandbox.download(path, buffer)))
            figures["floor up"].append(throughput(size, lambda: _between(send, store)))
            figures["floor down"].append(throughput(size, lambda: _between(send, _swallow)))
            if not turn:
                for samples in figures.values():
                    samples.clear()
        if int(sandbox.run(f"stat -c %s {path}")) != size:
            raise RuntimeError("the file in the sandbox is not as long as the one that was sent")
    sandbox.kill()
    mib = size // _MIB
    up, down, floor_up, floor_down, growth = figures.values()
    yield Figure(f"{mib} MiB up", "MiB/s", up, 1024, True, floor_up, "floor: sendfile, recv and write")
    yield Figure(f"{mib} MiB down", "MiB/s", down, 1024, True, floor_down, "floor: sendfile and recv")
    yield Figure("growth of the server's memory by both", "MiB", growth, 4)
    yield from _measure_sdk(options, rounds)


def _measure_sdk(options: dict[str, Any], rounds: int) -> Iterator[Figure]:
    size = 256 * _MIB
    up, down = [], []
    with Sandbox.create(timeout=600, **options) as sandbox, tempfile.TemporaryFile(dir="/dev/shm") as file:

        def read() -> None:
            for _ in sandbox.files.read("file", format="stream"):
                pass

        file.write(os.urandom(_MIB) * (size // _MIB))
        for _ in range(rounds):
            file.seek(0)
            up.append(throughput(size, lambda: sandbox.files.write("file", file)))
            down.append(throughput(size, read))
    yield Figure("256 MiB up, SDK", "MiB/s", up)
    yield Figure("256 MiB down, SDK", "MiB/s", down)


class _Growth:
    """Notes by how many MiB the server's memory has grown at its peak, in a `with` block."""

    def __init__(self, server: LocalServer, samples: list[float]) -> None:
        self._pid = server.pid
        self._samples = samples

    def __enter__(self) -> None:
        memory.reset_peak(self._pid)
        self._before = memory.resident(self._pid)

    def __exit__(self, *_: object) -> None:
        self._samples.append((memory.peak(self._pid) - self._before) / _MIB)


def _between(send: Callable[[socket.socket], None], take: Callable[[socket.socket], None]) -> None:
    """Let a process of its own send over TCP what this one takes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            try:
                with socket.create_connection(listener.getsockname()) as sock:
                    sock.settimeout(None)
                    send(sock)
                os._exit(0)
            finally:
                os._exit(1)
        with listener.accept()[0] as sock:
            take(sock)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the sender failed")


def _relay(sock: socket.socket) -> None:
    with subprocess.Popen(_COMMAND, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(_PIECE):
            sock.sendall(piece)


def _send_file(sock: socket.socket, fd: int, size: int) -> None:
    offset = 0
    while offset < size:
        offset += os.sendfile(sock.fileno(), fd, offset, size - offset)


def _swallow(sock: socket.socket) -> None:
    buffer = bytearray(_BUFFER)
    while sock.recv_into(buffer):
        pass


def _store(sock: socket.socket, fd: int) -> None:
    buffer = memoryview(bytearray(_PIECE))
    while count := sock.recv_into(buffer):
        os.write(fd, buffer[:count])
