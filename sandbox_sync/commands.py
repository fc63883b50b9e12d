"""Commands in a sandbox: `sandbox.commands`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from sandbox_sync_rpc import process_pb2

from sandbox_sync import processes
from sandbox_sync._arguments import message, path_text
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.handles import (
    WINDOW_BYTES,
    CommandHandle,
    background_transcript,
    deliver_to,
    follow_running,
    result_of,
)
from sandbox_sync.input import send_input, stream_input
from sandbox_sync.models.commands import CommandResult, ProcessInfo
from sandbox_sync.processes import selector
from sandbox_sync.starts import TAG, Start
from sandbox_sync.transcript import Transcript

if TYPE_CHECKING:
    import builtins

    from sandbox_sync.transport.envd import EnvdConnection


class Commands:
    """Runs commands in a sandbox and deals with those that run. Used as `sandbox.commands`."""

    def __init__(self, envd: EnvdConnection) -> None:
        self._envd = envd

    @overload
    def run(
        self,
        cmd: str,
        background: Literal[False] | None = None,
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        stdin: bool = False,
        check: bool = True,
        retain_output: bool = True,
        kill_on_interrupt: bool = True,
    ) -> CommandResult: ...
    @overload
    def run(
        self,
        cmd: str,
        background: Literal[True],
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        stdin: bool = False,
        check: bool = True,
        retain_output: bool = True,
        kill_on_interrupt: bool = True,
    ) -> CommandHandle: ...
    def run(
        self,
        cmd: str,
        background: bool | None = None,
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        stdin: bool = False,
        check: bool = True,
        retain_output: bool = True,
        kill_on_interrupt: bool = True,
    ) -> CommandResult | CommandHandle:
        """Run a shell command, and wait for its end unless it is to run in the background.

        Whatever ends a foreground call before the command's own end, be it the timeout, Ctrl-C or an error
        of a callback, ends the command too, unless `kill_on_interrupt` is False; and so does what keeps a
        background call from returning a handle.
        The command is given a tag of its own for that, which other clients see when they list commands.

        A command ends when it has exited and its output has ended: a child left behind with its output still
        open belongs to it. One that is to stay has to let go of it: `server >log 2>&1 &`.

        Args:
            cmd: Command line for bash, which runs it as a login shell.
            background: Return a handle at once instead of waiting.
            envs: Environment variables of the command, beside the sandbox's own.
            user: User to run it as; the template's default user when left out.
            cwd: Directory to run it in; the user's home when left out.
            on_stdout: Called with standard output as it arrives: in the caller's thread, or in the
                background in a thread of the handle's that has the caller's context variables.
            on_stderr: The same for standard error.
            timeout: Seconds; 0 or None for no limit. In the foreground the command is killed when they are
                up; in the background the handle stops following it then, and it runs on.
            request_timeout: Timeout for starting the command in seconds.
            stdin: Give the command a standard input to send to; without it, it reads the end at once.
            check: Raise for an exit code other than 0.
            retain_output: Keep the output for the result. False bounds memory: no more than the newest 1 MiB
                of it is kept. Of a background command no more than 64 MiB is kept in any case.
            kill_on_interrupt: End the command with the call when neither its own end nor a timeout ends that.
                False leaves it running then, until `timeout`; `list()` and `connect(pid)` find it again.

        Returns:
            The result of the command; its handle if it runs in the background.

        Raises:
            CommandExitException: The command ended with an exit code other than 0.
            TimeoutException: `timeout` or `request_timeout` was up; carries the output until then.
            InvalidArgumentException: The directory does not exist, or an argument cannot be sent.
            AuthenticationException: The sandbox has no such user.
            SandboxException: The sandbox is gone, or the connection broke.

        Specified in: Commands, run
        """
        if not isinstance(cmd, str):
            raise InvalidArgumentException(f"cmd has to be a command line (str); got {type(cmd).__name__}")
        config = message(
            process_pb2.ProcessConfig,
            cmd="/bin/bash",
            args=["-l", "-c", cmd],
            envs=dict(envs or {}),
            cwd=path_text(cwd) if cwd else None,
        )
        request = message(process_pb2.StartRequest, process=config, stdin=stdin)
        deadline = self._envd.config.deadline(request_timeout)
        deliver = deliver_to(on_stdout, on_stderr)
        log = self._envd.config.log
        if background:
            transcript = background_transcript(retain_output, deliver)
        else:
            transcript = Transcript(None if retain_output else WINDOW_BYTES)
        with Start(self._envd, request, transcript, kill_on_interrupt=kill_on_interrupt) as start:
            stream = start.follow(user, timeout, request_timeout, tell_server=not background)
            if background:
                handle = CommandHandle(
                    self, stream, transcript, deliver, check=check, owner=True, stdin=stdin, logger=log
                )
                start.wait_for_pid(deadline)
                return handle
            transcript.follow(stream, deliver)
        return result_of(transcript, check, self.sandbox_id)

    def connect(
        self,
        pid: int,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        *,
        on_pty: Callable[[bytes], Any] | None = None,
        check: bool = True,
        retain_output: bool = True,
    ) -> CommandHandle:
        """Follow a command that runs. Output from before is not repeated.

        Args:
            pid: Process id of the command, as in `list()`.
            timeout: Seconds after which the handle stops following; 0 or None for no limit.
            request_timeout: Timeout for connecting in seconds.
            on_stdout: Called with standard output as it arrives, in a thread of the handle's that has the
                caller's context variables.
            on_stderr: The same for standard error.
            on_pty: The same for the output of a terminal.
            check: Have `wait()` raise for an exit code other than 0.
            retain_output: Keep the newest 64 MiB of the output for the result; else the newest 1 MiB.

        Returns:
            The handle of the command.

        Raises:
            NotFoundException: No command of that id runs.
            SandboxException: The sandbox is gone, or the connection broke.

        Specified in: Commands, connect
        """
        deliver = deliver_to(on_stdout, on_stderr, on_pty)
        return follow_running(
            CommandHandle,
            self,
            self._envd,
            pid,
            deliver,
            timeout,
            request_timeout,
            check=check,
            retain_output=retain_output,
            stdin=None,
        )

    def kill(self, pid: int, request_timeout: float | None = None) -> bool:
        """Kill a command with SIGKILL.

        Args:
            pid: Process id of the command, as in `list()`.
            request_timeout: Timeout for the request in seconds.

        Returns:
            True if it was killed, False if no command of that id runs.

        Raises:
            SandboxException: The request failed.

        Specified in: Commands, kill
        """
        return processes.kill(self._envd, pid, request_timeout)

    def send_stdin(self, pid: int, data: str | bytes, request_timeout: float | None = None) -> None:
        """Write to the standard input of a command that was run with `stdin=True`.

        Args:
            pid: Process id of the command, as in `list()`.
            data: What to write; text as UTF-8.
            request_timeout: Timeout for the request in seconds.

        Raises:
            InvalidArgumentException: The data is neither str nor bytes, or text that is not Unicode.
            NotFoundException: No command of that id runs.
            SandboxException: The command has no standard input, or the request failed.

        Specified in: Commands, send_stdin
        """
        send_input(self._envd, pid, "stdin", data, request_timeout)

    def stream_input(self, pid: int, data: Iterable[str | bytes], *, timeout: float | None = 60) -> None:
        """Write what an iterable yields to the standard input of a command, in one call and as it comes.

        The command's input stays open at the end; `close_stdin` closes it.

        Args:
            pid: Process id of the command, as in `list()`.
            data: Yields what to write; text as UTF-8. It is not interrupted while it waits for something.
                With gRPC it is iterated over in another thread.
            timeout: Seconds that all of it may take; 0 or None for no limit.

        Raises:
            InvalidArgumentException: `data` is itself str or bytes, or yields something else.
            NotFoundException: No command of that id runs.
            TimeoutException: `timeout` was up; some of it may have been written.
            SandboxException: The command has no standard input, or the call failed.
            Exception: What the iterable raised; what it had yielded before may have been written.
        """
        stream_input(self._envd, pid, "stdin", data, timeout)

    def close_stdin(self, pid: int, request_timeout: float | None = None) -> None:
        """Close the standard input of a command, so that it reads the end of it.

        Args:
            pid: Process id of the command, as in `list()`.
            request_timeout: Timeout for the request in seconds.

        Raises:
            NotFoundException: No command of that id runs.
            SandboxException: The request failed.
        """
        request = message(process_pb2.CloseStdinRequest, process=selector(pid))
        self._envd.unary(self._envd.process.CloseStdin, request, request_timeout=request_timeout)

    def list(self, request_timeout: float | None = None) -> builtins.list[ProcessInfo]:
        """The commands and terminals that run.

        Args:
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxException: The request failed.

        Specified in: Commands, list
        """
        return [
            ProcessInfo(
                pid=process.pid,
                tag=process.tag if process.HasField("tag") and not process.tag.startswith(TAG) else None,
                cmd=process.config.cmd,
                args=[*process.config.args],
                envs=dict(process.config.envs),
                cwd=process.config.cwd if process.config.HasField("cwd") else None,
            )
            for process in processes.running(self._envd, request_timeout)
        ]

    @property
    def sandbox_id(self) -> str:
        """Id of the sandbox."""
        return self._envd.sandbox_id
