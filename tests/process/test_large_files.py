"""Files that are larger than the memory a transfer may take: the peak of a whole process is measured."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox_sync import Sandbox
from tests.process.sdk_program import succeeds
from tests.unit.wire_server import Peer, scripted

MIB = 1 << 20
SIZE = 2048 * MIB + 1
MOST_EXTRA = 16 * MIB

PROGRAM = """
import json
from sandbox_sync.filesystem import Filesystem

def memory(what):
    for line in open("/proc/self/status"):
        if line.startswith(what):
            return int(line.split()[1]) * 1024

def measured(transfer):
    "What comes of a transfer, and the memory that it took at its peak, beyond what was there before."
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
    before = memory("VmRSS")
    result = transfer()
    print(json.dumps([result, memory("VmHWM") - before]))

def count(chunks):
    return sum(map(len, chunks))

def read_on(stream):
    return iter(lambda: stream.read(1000003), b"")

def pieces(size):
    block = bytes(1 << 20)
    for start in range(0, size, len(block)):
        yield block[: size - start]

"""

READING = """
from sandbox_sync import Sandbox
files = Sandbox.connect(sys.argv[1]).files
size = int(sys.argv[2])
files.read("small"), list(files.read("small", format="stream", gzip=True))
measured(lambda: TRANSFER)
"""

WRITING = """
files = Filesystem(envd())
size = int(sys.argv[2])
files.write("small", [b"x"]), files.write("small", b"x", gzip=True)
measured(lambda: TRANSFER)
"""


def outcome(program: str, *arguments: str) -> tuple[object, int]:
    """The result of a program's transfer and its extra memory."""
    result, extra = json.loads(succeeds(PROGRAM + program, *arguments))
    return result, extra


@pytest.fixture
def sandbox(server_env: dict[str, str]) -> Iterator[Sandbox]:
    with Sandbox.create(timeout=300) as sandbox:
        sandbox.files.write("small", b"x")
        yield sandbox


def sized(sandbox: Sandbox, size: int) -> str:
    """Make a file that takes no space."""
    sandbox.commands.run(f"truncate -s {size} large")
    return sandbox.sandbox_id


@pytest.mark.parametrize(
    ("transfer", "size"),
    [
        ("count(files.read('large', format='stream'))", SIZE),
        ("count(read_on(files.read('large', format='stream')))", SIZE),
        ("count(files.read('large', format='stream', gzip=True))", SIZE // 4),
    ],
    ids=["chunks", "read", "gzip"],
)
def test_a_large_file_is_streamed_down_in_little_memory(sandbox: Sandbox, transfer: str, size: int) -> None:
    """G29: 2 GiB take less than 16 MiB more, and a file that is packed a thousandfold does not, either."""
    program = READING.replace("TRANSFER", transfer)
    received, extra = outcome(program, sized(sandbox, size), str(size))
    assert received == size
    assert extra < MOST_EXTRA


@pytest.mark.parametrize(("format", "factor"), [("bytes", 1.2), ("text", 2.2)])
def test_a_file_that_is_read_whole_is_held_no_oftener_than_need_be(
    sandbox: Sandbox, format: str, factor: float
) -> None:
    """G29: bytes once; text beside the bytes that it is made of."""
    size = 256 * MIB
    program = READING.replace("TRANSFER", f"len(files.read('large', {format!r}))")
    received, extra = outcome(program, sized(sandbox, size), str(size))
    assert received == size
    assert extra < factor * size + MOST_EXTRA


def taking_all(received: list[int]) -> Callable[[Peer], None]:
    """A server that counts the bytes of each request's body and answers as if it had written a file."""

    def script(peer: Peer) -> None:
        while body := body_size(peer):
            received.append(body)
            peer.answer(200, b'[{"path":"/x","name":"x","type":"file"}]', content_type="text/plain")

    return script


def body_size(peer: Peer) -> int:
    """Read a request and forget it; 0 if none comes any more."""
    file = io.BufferedReader(socket.SocketIO(peer.sock, "r"), MIB)
    head = []
    while (line := file.readline()) != b"\r\n":
        if not line:
            return 0
        head.append(line)
    length = next((int(line[15:]) for line in head if line.lower().startswith(b"content-length:")), None)
    buffer = bytearray(MIB)
    if length is not None:
        left = length
        while left:
            left -= file.readinto(memoryview(buffer)[:left])
        return length
    size = 0
    while chunk := int(file.readline() or b"0", 16):
        left = chunk
        while left:
            left -= file.readinto(memoryview(buffer)[:left])
        file.readline()
        size += chunk
    file.readline()
    return size


@pytest.mark.parametrize(
    "transfer",
    [
        "files.write('large', open(sys.argv[3], 'rb'))",
        "files.write('large', pieces(size))",
        "files.write('large', open(sys.argv[3], 'rb'), gzip=True)",
    ],
    ids=["file", "iterable", "gzip"],
)
def test_a_large_file_is_streamed_up_in_little_memory(transfer: str, tmp_path: Path) -> None:
    """G29: 2 GiB take less than 16 MiB more."""
    size = SIZE // 4 if "gzip" in transfer else SIZE
    with open(tmp_path / "large", "wb") as large:
        large.truncate(size)
    received: list[int] = []
    with scripted(taking_all(received)) as server:
        program = WRITING.replace("TRANSFER", f"{transfer}.name")
        name, extra = outcome(program, server.url, str(size), str(tmp_path / "large"))
    assert name == "x"
    sent = received[-1]
    assert size <= sent < size + 1000 if "gzip" not in transfer else 0 < sent < size / 500
    assert extra < MOST_EXTRA
