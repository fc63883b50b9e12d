"""Writing files over HTTP: forms, plain bodies, and the composition of what was sent in pieces."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from sandbox_local.envd.batch import SMALL, Batch, described, sent_while_waiting
from sandbox_local.envd.boxfiles import ask, open_file
from sandbox_local.envd.faults import unable
from sandbox_local.envd.multipart import Multipart, MultipartError, Part, parse_field
from sandbox_local.http import Body, HttpError, Request, Response
from sandbox_local.isolation.base import Box, UnknownUser
from sandbox_local.isolation.files.paths import expand_from
from sandbox_local.threads import Writer, run_to_end

_PIECE = 256 << 10  # bytes unpacked at once
_WRITTEN = 512 << 10  # bytes written at once
_MAX_PARTS = 10_000
_MAX_COMPOSITION = 4 << 20  # bytes of the request that names the files

# Paths that are just as they are meant: below the home, and from the top.
_BELOW = re.compile(r"[^/~.\0][^/\0]*(?:/[^/.\0][^/\0]*)*")
_FROM_TOP = re.compile(r"(?:/[^/.\0][^/\0]*)+")

_METADATA = "x-metadata-"
_METADATA_KEY = 246  # bytes of the longest key
_METADATA_SIZE = 4096  # bytes of all of it, each entry with the 9 of "user.e2b."

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Uploads:
    """Answers POST /files and POST /files/compose of one sandbox."""

    def __init__(self, box: Box) -> None:
        self._box = box

    async def write(self, request: Request, user: str) -> Response:
        """Store the files of a request, each in place: a file that breaks off in the middle is left as far as
        it came, or, if it is a small one of a form, as it was.

        Args:
            request: A POST of /files.
            user: Decides where paths begin and who owns the files.

        Raises:
            HttpError: 400, 401, 500 or 507; files that were complete before stay written.
        """
        kind, parameters = parse_field(request.headers.get("content-type", ""))
        metadata = read_metadata(request)
        if kind == "application/octet-stream":
            path = request.parameter("path")
            if not path:
                raise HttpError(400, "the query parameter path is missing")
            return Response.json(200, [await self._store(_decoded(request), user, path, metadata)])
        if kind.startswith("multipart/"):
            files = await self._store_form(request, parameters.get("boundary", ""), user, metadata)
            return Response.json(200, files)
        raise HttpError(400, f"content type {kind!r} is neither a form nor application/octet-stream")

    async def compose(self, request: Request, user: str) -> Response:
        """Put files together under one name and remove them.

        Args:
            request: A POST of /files/compose.
            user: As for `write`, unless the request names another.

        Raises:
            HttpError: 400, 401, 404, 500 or 507.
        """
        wanted = await request.json(_MAX_COMPOSITION)
        sources, destination, user = _composition(wanted, user)
        try:
            answer = await ask(self._box, "compose", user=user, sources=sources, destination=destination)
        except (OSError, UnknownUser, ValueError) as error:
            raise file_error(error) from None
        return Response.json(200, {"path": answer["path"], "name": answer["name"], "type": "file"})

    async def _store_form(
        self, request: Request, boundary: str, user: str, metadata: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        batch = Batch(self._box, user, metadata)
        body = sent_while_waiting(batch, _decoded(request), request.body)
        try:
            multipart = Multipart(body, boundary)
        except MultipartError as error:
            raise HttpError(400, str(error)) from None
        try:
            try:
                await self._store_parts(multipart, batch, user, request.parameter("path"), metadata)
            except Exception:
                await batch.finish()  # what came whole is stored, and what fails in that went wrong first
                raise
            await batch.finish()
        except MultipartError as error:
            raise HttpError(500, f"the multipart body is broken: {error}") from None
        except (OSError, UnknownUser, ValueError) as error:
            raise file_error(error) from None
        finally:
            batch.give_up()
        return batch.stored

    async def _store_parts(
        self, multipart: Multipart, batch: Batch, user: str, path: str | None, metadata: Mapping[str, str]
    ) -> None:
        targets = _Targets(self._box, user)
        for _ in range(_MAX_PARTS):
            part = await multipart.next_part()
            if part is None:
                return
            if part.name != "file":
                continue
            target = path or part.filename
            await targets.add(target)
            beginning, whole = await _beginning(part)
            if whole:
                batch.add(target, beginning)
                if batch.full:
                    await batch.send()
            else:
                await batch.finish()
                content = _joined(beginning, part.content)
                batch.stored.append(await self._store(content, user, target, metadata))
        raise HttpError(400, f"the form has more than {_MAX_PARTS} parts")

    async def _store(
        self, content: AsyncIterator[bytes], user: str, path: str, metadata: Mapping[str, str]
    ) -> dict[str, Any]:
        try:
            answer, fd = await open_file(
                self._box, "open_write", user=user, path=path, metadata=dict(metadata)
            )
            try:
                await _write(fd, content)
            finally:
                os.close(fd)
        except (OSError, UnknownUser, ValueError) as error:
            raise file_error(error) from None
        return described(answer)


class _Targets:
    """Where the files of a form go, each to another place."""

    def __init__(self, box: Box, user: str) -> None:
        self._box = box
        self._user = user
        self._first: str | None = None
        self._home = ""
        self._taken: set[str] = set()

    async def add(self, path: str) -> None:
        """Take a path. Its letters tell what it means: whether links lead to the same file is not asked.

        Raises:
            HttpError: It means the same as one before (400).
            ValueError: It can't be a path.
            OSError: The box does not answer.
            UnknownUser: It has no such user.
        """
        if self._first is None:
            self._first = path  # for one alone it does not matter what it means
            return
        if not self._taken:
            home = (await ask(self._box, "expand", user=self._user, path=""))["path"]
            self._home = str(home).rstrip("/")
            self._taken.add(self._meaning(self._first))
        meaning = self._meaning(path)
        if meaning in self._taken:
            raise HttpError(400, f"you cannot upload two files to the same path: {meaning}")
        self._taken.add(meaning)

    def _meaning(self, path: str) -> str:
        if path.isascii():
            if _FROM_TOP.fullmatch(path):
                return path
            if _BELOW.fullmatch(path):
                return f"{self._home}/{path}"
        return os.fsdecode(posixpath.normpath(expand_from(path, self._home)))


def file_error(error: OSError | UnknownUser | ValueError) -> HttpError:
    """The answer to a file operation that failed."""
    if isinstance(error, UnknownUser):
        return HttpError(401, str(error))
    if isinstance(error, ValueError):
        return HttpError(400, str(error))
    message = error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return HttpError(404, message)
    if isinstance(error, IsADirectoryError):
        return HttpError(400, message)
    if error.errno in _NO_SPACE:
        return HttpError(507, "not enough disk space available")
    return unable(error) or HttpError(500, message)


def read_metadata(request: Request) -> dict[str, str]:
    """The metadata that the header fields of a request give to its files.

    Raises:
        HttpError: It is too large, or not printable ASCII (400).
    """
    metadata: dict[str, str] = {}
    size = 0
    for name, value in request.headers.fields():
        key = name.removeprefix(_METADATA)
        if key == name or key in metadata:
            continue
        if not (key and (key + value).isascii() and (key + value).isprintable()):
            raise HttpError(400, f"metadata {key!r} is not printable ASCII")
        size += 9 + len(key) + len(value)
        if len(key) > _METADATA_KEY or size > _METADATA_SIZE:
            raise HttpError(
                400, f"metadata is longer than {_METADATA_KEY} bytes a key or {_METADATA_SIZE} in all"
            )
        metadata[key] = value
    return metadata


def _composition(wanted: Any, user: str) -> tuple[Sequence[str], str, str]:
    if not isinstance(wanted, dict):
        raise HttpError(400, "the request body is not a JSON object")
    sources, destination = wanted.get("source_paths"), wanted.get("destination")
    user = wanted.get("username") or user
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise HttpError(400, "source_paths is not a list of paths")
    if not isinstance(destination, str) or not destination or not isinstance(user, str):
        raise HttpError(400, "destination is not a path, or username is no name")
    return sources, destination, user


def _decoded(request: Request) -> AsyncIterator[bytes]:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return request.body
    if coding == "gzip":
        return _unpack(request.body)
    raise HttpError(400, f"content encoding {coding!r} is not supported, only gzip is")


async def _unpack(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Unpack gzip, one member or several, never more than a piece at once whatever it is packed to."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        async for packed in body:
            while packed:
                if unpacker.eof:
                    unpacker = zlib.decompressobj(wbits=31)
                yield await run_to_end(unpacker.decompress, packed, _PIECE)
                packed = unpacker.unconsumed_tail or unpacker.unused_data
    except zlib.error as error:
        raise HttpError(400, f"the body is not valid gzip: {error}") from None
    if not unpacker.eof:
        raise HttpError(400, "the gzip body is cut off")


async def _beginning(part: Part) -> tuple[bytes, bool]:
    """What a part begins with, and whether that is all of it, as it is of a small one."""
    whole = part.take_whole(SMALL)
    if whole is not None:
        return whole, True
    pieces: list[bytes] = []
    size = 0
    async for piece in part.content:
        pieces.append(piece)
        size += len(piece)
        if size > SMALL:
            return b"".join(pieces), False
    return b"".join(pieces), True


async def _joined(beginning: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield beginning
    async for piece in rest:
        yield piece


async def _write(fd: int, content: AsyncIterator[bytes]) -> None:
    """Write a file off the event loop, while what follows arrives."""
    if isinstance(content, Body):
        await content.save(fd)
        return
    async with Writer(fd) as writer:
        pieces: list[bytes] = []
        size = 0
        async for piece in content:
            pieces.append(piece)
            size += len(piece)
            if size >= _WRITTEN:
                await writer.write(*pieces)
                pieces, size = [], 0
        await writer.write(*pieces)
