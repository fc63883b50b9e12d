"""Bodies of file transfers, made and read in blocks: no file is in memory whole unless that is wanted."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, cast
from uuid import uuid4

from urllib3.response import BaseHTTPResponse

from sandbox_sync.errors import InvalidArgumentException, SandboxException
from sandbox_sync.models import WriteData
from sandbox_sync.transport.connections import NETWORK_ERRORS
from sandbox_sync.transport.failures import Failure
from sandbox_sync.transport.pools import BLOCK, failure_of, link_of, require_length
from sandbox_sync.transport.sockets import TimeLimit

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Payload:
    """The body of an upload.

    Attributes:
        blocks: Reads it, from its start.
        length: Its number of bytes; None if only reading it tells.
        repeatable: Whether it can be read more than once.
        in_memory: Whether it takes no reading, so that sending it takes no longer than the network does.
        kind: The headers that say what it is.
    """

    blocks: Callable[[], Iterator[bytes]]
    length: int | None
    repeatable: bool
    in_memory: bool
    kind: Mapping[str, str]

    @property
    def headers(self) -> dict[str, str]:
        """Headers to send it with."""
        return {**self.kind, **({} if self.length is None else {"content-length": str(self.length)})}

    def __iter__(self) -> Iterator[bytes]:
        """Read it, as far as its length says.

        Raises:
            SandboxException: It is shorter than it was when its length was taken.
        """
        left = self.length
        for block in self.blocks():
            if left is not None:
                block = block[:left]
                left -= len(block)
            yield block
            if left == 0:
                return
        if left:
            raise SandboxException(f"the file became {left} bytes shorter while it was being uploaded")


def octets(data: WriteData) -> Payload:
    """The content of one file as it is.

    Raises:
        InvalidArgumentException: It is nothing that can be uploaded.
    """
    kind = {"content-type": "application/octet-stream"}
    if isinstance(data, str):
        data = data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        view = memoryview(data).cast("B")
        return Payload(lambda: _slices(view), len(view), True, True, kind)
    if hasattr(data, "read"):
        file = cast("IO[bytes] | IO[str]", data)
        start, length = _extent(file)

        def read_from_start() -> Iterator[bytes]:
            if start is not None:
                file.seek(start)
            return iter(lambda: _as_bytes(file.read(BLOCK)), b"")

        return Payload(read_from_start, length, start is not None, False, kind)
    if isinstance(data, Iterable):
        pieces = data
        return Payload(lambda: (_as_bytes(piece) for piece in pieces), None, False, False, kind)
    raise InvalidArgumentException(
        f"file content has to be str, bytes, a file or an iterable of bytes; got {type(data).__name__}"
    )


def multipart(files: Sequence[tuple[str, Payload]]) -> Payload:
    """Several files in one body.

    Args:
        files: File names, which may hold directories, and contents.

    Raises:
        InvalidArgumentException: A file name cannot be written in a header.
    """
    boundary = uuid4().hex
    heads = [_part_head(boundary, name) for name, _ in files]
    end = f"--{boundary}--\r\n".encode()
    length: int | None = len(end)
    for head, (_, content) in zip(heads, files, strict=True):
        length = None if length is None or content.length is None else length + len(head) + content.length + 2

    def blocks() -> Iterator[bytes]:
        for head, (_, content) in zip(heads, files, strict=True):
            yield head
            yield from content
            yield b"\r\n"
        yield end

    return Payload(
        blocks,
        length,
        all(content.repeatable for _, content in files),
        all(content.in_memory for _, content in files),
        {"content-type": f"multipart/form-data; boundary={boundary}"},
    )


def gzipped(payload: Payload) -> Payload:
    """The same body, compressed on its way."""

    def blocks() -> Iterator[bytes]:
        compressor = zlib.compressobj(wbits=31)
        for block in payload:
            compressed = compressor.compress(block)
            if compressed:
                yield compressed
        yield compressor.flush()

    return replace(payload, blocks=blocks, length=None, kind={**payload.kind, "content-encoding": "gzip"})


class Download:
    """A file on its way here, to be read whole or in blocks by iterating. Dropping it ends the transfer.

    Args:
        response: The answer, of a status of success.
        whole: What bounds reading it whole.
        block: What bounds waiting for one of its blocks.
        explain: Makes an error of a failure.

    Attributes:
        headers: Headers of the answer.
    """

    def __init__(
        self,
        response: BaseHTTPResponse,
        whole: TimeLimit | None,
        block: TimeLimit | None,
        explain: Callable[[Failure], SandboxException],
    ) -> None:
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._whole = whole
        self._explain = explain
        self._blocks = _received(response, block, explain)

    def read(self) -> bytearray:
        """All of it.

        Raises:
            SandboxException: It did not come whole, or not in time.
        """
        content = bytearray()  # grows in place, where joining blocks would take twice the memory
        for block in _received(self._response, self._whole, self._explain):
            content += block
        return content

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next block.

        Raises:
            SandboxException: The transfer broke or stalled.
        """
        return next(self._blocks)

    def close(self) -> None:
        """End the transfer; harmless when it has ended."""
        self._blocks.close()
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _received(
    response: BaseHTTPResponse, limit: TimeLimit | None, explain: Callable[[Failure], SandboxException]
) -> Generator[bytes, None, None]:
    link = link_of(response)
    if link is not None:
        link.settimeout(limit)
    try:
        require_length(response)
        yield from response.stream(BLOCK, decode_content=True)
        response.release_conn()
    except Failure as failure:
        raise explain(failure) from None
    except NETWORK_ERRORS as error:
        raise explain(failure_of(error, limit)) from None
    finally:
        response.close()


def _slices(view: memoryview) -> Iterator[bytes]:
    # Views are as good as bytes to a socket, and cost no copy.
    return (view[start : start + BLOCK] for start in range(0, len(view), BLOCK))  # type: ignore[misc]


def _extent(file: IO[bytes] | IO[str]) -> tuple[int | None, int | None]:
    """Where a file stands, and how many bytes follow; None for what cannot be known."""
    try:
        start = file.tell()
        end = file.seek(0, io.SEEK_END)
        file.seek(start)
    except (OSError, ValueError, AttributeError):
        return None, None
    # Positions in text files are no numbers of bytes.
    return start, None if isinstance(file, io.TextIOBase) else max(0, end - start)


def _as_bytes(piece: bytes | str) -> bytes:
    return piece.encode() if isinstance(piece, str) else piece


def _part_head(boundary: str, name: str) -> bytes:
    if any(character in name for character in "\r\n\0"):
        raise InvalidArgumentException(
            f"a file name with line breaks cannot be uploaded with others: {name!r}"
        )
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        f"--{boundary}",
        f'content-disposition: form-data; name="file"; filename="{quoted}"',
        "content-type: application/octet-stream",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()
