"""Bodies of file transfers, made and read in blocks: no file is in memory whole unless that is wanted."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import quote
from uuid import uuid4

from sandbox_sync.errors import InvalidArgumentException, SandboxException
from sandbox_sync.transport.answers import content_of, failure_of, require_length
from sandbox_sync.transport.failures import Failure
from sandbox_sync.transport.http1 import BLOCK, NETWORK_ERRORS, SHORT, Answer
from sandbox_sync.transport.sockets import TimeLimit
from sandbox_sync.transport.sources import FileSource, Source, is_of_system

if TYPE_CHECKING:
    from typing_extensions import Self

    from sandbox_sync.models.files import WriteData

_METADATA = "x-metadata-"
_XATTR = "user.e2b."  # what servers put before a key where they record it
_MOST_METADATA = 4096
_METADATA_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,246}")
_METADATA_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")

# File names that servers read in different ways, or not at all, between quotation marks in a header.
_UNQUOTABLE = re.compile(r"[\x00-\x1f\x7f]|%(?:22|0[0-9A-Fa-f]|1[0-9A-Fa-f])")


@dataclass(frozen=True)
class Payload:
    """The body of an upload.

    Attributes:
        blocks: Reads it, from its start.
        length: Its number of bytes; None if only reading it tells.
        repeatable: Whether it can be read more than once.
        in_memory: Whether it takes no reading, so that sending it takes no longer than the network does.
        kind: The headers that say what it is.
        source: Makes a body of the same bytes that may be sent faster.
    """

    blocks: Callable[[], Iterator[bytes]]
    length: int | None
    repeatable: bool
    in_memory: bool
    kind: Mapping[str, str]
    source: Callable[[], Source] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers to send it with."""
        return {**self.kind, **({} if self.length is None else {"content-length": str(self.length)})}

    @property
    def is_short(self) -> bool:
        """Whether it pays to have it in one piece."""
        return self.in_memory and self.length is not None and self.length <= SHORT

    def in_one_piece(self) -> bytes:
        """All of it."""
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        """Read it, as far as its length says.

        Raises:
            SandboxException: It is shorter than it was when its length was taken.
        """
        return self.blocks() if self.in_memory else self._read()

    def _read(self) -> Iterator[bytes]:
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
        data = _as_bytes(data)
    if hasattr(data, "read"):
        file = cast("IO[bytes] | IO[str]", data)
        start, length = _extent(file)

        def read_from(position: int | None) -> Iterator[bytes]:
            if position is not None:
                file.seek(position)
            return iter(lambda: _as_bytes(file.read(BLOCK)), b"")

        payload = Payload(lambda: read_from(start), length, start is not None, False, kind)
        if start is None or length is None or length < BLOCK or not is_of_system(file):
            return payload
        end = start + length

        def rest(position: int) -> Payload:
            return replace(payload, blocks=lambda: read_from(position), length=end - position)

        return replace(payload, source=lambda: FileSource(file, start, length, rest))
    view = _view_of(data)
    if view is not None:
        return Payload(lambda: _slices(view), len(view), True, True, kind)
    if isinstance(data, Iterable) and not isinstance(data, Mapping):
        pieces = cast("Iterable[bytes | str]", data)
        return Payload(lambda: (_as_bytes(piece) for piece in pieces), None, False, False, kind)
    raise InvalidArgumentException(
        f"file content has to be str, bytes, a file or an iterable of bytes; got {type(data).__name__}"
    )


def multipart(files: Sequence[tuple[str, Payload]]) -> Payload:
    """Several files in one body.

    Args:
        files: File names, which may hold directories, and contents.
    """
    boundary = uuid4().hex
    delimiter = f"--{boundary}"
    heads = []
    for name, _ in files:
        heads.append(_part_head(delimiter, name))
        delimiter = f"\r\n--{boundary}"
    end = f"{delimiter}--\r\n".encode()
    length: int | None = len(end)
    for head, (_, content) in zip(heads, files, strict=True):
        length = None if length is None or content.length is None else length + len(head) + content.length

    def blocks() -> Iterator[bytes]:
        for head, (_, content) in zip(heads, files, strict=True):
            yield head
            yield from content
        yield end

    in_memory = all(content.in_memory for _, content in files)
    return Payload(
        (lambda: _gathered(blocks())) if in_memory else blocks,  # what has to be read may come slowly
        length,
        all(content.repeatable for _, content in files),
        in_memory,
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

    return replace(
        payload, blocks=blocks, source=None, length=None, kind={**payload.kind, "content-encoding": "gzip"}
    )


def described(payload: Payload, metadata: Mapping[str, str] | None) -> Payload:
    """The same body, with what is to be recorded beside the contents of its files.

    Raises:
        InvalidArgumentException: A key or value is not text that can be recorded, or they are too long.
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InvalidArgumentException(f"metadata has to be a dict; got {type(metadata).__name__}")
    headers: dict[str, str] = {}
    for key, value in (metadata or {}).items():
        if not (isinstance(key, str) and _METADATA_KEY.fullmatch(key)):
            raise InvalidArgumentException(
                f"a metadata key has to be up to 246 letters, digits and !#$%&'*+-.^_`|~; got {key!r}"
            )
        if not (isinstance(value, str) and _METADATA_VALUE.fullmatch(value)):
            raise InvalidArgumentException(
                f"a metadata value has to be printable ASCII, without spaces around it: {key!r} is {value!r}"
            )
        name = _METADATA + key.lower()
        if name in headers:
            raise InvalidArgumentException(f"metadata keys are kept in lower case, so {key!r} is there twice")
        headers[name] = value
    size = sum(len(_XATTR + name) - len(_METADATA) + len(value) for name, value in headers.items())
    if size > _MOST_METADATA:
        raise InvalidArgumentException(
            f"metadata is too long: {size} bytes of keys and values, with {len(_XATTR)} for each pair; "
            f"{_MOST_METADATA} are allowed"
        )
    return replace(payload, kind={**payload.kind, **headers})


class Download:
    """A file on its way here, to be read whole or in blocks by iterating. Dropping it ends the transfer.

    Once it has failed, it fails in the same way for who reads on: what was cut short must not seem to end.

    Args:
        answer: The answer, of a status of success.
        whole: What bounds reading it whole, beside the silence that `block` allows.
        block: What bounds waiting for one of its blocks.
        explain: Makes an error of a failure.

    Attributes:
        headers: Headers of the answer.
    """

    def __init__(
        self,
        answer: Answer,
        whole: TimeLimit | None,
        block: TimeLimit | None,
        explain: Callable[[Failure], SandboxException],
    ) -> None:
        self.headers = answer.headers
        self._answer = answer
        self._whole = block if whole is None else TimeLimit(whole.deadline, block.silence if block else None)
        self._explain = explain
        self._blocks = _received(answer)
        self._error: Exception | None = None
        self._bound_by(block)

    def read(self) -> bytearray:
        """All of it.

        Raises:
            SandboxException: It did not come whole, or not in time.
        """
        self._bound_by(self._whole)
        content = bytearray()  # grows in place, where joining blocks would take twice the memory
        for block in self:
            content += block
        return content

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next block.

        Raises:
            SandboxException: The transfer broke or stalled.
            ValueError: It has been closed.
        """
        if self._error is None:
            try:
                block = next(self._blocks)
                if self._error is None:  # another thread may just have closed it
                    return block
                self._blocks.close()
                self._fail(Failure("", reason="cancelled"))
            except StopIteration:
                if self._error is None:
                    raise
            except Failure as failure:
                self._fail(failure)
            except NETWORK_ERRORS as error:
                self._fail(failure_of(error, self._limit))
            except ValueError:  # what a generator that is being executed says
                words = (
                    "another thread is reading the file, or was when this process was forked; read it anew"
                )
                raise self._explain(Failure(words, reason="cancelled")) from None
            except BaseException:
                self._error = SandboxException("reading the file was interrupted; read it anew")
                raise
        raise self._error or ValueError("the file was closed")

    def close(self) -> None:
        """End the transfer, from any thread; harmless when it has ended."""
        ended, self._error = self._error, self._error or ValueError("the file has been closed")
        try:
            self._blocks.close()
        except ValueError:  # another thread waits in it, and is woken up
            if ended is None:
                self._answer.interrupt()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _bound_by(self, limit: TimeLimit | None) -> None:
        self._limit = limit
        self._answer.bound(limit)

    def _fail(self, failure: Failure) -> None:
        if self._error is not None:
            failure = Failure("it was closed while it was being read", reason="cancelled")
        self._error = self._explain(failure)


def _received(answer: Answer) -> Generator[bytes, None, None]:
    """The content of an answer, none of it empty; raises `Failure` and `NETWORK_ERRORS`."""
    try:
        require_length(answer)
        yield from content_of(answer)
    finally:
        answer.close()


def _slices(view: memoryview) -> Iterator[bytes]:
    # Views are as good as bytes to a socket, and cost no copy.
    return (view[start : start + BLOCK] for start in range(0, len(view), BLOCK))  # type: ignore[misc]


def _gathered(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same in blocks that are worth a system call each."""
    parts: list[bytes] = []
    size = 0
    for block in blocks:
        length = len(block)
        if parts and size + length > BLOCK:
            yield b"".join(parts)
            parts, size = [], 0
        if length >= BLOCK:
            yield block
        else:
            parts.append(block)
            size += length
    if parts:
        yield b"".join(parts)


def _extent(file: IO[bytes] | IO[str]) -> tuple[int | None, int | None]:
    """Where a file stands, and how many bytes follow; None for what cannot be known."""
    try:
        start = file.tell()
        file.seek(0, io.SEEK_END)
        end = file.tell()
        file.seek(start)
    except (OSError, ValueError, AttributeError, TypeError):
        return None, None
    # Positions in text files are no numbers of bytes, and devices say that they are empty.
    return start, None if isinstance(file, io.TextIOBase) or end <= start else end - start


def _view_of(data: object) -> memoryview | None:
    """The bytes of what is made of bytes, without a copy if they lie side by side."""
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        return None
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def _as_bytes(piece: object) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        try:
            return piece.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentException(f"file content is not Unicode text: {error}") from None
    view = _view_of(piece)
    if view is None:
        raise InvalidArgumentException(f"file content has to be bytes or str; got {type(piece).__name__}")
    return view  # type: ignore[return-value]  # as good as bytes to a socket


def _part_head(delimiter: str, name: str) -> bytes:
    if _UNQUOTABLE.search(name):
        named = f"filename*=utf-8''{quote(name, safe='')}"
    else:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        named = f'filename="{escaped}"'
    return (
        f"{delimiter}\r\n"
        f'content-disposition: form-data; name="file"; {named}\r\n'
        "content-type: application/octet-stream\r\n\r\n"
    ).encode()
