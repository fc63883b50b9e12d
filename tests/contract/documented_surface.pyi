"""The documented surface, as blocking calls: what this SDK is held to.

Each method of a class here is one entry. A docstring tells the forms of a name apart. The entries of
`SandboxApi` and `SandboxClass` are called on the class, those of `Sandbox` on a sandbox. `FilesystemWrite`
has the two forms of `Filesystem.write` in one, as the documents show what implements them.
"""

import builtins
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Literal, Protocol, TypeAlias, overload

from sandbox_sync import (
    CommandResult,
    EntryInfo,
    FilesystemEvent,
    ListedSandbox,
    ProcessInfo,
    PtyOutput,
    PtySize,
    SandboxInfo,
    SandboxQuery,
    Stderr,
    Stdout,
    Username,
    WriteEntry,
    WriteInfo,
)

ProxyTypes: TypeAlias = str
Contents: TypeAlias = str | bytes | IO[bytes] | IO[str]

class SandboxApi(Protocol):
    def list(
        self,
        api_key: str | None = None,
        query: SandboxQuery | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        request_timeout: float | None = None,
        headers: dict[str, str] | None = None,
        proxy: ProxyTypes | None = None,
    ) -> Sequence[ListedSandbox]: ...
    def get_info(
        self,
        sandbox_id: str,
        api_key: str | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        request_timeout: float | None = None,
        headers: dict[str, str] | None = None,
        proxy: ProxyTypes | None = None,
    ) -> SandboxInfo:
        """by id"""

class SandboxClass(Protocol):
    def create(
        self,
        template: str | None = None,
        timeout: int | None = None,
        metadata: dict[str, str] | None = None,
        envs: dict[str, str] | None = None,
        api_key: str | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        request_timeout: float | None = None,
        proxy: ProxyTypes | None = None,
        secure: bool | None = None,
    ) -> Sandbox: ...
    def connect(
        self,
        sandbox_id: str,
        api_key: str | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        proxy: ProxyTypes | None = None,
    ) -> Sandbox: ...
    def kill(
        self,
        sandbox_id: str,
        api_key: str | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        request_timeout: float | None = None,
        proxy: ProxyTypes | None = None,
    ) -> bool:
        """by id"""
    def set_timeout(
        self,
        sandbox_id: str,
        timeout: int,
        api_key: str | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        request_timeout: float | None = None,
        proxy: ProxyTypes | None = None,
    ) -> None:
        """by id"""

class Sandbox(Protocol):
    @property
    def files(self) -> Filesystem: ...
    @property
    def commands(self) -> Commands: ...
    @property
    def pty(self) -> Pty: ...
    @property
    def sandbox_id(self) -> str: ...
    def __init__(self, **opts: Any) -> None: ...
    def is_running(self, request_timeout: float | None = None) -> bool: ...
    def kill(self, request_timeout: float | None = None) -> bool: ...
    def set_timeout(self, timeout: int, request_timeout: float | None = None) -> None: ...
    def get_info(self, request_timeout: float | None = None) -> SandboxInfo: ...

class WatchHandle(Protocol):
    def stop(self) -> None: ...

class Filesystem(Protocol):
    @overload
    def read(
        self,
        path: str,
        format: Literal["text"] = "text",
        user: Username = "user",
        request_timeout: float | None = None,
    ) -> str:
        """text"""
    @overload
    def read(
        self,
        path: str,
        format: Literal["bytes"],
        user: Username = "user",
        request_timeout: float | None = None,
    ) -> bytearray:
        """bytes"""
    @overload
    def read(
        self,
        path: str,
        format: Literal["stream"],
        user: Username = "user",
        request_timeout: float | None = None,
    ) -> Iterator[bytes]:
        """stream"""
    @overload
    def write(
        self,
        path: str,
        data: Contents,
        user: Username = "user",
        request_timeout: float | None = None,
    ) -> WriteInfo:
        """one"""
    @overload
    def write(
        self,
        files: builtins.list[WriteEntry],
        user: Username | None = "user",
        request_timeout: float | None = None,
    ) -> builtins.list[WriteInfo]:
        """several"""
    def list(
        self,
        path: str,
        depth: int | None = 1,
        user: Username = "user",
        request_timeout: float | None = None,
    ) -> builtins.list[EntryInfo]: ...
    def exists(self, path: str, user: Username = "user", request_timeout: float | None = None) -> bool: ...
    def remove(self, path: str, user: Username = "user", request_timeout: float | None = None) -> None: ...
    def rename(
        self,
        old_path: str,
        new_path: str,
        user: Username = "user",
        request_timeout: float | None = None,
    ) -> EntryInfo: ...
    def make_dir(self, path: str, user: Username = "user", request_timeout: float | None = None) -> bool: ...
    def watch_dir(
        self,
        path: str,
        on_event: Callable[[FilesystemEvent], object],
        on_exit: Callable[[Exception | None], object] | None = None,
        user: Username = "user",
        request_timeout: float | None = None,
        timeout: float | None = 60,
        recursive: bool = False,
    ) -> WatchHandle: ...

class FilesystemWrite(Protocol):
    def write(
        self,
        path_or_files: str | builtins.list[WriteEntry],
        data_or_user: Contents | Username = "user",
        user_or_request_timeout: float | Username | None = None,
        request_timeout_or_none: float | None = None,
    ) -> WriteInfo | builtins.list[WriteInfo]:
        """either"""

class Pty(Protocol):
    def kill(self, pid: int, request_timeout: float | None = None) -> bool: ...
    def send_stdin(self, pid: int, data: bytes, request_timeout: float | None = None) -> None: ...
    def create(
        self,
        size: PtySize,
        on_data: Callable[[PtyOutput], object],
        user: Username = "user",
        cwd: str | None = None,
        envs: dict[str, str] | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
    ) -> CommandHandle: ...
    def resize(self, pid: int, size: PtySize, request_timeout: float | None = None) -> None: ...

class Commands(Protocol):
    def list(self, request_timeout: float | None = None) -> builtins.list[ProcessInfo]: ...
    def kill(self, pid: int, request_timeout: float | None = None) -> bool: ...
    def send_stdin(self, pid: int, data: str, request_timeout: float | None = None) -> None: ...
    @overload
    def run(
        self,
        cmd: str,
        background: Literal[False] | None = None,
        envs: dict[str, str] | None = None,
        user: Username = "user",
        cwd: str | None = None,
        on_stdout: Callable[[Stdout], object] | None = None,
        on_stderr: Callable[[Stderr], object] | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
    ) -> CommandResult:
        """foreground"""
    @overload
    def run(
        self,
        cmd: str,
        background: Literal[True],
        envs: dict[str, str] | None = None,
        user: Username = "user",
        cwd: str | None = None,
        on_stdout: Callable[[Stdout], object] | None = None,
        on_stderr: Callable[[Stderr], object] | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
    ) -> CommandHandle:
        """background"""
    def connect(
        self,
        pid: int,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        on_stdout: Callable[[Stdout], object] | None = None,
        on_stderr: Callable[[Stderr], object] | None = None,
    ) -> CommandHandle: ...

class CommandHandle(Protocol):
    @property
    def pid(self) -> int: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...
    @property
    def error(self) -> str | None: ...
    @property
    def exit_code(self) -> int | None: ...
    def disconnect(self) -> None: ...
    def wait(self) -> CommandResult: ...
    def kill(self) -> bool: ...
