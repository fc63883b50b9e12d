"""What the server needs of an isolated environment, whichever backend makes it.

A `Backend` makes `Box`es. A box is one isolated Linux environment: its own processes, files, users, network
and host name. Everything that comes out of it (paths, names, bytes) was chosen by code nobody trusts.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sandbox_local.isolation.errors import (
    BoxGone,
    IsolationError,
    LauncherGone,
    MissingDirectory,
    NoAnswer,
    UnknownUser,
)
from sandbox_local.isolation.limits import machine

__all__ = [
    "Backend",
    "Box",
    "BoxGone",
    "BoxSpec",
    "Command",
    "Exit",
    "IsolationError",
    "LauncherGone",
    "Limits",
    "MissingDirectory",
    "NoAnswer",
    "Process",
    "UnknownUser",
    "Usage",
]

_MOST_MEMORY = 8 << 30
_MOST_DISK = 4 << 30
_MOST_SHM = 1 << 30
_LEAST_MEMORY = 64 << 20
_LEAST_PROCESSES = 8


@dataclass(frozen=True)
class Limits:
    """What one box may use.

    Its files lie in its memory, so what it may write is clearly less than its memory.

    Attributes:
        memory_bytes: Bound of the memory of all its processes and files; by default half of the machine's,
            but no more than 8 GiB.
        disk_bytes: Bound of everything the box writes to its files; by default half of its memory, but no
            more than 4 GiB.
        processes: How many processes, threads included, its commands may have at once.
        cpus: How much time of processors it may use in that time; None for that of all.
    """

    memory_bytes: int = 0
    disk_bytes: int = 0
    processes: int = 4096
    cpus: float | None = None

    def __post_init__(self) -> None:
        memory = self.memory_bytes or min(_MOST_MEMORY, machine.memory() // 2)
        disk = self.disk_bytes or min(_MOST_DISK, memory // 2)
        if memory < _LEAST_MEMORY:
            raise ValueError(f"a sandbox needs {_LEAST_MEMORY >> 20}M of memory at least")
        if disk < 0 or disk > memory // 4 * 3:
            raise ValueError(
                f"a sandbox of {memory >> 20}M of memory may have at most {memory * 3 // 4 >> 20}M of disk, "
                "since its files lie in its memory"
            )
        if self.processes < _LEAST_PROCESSES:
            raise ValueError(f"a sandbox needs {_LEAST_PROCESSES} processes at least")
        if self.cpus is not None and not 0.01 <= self.cpus <= 4096:
            raise ValueError("a sandbox needs a hundredth of a processor at least")
        object.__setattr__(self, "memory_bytes", memory)
        object.__setattr__(self, "disk_bytes", disk)

    @property
    def shm_bytes(self) -> int:
        """Bound of /dev/shm, beside that of the disk."""
        return min(_MOST_SHM, self.disk_bytes, self.memory_bytes // 8)

    @property
    def cpu_count(self) -> int:
        """As how many processors that counts, which are whole to whoever asks."""
        machines = machine.processors()
        return machines if self.cpus is None else min(machines, math.ceil(self.cpus))


@dataclass(frozen=True)
class BoxSpec:
    """What a new box is to be.

    Attributes:
        box_id: Name of the box, unique among the living; `[a-z0-9]+`.
        hostname: Host name seen inside.
        limits: What it may use.
        template: The build of a template of the store that it starts from, or "" for the host's system.
    """

    box_id: str
    hostname: str = "sandbox"
    limits: Limits = field(default_factory=Limits)
    template: str = ""


@dataclass(frozen=True)
class Command:
    """A process to start in a box.

    Attributes:
        argv: Program and arguments; the program is looked up in the PATH of `envs`.
        user: Name of the user that it runs as, with that user's group and supplementary groups.
        envs: Variables beside PATH, HOME, USER and LOGNAME, which the box sets from the user; these win.
        cwd: Working directory: "" and "~" are the user's home, relative and "~/" is under it.
        stdin: Whether standard input is a pipe; otherwise it is /dev/null. Of no meaning with a terminal.
        pty: Columns and rows of the terminal that the process gets, or None for pipes.
    """

    argv: Sequence[str]
    user: str
    envs: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    stdin: bool = False
    pty: tuple[int, int] | None = None


@dataclass(frozen=True)
class Usage:
    """What a box uses as a whole; None is what the kernel keeps no account of.

    Attributes:
        cpu_seconds: Processor time since it began.
        memory_used: Bytes of memory of its processes and files, and of the kernel for them.
        memory_cache: Bytes beside these that would be given up for anything else.
    """

    cpu_seconds: float | None = None
    memory_used: int | None = None
    memory_cache: int | None = None


@dataclass(frozen=True)
class Exit:
    """How a process ended: `code` when it exited, `signal` when a signal ended it (the other is None)."""

    code: int | None
    signal: int | None
    core_dumped: bool = False


class Process(Protocol):
    """A started process. The descriptors are non-blocking and belong to the caller, who closes them.

    Attributes:
        pid: Its process id inside the box.
        stdin: Descriptor that writes to its standard input, or None.
        stdout: Descriptor that reads its standard output, or None with a terminal.
        stderr: Descriptor that reads its standard error, or None with a terminal.
        pty: Descriptor that reads what its terminal shows and writes what is typed, or None with pipes.
        exit: Resolves when the process has ended; raises BoxGone when its box ended instead. Whoever waits
            for it and may be cancelled shields it.
    """

    pid: int
    stdin: int | None
    stdout: int | None
    stderr: int | None
    pty: int | None
    exit: asyncio.Future[Exit]

    async def signal(self, signum: int) -> bool:
        """Send a signal to this process alone; False if it has ended.

        Raises:
            BoxGone: The box has ended.
        """

    def resize(self, columns: int, rows: int) -> None:
        """Give its terminal another size; the process is told by SIGWINCH.

        Raises:
            ValueError: It has none.
        """

    async def kill_tree(self) -> None:
        """End this process and every process that descends from it, sessions and orphans included; returns
        when none of them is left.

        Raises:
            BoxGone: The box has ended.
        """


class Box(Protocol):
    """One living isolated environment.

    Nothing here waits for ever for what is inside: where a box does not answer in time, each call but `close`
    raises NoAnswer, which is an OSError. `close` has no need of the box's help.

    Attributes:
        box_id: As in its spec.
        ended: Resolves, with the reason in words, when the box has ended for whatever cause.
    """

    box_id: str
    ended: asyncio.Future[str]

    async def spawn(self, command: Command) -> Process:
        """Start a process. A program that is missing or not executable is no error here: the process writes
        the reason to its standard error and exits 127 or 126, as a shell's would.

        Raises:
            ValueError: No program, a NUL character, or `=` in the name of a variable.
            UnknownUser: No such user in the box.
            MissingDirectory: The working directory does not exist.
            OSError: The user may not enter the working directory, or the box may have no more processes.
            BoxGone: The box has ended.
        """

    async def files(self, operation: str, **arguments: Any) -> tuple[dict[str, Any], list[int]]:
        """Run one operation of `file_worker` inside the box, as the box's root.

        Returns:
            Its answer, and descriptors that belong to the caller.

        Raises:
            OSError: The operation failed with that errno.
            UnknownUser: No such user in the box.
            ValueError: The path can't be expanded.
            BoxGone: The box has ended.
        """

    async def connect(self, port: int) -> socket.socket:
        """A non-blocking TCP connection to 127.0.0.1:port inside the box, or to [::1]:port where that is
        refused.

        Raises:
            ConnectionRefusedError: Nothing listens there.
            BoxGone: The box has ended.
        """

    def usage(self) -> Usage:
        """What it uses, as far as the kernel keeps account of it for the box as a whole."""

    async def egress(self) -> tuple[socket.socket, socket.socket]:
        """Turn what goes out of the box towards the caller; once in its life, before anything runs in it.

        Returns:
            A listening socket, on whose connections SO_ORIGINAL_DST tells whom each was for, and a datagram
            socket, which gets the questions of DNS. Both are non-blocking and belong to the caller.

        Raises:
            IsolationError: This machine can't do that; the message names the cause and the remedy.
            BoxGone: The box has ended.
        """

    async def freeze(self) -> None:
        """Stop every process of the box where it stands, `files` included.

        Raises:
            BoxGone: The box has ended.
        """

    async def thaw(self) -> None:
        """Let the processes of a frozen box go on.

        Raises:
            BoxGone: The box has ended.
        """

    async def close(self) -> None:
        """End the box and everything in it; returns when nothing of it is left.

        Raises:
            TimeoutError: The kernel has not ended it in time.
        """


class Backend(Protocol):
    """Makes boxes."""

    async def start(self) -> None:
        """Get ready.

        Raises:
            IsolationError: This machine does not allow it; the message names the cause and the remedy.
        """

    async def create(self, spec: BoxSpec) -> Box:
        """Make a box.

        Raises:
            LauncherGone: What makes boxes died on the way; the next creation has it started anew.
            IsolationError: The kernel refused, or the backend has not been started.
            OSError: The machine has no more processes, memory or descriptors to give.
        """

    async def close(self) -> None:
        """End every box and leave nothing behind."""
