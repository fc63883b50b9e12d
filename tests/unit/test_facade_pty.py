"""Terminals, against services that do what a test says."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_local.rpc import Code, Context, RpcError
from sandbox_sync import (
    ConnectionException,
    NotFoundException,
    PtyHandle,
    PtySize,
    RequestTimeoutException,
    SandboxException,
)
from tests.unit.facade_service import PID, ended, output, playing, sandbox, started, until

SIZE = PtySize(rows=24, cols=80)
KILLED = [(PID, pb.SIGNAL_SIGKILL)]


@pytest.fixture(params=["connect", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_login_shell_is_asked_for_with_a_terminal(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        sb.pty.create(SIZE)
        envs = {"LANG": "de", "X": "\u20ac"}
        sb.pty.create(PtySize(rows=65535, cols=1), print, "root", "/tmp", envs, 5, 5)
        (plain, context), (full, of_root) = service.starts
        assert (plain.process.cmd, list(plain.process.args)) == ("/bin/bash", ["-i", "-l"])
        assert dict(plain.process.envs) == {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        assert not plain.process.HasField("cwd")
        assert not plain.HasField("stdin")
        assert (plain.pty.size.rows, plain.pty.size.cols) == (24, 80)
        assert (context.user, context.timeout_ms) == (None, None)
        assert (full.pty.size.rows, full.pty.size.cols) == (65535, 1)
        assert full.process.cwd == "/tmp"
        assert full.process.envs["LANG"] == "de"
        assert full.process.envs["X"] == "\u20ac"
        assert full.process.envs["TERM"] == "xterm-256color"
        assert of_root.user == "root"
        assert of_root.timeout_ms is None, "the server would end the terminal with the handle"
        assert plain.tag != full.tag


def test_what_the_terminal_shows_comes_as_it_is(transport: str) -> None:
    pieces = [b"\xe2", b"\x82\xac", b"\xff\x00\x1b[2J"]
    with sandbox(transport) as (service, sb):
        service.start = playing(
            started(), *(output("pty", piece) for piece in pieces), ended(3, "exit status 3")
        )
        shown: list[bytes] = []
        handle = sb.pty.create(SIZE, shown.append, check=False)
        result = handle.wait(timeout=5)
        assert shown == pieces
        assert list(handle) == [(None, None, piece) for piece in pieces]
        assert handle.pty_bytes == b"".join(pieces)
        assert (result.exit_code, result.stdout, result.stderr) == (3, "", "")


def test_what_is_kept_of_a_terminal_is_bounded(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        chunks = [b"%015d\n" % n * 1000 for n in range(300)]
        service.start = playing(started(), *(output("pty", chunk) for chunk in chunks), ended())
        count = 0

        def on_data(data: bytes) -> None:
            nonlocal count
            count += len(data)

        handle = sb.pty.create(SIZE, on_data, retain_output=False)
        assert handle.wait(timeout=20).truncated
        assert count == 300 * 16_000
        assert 500_000 < len(handle.pty_bytes) <= 1 << 20
        assert handle.pty_bytes.endswith(chunks[-1])
        slow = sb.pty.create(SIZE, retain_output=False)
        assert b"".join(data or b"" for _, _, data in slow) == b"".join(chunks)


def test_a_terminal_whose_start_is_not_seen_is_found_and_killed(transport: str) -> None:
    """G2: within request_timeout + 0.5 s; and no shell is left behind."""
    with sandbox(transport) as (service, sb):

        async def script(request: pb.StartRequest, context: Context) -> AsyncIterator[pb.StartResponse]:
            service.listed = [pb.ProcessInfo(pid=1), pb.ProcessInfo(pid=PID, tag=request.tag)]
            await asyncio.Event().wait()
            yield started()

        service.start = script
        begin = time.monotonic()
        with pytest.raises(RequestTimeoutException):
            sb.pty.create(SIZE, request_timeout=0.5)
        assert 0.45 < time.monotonic() - begin < 1
        until(lambda: service.signals == KILLED)
        until(lambda: service.open_streams == 0)


def test_a_terminal_that_tells_no_id_is_found_and_killed(transport: str) -> None:
    with sandbox(transport) as (service, sb):

        async def script(request: pb.StartRequest, context: Context) -> AsyncIterator[pb.StartResponse]:
            service.listed = [pb.ProcessInfo(pid=PID, tag=request.tag)]
            yield output("pty", b"$ ")
            raise RpcError(Code.INTERNAL, "broken")

        service.start = script
        with pytest.raises(SandboxException, match="broken"):
            sb.pty.create(SIZE)
        until(lambda: service.signals == KILLED)


def test_without_a_thread_no_terminal_is_left(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox(transport) as (service, sb):

        async def script(request: pb.StartRequest, context: Context) -> AsyncIterator[pb.StartResponse]:
            service.listed = [pb.ProcessInfo(pid=PID, tag=request.tag)]
            yield started()
            await asyncio.Event().wait()

        service.start = script
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name == "sandbox-sync-command":
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(SandboxException, match="can't start new thread"):
            sb.pty.create(SIZE)
        until(lambda: service.signals == KILLED)
        until(lambda: service.open_streams == 0)


def test_a_dropped_handle_leaves_the_terminal_running(transport: str) -> None:
    """G11: the server sees within a second that nobody follows it."""
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("pty", b"$ "))
        handle = sb.pty.create(SIZE)
        assert isinstance(handle, PtyHandle)
        del handle
        gc.collect()
        until(lambda: service.open_streams == 0, within=1)
        assert service.signals == []


def test_leaving_the_block_kills_the_terminal(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        service.start = playing(started())
        with sb.pty.create(SIZE) as handle:
            assert handle.pid == PID
        assert service.signals == KILLED
        with pytest.raises(ConnectionException):
            handle.wait(timeout=5)


def test_no_call_waits_for_a_service_that_does_not_answer(transport: str) -> None:
    """G2: every call of a terminal fails within request_timeout + 0.5 s."""
    with sandbox(transport) as (service, sb):
        service.start = playing(started())
        handle = sb.pty.create(SIZE)

        async def never(request: Any, context: Context) -> Any:
            await asyncio.Event().wait()

        service._signal = service._input = never  # type: ignore[method-assign]
        calls: list[Callable[[float], object]] = [
            lambda seconds: handle.send_stdin("x", seconds),
            lambda seconds: sb.pty.send_stdin(PID, "x", request_timeout=seconds),
            lambda seconds: handle.close_stdin(request_timeout=seconds),
            lambda seconds: handle.kill(seconds),
            lambda seconds: sb.pty.kill(PID, seconds),
        ]
        for call in calls:
            begin = time.monotonic()
            with pytest.raises(RequestTimeoutException) as caught:
                call(0.3)
            assert 0.27 < time.monotonic() - begin < 0.8
            assert caught.value.sandbox_id == sb.sandbox_id


def test_a_terminal_that_is_not_there_is_not_killed(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        assert sb.pty.kill(PID) is True
        assert sb.pty.kill(PID + 1) is False
        assert service.signals == KILLED


def test_what_is_typed_goes_to_the_terminal_in_pieces(transport: str) -> None:
    received: list[pb.ProcessInput] = []

    async def take(request: pb.SendInputRequest, context: Context) -> pb.SendInputResponse:
        if request.process.pid != PID:
            raise RpcError(Code.NOT_FOUND, "process not found")
        received.append(pb.ProcessInput.FromString(request.input.SerializeToString()))
        return pb.SendInputResponse()

    with sandbox(transport) as (service, sb):
        service._input = take  # type: ignore[method-assign]
        sb.pty.send_stdin(PID, "\u20ac")
        sb.pty.send_stdin(PID, b"\xff" * 2_500_000)
        sb.pty.close_stdin(PID)
        with pytest.raises(NotFoundException):
            sb.pty.send_stdin(PID + 1, "x")
        assert {one.WhichOneof("input") for one in received} == {"pty"}
        typed = [one.pty for one in received]
        assert typed[0] == "\u20ac".encode()
        assert typed[-1] == b"\x04"
        assert b"".join(typed[1:-1]) == b"\xff" * 2_500_000
        assert max(map(len, typed)) <= 1 << 20
