"""Commands and terminals: who runs them, what they write, and how they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Username: TypeAlias = str
Stdout: TypeAlias = str
Stderr: TypeAlias = str
PtyOutput: TypeAlias = bytes


@dataclass(frozen=True)
class CommandResult:
    """How a command ended and what it wrote.

    Attributes:
        stderr: Its standard error; invalid UTF-8 as U+FFFD.
        stdout: Its standard output; the same.
        exit_code: Its exit code; -1 when a signal ended it.
        error: The server's words for an end other than success, for example "signal: killed".
        truncated: Whether the oldest output is missing because it was more than is retained.
    """

    stderr: str
    stdout: str
    exit_code: int
    error: str | None = None
    truncated: bool = False


@dataclass(frozen=True)
class ProcessInfo:
    """A running command or terminal.

    Attributes:
        pid: Its process id in the sandbox.
        tag: The name it was started under, if any.
        cmd: The program.
        args: The program's arguments.
        envs: Environment variables that it was started with, beside the sandbox's own.
        cwd: The directory that it was started in, if one was asked for.
    """

    pid: int
    tag: str | None
    cmd: str
    args: list[str]
    envs: dict[str, str]
    cwd: str | None


@dataclass(frozen=True)
class PtySize:
    """Size of a terminal, in characters.

    Attributes:
        rows: Lines, 1 to 65535.
        cols: Columns, 1 to 65535.
    """

    rows: int
    cols: int
