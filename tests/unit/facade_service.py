"""A service whose sandboxes do what a test says: scripted commands and answers, over the real engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sandbox_sync_rpc import process_pb2 as pb
from sandbox_sync_rpc import services

from sandbox_local.http import HttpError, Request, Response
from sandbox_local.rpc import Code, Context, Rpc, RpcError, refuse
from sandbox_sync import Sandbox
from tests.unit.engine_testbed import serving

PID = 7

CREATED = {
    "sandboxID": "isandbox",
    "templateID": "base",
    "clientID": "6532622b",
    "envdVersion": "0.6.13",
    "envdAccessToken": "token-of-the-sandbox",
}

Script = Callable[[pb.StartRequest, Context], AsyncIterator[pb.StartResponse]]


def event(**fields: Any) -> pb.StartResponse:
    return pb.StartResponse(event=pb.ProcessEvent(**fields))


def started(pid: int = PID) -> pb.StartResponse:
    return event(start=pb.ProcessEvent.StartEvent(pid=pid))


def output(channel: str, content: bytes) -> pb.StartResponse:
    return event(data=pb.ProcessEvent.DataEvent(**{channel: content}))


def ended(exit_code: int = 0, error: str | None = None) -> pb.StartResponse:
    return event(end=pb.ProcessEvent.EndEvent(exit_code=exit_code, exited=error is None, error=error))


def playing(*events: pb.StartResponse, then: Awaitable[object] | None = None) -> Script:
    """A command that does this and, unless it has ended, then hangs."""

    async def script(request: pb.StartRequest, context: Context) -> AsyncIterator[pb.StartResponse]:
        for one in events:
            yield one
        if not (events and events[-1].event.HasField("end")):
            await asyncio.Event().wait()

    return script


def until(condition: Callable[[], object], within: float = 5.0) -> None:
    """Wait for something that has no event to wait for."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@dataclass
class Asked:
    """A request to the control plane."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Service:
    """What the service does, for a test to change, and what it was asked."""

    start: Script = field(default_factory=lambda: playing(started(), ended()))
    answers: dict[tuple[str, str], list[Response | Callable[[], Response]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    starts: list[tuple[pb.StartRequest, Context]] = field(default_factory=list)
    listed: list[pb.ProcessInfo] = field(default_factory=list)
    listed_after: int = 0
    listings: int = 0
    signals: list[tuple[int, int]] = field(default_factory=list)
    inputs: list[bytes] = field(default_factory=list)
    health: tuple[int, Any] = (204, None)
    closed: bool = False
    open_streams: int = 0
    url: str = ""

    def answer(
        self, method: str, path: str, *answers: tuple[int, Any] | tuple[int, Any, dict[str, str]]
    ) -> None:
        """Have these requests answered so, one after the other; the last answer stays."""
        self.answers[method, path] = [
            Response(
                a[0],
                {"content-type": "application/json", **(a[2] if len(a) > 2 else {})},
                json.dumps(a[1]).encode(),
            )
            for a in answers
        ]

    def requests(self, method: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == method]

    async def handle(self, request: Request) -> Response:
        if "e2b-sandbox-id" in request.headers:
            if self.closed:
                return refuse(request, HttpError(502, "The sandbox is running but port is not open"))
            if request.path == "/health":
                status, body = self.health
                return Response.json(status, body) if body else Response(status)
            return await self._rpc().handle(request, None)
        body = await request.body.read(1 << 20)
        headers = {name.lower(): value for name, value in request.headers.fields()}
        self.asked.append(
            Asked(
                request.method, request.path, dict(request.query), headers, json.loads(body) if body else None
            )
        )
        answers = self.answers.get((request.method, request.path))
        if not answers:
            return Response.json(404, {"code": 404, "message": "not found"})
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        assert isinstance(answer, Response)
        return Response(answer.status, dict(answer.headers.fields()), answer.body)

    def _rpc(self) -> Rpc:
        async def refuse(request: Any, context: Context) -> Any:
            raise RpcError(Code.UNIMPLEMENTED, "not in this test")

        async def refuse_stream(request: Any, context: Context) -> AsyncIterator[Any]:
            raise RpcError(Code.UNIMPLEMENTED, "not in this test")
            yield

        process: dict[str, Any] = {
            name: refuse_stream if method.server_streaming else refuse
            for name, method in services.PROCESS.methods.items()
        }
        process |= {
            "Connect": self._connect,
            "List": self._list,
            "Start": self._start,
            "SendSignal": self._signal,
            "SendInput": self._input,
        }
        files = {
            name: refuse_stream if method.server_streaming else refuse
            for name, method in services.FILESYSTEM.methods.items()
        }
        return Rpc([(services.PROCESS, process), (services.FILESYSTEM, files)])

    async def _list(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        self.listings += 1
        return pb.ListResponse(processes=self.listed if self.listings > self.listed_after else [])

    async def _start(self, request: pb.StartRequest, context: Context) -> AsyncIterator[pb.StartResponse]:
        self.starts.append((request, context))
        self.open_streams += 1
        try:
            async for one in self.start(request, context):
                yield one
        finally:
            self.open_streams -= 1

    async def _connect(
        self, request: pb.ConnectRequest, context: Context
    ) -> AsyncIterator[pb.ConnectResponse]:
        self.open_streams += 1
        try:
            async for one in self.start(pb.StartRequest(), context):
                yield pb.ConnectResponse(event=one.event)
        finally:
            self.open_streams -= 1

    async def _signal(self, request: pb.SendSignalRequest, context: Context) -> pb.SendSignalResponse:
        if request.process.pid != PID:
            raise RpcError(Code.NOT_FOUND, "no such process")
        self.signals.append((request.process.pid, request.signal))
        return pb.SendSignalResponse()

    async def _input(self, request: pb.SendInputRequest, context: Context) -> pb.SendInputResponse:
        self.inputs.append(request.input.stdin)
        return pb.SendInputResponse()


@contextmanager
def running(transport: str = "connect") -> Iterator[tuple[Service, dict[str, Any]]]:
    """A service, and the options that lead to it."""
    service = Service()
    service.answer("POST", "/v2/sandboxes", (201, CREATED))
    service.answer("DELETE", "/sandboxes/isandbox", (204, None))
    with serving(service.handle) as server:
        url = f"http://127.0.0.1:{server.port}"
        yield service, {"api_key": "key", "api_url": url, "sandbox_url": url, "transport": transport}


@contextmanager
def sandbox(transport: str = "connect") -> Iterator[tuple[Service, Sandbox]]:
    """A service and a sandbox of it."""
    with running(transport) as (service, options):
        yield service, Sandbox.create(**options)
