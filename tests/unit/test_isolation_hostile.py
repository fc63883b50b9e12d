"""A box whose first process has been taken over: whatever it says, the server goes on, and the box ends."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest

from sandbox_local.isolation import syscalls, wire
from sandbox_local.isolation.base import BoxGone, Command, Usage
from sandbox_local.isolation.namespace_box import NamespaceBox
from tests.descriptors import none_left_open

_SPAWN = Command(["/bin/true"], "user")
Said = tuple[dict[str, Any], list[int]]


class Agent:
    """Says what it is told to, whatever it is asked."""

    def __init__(self, sock: socket.socket, answers: list[Said]) -> None:
        self._sock = sock
        self._answers = answers

    def run(self) -> None:
        try:
            while True:
                request, _ = wire.recv(self._sock)
                for message, fds in self._answers:
                    wire.send(self._sock, {"id": request["id"], **message}, fds)
        except (EOFError, OSError):
            pass


@asynccontextmanager
async def taken_over(*answers: Said) -> AsyncIterator[tuple[NamespaceBox, socket.socket]]:
    """A box with such an agent, and the agent's end of its socket. It must end, and leave nothing open."""
    ours, theirs = socket.socketpair()
    first = subprocess.Popen(["sleep", "1000"])

    async def reap() -> None:
        first.wait()

    box = NamespaceBox("box", ours, syscalls.pidfd_open(first.pid), reap, lambda: Usage(None, None, None))
    agent = threading.Thread(target=Agent(theirs, list(answers)).run)
    agent.start()
    try:
        yield box, theirs
    finally:
        await box.close()
        theirs.shutdown(socket.SHUT_RDWR)
        agent.join(10)
        theirs.close()
    assert first.returncode == -9


def in_loop(work: Callable[[], Awaitable[None]]) -> None:
    """Run a test; every descriptor that is open after it was open before it."""

    async def bounded() -> None:
        await asyncio.wait_for(work(), 30)

    with none_left_open():
        asyncio.run(bounded())


@contextmanager
def things(*kinds: str) -> Iterator[list[int]]:
    """Descriptors of these kinds."""
    with ExitStack() as stack:
        fds = []
        for kind in kinds:
            if kind == "file":
                fds.append(stack.enter_context(tempfile.TemporaryFile()).fileno())
            elif kind == "socket":
                fds.append(stack.enter_context(socket.socket()).fileno())
            else:
                for end in os.pipe():
                    stack.callback(os.close, end)
                    fds.append(end)
                fds.pop(-2 if kind == "write" else -1)
        yield fds


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        ({}, ["read", "read"]),
        ({"pid": 0}, ["read", "read"]),
        ({"pid": -7}, ["read", "read"]),
        ({"pid": "7"}, ["read", "read"]),
        ({"pid": 1 << 40}, ["read", "read"]),
        ({"pid": 7}, []),
        ({"pid": 7}, ["read"]),
        ({"pid": 7}, ["read", "read", "write"]),
        ({"pid": 7}, ["file", "read"]),
        ({"pid": 7}, ["read", "socket"]),
    ],
)
def test_a_start_that_is_answered_with_nonsense_ends_the_box(
    answer: dict[str, Any], kinds: list[str]
) -> None:
    async def work() -> None:
        with things(*kinds) as fds:
            async with taken_over(({"ok": answer}, fds)) as (box, _):
                with pytest.raises(OSError, match="nonsense") as caught:
                    await box.spawn(_SPAWN)
                assert caught.value.errno == errno.EIO
                assert "nonsense" in await asyncio.shield(box.ended)

    in_loop(work)


@pytest.mark.parametrize("kinds", [[], ["file"], ["read"], ["socket", "socket"]])
def test_a_connection_that_is_none_ends_the_box(kinds: list[str]) -> None:
    async def work() -> None:
        with things(*kinds) as fds:
            async with taken_over(({"ok": {}}, fds)) as (box, _):
                with pytest.raises(OSError, match="nonsense"):
                    await box.connect(80)
                assert "nonsense" in await asyncio.shield(box.ended)

    in_loop(work)


@pytest.mark.parametrize(
    "event",
    [
        {"event": "exit"},
        {"event": "exit", "command": []},
        {"event": "exit", "command": 1, "code": None, "signal": None, "core": 0},
        {"event": "exit", "command": 1, "code": "0", "signal": None, "core": 0},
        {"event": "exit", "command": 1, "code": 0, "signal": 9, "core": 0},
        {"event": "failed"},
        {"event": ["ready"]},
        {"event": None},
    ],
)
def test_an_event_that_makes_no_sense_ends_the_box(event: dict[str, Any]) -> None:
    async def work() -> None:
        async with taken_over((event, [])) as (box, _):
            with pytest.raises(BoxGone):
                await box.spawn(_SPAWN)
            await asyncio.wait_for(asyncio.shield(box.ended), 10)

    in_loop(work)


@pytest.mark.parametrize("said", [b"\xff" * 64, b"\0\0\0\2\0[]", b"\0\0\0\1\0{", b"\0\0\0\2\3{}"])
def test_bytes_that_are_no_message_end_the_box(said: bytes) -> None:
    async def work() -> None:
        async with taken_over() as (box, theirs):
            theirs.sendall(said)
            await asyncio.wait_for(asyncio.shield(box.ended), 10)

    in_loop(work)


def test_nothing_is_said_of_a_file_worker_that_nobody_waits_for() -> None:
    """Whoever asked is gone, as a client that hangs up is, when the box ends before its worker has begun."""

    async def work() -> None:
        said: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        async with taken_over() as (box, _):
            asked = asyncio.ensure_future(box.files("stat", user="user", path="/"))
            await asyncio.sleep(0)  # it has asked for a worker
            asked.cancel()
            await asyncio.wait({asked})
        await asyncio.sleep(0)
        gc.collect()
        assert not said

    in_loop(work)


def test_answers_to_questions_that_nobody_asked_are_dropped_with_what_they_bring() -> None:
    async def work() -> None:
        with things("read", "socket") as fds:
            async with taken_over() as (box, theirs):
                for number in (99, "x", None, [1], True):
                    wire.send(theirs, {"id": number, "ok": {}}, fds)
                    wire.send(theirs, {"id": number, "error": {"kind": 5}}, fds)
                wire.send(theirs, {"event": "ready"})
                await box.ready()
                assert not box.ended.done()

    in_loop(work)


def test_who_never_stops_talking_does_not_stop_the_server() -> None:
    async def work() -> None:
        async with taken_over() as (box, theirs):
            stop = threading.Event()

            def talk() -> None:
                frame = wire.encode({"id": 99, "ok": {}}, 0) * 1000
                try:
                    while not stop.is_set():
                        theirs.sendall(frame)
                except OSError:
                    pass  # it was ended

            talker = threading.Thread(target=talk)
            talker.start()
            try:
                for _ in range(100):
                    await asyncio.sleep(0)
                assert not box.ended.done()
            finally:
                await box.close()
                stop.set()
                talker.join(10)

    in_loop(work)
