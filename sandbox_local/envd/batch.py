"""Small files of one form, which go into the box many at a time: a message for each costs far more than they
do."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import AsyncIterator, Mapping
from typing import Any

from sandbox_local.envd.boxfiles import ask
from sandbox_local.http import Body
from sandbox_local.isolation.base import Box
from sandbox_local.isolation.errors import restore

SMALL = 64 << 10
"""Bytes of the largest file that is sent along with others."""

_MOST_FILES = 128  # that keep the box from anything else for a few milliseconds
_MOST_BYTES = 256 << 10  # of contents and paths


class Batch:
    """Files that are complete here and not yet in the box, and what is told of those that are there.

    Attributes:
        stored: What the box says of each file that it has written, in their order.
    """

    def __init__(self, box: Box, user: str, metadata: Mapping[str, str]) -> None:
        """Make an empty one.

        Args:
            box: Where the files go.
            user: Decides where paths begin and who owns the files.
            metadata: What each of them gets.
        """
        self.stored: list[dict[str, Any]] = []
        self._box = box
        self._user = user
        self._metadata = dict(metadata)
        self._files: list[tuple[str, int]] = []
        self._pieces: list[bytes] = []
        self._size = 0
        self._sending: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether it is time to send them."""
        return len(self._files) >= _MOST_FILES or self._size >= _MOST_BYTES

    def add(self, path: str, content: bytes) -> None:
        """Take a file."""
        self._files.append((path, len(content)))
        self._pieces.append(content)
        self._size += len(path) + len(content)

    async def send(self) -> None:
        """Have all files that wait written, each in its turn, while others are got: once those of the message
        before are.

        Raises:
            OSError: One of those before can't be written; what is before that one is, and nothing after it.
            ValueError: The same, because its path can't be one.
            UnknownUser: The box has no such user.
            BoxGone: The box has ended.
        """
        await self._settle()
        if self._files:
            self._sending = asyncio.create_task(self._write(*self._take()))
            self._sending.add_done_callback(_look_at)

    async def finish(self) -> None:
        """Send what waits, and see that it is written; raises as `send`."""
        await self.send()
        await self._settle()

    def give_up(self) -> None:
        """Wait no longer for what is on its way."""
        if self._sending is not None:
            self._sending.cancel()

    async def _settle(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            try:
                await sending
            except BaseException:
                self._take()  # nothing is written after one that can't be
                raise

    def _take(self) -> tuple[list[tuple[str, int]], bytes]:
        taken = self._files, b"".join(self._pieces)
        self._files, self._pieces, self._size = [], [], 0
        return taken

    async def _write(self, files: list[tuple[str, int]], contents: bytes) -> None:
        told = await ask(
            self._box,
            "write_files",
            user=self._user,
            files=files,
            contents=binascii.b2a_base64(contents, newline=False).decode("ascii"),
            metadata=self._metadata,
        )
        self.stored.extend(map(described, told["files"]))
        if "error" in told:
            raise restore(told["error"])
        if len(told["files"]) != len(files):
            raise RuntimeError("the sandbox has not told of each file that was sent")


def _look_at(sending: asyncio.Task[None]) -> None:
    """Whoever gave up does not ask how it went, and need not be told."""
    if not sending.cancelled():
        sending.exception()


def described(told: Mapping[str, Any]) -> dict[str, Any]:
    """A file that the box has written, as the answer tells of it."""
    stored = {"path": told["path"], "name": told["name"], "type": "file"}
    if told["metadata"]:
        stored["metadata"] = told["metadata"]
    return stored


async def sent_while_waiting(batch: Batch, body: AsyncIterator[bytes], network: Body) -> AsyncIterator[bytes]:
    """The same body; before more of it has to be waited for, what waits in the batch is sent.

    Args:
        batch: The batch.
        body: The body, which may have been packed.
        network: The body as it arrives.
    """
    while True:
        if not network.buffered and not network.complete:
            await batch.send()
        try:
            piece = await anext(body)
        except StopAsyncIteration:
            return
        yield piece
