"""Starting commands and terminals, so that none is left behind whose caller did not get hold of it."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sandbox_sync import processes
from sandbox_sync.ambient import exceeded
from sandbox_sync.deadlines import Deadline, seconds
from sandbox_sync.errors import (
    CommandTimeoutException,
    DeadlineExceededException,
    IncompleteCallException,
    RequestTimeoutException,
    SandboxException,
    SandboxNotRunningException,
)
from sandbox_sync.transport import threads

if TYPE_CHECKING:
    from sandbox_sync_rpc import process_pb2
    from typing_extensions import Self

    from sandbox_sync.transcript import Transcript
    from sandbox_sync.transport.envd import EnvdConnection
    from sandbox_sync.transport.streams import RpcStream

TAG = "sandbox-sync-"
"""Begins the tags by which commands are found that have not told their id yet."""

# What says how long a command may take, and so ends it; other errors interrupt the call.
_TIMEOUTS = (CommandTimeoutException, DeadlineExceededException, RequestTimeoutException)

_KILL_SECONDS = 5.0
_KILL_GRACE = 0.05  # what ends the call is not to be held up for longer
_FIND_SECONDS = 2.0
_LOOKS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # pauses before looking for one that may be about to start


class Start:
    """A command that is being started. An error that leaves the `with` block ends the command, too.

    Args:
        envd: The way to its sandbox.
        request: What to start; it is given a tag.
        transcript: What is known of it.
        kill_on_interrupt: Whether other errors than timeouts end it as well.
    """

    def __init__(
        self,
        envd: EnvdConnection,
        request: process_pb2.StartRequest,
        transcript: Transcript,
        *,
        kill_on_interrupt: bool = True,
    ) -> None:
        self._envd = envd
        self._request = request
        self._transcript = transcript
        self._kill_on_interrupt = kill_on_interrupt
        self._stream: RpcStream[Any] | None = None
        request.tag = TAG + os.urandom(8).hex()

    def follow(
        self, user: str | None, timeout: float | None, request_timeout: float | None, *, tell_server: bool
    ) -> RpcStream[process_pb2.StartResponse]:
        """Start it; for the arguments see `EnvdConnection.stream`.

        Raises:
            SandboxException: It was not started, as far as is known.
        """
        self._stream = stream = self._envd.stream(
            self._envd.process.Start,
            self._request,
            user=user,
            timeout=seconds(timeout, "timeout"),
            tell_server=tell_server,
            request_timeout=request_timeout,
            request_id=self._request.tag,
        )
        for message in stream.first:  # so that who starts it need not wait for the thread that will follow it
            self._transcript.begin(message.event)
        return stream

    def wait_for_pid(self, deadline: Deadline) -> None:
        """Wait until it is known by its process id.

        Raises:
            RequestTimeoutException: That was not told in time.
            SandboxException: The connection broke.
        """
        if self._transcript.wait_for_pid(deadline) is None:
            if self._transcript.failure is None and deadline.block is not None:
                state = "The command was not reported to have started"
                raise exceeded(deadline.block, state, self._envd.sandbox_id)
            raise self._transcript.failure or RequestTimeoutException(
                "The command was not reported to have started within request_timeout",
                sandbox_id=self._envd.sandbox_id,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or self._transcript.is_inherited:  # by a child that a callback has forked
            return
        if self._stream is not None:
            self._stream.cancel()
            self._transcript.explain(error)
        elif isinstance(error, SandboxException) and not error.maybe_executed:
            return
        if not self._kill_on_interrupt and not isinstance(error, _TIMEOUTS):
            return
        gone = isinstance(error, IncompleteCallException) and error.sandbox_state == "gone"
        if self._transcript.end is None and not gone:
            threads.aside("sandbox-sync-kill", self._kill, _KILL_GRACE, daemon=False)

    def _kill(self) -> None:
        known = self._transcript.pid
        try:
            pid = self._found() if known is None else known
            if pid is not None:
                processes.kill(self._envd, pid, _KILL_SECONDS)
        except SandboxNotRunningException:
            pass  # it has ended with its sandbox
        except SandboxException as error:
            name = "a command" if known is None else f"command {known}"
            log = self._envd.config.log
            log.warning("%s of sandbox %s was not killed: %s", name, self._envd.sandbox_id, error)

    def _found(self) -> int | None:
        """The process id of a command that runs, or is about to; None if it does not appear."""
        for pause in _LOOKS:
            time.sleep(pause)
            # Real servers look commands up by tag unreliably; their list is right.
            for process in processes.running(self._envd, _FIND_SECONDS):
                if process.tag == self._request.tag:
                    return process.pid
        return None
