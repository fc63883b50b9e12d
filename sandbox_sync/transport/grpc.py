"""Remote procedure calls over gRPC, for servers and gateways that speak HTTP/2.

This, `grpc_connections` and `grpc_aside` are the modules that load grpcio, and they are loaded only when gRPC
is asked for: it takes time to load, starts threads, and minds forks and gevent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import grpc
from sandbox_sync_rpc.channel import Metadata

from sandbox_sync.config import ConnectionConfig
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.transport.failures import Reason, RpcFailure
from sandbox_sync.transport.grpc_aside import Ahead, Errand, cancel, drain, is_interruptible
from sandbox_sync.transport.grpc_connections import (
    Connection,
    Settings,
    connect,
    in_flight,
    keep_from_children,
)
from sandbox_sync.transport.proxies import proxy_for
from sandbox_sync.transport.tls import ca_file
from sandbox_sync.transport.watchdog import Watch, watchdog

Q = TypeVar("Q")
R = TypeVar("R")

# Seconds by which gRPC's own deadline of a stream comes after the one that the server is told of.
_GRACE = 5.0

# What gRPC says of encryption: of the handshake, and of what comes after it, which in TLS 1.3 may be that the
# server refuses the client's certificate.
_ENCRYPTION = ("SSL", "TSI_")
# How gRPC begins to tell of connections that could not be made, and of such that broke. Servers may use the
# same words, but not to begin with.
_NOT_CONNECTED = (
    "failed to connect to all addresses",
    "DNS resolution failed",
    "Name resolution",
    "name resolution",
)
_BROKEN = (
    "Error in HTTP transport completing operation",
    "Stream removed",
    "Socket closed",
    "Connection reset",
    "Broken pipe",
    "recvmsg:",
    "sendmsg:",
    "GOAWAY",
    "RST_STREAM",
    "Received RST_STREAM",
)
# What it says of answers that are none of gRPC's.
_OTHER_STATUS = re.compile(r"Received http2 header with status: (\d{3})")


class GrpcChannel:
    """Makes calls to one server; has the call interface of `grpc.Channel` that generated stubs expect.

    Args:
        base_url: URL of the server, without a path.
        config: How to reach it.

    Raises:
        InvalidArgumentException: gRPC cannot reach such a URL, or not through that proxy.
    """

    def __init__(self, base_url: str, config: ConnectionConfig) -> None:
        url = urlsplit(base_url)
        if url.path.strip("/"):
            raise InvalidArgumentException(f"gRPC cannot reach a URL with a path: {base_url}")
        proxy = proxy_for(base_url, config.proxy)
        if proxy is not None and not proxy.startswith("http://"):
            raise InvalidArgumentException("gRPC can use http:// proxies only")
        secure = url.scheme == "https"
        host = url.hostname or ""
        port = url.port or (443 if secure else 80)
        trusted = ca_file(config.ca_bundle) if secure else None
        self._settings = Settings(host, port, trusted, proxy, config.client_cert)
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """A connection of this process, for a call that is made now.

        Raises:
            ForkedWithActiveStreamException: gRPC is not safe to use in this process.
        """
        connection = self._connection
        if connection is None or not connection.is_usable:
            connection = self._connection = connect(self._settings)
        return connection

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Q], bytes] | None = None,
        response_deserializer: Callable[[bytes], R] | None = None,
        _registered_method: bool | None = None,
    ) -> UnaryCall[Q, R]:
        """A method with one request and one answer."""
        return UnaryCall(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Q], bytes] | None = None,
        response_deserializer: Callable[[bytes], R] | None = None,
        _registered_method: bool | None = None,
    ) -> ServerStreamCall[Q, R]:
        """A method with one request and a stream of answers."""
        return ServerStreamCall(self, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Q], bytes] | None = None,
        response_deserializer: Callable[[bytes], R] | None = None,
        _registered_method: bool | None = None,
    ) -> ClientStreamCall[Q, R]:
        """A method with a stream of requests and one answer."""
        return ClientStreamCall(self, method, request_serializer, response_deserializer)


class _Method(Generic[Q, R]):
    """One method of the server.

    Attributes:
        path: Its path on the wire.
    """

    def __init__(
        self,
        channel: GrpcChannel,
        path: str,
        serialize: Callable[[Q], bytes] | None,
        parse: Callable[[bytes], R] | None,
    ) -> None:
        self.path = path
        self._channel = channel
        self._functions = (serialize, parse)
        self._made: dict[str, tuple[grpc.Channel, Any]] = {}

    def _begin(
        self,
        channel: grpc.Channel,
        kind: str,
        request: object,
        told: float | None,
        timeout: float | None,
        metadata: Metadata | None,
    ) -> Any:
        """Begin the call; "unary_unary" and "stream_unary" finish it, too.

        Args:
            channel: What it goes through.
            kind: The function of the channel that makes it, or with ".future" the one that only begins it.
            request: What to send.
            told: The timeout that the server is to keep to as a Connect server would: for commands, too.
            timeout: The timeout of gRPC.
            metadata: Headers.
        """
        made = self._made.get(kind)
        if made is None or made[0] is not channel:
            name, _, future = kind.partition(".")
            function: Any = getattr(channel, name)(self.path, *self._functions)
            made = self._made[kind] = (channel, function.future if future else function)
        headers = list(metadata or ())
        if told is not None:
            headers.append(("connect-timeout-ms", str(max(1, int(told * 1000)))))
        try:
            return made[1](request, timeout=timeout, metadata=headers)
        except ValueError:
            # The error's own words quote the header, which may be a secret.
            raise InvalidArgumentException("a header holds what gRPC does not allow") from None

    def _here(self, kind: str, request: object, timeout: float | None, metadata: Metadata | None) -> R | None:
        """Make a call with one answer."""
        with in_flight():
            answer: R | None = self._begun(kind, request, timeout, metadata)
            return answer

    def _aside(
        self,
        kind: str,
        finish: Callable[[Any], R | None],
        request: object,
        timeout: float | None,
        metadata: Metadata | None,
    ) -> R | None:
        """The same in another thread, so that signals end it: `kind` only begins it, and `finish` waits."""
        return Errand(lambda: self._begun(kind, request, timeout, metadata), finish).run()

    def _begun(self, kind: str, request: object, timeout: float | None, metadata: Metadata | None) -> Any:
        connection = self._channel.connection
        return self._begin(connection.channel, kind, request, timeout, timeout, metadata)


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
            ForkedWithActiveStreamException: gRPC is not safe to use in this process.
        """
        deadline = Deadline.after(timeout)
        try:
            if is_interruptible():
                # The same on the wire, but it can be ended.
                answer = self._aside("unary_stream", _only, request, timeout, metadata)
            else:
                answer = self._here("unary_unary", request, timeout, metadata)
        except grpc.RpcError as error:
            raise _failure(error, "deadline" if deadline.expired else None) from None
        return _given(answer)


class ClientStreamCall(_Method[Q, R]):
    """A method with a stream of requests and one answer."""

    def __call__(
        self, request_iterator: Iterator[Q], timeout: float | None = None, metadata: Metadata | None = None
    ) -> R:
        """Make the call once. For the arguments see `UnaryCall`.

        Raises:
            RpcFailure: It failed. Errors of the iterator are raised as they are.
        """
        deadline = Deadline.after(timeout)
        failures: list[BaseException] = []

        def requests() -> Iterator[Q]:
            try:
                yield from request_iterator
            except BaseException as error:
                failures.append(error)  # gRPC reads it in a thread of its own, and would only log the error
                raise

        try:
            if is_interruptible():
                answer = self._aside("stream_unary.future", _result, requests(), timeout, metadata)
            else:
                answer = self._here("stream_unary", requests(), timeout, metadata)
        except grpc.RpcError as error:
            if failures:
                raise failures[0] from None
            raise _failure(error, "deadline" if deadline.expired else None) from None
        return _given(answer)


class ServerStreamCall(_Method[Q, R]):
    """A method with one request and a stream of answers."""

    def __call__(
        self, request: Q, timeout: float | None = None, metadata: Metadata | None = None
    ) -> GrpcStream[R]:
        """Begin the call.

        Args:
            request: What to send.
            timeout: Seconds until the stream has to be over, for the server; see `GrpcStream.limit` for ours.
            metadata: Headers.

        Raises:
            ForkedWithActiveStreamException: gRPC is not safe to use in this process.
        """
        backstop = None if timeout is None else timeout + _GRACE

        connections: list[Connection] = []

        def begin() -> Any:
            connections.append(self._channel.connection)
            channel = connections[0].channel
            return self._begin(channel, "unary_stream", request, timeout, backstop, metadata)

        def follow(call: Any) -> GrpcStream[R]:
            stream = GrpcStream[R](call, connections[0].carry())
            errand.then = stream.fetch_first()
            return stream

        if is_interruptible():
            errand = Errand(begin, follow)
            return errand.run()
        with in_flight():
            return GrpcStream(begin(), connections[0].carry())


class GrpcStream(Generic[R]):
    """The answers of a streaming call as they arrive. Dropping it ends the call."""

    def __init__(self, call: Any, done: Callable[[], None]) -> None:
        self._line = _Line(call, done)
        self._messages: Generator[R, None, None] = _messages(self._line)

    def __iter__(self) -> Iterator[R]:
        return self._messages

    def __next__(self) -> R:
        return next(self._messages)

    def fetch_first(self) -> Callable[[], None]:
        """What another thread has to do for the first answer to be there. It does not hold the stream."""
        return self._line.ahead.job()

    def limit(self, deadline: Deadline, silence: float | None = None) -> None:
        """Set what bounds the reading from now on, in place of what did before.

        Args:
            deadline: When reading ends.
            silence: Seconds for which the server may send nothing; None for any time.
        """
        self._line.watch.limit(deadline, silence)
        watchdog().add(self._line.watch)

    def cancel(self) -> None:
        """End the call now, from any thread. A thread that reads gets a failure with reason "cancelled"."""
        self._line.cancelled = True
        self._line.end()


class _Line:
    """One streaming call, as far as those share it who read it, bound it and cancel it.

    Args:
        call: The call.
        done: Is called when gRPC has nothing more to do for it.
    """

    _owner: int | None = None  # where a signal handler's error has cut the initialization short

    def __init__(self, call: Any, done: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False
        self.watch = Watch(call.cancel)
        self.ahead = Ahead(call, self.watch.heard)
        self._done = done
        self._owner = os.getpid()
        keep_from_children(self)

    def require_ours(self) -> None:
        """Make sure that this process made the call.

        Raises:
            RpcFailure: It is a fork of the one that did.
        """
        if self._owner != os.getpid():
            words = "the stream belongs to the process that this one was forked from"
            raise RpcFailure(words, code="unavailable", reason="broken")

    def end(self) -> None:
        if self._owner == os.getpid():  # gRPC does not survive being touched in a forked child
            cancel(self.call)

    def finish(self) -> None:
        """End it for good."""
        if self._owner == os.getpid():
            self.ahead.end(self._done)

    def __del__(self) -> None:
        if self._owner != os.getpid():
            return
        if is_interruptible():
            self.ahead.end(self._done, wait=False)
        else:
            self.call.cancel()
            self._done()


def _messages(line: _Line) -> Generator[Any, None, None]:
    call, ahead, heard = line.call, line.ahead, line.watch.heard
    try:
        while True:
            line.require_ours()
            try:
                message = ahead.take() if ahead.owed or is_interruptible() else next(call)
            except StopIteration:
                return
            heard()
            yield message
    except grpc.RpcError as error:
        raise _failure(error, "cancelled" if line.cancelled else line.watch.expired) from None
    finally:
        line.finish()


def _only(call: Any) -> Any:
    """The one message of a call that is over, or None."""
    messages = list(islice(call, 2))
    if len(messages) == 2:
        drain(call)
    return messages[0] if len(messages) == 1 else None


def _result(call: Any) -> Any:
    return call.result()


def _given(answer: R | None) -> R:
    """The answer, if there is one: gRPC takes none, or half of one, for success if the status is good."""
    if answer is None:
        raise RpcFailure("the answer is missing or cut short", code="internal", reason="broken")
    return answer


def _failure(error: Any, reason: Reason | None) -> RpcFailure:
    """What an error of gRPC means.

    Args:
        error: The error, which is also a grpc.Call.
        reason: Why it came to be, if it was us who ended the call.
    """
    status = error.code() or grpc.StatusCode.UNKNOWN
    headers = {
        name: value
        for name, value in (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ()))
        if isinstance(value, str)
    }
    code = "canceled" if status is grpc.StatusCode.CANCELLED else status.name.lower()
    message = error.details() or ""
    sent = True
    if reason is None:
        reason, sent = _reason(status, message)
    other = _OTHER_STATUS.fullmatch(message) if reason == "answer" else None
    if other is not None:
        failure = RpcFailure.from_answer(int(other.group(1)), headers, b"")
        failure.is_of_something_else = True
        return failure
    if "larger than max" in message:
        # Our own limit: neither a matter of rates nor of connections. The call has been made.
        return RpcFailure(message, code="internal", reason="answer", headers=headers)
    if "Expected SETTINGS" in message:
        message = f'the server does not speak gRPC; use transport="connect" ({message})'
    return RpcFailure(message, code=code, reason=reason, sent=sent, headers=headers)


def _reason(status: grpc.StatusCode, message: str) -> tuple[Reason, bool]:
    """Why a call failed that we did not end, and whether any of it may have been sent.

    gRPC gives the same codes to what the server says and to what happens on the way there.
    """
    if status is grpc.StatusCode.UNAVAILABLE and message.startswith(_NOT_CONNECTED):
        return ("tls" if any(word in message for word in _ENCRYPTION) else "connect"), False
    if message.startswith(_BROKEN):
        return "broken", True
    return "answer", True
