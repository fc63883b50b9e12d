"""Commands and their handles, against servers that do what is asked, and servers that do not."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_local.rpc import Code, Context, RpcError
from sandbox_sync import (
    CommandExitException,
    CommandTimeoutException,
    ConnectionException,
    InvalidArgumentException,
    RequestTimeoutException,
    Sandbox,
    SandboxException,
    TimeoutException,
    handles,
)
from tests.unit.facade_service import PID, ended, output, playing, sandbox, started

pytestmark = pytest.mark.parametrize("transport", ["connect", "grpc"])


def until(condition: Callable[[], object], within: float = 5.0) -> None:
    """Wait for something that has no event to wait for."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


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


def test_in_the_background_the_handle_knows_the_command(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        go_on = threading.Event()

        async def script(request: pb.StartRequest, context: Context) -> AsyncIterator[pb.StartResponse]:
            yield started()
            yield output("stdout", "\u20ac".encode()[:2])
            while not go_on.is_set():
                await asyncio.sleep(0.01)
            yield output("stdout", "\u20ac".encode()[2:])
            yield output("stderr", b"\xff")
            yield ended()

        service.start = script
        handle = sb.commands.run("x", background=True)
        assert handle.pid == PID
        assert handle.exit_code is None
        assert handle.poll() is None
        assert handle.error is None
        until(lambda: handle.stdout_bytes)
        assert handle.stdout == ""
        go_on.set()
        result = handle.wait()
        assert result.stdout == handle.stdout == "\u20ac"
        assert result.stderr == handle.stderr == "\ufffd"
        assert handle.stderr_bytes == b"\xff"
        assert handle.poll() == handle.exit_code == 0
        assert handle.wait() == result
        assert "pid 7" in repr(handle)


def test_the_start_may_come_after_output(transport: str) -> None:
    """G9: events before `start` are not lost."""
    with sandbox(transport) as (service, sb):
        service.start = playing(output("stdout", b"early "), started(), output("stdout", b"late"), ended())
        assert sb.commands.run("x").stdout == "early late"
        handle = sb.commands.run("x", background=True)
        assert handle.pid == PID
        assert handle.wait().stdout == "early late"


def test_a_start_that_never_comes_is_a_request_timeout(transport: str) -> None:
    """G2: a server that answers and does not start the command: within request_timeout + 0.5 s."""
    with sandbox(transport) as (service, sb):
        service.start = playing(output("stdout", b"no start"))
        before = time.monotonic()
        with pytest.raises(RequestTimeoutException):
            sb.commands.run("x", background=True, request_timeout=0.5)
        assert time.monotonic() - before < 1
        until(lambda: service.open_streams == 0)


def test_a_background_timeout_leaves_the_command_running(transport: str) -> None:
    """G8: the timeout of a background command ends the connection; nothing tells the server to kill it."""
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"so far"))
        handle = sb.commands.run("x", background=True, timeout=0.5)
        ((_, context),) = service.starts
        assert context.timeout_ms is None
        before = time.monotonic()
        with pytest.raises(CommandTimeoutException, match=rf"runs on; commands\.connect\({PID}\)") as caught:
            handle.wait()
        assert time.monotonic() - before < 1
        assert caught.value.stdout == "so far"
        with pytest.raises(CommandTimeoutException):
            handle.poll()
        until(lambda: service.open_streams == 0)
        assert service.signals == []


def test_waiting_can_be_bounded_without_touching_the_command(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"x"))
        handle = sb.commands.run("x", background=True)
        with pytest.raises(TimeoutException, match=r"wait\(timeout=0.2\)"):
            handle.wait(timeout=0.2)
        assert handle.poll() is None
        assert service.open_streams == 1
        handle.disconnect()


def test_callbacks_in_the_background_have_the_callers_context(transport: str) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("of the caller")
    seen: list[tuple[str, str, bool]] = []
    main = threading.current_thread()
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"x"), ended())
        handle = sb.commands.run(
            "x",
            background=True,
            on_stdout=lambda text: seen.append((text, variable.get(), threading.current_thread() is main)),
        )
        handle.wait()
        assert seen == [("x", "of the caller", False)]


def test_an_error_of_a_background_callback_is_raised_once_by_wait(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"1"), output("stdout", b"2"), ended())
        calls: list[str] = []

        def on_stdout(text: str) -> None:
            calls.append(text)
            raise KeyError(text)

        handle = sb.commands.run("x", background=True, on_stdout=on_stdout)
        until(lambda: handle.exit_code is not None)
        with pytest.raises(KeyError):
            handle.wait()
        assert handle.wait().stdout == "12"
        assert len(calls) == 1


def test_iteration_wait_and_properties_work_at_the_same_time(transport: str) -> None:
    text = "".join(f"{n}\n" for n in range(2000))
    chunks = [text[at : at + 7].encode() for at in range(0, len(text), 7)]
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), *(output("stdout", chunk) for chunk in chunks), ended())
        handle = sb.commands.run("x", background=True)
        with ThreadPoolExecutor(8) as pool:
            iterations = [pool.submit(lambda: "".join(out or "" for out, _, _ in handle)) for _ in range(4)]
            waits = [pool.submit(handle.wait) for _ in range(4)]
            assert all(text.startswith(handle.stdout) for _ in range(20))
            assert [one.result(20) for one in iterations] == [text] * 4
            assert [one.result(20).stdout for one in waits] == [text] * 4


def test_wait_can_call_back_in_the_callers_thread(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        service.start = playing(
            started(), output("stdout", b"o"), output("stderr", b"e"), output("pty", b"p"), ended()
        )
        handle = sb.commands.run("x", background=True)
        seen: list[Any] = []
        handle.wait(on_stdout=seen.append, on_stderr=seen.append, on_pty=seen.append)
        assert seen == ["o", "e", b"p"]


def test_disconnecting_frees_whoever_waits(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"so far"))
        handle = sb.commands.run("x", background=True)
        until(lambda: handle.stdout)
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(handle.wait)
            iterating = pool.submit(list, handle)
            handle.disconnect()
            for one in (waiting, iterating):
                with pytest.raises(ConnectionException, match=r"commands\.connect\(7\)"):
                    one.result(1)
        until(lambda: service.open_streams == 0)
        assert service.signals == []
        assert handle.stdout == "so far"
        handle.disconnect()


def test_a_dropped_handle_closes_its_connection(transport: str) -> None:
    """G11: the server sees it within a second."""
    with sandbox(transport) as (service, sb):
        service.start = playing(started())
        handle = sb.commands.run("x", background=True)
        assert service.open_streams == 1
        del handle
        gc.collect()
        until(lambda: service.open_streams == 0, within=1)
        assert service.signals == []


def test_callbacks_go_on_when_the_handle_is_dropped(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        go_on, seen = threading.Event(), threading.Event()

        async def script(request: pb.StartRequest, context: Context) -> AsyncIterator[pb.StartResponse]:
            yield started()
            while not go_on.is_set():
                await asyncio.sleep(0.01)
            yield output("stdout", b"x")
            yield ended()

        service.start = script
        sb.commands.run("x", background=True, on_stdout=lambda _: seen.set())
        gc.collect()
        go_on.set()
        assert seen.wait(5)


def test_leaving_the_block_kills_what_run_started(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        service.start = playing(started())
        with sb.commands.run("x", background=True):
            assert service.signals == []
        assert service.signals == [(PID, pb.SIGNAL_SIGKILL)]
        until(lambda: service.open_streams == 0)
        service.signals.clear()
        service.start = playing(started(), ended())
        with sb.commands.run("x", background=True) as handle:
            handle.wait()
        assert service.signals == []


def test_the_users_error_is_not_hidden_when_the_kill_fails(transport: str) -> None:
    with sandbox(transport) as (service, sb):
        service.start = playing(started(99), output("stdout", b"x"))

        async def fail(request: Any, context: Context) -> Any:
            raise RpcError(Code.INTERNAL, "no")

        service._signal = fail  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError), sb.commands.run("x", background=True):
            raise ZeroDivisionError
        with pytest.raises(SandboxException), sb.commands.run("x", background=True):
            pass


def test_input_needs_stdin_and_goes_in_pieces(transport: str) -> None:
    """G13: stdin is /dev/null by default, and send_stdin says what to do."""
    with sandbox(transport) as (service, sb):
        service.start = playing(started())
        with (
            sb.commands.run("x", background=True) as handle,
            pytest.raises(InvalidArgumentException, match="stdin=True"),
        ):
            handle.send_stdin("x")
        with sb.commands.run("x", background=True, stdin=True) as handle:
            assert service.starts[-1][0].stdin
            handle.send_stdin("\u20ac")
            handle.send_stdin(b"\xff" * (2_500_000))
        assert service.inputs[0] == "\u20ac".encode()
        assert b"".join(service.inputs[1:]) == b"\xff" * 2_500_000
        assert max(map(len, service.inputs)) <= 1 << 20


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


def test_a_background_command_is_drained_and_bounded(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """G10: nobody reads, and the command ends all the same; what is kept is the newest."""
    monkeypatch.setattr("sandbox_sync.commands.RETAINED_BYTES", 1_000_000)
    with sandbox(transport) as (service, sb):
        chunks = [b"%07d\n" % n * 3000 for n in range(100)]
        service.start = playing(started(), *(output("stdout", chunk) for chunk in chunks), ended())
        handle = sb.commands.run("x", background=True)
        until(lambda: handle.exit_code is not None)
        result = handle.wait()
        assert result.truncated
        assert len(result.stdout) < 1_000_000
        assert result.stdout.endswith(chunks[-1].decode())


def test_a_fork_has_no_part_in_a_running_handle(transport: str) -> None:
    if transport == "grpc":
        pytest.skip("forking while gRPC streams run is not safe, whatever the handle does")
    with sandbox(transport) as (service, sb):
        service.start = playing(started())
        handle = sb.commands.run("x", background=True)
        child = os.fork()
        if not child:
            try:
                handle.wait(timeout=5)
            except ConnectionException as error:
                os._exit(0 if f"commands.connect({PID})" in str(error) else 2)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert handle.poll() is None
        assert service.open_streams == 1
        handle.disconnect()


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
