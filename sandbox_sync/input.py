"""What callers write to commands and terminals, cut to pieces that servers take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from sandbox_sync_rpc import process_pb2

from sandbox_sync.deadlines import seconds
from sandbox_sync.errors import CommandTimeoutException, InvalidArgumentException, RequestTimeoutException
from sandbox_sync.processes import selector

if TYPE_CHECKING:
    from sandbox_sync.transport.envd import EnvdConnection

_PIECE = 1 << 20  # servers bound a message, commonly at 4 MiB


def send_input(
    envd: EnvdConnection,
    pid: int,
    channel: Literal["stdin", "pty"],
    data: str | bytes,
    request_timeout: float | None,
) -> None:
    """Write to a command or terminal.

    Args:
        envd: The way to its sandbox.
        pid: Its process id.
        channel: "pty" for a terminal.
        data: What to write; text as UTF-8.
        request_timeout: Timeout for each request in seconds.

    Raises:
        InvalidArgumentException: The data is neither, or text that is not Unicode.
        NotFoundException: There is no such process.
        SandboxException: It takes no such input, or a request failed.
    """
    process = selector(pid)
    for piece in [*_pieces(data)] or [b""]:  # nothing, too, is sent: only the server knows if it can be
        wanted = process_pb2.ProcessInput(**{channel: piece})
        request = process_pb2.SendInputRequest(process=process, input=wanted)
        envd.unary(envd.process.SendInput, request, request_timeout=request_timeout)


def stream_input(
    envd: EnvdConnection,
    pid: int,
    channel: Literal["stdin", "pty"],
    data: Iterable[str | bytes],
    timeout: float | None,
) -> None:
    """Write what an iterable yields, as it yields it, in one call.

    Args:
        envd: The way to its sandbox.
        pid: Its process id.
        channel: "pty" for a terminal.
        data: Yields what to write; text as UTF-8.
        timeout: Seconds that all of it may take; 0 or None for no limit.

    Raises:
        InvalidArgumentException: It is no iterable, or a single piece of data, or yields something else.
        NotFoundException: There is no such process.
        CommandTimeoutException: `timeout` was up.
        SandboxException: It takes no such input, or the call failed.
        Exception: What the iterable raised.
    """
    if isinstance(data, (str, bytes, bytearray, memoryview)) or not isinstance(data, Iterable):
        raise InvalidArgumentException(
            f"data has to be an iterable of pieces (str or bytes); got {type(data).__name__}. "
            "For a single piece there is send_stdin"
        )
    limit = seconds(timeout, "timeout")
    start = process_pb2.StreamInputRequest.StartEvent(process=selector(pid))

    def requests() -> Iterator[process_pb2.StreamInputRequest]:
        yield process_pb2.StreamInputRequest(start=start)
        for part in data:
            for piece in _pieces(part):
                wanted = process_pb2.ProcessInput(**{channel: piece})
                yield process_pb2.StreamInputRequest(
                    data=process_pb2.StreamInputRequest.DataEvent(input=wanted)
                )

    try:
        envd.client_stream(envd.process.StreamInput, requests(), request_timeout=limit or 0)
    except RequestTimeoutException as error:
        late = CommandTimeoutException(
            f"writing to command {pid} took longer than its `timeout` ({limit:g} s); "
            "pass a larger one, or 0 for no limit",
            sandbox_id=envd.sandbox_id,
            method=error.method,
            path=error.path,
        )
        late.status, late.code = error.status, error.code
        late.pid, late.limit, late.maybe_executed = pid, limit, True
        raise late from None


def _pieces(data: str | bytes) -> Iterator[bytes]:
    try:
        content = memoryview(data.encode() if isinstance(data, str) else data).cast("B")
    except UnicodeEncodeError:
        raise InvalidArgumentException(
            "the text to write is not Unicode; pass bytes to write bytes"
        ) from None
    except TypeError:
        raise InvalidArgumentException(
            f"what to write has to be str or bytes; got {type(data).__name__}"
        ) from None
    for start in range(0, len(content), _PIECE):
        yield bytes(content[start : start + _PIECE])
