"""The file operations of a box against links that change under them, and against what is no ordinary file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox_local.envd import open_files
from tests.security.servers import KINDS, on_server

_SWAP = """
SWAPPING = '''
import os, sys
secret, tree = sys.argv[1], sys.argv[2]
os.makedirs("/tmp/a/b", exist_ok=True)
open("/tmp/a/f", "w").write("mine")
print("ready", flush=True)
while True:
    for target in (secret, "/proc/1/root" + secret, "../" * 30 + secret, "/tmp/a/f"):
        for name, leads in (("/tmp/file", target), ("/tmp/dir", os.path.dirname(target))):
            os.symlink(leads, name + ".new")
            os.rename(name + ".new", name)
'''

import binascii

async def main(backend):
    box = await backend.create(BoxSpec("box"))
    process = await box.spawn(Command(["python3", "-c", SWAPPING, SECRET, TREE], "root"))
    await line(process.stdout)
    seen, tries = set(), 0
    until = time.monotonic() + 1
    async def attempt(operation, **arguments):
        nonlocal tries
        tries += 1
        try:
            answer, fds = await box.files(operation, user="root", **arguments)
        except (OSError, ValueError):
            return
        for fd in fds:
            if operation == "open_write":
                os.write(fd, b"overwritten")
            elif operation == "open_read":
                seen.add(os.read(fd, 99).decode())
            os.close(fd)
    while time.monotonic() < until:
        name = os.path.basename(SECRET)
        await asyncio.gather(
            attempt("open_read", path="/tmp/file"),
            attempt("open_read", path="/tmp/dir/" + name),
            attempt("open_write", path="/tmp/file", metadata={}),
            attempt("open_write", path="/tmp/dir/planted", metadata={}),
            attempt(
                "write_files",
                files=[("/tmp/file", 4), ("/tmp/dir/" + name, 4), ("/tmp/dir/planted", 4)],
                contents=binascii.b2a_base64(b"overwritten!").decode(),
                metadata={},
            ),
            attempt("move", source="/tmp/dir/" + name, destination="/tmp/taken"),
            attempt("remove", path="/tmp/dir/" + name),
            attempt("list_dir", path="/tmp/dir", depth=3),
            attempt("compose", sources=["/tmp/file"], destination="/tmp/composed"),
            attempt("watch", path="/tmp/dir", recursive=True, include_entry=True),
        )
    os.close(process.stdout); os.close(process.stderr)
    return [tries, sorted(seen)]

start(main)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_links_that_are_swapped_meanwhile_lead_nowhere_else(kind: str, tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and os.geteuid() == 0 and str(directory).startswith("/tmp/"):
            directory.chmod(0o777)
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    secret.chmod(0o666)
    tries, seen = on_server(kind, _SWAP, SECRET=str(secret), TREE=str(tmp_path))
    assert tries > 20
    assert "of the host" not in seen
    assert os.listdir(tmp_path) == ["secret"]
    assert secret.read_text() == "of the host"


_PROC = """
async def main(backend):
    box = await backend.create(BoxSpec("box"))
    process = await box.spawn(Command(["sleep", "99"], "user"))
    told = []
    for path in (f"/proc/{process.pid}/oom_score_adj", f"/proc/{process.pid}/comm"):
        until = time.monotonic() + 10
        while True:  # before the process has become its program it is out of everybody's reach
            try:
                await box.files("open_write", user="root", path=path, metadata={})
                told.append("opened")
            except PermissionError:
                if time.monotonic() < until:
                    continue
                told.append("out of reach")
            except (OSError, ValueError) as error:
                told.append(str(error))
            break
        answer, _ = await box.files("write_files", user="root", files=[(path, 0)], contents="", metadata={})
        told.append(f"written: {answer['files']}" if answer["files"] else answer["error"]["message"])
    os.close(process.stdout); os.close(process.stderr)
    return told

start(main)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_the_kernel_are_not_written_by_the_server(kind: str) -> None:
    """The kernel judges such a write by who does it: the server, who may exempt a process from being killed
    when memory is short."""
    for told in on_server(kind, _PROC):
        assert told.startswith("what the kernel makes up is written by commands only")


def test_open_files_end_with_their_box(tmp_path: Path) -> None:
    """A transfer that stalls does not keep the memory of a box that is dead."""

    async def work() -> None:
        box: Any = SimpleNamespace(ended=asyncio.get_running_loop().create_future())
        (tmp_path / "f").write_bytes(b"content")
        (tmp_path / "other").write_bytes(b"other")
        kept, closed = (os.open(tmp_path / "f", os.O_RDWR) for _ in range(2))
        for fd in (kept, closed):
            open_files.note(box, fd)
        os.close(closed)
        other = os.open(tmp_path / "other", os.O_RDONLY)
        assert other == closed, "the number is used again"
        box.ended.set_result("it was closed")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert os.pread(kept, 9, 0) == b""
        with pytest.raises(PermissionError):
            os.write(kept, b"x")
        assert not os.get_inheritable(kept)
        assert os.pread(other, 9, 0) == b"other"
        os.close(kept)
        os.close(other)

    asyncio.run(work())
