"""The Process service of one sandbox: commands and terminals."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, TypeVar

from sandbox_sync_rpc import process_pb2 as pb

from sandbox_local.envd.boxfiles import RpcFiles
from sandbox_local.envd.fanout import Lagging, Reader
from sandbox_local.envd.faults import SHORTAGES, rpc_error
from sandbox_local.envd.input import InputClosed
from sandbox_local.envd.running import Data, Event, Running
from sandbox_local.envd.starts import OUTPUT_KEPT, Started, Starts
from sandbox_local.isolation.base import Box, BoxGone, Command, MissingDirectory, Process, UnknownUser
from sandbox_local.rpc import Code, Context, RpcError, owns_deadline

_EXIT_KEPT = 30.0  # seconds for which the end of a process can still be asked for
_KEEPALIVE = 90  # seconds, unless the client asks for another interval
_MAX_KEEPALIVE = 24 * 3600
_INTEGER = re.compile(r"\+?[0-9]{1,30}", re.ASCII)

_T = TypeVar("_T")
_Response = TypeVar("_Response", pb.StartResponse, pb.ConnectResponse)


class _Followed(NamedTuple):
    """A process, and the place of one client among the readers of its output."""

    pid: int
    reader: Reader[Event]


class ProcessService:
    """Starts the processes of a box and keeps the table of those that run.

    Two things differ from envd on purpose: a timeout and SIGKILL end all descendants of the process too, and
    a tag that several processes carry means the one that was started last.
    """

    def __init__(self, box: Box, files: RpcFiles, envs: Mapping[str, str], default_user: str) -> None:
        """Make the service.

        Args:
            box: Where the processes run.
            files: The files of the box.
            envs: Variables that every process gets; those of a request win.
            default_user: Runs the processes of requests that name no user.
        """
        self._box = box
        self._files = files
        self._envs = envs
        self._default_user = default_user
        # By pid, oldest first, with those that ended a short while ago.
        self._processes: dict[int, Running] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starts = Starts()

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """The handlers by the names of their methods."""
        return {
            "List": self.list_processes,
            "Start": self.start,
            "Connect": self.connect,
            "Update": self.update,
            "StreamInput": self.stream_input,
            "SendInput": self.send_input,
            "SendSignal": self.send_signal,
            "CloseStdin": self.close_stdin,
        }

    def close(self) -> None:
        """Let go of everything, because the box is ending: who follows a process is told so."""
        for running in self._processes.values():
            running.abandon(BoxGone("the sandbox was closed"))

    async def list_processes(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        """The processes that run."""
        await self._files.check_user(context)
        return pb.ListResponse(
            processes=[
                pb.ProcessInfo(config=running.config, pid=running.process.pid, tag=running.tag)
                for running in self._processes.values()
                if not running.ended.done()
            ]
        )

    @owns_deadline
    def start(self, request: pb.StartRequest, context: Context) -> AsyncGenerator[pb.StartResponse, None]:
        """Start a process and follow it; the client's timeout bounds the life of all that it starts."""
        return _follow(lambda: self._start(request, context), context, pb.StartResponse)

    def connect(
        self, request: pb.ConnectRequest, context: Context
    ) -> AsyncGenerator[pb.ConnectResponse, None]:
        """Follow a process from now on; one that ended a short while ago has only its end left."""

        async def attach() -> _Followed:
            running = await self._find(request.process, context, ended_too=True)
            return _Followed(running.process.pid, running.output.reader())

        return _follow(attach, context, pb.ConnectResponse)

    async def update(self, request: pb.UpdateRequest, context: Context) -> pb.UpdateResponse:
        """Change the size of a terminal."""
        running = await self._find(request.process, context)
        if request.HasField("pty"):
            if not running.has_terminal:
                raise RpcError(Code.INTERNAL, "the process has no terminal to resize")
            try:
                running.resize(request.pty.size.cols, request.pty.size.rows)
            except OSError as error:
                raise RpcError(Code.INTERNAL, f"cannot resize the terminal: {error.strerror}") from None
        return pb.UpdateResponse()

    async def send_input(self, request: pb.SendInputRequest, context: Context) -> pb.SendInputResponse:
        """Write to a process; waits while it does not read."""
        await _write(await self._find(request.process, context), request.input)
        return pb.SendInputResponse()

    async def stream_input(
        self, requests: AsyncIterator[pb.StreamInputRequest], context: Context
    ) -> pb.StreamInputResponse:
        """Write to a process as the stream brings it; the end of the stream does not close its input."""
        running: Running | None = None
        async for request in requests:
            kind = request.WhichOneof("event")
            if kind == "start":
                running = await self._find(request.start.process, context)
            elif kind == "data":
                if running is None:
                    message = "the first message must be start, to name the process"
                    raise RpcError(Code.INVALID_ARGUMENT, message)
                await _write(running, request.data.input)
        return pb.StreamInputResponse()

    async def send_signal(self, request: pb.SendSignalRequest, context: Context) -> pb.SendSignalResponse:
        """SIGTERM goes to the process itself; SIGKILL ends it with all that descends from it."""
        running = await self._find(request.process, context)
        try:
            if request.signal == pb.SIGNAL_SIGKILL:
                await running.kill()
            elif request.signal == pb.SIGNAL_SIGTERM:
                await running.terminate()
            else:
                raise RpcError(Code.UNIMPLEMENTED, f"invalid signal: {request.signal}")
        except BoxGone as error:
            raise rpc_error(error) from None
        except OSError as error:
            raise RpcError(Code.INTERNAL, f"cannot send the signal: {error.strerror}") from None
        return pb.SendSignalResponse()

    async def close_stdin(self, request: pb.CloseStdinRequest, context: Context) -> pb.CloseStdinResponse:
        """Let a process read end of file; again is success."""
        running = await self._find(request.process, context)
        if running.has_terminal:
            raise RpcError(Code.UNKNOWN, "cannot close stdin for PTY process")
        if running.input is not None:
            running.input.close()
        return pb.CloseStdinResponse()

    async def _start(self, request: pb.StartRequest, context: Context) -> _Followed:
        """Launch a process, or follow the one that the same request has launched before.

        A client that leaves meanwhile leaves a process that runs and nobody reads.
        """
        key = context.headers.get("idempotency-key")
        mine: list[asyncio.Task[Started]] = []

        def launch() -> asyncio.Task[Started]:
            mine.append(self._spawn(self._launch(request, context, keep=0 if key is None else OUTPUT_KEPT)))
            return mine[0]

        task = launch() if key is None else self._starts.once(key, _digest(request, context.user), launch)
        try:
            started = await asyncio.shield(task)
        except asyncio.CancelledError:
            if mine:
                task.add_done_callback(_leave)
            raise
        reader = started.first if mine else started.follow()
        return _Followed(started.running.process.pid, reader)

    async def _launch(self, request: pb.StartRequest, context: Context, keep: int) -> Started:
        command = self._command(request, context)
        config = pb.ProcessConfig()
        config.CopyFrom(request.process)  # the request itself may go
        try:
            process = await self._box.spawn(command)
            try:
                tag = request.tag if request.HasField("tag") else None
                running = Running(process, config, tag, keep=keep)
            except OSError:
                await _discard(process)
                raise
        except (BoxGone, UnknownUser) as error:
            raise rpc_error(error) from None
        except MissingDirectory:
            raise RpcError(Code.INVALID_ARGUMENT, f"cwd '{command.cwd}' does not exist") from None
        except ValueError as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error)) from None
        except OSError as error:
            message = f"the sandbox can't start a process: {error.strerror}"
            code = Code.RESOURCE_EXHAUSTED if error.errno in SHORTAGES else Code.INTERNAL
            raise RpcError(code, message) from None
        self._processes.pop(process.pid, None)  # a number that is used again goes to the end of the table
        self._processes[process.pid] = running
        running.ended.add_done_callback(lambda _: self._forget_later(running))
        started = Started(running, running.output.reader())
        running.begin()
        if context.timeout_ms is not None:
            self._limit(started, context.timeout_ms)
        return started

    def _command(self, request: pb.StartRequest, context: Context) -> Command:
        config = request.process
        size = request.pty.size
        return Command(
            argv=[config.cmd, *config.args],
            user=context.user or self._default_user,
            envs={**self._envs, **config.envs},
            cwd=config.cwd,
            stdin=request.stdin if request.HasField("stdin") else True,
            pty=(size.cols & 0xFFFF, size.rows & 0xFFFF) if request.HasField("pty") else None,
        )

    def _limit(self, started: Started, timeout_ms: int) -> None:
        """Bound the life of a process, for those who asked for its start."""

        def finish(error: BaseException) -> None:
            for reader in started.readers:
                reader.finish(error)

        async def expire() -> None:
            for reader in started.readers:
                reader.close()  # what it gets last is the error, and not before all is dead
            try:
                await started.running.kill()
            except BoxGone as error:
                finish(error)
            finally:
                message = f"the command was killed when its timeout of {timeout_ms / 1000:g} s was over"
                finish(RpcError(Code.DEADLINE_EXCEEDED, message))

        loop = asyncio.get_running_loop()
        timer = loop.call_later(timeout_ms / 1000, lambda: self._spawn(expire()))
        started.running.ended.add_done_callback(lambda _: timer.cancel())

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run something that no client's leaving interrupts."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _forget_later(self, running: Running) -> None:
        def forget() -> None:
            if self._processes.get(running.process.pid) is running:
                del self._processes[running.process.pid]

        asyncio.get_running_loop().call_later(_EXIT_KEPT, forget)

    async def _find(
        self, selector: pb.ProcessSelector, context: Context, *, ended_too: bool = False
    ) -> Running:
        await self._files.check_user(context)
        kind = selector.WhichOneof("selector")
        if kind is None:
            raise RpcError(Code.UNIMPLEMENTED, "the process selector is not set")
        if kind == "pid":
            found = [running for running in [self._processes.get(selector.pid)] if running is not None]
        else:
            found = [running for running in self._processes.values() if running.tag == selector.tag]
        alive = [running for running in found if not running.ended.done()]
        if alive:
            return alive[-1]
        if found and ended_too:
            return found[-1]
        raise RpcError(Code.NOT_FOUND, f"process with {kind} {getattr(selector, kind)} not found")


async def _follow(
    attach: Callable[[], Awaitable[_Followed]], context: Context, response: type[_Response]
) -> AsyncGenerator[_Response, None]:
    """The events of a process for one client: a start, then what happens, and its end last."""
    patience = keepalive_interval(context.headers.get("keepalive-ping-interval"))
    pid, reader = await attach()
    try:
        answer = response()
        answer.event.start.pid = pid
        yield answer
        while not answer.event.HasField("end"):
            event = await reader.next(patience)
            answer = response()
            if event is None:
                answer.event.keepalive.SetInParent()
            elif isinstance(event, Data):
                setattr(answer.event.data, event.stream, event.chunk)
            else:
                answer.event.end.CopyFrom(event)
            yield answer
    except Lagging:
        message = (
            "this client did not read while others waited for output; connect again to follow it from now on"
        )
        raise RpcError(Code.RESOURCE_EXHAUSTED, message) from None
    except BoxGone as error:
        raise rpc_error(error) from None
    finally:
        reader.close()


def keepalive_interval(header: str | None) -> int:
    """Seconds between signs of life, of the header that asks for them; what makes no sense is the default."""
    if header is None or not _INTEGER.fullmatch(header):
        return _KEEPALIVE
    return min(int(header), _MAX_KEEPALIVE) or _KEEPALIVE


async def _write(running: Running, data: pb.ProcessInput) -> None:
    kind = data.WhichOneof("input")
    if kind is None:
        raise RpcError(Code.UNIMPLEMENTED, "the input is not set")
    if (kind == "pty") != running.has_terminal:
        message = (
            "the process has a terminal: send pty input"
            if running.has_terminal
            else "the process has no terminal"
        )
        raise RpcError(Code.INTERNAL, message)
    if running.input is None:
        raise RpcError(Code.INTERNAL, "stdin is not enabled: the process was started with stdin false")
    try:
        await running.input.write(getattr(data, kind))
    except InputClosed as error:
        if running.ended.done():
            raise RpcError(Code.NOT_FOUND, f"process with pid {running.process.pid} not found") from None
        raise RpcError(Code.INTERNAL, f"cannot write to the process: {error}") from None


def _digest(request: pb.StartRequest, user: str | None) -> bytes:
    """What tells one start from another."""
    wanted = request.SerializeToString(deterministic=True)
    return hashlib.sha256(b"%d %b%b" % (len(wanted), wanted, (user or "").encode())).digest()


async def _discard(process: Process) -> None:
    """Do away with a process that has been started and can't be followed."""
    for fd in (process.stdin, process.stdout, process.stderr, process.pty):
        if fd is not None:
            os.close(fd)
    await process.kill_tree()


def _leave(task: asyncio.Task[Started]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().first.close()
