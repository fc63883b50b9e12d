"""Files in a sandbox: `sandbox.files`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timezone
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from sandbox_sync_rpc import filesystem_pb2

from sandbox_sync._arguments import contract, message, path_text
from sandbox_sync.errors import FileNotFoundException, InvalidArgumentException, SandboxException
from sandbox_sync.models import EntryInfo, FileType, WriteData, WriteEntry, WriteInfo
from sandbox_sync.transport.files import Download, Payload, multipart, octets

if TYPE_CHECKING:
    import builtins

    from sandbox_sync_rest.models.entry_info import EntryInfo as WrittenFile
    from sandbox_sync_rpc.channel import UnaryUnary
    from typing_extensions import Self

    from sandbox_sync.transport.envd import EnvdConnection

    Path = str | PathLike[str]

Req = TypeVar("Req")
Res = TypeVar("Res")

_TYPES = {
    filesystem_pb2.FILE_TYPE_FILE: FileType.FILE,
    filesystem_pb2.FILE_TYPE_DIRECTORY: FileType.DIR,
    filesystem_pb2.FILE_TYPE_SYMLINK: FileType.SYMLINK,
}


class FileStream:
    """A file's contents as they arrive: an iterator of chunks, and a file object to read from.

    Close it, or use it in a `with` block; at the end of the file it closes by itself.
    """

    def __init__(self, body: Download) -> None:
        self._body = body
        self._chunks = iter(body)
        self._rest = b""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next chunk.

        Raises:
            SandboxException: The connection broke, or nothing came for a minute.
        """
        if self._rest:
            chunk, self._rest = self._rest, b""
            return chunk
        return next(self._chunks)

    def read(self, size: int | None = -1) -> bytes:
        """Read.

        Args:
            size: Bytes to read at most; everything when negative or None. Fewer are no sign of the end, but
                none are.

        Raises:
            SandboxException: The connection broke, or nothing came for a minute.
        """
        if size is None or size < 0:
            return b"".join(self)
        if not self._rest and size:
            self._rest = next(self._chunks, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def readable(self) -> bool:
        """Whether it can be read from: always."""
        return True

    def close(self) -> None:
        """Give up what was not read."""
        self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Filesystem:
    """Reads, writes and arranges files in a sandbox. Used as `sandbox.files`.

    Relative paths, and "~", start in the home directory of the user. `user` is a name; the template's default
    user when left out.
    """

    def __init__(self, envd: EnvdConnection) -> None:
        self._envd = envd

    @overload
    def read(
        self,
        path: Path,
        format: Literal["text"] = "text",
        user: str | None = None,
        request_timeout: float | None = None,
    ) -> str: ...
    @overload
    def read(
        self,
        path: Path,
        format: Literal["bytes"],
        user: str | None = None,
        request_timeout: float | None = None,
    ) -> bytearray: ...
    @overload
    def read(
        self,
        path: Path,
        format: Literal["stream"],
        user: str | None = None,
        request_timeout: float | None = None,
    ) -> FileStream: ...
    def read(
        self,
        path: Path,
        format: Literal["text", "bytes", "stream"] = "text",
        user: str | None = None,
        request_timeout: float | None = None,
    ) -> str | bytearray | FileStream:
        """Read a file.

        Args:
            path: Path of the file.
            format: "text" for a `str` (invalid UTF-8 becomes U+FFFD), "bytes" for a `bytearray`, "stream" for
                a `FileStream`, which holds no more than a chunk at a time.
            user: User whose home directory counts.
            request_timeout: Timeout for the request in seconds; of a stream, for its beginning.

        Raises:
            FileNotFoundException: There is no such file.
            InvalidArgumentException: The path is a directory, or cannot be a path.
            AuthenticationException: The sandbox has no such user.
            SandboxException: The request failed.
        """
        from sandbox_sync_rest.api.envd import get_files

        if format not in ("text", "bytes", "stream"):
            raise InvalidArgumentException(f'format has to be "text", "bytes" or "stream"; got {format!r}')
        request = get_files.build(path=path_text(path), username=user)
        body = self._envd.download(request, request_timeout=request_timeout)
        if format == "stream":
            return FileStream(body)
        with body:
            content = body.read()
        return content if format == "bytes" else content.decode("utf-8", "replace")

    @overload
    def write(
        self,
        path: Path,
        data: WriteData,
        user: str | None = None,
        request_timeout: float | None = None,
    ) -> WriteInfo: ...
    @overload
    def write(
        self,
        files: Sequence[WriteEntry],
        user: str | None = None,
        request_timeout: float | None = None,
    ) -> builtins.list[WriteInfo]: ...
    def write(self, *arguments: Any, **options: Any) -> WriteInfo | builtins.list[WriteInfo]:
        """Write one file, `write(path, data)`, or several, `write(files)`, which is `write_files`.

        Files that exist are replaced, and missing directories are made. What is made belongs to the user.

        Args:
            path: Path of the file.
            data: What to write: text (as UTF-8), bytes, a file object from where it stands, or an iterable of
                bytes. The last two are never in memory as a whole.
            files: Files to write: dicts of `path` and `data`.
            user: User whose home directory counts and who owns what is made.
            request_timeout: Timeout for the request in seconds.

        Returns:
            What was written; a list for several files.

        Raises:
            InvalidArgumentException: The path is a directory, or cannot be a path; or the data cannot be
                written.
            AuthenticationException: The sandbox has no such user.
            NotEnoughSpaceException: The sandbox's disk is full.
            SandboxException: The request failed.
        """
        several = "files" in options or (arguments and isinstance(arguments[0], (list, tuple)))
        return self.write_files(*arguments, **options) if several else self._write_file(*arguments, **options)

    def write_files(
        self,
        files: Sequence[WriteEntry],
        user: str | None = None,
        request_timeout: float | None = None,
    ) -> builtins.list[WriteInfo]:
        """Write several files in one request. When one cannot be written, those before it stay.

        Args:
            files: Files to write: dicts of `path` and `data`, as for `write`.
            user: User whose home directory counts and who owns what is made.
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxException: As for `write`.
        """
        try:
            parts = [(path_text(file["path"]), octets(file["data"])) for file in files]
        except (KeyError, TypeError) as error:
            raise InvalidArgumentException("files has to be a list of dicts of path and data") from error
        return self._upload(parts, None, user, request_timeout) if parts else []

    def _write_file(
        self, path: Path, data: WriteData, user: str | None = None, request_timeout: float | None = None
    ) -> WriteInfo:
        target = path_text(path)
        (written,) = self._upload([("file", octets(data))], target, user, request_timeout)
        return written

    def _upload(
        self,
        parts: builtins.list[tuple[str, Payload]],
        path: str | None,
        user: str | None,
        request_timeout: float | None,
    ) -> builtins.list[WriteInfo]:
        """Send files; `path` is where a single one goes, in place of its name."""
        from sandbox_sync_rest.api.envd import post_files

        request = post_files.build(path=path, username=user)
        response = self._envd.upload(request, multipart(parts), request_timeout=request_timeout)
        with contract():
            written = post_files.parse(response) or []
        if len(written) != len(parts):
            raise SandboxException(f"{len(parts)} files were sent, and {len(written)} were written")
        return [_write_info(file) for file in written]

    def exists(self, path: Path, user: str | None = None, request_timeout: float | None = None) -> bool:
        """Whether there is a file, directory or link at a path.

        Args:
            path: The path.
            user: User whose home directory counts.
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxException: The request failed.
        """
        try:
            self.get_info(path, user, request_timeout)
        except FileNotFoundException:
            return False
        return True

    def get_info(
        self, path: Path, user: str | None = None, request_timeout: float | None = None
    ) -> EntryInfo:
        """What is at a path; of a symbolic link, the link itself.

        Args:
            path: The path.
            user: User whose home directory counts.
            request_timeout: Timeout for the request in seconds.

        Raises:
            FileNotFoundException: There is nothing at the path.
            SandboxException: The request failed.
        """
        request = message(filesystem_pb2.StatRequest, path=path_text(path))
        return _entry(self._unary(self._envd.filesystem.Stat, request, user, request_timeout).entry)

    def remove(self, path: Path, user: str | None = None, request_timeout: float | None = None) -> None:
        """Remove a file, or a directory with all that is in it. A path with nothing at it is no error.

        Args:
            path: The path.
            user: User whose home directory counts.
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxException: The request failed.
        """
        request = message(filesystem_pb2.RemoveRequest, path=path_text(path))
        self._unary(self._envd.filesystem.Remove, request, user, request_timeout)

    def rename(
        self, old_path: Path, new_path: Path, user: str | None = None, request_timeout: float | None = None
    ) -> EntryInfo:
        """Rename or move a file or directory; missing directories above the new path are made.

        Args:
            old_path: Where it is.
            new_path: Where it shall be; a file that is there is replaced.
            user: User whose home directory counts.
            request_timeout: Timeout for the request in seconds.

        Returns:
            The entry at its new path.

        Raises:
            FileNotFoundException: There is nothing at the old path.
            SandboxException: The request failed.
        """
        request = message(
            filesystem_pb2.MoveRequest, source=path_text(old_path), destination=path_text(new_path)
        )
        return _entry(self._unary(self._envd.filesystem.Move, request, user, request_timeout).entry)

    def make_dir(self, path: Path, user: str | None = None, request_timeout: float | None = None) -> bool:
        """Make a directory, and the missing ones above it.

        Args:
            path: Path of the directory.
            user: User whose home directory counts and who owns what is made.
            request_timeout: Timeout for the request in seconds.

        Returns:
            True if it was made, False if it was there already.

        Raises:
            InvalidArgumentException: There is a file at the path.
            SandboxException: The request failed.
        """
        request = message(filesystem_pb2.MakeDirRequest, path=path_text(path))
        try:
            self._unary(self._envd.filesystem.MakeDir, request, user, request_timeout)
        except SandboxException as error:
            if error.code == "already_exists":
                return False
            raise
        return True

    def list(
        self,
        path: Path,
        depth: int | None = 1,
        user: str | None = None,
        request_timeout: float | None = None,
    ) -> builtins.list[EntryInfo]:
        """The entries of a directory, those of subdirectories after the subdirectory.

        Args:
            path: Path of the directory.
            depth: How many levels to go down: 1 for the directory's own entries.
            user: User whose home directory counts.
            request_timeout: Timeout for the request in seconds.

        Raises:
            FileNotFoundException: There is nothing at the path.
            InvalidArgumentException: It is no directory, or `depth` is less than 1.
            SandboxException: The request failed.
        """
        if depth is not None and depth < 1:
            raise InvalidArgumentException(f"depth has to be 1 or more; got {depth}")
        request = message(filesystem_pb2.ListDirRequest, path=path_text(path), depth=depth or 1)
        answer = self._unary(self._envd.filesystem.ListDir, request, user, request_timeout)
        return [_entry(entry) for entry in answer.entries]

    def _unary(
        self, call: UnaryUnary[Req, Res], request: Req, user: str | None, request_timeout: float | None
    ) -> Res:
        return self._envd.unary(
            call, request, user=user, request_timeout=request_timeout, not_found=FileNotFoundException
        )


def _entry(entry: filesystem_pb2.EntryInfo) -> EntryInfo:
    return EntryInfo(
        name=entry.name,
        type=FileType.SYMLINK if entry.is_symlink else _TYPES.get(entry.type),
        path=entry.path,
        size=entry.size,
        mode=entry.mode,
        permissions=entry.permissions,
        owner=entry.owner,
        group=entry.group,
        modified_time=entry.modified_time.ToDatetime(timezone.utc),
        symlink_target=entry.symlink_target if entry.HasField("symlink_target") else None,
        metadata=dict(entry.metadata) or None,
    )


def _write_info(file: WrittenFile) -> WriteInfo:
    name = file.name or file.path.rpartition("/")[2]
    return WriteInfo(name=name, type=FileType.FILE, path=file.path, metadata=file.metadata or None)
