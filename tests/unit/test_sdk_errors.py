"""The errors of the SDK, and the one place that makes them of failures."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sync import errors
from sandbox_sync.errors import CommandExitException, SandboxException
from sandbox_sync.transport.failures import Failure, HTTPFailure, RpcFailure
from sandbox_sync.transport.mapping import (
    Call,
    control_plane_error,
    envd_http_error,
    needs_probe,
    rpc_error,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, Exception) and not value.__name__.startswith("_")
]
CALL = Call("POST", "/process.Process/Start", "isandbox", limit=7.0)


def drawn() -> dict[str, str]:
    """Class and parent, as drawn at the top of the module."""
    parents: dict[int, str] = {}
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.search(r"[A-Z]\w+Exception", line)
        if match is None:
            continue
        depth = match.start() // 4
        parents[depth] = match.group()
        found[match.group()] = parents.get(depth - 1, "Exception")
    return found


def parent_of(kind: type[Exception]) -> str:
    return next(base.__name__ for base in kind.__mro__[1:] if not base.__name__.startswith("_"))


def test_the_tree_that_is_drawn_is_the_tree() -> None:
    assert drawn() == {kind.__name__: parent_of(kind) for kind in CLASSES}


TEXT = st.none() | st.text(max_size=20)
SECONDS = st.none() | st.floats(0, 1e6)
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "status": st.none() | st.integers(100, 599),
    "code": TEXT,
    "request_id": TEXT,
    "sandbox_id": TEXT,
    "method": TEXT,
    "path": TEXT,
    "maybe_executed": st.booleans(),
    "retry_after": SECONDS,
    "sandbox_state": st.sampled_from(["alive", "gone", "unknown"]),
    "pid": st.none() | st.integers(1, 1 << 31),
    "stdout": TEXT,
    "stderr": TEXT,
    "clock": st.sampled_from(["sandbox lifetime", "timeout", "request_timeout", "silence", "pool"]),
    "limit": SECONDS,
    "exit_code": st.integers(-1, 255),
    "error": TEXT,
}


@given(st.sampled_from(CLASSES), st.text(max_size=50), st.fixed_dictionaries(FIELDS))
def test_every_error_pickles_with_all_that_it_carries(
    kind: type[SandboxException], words: str, fields: dict[str, object]
) -> None:
    """G61: workers hand errors on."""
    error = kind(words)
    carried = {name: value for name, value in fields.items() if hasattr(error, name)}
    for name, value in carried.items():
        setattr(error, name, value)
    assert {"status", "code", "request_id", "sandbox_id", "method", "path", "retry_after"} <= carried.keys()
    for twin in (pickle.loads(pickle.dumps(error, protocol)) for protocol in (2, pickle.HIGHEST_PROTOCOL)):
        assert type(twin) is kind
        assert {name: getattr(twin, name) for name in carried} == carried
        assert (str(twin), twin.args, twin.message) == (str(error), error.args, error.message)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickle_and_copy(kind: type[SandboxException]) -> None:
    error = kind("what happened", sandbox_id="isandbox")
    error.maybe_executed = True
    if kind is not CommandExitException:
        error.path = "/somewhere"
    if isinstance(error, errors.IncompleteCallException):
        error.stdout, error.pid = "partial", 7
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


def test_a_pickled_command_exit_keeps_its_output() -> None:
    error = CommandExitException(stdout="out", stderr="err", exit_code=3, error="exit status 3")
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.stdout, twin.stderr, twin.exit_code, twin.error) == ("out", "err", 3, "exit status 3")
    assert str(twin) == "Command ended with exit code 3 (exit status 3):\nerr"


def test_a_command_exit_quotes_no_more_than_the_end_of_a_long_output() -> None:
    error = CommandExitException(stderr="x" * 10_000_000 + "the reason", exit_code=1)
    assert len(str(error)) < 4096
    assert str(error).endswith("the reason")
    assert len(error.stderr) > 10_000_000


def test_an_error_names_the_sandbox_the_call_and_the_request() -> None:
    error = SandboxException(
        "it broke", status=500, request_id="r1", sandbox_id="i1", method="GET", path="/x"
    )
    assert str(error) == "it broke [sandbox i1, GET /x, HTTP 500, request id r1]"
    assert error.message == "it broke"


def answer(status: int, body: bytes = b"{}", **headers: str) -> HTTPFailure:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTPFailure.from_answer(status, named, body)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"message":"no"}', "InvalidArgumentException"),
        (401, b"", "AuthenticationException"),
        (403, b"", "AuthenticationException"),
        (404, b"", "NotFoundException"),
        (404, b"<html>no page</html>", "SandboxException"),
        (404, b"404 page not found", "SandboxException"),
        (409, b"", "ConflictException"),
        (409, b'{"error_code":"sandbox_snapshot_guest_agent_unresponsive"}', "GuestUnresponsiveException"),
        (429, b"", "RateLimitException"),
        (500, b"", "SandboxException"),
        (502, b"", "SandboxException"),
        (503, b"", "ServiceBusyException"),
        (507, b"", "NotEnoughSpaceException"),
        (504, b"", "SandboxException"),
        (561, b"\xff\xfe", "SandboxException"),
        (301, b"<html>", "SandboxException"),
        (400, b"[" * 100_000, "InvalidArgumentException"),
    ],
)
def test_control_plane_statuses(status: int, body: bytes, expected: str) -> None:
    error = control_plane_error(answer(status, body, x_request_id="r9"), CALL)
    assert type(error).__name__ == expected
    assert (error.status, error.request_id, error.sandbox_id, error.path) == (
        status,
        "r9",
        "isandbox",
        CALL.path,
    )


@pytest.mark.parametrize(
    ("status", "message", "state", "expected"),
    [
        (400, "bad path", "unknown", "InvalidArgumentException"),
        (401, "", "unknown", "AuthenticationException"),
        (403, "", "unknown", "AuthenticationException"),
        (404, "", "unknown", "NotFoundException"),
        (409, "", "unknown", "ConflictException"),
        (429, "", "unknown", "RateLimitException"),
        (502, "The sandbox was not found", "unknown", "SandboxNotRunningException"),
        (502, "The sandbox is running but port is not open", "unknown", "PortNotOpenException"),
        (502, "bad gateway", "unknown", "SandboxUnreachableException"),
        (502, "bad gateway", "gone", "SandboxNotRunningException"),
        (507, "not enough disk space available", "unknown", "NotEnoughSpaceException"),
        (500, "", "unknown", "SandboxException"),
    ],
)
def test_envd_http_statuses(status: int, message: str, state: errors.SandboxState, expected: str) -> None:
    error = envd_http_error(answer(status, f'{{"message":"{message}"}}'.encode()), CALL, state)
    assert type(error).__name__ == expected


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("invalid_argument", "", "InvalidArgumentException"),
        ("unauthenticated", "", "AuthenticationException"),
        ("permission_denied", "", "AuthenticationException"),
        ("not_found", "", "NotFoundException"),
        ("resource_exhausted", "", "RateLimitException"),
        ("aborted", "", "ConflictException"),
        ("unavailable", "The sandbox was not found", "SandboxNotRunningException"),
        ("unavailable", "The sandbox is running but port is not open", "PortNotOpenException"),
        ("unavailable", "try again", "SandboxUnreachableException"),
        ("deadline_exceeded", "", "RequestTimeoutException"),
        ("canceled", "", "RequestTimeoutException"),
        ("already_exists", "there", "SandboxException"),
        ("failed_precondition", "", "SandboxException"),
        ("out_of_range", "", "SandboxException"),
        ("unimplemented", "", "SandboxException"),
        ("internal", "", "SandboxException"),
        ("unknown", "", "SandboxException"),
        ("data_loss", "", "SandboxException"),
    ],
)
def test_rpc_codes(code: str, message: str, expected: str) -> None:
    error = rpc_error(RpcFailure(message, code=code, reason="answer"), CALL)
    assert type(error).__name__ == expected
    assert error.code == code


@pytest.mark.parametrize(
    ("reason", "state", "expected"),
    [
        ("connect", "unknown", "SandboxUnreachableException"),
        ("connect", "alive", "ConnectionException"),
        ("connect", "gone", "SandboxNotRunningException"),
        ("broken", "unknown", "ConnectionException"),
        ("broken", "alive", "ConnectionException"),
        ("broken", "gone", "SandboxNotRunningException"),
        ("silence", "unknown", "SandboxUnreachableException"),
        ("silence", "alive", "SandboxUnreachableException"),
        ("silence", "gone", "SandboxNotRunningException"),
        ("deadline", "unknown", "RequestTimeoutException"),
        ("tls", "unknown", "TLSException"),
    ],
)
def test_calls_without_an_answer(reason: str, state: errors.SandboxState, expected: str) -> None:
    """G12, G28: gone is said only with evidence, and every way to fail has its class."""
    error = rpc_error(RpcFailure("lost", code="unavailable", reason=reason), CALL, state)
    assert type(error).__name__ == expected
    assert isinstance(error, errors.IncompleteCallException)
    if reason not in ("deadline", "tls"):
        assert error.sandbox_state == state


def test_the_control_plane_that_cannot_be_reached_is_no_timeout() -> None:
    error = control_plane_error(
        Failure("refused", reason="connect", sent=False), Call("POST", "/v2/sandboxes")
    )
    assert type(error) is errors.ConnectionException


def test_a_timeout_says_which_clock_fired_and_what_to_turn() -> None:
    """G5: three clocks, three names."""
    late = Failure("late", reason="deadline")
    request = envd_http_error(late, CALL)
    command = rpc_error(
        RpcFailure("late", code="deadline_exceeded", reason="answer"), CALL.on("timeout", 60.0)
    )
    gone = envd_http_error(answer(502, b'{"message":"was not found"}'), CALL)
    assert isinstance(request, errors.RequestTimeoutException)
    assert isinstance(command, errors.CommandTimeoutException)
    assert isinstance(gone, errors.SandboxNotRunningException)
    assert (request.clock, request.limit) == ("request_timeout", 7.0)
    assert (command.clock, command.limit) == ("timeout", 60.0)
    assert gone.clock == "sandbox lifetime"
    assert "`request_timeout` (7 s)" in str(request)
    assert "`timeout` (60 s)" in str(command)
    assert "set_timeout" in str(gone)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (answer(502, b'{"message":"bad gateway"}'), True),
        (answer(502, b'{"message":"The sandbox was not found"}'), False),
        (answer(502, b'{"message":"port is not open"}'), False),
        (answer(500), False),
        (RpcFailure("", code="unavailable", reason="answer"), True),
        (RpcFailure("was not found", code="unavailable", reason="answer"), False),
        (RpcFailure("", code="not_found", reason="answer"), False),
        (RpcFailure("", code="unavailable", reason="broken"), True),
        (RpcFailure("", code="unavailable", reason="deadline"), False),
        (RpcFailure("", code="unavailable", reason="tls"), False),
    ],
)
def test_health_is_asked_for_only_where_it_tells_more(failure: Failure, expected: bool) -> None:
    assert needs_probe(failure) is expected


def test_only_the_words_of_the_service_say_that_a_sandbox_is_gone() -> None:
    assert answer(502, b'{"message":"The sandbox was not found"}').says_gone
    assert RpcFailure("The sandbox was not found", code="unavailable", reason="answer").says_gone
    assert not answer(404, b'{"message":"page was not found"}').says_gone
    assert not answer(502, b"<html>502</html>").says_gone
    assert not RpcFailure("the host was not found", code="unavailable", reason="connect").says_gone


def told(status: int, message: str) -> HTTPFailure:
    return answer(status, f'{{"message":"{message}"}}'.encode(), x_request_id="r1")


def said(code: str, message: str = "said the server") -> RpcFailure:
    return RpcFailure(message, code=code, reason="answer", headers={"x-request-id": "r1"})


LATE = Failure("late", reason="deadline")
FOUND = Call("GET", "/sandboxes/isandbox", "isandbox", not_found=errors.SandboxNotFoundException)
FILES = Call("GET", "/files", "isandbox", not_found=errors.FileNotFoundException)
ADVICE: dict[type[SandboxException], tuple[SandboxException, str]] = {
    errors.AuthenticationException: (rpc_error(said("unauthenticated"), CALL), "check the key"),
    errors.InvalidArgumentException: (rpc_error(said("invalid_argument"), CALL), "said the server"),
    errors.NotFoundException: (rpc_error(said("not_found"), CALL), "said the server"),
    errors.FileNotFoundException: (envd_http_error(told(404, "no file /f"), FILES), "/f"),
    errors.SandboxNotFoundException: (control_plane_error(told(404, "none"), FOUND), "Sandbox.list()"),
    errors.ConflictException: (control_plane_error(told(409, "it is paused"), FOUND), "get_info()"),
    errors.GuestUnresponsiveException: (
        control_plane_error(
            answer(409, b'{"error_code":"sandbox_snapshot_guest_agent_unresponsive","message":"x"}'), FOUND
        ),
        "kill the sandbox",
    ),
    errors.NotEnoughSpaceException: (envd_http_error(told(507, "disk full"), FILES), "remove files"),
    errors.RateLimitException: (control_plane_error(told(429, "slow down"), FOUND), "try again later"),
    errors.ServiceBusyException: (control_plane_error(told(503, "busy"), FOUND), "try again later"),
    errors.RequestTimeoutException: (rpc_error(RpcFailure.below(LATE), CALL), "pass a larger one"),
    errors.CommandTimeoutException: (
        rpc_error(RpcFailure.below(LATE), CALL.on("timeout", 3)),
        "pass a larger one",
    ),
    errors.DeadlineExceededException: (
        rpc_error(RpcFailure.below(LATE), CALL.on("deadline", 3)),
        "more time",
    ),
    errors.SandboxNotRunningException: (rpc_error(said("unavailable", "was not found"), CALL), "set_timeout"),
    errors.SandboxUnreachableException: (rpc_error(said("unavailable"), CALL), "is_running()"),
    errors.PortNotOpenException: (rpc_error(said("unavailable", "port is not open"), CALL), "start a server"),
    errors.ConnectionException: (
        envd_http_error(Failure("reset", reason="broken"), CALL, "alive"),
        "may have taken effect",
    ),
    errors.TLSException: (envd_http_error(Failure("bad", reason="tls", sent=False), CALL), "ca_bundle"),
    SandboxException: (rpc_error(said("internal"), CALL), "said the server"),
}
# These are raised where they arise, or are there to be caught.
ELSEWHERE = {
    errors.CommandExitException,
    errors.EventsLostException,
    errors.ForkedWithActiveStreamException,
    errors.IncompleteCallException,
    errors.PoolClosedException,
    errors.PoolTimeoutException,
    errors.TemplateException,
    errors.TimeoutException,
}


def test_every_error_says_what_happened_to_what_and_what_to_do() -> None:
    assert set(CLASSES) == {*ADVICE, *ELSEWHERE}
    for kind, (error, advice) in ADVICE.items():
        assert type(error) is kind
        assert advice in str(error)
        assert "sandbox isandbox" in str(error)
        assert f"{error.method} {error.path}" in str(error)


def test_a_call_that_reached_nobody_says_that_it_is_safe_to_repeat() -> None:
    failure = Failure("refused", reason="connect", sent=False)
    assert "nothing was sent" in str(control_plane_error(failure, FOUND))


def test_retry_after_is_carried() -> None:
    error = control_plane_error(answer(429, retry_after="7"), CALL)
    assert isinstance(error, errors.RateLimitException)
    assert error.retry_after == 7.0
    assert errors.RateLimitException("x").retry_after is None
    assert "try again in 7 s" in str(error)


@pytest.mark.parametrize(
    ("failure", "doubt"),
    [
        (answer(504), True),
        (answer(500), True),
        (answer(429), False),
        (answer(404), False),
        (Failure("", reason="connect", sent=False), False),
        (Failure("", reason="broken"), True),
        (RpcFailure("", code="not_found", reason="answer"), False),
        (RpcFailure("", code="internal", reason="answer"), True),
    ],
)
def test_whether_a_failed_call_may_have_been_executed_is_said(failure: Failure, doubt: bool) -> None:
    error = (
        rpc_error(failure, CALL) if isinstance(failure, RpcFailure) else control_plane_error(failure, CALL)
    )
    assert error.maybe_executed is doubt


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (404, b'{"code":"not_found","message":"no such pid"}', "not_found", "no such pid"),
        (401, b'{"code":401,"message":"unauthorized access"}', "unauthenticated", "unauthorized access"),
        (502, b'{"sandboxId":"i","message":"The sandbox was not found","code":502}', "unavailable", None),
        (429, b'{"code":429,"message":"slow"}', "resource_exhausted", "slow"),
        (400, b'{"code":400,"message":"missing header"}', "invalid_argument", "missing header"),
        (403, b'{"code":403,"message":"token"}', "permission_denied", "token"),
        (404, b'{"code":404,"path":"/x","message":"no"}', "not_found", "no"),
        (409, b'{"code":409,"message":"still transitioning"}', "aborted", "still transitioning"),
        (409, b'{"code":"already_exists","message":"there"}', "already_exists", "there"),
        (413, b"too large", "resource_exhausted", "too large"),
        (499, b"", "canceled", None),
        (501, b"", "unimplemented", None),
        (503, b"no healthy upstream", "unavailable", "no healthy upstream"),
        (200, b'{"code":502,"message":"odd"}', "unavailable", "odd"),
        (302, b"<a href=x>", "unknown", None),
        (505, b"", "unimplemented", None),
        (504, b"gateway timeout", "deadline_exceeded", "gateway timeout"),
        (418, b"<h1>tea</h1>", "unknown", None),
        (500, b'{"code":"no_such_code","message":"x"}', "internal", "x"),
        (500, b'{"code":{},"message":[]}', "internal", None),
    ],
)
def test_rpc_failures_are_read_from_servers_and_proxies(
    status: int, body: bytes, code: str, message: str | None
) -> None:
    failure = RpcFailure.from_answer(status, {"Retry-After": "1"}, body)
    assert (failure.code, failure.status, failure.headers) == (code, status, {"retry-after": "1"})
    if message is not None:
        assert failure.message == message
    assert "<" not in failure.message
