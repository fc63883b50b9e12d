"""The errors of the SDK. Every error it raises is one of these:

    SandboxException
    ├── AuthenticationException          key or token missing, wrong, or not allowed to do this
    ├── InvalidArgumentException         an argument was refused, by the SDK or by the server
    ├── NotFoundException                what was named does not exist
    │   ├── FileNotFoundException            a file or directory in the sandbox
    │   └── SandboxNotFoundException         a sandbox
    ├── ConflictException                the sandbox is in a state that does not allow this now
    │   └── GuestUnresponsiveException       its own agent does not answer
    ├── NotEnoughSpaceException          the sandbox's disk is full
    ├── RateLimitException               too many calls; `retry_after` says when to come back
    ├── ServiceBusyException             the service has no capacity now
    ├── TemplateException                a template cannot be used
    ├── CommandExitException             a command ended with an exit code other than zero
    ├── EventsLostException              more happened in a watched directory than could be kept
    ├── ForkedWithActiveStreamException  neither gRPC nor Connect can be used in this forked process
    ├── PoolClosedException              the pool was closed
    └── IncompleteCallException          the call began and its end was not seen
        ├── TimeoutException                 a clock ran out; `clock` says which
        │   ├── RequestTimeoutException          `request_timeout`: one call of the SDK
        │   ├── CommandTimeoutException          `timeout`: the run time of a command, terminal or watch
        │   ├── DeadlineExceededException        `with deadline(...)`: the block that the call was made in
        │   ├── PoolTimeoutException             no sandbox of the pool was free in time
        │   ├── SandboxNotRunningException       the sandbox is gone: its lifetime ended, or it was killed
        │   └── SandboxUnreachableException      nothing was heard from the sandbox
        │       └── PortNotOpenException             it runs, and nothing in it listens on that port
        └── ConnectionException              the connection failed or broke
            └── TLSException                     its certificate or encryption was refused

They carry what is known of the failed call as attributes, and pickle, so that workers can hand them on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sandbox_sync.models.pools import PoolStats

Clock = Literal["sandbox lifetime", "timeout", "request_timeout", "deadline", "silence", "pool"]
"""What ran out: the sandbox's lifetime, the run time of a command (`timeout`), the time of one call
(`request_timeout`), the block that the call was made in (`deadline`), the longest silence that a healthy
connection can have, or the wait for a sandbox of a pool."""

_LONGEST_QUOTE = 2048

SandboxState = Literal["alive", "gone", "unknown"]
"""What is known of a sandbox after a failure. "gone" is said only when the service said so."""


class SandboxException(Exception):
    """The root of all errors of the SDK.

    Args:
        message: What happened, and what to do about it.
        status: HTTP status of the answer, where there was one.
        code: The service's own word for the error, for example "not_found".
        request_id: The service's name for the request, to give to its operators.
        sandbox_id: The sandbox that the call was for.
        method: HTTP method of the call.
        path: Path of the call, for example "/process.Process/Start".
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        sandbox_id: str | None = None,
        method: str | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.sandbox_id = sandbox_id
        self.method = method
        self.path = path
        self.maybe_executed = False
        """Whether the call, or an earlier attempt of it, may have taken effect although it failed."""
        self.retry_after: float | None = None
        """Seconds after which the service asked to be called again, if it said so."""

    @property
    def message(self) -> str:
        """What happened, without the particulars of the call that `str()` adds."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        particulars = [
            self.sandbox_id and f"sandbox {self.sandbox_id}",
            self.path and f"{self.method or 'POST'} {self.path}",
            self.status and f"HTTP {self.status}",
            self.request_id and f"request id {self.request_id}",
        ]
        known = ", ".join(part for part in particulars if part)
        return f"{self.message} [{known}]" if known else self.message


class AuthenticationException(SandboxException):
    """The API key or access token is missing, wrong, or not allowed to do this."""


class InvalidArgumentException(SandboxException):
    """An argument was refused, by the SDK before anything was sent or by the server."""


class NotFoundException(SandboxException):
    """What the call named does not exist."""


class FileNotFoundException(NotFoundException):
    """A file or directory does not exist in the sandbox."""


class SandboxNotFoundException(NotFoundException):
    """The sandbox does not exist, or not any more.

    When `maybe_executed` is set, an earlier attempt of the call got no clear answer: a kill may have worked.
    """


class ConflictException(SandboxException):
    """The sandbox is in a state that does not allow this now, for example already paused."""


class GuestUnresponsiveException(ConflictException):
    """The agent inside the sandbox does not answer, so its state cannot be kept."""


class NotEnoughSpaceException(SandboxException):
    """The sandbox's disk is full."""


class RateLimitException(SandboxException):
    """Too many calls, or more sandboxes than the account allows."""


class ServiceBusyException(SandboxException):
    """The service has no capacity for this now."""


class TemplateException(SandboxException):
    """The template cannot be used: unknown, broken, or too old for what was asked."""


class CommandExitException(SandboxException):
    """A command ended with an exit code other than zero.

    Args:
        message: What happened; made from the other arguments when left out.
        stdout: All of the command's standard output.
        stderr: All of the command's standard error.
        exit_code: Its exit code; -1 when a signal ended it.
        error: The server's words for the end, for example "signal: killed".
        sandbox_id: The sandbox it ran in.
    """

    def __init__(
        self,
        message: str = "",
        *,
        stdout: str = "",
        stderr: str = "",
        exit_code: int = -1,
        error: str | None = None,
        sandbox_id: str | None = None,
    ) -> None:
        if not message:
            message = f"Command ended with exit code {exit_code}{f' ({error})' if error else ''}"
            if stderr:
                message += f":\n{stderr[-_LONGEST_QUOTE:]}"
        super().__init__(message, sandbox_id=sandbox_id)
        self.stdout = stdout
        self.stderr = stderr
        self.exit_code = exit_code
        self.error = error


class EventsLostException(SandboxException):
    """More happened in a watched directory than could be kept, so that some of it will never be told."""


class ForkedWithActiveStreamException(SandboxException):
    """A forked process cannot use gRPC, and the server does not speak Connect, which would take its place.

    So it is in a process that was forked while its parent had a call over gRPC in progress. Fork before the
    first call over gRPC or while none is in progress, or start processes with multiprocessing's "spawn" or
    "forkserver".
    """


class PoolClosedException(SandboxException):
    """The pool was closed, so it hands out no more sandboxes."""


class IncompleteCallException(SandboxException):
    """A call began and its end was not seen.

    Attributes:
        sandbox_state: What is known of the sandbox now.
        pid: The command that the call was about, if it had one.
        stdout: The command's standard output received until then, if it had any to receive.
        stderr: The same of its standard error.
    """

    sandbox_state: SandboxState = "unknown"
    pid: int | None = None
    stdout: str | None = None
    stderr: str | None = None


class TimeoutException(IncompleteCallException):
    """A clock ran out.

    Attributes:
        clock: Which one.
        limit: What it was set to, in seconds, if that is known.
    """

    clock: Clock = "request_timeout"
    limit: float | None = None


class RequestTimeoutException(TimeoutException):
    """The call took longer than `request_timeout`, retries included."""


class CommandTimeoutException(TimeoutException):
    """The command, terminal or watch ran longer than its `timeout`."""

    clock: Clock = "timeout"


class DeadlineExceededException(TimeoutException):
    """The time of the `with deadline(...)` block was up that the call or the wait was made in."""

    clock: Clock = "deadline"


class PoolTimeoutException(TimeoutException):
    """No sandbox of the pool was free in time.

    Attributes:
        stats: How many the pool had then, and what they were doing.
    """

    clock: Clock = "pool"
    stats: PoolStats | None = None


class SandboxNotRunningException(TimeoutException):
    """The service says that the sandbox is not there: its lifetime ended, or it was killed or paused."""

    clock: Clock = "sandbox lifetime"
    sandbox_state: SandboxState = "gone"


class SandboxUnreachableException(TimeoutException):
    """No way led to the sandbox, or it was silent for longer than a healthy connection ever is."""

    clock: Clock = "silence"


class PortNotOpenException(SandboxUnreachableException):
    """The sandbox runs, and nothing in it listens on the port asked for."""

    sandbox_state: SandboxState = "alive"


class ConnectionException(IncompleteCallException):
    """The connection could not be made, or it broke before the answer was complete."""


class TLSException(ConnectionException):
    """The certificate or the encryption of the connection was refused."""
