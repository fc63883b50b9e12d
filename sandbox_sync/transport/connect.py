"""Remote procedure calls in the Connect protocol, over HTTP/1.1, with binary protobuf messages."""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from struct import Struct
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError
from sandbox_sync_rpc.channel import Metadata

from sandbox_sync.deadlines import Deadline
from sandbox_sync.transport.answers import MAX_MESSAGE, failure_of, read_all
from sandbox_sync.transport.failures import Failure, RpcFailure
from sandbox_sync.transport.http1 import NETWORK_ERRORS, Answer, Body
from sandbox_sync.transport.pools import Origin
from sandbox_sync.transport.sockets import TimeLimit, time_limit

Q = TypeVar("Q")
R = TypeVar("R")

_UNARY = "application/proto"
_STREAM = "application/connect+proto"

_HEAD = Struct(">BI")  # of a frame: its flags and its length
_COMPRESSED = 0x01
_END = 0x02

_LONGEST_TIMEOUT_MS = 9_999_999_999  # what fits into the header
# Seconds for the end of the HTTP answer to follow the frame that says that the call is over.
_SECONDS_TO_END = 0.5


class ConnectChannel:
    """Makes calls to one server; has the call interface of `grpc.Channel` that generated stubs expect.

    Args:
        origin: The server.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Q], bytes] | None = None,
        response_deserializer: Callable[[bytes], R] | None = None,
        _registered_method: bool | None = None,
    ) -> UnaryCall[Q, R]:
        """A method with one request and one answer."""
        return UnaryCall(self._origin, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Q], bytes] | None = None,
        response_deserializer: Callable[[bytes], R] | None = None,
        _registered_method: bool | None = None,
    ) -> ServerStreamCall[Q, R]:
        """A method with one request and a stream of answers."""
        return ServerStreamCall(self._origin, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Q], bytes] | None = None,
        response_deserializer: Callable[[bytes], R] | None = None,
        _registered_method: bool | None = None,
    ) -> ClientStreamCall[Q, R]:
        """A method with a stream of requests and one answer."""
        return ClientStreamCall(self._origin, method, request_serializer, response_deserializer)


class _Method(Generic[Q, R]):
    """One method of the server.

    Attributes:
        path: Its path on the wire.
    """

    def __init__(
        self,
        origin: Origin,
        path: str,
        serialize: Callable[[Q], bytes] | None,
        parse: Callable[[bytes], R] | None,
    ) -> None:
        self.path = path
        self._origin = origin
        self._serialize: Callable[[Q], bytes] = serialize or _as_it_is
        self._parse: Callable[[bytes], R] = parse or _as_it_is

    def _post(
        self,
        content_type: str,
        body: Body,
        timeout: float | None,
        metadata: Metadata | None,
        limit: TimeLimit | None,
    ) -> Answer:
        """Send the request. The answer's status is 200 and its type the same as the request's.

        Raises:
            RpcFailure: There is no such answer.
        """
        headers = {"content-type": content_type, "connect-protocol-version": "1"}
        if timeout is not None:
            headers["connect-timeout-ms"] = str(min(max(1, int(timeout * 1000)), _LONGEST_TIMEOUT_MS))
        headers.update(metadata or ())
        try:
            response = self._origin.request("POST", self.path, headers=headers, body=body, limit=limit)
            if response.status != 200:
                raise RpcFailure.from_answer(response.status, response.headers, read_all(response, limit))
        except RpcFailure:
            raise
        except Failure as failure:
            raise RpcFailure.below(failure) from None
        answered = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if answered != content_type:
            response.close()
            foreign = _not_connect(f"its answer is {answered or 'of no type'}")
            foreign.is_of_something_else = True
            raise foreign
        return response


class UnaryCall(_Method[Q, R]):
    """A method with one request and one answer."""

    def __call__(self, request: Q, timeout: float | None = None, metadata: Metadata | None = None) -> R:
        """Make the call once.

        Args:
            request: What to send.
            timeout: Seconds until the answer has to be there; None for any time.
            metadata: Headers.

        Raises:
            RpcFailure: It failed.
        """
        limit = time_limit(Deadline.after(timeout))
        response = self._post(_UNARY, self._serialize(request), timeout, metadata, limit)
        try:
            body = read_all(response, limit)
        except Failure as failure:
            raise RpcFailure.below(failure) from None
        return _parsed(self._parse, body)


class ServerStreamCall(_Method[Q, R]):
    """A method with one request and a stream of answers."""

    def __call__(
        self, request: Q, timeout: float | None = None, metadata: Metadata | None = None
    ) -> ConnectStream[R]:
        """Prepare the call; it is made when the first answer is asked for.

        Args:
            request: What to send.
            timeout: Seconds until the stream has to be over; what the client keeps to is set with `limit`.
            metadata: Headers.
        """
        line = _Line(time_limit(Deadline.after(timeout)))
        frame = _framed(self._serialize(request))

        def send() -> Answer:
            return self._post(_STREAM, frame, timeout, metadata, line.limit)

        return ConnectStream(line, _messages(line, send, self._parse))


class ClientStreamCall(_Method[Q, R]):
    """A method with a stream of requests and one answer."""

    def __call__(
        self, request_iterator: Iterator[Q], timeout: float | None = None, metadata: Metadata | None = None
    ) -> R:
        """Make the call once. For the arguments see `UnaryCall`.

        Raises:
            RpcFailure: It failed. Errors of the iterator are raised as they are.
        """
        line = _Line(time_limit(Deadline.after(timeout)))
        frames = (_framed(self._serialize(request)) for request in request_iterator)

        def send() -> Answer:
            return self._post(_STREAM, frames, timeout, metadata, line.limit)

        answers = list(_messages(line, send, self._parse))
        if len(answers) != 1:
            raise _not_connect(f"it answered {len(answers)} messages in place of one")
        return answers[0]


class ConnectStream(Generic[R]):
    """The answers of a streaming call as they arrive. Dropping it ends the call."""

    def __init__(self, line: _Line, messages: Generator[R, None, None]) -> None:
        self._line = line
        self._messages = messages

    def __iter__(self) -> Iterator[R]:
        return self._messages

    def __next__(self) -> R:
        return next(self._messages)

    def limit(self, deadline: Deadline, silence: float | None = None) -> None:
        """Set what bounds the reading from now on, in place of what did before.

        Args:
            deadline: When reading ends.
            silence: Seconds for which the server may send nothing; None for any time.
        """
        self._line.bound(time_limit(deadline, silence))

    def cancel(self) -> None:
        """End the call now, from any thread. A thread that reads gets a failure with reason "cancelled"."""
        self._line.cancel()
        try:
            self._messages.close()
        except ValueError:
            pass  # another thread is reading; it finds the connection ended


class _Line:
    """The connection of one streaming call, as far as reader and canceller share it."""

    def __init__(self, limit: TimeLimit | None) -> None:
        self.limit = limit
        self.cancelled = False
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._answer: Answer | None = None

    def attach(self, answer: Answer) -> None:
        with self._lock:
            self._answer = answer
            if self.cancelled:
                answer.interrupt()

    def detach(self) -> None:
        """From here on the connection may serve other calls, which cancelling must not end."""
        if self._is_ours():
            with self._lock:
                self._answer = None

    def bound(self, limit: TimeLimit | None) -> None:
        self.limit = limit
        if self._answer is not None:
            self._answer.bound(limit)

    def cancel(self) -> None:
        self.cancelled = True
        if self._is_ours():
            with self._lock:
                if self._answer is not None:
                    self._answer.interrupt()

    def explain(self, error: Exception) -> RpcFailure:
        """What an error that ended the call means."""
        if self.cancelled:
            return RpcFailure("cancelled by the caller", code="canceled", reason="cancelled")
        if not self._is_ours():
            words = "the stream belongs to the process that this one was forked from"
            return RpcFailure(words, code="unavailable", reason="broken")
        if isinstance(error, RpcFailure):
            return error
        return RpcFailure.below(error if isinstance(error, Failure) else failure_of(error, self.limit))

    def _is_ours(self) -> bool:
        """Whether this process made the call. In a forked child the lock may be held for ever."""
        return self._owner == os.getpid()


def _messages(
    line: _Line, send: Callable[[], Answer], parse: Callable[[bytes], R]
) -> Generator[R, None, None]:
    """Make a streaming call and yield its answers."""
    try:
        response = send()
    except RpcFailure as failure:
        raise line.explain(failure) from None
    try:
        line.attach(response)
        frames = _frames(response)
        for flags, payload in frames:
            if not flags:
                yield parse(payload)
            elif flags == _COMPRESSED:
                yield _parsed(parse, _inflated(payload))
            else:
                line.bound(time_limit(Deadline.after(_SECONDS_TO_END)))
                line.detach()
                _finish(frames)
                _raise_error_in(_inflated(payload) if flags & _COMPRESSED else payload)
                return
        words = "the answer ended before the server said that the call was over"
        raise RpcFailure(words, code="unavailable", reason="broken")
    except DecodeError as error:
        raise line.explain(_undecodable(error)) from None
    except (Failure, *NETWORK_ERRORS) as error:
        raise line.explain(error) from None
    finally:
        line.detach()
        response.close()


def _frames(response: Answer) -> Iterator[tuple[int, bytes]]:
    """Cut the body of a streaming answer into its frames: flags and payload."""
    parts: list[bytes] = []
    missing = 0
    for chunk in response.blocks():
        if len(chunk) < missing:
            parts.append(chunk)
            missing -= len(chunk)
            continue
        if parts:
            parts.append(chunk)
            chunk = b"".join(parts)
            parts.clear()
        start, end = 0, len(chunk)
        missing = _HEAD.size
        while end - start >= _HEAD.size:
            flags, size = _HEAD.unpack_from(chunk, start)
            if size > MAX_MESSAGE or flags > _COMPRESSED | _END:
                raise _not_connect(f"a frame has flags {flags} and {size} bytes, of {MAX_MESSAGE} allowed")
            missing = _HEAD.size + size
            if end - start < missing:
                break
            payload = chunk[start + _HEAD.size : start + missing]
            start += missing
            missing = _HEAD.size
            yield flags, payload
        missing -= end - start
        if start < end:
            parts.append(chunk[start:])


def _finish(frames: Iterator[tuple[int, bytes]]) -> None:
    """Read what follows the last frame, which is nothing, so that the connection can serve other calls."""
    try:
        next(frames, None)
    except (RpcFailure, *NETWORK_ERRORS):
        pass  # the call is over all the same; its connection gets closed


def _raise_error_in(end: bytes) -> None:
    """Raise the failure that the last frame of a stream tells of, if it does."""
    try:
        value = json.loads(end)
        error = value.get("error")
    except (ValueError, AttributeError, RecursionError):
        raise _not_connect("its last frame is not a JSON object") from None
    if error is not None:
        raise RpcFailure.from_end(error, value.get("metadata"))


def _framed(message: bytes) -> bytes:
    return _HEAD.pack(0, len(message)) + message


def _inflated(payload: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)  # gzip, the one compression that servers use unasked
    try:
        message = inflater.decompress(payload, MAX_MESSAGE)
    except zlib.error as error:
        raise _not_connect(f"a compressed frame is broken: {error}") from None
    if not inflater.eof:
        raise _not_connect(f"a compressed frame is cut short, or larger than {MAX_MESSAGE} bytes")
    return message


def _parsed(parse: Callable[[bytes], R], message: bytes) -> R:
    try:
        return parse(message)
    except DecodeError as error:
        raise _undecodable(error) from None


def _undecodable(error: DecodeError) -> RpcFailure:
    return _not_connect(f"a message cannot be decoded: {error}")


def _not_connect(detail: str) -> RpcFailure:
    return RpcFailure(
        f"the server does not speak the Connect protocol as it should: {detail}",
        code="internal",
        reason="answer",
    )


def _as_it_is(message: Any) -> Any:
    return message
