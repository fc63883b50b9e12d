"""The one place where failures of calls become the errors of `sandbox_sync.errors`. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from sandbox_sync import errors
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import Clock, NotFoundException, SandboxException, SandboxState
from sandbox_sync.retries import retry_after
from sandbox_sync.transport.failures import Failure, HTTPFailure, RpcFailure, json_object
from sandbox_sync.transport.grpc_usable import Obstacle

E = TypeVar("E", bound=SandboxException)

# Statuses and codes with one meaning for every call. What is not here is a SandboxException.
_BY_STATUS: Mapping[int, type[SandboxException]] = {
    400: errors.InvalidArgumentException,
    401: errors.AuthenticationException,
    403: errors.AuthenticationException,
    409: errors.ConflictException,
    429: errors.RateLimitException,
    503: errors.ServiceBusyException,
    507: errors.NotEnoughSpaceException,
}
_BY_CODE: Mapping[str, type[SandboxException]] = {
    "invalid_argument": errors.InvalidArgumentException,
    "unauthenticated": errors.AuthenticationException,
    "permission_denied": errors.AuthenticationException,
    "aborted": errors.ConflictException,
    "resource_exhausted": errors.RateLimitException,
}

# What to do about it, where what happened does not say so. Of classes that have none here it depends.
_ADVICE: Mapping[type[SandboxException], str] = {
    errors.AuthenticationException: "check the key, the token and the user that the call was made with",
    errors.SandboxNotFoundException: "Sandbox.list() shows the sandboxes that there are",
    errors.ConflictException: "look at its state with get_info() and try again when that has changed",
    errors.GuestUnresponsiveException: "try again, or kill the sandbox",
    errors.NotEnoughSpaceException: "remove files, or use a template with a larger disk",
    errors.RateLimitException: "try again later",
    errors.ServiceBusyException: "try again later",
    errors.SandboxUnreachableException: "check the network, and whether the sandbox runs, with is_running()",
    errors.PortNotOpenException: "start a server on that port, or wait until it listens",
}


class Call(NamedTuple):
    """What is known of a call before it fails.

    Attributes:
        method: HTTP method.
        path: Path, without a query: that may carry signatures.
        sandbox_id: The sandbox it is for, if any.
        clock: The clock that its deadline belongs to.
        limit: What that clock was set to, in seconds.
        silence: Seconds for which nothing may arrive or move.
        silence_option: The option that sets it, if there is one.
        not_found: The error for "not found".
        obstacle: What kept it from being made over gRPC, if it was to be.
    """

    method: str = "POST"
    path: str = ""
    sandbox_id: str | None = None
    clock: Clock = "request_timeout"
    limit: float | None = None
    silence: float | None = None
    silence_option: str | None = None
    not_found: type[NotFoundException] = NotFoundException
    obstacle: Obstacle | None = None

    def on(self, clock: Clock, limit: float | None) -> Call:
        """The same call, measured by this clock."""
        return self._replace(clock=clock, limit=limit)

    def within(self, deadline: Deadline) -> Call:
        """The same call, measured by the clock of its block where that is the deadline."""
        return self if deadline.block is None else self.on("deadline", deadline.block)

    def silent_for(self, seconds: float | None, option: str | None = None) -> Call:
        """The same call, over a connection on which there may be silence for so long."""
        return self._replace(silence=seconds, silence_option=option)

    def over_connect(self, obstacle: Obstacle | None) -> Call:
        """The same call, made over Connect where this kept it from being made over gRPC."""
        return self._replace(obstacle=obstacle)

    def at(self, method: str, path: str | None = None) -> Call:
        """The same call, of this method, and of this path if it has another."""
        return self._replace(method=method, path=path or self.path)


def control_plane_error(failure: Failure, call: Call) -> SandboxException:
    """The error for a failed call of the control plane."""
    if failure.reason != "answer":
        return incomplete_call_error(failure, call, "unknown", inside=False)
    if failure.status == 409 and _error_code(failure) == "sandbox_snapshot_guest_agent_unresponsive":
        return _make(errors.GuestUnresponsiveException, failure, call)
    return _by_status(failure, call)


def envd_http_error(failure: Failure, call: Call, state: SandboxState = "unknown") -> SandboxException:
    """The error for a failed call of a sandbox's plain HTTP API.

    Args:
        failure: How it failed.
        call: The call.
        state: What a health check found out about the sandbox, if `needs_probe` asked for one.
    """
    if failure.reason != "answer":
        return incomplete_call_error(failure, call, state)
    if failure.unavailable:
        return _unavailable(failure, call, state)
    return _by_status(failure, call)


def rpc_error(failure: RpcFailure, call: Call, state: SandboxState = "unknown") -> SandboxException:
    """The error for a failed remote procedure call of a sandbox. For the arguments see `envd_http_error`."""
    if call.obstacle is not None and failure.is_of_no_rpc:
        why, remedy, kind, _ = call.obstacle
        words = f"{why}, so Connect is used in place of gRPC, which this server does not speak"
        return _make(kind, failure, call, f"{words} ({failure.message}); {remedy}")
    if failure.reason != "answer":
        return incomplete_call_error(failure, call, state)
    if failure.code in ("deadline_exceeded", "canceled"):
        return _timeout(failure, call, failure.code, by_proxy=failure.is_of_proxy)
    if failure.unavailable:
        return _unavailable(failure, call, state)
    if failure.code == "not_found" and not failure.is_of_something_else:
        return _make(call.not_found, failure, call)
    named = _BY_CODE.get(failure.code)
    if named is not None:
        return _make(named, failure, call)
    return _make(SandboxException, failure, call, f"{failure.code}: {failure.message}")


def incomplete_call_error(
    failure: Failure, call: Call, state: SandboxState, *, inside: bool = True
) -> SandboxException:
    """The error for a call whose answer was not seen to its end.

    Args:
        failure: How it failed.
        call: The call.
        state: What is known of the sandbox.
        inside: Whether it was the sandbox itself that was called.
    """
    if failure.reason == "deadline":
        return _timeout(failure, call)
    if failure.reason == "tls":
        words = failure.message
        if "client_cert" not in words:
            words += ". To trust another authority pass ca_bundle or set SANDBOX_SYNC_CA_BUNDLE"
        return _make(errors.TLSException, failure, call, words)
    if state == "gone":
        return _gone(failure, call)
    if failure.reason == "silence":
        return _silent(failure, call, state)
    did = "connection failed" if failure.reason == "connect" else "connection broke"
    if failure.reason == "cancelled":
        did = "call was cancelled"
    if inside and state == "unknown" and failure.reason == "connect":
        return _unreachable(failure, call, state, f"{did}: {failure.message}")
    advice = "nothing was sent, so try again"
    if failure.maybe_executed:
        advice = "try again" if call.method == "GET" else "the call may have taken effect"
    did += f": {failure.message}; {advice}"
    error = _make(errors.ConnectionException, failure, call, did)
    error.sandbox_state = state
    return error


def needs_probe(failure: Failure) -> bool:
    """Whether a health check of the sandbox would tell more than the failure does."""
    unclear = failure.unavailable and not (failure.says_gone or failure.says_port_closed)
    return unclear or failure.reason in ("connect", "silence", "broken")


def _by_status(failure: Failure, call: Call) -> SandboxException:
    if failure.status == 404 and not failure.is_of_something_else:
        return _make(call.not_found, failure, call)
    return _make(_BY_STATUS.get(failure.status or 0, SandboxException), failure, call)


def _unavailable(failure: Failure, call: Call, state: SandboxState) -> SandboxException:
    if failure.says_gone or state == "gone":
        return _gone(failure, call)
    if failure.says_port_closed:
        return _make(errors.PortNotOpenException, failure, call)
    return _unreachable(failure, call, state, failure.message)


def _gone(failure: Failure, call: Call) -> SandboxException:
    return _make(
        errors.SandboxNotRunningException,
        failure,
        call,
        "the sandbox is not running: its lifetime ended, or it was killed or paused. "
        "Sandbox.create(timeout=...) and set_timeout(...) give it a longer life",
    )


def _unreachable(failure: Failure, call: Call, state: SandboxState, message: str) -> SandboxException:
    error = _make(errors.SandboxUnreachableException, failure, call, message)
    error.sandbox_state = state
    return error


def _silent(failure: Failure, call: Call, state: SandboxState) -> SandboxException:
    words = "nothing moved on the connection"
    if call.silence is not None:
        words += f" for {call.silence:g} s"
    if call.silence_option is not None:
        words += f"; {call.silence_option} allows for more"
    error = _make(errors.SandboxUnreachableException, failure, call, words)
    error.sandbox_state = state
    error.limit = call.silence
    return error


def _timeout(
    failure: Failure, call: Call, code: str | None = None, *, by_proxy: bool = False
) -> SandboxException:
    limit = "" if call.limit is None else f" ({call.limit:g} s)"
    kind: type[errors.TimeoutException]
    if call.clock == "timeout":
        kind, what = errors.CommandTimeoutException, f"it ran longer than its `timeout`{limit}"
    elif call.clock == "deadline":
        kind, what = errors.DeadlineExceededException, f"the time of `with deadline({call.limit:g})` is up"
    else:
        kind, what = errors.RequestTimeoutException, f"the call took longer than `request_timeout`{limit}"
    remedy = "pass a larger one, or 0 for no limit"
    if call.clock == "deadline":
        remedy = "give the block more time"
    words = f"{what}; {remedy}"
    if by_proxy:
        words = f"a server on the way gave up waiting before {call.clock}{limit} was up: {failure.message}"
    error = _make(kind, failure, call, words)
    error.clock = call.clock
    error.limit = call.limit
    error.code = code
    return error


def _make(kind: type[E], failure: Failure, call: Call, message: str | None = None) -> E:
    wait = retry_after(failure.headers)
    message = message or failure.message
    advice = _ADVICE.get(kind) if wait is None else f"try again in {wait:g} s"
    error = kind(
        message if advice is None else f"{message}; {advice}",
        status=failure.status,
        code=failure.code if isinstance(failure, RpcFailure) else None,
        request_id=failure.headers.get("x-request-id"),
        sandbox_id=call.sandbox_id,
        method=call.method,
        path=call.path,
    )
    error.maybe_executed = failure.maybe_executed
    error.retry_after = wait
    return error


def _error_code(failure: Failure) -> object:
    return json_object(failure.body).get("error_code") if isinstance(failure, HTTPFailure) else None
