"""What is known of a sandbox when answers are lost, late, or those of a service that has gone."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from sandbox_local import LocalServer
from sandbox_sync import (
    CommandTimeoutException,
    ConflictException,
    ConnectionException,
    PortNotOpenException,
    RequestTimeoutException,
    Sandbox,
    SandboxException,
    SandboxNotRunningException,
    SandboxQuery,
    SandboxUnreachableException,
    ServiceBusyException,
)
from tests.processes import idle_time
from tests.unit.facade_service import sandbox as scripted

BUSY = b'{"code": 503, "message": "the edge is busy"}'


class Front(ThreadingHTTPServer):
    """Stands before a server. Requests that `loses` names reach it, and their answers never come back."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(url).netloc
        self.loses: list[str] = []
        self.how: int | None = 504
        self.seen: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.command, self.path))
        upstream = http.client.HTTPConnection(self.server.behind, timeout=30)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if self.command in self.server.loses:
            self.server.loses.remove(self.command)
            if self.server.how is None:
                self.close_connection = True
                self.connection.shutdown(2)
                return
            self._answer(self.server.how, BUSY, {})
        else:
            self._answer(answer.status, content, dict(answer.getheaders()))

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _forward

    def log_message(self, *arguments: Any) -> None: ...


@contextmanager
def losing(server: LocalServer) -> Iterator[tuple[Front, dict[str, Any]]]:
    """A front before the server, and the options that lead through it."""
    with Front(server.url) as front:
        thread = threading.Thread(target=front.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield front, {"api_key": server.api_key, "api_url": front.url, "sandbox_url": server.url}
        finally:
            front.shutdown()
            thread.join()


@pytest.mark.documented("Sandbox.create")
@pytest.mark.parametrize("how", [504, 502, None])
@pytest.mark.usefixtures("server_env", "transport")
def test_a_create_whose_answer_was_lost_leaves_one_sandbox(server: LocalServer, how: int | None) -> None:
    """G21: 504 and then 201 leaves exactly one sandbox, which is the one that is returned."""
    mark = {"mark": uuid4().hex}
    with losing(server) as (front, options):
        front.loses, front.how = ["POST", "POST"], how
        with Sandbox.create(metadata=mark, **options) as sandbox:
            assert front.seen.count(("POST", "/v2/sandboxes")) == 3
            found = Sandbox.list(query=SandboxQuery(metadata=mark))
            assert [info.sandbox_id for info in found] == [sandbox.sandbox_id]
            assert sandbox.commands.run("echo it works").stdout == "it works\n"
        assert not Sandbox.list(query=SandboxQuery(metadata=mark))


@pytest.mark.usefixtures("server_env", "transport")
def test_a_key_is_for_one_sandbox() -> None:
    """G21: the same key with other parameters is a conflict, and makes nothing."""
    key, mark = uuid4().hex, {"mark": uuid4().hex}
    with Sandbox.create(metadata=mark, idempotency_key=key) as sandbox:
        for other in (
            {"timeout": 99},
            {"envs": {"A": "1"}},
            {"template": "base", "allow_internet_access": False},
        ):
            with pytest.raises(ConflictException, match="Idempotency-Key"):
                Sandbox.create(metadata=mark, idempotency_key=key, **other)
        assert [info.sandbox_id for info in Sandbox.list(query=SandboxQuery(metadata=mark))] == [
            sandbox.sandbox_id
        ]


@pytest.mark.usefixtures("server_env", "transport")
@pytest.mark.parametrize("error", [ValueError("in a subclass"), KeyboardInterrupt(), SystemExit(3)])
def test_a_create_that_fails_half_way_leaves_nothing(error: BaseException) -> None:
    """G22: whatever fails after the sandbox was made, it is killed before the error leaves."""

    class Failing(Sandbox):
        def __init__(self, *arguments: Any) -> None:
            raise error

    mark = {"mark": uuid4().hex}
    with pytest.raises(type(error)) as caught:
        Failing.create(metadata=mark)
    assert caught.value is error
    assert not Sandbox.list(query=SandboxQuery(metadata=mark))


@pytest.mark.documented("Sandbox.kill")
@pytest.mark.usefixtures("server_env", "transport")
def test_a_kill_whose_answer_was_lost_was_one(server: LocalServer) -> None:
    """G59: True when an attempt of this call may have done it, False when it was gone before."""
    with losing(server) as (front, options):
        for how in (502, None):
            sandbox = Sandbox.create(**options)
            front.loses, front.how = ["DELETE"], how
            assert sandbox.kill() is True
            assert sandbox.kill() is False
            assert Sandbox.kill(sandbox.sandbox_id, **options) is False


@pytest.mark.usefixtures("server_env", "transport")
def test_a_kill_that_gets_no_answer_is_an_error(server: LocalServer) -> None:
    """G59: nothing is swallowed, and the error says that it may have worked."""
    with losing(server) as (front, options):
        sandbox = Sandbox.create(**options)
        front.loses, front.how = ["DELETE"] * 9, 503
        with pytest.raises(ServiceBusyException) as caught:
            sandbox.kill()
        assert caught.value.maybe_executed
        front.loses, front.how = ["DELETE"] * 9, None
        other = Sandbox.create(**options)
        with pytest.raises(ConnectionException) as broken:
            other.kill()
        assert broken.value.maybe_executed


@pytest.mark.usefixtures("server_env", "transport")
def test_a_pause_whose_answer_was_lost_was_one(server: LocalServer) -> None:
    """G59: the conflict of the second attempt is this call's own doing."""
    with losing(server) as (front, options), Sandbox.create(**options) as sandbox:
        front.loses = ["POST"]
        assert sandbox.pause() is True
        assert sandbox.pause() is False


@pytest.mark.usefixtures("transport")
def test_a_sandbox_is_there_as_soon_as_it_is_made() -> None:
    """G58: create() waits for nothing but the server's work, and the sandbox answers at once."""
    idle: list[float] = []
    while len(idle) < 3 or median(idle) >= 0.03:
        assert len(idle) < 15, idle  # the disk and the first import take their time
        with LocalServer() as server:
            create = partial(
                Sandbox.create, api_key=server.api_key, api_url=server.url, sandbox_url=server.url
            )
            waited, sandbox = idle_time(create, os.getpid(), server.pid)
            idle.append(waited)
            assert sandbox.commands.run("echo up").stdout == "up\n"


def failure(call: Callable[[], object]) -> SandboxException:
    with pytest.raises(SandboxException) as caught:
        call()
    return caught.value


def test_every_way_to_fail_has_a_class_of_its_own(transport: str) -> None:
    """G28: gone, port closed, unreachable, command timeout and request timeout are told apart, in every kind
    of call; and a server that has died or stands still is not a sandbox that has ended."""
    with LocalServer() as server:
        options: dict[str, Any] = {
            "api_key": server.api_key,
            "api_url": server.url,
            "sandbox_url": server.url,
            "transport": transport,
        }
        sandbox, killed = Sandbox.create(**options), Sandbox.create(**options)
        killed.kill()

        def calls(box: Sandbox, **more: Any) -> list[Callable[[], object]]:
            return [
                lambda: box.commands.run("echo x", **more),
                lambda: box.commands.run("echo x", background=True, **more),
                lambda: box.commands.list(**more),
                lambda: box.files.list(".", **more),
                lambda: box.files.read("/etc/hostname", **more),
                lambda: box.files.write("x", "y", **more),
            ]

        for call in calls(killed):
            error = failure(call)
            assert type(error) is SandboxNotRunningException
            assert error.sandbox_state == "gone"
        slow = failure(lambda: sandbox.commands.run("sleep 50", timeout=0.3))
        assert type(slow) is CommandTimeoutException
        assert slow.clock == "timeout"
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for call in [*calls(sandbox, request_timeout=0.4), lambda: sandbox.is_running(0.4)]:
                late = failure(call)
                assert type(late) is RequestTimeoutException
                assert (late.clock, late.limit, late.sandbox_state) == ("request_timeout", 0.4, "unknown")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert sandbox.is_running()
        os.kill(server.pid, signal.SIGKILL)
        for call in [*calls(sandbox), sandbox.is_running]:
            away = failure(call)
            assert isinstance(away, (SandboxUnreachableException, ConnectionException))
            assert not isinstance(away, PortNotOpenException)
            assert away.sandbox_state == "unknown"


@pytest.mark.documented("Sandbox.is_running")
def test_a_closed_port_is_told_by_every_call(transport: str) -> None:
    """G28: the sandbox runs, and its agent does not listen: neither gone nor unknown."""
    with scripted(transport) as (service, sandbox):
        service.closed = True
        for call in (
            lambda: sandbox.commands.run("x"),
            sandbox.commands.list,
            lambda: sandbox.files.list("."),
            lambda: sandbox.files.read("x"),
            lambda: sandbox.files.write("x", "y"),
        ):
            error = failure(call)
            assert type(error) is PortNotOpenException
            assert error.sandbox_state == "alive"
        assert sandbox.is_running() is True
