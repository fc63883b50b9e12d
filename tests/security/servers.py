"""Servers of both kinds, as root and as a user without privileges, and what is told from inside their boxes.

The boxes are made by a program of its own, so that both kinds are asked by the same lines.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import sandbox_local
from tests.live.unprivileged import run_unprivileged

KINDS = ("root", "unprivileged") if os.geteuid() == 0 else ("unprivileged",)
USERS = ("user", "root")

_PROBES = Path(__file__).with_name("probes.py")

_TOOLS = """
import asyncio, ctypes, json, os, signal, socket, time
from sandbox_local.isolation.base import BoxSpec, Command, Limits
from sandbox_local.isolation.namespaces import NamespaceBackend

async def output(fd):
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb"))
    try:
        return (await reader.read()).decode("utf-8", "replace")
    finally:
        transport.close()

async def run(box, *argv, user="user"):
    process = await box.spawn(Command(argv, user))
    out, err = await asyncio.gather(output(process.stdout), output(process.stderr))
    return [(await process.exit).code, out, err]

async def python(box, program, *arguments, user="user"):
    return await run(box, "python3", "-c", program, *arguments, user=user)

async def line(fd):
    loop, told = asyncio.get_running_loop(), b""
    while not told.endswith(b"\\n"):
        ready = asyncio.Event()
        loop.add_reader(fd, ready.set)
        await asyncio.wait_for(ready.wait(), 30)
        loop.remove_reader(fd)
        if not (byte := os.read(fd, 1)):
            raise EOFError(told)
        told += byte
    return told.decode()

async def hold(box, program, user):
    "Start a program that takes something, tells how much in a line, and keeps it."
    process = await box.spawn(Command(["python3", "-c", program], user))
    os.close(process.stderr)
    return process, (await line(process.stdout)).strip()

async def timed(work):
    started = time.monotonic()
    await asyncio.wait_for(work, 5)
    return time.monotonic() - started

def start(main):
    async def whole():
        backend = NamespaceBackend()
        await backend.start()
        try:
            print(json.dumps(await main(backend)))
        finally:
            await backend.close()
    asyncio.run(asyncio.wait_for(whole(), 55))
"""

_MAIN = """
async def main(backend):
    box = await backend.create(BoxSpec("box"))
    two = await backend.create(BoxSpec("two"))
    told = {}
    for user in ("user", "root"):
        code, out, err = await python(box, PROBES, *ARGUMENTS, user=user)
        assert code == 0, err
        told[user] = json.loads(out)
    return told

start(main)
"""


def on_server(kind: str, program: str, **values: Any) -> Any:
    """Run a program of the tools above with a server of that kind; returns the JSON that it prints.

    Raises:
        AssertionError: An assertion of the program failed.
        RuntimeError: Anything else of it failed.
    """
    text = _TOOLS + "".join(f"{name} = {value!r}\n" for name, value in values.items()) + program
    try:
        return json.loads(run_unprivileged(text) if kind == "unprivileged" else _run_here(text))
    except AssertionError as error:
        *_, last = str(error).strip().splitlines()
        if last.startswith("AssertionError"):
            raise
        raise RuntimeError(str(error)) from None


def _run_here(text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={"PYTHONPATH": str(Path(sandbox_local.__file__).parent.parent), "PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


@functools.cache
def answers(kind: str) -> dict[str, dict[str, str]]:
    """What `probes.py` tells in a box of such a server, by the user that it runs as."""
    abstract = f"security-test-{os.getpid()}-{kind}"
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket() as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        os.chmod(directory, 0o755)
        secret = Path(directory, "secret")
        secret.write_text("of the host")
        tcp.bind(("127.0.0.1", 0))
        unix.bind("\0" + abstract)
        for sock in (tcp, unix):
            sock.listen()
        arguments = [str(secret), str(os.getpid()), str(tcp.getsockname()[1]), abstract]
        told: dict[str, dict[str, str]] = on_server(
            kind, _MAIN, PROBES=_PROBES.read_text(), ARGUMENTS=arguments
        )
    return told
