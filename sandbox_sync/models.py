"""What the SDK hands out and takes in: plain data, with the documented names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from logging import Logger
from os import PathLike
from typing import IO, Any, TypeAlias, TypedDict

Username: TypeAlias = str
Stdout: TypeAlias = str
Stderr: TypeAlias = str
PtyOutput: TypeAlias = bytes
WriteData: TypeAlias = "str | bytes | bytearray | memoryview | IO[bytes] | IO[str] | Iterable[bytes | str]"
"""What a file can be written from. Text is written as UTF-8; a file object from where it stands."""


class ConnectionOptions(TypedDict, total=False):
    """How to reach the service, beyond the documented options; each beats its environment variable.

    Attributes:
        api_url: Base URL of the control plane.
        sandbox_url: Base URL that all sandboxes are reached under.
        transport: "connect" (as "auto"), or "grpc".
        ca_bundle: File with the certificates to trust.
        client_cert: File with a client certificate and its key, or one file for each.
        api_headers: `headers` under another name. A header that is in both has the value that it has here.
        retries: How often a call that failed is made again, where that does no harm and may help; 3 when left
            out, 0 for never. No wait for it outlives `request_timeout`.
        logger: Where to log instead of the logger "sandbox_sync": calls at DEBUG, repeated ones at INFO, and
            what went wrong unseen at WARNING. What calls carry, keys and tokens are never logged.
    """

    api_url: str | None
    sandbox_url: str | None
    transport: str | None
    ca_bundle: str | None
    client_cert: str | tuple[str, str] | None
    api_headers: Mapping[str, str] | None
    retries: int | None
    logger: Logger | None


class SandboxState(str, Enum):
    """What a sandbox is doing."""

    RUNNING = "running"
    PAUSED = "paused"


@dataclass(frozen=True)
class SandboxInfo:
    """A sandbox as the service knows it.

    Attributes:
        sandbox_id: Its id.
        template_id: The template it was made from.
        name: The template's name, if it has one.
        metadata: What was given as `metadata` when it was created.
        started_at: When it started.
        end_at: When its lifetime ends; of a paused one, when it was paused.
        state: What it is doing; a state that this SDK does not know is handed on as the service's word.
        cpu_count: Number of CPUs.
        memory_mb: Memory in MiB.
        envd_version: Version of the agent inside.
        sandbox_domain: Domain under which its ports are reached, if it differs from the service's.
        allow_internet_access: Whether it may reach the internet; None if the service does not say.
        network: Its network rules, if any.
        lifecycle: What happens at the end of its lifetime, if the service says.
        volume_mounts: Volumes mounted in it, each with `name` and `path`.
        envd_unresponsive_at_pause: Whether the agent inside did not answer when it was paused.
    """

    sandbox_id: str
    template_id: str
    name: str | None
    metadata: dict[str, str]
    started_at: datetime
    end_at: datetime
    state: SandboxState | str
    cpu_count: int
    memory_mb: int
    envd_version: str
    sandbox_domain: str | None = None
    allow_internet_access: bool | None = None
    network: dict[str, Any] | None = field(default=None, repr=False)  # may hold headers that are secret
    lifecycle: dict[str, Any] | None = None
    volume_mounts: list[dict[str, str]] = field(default_factory=list)
    envd_unresponsive_at_pause: bool | None = None


ListedSandbox = SandboxInfo


@dataclass(frozen=True)
class SandboxMetrics:
    """What a sandbox used at one time.

    Attributes:
        cpu_count: Number of its CPUs.
        cpu_used_pct: Their use, in percent.
        disk_total: Size of its disk in bytes.
        disk_used: Bytes of it that are in use.
        mem_total: Its memory in bytes.
        mem_used: Bytes of it that are in use.
        mem_cache: Bytes of it that are used for caches.
        timestamp: When this was measured.
    """

    cpu_count: int
    cpu_used_pct: float
    disk_total: int
    disk_used: int
    mem_total: int
    mem_used: int
    mem_cache: int
    timestamp: datetime


@dataclass(frozen=True)
class SnapshotInfo:
    """What was saved of a sandbox while it ran.

    Attributes:
        snapshot_id: Its id, which `Sandbox.create()` takes for a template.
        names: Its names.
    """

    snapshot_id: str
    names: list[str]


@dataclass(frozen=True)
class SandboxQuery:
    """Which sandboxes to list; all conditions have to hold.

    Attributes:
        metadata: Keys and values that a sandbox's metadata must contain.
        state: States to list; running ones only when left out.
        started_after: List only those that started at this time or later.
        template: List only those made from this template, by name or id.
    """

    metadata: dict[str, str] | None = None
    state: list[SandboxState] | None = None
    started_after: datetime | None = None
    template: str | None = None


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


class FileType(str, Enum):
    """The kinds of entries in a directory."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"


@dataclass(frozen=True)
class WriteInfo:
    """A file that was written.

    Attributes:
        name: Its name.
        type: What it is.
        path: Its path.
        metadata: What is recorded beside its contents, if anything.
    """

    name: str
    type: FileType | None
    path: str
    metadata: dict[str, str] | None = None


@dataclass(frozen=True)
class EntryInfo:
    """An entry of a directory.

    Attributes:
        name: Its name.
        type: What it is; None for what is neither a file, a directory nor a link, such as a socket.
        path: Its path.
        size: Its size in bytes.
        mode: Its permission bits; those of the target for a link.
        permissions: The same in letters, for example "-rw-r--r--".
        owner: The user who owns it.
        group: The group that owns it.
        modified_time: When its contents last changed.
        symlink_target: Where a link leads to; None for everything else.
        metadata: What is recorded beside its contents, if anything.
    """

    name: str
    type: FileType | None
    path: str
    size: int
    mode: int
    permissions: str
    owner: str
    group: str
    modified_time: datetime
    symlink_target: str | None = None
    metadata: dict[str, str] | None = None


class FilesystemEventType(str, Enum):
    """What happens to a file or directory."""

    CHMOD = "chmod"
    CREATE = "create"
    REMOVE = "remove"
    RENAME = "rename"
    WRITE = "write"


@dataclass(frozen=True)
class FilesystemEvent:
    """Something that happened in a watched directory.

    Moving something inside of it is two events: RENAME for the old name and CREATE for the new one.

    Attributes:
        name: Path of what it happened to, relative to the directory; "." for the directory itself.
        type: What happened.
        entry: What it is now, if that was asked for and it is still there.
    """

    name: str
    type: FilesystemEventType
    entry: EntryInfo | None = None


@dataclass(frozen=True)
class PtySize:
    """Size of a terminal, in characters.

    Attributes:
        rows: Lines, 1 to 65535.
        cols: Columns, 1 to 65535.
    """

    rows: int
    cols: int


@dataclass(frozen=True)
class PoolStats:
    """What the sandboxes of a pool are doing, and what it has done since this process began to use it.

    Attributes:
        min: How many it keeps ready.
        max: How many there may be at once.
        idle: Sandboxes that are ready.
        in_use: Sandboxes that are handed out.
        making: Sandboxes that are being made.
        ending: Sandboxes that were given back and are being cleaned or killed.
        waiting: Threads that wait for a sandbox.
        made: How many were made.
        lent: How many times one was handed out.
        failed: How many could not be made.
        timed_out: How many waits ended without a sandbox.
        unhealthy: How many were replaced because they did not answer when they were to be handed out.
        dropped: How many were never given back, and were taken back when nothing referred to them any more.
    """

    min: int
    max: int
    idle: int = 0
    in_use: int = 0
    making: int = 0
    ending: int = 0
    waiting: int = 0
    made: int = 0
    lent: int = 0
    failed: int = 0
    timed_out: int = 0
    unhealthy: int = 0
    dropped: int = 0


class WriteEntry(TypedDict):
    """One of several files to write.

    Attributes:
        path: Where to write it.
        data: What to write.
    """

    path: str | PathLike[str]
    data: WriteData
