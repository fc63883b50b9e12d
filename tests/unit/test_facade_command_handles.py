"""Handles of commands in the background, against servers that do what is asked, and servers that do not."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import pytest
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_local.rpc import Code, Context, RpcError
from sandbox_sync import (
    CommandHandle,
    CommandTimeoutException,
    ConnectionException,
    InvalidArgumentException,
    RequestTimeoutException,
    SandboxException,
    TimeoutException,
)
from tests.unit.facade_service import PID, ended, output, playing, sandbox, started, until

pytestmark = pytest.mark.parametrize("transport", ["connect", "grpc"])


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sandbox-sync-command"]


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


def test_one_of_many_that_wait_gets_the_error_of_a_callback(transport: str) -> None:
    def on_stdout(text: str) -> None:
        raise KeyError(text)

    with sandbox(transport) as (service, sb), ThreadPoolExecutor(16) as pool:
        for _ in range(10):
            go_on, end = threading.Event(), threading.Event()

            async def script(
                request: pb.StartRequest,
                context: Context,
                go_on: threading.Event = go_on,
                end: threading.Event = end,
            ) -> AsyncIterator[pb.StartResponse]:
                yield started()
                while not go_on.is_set():
                    await asyncio.sleep(0.01)
                yield output("stdout", b"x")
                while not end.is_set():
                    await asyncio.sleep(0.01)
                yield ended()

            service.start = script
            handle = sb.commands.run("x", background=True, on_stdout=on_stdout)
            waiting = [pool.submit(handle.wait) for _ in range(16)]
            go_on.set()
            first = next(as_completed(waiting, timeout=5))
            assert isinstance(first.exception(), KeyError)
            end.set()
            errors = [one.exception(5) for one in waiting]
            assert [type(error) for error in errors if error is not None] == [KeyError]


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


@pytest.mark.parametrize("how", ["dropped", "in a cycle", "broken out of", "waited for in vain", "left"])
def test_a_handle_that_is_gone_closes_its_connection(transport: str, how: str) -> None:
    """G11: dropped, collected, broken out of: the server sees it within a second, and nothing is killed."""
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"x"))
        if how == "broken out of":
            for _ in sb.commands.run("x", background=True):
                assert service.open_streams == 1
                break
        elif how == "left":
            with sb.commands.connect(PID):
                assert service.open_streams == 1
        else:
            handle: CommandHandle | None = sb.commands.run("x", background=True)
            assert handle is not None
            assert service.open_streams == 1
            if how == "in a cycle":
                handle.myself = handle  # type: ignore[attr-defined]
            elif how == "waited for in vain":
                with pytest.raises(TimeoutException):
                    handle.wait(timeout=0.1)
            handle = None
        if how == "in a cycle":
            gc.collect()
        until(lambda: service.open_streams == 0, within=1)
        assert service.signals == []
        until(lambda: not readers(), within=1)


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


def test_a_background_command_is_drained_and_bounded(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """G10: nobody reads, and the command ends all the same; what is kept is the newest."""
    monkeypatch.setattr("sandbox_sync.handles.RETAINED_BYTES", 1_000_000)
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


@pytest.mark.parametrize("way", ["wait", "wait with a timeout", "iterate"])
def test_a_callback_cannot_wait_for_its_own_command(transport: str, way: str) -> None:
    ways: dict[str, Callable[[CommandHandle], object]] = {
        "wait": lambda handle: handle.wait(),
        "wait with a timeout": lambda handle: handle.wait(timeout=30),
        "iterate": list,
    }
    known = threading.Event()
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"1"), output("stdout", b"2"), ended())

        def on_stdout(text: str) -> None:
            known.wait(5)
            ways[way](handle)

        handle = sb.commands.run("x", background=True, on_stdout=on_stdout)
        known.set()
        with pytest.raises(SandboxException, match="callback"):
            handle.wait(timeout=5)
        assert handle.wait(timeout=5).stdout == "12"


def test_a_callback_can_let_go_of_its_own_command(transport: str) -> None:
    known = threading.Event()
    with sandbox(transport) as (service, sb):
        service.start = playing(started(), output("stdout", b"1"))

        def on_stdout(text: str) -> None:
            known.wait(5)
            handle.disconnect()

        handle = sb.commands.run("x", background=True, on_stdout=on_stdout)
        known.set()
        with pytest.raises(ConnectionException, match=r"commands\.connect\(7\)"):
            handle.wait(timeout=5)
        until(lambda: service.open_streams == 0 and not readers(), within=1)


@pytest.mark.parametrize("how", ["leave", "drop", "disconnect"])
def test_a_handle_that_is_let_go_frees_the_reader_that_waits_for_it(transport: str, how: str) -> None:
    """G11: also of output that is held up for an iteration which never comes."""
    with sandbox(transport) as (service, sb):
        much = [output("stdout", b"x" * 30_000) for _ in range(100)]
        service.start = playing(started(), *much)
        handle: CommandHandle | None = sb.commands.run("x", background=True, retain_output=False)
        assert handle is not None
        until(lambda: handle is not None and len(handle.stdout_bytes) > 900_000)
        assert readers()
        if how == "leave":
            with handle:
                pass
            with pytest.raises(ConnectionException, match="killed when its `with` block was left"):
                handle.wait(timeout=5)
        elif how == "disconnect":
            handle.disconnect()
        handle = None
        gc.collect()
        until(lambda: service.open_streams == 0 and not readers(), within=1)
