"""The way into one sandbox: its commands and files, over RPC and plain HTTP."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol, TypeVar, cast
from urllib.parse import quote, urlencode

from sandbox_sync_rest.api.envd import get_health
from sandbox_sync_rpc.channel import StreamUnary, UnaryStream, UnaryUnary
from sandbox_sync_rpc.filesystem_stub import FilesystemStub
from sandbox_sync_rpc.process_stub import ProcessStub

from sandbox_sync import retries
from sandbox_sync._arguments import user_name
from sandbox_sync._later import later
from sandbox_sync.ambient import by
from sandbox_sync.config import ENVD_PORT, ConnectionConfig
from sandbox_sync.deadlines import Deadline, seconds
from sandbox_sync.errors import (
    FileNotFoundException,
    NotFoundException,
    SandboxException,
    SandboxState,
)
from sandbox_sync.transport.answers import read_all
from sandbox_sync.transport.connect import ConnectChannel
from sandbox_sync.transport.failures import Failure, HTTPFailure, RpcFailure, require_json
from sandbox_sync.transport.files import Download, Payload
from sandbox_sync.transport.grpc_usable import grpc_is_usable, obstacle
from sandbox_sync.transport.lazy import lazy
from sandbox_sync.transport.log import CallLog
from sandbox_sync.transport.mapping import Call, envd_http_error, needs_probe, rpc_error
from sandbox_sync.transport.pools import Origin
from sandbox_sync.transport.sockets import time_limit
from sandbox_sync.transport.streams import Answers, RpcStream

if TYPE_CHECKING:
    from sandbox_sync_rest.client import Request

    from sandbox_sync.transport import grpc
    from sandbox_sync.transport.http1 import Answer, Body
else:
    grpc = later("sandbox_sync.transport.grpc")

Q = TypeVar("Q")
T = TypeVar("T")
R = TypeVar("R")

KEEPALIVE_INTERVAL = 50.0
"""Seconds after which a sandbox is asked to send something on a stream that has nothing to say."""

IDLE_TIMEOUT = 60.0
"""Seconds for which a file transfer may stand still."""

# To servers that find it easier to send files as they are, only this says that it is asked for.
_GZIP = "gzip, identity;q=0"

# The version of agents from which on they take files that are no parts of a form.
_PLAIN_FILES = (0, 5, 7)

# A stream on which this many keepalives in a row are missing is broken.
_MISSED_KEEPALIVES = 3
# Seconds by which the server's clock is let go first, so that it is always the server that ends a command.
_GRACE = 1.0
_PROBE_SECONDS = 5.0

# Calls that may be made twice with the outcome of one.
_IDEMPOTENT = frozenset(
    {
        "/process.Process/List",
        "/process.Process/Connect",
        "/process.Process/Update",
        "/process.Process/CloseStdin",
        "/filesystem.Filesystem/Stat",
        "/filesystem.Filesystem/ListDir",
        "/filesystem.Filesystem/Remove",
        "/filesystem.Filesystem/WatchDir",
    }
)


class _Method(Protocol):
    path: str


class WholeAnswer(NamedTuple):
    """An answer that has been read, for the `parse` of generated operations."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class EnvdConnection:
    """Reaches one sandbox. Cheap to make: connections are opened at first use, and shared.

    Args:
        config: How to reach it.
        sandbox_id: The sandbox.
        sandbox_domain: The domain it was created in, if the service said so.
        access_token: What it wants to see before it does anything, if it is secured.
        agent: Version of what answers in it, if the service said so.
        keepalive_interval: Seconds after which it is asked to send something on a silent stream.

    Attributes:
        config: As given.
        sandbox_id: As given.
        lease: What keeps the sandbox alive while something reaches into it, if anything does.
        takes_plain_files: Whether a file may be uploaded as it is, in place of a form with one part.

    Raises:
        InvalidArgumentException: The sandbox id cannot be one, or the proxy is not supported.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        sandbox_id: str,
        sandbox_domain: str | None = None,
        access_token: str | None = None,
        *,
        agent: tuple[int, ...] = (),
        keepalive_interval: float = KEEPALIVE_INTERVAL,
    ) -> None:
        self.config = config
        self.sandbox_id = sandbox_id
        self.lease: object = None
        self.takes_plain_files = agent >= _PLAIN_FILES
        self._token = access_token
        self._keepalive = keepalive_interval
        self._url = config.envd_url(sandbox_id, sandbox_domain)
        self._headers = {"e2b-sandbox-id": sandbox_id, "e2b-sandbox-port": str(ENVD_PORT)}
        if access_token:
            self._headers["x-access-token"] = access_token

    def __reduce__(self) -> NoReturn:
        # What hangs on it would take the access token along.
        raise TypeError("what reaches into a sandbox cannot be pickled; pickle the Sandbox itself")

    @property
    def process(self) -> ProcessStub:
        """The methods for commands and terminals, to be given to `unary`, `client_stream` and `stream`.

        They are for one call that is made now: where gRPC cannot be used, they go over Connect.
        """
        return self._stubs[0]

    @property
    def filesystem(self) -> FilesystemStub:
        """The methods for files, to be given to `unary` and `stream`; see `process`."""
        return self._stubs[1]

    @property
    def _stubs(self) -> tuple[ProcessStub, FilesystemStub]:
        if self.config.transport == "grpc" and grpc_is_usable(self.config.log):
            return self._over_grpc
        return self._over_connect

    @lazy
    def _over_grpc(self) -> tuple[ProcessStub, FilesystemStub]:
        channel = grpc.GrpcChannel(self._url, self.config)
        return ProcessStub(channel), FilesystemStub(channel)

    @lazy
    def _over_connect(self) -> tuple[ProcessStub, FilesystemStub]:
        channel = ConnectChannel(self._origin)
        return ProcessStub(channel), FilesystemStub(channel)

    @lazy
    def _origin(self) -> Origin:
        return Origin(self._url, self.config)

    def unary(
        self,
        method: UnaryUnary[Q, R],
        request: Q,
        *,
        user: str | None = None,
        request_timeout: float | None = None,
        not_found: type[NotFoundException] = NotFoundException,
    ) -> R:
        """Make a call with one request and one answer, and again where that does no harm and may help.

        Args:
            method: The method, of `process` or `filesystem`.
            request: What to send.
            user: The sandbox's user to act as; its default user when None.
            request_timeout: Total seconds, retries included; 0 for no limit, None for the configured one.
            not_found: The error for "not found".

        Raises:
            SandboxException: The call failed.
        """
        deadline = self.config.deadline(request_timeout)
        metadata = self._metadata(user)
        path = _path_of(method)
        try:
            return self._attempted(
                lambda: method(request, timeout=deadline.remaining(), metadata=metadata),
                CallLog(self.config.log, "POST", path, self.sandbox_id),
                deadline,
                repeatable=path in _IDEMPOTENT,
            )
        except RpcFailure as failure:
            call = self._call(path, request_timeout, deadline, not_found)
            raise self._rpc_error(failure, call, deadline) from None

    def client_stream(
        self,
        method: StreamUnary[Q, R],
        requests: Iterator[Q],
        *,
        user: str | None = None,
        request_timeout: float | None = None,
        not_found: type[NotFoundException] = NotFoundException,
    ) -> R:
        """Make a call with a stream of requests and one answer, once. For the arguments see `unary`.

        Raises:
            SandboxException: The call failed. Errors of the iterator are raised as they are.
        """
        deadline = self.config.deadline(request_timeout)
        call = self._call(_path_of(method), request_timeout, deadline, not_found)
        metadata = self._metadata(user)
        try:
            return self._log(call).watched(
                lambda: method(requests, timeout=deadline.remaining(), metadata=metadata)
            )()
        except RpcFailure as failure:
            raise self._rpc_error(failure, call, deadline) from None

    def stream(
        self,
        method: UnaryStream[Q, R],
        request: Q,
        *,
        user: str | None = None,
        timeout: float | None = None,
        tell_server: bool = True,
        request_timeout: float | None = None,
        not_found: type[NotFoundException] = NotFoundException,
        request_id: str | None = None,
    ) -> RpcStream[R]:
        """Make a call whose answers are followed as they arrive.

        Args:
            method: The method, of `process` or `filesystem`.
            request: What to send.
            user: The sandbox's user to act as; its default user when None.
            timeout: Seconds that the stream may last; None or 0 for no limit.
            tell_server: Let the server keep to `timeout`, too: it ends the command with the stream.
            request_timeout: Seconds until the first answer has to be there; 0 for no limit, None for the
                configured one.
            not_found: The error for "not found".
            request_id: Tells a repetition of this request from another; servers that know of it act once.

        Returns:
            The stream, of which the first answer has arrived.

        Raises:
            SandboxException: The call failed.
        """
        run_time = seconds(timeout, "timeout")
        # What is followed in the background outlasts the block that it was begun in.
        ends_with_block = by(run_time).block if tell_server else None
        opening = self.config.deadline(request_timeout)
        call = self._call(_path_of(method), request_timeout, opening, not_found)
        metadata = [*self._metadata(user), ("keepalive-ping-interval", str(max(1, int(self._keepalive))))]
        if request_id is not None:
            metadata.append(("idempotency-key", request_id))

        def begin() -> tuple[Answers[R], list[R]]:
            if opening.expired:  # gRPC would still send it
                raise RpcFailure(
                    "the time was up before it began", code="deadline_exceeded", reason="deadline", sent=False
                )
            end, told = Deadline.after(run_time), None
            if tell_server:
                end = by(run_time)
                told = run_time
                if end.block is not None:
                    told = end.remaining()
                elif run_time is not None:
                    end = Deadline.after(run_time + _GRACE)
            answers = cast("Answers[R]", method(request, timeout=told, metadata=metadata))
            answers.limit(opening.sooner(end.remaining()))
            first = list(islice(answers, 1))
            if not first:
                raise RpcFailure("the call ended before it began", code="unavailable", reason="broken")
            answers.limit(end, _MISSED_KEEPALIVES * self._keepalive)
            return answers, first

        def explain(failure: RpcFailure) -> SandboxException:
            timed = call.on("timeout", run_time)
            if ends_with_block is not None:
                timed = call.on("deadline", ends_with_block)
            timed = timed.silent_for(_MISSED_KEEPALIVES * self._keepalive)
            return self._rpc_error(failure, timed, Deadline.after(None))

        log = self._log(call)
        try:
            answers, first = self._attempted(begin, log, opening, repeatable=call.path in _IDEMPOTENT)
        except RpcFailure as failure:
            if (run_time is None and ends_with_block is None) or opening.expired or failure.is_of_proxy:
                raise self._rpc_error(failure, call, opening) from None
            raise explain(failure) from None
        return RpcStream(answers, first, explain, log)

    def download(
        self,
        request: Request,
        *,
        gzip: bool = False,
        request_timeout: float | None = None,
        idle_timeout: float | None = IDLE_TIMEOUT,
    ) -> Download:
        """Begin to download a file.

        Args:
            request: Made by `get_files.build`.
            gzip: Have it compressed on its way.
            request_timeout: Seconds until the answer begins, or ends for who reads it whole; 0 for no limit,
                None for the configured one.
            idle_timeout: Seconds for which nothing may arrive, for who reads it in blocks; 0 for any time.

        Raises:
            FileNotFoundException: There is no such file.
            SandboxException: The call failed.
        """
        deadline = self.config.deadline(request_timeout)
        limit = time_limit(deadline)
        whole = by(None)
        idle = seconds(idle_timeout, "idle_timeout")
        call = self._call(request.path, request_timeout, deadline, FileNotFoundException).at(request.method)
        call = call.silent_for(idle, "stream_idle_timeout")
        headers = {**self._headers, **request.headers, "accept-encoding": _GZIP if gzip else "identity"}

        def attempt() -> Answer:
            response = self._origin.request(request.method, _target(request), headers=headers, limit=limit)
            if response.status != 200:
                raise HTTPFailure.from_answer(response.status, response.headers, read_all(response, limit))
            return response

        def explain(failure: Failure) -> SandboxException:
            # The time of the request is over by now, and says nothing about that of the transfer.
            return self._http_error(failure, call.within(whole), Deadline.after(None))

        try:
            response = self._attempted(attempt, self._log(call), deadline, repeatable=True)
        except Failure as failure:
            raise self._http_error(failure, call, deadline) from None
        return Download(response, limit, time_limit(whole, idle), explain)

    def upload(
        self,
        request: Request,
        payload: Payload,
        *,
        request_timeout: float | None = None,
        idle_timeout: float | None = IDLE_TIMEOUT,
    ) -> WholeAnswer:
        """Upload files.

        Args:
            request: Made by `post_files.build`.
            payload: Their content, made by `files.octets` or `files.multipart`.
            request_timeout: Total seconds; 0 for no limit. None is the configured one for what is in memory,
                and no limit for what has to be read: a large file may take long, as long as it moves.
            idle_timeout: Seconds for which nothing may move; 0 for any time.

        Returns:
            The answer, for `post_files.parse`.

        Raises:
            SandboxException: The call failed. Errors of reading the content are raised as they are.
        """
        deadline = self.config.deadline(
            0 if request_timeout is None and not payload.in_memory else request_timeout
        )
        silence = seconds(idle_timeout, "idle_timeout")
        call = self._call(request.path, request_timeout, deadline, FileNotFoundException).at(request.method)
        call = call.silent_for(silence)

        def attempt() -> WholeAnswer:
            try:
                return self._sent(request, deadline, silence, payload)
            except Failure as failure:
                failure.spent = failure.sent and not payload.repeatable
                raise

        try:
            response = self._attempted(attempt, self._log(call), deadline, repeatable=payload.repeatable)
            require_json(response.status_code, response.headers, response.content)
        except Failure as failure:
            raise self._http_error(failure, call, deadline) from None
        return response

    def is_healthy(self, request_timeout: float | None = None) -> bool:
        """Whether the sandbox runs.

        Args:
            request_timeout: Total seconds, retries included; 0 for no limit, None for the configured one.

        Returns:
            True if it answers; False if the service says that it is not there.

        Raises:
            SandboxException: Neither can be said.
        """
        deadline = self.config.deadline(request_timeout)
        request = get_health.build()
        call = self._call(request.path, request_timeout, deadline, NotFoundException).at(request.method)
        try:
            response = self._attempted(
                lambda: self._sent(request, deadline),
                self._log(call),
                deadline,
                repeatable=True,
            )
            if "html" in response.headers.get("content-type", ""):
                require_json(response.status_code, response.headers, response.content)
        except Failure as failure:
            if failure.says_gone:
                return False
            raise envd_http_error(failure, call) from None
        return True

    def _sent(
        self,
        request: Request,
        deadline: Deadline,
        silence: float | None = None,
        payload: Payload | None = None,
    ) -> WholeAnswer:
        """Send a plain request once.

        Args:
            request: The request.
            deadline: When it has to be over.
            silence: Seconds for which nothing may move; None for any time.
            payload: Its body, if it has one.

        Raises:
            Failure: There is no answer, or its status is not one of success.
        """
        limit = time_limit(deadline, silence)
        headers = {"accept": "application/json", **self._headers, **request.headers}
        body: Body = None
        if payload is not None:
            headers.update(payload.headers)
            make = payload.in_one_piece if payload.is_short else payload.source
            body = payload if make is None else make()
        answer = self._origin.request(
            request.method, _target(request), headers=headers, body=body, limit=limit
        )
        content = read_all(answer, limit)
        if 200 <= answer.status < 300:
            return WholeAnswer(answer.status, answer.headers, content)
        said = self.config.without_secrets(content.decode("utf-8", "replace"), self._token)
        raise HTTPFailure.from_answer(answer.status, answer.headers, said.encode())

    def _attempted(
        self, attempt: Callable[[], T], log: CallLog, deadline: Deadline, *, repeatable: bool
    ) -> T:
        """Make a call, and make it again as the rules say; see `retries.call`."""
        return retries.call(
            attempt,
            repeatable=repeatable,
            deadline=deadline,
            most=self.config.retries,
            log=log,
        )

    def _metadata(self, user: str | None) -> list[tuple[str, str]]:
        metadata = list(self._headers.items())
        if user_name(user) is not None:
            credentials = f"{user}:".encode()
            metadata.append(("authorization", f"Basic {base64.b64encode(credentials).decode()}"))
        return metadata

    def _call(
        self,
        path: str,
        request_timeout: float | None,
        deadline: Deadline,
        not_found: type[NotFoundException],
    ) -> Call:
        limit = self.config.request_timeout if request_timeout is None else request_timeout
        call = Call("POST", path, self.sandbox_id, limit=limit, not_found=not_found)
        return call.within(deadline)

    def _log(self, call: Call) -> CallLog:
        return CallLog(self.config.log, call.method, call.path, call.sandbox_id)

    def _rpc_error(self, failure: RpcFailure, call: Call, deadline: Deadline) -> SandboxException:
        failure.message = self.config.without_secrets(failure.message, self._token)
        if self.config.transport == "grpc":
            call = call.over_connect(obstacle())
        return rpc_error(failure, call, self._state_after(failure, deadline))

    def _http_error(self, failure: Failure, call: Call, deadline: Deadline) -> SandboxException:
        failure.message = self.config.without_secrets(failure.message, self._token)
        return envd_http_error(failure, call, self._state_after(failure, deadline))

    def _state_after(self, failure: Failure, deadline: Deadline) -> SandboxState:
        """What a health check says of the sandbox, where the failure leaves it open and time is left."""
        if not needs_probe(failure) or deadline.expired:
            return "unknown"
        request = get_health.build()
        patience = deadline.sooner(min(_PROBE_SECONDS, self._keepalive))
        ask = CallLog(self.config.log, request.method, request.path, self.sandbox_id).watched(
            lambda: self._sent(request, patience)
        )
        try:
            try:
                ask()
            except Failure as answer:
                if answer.reason != "broken":
                    raise
                ask()  # it may have been a connection that had broken with the one that is asked about
        except Failure as answer:
            return "gone" if answer.says_gone else "unknown"
        return "alive"


def _path_of(method: object) -> str:
    """The path of a stub's method; both channels' methods have it."""
    return cast("_Method", method).path


def _target(request: Request) -> str:
    query = urlencode(request.params, quote_via=quote)
    return f"{request.path}?{query}" if query else request.path
