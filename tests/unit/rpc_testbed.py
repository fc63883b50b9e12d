"""Handlers for every method of the contract that do what the request asks of them."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator
from typing import Any

from sandbox_sync_rpc import process_pb2, services

from sandbox_local.http import Request, Response
from sandbox_local.rpc import Code, Context, Rpc, RpcError, owns_deadline


def data(stdout: bytes) -> process_pb2.StartResponse:
    """An event of output."""
    return process_pb2.StartResponse(
        event=process_pb2.ProcessEvent(data=process_pb2.ProcessEvent.DataEvent(stdout=stdout))
    )


def start_request(command: str, *args: object) -> process_pb2.StartRequest:
    """A request to `Site.start`."""
    return process_pb2.StartRequest(
        process=process_pb2.ProcessConfig(cmd=command, args=[str(arg) for arg in args])
    )


class Site:
    """Serves the contract, and tells what happens."""

    def __init__(self) -> None:
        self.events: queue.Queue[str] = queue.Queue()
        self.contexts: queue.Queue[Context] = queue.Queue()
        process: dict[str, Any] = dict.fromkeys(services.PROCESS.methods, self._unary_failure)
        process |= {"List": self.list, "SendInput": self.send_input, "StreamInput": self.stream_input}
        process |= {"Start": self.start, "Connect": self.connect}
        filesystem = dict.fromkeys(services.FILESYSTEM.methods, self._unary_failure)
        self.rpc = Rpc([(services.PROCESS, process), (services.FILESYSTEM, filesystem)])

    async def __call__(self, request: Request) -> Response:
        return await self.rpc.handle(request, sandbox="the sandbox")

    async def list(self, _: process_pb2.ListRequest, context: Context) -> process_pb2.ListResponse:
        """Answers with one process; keeps the context."""
        self.contexts.put(context)
        return process_pb2.ListResponse(processes=[process_pb2.ProcessInfo(pid=7, tag="t")])

    async def send_input(
        self, request: process_pb2.SendInputRequest, _: Context
    ) -> process_pb2.SendInputResponse:
        """Fails with the code that the tag names; `sleep` sleeps, `bug` is a bug."""
        if request.process.tag == "sleep":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.events.put("cancelled")
                raise
        if request.process.tag == "bug":
            raise ZeroDivisionError("secret detail")
        raise RpcError(Code[request.process.tag], "100 % näh\n")

    async def stream_input(
        self, requests: AsyncIterator[process_pb2.StreamInputRequest], _: Context
    ) -> process_pb2.StreamInputResponse:
        """Reads to the end and tells what it read."""
        received = b""
        try:
            async for request in requests:
                received += request.data.input.stdin
        except asyncio.CancelledError:
            self.events.put("cancelled")
            raise
        self.events.put(received.decode())
        return process_pb2.StreamInputResponse()

    def start(self, request: Any, context: Context) -> AsyncIterator[process_pb2.StartResponse]:
        """`count n size`: n events; `fail n code`: n events and an error; `wait`: one event and silence."""
        return self._events(request)

    async def _events(self, request: Any) -> AsyncIterator[process_pb2.StartResponse]:
        command, args = request.process.cmd, list(request.process.args)
        try:
            if command == "count":
                for _ in range(int(args[0])):
                    yield data(b"x" * int(args[1]))
            elif command == "fail":
                for _ in range(int(args[0])):
                    yield data(b"x")
                if args[1] == "BUG":
                    raise ZeroDivisionError("secret detail")
                raise RpcError(Code[args[1]], "100 % näh\n")
            elif command == "wait":
                yield data(b"first")
                await asyncio.sleep(60)
        finally:
            self.events.put("closed")

    @owns_deadline
    async def connect(
        self, _: process_pb2.ConnectRequest, context: Context
    ) -> AsyncIterator[process_pb2.ConnectResponse]:
        """Enforces its deadline itself, in its own words."""
        try:
            yield process_pb2.ConnectResponse()
            await asyncio.wait_for(asyncio.sleep(60), context.timeout_ms and context.timeout_ms / 1000)
        except asyncio.TimeoutError:
            raise RpcError(Code.DEADLINE_EXCEEDED, "in its own words") from None
        finally:
            self.events.put("closed")

    async def _unary_failure(self, request: Any, context: Context) -> Any:
        raise RpcError(Code.UNIMPLEMENTED, "not part of this test")
