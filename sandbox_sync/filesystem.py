"""Files in a sandbox: `sandbox.files`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from sandbox_sync._arguments import contract, message, path_text, user_name
from sandbox_sync._later import later
from sandbox_sync.deadlines import seconds
from sandbox_sync.errors import FileNotFoundException, InvalidArgumentException, SandboxException
from sandbox_sync.file_stream import FileStream
from sandbox_sync.transport.envd import IDLE_TIMEOUT
from sandbox_sync.transport.files import Payload, described, gzipped, multipart, octets

if TYPE_CHECKING:
    import builtins

    from sandbox_sync_rest.models.entry_info import EntryInfo as WrittenFile
    from sandbox_sync_rpc import filesystem_pb2
    from sandbox_sync_rpc.channel import UnaryUnary

    from sandbox_sync import entries, watch
    from sandbox_sync.models import files as models
    from sandbox_sync.models.files import EntryInfo, FilesystemEvent, WriteData, WriteEntry, WriteInfo
    from sandbox_sync.transport.envd import EnvdConnection
    from sandbox_sync.watch import WatchHandle

    Path = str | PathLike[str]
else:
    # Reading and writing need none of these.
    entries = later("sandbox_sync.entries")
    filesystem_pb2 = later("sandbox_sync_rpc.filesystem_pb2")
    models = later("sandbox_sync.models.files")
    watch = later("sandbox_sync.watch")

Req = TypeVar("Req")
Res = TypeVar("Res")

# What the documents call the parameters of `write`, each of which means one thing or another by its form.
_EITHER_FORM = ("path_or_files", "data_or_user", "user_or_request_timeout", "request_timeout_or_none")


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
        *,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> str: ...
    @overload
    def read(
        self,
        path: Path,
        format: Literal["bytes"],
        user: str | None = None,
        request_timeout: float | None = None,
        *,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> bytearray: ...
    @overload
    def read(
        self,
        path: Path,
        format: Literal["stream"],
        user: str | None = None,
        request_timeout: float | None = None,
        *,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> FileStream: ...
    def read(
        self,
        path: Path,
        format: Literal["text", "bytes", "stream"] = "text",
        user: str | None = None,
        request_timeout: float | None = None,
        *,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> str | bytearray | FileStream:
        """Read a file: all of it, or an error. What was cut on its way here is never taken for the whole.

        Args:
            path: Path of the file.
            format: "text" for a `str` (invalid UTF-8 becomes U+FFFD), "bytes" for a `bytearray`, "stream" for
                a `FileStream`, which holds no more than a chunk at a time.
            user: User whose home directory counts.
            request_timeout: Timeout for the request in seconds; of a stream, for its beginning.
            gzip: Have it compressed on its way.
            stream_idle_timeout: Seconds for which nothing may arrive, whatever the format; 60 when left out,
                0 for any time. A slow transfer that moves goes on.

        Raises:
            FileNotFoundException: There is no such file.
            InvalidArgumentException: The path is a directory, or cannot be a path.
            AuthenticationException: The sandbox has no such user.
            RequestTimeoutException: It took longer than `request_timeout`.
            SandboxUnreachableException: Nothing came for `stream_idle_timeout`.
            ConnectionException: The connection broke before all of it was here.
            SandboxException: The request failed.

        Specified in: Filesystem, read
        """
        from sandbox_sync_rest.api.envd import get_files

        if format not in ("text", "bytes", "stream"):
            raise InvalidArgumentException(f'format has to be "text", "bytes" or "stream"; got {format!r}')
        idle = IDLE_TIMEOUT if stream_idle_timeout is None else stream_idle_timeout
        seconds(idle, "stream_idle_timeout")  # before anything is sent
        name = path_text(path)
        request = get_files.build(path=name, username=user_name(user))
        body = self._envd.download(request, gzip=gzip, request_timeout=request_timeout, idle_timeout=idle)
        if format == "stream":
            return FileStream(body, name)
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
        *,
        metadata: Mapping[str, str] | None = None,
        gzip: bool = False,
    ) -> WriteInfo: ...
    @overload
    def write(
        self,
        files: Sequence[WriteEntry],
        user: str | None = None,
        request_timeout: float | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        gzip: bool = False,
    ) -> builtins.list[WriteInfo]: ...
    def write(self, *arguments: Any, **options: Any) -> WriteInfo | builtins.list[WriteInfo]:
        """Write one file, `write(path, data)`, or several, `write(files)`, which is `write_files`.

        Files that exist are replaced, and missing directories are made. What is made belongs to the user.
        An upload that is cut on its way is made again as a whole where its data can be read again. Where that
        is no way out, it raises, and the file may be there as far as it came.

        Args:
            path: Path of the file.
            data: What to write: text (as UTF-8), bytes, a file object from where it stands, or an iterable of
                bytes. The last two are never in memory as a whole.
            files: Files to write: dicts of `path` and `data`.
            user: User whose home directory counts and who owns what is made.
            request_timeout: Timeout for the request in seconds. When left out there is none for file objects
                and iterables: their upload may take long, as long as it never stands still for a minute.
            metadata: What to record beside the contents, in place of what was recorded before. Keys, which
                are kept in lower case, are letters, digits and !#$%&'*+-.^_`|~, 246 at most; values printable
                ASCII; all of it no more than 4096 bytes, with 9 for each pair.
            gzip: Compress on the way.

        Returns:
            What was written; a list for several files.

        Raises:
            InvalidArgumentException: The path is a directory, or cannot be a path; or the data or metadata
                cannot be written.
            AuthenticationException: The sandbox has no such user.
            NotEnoughSpaceException: The sandbox's disk is full.
            RequestTimeoutException: It took longer than `request_timeout`.
            SandboxUnreachableException: Nothing moved for a minute.
            ConnectionException: The connection broke.
            SandboxException: The request failed.

        Specified in: Filesystem, write
        """
        arguments += _under_documented_names(options, len(arguments))
        several = "files" in options or (arguments and isinstance(arguments[0], (list, tuple)))
        if several and arguments[3:] == (None,):
            arguments = arguments[:3]
        return self.write_files(*arguments, **options) if several else self._write_file(*arguments, **options)

    def write_files(
        self,
        files: Sequence[WriteEntry],
        user: str | None = None,
        request_timeout: float | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        gzip: bool = False,
    ) -> builtins.list[WriteInfo]:
        """Write several files in one request. When one cannot be written, those before it stay.

        Args:
            files: Files to write: dicts of `path` and `data`, as for `write`. For none, no request is made.
            user: User whose home directory counts and who owns what is made.
            request_timeout: Timeout for the request in seconds, as for `write`.
            metadata: What to record beside the contents of each, as for `write`.
            gzip: Compress on the way.

        Raises:
            SandboxException: As for `write`.
        """
        try:
            parts = [(path_text(file["path"]), octets(file["data"])) for file in files]
        except (KeyError, TypeError) as error:
            raise InvalidArgumentException("files has to be a list of dicts of path and data") from error
        return self._upload(parts, None, user, request_timeout, metadata, gzip) if parts else []

    def _write_file(
        self,
        path: Path,
        data: WriteData,
        user: str | None = None,
        request_timeout: float | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        gzip: bool = False,
    ) -> WriteInfo:
        target = path_text(path)
        (written,) = self._upload([("file", octets(data))], target, user, request_timeout, metadata, gzip)
        return written

    write.__dict__["__wrapped__"] = _write_file  # what help() shows of it

    def _upload(
        self,
        parts: builtins.list[tuple[str, Payload]],
        path: str | None,
        user: str | None,
        request_timeout: float | None,
        metadata: Mapping[str, str] | None,
        gzip: bool,
    ) -> builtins.list[WriteInfo]:
        """Send files; `path` is where a single one goes, in place of its name."""
        from sandbox_sync_rest.api.envd import post_files

        # Servers have a form to look through, byte by byte; what is no form they can move as it is.
        plain = path is not None and self._envd.takes_plain_files
        body = described(parts[0][1] if plain else multipart(parts), metadata)
        request = post_files.build(path=path, username=user_name(user))
        response = self._envd.upload(
            request, gzipped(body) if gzip else body, request_timeout=request_timeout
        )
        with contract():
            written = post_files.parse(response) or []
        if len(written) != len(parts):
            raise SandboxException(f"{len(parts)} files were sent, and {len(written)} were written")
        return [_write_info(file) for file in written]

    def exists(self, path: Path, user: str | None = None, request_timeout: float | None = None) -> bool:
        """Whether there is a file, directory or link at a path; a link that leads nowhere is there, too.

        Args:
            path: The path.
            user: User whose home directory counts.
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxException: The request failed.

        Specified in: Filesystem, exists
        """
        try:
            self._stat(path, user, request_timeout)
        except FileNotFoundException:
            return False
        except SandboxException as error:
            # Servers have no code for a path that leads through a file.
            if error.code == "internal" and "not a directory" in error.message.lower():
                return False
            raise
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
        return entries.entry_info(self._stat(path, user, request_timeout))

    def remove(self, path: Path, user: str | None = None, request_timeout: float | None = None) -> None:
        """Remove a file, or a directory with all that is in it. A path with nothing at it is no error.

        Args:
            path: The path.
            user: User whose home directory counts.
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxException: The request failed.

        Specified in: Filesystem, remove
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

        Specified in: Filesystem, rename
        """
        request = message(
            filesystem_pb2.MoveRequest, source=path_text(old_path), destination=path_text(new_path)
        )
        return entries.entry_info(
            self._unary(self._envd.filesystem.Move, request, user, request_timeout).entry
        )

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

        Specified in: Filesystem, make_dir
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

        Specified in: Filesystem, list
        """
        if depth is not None and (not isinstance(depth, int) or depth < 1):
            raise InvalidArgumentException(f"depth has to be a number, 1 or more; got {depth!r}")
        request = message(filesystem_pb2.ListDirRequest, path=path_text(path), depth=depth or 1)
        answer = self._unary(self._envd.filesystem.ListDir, request, user, request_timeout)
        return [entries.entry_info(entry) for entry in answer.entries]

    def watch_dir(
        self,
        path: Path,
        on_event: Callable[[FilesystemEvent], Any] | None = None,
        on_exit: Callable[[Exception | None], Any] | None = None,
        user: str | None = None,
        request_timeout: float | None = None,
        timeout: float | None = 60,
        recursive: bool = False,
        *,
        include_entry: bool = False,
        allow_network_mounts: bool = False,
    ) -> WatchHandle:
        """Watch a directory from now on.

        Args:
            path: Path of the directory.
            on_event: Called with each event, in their order, in a thread of the handle's that has the
                caller's context variables. An error of it ends the watch. Without it, the handle keeps the
                events for who asks.
            on_exit: Called once when the watch ends, in the same thread: with None if it was stopped, else
                with the error, be it the timeout, the connection's or that of `on_event`.
            user: User whose home directory counts.
            request_timeout: Timeout for starting to watch in seconds.
            timeout: Seconds after which the watch ends; 0 or None for no limit.
            recursive: Watch the directories below it, too, those that are made later included.
            include_entry: Say in the events what the files are now, as far as they are still there.
            allow_network_mounts: Watch a directory that is mounted from a network, too, where changes that
                others make are not told.

        Returns:
            The handle, by which the watch is stopped.

        Raises:
            FileNotFoundException: There is nothing at the path.
            InvalidArgumentException: It is no directory, or mounted from a network.
            AuthenticationException: The sandbox has no such user.
            SandboxException: The sandbox cannot watch any more directories, or the request failed.

        Specified in: Filesystem, watch_dir
        """
        request = message(
            filesystem_pb2.WatchDirRequest,
            path=path_text(path),
            recursive=recursive,
            include_entry=include_entry,
            allow_network_mounts=allow_network_mounts,
        )
        stream = self._envd.stream(
            self._envd.filesystem.WatchDir,
            request,
            user=user,
            timeout=seconds(timeout, "timeout"),
            tell_server=False,
            request_timeout=request_timeout,
            not_found=FileNotFoundException,
        )
        try:
            log, sandbox_id = self._envd.config.log, self._envd.sandbox_id
            return watch.WatchHandle(stream, request.path, on_event, on_exit, log, sandbox_id)
        except BaseException:
            stream.cancel()
            raise

    def _stat(self, path: Path, user: str | None, request_timeout: float | None) -> filesystem_pb2.EntryInfo:
        request = message(filesystem_pb2.StatRequest, path=path_text(path))
        return self._unary(self._envd.filesystem.Stat, request, user, request_timeout).entry

    def _unary(
        self, call: UnaryUnary[Req, Res], request: Req, user: str | None, request_timeout: float | None
    ) -> Res:
        return self._envd.unary(
            call, request, user=user, request_timeout=request_timeout, not_found=FileNotFoundException
        )


def _under_documented_names(options: dict[str, Any], start: int) -> tuple[Any, ...]:
    """Take the arguments of `write` given by the names that its forms share, to be passed by position."""
    end = max((count for count, name in enumerate(_EITHER_FORM, 1) if name in options), default=0)
    return tuple(options.pop(name, None) for name in _EITHER_FORM[start:end])


def _write_info(file: WrittenFile) -> WriteInfo:
    name = file.name or file.path.rpartition("/")[2]
    return models.WriteInfo(
        name=name, type=models.FileType.FILE, path=file.path, metadata=file.metadata or None
    )
