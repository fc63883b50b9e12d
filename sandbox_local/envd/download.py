"""Reading files over HTTP."""

from __future__ import annotations

import os
import zlib
from collections.abc import AsyncIterator

from sandbox_local.envd import content
from sandbox_local.envd.boxfiles import open_file
from sandbox_local.envd.upload import file_error
from sandbox_local.http import FileSlice, HttpError, Request, Response
from sandbox_local.isolation.base import Box, UnknownUser
from sandbox_local.threads import run_to_end

_PIECE = 256 << 10  # bytes packed at once


async def read_file(box: Box, request: Request, user: str) -> Response:
    """Answer GET /files: the file, a range of it, or that it has not changed.

    Args:
        box: Where the file is.
        request: A GET of /files.
        user: Decides where paths begin.

    Raises:
        HttpError: 400, 401, 404, 406, 412, 416 or 500.
    """
    try:
        answer, fd = await open_file(box, "open_read", user=user, path=request.parameter("path") or "")
    except (OSError, UnknownUser, ValueError) as error:
        raise file_error(error) from None
    try:
        return _answer(request, fd, answer["name"], answer["mtime_ns"])
    except BaseException:
        os.close(fd)
        raise


def _answer(request: Request, fd: int, name: str, mtime_ns: int) -> Response:
    """The answer with an open file, which belongs to it from here on."""
    size = os.fstat(fd).st_size
    etag = content.entity_tag(mtime_ns, size)
    headers = {
        "accept-ranges": "bytes",
        "etag": etag,
        "last-modified": content.http_date(mtime_ns),
        "vary": "Accept-Encoding",
    }
    status = content.precondition(request.headers, etag, mtime_ns)
    if status == 412:
        raise HttpError(412, "the file has changed", headers=headers)
    if status == 304:
        os.close(fd)
        return Response(304, headers)
    coding = content.choose_coding(request.headers.get("accept-encoding"))
    if coding is None:
        raise HttpError(406, "the file can be sent as identity or gzip, and the request accepts neither")
    headers["content-type"] = content.content_type(name, os.pread(fd, content.SNIFFED, 0))
    headers["content-disposition"] = content.content_disposition(name)
    if coding == "gzip":
        headers["content-encoding"] = "gzip"
        del headers["accept-ranges"]
        headers["etag"] = f"W/{etag}"  # the same file, in other bytes
        return Response(200, headers, _Packed(fd, size))
    try:
        span = content.wanted_range(request.headers, size, etag, mtime_ns)
    except IndexError:
        raise HttpError(
            416, f"the range lies outside of the {size} bytes", headers={"content-range": f"bytes */{size}"}
        ) from None
    if span is None:
        return Response(200, headers, FileSlice(fd, 0, size))
    headers["content-range"] = f"bytes {span.offset}-{span.offset + span.length - 1}/{size}"
    return Response(206, headers, FileSlice(fd, span.offset, span.length))


class _Packed(AsyncIterator[bytes]):
    """A file packed with gzip as it is read. An iterator with a state, and no generator, so that closing it
    closes the file even when nothing was read."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._offset = 0
        self._packer = zlib.compressobj(level=1, wbits=31)
        self._ended = False

    async def __anext__(self) -> bytes:
        while not self._ended:
            packed = await run_to_end(self._pack)
            if packed:
                return packed
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._ended = True
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _pack(self) -> bytes:
        if self._offset == self._size:
            self._ended = True
            return self._packer.flush()
        piece = os.pread(self._fd, min(_PIECE, self._size - self._offset), self._offset)
        if not piece:
            raise EOFError("the file was cut while it was sent")
        self._offset += len(piece)
        return self._packer.compress(piece)
