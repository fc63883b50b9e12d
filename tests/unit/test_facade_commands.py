"""Commands in the foreground, against servers that do what is asked, and servers that do not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_local.rpc import Context
from sandbox_sync import (
    CommandExitException,
    CommandTimeoutException,
    InvalidArgumentException,
    Sandbox,
    handles,
)
from tests.unit.facade_service import PID, ended, output, playing, sandbox, started, until

pytestmark = pytest.mark.parametrize("transport", ["connect", "grpc"])


def test_a_command_is_a_login_shell_without_input(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        sb.commands.run("echo hi", envs={"A": "b"}, cwd="/tmp", user="root")
        ((request, context),) = service.starts
        assert request.process.cmd == "/bin/bash"
        assert list(request.process.args) == ["-l", "-c", "echo hi"]
        assert dict(request.process.envs) == {"A": "b"}
        assert request.process.cwd == "/tmp"
        assert request.HasField("stdin")
        assert not request.stdin
        assert context.user == "root"
        assert context.timeout_ms == 60_000


def test_what_is_left_out_is_left_to_the_server(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        sb.commands.run("true", timeout=0)
        ((request, context),) = service.starts
        assert not request.process.HasField("cwd")
        assert context.user is None
        assert context.timeout_ms is None


def test_output_reaches_callbacks_while_the_command_runs(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        seen: list[tuple[str, str]] = []
        go_on = threading.Event()

        async def script(request: pb.StartRequest, context: Context) -> AsyncIterator[pb.StartResponse]:
            yield started()
            yield output("stdout", b"out")
            yield output("stderr", b"err")
            while not go_on.is_set():
                await asyncio.sleep(0.01)
            yield ended()

        service.start = script
        main = threading.current_thread()

        def on_stdout(text: str) -> None:
            assert threading.current_thread() is main
            seen.append(("out", text))

        def on_stderr(text: str) -> None:
            seen.append(("err", text))
            go_on.set()

        result = sb.commands.run("x", on_stdout=on_stdout, on_stderr=on_stderr)
        assert seen == [("out", "out"), ("err", "err")]
        assert (result.stdout, result.stderr, result.exit_code) == ("out", "err", 0)


def test_a_failing_command_raises_unless_told_otherwise(transport: str) -> None:
    """G14: check=False returns the exit code; the default raises."""
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"o"), output("stderr", b"e"), ended(3))
        with pytest.raises(CommandExitException) as caught:
            sb.commands.run("x")
        error = caught.value
        assert (error.stdout, error.stderr, error.exit_code) == ("o", "e", 3)
        assert error.sandbox_id == sb.sandbox_id
        assert sb.commands.run("x", check=False).exit_code == 3
        assert sb.commands.run("x", background=True, check=False).wait().exit_code == 3
        assert service.signals == []


def test_a_command_that_a_signal_ended_says_so(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), ended(-1, "signal: killed"))
        result = sb.commands.run("x", check=False)
        assert (result.exit_code, result.error) == (-1, "signal: killed")


def test_a_timeout_carries_the_output_and_leaves_no_process(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"so far"), output("stderr", b"and"))
        before = time.monotonic()
        with pytest.raises(CommandTimeoutException) as caught:
            sb.commands.run("x", timeout=0.5)
        assert 0.5 <= time.monotonic() - before < 3
        assert (caught.value.stdout, caught.value.stderr, caught.value.pid) == ("so far", "and", PID)
        assert caught.value.limit == 0.5
        until(lambda: service.signals == [(PID, pb.SIGNAL_SIGKILL)])


def test_an_error_of_a_callback_ends_the_command(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"x"))

        def on_stdout(text: str) -> None:
            raise KeyError(text)

        with pytest.raises(KeyError):
            sb.commands.run("x", on_stdout=on_stdout)
        until(lambda: service.signals == [(PID, pb.SIGNAL_SIGKILL)])
        until(lambda: service.open_streams == 0)


def test_ctrl_c_ends_the_command_and_is_felt_at_once(transport: str) -> None:
    """G41: SIGINT in run() on a silent server: KeyboardInterrupt within 0.5 s, and the command is killed."""
    code = """
import os, signal, sys, threading, time
from sandbox_sync import Sandbox
options = {"api_key": "key", "api_url": sys.argv[1], "sandbox_url": sys.argv[1], "transport": sys.argv[2]}
sandbox = Sandbox.create(**options)
pressed = []
def press(_):
    def later():
        time.sleep(0.3)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=later).start()
try:
    sandbox.commands.run("sleep 1000", timeout=0, on_stdout=press)
except KeyboardInterrupt:
    print(time.monotonic() - pressed[0])
"""
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"x"))
        url = sb._config.api_url
        said = subprocess.run(
            [sys.executable, "-c", code, url, transport],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert float(said.stdout) < 0.5
        assert service.signals == [(PID, pb.SIGNAL_SIGKILL)]


def test_the_start_may_come_after_output(transport: str) -> None:
    """G9: events before `start` are not lost."""
    with sandbox(transport) as (service, sb):
        service.start = playing(output("stdout", b"early "), started(), output("stdout", b"late"), ended())
        assert sb.commands.run("x").stdout == "early late"
        handle = sb.commands.run("x", background=True)
        assert handle.pid == PID
        assert handle.wait().stdout == "early late"


def test_output_that_is_not_retained_is_bounded(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        chunk = b"x" * 30_000
        service.start = playing(started(), *(output("stdout", chunk) for _ in range(100)), ended())
        total = 0

        def count(text: str) -> None:
            nonlocal total
            total += len(text)

        result = sb.commands.run("x", retain_output=False, on_stdout=count)
        assert total == 3_000_000
        assert result.truncated
        assert 500_000 < len(result.stdout) <= handles.WINDOW_BYTES
        assert len(sb.commands.run("x").stdout) == 3_000_000


@pytest.mark.parametrize(
    "arguments",
    [
        {"cmd": ["ls"]},
        {"cmd": "x\udc80"},
        {"cmd": "x", "envs": {"A": None}},
        {"cmd": "x", "cwd": "\0"},
        {"cmd": "x", "timeout": -1},
        {"cmd": "x", "timeout": float("nan")},
        {"cmd": "x", "request_timeout": "soon"},
    ],
)
def test_arguments_that_cannot_be_are_refused_at_once(transport: str, arguments: dict[str, Any]) -> None:
    with sandbox(transport) as (service, sb):
        with pytest.raises(InvalidArgumentException):
            sb.commands.run(**arguments)
        assert service.starts == []


@pytest.mark.parametrize("pid", [-1, 2**32, "7", 1.5])
def test_process_ids_that_cannot_be_are_refused(transport: str, pid: Any) -> None:
    with sandbox(transport) as (_, sb):
        for call in (sb.commands.kill, sb.commands.connect, sb.commands.close_stdin):
            with pytest.raises(InvalidArgumentException):
                call(pid)


def test_killing_tells_whether_there_was_something_to_kill(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        assert sb.commands.kill(PID)
        assert not sb.commands.kill(12345)
        assert service.signals == [(PID, pb.SIGNAL_SIGKILL)]


def test_one_sandbox_serves_many_threads(transport: str) -> None:
    """G16: each thread gets its own output."""

    async def echo(request: pb.StartRequest, context: Context) -> AsyncIterator[pb.StartResponse]:
        yield started()
        yield output("stdout", request.process.args[2].encode())
        yield ended()

    def work(sb: Sandbox, number: int) -> None:
        for turn in range(20):
            word = f"{number}-{turn}"
            assert sb.commands.run(word).stdout == word

    with sandbox(transport) as (service, sb), ThreadPoolExecutor(32) as pool:
        service.start = echo
        for one in [pool.submit(work, sb, number) for number in range(32)]:
            one.result(60)
