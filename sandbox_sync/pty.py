"""Terminals in a sandbox: `sandbox.pty`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sandbox_sync_rpc import process_pb2

from sandbox_sync import processes
from sandbox_sync._arguments import message, path_text
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.handles import CommandHandle, background_transcript, deliver_to, follow_running
from sandbox_sync.input import send_input, stream_input
from sandbox_sync.models.commands import PtySize
from sandbox_sync.processes import selector
from sandbox_sync.starts import Start

if TYPE_CHECKING:
    from sandbox_sync.transport.envd import EnvdConnection

_ENVIRONMENT = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
_END_OF_INPUT = b"\x04"  # what Ctrl-D sends: a terminal cannot be closed from one side
_MOST = 0xFFFF  # the kernel keeps 16 bits of each dimension


class PtyHandle(CommandHandle):
    """A terminal: what `pty.create()` and `pty.connect()` return.

    It is a `CommandHandle` of a shell. Its output is `pty_bytes`, and the third of each piece when iterating.
    """

    _controls: Pty

    def resize(self, size: PtySize, request_timeout: float | None = None) -> None:
        """Tell the terminal that its window has another size now; see `Pty.resize`.

        Args:
            size: The new size.
            request_timeout: Timeout for the request in seconds.

        Raises:
            NotFoundException: The shell has ended.
            SandboxException: The request failed.
        """
        self._controls.resize(self.pid, size, request_timeout)

    def close_stdin(self, request_timeout: float | None = None) -> None:
        """Send what Ctrl-D sends: a shell or program that reads from an empty line takes it as the end.

        Args:
            request_timeout: Timeout for the request in seconds.

        Raises:
            NotFoundException: The shell has ended.
            SandboxException: The request failed.
        """
        super().close_stdin(request_timeout)


class Pty:
    """Terminals (pseudo-terminals) in a sandbox, for programs that talk to people. Used as `sandbox.pty`."""

    def __init__(self, envd: EnvdConnection) -> None:
        self._envd = envd

    def create(
        self,
        size: PtySize,
        on_data: Callable[[bytes], Any] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        envs: Mapping[str, str] | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        check: bool = True,
        retain_output: bool = True,
    ) -> PtyHandle:
        """Start a terminal with a login shell (bash) in it.

        Whatever keeps the call from returning a handle ends the shell, too; for that it has a tag of its own,
        which other clients see when they list commands.

        Args:
            size: Size of the terminal in characters.
            on_data: Called with what the terminal shows as it arrives, in a thread of the handle's that has
                the caller's context variables.
            user: User to run the shell as; the template's default user when left out.
            cwd: Directory to start it in; the user's home when left out.
            envs: Environment variables of the shell, beside the sandbox's own. TERM is "xterm-256color", and
                LANG and LC_ALL are "C.UTF-8", unless they are given here.
            timeout: Seconds after which the handle stops following the terminal, which runs on; 0 or None for
                no limit.
            request_timeout: Timeout for starting the shell in seconds.
            check: Have the handle's `wait()` raise for an exit code other than 0.
            retain_output: Keep the newest 64 MiB of the output; else the newest 1 MiB.

        Returns:
            The handle of the terminal.

        Raises:
            InvalidArgumentException: The directory does not exist, or an argument cannot be sent.
            AuthenticationException: The sandbox has no such user.
            TimeoutException: `request_timeout` was up.
            SandboxException: The sandbox is gone, or the connection broke.

        Specified in: Pty, create
        """
        config = message(
            process_pb2.ProcessConfig,
            cmd="/bin/bash",
            args=["-i", "-l"],
            envs=_environment(envs),
            cwd=path_text(cwd) if cwd else None,
        )
        request = message(process_pb2.StartRequest, process=config, pty=_pty(size))
        deadline = self._envd.config.deadline(request_timeout)
        deliver = deliver_to(None, None, on_data)
        transcript = background_transcript(retain_output, deliver)
        log = self._envd.config.log
        with Start(self._envd, request, transcript) as start:
            stream = start.follow(user, timeout, request_timeout, tell_server=False)
            handle = PtyHandle(
                self, stream, transcript, deliver, check=check, owner=True, stdin=True, logger=log
            )
            start.wait_for_pid(deadline)
            return handle

    def connect(
        self,
        pid: int,
        on_data: Callable[[bytes], Any] | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        check: bool = True,
        retain_output: bool = True,
    ) -> PtyHandle:
        """Follow a terminal that runs. What it showed before is not repeated.

        Args:
            pid: Process id of the terminal, as in `commands.list()`.
            on_data: As for `create`.
            timeout: As for `create`.
            request_timeout: Timeout for connecting in seconds.
            check: As for `create`.
            retain_output: As for `create`.

        Returns:
            The handle of the terminal.

        Raises:
            NotFoundException: No terminal of that id runs.
            SandboxException: The sandbox is gone, or the connection broke.
        """
        return follow_running(
            PtyHandle,
            self,
            self._envd,
            pid,
            deliver_to(None, None, on_data),
            timeout,
            request_timeout,
            check=check,
            retain_output=retain_output,
            stdin=True,
        )

    def send_stdin(self, pid: int, data: str | bytes, request_timeout: float | None = None) -> None:
        r"""Type into a terminal.

        Args:
            pid: Process id of the terminal.
            data: What to type; text as UTF-8. Enter is "\n" or "\r", Ctrl-C is "\x03", Ctrl-D is "\x04".
            request_timeout: Timeout for the request in seconds.

        Raises:
            NotFoundException: No terminal of that id runs.
            SandboxException: It is no terminal, or the request failed.

        Specified in: Pty, send_stdin
        """
        send_input(self._envd, pid, "pty", data, request_timeout)

    def stream_input(self, pid: int, data: Iterable[str | bytes], *, timeout: float | None = 60) -> None:
        """Type into a terminal what an iterable yields, as it yields it, in one call.

        Args:
            pid: Process id of the terminal.
            data: Yields what to type.
            timeout: Seconds that all of it may take; 0 or None for no limit.

        Raises:
            InvalidArgumentException: The data is no iterable, or a single piece.
            NotFoundException: No terminal of that id runs.
            CommandTimeoutException: `timeout` was up.
            SandboxException: It is no terminal, or the call failed.
            Exception: What the iterable raised.
        """
        stream_input(self._envd, pid, "pty", data, timeout)

    def close_stdin(self, pid: int, request_timeout: float | None = None) -> None:
        """Send what Ctrl-D sends: a shell or program that reads from an empty line takes it as the end.

        Args:
            pid: Process id of the terminal.
            request_timeout: Timeout for the request in seconds.

        Raises:
            NotFoundException: No terminal of that id runs.
            SandboxException: It is no terminal, or the request failed.
        """
        self.send_stdin(pid, _END_OF_INPUT, request_timeout)

    def resize(self, pid: int, size: PtySize, request_timeout: float | None = None) -> None:
        """Tell a terminal that its window has another size now; the programs in it are signalled.

        Args:
            pid: Process id of the terminal.
            size: The new size.
            request_timeout: Timeout for the request in seconds.

        Raises:
            InvalidArgumentException: That can be no size.
            NotFoundException: No terminal of that id runs.
            SandboxException: It is no terminal, or the request failed.

        Specified in: Pty, resize
        """
        request = message(process_pb2.UpdateRequest, process=selector(pid), pty=_pty(size))
        self._envd.unary(self._envd.process.Update, request, request_timeout=request_timeout)

    def kill(self, pid: int, request_timeout: float | None = None) -> bool:
        """Kill a terminal's shell with SIGKILL.

        Args:
            pid: Process id of the terminal.
            request_timeout: Timeout for the request in seconds.

        Returns:
            True if it was killed, False if no terminal of that id runs.

        Raises:
            SandboxException: The request failed.

        Specified in: Pty, kill
        """
        return processes.kill(self._envd, pid, request_timeout)

    @property
    def sandbox_id(self) -> str:
        """Id of the sandbox."""
        return self._envd.sandbox_id


def _environment(envs: Mapping[str, str] | None) -> dict[str, str]:
    if envs is not None and not isinstance(envs, Mapping):
        raise InvalidArgumentException(
            f"envs has to be a mapping of names to values; got {type(envs).__name__}"
        )
    return {**_ENVIRONMENT, **(envs or {})}


def _pty(size: PtySize) -> process_pb2.PTY:
    for name in ("rows", "cols"):
        if not hasattr(size, name):
            raise InvalidArgumentException(f"size has to be a PtySize; got {type(size).__name__}")
        count = getattr(size, name)
        if not isinstance(count, int) or not 0 < count <= _MOST:
            raise InvalidArgumentException(
                f"{name} of a terminal has to be between 1 and {_MOST}; got {count!r}"
            )
    return process_pb2.PTY(size=process_pb2.PTY.Size(cols=size.cols, rows=size.rows))
