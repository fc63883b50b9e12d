"""Handles of commands and terminals that run in the background."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sandbox_sync_rpc import process_pb2

from sandbox_sync._arguments import message
from sandbox_sync.ambient import by, cleaning_up, exceeded
from sandbox_sync.background import start_thread
from sandbox_sync.deadlines import Deadline, seconds
from sandbox_sync.errors import (
    CommandExitException,
    CommandTimeoutException,
    ConnectionException,
    InvalidArgumentException,
    SandboxException,
)
from sandbox_sync.models.commands import CommandResult
from sandbox_sync.processes import selector
from sandbox_sync.transcript import Piece, Transcript

if TYPE_CHECKING:
    from typing_extensions import Self

    from sandbox_sync.transport.envd import EnvdConnection
    from sandbox_sync.transport.streams import RpcStream

H = TypeVar("H", bound="CommandHandle")

RETAINED_BYTES = 64 << 20
"""How much of the output of a command in the background is kept."""

WINDOW_BYTES = 1 << 20
"""How much is kept of output that is not to be retained: what an iteration may lag behind."""

# How long the news of an end may take that has happened already.
_NEWS_SECONDS = 1.0


class Controls(Protocol):
    """What acts on commands by their process id: `sandbox.commands` and `sandbox.pty`."""

    @property
    def sandbox_id(self) -> str:
        """Id of the sandbox."""

    def kill(self, pid: int, request_timeout: float | None = None) -> bool:
        """Kill a command; False if none of that id runs."""

    def send_stdin(self, pid: int, data: str | bytes, request_timeout: float | None = None) -> None:
        """Write to a command's standard input."""

    def stream_input(self, pid: int, data: Iterable[str | bytes], *, timeout: float | None = 60) -> None:
        """Write what an iterable yields to a command's standard input."""

    def close_stdin(self, pid: int, request_timeout: float | None = None) -> None:
        """Let a command read the end of its standard input."""


def deliver_to(
    on_stdout: Callable[[str], Any] | None,
    on_stderr: Callable[[str], Any] | None,
    on_pty: Callable[[bytes], Any] | None = None,
) -> Callable[[Piece], None] | None:
    """What hands each piece of output to the function that wants it; None if none was given."""
    if on_stdout is None and on_stderr is None and on_pty is None:
        return None

    def deliver(piece: Piece) -> None:
        stdout, stderr, pty = piece
        if stdout is not None and on_stdout is not None:
            on_stdout(stdout)
        elif stderr is not None and on_stderr is not None:
            on_stderr(stderr)
        elif pty is not None and on_pty is not None:
            on_pty(pty)

    return deliver


def background_transcript(
    retain_output: bool, deliver: Callable[[Piece], None] | None, pid: int | None = None
) -> Transcript:
    """What keeps the output of a command that is followed in the background."""
    to_iterate = not retain_output and deliver is None
    return Transcript(RETAINED_BYTES if retain_output else WINDOW_BYTES, pid, to_iterate=to_iterate)


def result_of(transcript: Transcript, check: bool, sandbox_id: str) -> CommandResult:
    """The result of a command that ended.

    Raises:
        CommandExitException: It did not end with exit code 0, and `check` is set.
    """
    end = transcript.end
    assert end is not None
    result = CommandResult(
        stderr=transcript.text("stderr"),
        stdout=transcript.text("stdout"),
        exit_code=end.exit_code,
        error=end.error or None,
        truncated=transcript.truncated,
    )
    if check and result.exit_code != 0:
        raise CommandExitException(
            stdout=result.stdout,
            stderr=result.stderr,
            exit_code=result.exit_code,
            error=result.error,
            sandbox_id=sandbox_id,
        )
    return result


class CommandHandle:
    """A command in the background: what `commands.run(..., background=True)` and `commands.connect()` return.

    A thread of its own reads the command's output all the time, so the command never stalls for want of a
    reader. Everything here may be used from any thread, at the same time and in any order.

    What is kept of the output is bounded: the newest 64 MiB. With `retain_output=False` it is 1 MiB, and the
    output is there to be iterated over: unless there are callbacks, the command is held up until an iteration
    takes it, or `wait` is called, or 30 seconds have passed.

    Callbacks are called in that thread, one at a time and in order. They may use the sandbox and the handle,
    but not wait for their own command. The first error of one ends the callbacks, is raised by `wait`, and
    touches nothing else.

    Leaving a `with` block kills the command if the handle came from `run`, and disconnects from it if it came
    from `connect`. A handle that is dropped without callbacks disconnects; the command runs on. Neither has
    an effect in a forked child, which can only `kill` the command or follow it anew.
    """

    def __init__(
        self,
        controls: Controls,
        stream: RpcStream[Any],
        transcript: Transcript,
        deliver: Callable[[Piece], None] | None,
        *,
        check: bool,
        owner: bool,
        stdin: bool | None,
        logger: logging.Logger,
    ) -> None:
        self._controls = controls
        self._stream = stream
        self._transcript = transcript
        self._check = check
        self._owner = owner
        self._stdin = stdin
        self._logger = logger
        # The reader must not hold on to the handle, or a handle that is dropped would never go.
        start_thread("sandbox-sync-command", _read, stream, transcript, deliver)
        if deliver is None:
            words = "The handle was dropped before the command ended"
            weakref.finalize(self, _let_go, stream, transcript, words).atexit = False

    @property
    def pid(self) -> int:
        """Process id of the command in its sandbox.

        Specified in: CommandHandle, pid
        """
        pid = self._transcript.pid
        assert pid is not None
        return pid

    @property
    def stdout(self) -> str:
        """The command's standard output so far.

        Specified in: CommandHandle, stdout
        """
        return self._transcript.text("stdout")

    @property
    def stderr(self) -> str:
        """The command's standard error so far.

        Specified in: CommandHandle, stderr
        """
        return self._transcript.text("stderr")

    @property
    def stdout_bytes(self) -> bytes:
        """The command's standard output so far, as it came."""
        return self._transcript.data("stdout")

    @property
    def stderr_bytes(self) -> bytes:
        """The command's standard error so far, as it came."""
        return self._transcript.data("stderr")

    @property
    def pty_bytes(self) -> bytes:
        """What a terminal has shown so far, as it came."""
        return self._transcript.data("pty")

    @property
    def error(self) -> str | None:
        """The server's words for an end other than success; None while the command runs.

        Specified in: CommandHandle, error
        """
        end = self._transcript.end
        return (end.error or None) if end is not None else None

    @property
    def exit_code(self) -> int | None:
        """The command's exit code, -1 when a signal ended it; None while it runs.

        Specified in: CommandHandle, exit_code
        """
        end = self._transcript.end
        return end.exit_code if end is not None else None

    def poll(self) -> int | None:
        """The command's exit code if it has ended, else None; as `subprocess.Popen.poll`.

        Raises:
            SandboxException: The connection to the command has ended, so that its end will not be seen.
        """
        self._transcript.check()
        return self.exit_code

    def wait(
        self,
        timeout: float | None = None,
        *,
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        on_pty: Callable[[bytes], Any] | None = None,
    ) -> CommandResult:
        """Wait for the command to end.

        Args:
            timeout: Seconds to wait at most; None or 0 for no limit. The command is not touched when they
                are up.
            on_stdout: Called with standard output, from the oldest that is kept, in this thread.
            on_stderr: The same for standard error.
            on_pty: The same for the output of a terminal.

        Returns:
            How the command ended and what it wrote.

        Raises:
            CommandExitException: It ended with an exit code other than 0, unless it was run with
                `check=False`.
            TimeoutException: It still runs after `timeout` seconds, or its connection's own timeout was up.
            SandboxException: The connection to the command has ended, so that its end will not be seen; or
                this was called in a callback of the command itself, and would wait for ever.
            Exception: What a callback given to `run` or `connect` raised; once, whether the command has ended
                or not.

        Specified in: CommandHandle, wait
        """
        deadline = by(seconds(timeout, "timeout"))
        deliver = deliver_to(on_stdout, on_stderr, on_pty)
        if deliver is not None:
            for piece in self._transcript.pieces(deadline):
                deliver(piece)
        if not self._transcript.wait(deadline):
            # Were the error a variable here, it and this frame would keep a handle alive that is dropped.
            raise self._still_running(timeout or 0, deadline)
        self._transcript.check()
        return result_of(self._transcript, self._check, self._controls.sandbox_id)

    def __iter__(self) -> Iterator[Piece]:
        """The output as it arrives, from the oldest kept, as (stdout, stderr, pty) of which one is set.

        The command is held up for an iteration that lags far behind; not for one that stands still then for
        30 seconds.

        Raises:
            SandboxException: The connection has ended before the command, or the iteration stood still and
                output was dropped.
        """
        deadline = by(None)
        yield from self._transcript.pieces(deadline)
        if deadline.expired:
            raise self._still_running(0, deadline)
        self._transcript.check()

    def send_stdin(self, data: str | bytes, request_timeout: float | None = None) -> None:
        """Write to the command's standard input.

        Args:
            data: What to write; text as UTF-8.
            request_timeout: Timeout for the request in seconds.

        Raises:
            InvalidArgumentException: The command was run without `stdin=True`.
            NotFoundException: The command has ended.
        """
        self._require_stdin()
        self._controls.send_stdin(self.pid, data, request_timeout)

    def stream_input(self, data: Iterable[str | bytes], *, timeout: float | None = 60) -> None:
        """Write what an iterable yields to the command's standard input; see `Commands.stream_input`.

        Args:
            data: Yields what to write; text as UTF-8.
            timeout: Seconds that all of it may take; 0 or None for no limit.

        Raises:
            InvalidArgumentException: The command was run without `stdin=True`; or `data` is itself str or
                bytes, or yields something else.
            NotFoundException: The command has ended.
            TimeoutException: `timeout` was up; some of it may have been written.
            SandboxException: The call failed.
            Exception: What the iterable raised.
        """
        self._require_stdin()
        self._controls.stream_input(self.pid, data, timeout=timeout)

    def close_stdin(self, request_timeout: float | None = None) -> None:
        """Close the command's standard input, so that it reads the end of it.

        Args:
            request_timeout: Timeout for the request in seconds.

        Raises:
            InvalidArgumentException: The command was run without `stdin=True`.
            NotFoundException: The command has ended.
        """
        self._require_stdin()
        self._controls.close_stdin(self.pid, request_timeout)

    def kill(self, request_timeout: float | None = None) -> bool:
        """Kill the command with SIGKILL.

        Args:
            request_timeout: Timeout for the request in seconds.

        Returns:
            True if it was killed, False if it had ended before.

        Raises:
            SandboxException: The request failed.

        Specified in: CommandHandle, kill
        """
        return self._controls.kill(self.pid, request_timeout)

    def disconnect(self) -> None:
        """Stop following the command, which runs on; `commands.connect(pid)` follows it again.

        Specified in: CommandHandle, disconnect
        """
        _let_go(
            self._stream,
            self._transcript,
            f"Disconnected from command {self.pid} before it ended; "
            f"commands.connect({self.pid}) follows it again",
            self._controls.sandbox_id,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._transcript.is_inherited:
            return
        end = "disconnected from"
        try:
            if self._owner and not self._transcript.settled:
                with cleaning_up():
                    killed = self.kill()
                if killed:
                    end = "killed"
                else:  # it has ended, and the news of that is on its way
                    self._transcript.wait_for_end(Deadline.after(_NEWS_SECONDS))
        except SandboxException as failure:
            if error is None:
                raise
            self._logger.warning("command %s was not killed: %s", self.pid, failure)
        finally:
            words = f"Command {self.pid} was {end} when its `with` block was left"
            _let_go(self._stream, self._transcript, words, self._controls.sandbox_id)

    def __repr__(self) -> str:
        end = self._transcript.end
        state = "running" if end is None else f"exit code {end.exit_code}"
        if end is None and self._transcript.failure is not None:
            state = "disconnected"
        return f"<{type(self).__name__} pid {self._transcript.pid}, {state}>"

    def _still_running(self, timeout: float, deadline: Deadline) -> BaseException:
        if deadline.block is not None:
            state = f"Command {self.pid} still runs"
            return self._transcript.explain(exceeded(deadline.block, state, self._controls.sandbox_id))
        error = CommandTimeoutException(
            f"Command {self.pid} still runs after the {timeout:g} s of wait(timeout={timeout:g})",
            sandbox_id=self._controls.sandbox_id,
        )
        error.limit = timeout
        return self._transcript.explain(error)

    def _require_stdin(self) -> None:
        if self._stdin is False:
            raise InvalidArgumentException(
                f"Command {self.pid} has no standard input; start it with commands.run(..., stdin=True)"
            )


def follow_running(
    kind: type[H],
    controls: Controls,
    envd: EnvdConnection,
    pid: int,
    deliver: Callable[[Piece], None] | None,
    timeout: float | None,
    request_timeout: float | None,
    *,
    check: bool,
    retain_output: bool,
    stdin: bool | None,
) -> H:
    """The handle, of this kind, of a command that runs already and that others may follow as well.

    Raises:
        NotFoundException: No command of that id runs.
        SandboxException: The sandbox is gone, or the connection broke.
    """
    stream = envd.stream(
        envd.process.Connect,
        message(process_pb2.ConnectRequest, process=selector(pid)),
        timeout=seconds(timeout, "timeout"),
        tell_server=False,
        request_timeout=request_timeout,
    )
    transcript = background_transcript(retain_output, deliver, pid)
    log = envd.config.log
    try:
        return kind(controls, stream, transcript, deliver, check=check, owner=False, stdin=stdin, logger=log)
    except BaseException:
        stream.cancel()
        raise


def _let_go(
    stream: RpcStream[Any], transcript: Transcript, words: str, sandbox_id: str | None = None
) -> None:
    """Stop following a command. Whoever waits for it is told so; a reader that it holds up goes on."""
    if not transcript.is_inherited:  # in a forked child the lock may be held for ever
        transcript.fail(ConnectionException(words, sandbox_id=sandbox_id))
    stream.cancel()


def _read(stream: RpcStream[Any], transcript: Transcript, deliver: Callable[[Piece], None] | None) -> None:
    """Follow a command to its end, whatever its callbacks do: their first error ends them and is kept."""

    def deliver_until_it_fails(piece: Piece) -> None:
        nonlocal deliver
        if deliver is not None:
            try:
                deliver(piece)
            except BaseException as error:  # noqa: BLE001 - it is the caller's, who gets it
                deliver = None
                transcript.interrupt(error)

    transcript.written_here()
    try:
        transcript.follow(stream, deliver_until_it_fails if deliver is not None else None)
    except CommandTimeoutException as error:
        words = f"{error.message} The command runs on; commands.connect({transcript.pid}) follows it again."
        error.args = (words,)
        transcript.fail(error)
    except BaseException as error:  # noqa: BLE001 - whoever waits has to know
        transcript.fail(error)
